//! What the approximations share.

use crate::isa::{Level, Real};

/// `c[0] + c[1]·x + c[2]·x² + …`
#[inline(always)]
pub fn polynomial<L: Level, T: Real, const N: usize>(x: T, c: [T; N]) -> T {
    let mut sum = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = L::mul_add(sum, x, c[i]);
    }
    sum
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
pub fn round32(x: f32) -> (f32, i32) {
    let shifted = x + ROUND32;
    (shifted - ROUND32, shifted.to_bits().wrapping_sub(ROUND32.to_bits()) as i32)
}

/// The integer nearest to `x`, of some 50 bits, as float and integer.
#[inline(always)]
pub fn round64(x: f64) -> (f64, i64) {
    let shifted = x + ROUND64;
    (shifted - ROUND64, shifted.to_bits().wrapping_sub(ROUND64.to_bits()) as i64)
}

/// 2 to the power of `n`, which is the exponent of a normal number.
#[inline(always)]
pub fn power32(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// 2 to the power of `n`, which is the exponent of a normal number.
#[inline(always)]
pub fn power64(n: i64) -> f64 {
    f64::from_bits((n.wrapping_add(1023) << 52) as u64)
}
