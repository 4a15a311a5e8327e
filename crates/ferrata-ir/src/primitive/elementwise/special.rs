//! The error function and the logarithm of the gamma function, with their relatives.

use super::{Derivative, ElementwiseOp, ScalarOp, unary};
use crate::program::{Builder, Value};
use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// Every operation of this file.
pub(super) static ALL: &[&ElementwiseOp] = &[&ERF, &ERFC, &ERF_INV, &LGAMMA, &DIGAMMA];

/// `2/√π ∫₀ˣ e^(-t²) dt`.
pub static ERF: ElementwiseOp = unary(
    "erf",
    |x| libm::erf(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = gauss(b, x[0], FRAC_2_SQRT_PI);
        b.mul(slope, dx)
    }),
    ScalarOp::Erf,
);

/// `1 - erf(x)`, accurate also where it is tiny.
pub static ERFC: ElementwiseOp = unary(
    "erfc",
    |x| libm::erfc(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = gauss(b, x[0], -FRAC_2_SQRT_PI);
        b.mul(slope, dx)
    }),
    ScalarOp::Erfc,
);

/// `scale e^(-x²)`.
fn gauss(b: &mut Builder, x: Value, scale: f64) -> Value {
    let square = b.mul(x, x);
    let exponent = b.neg(square);
    let bell = b.exp(exponent);
    b.scale(bell, scale)
}

/// Inverse of [`ERF`].
pub static ERF_INV: ElementwiseOp = unary(
    "erf_inv",
    |x| erf_inv(x[0]),
    Derivative::Rule(|b, _, y, _, dx| {
        let square = b.mul(y, y);
        let slope = b.exp(square);
        let slope = b.scale(slope, 1.0 / FRAC_2_SQRT_PI);
        b.mul(slope, dx)
    }),
    ScalarOp::ErfInv,
);

/// Winitzki's estimate, then Halley steps on whichever of erf and erfc has no cancellation.
fn erf_inv(x: f64) -> f64 {
    let size = x.abs();
    if size >= 1.0 || x.is_nan() {
        return if size == 1.0 { x * f64::INFINITY } else { f64::NAN };
    }
    const A: f64 = 0.147;
    let log = (-x * x).ln_1p();
    let half = 2.0 / (PI * A) + log / 2.0;
    let mut y = ((half * half - log / A).sqrt() - half).max(0.0).sqrt();
    for _ in 0..3 {
        let error = if size < 0.5 { libm::erf(y) - size } else { (1.0 - size) - libm::erfc(y) };
        let step = error / (FRAC_2_SQRT_PI * (-y * y).exp());
        y -= step / (1.0 + y * step);
    }
    y.copysign(x)
}

/// `log |Γ(x)|`.
pub static LGAMMA: ElementwiseOp = unary(
    "lgamma",
    |x| libm::lgamma(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = b.digamma(x[0]);
        b.mul(slope, dx)
    }),
    ScalarOp::Lgamma,
);

/// Derivative of [`LGAMMA`].
pub static DIGAMMA: ElementwiseOp = unary(
    "digamma",
    |x| digamma(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = trigamma(b, x[0]);
        b.mul(slope, dx)
    }),
    ScalarOp::Digamma,
);

/// Bernoulli numbers B₂, B₄, …
const BERNOULLI: [f64; 8] = [
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
];

/// Reflection for negative arguments, recurrence up to 10, then the asymptotic series.
fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        return -x.signum() * f64::INFINITY;
    }
    if x < 0.0 {
        // The fraction keeps the tangent accurate far from 0; at its zeros are poles.
        let fraction = x - x.floor();
        return if fraction == 0.0 {
            f64::NAN
        } else {
            digamma(1.0 - x) - PI / (PI * fraction).tan()
        };
    }
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let mut power = square;
    for (k, bernoulli) in BERNOULLI.iter().enumerate() {
        sum -= bernoulli / (2 * k + 2) as f64 * power;
        power *= square;
    }
    sum + x.ln() - 0.5 / x
}

/// Derivative of [`DIGAMMA`], in the same three parts.
fn trigamma(b: &mut Builder, x: Value) -> Value {
    let half = b.full_like(x, 0.5);
    let reflected = b.lt(x, half);
    let one = b.full_like(x, 1.0);
    let mirror = b.sub(one, x);
    let mut z = b.select(reflected, mirror, x);
    let mut sum = b.zeros_like(x);
    for _ in 0..8 {
        let square = b.mul(z, z);
        let term = b.div(one, square);
        sum = b.add(sum, term);
        z = b.add(z, one);
    }
    let inverse = b.div(one, z);
    let square = b.mul(inverse, inverse);
    let mut series = b.zeros_like(x);
    for &bernoulli in BERNOULLI.iter().rev() {
        series = b.offset(series, bernoulli);
        series = b.mul(series, square);
    }
    series = b.offset(series, 1.0);
    series = b.mul(series, inverse);
    let middle = b.scale(square, 0.5);
    sum = b.add(sum, middle);
    sum = b.add(sum, series);
    let angle = b.select(reflected, x, half);
    let angle = b.scale(angle, PI);
    let sine = b.sin(angle);
    let ratio = b.full_like(x, PI);
    let ratio = b.div(ratio, sine);
    let whole = b.mul(ratio, ratio);
    let rest = b.sub(whole, sum);
    b.select(reflected, rest, sum)
}
