use super::*;
use crate::isa::{Isa, Kernel};
use crate::testing::Random;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A function of f32, what it should give, and the error allowed in units in the last place.
struct Case {
    name: &'static str,
    lane: fn(Isa, &[f32], &mut [f32]),
    exact: fn(f64) -> f64,
    limit: f64,
}

/// Runs a unary function over a slice on a path.
macro_rules! case {
    ($name:ident, $exact:expr, $limit:expr) => {{
        struct Loop<'a>(&'a [f32], &'a mut [f32]);
        impl Kernel for Loop<'_> {
            type Output = ();
            #[inline(always)]
            fn run<L: Level>(self) {
                for (y, &x) in self.1.iter_mut().zip(self.0) {
                    *y = Math::$name::<L>(x);
                }
            }
        }
        Case {
            name: stringify!($name),
            lane: |isa, x, y| isa.run(Loop(x, y)),
            exact: $exact,
            limit: $limit,
        }
    }};
}

fn cases() -> Vec<Case> {
    vec![
        case!(exp, f64::exp, 1.5),
        case!(expm1, f64::exp_m1, 0.6),
        case!(log, f64::ln, 1.5),
        case!(log1p, f64::ln_1p, 0.6),
        case!(sin, f64::sin, 0.6),
        case!(cos, f64::cos, 0.6),
        case!(tanh, f64::tanh, 2.0),
        case!(logistic, exponential::logistic_f64, 2.0),
        case!(erf, normal::erf_f64, 2.0),
        case!(exp2, f64::exp2, 1.5),
        case!(log2, f64::log2, 0.6),
        case!(tan, f64::tan, 0.6),
        case!(asin, f64::asin, 0.6),
        case!(acos, f64::acos, 0.6),
        case!(atan, f64::atan, 0.6),
        case!(sinh, f64::sinh, 0.6),
        case!(cosh, f64::cosh, 0.6),
        case!(asinh, f64::asinh, 0.6),
        case!(acosh, f64::acosh, 0.6),
        case!(atanh, f64::atanh, 0.6),
        case!(sqrt, f64::sqrt, 0.6),
        case!(rsqrt, |x| 1.0 / x.sqrt(), 1.5),
        case!(erfc, normal::erfc_f64, 0.6),
        case!(erfinv, normal::erfinv_f64, 0.6),
        case!(lgamma, gamma::lgamma, 0.6),
        case!(digamma, gamma::digamma, 0.6),
    ]
}

/// The distance of `got` from `want` in units in the last place of f32; infinite where one is
/// special and the other is not the same.
fn error(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || rounded.is_nan() {
        return if got.is_nan() && rounded.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded {
        let same = rounded != 0.0 || got.is_sign_negative() == want.is_sign_negative();
        return if same { 0.0 } else { f64::INFINITY };
    }
    // One step over or under the edge of the range is as any other step.
    let got = if got.is_infinite() { 2f64.powi(128).copysign(f64::from(got)) } else { got.into() };
    let exponent = (rounded.abs().to_bits() >> 23).clamp(1, 254) as i32 - 127;
    (got - want).abs() / 2f64.powi(exponent - 23)
}

/// Compares a function with its exact values at `inputs`; gives the largest error and where it is.
fn compare(isa: Isa, case: &Case, inputs: &[f32]) -> (f64, f32) {
    let mut outputs = vec![0.0; inputs.len()];
    (case.lane)(isa, inputs, &mut outputs);
    let mut worst = (0.0, 0.0, 0.0);
    for (&x, &y) in inputs.iter().zip(&outputs) {
        let error = error(y, (case.exact)(f64::from(x)));
        if error > worst.0 {
            worst = (error, x, y);
        }
    }
    let (error, x, y) = worst;
    let exact = (case.exact)(f64::from(x));
    let name = case.name;
    assert!(error <= case.limit, "{isa} {name}({x:e}) = {y:e}, not {exact:e}: {error} ulp");
    (error, x)
}

/// Numbers of every exponent and sign, and the special ones.
fn sample(per_exponent: usize) -> Vec<f32> {
    let mut random = Random(5);
    let mut inputs = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -1.0];
    for exponent in 0..=255u32 {
        for _ in 0..per_exponent {
            let bits = random.bits() as u32;
            inputs.push(f32::from_bits(bits & 0x807f_ffff | exponent << 23));
        }
    }
    // Where most functions do most.
    inputs.extend((0..per_exponent * 400).map(|_| (random.unit() * 12.0) as f32));
    inputs.extend((0..per_exponent * 200).map(|_| (random.unit() * 110.0) as f32));
    inputs
}

#[test]
fn decay_is_exp2_of_what_is_not_above_0() {
    let exact = |x: f64| if x < -126.0 { 0.0 } else { x.exp2() };
    let case = case!(decay, exact, 1.5);
    // Around the least normal number either is right.
    let inputs = sample(60).into_iter().map(|x| -x.abs()).filter(|x| !(-127.0..-126.0).contains(x));
    let inputs: Vec<f32> = inputs.collect();
    for isa in Isa::available() {
        compare(isa, &case, &inputs);
    }
}

#[test]
fn functions_are_as_exact_as_stated() {
    let inputs = sample(60);
    for isa in Isa::available() {
        for case in cases() {
            compare(isa, &case, &inputs);
        }
    }
}

/// Prints the largest error of each function.
#[test]
#[ignore = "takes many minutes: every f32"]
fn functions_are_as_exact_as_stated_everywhere() {
    let isa = Isa::detect();
    let (cases, next) = (cases(), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut worst = (0.0, 0.0);
            for high in 0..=0xffff_u32 {
                let inputs: Vec<f32> =
                    (0..=0xffff_u32).map(|low| f32::from_bits(high << 16 | low)).collect();
                let found = compare(isa, case, &inputs);
                worst = if found.0 > worst.0 { found } else { worst };
            }
            println!("{isa} {}: {:.3} ulp at {:e}", case.name, worst.0, worst.1);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
}

struct Binary<'a, F>(&'a [(f32, f32)], &'a mut [f32], F);

/// Which function of two arguments.
trait Two {
    fn lane<L: Level>(x: f32, y: f32) -> f32;
}
struct Pow;
impl Two for Pow {
    #[inline(always)]
    fn lane<L: Level>(x: f32, y: f32) -> f32 {
        Math::pow::<L>(x, y)
    }
}
struct Atan2;
impl Two for Atan2 {
    #[inline(always)]
    fn lane<L: Level>(x: f32, y: f32) -> f32 {
        Math::atan2::<L>(x, y)
    }
}

impl<F: Two> Kernel for Binary<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Level>(self) {
        for (out, &(x, y)) in self.1.iter_mut().zip(self.0) {
            *out = F::lane::<L>(x, y);
        }
    }
}

/// Compares a function of two arguments with its exact values.
fn compare_two<F: Two>(f: fn() -> F, exact: fn(f64, f64) -> f64) {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.0,
        -2.0,
        3.0,
        -3.0,
        16_777_217.0,
        1e10,
        -1e10,
        1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
        2.5,
        -2.5,
    ];
    let mut pairs: Vec<(f32, f32)> =
        special.iter().flat_map(|&x| special.iter().map(move |&y| (x, y))).collect();
    let mut random = Random(6);
    for _ in 0..40_000 {
        let (x, y) = (random.bits() as u32, random.bits() as u32);
        pairs.push((f32::from_bits(x), f32::from_bits(y)));
        pairs.push((f32::from_bits(x & 0x7fff_ffff), (random.unit() * 4.0) as f32));
        pairs.push(((random.unit() * 4.0) as f32, (random.unit() * 50.0) as f32));
        pairs.push(((random.unit() * 9.0) as f32, (random.unit() * 9.0).round() as f32));
    }
    for isa in Isa::available() {
        let mut outputs = vec![0.0; pairs.len()];
        isa.run(Binary(&pairs, &mut outputs, f()));
        for (&(x, y), &got) in pairs.iter().zip(&outputs) {
            let want = exact(f64::from(x), f64::from(y));
            let error = error(got, want);
            assert!(error <= 0.6, "{isa} ({x:e}, {y:e}) = {got:e}, not {want:e}: {error} ulp");
        }
    }
}

#[test]
fn powers_are_exact_and_follow_the_standard_at_the_edges() {
    compare_two(|| Pow, f64::powf);
}

#[test]
fn angles_of_points_are_exact_and_follow_the_standard_at_the_edges() {
    compare_two(|| Atan2, f64::atan2);
}

/// Compares with values computed to 20 digits by other means.
fn golden(f: fn(f64) -> f64, values: &[(f64, f64)], tolerance: f64) {
    for &(x, want) in values {
        let got = f(x);
        assert!((got - want).abs() <= tolerance * want.abs(), "f({x}) = {got:e}, not {want:e}");
    }
}

#[test]
fn functions_of_f64_that_the_standard_library_lacks() {
    let erf = [
        (0.1, 0.112_462_916_018_284_892_2),
        (0.5, 0.520_499_877_813_046_537_68),
        (0.9, 0.796_908_212_422_832_128_52),
        (1.5, 0.966_105_146_475_310_727_07),
        (2.5, 0.999_593_047_982_555_041_06),
        (-4.0, -0.999_999_984_582_742_099_72),
    ];
    golden(normal::erf_f64, &erf, 1e-15);
    let erfc = [
        (0.1, 0.887_537_083_981_715_107_8),
        (0.9, 0.203_091_787_577_167_871_48),
        (1.5, 0.033_894_853_524_689_272_933),
        (4.0, 1.541_725_790_028_001_885_2e-8),
        (10.0, 2.088_487_583_762_544_757e-45),
        (26.0, 5.663_192_408_856_142_846_5e-296),
        (-1.0, 1.842_700_792_949_714_869_34),
    ];
    golden(normal::erfc_f64, &erfc, 3e-15);
    let erfinv = [
        (0.001, 0.000_886_227_157_466_552_104_57),
        (0.1, 0.088_855_990_494_257_687_016),
        (0.5, 0.476_936_276_204_469_873_38),
        (-0.75, -0.813_419_847_597_618_541_69),
        (0.999, 2.326_753_765_513_524_670_6),
    ];
    golden(normal::erfinv_f64, &erfinv, 1e-13);
    // Where the value itself is ill-conditioned, its complement is not.
    let tail = normal::erfc_f64(normal::erfinv_f64(1.0 - 2f64.powi(-30))) * 2f64.powi(30);
    assert!((tail - 1.0).abs() < 1e-13, "{tail}");
    let lgamma = [
        (0.1, 2.252_712_651_734_205_959_9),
        (0.5, 0.572_364_942_924_700_087_07),
        (1.25, -0.098_271_836_421_813_161_464),
        (7.0, 6.579_251_212_010_100_995_1),
        (30.5, 72.953_471_184_169_408_324),
        (1e10, 220_258_509_288.810_581_47),
        (-2.25, 0.555_501_545_020_647_470_59),
        (-10.75, -15.403_074_503_504_817_344),
    ];
    golden(gamma::lgamma, &lgamma, 3e-14);
    let digamma = [
        (0.1, -10.423_754_940_411_076_795),
        (0.5, -1.963_510_026_021_423_479_4),
        (1.25, -0.227_453_533_376_265_408_09),
        (7.0, 1.872_784_335_098_467_139_4),
        (-0.5, 0.036_489_973_978_576_520_559),
        (-10.75, -0.720_895_760_167_161_174_01),
    ];
    golden(gamma::digamma, &digamma, 3e-14);
    assert!(gamma::lgamma(-3.0).is_infinite() && gamma::digamma(-3.0).is_nan());
    assert_eq!(normal::erfinv_f64(-1.0), f64::NEG_INFINITY);
    assert!(normal::erfinv_f64(1.5).is_nan());
}
