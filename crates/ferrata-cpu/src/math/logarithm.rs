//! Logarithms, powers, and the inverse hyperbolic functions.

use std::f64::consts::{LN_2, LOG2_E};

use super::exponential::exp_f64;
use super::lanes::{Bits, F32};
use super::polynomial::{hold, polynomial, series};
use crate::isa::Level;

/// ln 2 in two parts; multiples of the first by a few bits are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// (log(1 + f) - f + f²/2) / f³ for 1 + f between √½ and √2.
const LOG: [f32; 9] = [
    0.333_333_311_8,
    -0.249_999_969_6,
    0.200_007_157_5,
    -0.166_678_023_2,
    0.142_490_576_5,
    -0.124_256_873_3,
    0.116_854_199_2,
    -0.114_797_338_5,
    0.069_716_114_71,
];

/// 2·atanh(s) / s over s², for s = (m - 1) / (m + 1) with m between √½ and √2.
const LOG_F64: [f64; 6] = [
    1.999_999_999_999_946_87,
    0.666_666_666_796_449_542,
    0.399_999_948_709_793_698,
    0.285_721_684_142_033_821,
    0.221_741_507_980_537_334,
    0.196_095_923_651_584_058,
];

/// What a logarithm is where `y` is not: outside of the positive finite numbers.
macro_rules! at_edges {
    ($t:ident, $x:expr, $y:expr) => {{
        let (x, y) = ($x, $y);
        // Infinity and NaN are their own logarithms.
        let y = if x < $t::INFINITY { y } else { x };
        let y = if x == 0.0 { $t::NEG_INFINITY } else { y };
        if x < 0.0 { $t::NAN } else { y }
    }};
}

#[inline(always)]
pub fn log<F: F32>(x: F) -> F {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let [zero, one, half] = [0.0, 1.0, -0.5].map(|c| x.number(c));
    let subnormal = x.below(x.number(f32::MIN_POSITIVE));
    let normal = (x * x.number(8_388_608.0)).where_(subnormal, x);
    let shift = x.number(-23.0).where_(subnormal, zero);
    let exponent = normal.bits().plus(SQRT_HALF.wrapping_neg()).right(23);
    let f = F::from_bits(normal.bits().minus(exponent.left(23))) - one;
    let n = F::from_integer(exponent) + shift;
    let square = f * f;
    let tail = series(f, LOG) * f * square;
    let low = n.mul_add(x.number(LN2_LOW), square.mul_add(half, tail));
    let y = n.mul_add(x.number(LN2_HIGH), f + low);
    // Infinity and NaN are their own logarithms.
    let y = y.where_(x.below(x.number(f32::INFINITY)), x);
    let y = x.number(f32::NEG_INFINITY).where_(x.equals(zero), y);
    x.number(f32::NAN).where_(x.below(zero), y)
}

/// log(x) of a positive normal f64, to some 43 bits.
#[inline(always)]
fn log_f64<L: Level>(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    // The exponent, still biased so that the shift need not keep a sign: AVX2 has none that does.
    let biased = x.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(1023 << 52) >> 52;
    let n = f64::from(biased as i32 - 1023);
    let m = f64::from_bits(x.to_bits().wrapping_sub(biased << 52).wrapping_add(1023 << 52));
    let s = (m - 1.0) / (m + 1.0);
    L::mul_add(n, LN_2, s * polynomial::<L, f64, 6>(s * s, LOG_F64))
}

/// log(1 + t) to some 43 bits, for t > -1 that is no smaller than f32's smallest.
#[inline(always)]
fn log1p_f64<L: Level>(t: f64) -> f64 {
    let u = 1.0 + t;
    // What rounding took from `u` comes back to first order.
    log_f64::<L>(u) + (t - (u - 1.0)) / u
}

#[inline(always)]
pub fn log2<L: Level>(x: f32) -> f32 {
    at_edges!(f32, x, (log_f64::<L>(f64::from(x)) * LOG2_E) as f32)
}

#[inline(always)]
pub fn log1p<L: Level>(x: f32) -> f32 {
    let u = 1.0 + f64::from(x);
    let y = at_edges!(f64, u, log1p_f64::<L>(f64::from(x))) as f32;
    if x == 0.0 { x } else { y }
}

#[inline(always)]
pub fn asinh<L: Level>(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let square = size * size;
    // x + √(1 + x²) - 1, without cancellation.
    let t = size + square / (1.0 + (1.0 + square).sqrt());
    let y = if x.abs() < f32::INFINITY { log1p_f64::<L>(t) as f32 } else { x.abs() };
    let y = if x == 0.0 { 0.0 } else { y };
    y.copysign(x)
}

#[inline(always)]
pub fn acosh<L: Level>(x: f32) -> f32 {
    let t = f64::from(x) - 1.0;
    let y = log1p_f64::<L>(t + (t * (t + 2.0)).sqrt()) as f32;
    let y = if x < f32::INFINITY { y } else { x };
    if x < 1.0 { f32::NAN } else { y }
}

#[inline(always)]
pub fn atanh<L: Level>(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let y = (0.5 * log1p_f64::<L>(2.0 * size / (1.0 - size))) as f32;
    let y = if x == 0.0 { 0.0 } else { y };
    let y = if size == 1.0 { f32::INFINITY } else { y };
    let y = if size <= 1.0 { y } else { f32::NAN };
    y.copysign(x)
}

#[inline(always)]
pub fn pow<L: Level>(x: f32, y: f32) -> f32 {
    let size = f64::from(x.abs());
    let log = at_edges!(f64, size, log_f64::<L>(size));
    let power = exp_f64::<L>(hold(f64::from(y) * log, -110.0, 100.0)) as f32;
    let integer = y.floor() == y;
    let half = y * 0.5;
    let odd = integer & (half.floor() != half);
    let negative = x.is_sign_negative();
    let power = if negative & odd { -power } else { power };
    // A negative base; -0 and -∞ have all powers.
    let rootless = (x < 0.0) & (x > f32::NEG_INFINITY) & !integer;
    let power = if rootless { f32::NAN } else { power };
    let power = if (x == -1.0) & y.is_infinite() { 1.0 } else { power };
    if (x == 1.0) | (y == 0.0) { 1.0 } else { power }
}
