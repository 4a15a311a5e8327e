//! The error function, its complement and its inverse.

use std::f64::consts::PI;

use super::exponential::{exp, exp_f64};
use super::lanes::F32;
use super::polynomial::{hold, polynomial, series};
use crate::isa::{Level, Portable};

/// erf(x) / x - 1 over x², for |x| ≤ 0.93.
const ERF: [f32; 7] = [
    0.128_379_166_6,
    -0.376_126_335_2,
    0.112_836_915_2,
    -0.026_859_151_47,
    0.005_200_368_587,
    -0.000_813_470_933_2,
    8.334_718_615e-5,
];

/// -log(1 - erf(x)), for x from 0.9 to 3.95.
const ERF_LARGE: [f32; 9] = [
    -0.000_323_185_627_2,
    1.130_251_935,
    0.631_784_465_9,
    0.110_128_096,
    -0.026_453_158_03,
    0.004_772_434_593,
    -0.000_599_859_686,
    4.645_523_621e-5,
    -1.658_902_1e-6,
];

/// erf(x) / x over x², for |x| ≤ 1, to 53 bits.
#[allow(clippy::approx_constant)] // The first happens to have a name.
const ERF_F64: [f64; 14] = [
    1.128_379_167_095_512_57,
    -0.376_126_389_031_837_524,
    0.112_837_916_709_551_202,
    -0.026_866_170_645_129_840_8,
    0.005_223_977_625_423_298_31,
    -0.000_854_832_702_193_482_96,
    0.000_120_553_329_028_887_354,
    -0.000_014_925_647_567_519_332_1,
    1.646_204_544_146_841_89e-6,
    -1.636_464_215_816_761_53e-7,
    1.479_240_120_940_480_1e-8,
    -1.216_456_005_728_345_01e-9,
    8.709_045_129_053_106_69e-11,
    -4.230_945_824_295_327_82e-12,
];

/// erfc(x) · exp(x²) · (1 + 2x) over (x - 4) / (x + 4), for x ≥ 0, to 30 bits.
const ERFC: [f64; 14] = [
    1.232_995_118_747_969,
    -0.139_621_112_611_952_465,
    0.015_379_635_818_564_040_1,
    0.068_096_869_571_662_189_5,
    -0.101_038_741_948_375_355,
    0.093_735_202_757_867_300_5,
    -0.066_332_514_098_595_010_8,
    0.037_154_108_074_176_679_3,
    -0.016_192_436_328_648_219,
    0.005_070_170_675_254_959_26,
    -0.000_759_447_251_942_951_967,
    -0.000_254_196_882_150_480_434,
    0.000_139_768_116_056_915_909,
    0.000_010_341_169_545_861_177_1,
];

/// As [`ERFC`], to 53 bits.
const ERFC_F64: [f64; 24] = [
    1.232_995_118_625_552_51,
    -0.139_621_116_840_562_518,
    0.015_379_652_102_619_558,
    0.068_097_054_254_693_235_6,
    -0.101_039_066_036_294_588,
    0.093_732_834_998_330_222_7,
    -0.066_330_365_812_409_508_9,
    0.037_167_515_537_770_254_1,
    -0.016_197_734_055_994_488,
    0.005_031_969_975_753_176_31,
    -0.000_757_773_297_366_914_639,
    -0.000_199_256_684_323_891_523,
    0.000_150_621_697_046_783_542,
    -0.000_024_399_244_283_129_877_4,
    -0.000_011_222_046_316_669_004,
    5.709_784_760_966_505_61e-6,
    2.937_785_494_344_378_67e-7,
    -8.254_699_744_871_161_39e-7,
    7.471_952_780_500_971_02e-8,
    1.100_599_619_864_005_76e-7,
    -1.799_947_545_900_314_21e-8,
    -1.409_198_282_257_555_51e-8,
    1.868_487_385_473_515_19e-9,
    1.263_782_858_042_136_88e-9,
];

#[inline(always)]
pub fn erf<F: F32>(x: F) -> F {
    let size = x.abs().at_least(0.0).at_most(3.95);
    let large = x.number(1.0) - exp(-series(size, ERF_LARGE));
    let small = x.abs().mul_add(series(x * x, ERF), x.abs());
    large.where_(x.number(0.93).below(size), small).copysign(x)
}

/// erfc of |x| up to 28, in `erfc(x) = exp(-x²) · this`.
#[inline(always)]
fn scaled<L: Level, const N: usize>(size: f64, c: [f64; N]) -> f64 {
    let t = (size - 4.0) / (size + 4.0);
    polynomial::<L, f64, N>(t, c) / (1.0 + 2.0 * size)
}

#[inline(always)]
pub fn erfc<L: Level>(x: f32) -> f32 {
    let x = hold(f64::from(x), -10.5, 10.5);
    let size = x.abs();
    let tail = exp_f64::<L>(-size * size) * scaled::<L, 14>(size, ERFC);
    (if x < 0.0 { 2.0 - tail } else { tail }) as f32
}

pub fn erf_f64(x: f64) -> f64 {
    if x.abs() <= 1.0 {
        x * polynomial::<Portable, f64, 14>(x * x, ERF_F64)
    } else {
        (1.0 - erfc_f64(x.abs())).copysign(x)
    }
}

pub fn erfc_f64(x: f64) -> f64 {
    let size = hold(x.abs(), 0.0, 28.0);
    if size <= 0.5 {
        return 1.0 - erf_f64(x);
    }
    // The square of a rounded part is exact; the rest of the square is small.
    let high = f64::from_bits(size.to_bits() & !0x7ff_ffff);
    let tail = (-high * high).exp() * ((high - size) * (high + size)).exp();
    let tail = tail * scaled::<Portable, 24>(size, ERFC_F64);
    if x < 0.0 { 2.0 - tail } else { tail }
}

pub fn erfinv_f64(x: f64) -> f64 {
    let size = x.abs();
    if size == 1.0 {
        return f64::INFINITY.copysign(x);
    }
    if size > 1.0 || x.is_nan() {
        return f64::NAN;
    }
    // A guess to three digits, then Halley's method, which triples them.
    const A: f64 = 0.147;
    let log = (-size * size).ln_1p();
    let b = 2.0 / (PI * A) + log / 2.0;
    let mut y = ((b * b - log / A).sqrt() - b).max(0.0).sqrt();
    for _ in 0..3 {
        // In the tail the complement keeps the digits.
        let error = if size < 0.5 { erf_f64(y) - size } else { (1.0 - size) - erfc_f64(y) };
        let newton = error / (2.0 / PI.sqrt() * (-y * y).exp());
        y -= newton / (1.0 + y * newton);
    }
    y.copysign(x)
}
