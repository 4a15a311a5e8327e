//! The logarithm of the gamma function and its derivative, in f64.
//!
//! Both follow their asymptotic series from 10 on, and their recurrence below. Their error is
//! some 1e-14, absolute near their zeros.

use std::f64::consts::PI;

/// Where the asymptotic series take over.
const FAR: f64 = 10.0;

/// Coefficients of 1/x, 1/x³, … in the series of log Γ.
const LGAMMA: [f64; 7] = [
    1.0 / 12.0,
    -1.0 / 360.0,
    1.0 / 1260.0,
    -1.0 / 1680.0,
    1.0 / 1188.0,
    -691.0 / 360_360.0,
    1.0 / 156.0,
];

/// Coefficients of 1/x², 1/x⁴, … in the series of digamma.
const DIGAMMA: [f64; 7] = [
    -1.0 / 12.0,
    1.0 / 120.0,
    -1.0 / 252.0,
    1.0 / 240.0,
    -1.0 / 132.0,
    691.0 / 32_760.0,
    -1.0 / 12.0,
];

/// `c[0] + c[1]·x + …`
fn series(x: f64, c: &[f64]) -> f64 {
    c.iter().rev().fold(0.0, |sum, &c| sum * x + c)
}

/// log |Γ(x)|; infinite at 0 and the negative integers.
pub fn lgamma(x: f64) -> f64 {
    if x.is_infinite() {
        return f64::INFINITY;
    }
    if x < 0.5 {
        // Γ(x) Γ(1 - x) = π / sin(πx); the period is taken off before the sine.
        let sine = (PI * (x - x.floor())).sin().abs();
        return if x == x.floor() { f64::INFINITY } else { (PI / sine).ln() - lgamma(1.0 - x) };
    }
    let (mut far, mut product) = (x, 1.0);
    while far < FAR {
        product *= far;
        far += 1.0;
    }
    let stirling = (far - 0.5) * far.ln() - far + 0.5 * (2.0 * PI).ln();
    stirling + series(1.0 / (far * far), &LGAMMA) / far - product.ln()
}

/// The derivative of log Γ(x); NaN at the negative integers, infinite at 0.
pub fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY.copysign(-x);
    }
    if x == f64::INFINITY {
        return x;
    }
    if x < 0.0 {
        if x == x.floor() {
            return f64::NAN;
        }
        // ψ(1 - x) - ψ(x) = π / tan(πx).
        return digamma(1.0 - x) - PI / (PI * (x - x.floor())).tan();
    }
    let (mut far, mut sum) = (x, 0.0);
    while far < FAR {
        sum += 1.0 / far;
        far += 1.0;
    }
    let inverse = 1.0 / (far * far);
    far.ln() - 0.5 / far + inverse * series(inverse, &DIGAMMA) - sum
}
