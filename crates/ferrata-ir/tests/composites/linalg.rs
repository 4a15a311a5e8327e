//! Linear algebra, and factors as primitives.

use crate::check::{build, check, f64s, random, run};
use ferrata_ir::Literal;
use ferrata_ir::composite::{cholesky_solve, det, lstsq, matrix_rank, pinv, slogdet, solve};
use ferrata_ir::primitive::{Factorization, Factorize};
use ferrata_ir::transform::value_and_grad;
use std::sync::Arc;

/// Well-conditioned matrices with singular values apart from each other.
fn matrices(seed: usize, shape: &[usize]) -> Literal {
    let [.., m, n] = *shape else { panic!("{shape:?}") };
    let mut x = random(seed, shape).to_f64();
    for (i, x) in x.iter_mut().enumerate() {
        let (row, column) = (i / n % m, i % n);
        *x = *x * 0.4 + if row == column { 1.0 + row as f64 } else { 0.0 };
    }
    Literal::float(f64s(shape), x)
}

#[test]
fn systems_of_equations() {
    let args = [matrices(1, &[2, 3, 3]), random(2, &[2, 3, 2])];
    check(&args, |b, x| vec![solve(b, x[0], x[1])]);
    check(&args, |b, x| {
        let l = b.lower_triangle(x[0], false);
        vec![cholesky_solve(b, l, x[1])]
    });
    check(&args[..1], |b, x| vec![det(b, x[0])]);
    check(&args[..1], |b, x| vec![slogdet(b, x[0]).1]);
    check(&[matrices(3, &[4, 2]), random(4, &[4, 3])], |b, x| vec![lstsq(b, x[0], x[1])]);
    check(&[matrices(5, &[2, 4]), random(6, &[2, 1])], |b, x| vec![lstsq(b, x[0], x[1])]);
    for shape in [[3, 3], [4, 2], [2, 4]] {
        check(&[matrices(7, &shape)], |b, x| vec![pinv(b, x[0], 1e-12)]);
    }
}

#[test]
fn exchanges_of_rows_change_signs() {
    let x =
        [0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 2.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 3.0];
    let args = [Literal::float(f64s(&[2, 3, 3]), x.to_vec())];
    let f = build(&args, |b, x| {
        let (sign, log) = slogdet(b, x[0]);
        vec![det(b, x[0]), sign, log]
    });
    let [det, sign, log] = run(&f, &args).try_into().unwrap();
    assert_eq!(det.to_f64(), [30.0, -30.0]);
    assert_eq!(sign.to_f64(), [1.0, -1.0]);
    assert!(log.to_f64().iter().all(|x| (x - 30f64.ln()).abs() < 1e-15));
}

#[test]
fn singular_matrices() {
    let x = [1.0, 2.0, 2.0, 4.0];
    let args = [Literal::float(f64s(&[2, 2]), x.to_vec()), random(1, &[2, 1])];
    let f = build(&args, |b, x| {
        let (sign, log) = slogdet(b, x[0]);
        let inverse = pinv(b, x[0], 1e-12);
        let rank = matrix_rank(b, x[0], 1e-12);
        vec![det(b, x[0]), sign, log, solve(b, x[0], x[1]), inverse, rank]
    });
    let got = run(&f, &args);
    assert_eq!(got[0].to_f64(), [0.0]);
    assert_eq!(got[1].to_f64(), [0.0]);
    assert_eq!(got[2].to_f64(), [f64::NEG_INFINITY]);
    assert!(got[3].to_f64().iter().all(|x| !x.is_finite()));
    let want = x.map(|x| x / 25.0);
    assert!(got[4].to_f64().iter().zip(want).all(|(x, y)| (x - y).abs() < 1e-16));
    assert_eq!(got[5].to_i64(), [1]);
}

/// Values have derivatives where they are equal, vectors do not.
#[test]
fn equal_eigenvalues_and_singular_values() {
    let identity = (0..9).map(|i| if i % 4 == 0 { 2.0 } else { 0.0 }).collect();
    let args = [Literal::float(f64s(&[3, 3]), identity)];
    for (kind, values, vectors) in [(Factorization::Eigh, 0, 1), (Factorization::Svd, 1, 0)] {
        let gradient = |result: usize| {
            let loss = build(&args, |b, x| {
                let y = b.emit(Factorize { kind }, &[x[0]])[result];
                let square = b.mul(y, y);
                let dims: Vec<usize> = (0..b.ty(y).rank()).collect();
                vec![b.sum(square, &dims)]
            });
            run(&Arc::new(value_and_grad(&loss, &[true]).unwrap()), &args)[1].to_f64()
        };
        assert_eq!(gradient(values), [4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 4.0]);
        assert!(gradient(vectors).iter().any(|x| !x.is_finite()));
    }
}
