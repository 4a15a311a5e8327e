//! What the approximations share.

use super::lanes::{Bits, F32, Float, Lane};
use crate::isa::{Level, Real};

/// `c[0] + c[1]·x + c[2]·x² + …`
#[inline(always)]
pub fn series<F: Float, const N: usize>(x: F, c: [F::Number; N]) -> F {
    let mut sum = x.number(c[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = sum.mul_add(x, x.number(c[i]));
    }
    sum
}

/// [`series`] of a number.
#[inline(always)]
pub fn polynomial<L: Level, T: Real, const N: usize>(x: T, c: [T; N]) -> T {
    series(Lane::<T, L>::new(x), c).0
}

/// `x` held within `low..=high`; NaN stays.
#[inline(always)]
pub fn hold<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Adding this to a small f32 leaves the nearest integer in the sum's low bits.
const ROUND32: f32 = 12_582_912.0;
/// As [`ROUND32`], for f64.
const ROUND64: f64 = 6_755_399_441_055_744.0;

/// The integer nearest to `x`, of a few bits, as float and integer.
#[inline(always)]
pub fn round32<F: F32>(x: F) -> (F, F::Bits) {
    let shifted = x + x.number(ROUND32);
    (shifted - x.number(ROUND32), shifted.bits().plus(ROUND32.to_bits().wrapping_neg()))
}

/// The integer nearest to `x`, of some 50 bits, as float and integer.
#[inline(always)]
pub fn round64(x: f64) -> (f64, i64) {
    let shifted = x + ROUND64;
    (shifted - ROUND64, shifted.to_bits().wrapping_sub(ROUND64.to_bits()) as i64)
}

/// 2 to the power of `n`, which is the exponent of a normal number.
#[inline(always)]
pub fn power64(n: i64) -> f64 {
    f64::from_bits((n.wrapping_add(1023) << 52) as u64)
}
