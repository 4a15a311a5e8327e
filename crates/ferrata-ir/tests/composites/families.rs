//! Derivatives, second derivatives and batching of every composite but attention.

use crate::check::{build, check, f64s, ints, random, run};
use ferrata_ir::composite::*;
use ferrata_ir::transform::vjp;
use ferrata_ir::{Builder, Literal, Value};
use std::slice::from_ref;

#[test]
fn softmax_family() {
    for dim in 0..3 {
        check(&[random(1, &[2, 3, 2])], |b, x| vec![softmax(b, x[0], dim)]);
        check(&[random(2, &[2, 3, 2])], |b, x| vec![log_softmax(b, x[0], dim)]);
    }
    check(&[random(3, &[2, 3, 2])], |b, x| vec![logsumexp(b, x[0], &[0, 2])]);
}

#[test]
fn layer_norms() {
    let (x, w, c) = (random(1, &[2, 3, 4]), random(2, &[4]), random(3, &[4]));
    let args = [x, w, c];
    check(&args, |b, x| vec![layer_norm(b, x[0], Some(x[1]), Some(x[2]), 1, 0.01)]);
    check(&args[..2], |b, x| vec![layer_norm(b, x[0], Some(x[1]), None, 1, 0.01)]);
    check(&args[..2], |b, x| vec![layer_norm(b, x[0], None, Some(x[1]), 1, 0.01)]);
    check(&args[..1], |b, x| vec![layer_norm(b, x[0], None, None, 2, 0.01)]);
}

#[test]
fn rms_norms() {
    let args = [random(1, &[2, 2, 4]), random(2, &[4])];
    for offset in [0.0, 1.0] {
        check(&args, |b, x| vec![rms_norm(b, x[0], x[1], 0.01, offset)]);
    }
}

#[test]
fn norms_of_channels() {
    let per_channel = |seed| random(seed, &[4]);
    let mut args = vec![random(1, &[2, 4, 3]), per_channel(2), per_channel(3)];
    check(&args, |b, x| vec![group_norm(b, x[0], x[1], x[2], 2, 0.01)]);
    args.push(per_channel(4));
    args.push(Literal::float(f64s(&[4]), vec![0.5, 1.0, 2.0, 0.7]));
    check(&args, |b, x| vec![batch_norm(b, x[0], [x[1], x[2], x[3], x[4]], 0.01)]);
    check(&args, |b, x| vec![batch_norm_train(b, x[0], [x[1], x[2], x[3], x[4]], 0.1, 0.01).y]);
}

#[test]
fn statistics() {
    let x = [random(1, &[2, 3, 2])];
    check(&x, |b, x| vec![mean(b, x[0], &[0, 2])]);
    for correction in [0.0, 1.0] {
        check(&x, |b, x| vec![var(b, x[0], &[1], correction)]);
        check(&x, |b, x| vec![std(b, x[0], &[0, 1], correction)]);
    }
    for p in [1.0, 1.7, 2.0, 3.0, f64::INFINITY, f64::NEG_INFINITY] {
        check(&x, |b, x| vec![norm(b, x[0], &[1, 2], p)]);
    }
    check(&x, |b, x| vec![l2_normalize(b, x[0], 1, 1e-12)]);
}

#[test]
fn activations() {
    type Activation = fn(&mut Builder, Value) -> Value;
    let all: &[Activation] = &[
        relu,
        relu6,
        |b, x| leaky_relu(b, x, 0.1),
        |b, x| elu(b, x, 0.7),
        selu,
        softsign,
        hard_sigmoid,
        hard_swish,
        silu,
        gelu,
        gelu_tanh,
        |b, x| softplus(b, x, 1.5),
        log_sigmoid,
        mish,
    ];
    let x = Literal::float(f64s(&[9]), vec![-4.1, -2.3, -0.9, -0.2, 0.3, 0.8, 2.1, 5.2, 7.0]);
    for f in all {
        check(from_ref(&x), |b, x| vec![f(b, x[0])]);
    }
    check(&[random(1, &[2, 3]), random(2, &[2, 3])], |b, x| vec![swiglu(b, x[0], x[1])]);
}

/// No overflow, and NaN stays NaN, also where another branch is taken.
#[test]
fn activations_at_the_edges() {
    type Activation = fn(&mut Builder, Value) -> Value;
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let cases: &[(Activation, [f64; 4], [f64; 4])] = &[
        (relu, [0.0, 1e3, 0.0, nan], [0.0, 1.0, 0.0, 1.0]),
        (|b, x| elu(b, x, 1.0), [-1.0, 1e3, 0.0, nan], [0.0, 1.0, 1.0, nan]),
        (|b, x| softplus(b, x, 1.0), [0.0, 1e3, 2f64.ln(), nan], [0.0, 1.0, 0.5, nan]),
        (silu, [0.0, 1e3, 0.0, nan], [0.0, 1.0, 0.5, nan]),
        (gelu, [0.0, 1e3, 0.0, nan], [0.0, 1.0, 0.5, nan]),
        (mish, [0.0, 1e3, 0.0, nan], [0.0, 1.0, 0.6, nan]),
    ];
    let same = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-12 || (x.is_nan() && y.is_nan()))
    };
    let x = [Literal::float(f64s(&[4]), vec![-1e3, 1e3, 0.0, nan])];
    for (i, (f, y, dx)) in cases.iter().enumerate() {
        let f = build(&x, |b, x| vec![f(b, x[0])]);
        let dy = Literal::float(f64s(&[4]), vec![1.0; 4]);
        let got = run(&vjp(&f, &[true]).unwrap(), &[x[0].clone(), dy]);
        assert!(same(&got[0].to_f64(), y), "{i}: {:?}", got[0]);
        assert!(same(&got[1].to_f64(), dx), "{i}: {:?}", got[1]);
    }
    let pair = [
        Literal::float(f64s(&[4]), vec![-inf, 1e3, -inf, inf]),
        Literal::float(f64s(&[4]), vec![-inf, 1e3, 2.0, 1.0]),
    ];
    let f = build(&pair, |b, x| vec![logaddexp(b, x[0], x[1])]);
    assert_eq!(run(&f, &pair)[0].to_f64(), [-inf, 1e3 + 2f64.ln(), 2.0, inf]);
}

#[test]
fn functions_of_two() {
    let args = [random(1, &[7]), random(2, &[7])];
    check(&args, |b, x| vec![logaddexp(b, x[0], x[1])]);
    check(&args, |b, x| vec![hypot(b, x[0], x[1])]);
    check(&args, |b, x| vec![remainder(b, x[0], x[1])]);
    check(&[random(3, &[2, 6])], |b, x| vec![logcumsumexp(b, x[0], 1)]);
    check(&[random(3, &[4, 3])], |b, x| {
        let (y, _) = cumulative_extreme(b, x[0], 0, true);
        vec![y]
    });
}

#[test]
fn whole_number_division_rounds_down() {
    let args = [ints(&[6], &[7, -7, 7, -7, 6, 5]), ints(&[6], &[3, 3, -3, -3, -3, 0])];
    let f = build(&args, |b, x| vec![floor_div(b, x[0], x[1]), remainder(b, x[0], x[1])]);
    let got = run(&f, &args);
    assert_eq!(got[0].to_i64(), [2, -3, -3, 2, -2, 0]);
    assert_eq!(got[1].to_i64(), [1, 2, -2, -1, 0, 0]);
}

#[test]
fn running_extremes_name_their_last_place() {
    let (nan, x) = (f64::NAN, vec![1.0, 3.0, 2.0, 3.0, 0.0]);
    let args = [Literal::float(f64s(&[5]), x)];
    let cumulative = |args: &[Literal]| {
        let f = build(args, |b, x| {
            let (y, i) = cumulative_extreme(b, x[0], 0, true);
            vec![y, i]
        });
        run(&f, args)
    };
    let got = cumulative(&args);
    assert_eq!(got[0].to_f64(), [1.0, 3.0, 3.0, 3.0, 3.0]);
    assert_eq!(got[1].to_i64(), [0, 1, 1, 3, 3]);
    let got = cumulative(&[Literal::float(f64s(&[3]), vec![1.0, nan, 2.0])]);
    assert_eq!(got[1].to_i64(), [0, 1, 1]);
}
