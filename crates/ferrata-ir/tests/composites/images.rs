//! Derivatives, second derivatives and batching of convolutions, pooling and resizing; what they
//! refuse.

use crate::check::{build, check, f64s, random, run};
use ferrata_ir::composite::*;
use ferrata_ir::testing::check_gradient;
use ferrata_ir::{Builder, Literal, Type, Value};
use std::slice::from_ref;

/// Different numbers, none of them close to another.
fn apart(shape: &[usize]) -> Literal {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| ((i * 7919 + 3) % n) as f64 / 4.0 - 2.0).collect();
    Literal::float(f64s(shape), values)
}

#[test]
fn convolutions() {
    let args = [random(1, &[2, 4, 5]), random(2, &[6, 2, 3]), random(3, &[6])];
    let how = Conv::new(1).stride(2).padding(1).groups(2);
    check(&args, |b, x| vec![conv(b, x[0], x[1], Some(x[2]), &how)]);
    let args = [random(1, &[1, 2, 4, 3]), random(2, &[2, 2, 2, 2])];
    let how = Conv { padding: vec![(1, 0), (-1, 2)], ..Conv::new(2).dilation(2) };
    check(&args, |b, x| vec![conv(b, x[0], x[1], None, &how)]);
    let args = [random(1, &[2, 2, 3, 2]), random(2, &[2, 3, 2, 3]), random(3, &[3])];
    let how = Conv { stride: vec![2, 1], ..Conv::new(2).padding(1) };
    check(&args, |b, x| vec![conv_transpose(b, x[0], x[1], Some(x[2]), &how, &[1, 0])]);
}

#[test]
fn windows_as_columns_and_back() {
    let how = Conv { padding: vec![(1, 0), (0, 1)], stride: vec![2, 1], ..Conv::new(2) };
    let x = random(1, &[2, 2, 4, 3]);
    check(from_ref(&x), |b, x| vec![unfold(b, x[0], &[2, 3], &how)]);
    let columns = random(2, &[2, 12, 4]);
    check(from_ref(&columns), |b, x| vec![fold(b, x[0], &[4, 3], &[2, 3], &how)]);
    // <unfold(x), y> = <x, fold(y)>
    let both = [x, columns];
    let f = build(&both, |b, x| {
        vec![unfold(b, x[0], &[2, 3], &how), fold(b, x[1], &[4, 3], &[2, 3], &how)]
    });
    let results = run(&f, &both);
    let dot = |a: &Literal, b: &Literal| -> f64 {
        a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| a * b).sum()
    };
    assert!((dot(&results[0], &both[1]) - dot(&both[0], &results[1])).abs() < 1e-12);
}

#[test]
fn pools() {
    let x = apart(&[2, 5, 6]);
    let pool = Pool::new([2, 3]).stride([1, 2]).padding([1, 1]);
    check(from_ref(&x), |b, x| vec![max_pool(b, x[0], &pool)]);
    check(from_ref(&x), |b, x| vec![max_pool(b, x[0], &Pool::new([2]).dilation([2]).ceil())]);
    for include in [false, true] {
        check(from_ref(&x), |b, x| vec![avg_pool(b, x[0], &pool, include)]);
        check(from_ref(&x), |b, x| vec![avg_pool(b, x[0], &pool.clone().ceil(), include)]);
    }
    for sizes in [[1, 1], [3, 4], [5, 3], [7, 8]] {
        check(from_ref(&x), |b, x| vec![adaptive_avg_pool(b, x[0], &sizes)]);
        check(from_ref(&x), |b, x| vec![adaptive_max_pool(b, x[0], &sizes)]);
    }
}

#[test]
fn resizing() {
    let x = random(1, &[2, 4, 3]);
    for align_corners in [false, true] {
        for mode in [
            Interpolation::Nearest,
            Interpolation::Linear { align_corners },
            Interpolation::Cubic { align_corners },
        ] {
            for sizes in [[8, 6], [3, 5], [1, 2]] {
                check(from_ref(&x), |b, x| vec![interpolate(b, x[0], &sizes, mode)]);
            }
        }
    }
}

#[test]
fn sampling_at_places() {
    let places = vec![-0.9, 0.13, 0.31, -0.42, 0.77, 0.58, -1.6, 0.2, 1.43, -1.35, 0.05, 0.9];
    let args = [random(1, &[1, 2, 4, 5]), Literal::float(f64s(&[1, 2, 3, 2]), places)];
    for outside in [Outside::Zeros, Outside::Border] {
        for align_corners in [false, true] {
            let how = GridSample { nearest: false, outside, align_corners };
            check(&args, |b, x| vec![grid_sample(b, x[0], x[1], how)]);
            let how = GridSample { nearest: true, ..how };
            check(&args, |b, x| vec![grid_sample(b, x[0], x[1], how)]);
        }
    }
}

/// A whole number of values and gradients of ties: they go to the first; NaN wins.
#[test]
fn the_first_of_equal_elements_is_the_largest() {
    let x = Literal::float(f64s(&[1, 4]), vec![2.0, 2.0, f64::NAN, 1.0]);
    let f = build(from_ref(&x), |b, x| vec![max_pool(b, x[0], &Pool::new([1, 2]))]);
    let y = run(&f, from_ref(&x))[0].to_f64();
    assert!(y[0] == 2.0 && y[1].is_nan());
    let g = ferrata_ir::transform::vjp(&f, &[true]).unwrap();
    let dy = Literal::float(f64s(&[1, 2]), vec![3.0, 5.0]);
    assert_eq!(run(&g, &[x, dy])[1].to_f64(), [3.0, 0.0, 5.0, 0.0]);
    // A flat place is no smooth one, but the sum of the gradient is right.
    assert!(check_gradient(&f, &[apart(&[1, 4])], 1).is_ok());
}

#[test]
fn what_does_not_fit_is_refused() {
    type Case<'a> = (&'a [&'a [usize]], fn(&mut Builder, &[Value]) -> Value, &'a str);
    let cases: &[Case] = &[
        (
            &[&[1, 3, 5], &[2, 2, 3]],
            |b, x| conv(b, x[0], x[1], None, &Conv::new(1)),
            "does not fit 3 channels",
        ),
        (
            &[&[1, 3, 5, 5], &[2, 3, 3]],
            |b, x| conv(b, x[0], x[1], None, &Conv::new(1)),
            "1 spatial dimensions each, but got f64[1,3,5,5]",
        ),
        (
            &[&[1, 4, 5], &[3, 2, 3]],
            |b, x| conv(b, x[0], x[1], None, &Conv::new(1).groups(2)),
            "in 2 groups",
        ),
        (
            &[&[1, 4, 5], &[2, 4, 3], &[3]],
            |b, x| conv(b, x[0], x[1], Some(x[2]), &Conv::new(1)),
            "must have shape [2]",
        ),
        (&[&[1, 4]], |b, x| max_pool(b, x[0], &Pool::new([5])), "do not fit into 4"),
        (&[&[1, 4]], |b, x| max_pool(b, x[0], &Pool::new([3]).padding([2])), "more than half"),
        (
            &[&[1, 4]],
            |b, x| avg_pool(b, x[0], &Pool::new([2]).dilation([2]), true),
            "dilated windows",
        ),
        (&[&[1, 4]], |b, x| adaptive_avg_pool(b, x[0], &[0]), "do not cover"),
        (
            &[&[1, 0]],
            |b, x| interpolate(b, x[0], &[3], Interpolation::Nearest),
            "all sizes must be at least 1",
        ),
        (
            &[&[1, 2, 3, 3], &[1, 2, 2]],
            |b, x| {
                let how =
                    GridSample { nearest: true, outside: Outside::Zeros, align_corners: true };
                grid_sample(b, x[0], x[1], how)
            },
            "give images [batch, channels, height, width]",
        ),
        (
            &[&[1, 5, 4]],
            |b, x| fold(b, x[0], &[5], &[2], &Conv::new(1)),
            "are not the windows of [2]",
        ),
        (
            &[&[1, 3], &[3], &[3], &[3], &[3]],
            |b, x| batch_norm_train(b, x[0], [x[1], x[2], x[3], x[4]], 0.1, 1e-5).y,
            "1 values per channel",
        ),
    ];
    for (shapes, make, part) in cases {
        let mut b = Builder::new("f");
        let types: Vec<Type> = shapes.iter().map(|shape| f64s(shape)).collect();
        let x = b.parameters(&types);
        let y = make(&mut b, &x);
        let message = b.finish(&[y]).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}
