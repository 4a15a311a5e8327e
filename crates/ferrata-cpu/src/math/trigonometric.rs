//! Trigonometric functions and their inverses, computed in f64.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use super::polynomial::{polynomial, round64};
use crate::isa::Level;

/// (sin(x) - x) / x³ over x², for |x| ≤ π/4.
const SIN: [f64; 5] = [
    -0.166_666_666_666_638_72,
    0.008_333_333_331_070_209_59,
    -0.000_198_412_669_082_247_961,
    2.755_598_828_002_141_52e-6,
    -2.480_539_094_576_606_63e-8,
];

/// (cos(x) - 1) / x² over x², for |x| ≤ π/4.
const COS: [f64; 6] = [
    -0.499_999_999_999_999_692,
    0.041_666_666_666_630_747_5,
    -0.001_388_888_888_210_091_78,
    0.000_024_801_582_609_336_556_5,
    -2.755_585_259_239_173_49e-7,
    2.066_529_463_577_556_21e-9,
];

/// atan(t) / t over t², for |t| ≤ tan(π/8).
const ATAN: [f64; 8] = [
    0.999_999_999_999_239_115,
    -0.333_333_332_765_574_532,
    0.199_999_930_155_473_431,
    -0.142_853_850_858_703_831,
    0.111_034_301_559_724_669,
    -0.089_923_044_865_173_359_3,
    0.069_730_611_149_618_373_5,
    -0.037_634_788_705_325_433_9,
];

/// asin(x) / x over x², for |x| ≤ 1/2.
const ASIN: [f64; 9] = [
    1.000_000_000_000_828_36,
    0.166_666_666_130_823_385,
    0.075_000_056_743_390_763,
    0.044_640_558_117_857_103_7,
    0.030_428_232_514_128_866_6,
    0.021_854_687_048_307_062_9,
    0.020_686_728_801_278_316_1,
    0.001_901_301_191_772_563_93,
    0.032_972_918_847_588_363_8,
];

/// The first bits of 2/π after the point.
const TWO_OVER_PI: [u32; 7] =
    [0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab];

/// Powers of two that are taken off large angles: entry `i` stands for 2^(24·i), for angles from
/// 2^(24·i + 23) on, which are integers even so.
const STEPS: usize = 5;

/// What is left of angles by entry.
const SCALE: [f64; STEPS] = {
    let mut table = [0.0; STEPS];
    let mut i = 0;
    while i < STEPS {
        table[i] = f64::from_bits((1023 - 24 * i as u64) << 52);
        i += 1;
    }
    table
};

/// 2/π · 2^(24·i) modulo 4 in three parts: two of 28 bits, whose product with a number of 24 bits
/// is exact, and the next 53.
const HIGH: [f64; STEPS] = part(0, 28, 26);
const MIDDLE: [f64; STEPS] = part(28, 28, 26 + 28);
const LOW: [f64; STEPS] = part(56, 53, 26 + 28 + 53);

/// For every entry `count` bits, `skipped` bits after the first, the last of weight 2^-`scale`.
const fn part(skipped: i32, count: i32, scale: u64) -> [f64; STEPS] {
    let mut table = [0.0; STEPS];
    let mut i = 0;
    while i < STEPS {
        let unit = f64::from_bits((1023 - scale) << 52);
        table[i] = bits(24 * i as i32 - 1 + skipped, count) as f64 * unit;
        i += 1;
    }
    table
}

/// `count` bits of 2/π, the `first` of which has the weight 2^-first.
const fn bits(first: i32, count: i32) -> u64 {
    let mut value = 0;
    let mut i = first;
    while i < first + count {
        // Bit 1 is the highest of the first word; there are none before.
        let word = (i - 1).div_euclid(32);
        let bit = if word < 0 {
            0
        } else {
            TWO_OVER_PI[word as usize] >> (31 - (i - 1).rem_euclid(32)) & 1
        };
        value = value << 1 | bit as u64;
        i += 1;
    }
    value
}

/// An angle as a number of quarter turns (modulo 4) and the rest, within ±π/4.
#[inline(always)]
fn reduce<L: Level>(x: f32) -> (i64, f64) {
    let size = x.abs();
    // Comparisons, as the compiler makes no vector code of a table.
    let pick = |table: [f64; STEPS]| {
        let y = if size < 2f32.powi(47) { table[0] } else { table[1] };
        let y = if size < 2f32.powi(71) { y } else { table[2] };
        let y = if size < 2f32.powi(95) { y } else { table[3] };
        if size < 2f32.powi(119) { y } else { table[4] }
    };
    // Below 2^48, and an integer where anything is taken off.
    let m = f64::from(x) * pick(SCALE);
    let (high, middle) = (m * pick(HIGH), m * pick(MIDDLE));
    let (high_whole, high_turns) = round64(high);
    let (middle_whole, middle_turns) = round64(middle);
    let rest = L::mul_add(m, pick(LOW), (high - high_whole) + (middle - middle_whole));
    let (whole, turns) = round64(rest);
    let quadrant = high_turns.wrapping_add(middle_turns).wrapping_add(turns);
    (quadrant, (rest - whole) * FRAC_PI_2)
}

/// Sine and cosine of an angle within ±π/4.
#[inline(always)]
fn sin_cos<L: Level>(r: f64) -> (f64, f64) {
    let square = r * r;
    let sin = r * L::mul_add(square, polynomial::<L, f64, 5>(square, SIN), 1.0);
    let cos = L::mul_add(square, polynomial::<L, f64, 6>(square, COS), 1.0);
    (sin, cos)
}

#[inline(always)]
pub fn sin<L: Level>(x: f32) -> f32 {
    let (quadrant, r) = reduce::<L>(x);
    let (sin, cos) = sin_cos::<L>(r);
    let y = if quadrant & 1 == 0 { sin } else { cos };
    (if quadrant & 2 == 0 { y } else { -y }) as f32
}

#[inline(always)]
pub fn cos<L: Level>(x: f32) -> f32 {
    let (quadrant, r) = reduce::<L>(x);
    let (sin, cos) = sin_cos::<L>(r);
    let y = if quadrant & 1 == 0 { cos } else { sin };
    (if quadrant.wrapping_add(1) & 2 == 0 { y } else { -y }) as f32
}

#[inline(always)]
pub fn tan<L: Level>(x: f32) -> f32 {
    let (quadrant, r) = reduce::<L>(x);
    let (sin, cos) = sin_cos::<L>(r);
    let odd = quadrant & 1 != 0;
    ((if odd { -cos } else { sin }) / (if odd { sin } else { cos })) as f32
}

/// The angle of the point (x, y), both not negative, not both zero nor both infinite.
#[inline(always)]
fn angle<L: Level>(y: f64, x: f64) -> f64 {
    const TAN_EIGHTH: f64 = 0.414_213_562_373_095_1;
    // Turned back by π/2, π/4 or nothing, so that the quotient is small.
    let steep = x < TAN_EIGHTH * y;
    let middle = y > TAN_EIGHTH * x;
    let rise = if middle { y - x } else { y };
    let run = if middle { y + x } else { x };
    let turn = if middle { FRAC_PI_4 } else { 0.0 };
    let rise = if steep { -x } else { rise };
    let run = if steep { y } else { run };
    let turn = if steep { FRAC_PI_2 } else { turn };
    let t = rise / run;
    L::mul_add(t, polynomial::<L, f64, 8>(t * t, ATAN), turn)
}

#[inline(always)]
pub fn atan<L: Level>(x: f32) -> f32 {
    let size = f64::from(x.abs());
    let y = if size < f64::INFINITY { angle::<L>(size, 1.0) } else { FRAC_PI_2 };
    let y = if x.is_nan() { f64::NAN } else { y };
    (y as f32).copysign(x)
}

#[inline(always)]
pub fn atan2<L: Level>(y: f32, x: f32) -> f32 {
    let (rise, run) = (f64::from(y.abs()), f64::from(x.abs()));
    let unbounded = (rise == f64::INFINITY) & (run == f64::INFINITY);
    let origin = (rise == 0.0) & (run == 0.0);
    // Points without an angle of their own take that of (1, 1) or of the x axis.
    let rise = if unbounded { 1.0 } else { rise };
    let run = if unbounded | origin { 1.0 } else { run };
    let first = angle::<L>(rise, run);
    let turned = if x.is_sign_negative() { PI - first } else { first };
    (turned as f32).copysign(y)
}

/// asin(x) for 0 ≤ x ≤ 1/2.
#[inline(always)]
fn asin_small<L: Level>(x: f64) -> f64 {
    x * polynomial::<L, f64, 9>(x * x, ASIN)
}

/// The angle between 0 and π/2 whose sine is |x|, and its complement.
#[inline(always)]
fn asin_acos<L: Level>(x: f32) -> (f64, f64) {
    let size = f64::from(x.abs());
    let large = size > 0.5;
    let half = asin_small::<L>(if large { ((1.0 - size) * 0.5).sqrt() } else { size });
    let complement = if large { half + half } else { FRAC_PI_2 - half };
    (if large { FRAC_PI_2 - complement } else { half }, complement)
}

#[inline(always)]
pub fn asin<L: Level>(x: f32) -> f32 {
    (asin_acos::<L>(x).0 as f32).copysign(x)
}

#[inline(always)]
pub fn acos<L: Level>(x: f32) -> f32 {
    let (_, complement) = asin_acos::<L>(x);
    (if x < 0.0 { PI - complement } else { complement }) as f32
}
