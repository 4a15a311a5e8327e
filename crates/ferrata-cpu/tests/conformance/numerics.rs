//! Linear algebra, Fourier transforms and segments, values and gradients.

use crate::support::{check, check_both_ways, program, small, ty};
use ferrata_ir::composite::*;
use ferrata_ir::primitive::{Dense, Factorization, Factorize};
use ferrata_ir::testing::Random;
use ferrata_ir::{Builder, DType, Literal, Scalar, Value};
use std::sync::Arc;

/// The results of `build` and the cotangents of all operands, for operands of these shapes.
fn both_ways(
    shapes: &[&[usize]],
    what: &str,
    build: impl Fn(&mut Builder, &[Value]) -> Vec<Value>,
) {
    check_both_ways(&[DType::F32, DType::F64], shapes, 16.0, what, build);
}

/// Matrices far from singular ones, with singular values apart from each other.
fn regular(b: &mut Builder, x: Value) -> Value {
    let ty = b.ty(x).clone();
    let row = b.iota(ty.clone(), ty.rank() - 2);
    let steps = b.offset(row, 3.0);
    let (on, above) = (b.lower_triangle(steps, false), b.lower_triangle(steps, true));
    let diagonal = b.sub(on, above);
    b.add(x, diagonal)
}

#[test]
fn linear_algebra() {
    let factors = |kind| {
        move |b: &mut Builder, x: &[Value]| {
            let a = regular(b, x[0]);
            b.emit(Factorize { kind }, &[a])
        }
    };
    for shape in [&[2, 5, 5][..], &[1, 1], &[0, 0], &[0, 3, 3]] {
        let [lines @ .., n, _] = shape else { continue };
        let rhs = [lines, &[*n, 2]].concat();
        both_ways(&[shape, &rhs], "solve", |b, x| {
            let a = regular(b, x[0]);
            vec![solve(b, a, x[1])]
        });
        both_ways(&[shape], "determinants", |b, x| {
            let a = regular(b, x[0]);
            let a = b.scale(a, 0.25);
            vec![det(b, a), slogdet(b, a).1]
        });
        both_ways(&[shape], "cholesky", factors(Factorization::Cholesky));
        both_ways(&[shape], "eigh", factors(Factorization::Eigh));
    }
    for shape in [&[2, 5, 3][..], &[3, 5], &[4, 0], &[0, 4]] {
        let [lines @ .., m, _] = shape else { continue };
        let rhs = [lines, &[*m, 2]].concat();
        both_ways(&[shape], "qr", factors(Factorization::Qr));
        both_ways(&[shape], "svd", factors(Factorization::Svd));
        both_ways(&[shape], "pinv", |b, x| {
            let a = regular(b, x[0]);
            vec![pinv(b, a, 1e-5)]
        });
        both_ways(&[shape, &rhs], "lstsq", |b, x| {
            let a = regular(b, x[0]);
            vec![lstsq(b, a, x[1])]
        });
    }
}

#[test]
fn spectra_of_real_values() {
    for n in [1, 2, 9, 16, 34] {
        both_ways(&[&[2, 3, n]], "rfft", |b, x| vec![rfft(b, x[0])]);
        both_ways(&[&[2, 3, n / 2 + 1, 2]], "irfft", |b, x| vec![irfft(b, x[0], n)]);
        both_ways(&[&[n, 2], &[n, 2]], "complex_mul", |b, x| vec![complex_mul(b, x[0], x[1])]);
    }
    both_ways(&[&[0, 4]], "rfft of nothing", |b, x| vec![rfft(b, x[0])]);
}

#[test]
fn segments() {
    let all = [Segment::Sum, Segment::Mean, Segment::Product, Segment::Max, Segment::Min];
    for (rows, columns, count) in [(40, 3, 5), (1, 1, 1), (0, 3, 2), (4, 0, 2), (4, 2, 0)] {
        for how in all {
            both_ways(&[&[rows, columns]], &format!("{how:?}"), |b, x| {
                // One id in seven is none; every segment has a row where there are enough.
                let ids = Literal::build(ty(DType::I64, &[rows]), |i| {
                    Scalar::Int(if i % 7 == 6 { -1 } else { (i % count.max(1)) as i64 })
                });
                let ids = b.emit1(Dense { value: Arc::new(ids) }, &[]);
                vec![segment(b, x[0], ids, count, how)]
            });
        }
    }
}

#[test]
fn searches() {
    for dtype in [DType::F32, DType::I64] {
        for (n, m) in [(9, 20), (1, 1), (0, 3), (3, 0), (1000, 50)] {
            let types = [ty(dtype, &[2, n]), ty(dtype, &[2, m]), ty(DType::Bool, &[m, 3])];
            let f = program(&types, |b, x| {
                let (places, found) = nonzero(b, x[2], m + 1);
                vec![
                    searchsorted(b, x[0], x[1], false),
                    searchsorted(b, x[0], x[1], true),
                    places,
                    found,
                ]
            });
            let sorted = Literal::build(types[0].clone(), |i| match dtype {
                DType::F32 => Scalar::Float((i % n / 2) as f64 / 8.0),
                _ => Scalar::Int((i % n / 2) as i64),
            });
            let random = &mut Random::new(n as u64);
            let others = types[1..].iter().map(|ty| small(random, ty));
            let args: Vec<Literal> = [sorted].into_iter().chain(others).collect();
            check(&f, &args, 0.0, 0.0, &format!("{dtype} {n} {m}"));
        }
    }
}
