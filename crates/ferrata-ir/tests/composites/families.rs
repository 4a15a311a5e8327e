//! Derivatives, second derivatives and batching of every composite but attention.

use crate::check::{check, f64s, random};
use ferrata_ir::Literal;
use ferrata_ir::composite::*;

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
