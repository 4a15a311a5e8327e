//! The exponential function and its kin.

use std::f32::consts::LOG2_E;
use std::f64::consts::LN_2;

use super::lanes::{Bits, F32};
use super::polynomial::{hold, polynomial, power64, round32, round64, series};
use crate::isa::Level;

/// ln 2 in two parts; multiples of the first by a few bits are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// (exp(r) - 1 - r) / r² for |r| ≤ ln(2)/2.
const EXP: [f32; 6] = [
    0.500_000_001_4,
    0.166_666_666_8,
    0.041_666_456_81,
    0.008_333_310_024,
    0.001_393_454_193,
    0.000_198_919_813_1,
];

/// (2^r - 1) / r for |r| ≤ 1/2.
const EXP2: [f32; 6] = [
    0.693_147_188_5,
    0.240_226_507_6,
    0.055_503_549_29,
    0.009_618_080_665,
    0.001_339_201_741,
    0.000_154_541_620_9,
];

/// As [`EXP`], to 40 bits.
const EXP_F64: [f64; 8] = [
    0.499_999_999_999_547_462,
    0.166_666_666_666_625_538,
    0.041_666_666_786_985_556_4,
    0.008_333_333_344_268_394_24,
    0.001_388_883_891_099_605_7,
    0.000_198_412_244_182_919_442,
    0.000_024_868_002_978_056_963_8,
    2.761_768_546_516_506_91e-6,
];

#[inline(always)]
pub fn exp<F: F32>(x: F) -> F {
    let x = x.at_least(-104.0).at_most(89.0);
    let (n, exponent) = round32(x * x.number(LOG2_E));
    let r = n.mul_add(x.number(-LN2_LOW), n.mul_add(x.number(-LN2_HIGH), x));
    let tail = series(r, EXP);
    ((r * r).mul_add(tail, r) + x.number(1.0)).scaled(n, exponent)
}

#[inline(always)]
pub fn exp2<F: F32>(x: F) -> F {
    let x = x.at_least(-151.0).at_most(129.0);
    let (n, exponent) = round32(x);
    let r = x - n;
    r.mul_add(series(r, EXP2), x.number(1.0)).scaled(n, exponent)
}

/// 2^x for x of at most about 0; 0 where that would be subnormal.
#[inline(always)]
pub fn decay<F: F32>(x: F) -> F {
    // At -127 the power below is 0.
    let x = x.at_least(-127.0);
    let (n, exponent) = round32(x);
    let r = x - n;
    let power = F::from_bits(exponent.plus(127).left(23));
    r.mul_add(series(r, EXP2), x.number(1.0)) * power
}

/// exp(x) as `(scale, rest)` with exp(x) = scale · (1 + rest), to some 40 bits, where exp(x) is a
/// normal f64.
#[inline(always)]
fn split_exp<L: Level>(x: f64) -> (f64, f64) {
    let (n, exponent) = round64(x * std::f64::consts::LOG2_E);
    // One part of ln 2 will do: the remainder's error is far below 40 bits of exp(x).
    let r = L::mul_add(n, -LN_2, x);
    let tail = polynomial::<L, f64, 8>(r, EXP_F64);
    (power64(exponent), L::mul_add(r * r, tail, r))
}

/// exp(x) to some 40 bits, where that is a normal f64.
#[inline(always)]
pub fn exp_f64<L: Level>(x: f64) -> f64 {
    let (scale, rest) = split_exp::<L>(x);
    L::mul_add(scale, rest, scale)
}

/// exp(x) - 1 to some 40 bits.
#[inline(always)]
fn expm1_f64<L: Level>(x: f64) -> f64 {
    let (scale, rest) = split_exp::<L>(x);
    L::mul_add(scale, rest, scale - 1.0)
}

#[inline(always)]
pub fn expm1<L: Level>(x: f32) -> f32 {
    let y = expm1_f64::<L>(hold(f64::from(x), -105.0, 90.0)) as f32;
    // The sum above loses the sign of zero.
    if x == 0.0 { x } else { y }
}

#[inline(always)]
pub fn sinh<L: Level>(x: f32) -> f32 {
    let e = expm1_f64::<L>(hold(f64::from(x.abs()), 0.0, 105.0));
    ((0.5 * (e + e / (e + 1.0))) as f32).copysign(x)
}

#[inline(always)]
pub fn cosh<L: Level>(x: f32) -> f32 {
    let e = exp_f64::<L>(hold(f64::from(x), -105.0, 105.0));
    (0.5 * (e + 1.0 / e)) as f32
}

/// (tanh(x) - x) / x³ over x² for |x| ≤ 0.62.
const TANH: [f32; 5] =
    [-0.333_333_289_8, 0.133_327_730_2, -0.053_851_409_37, 0.020_999_552_52, -0.006_100_170_943];

#[inline(always)]
pub fn tanh<F: F32>(x: F) -> F {
    let [one, two, border] = [1.0, 2.0, 0.62].map(|c| x.number(c));
    let size = x.abs();
    let square = x * x;
    let small = (x * square).mul_add(series(square, TANH), x);
    let large = one - two / (exp(size + size) + one);
    large.where_(border.below(size), small).copysign(x)
}

#[inline(always)]
pub fn logistic<F: F32>(x: F) -> F {
    let one = x.number(1.0);
    // Never exp of something positive, which would overflow before the quotient vanishes.
    let e = exp(-x.abs());
    // 1/(1 + e) and e/(1 + e), each as its leading part less a correction that rounds little.
    let quotient = e / (one + e);
    (-e).mul_add(quotient, e).where_(x.below(x.number(0.0)), one - quotient)
}

pub fn logistic_f64(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}
