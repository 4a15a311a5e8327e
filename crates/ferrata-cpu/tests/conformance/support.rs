//! What the tests of this suite share: devices of every path, inputs, comparison.

use ferrata_compiler::{Argument, Buffer, Device};
use ferrata_cpu::{CpuDevice, CpuOptions, Isa};
use ferrata_ir::testing::Random;
use ferrata_ir::transform::vjp;
use ferrata_ir::{
    Builder, DType, Error, Evaluator, Function, Literal, Precision, Result, Scalar, Type, Value,
};
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// The instruction-set paths to test: the one that `FERRATA_ISA` names, else all. One that this
/// machine lacks is reported as not run.
pub fn paths() -> &'static [Isa] {
    static PATHS: OnceLock<Vec<Isa>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let forced = std::env::var("FERRATA_ISA").ok().filter(|name| !name.is_empty());
        let asked = |isa: &Isa| forced.as_ref().is_none_or(|name| name == isa.name());
        let asked: Vec<Isa> = Isa::ALL.into_iter().filter(asked).collect();
        assert!(!asked.is_empty(), "FERRATA_ISA={forced:?} is no path");
        let (run, lacking): (Vec<Isa>, Vec<Isa>) =
            asked.into_iter().partition(|&isa| isa <= Isa::detect());
        // Not by `eprintln!`, which the harness hides.
        let mut errors = std::io::stderr();
        for isa in lacking {
            writeln!(errors, "conformance of {isa}: NOT RUN, this machine lacks it").unwrap();
        }
        run
    })
}

/// A device for each path to test, with two threads.
pub fn devices() -> &'static [CpuDevice] {
    static DEVICES: OnceLock<Vec<CpuDevice>> = OnceLock::new();
    DEVICES.get_or_init(|| paths().iter().map(|&isa| device(isa, 2)).collect())
}

/// A device of a path with so many threads.
pub fn device(isa: Isa, threads: usize) -> CpuDevice {
    let options = CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() };
    CpuDevice::new(options).unwrap()
}

pub fn ty(dtype: DType, shape: &[usize]) -> Type {
    Type::new(dtype, shape)
}

pub fn f32s(shape: &[usize]) -> Type {
    ty(DType::F32, shape)
}

/// The function of these parameters that `build` describes.
pub fn program(
    types: &[Type],
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Arc<Function> {
    let mut b = Builder::new("test");
    let args: Vec<Value> = types.iter().map(|t| b.parameter(t.clone())).collect();
    let results = build(&mut b, &args);
    Arc::new(b.finish(&results).unwrap())
}

/// Numbers of both signs, small integers among them; if `special`, about one in five is a NaN, an
/// infinity, a zero or a denormal.
pub fn literal(random: &mut Random, ty: &Type, special: bool) -> Literal {
    let integer = |random: &mut Random| {
        let wide = random.one_in(4);
        let bits = random.bits() as i64;
        ty.dtype.wrap_int(if wide { bits } else { bits % 7 })
    };
    Literal::build(ty.clone(), |_| {
        if ty.dtype == DType::Bool {
            return Scalar::Int(i64::from(random.one_in(2)));
        }
        if !ty.dtype.is_float() {
            return Scalar::Int(integer(random));
        }
        let denormal = 37.0 * least(ty.dtype);
        let x = match random.below(30) {
            0 if special => f64::NAN,
            1 if special => f64::INFINITY,
            2 if special => f64::NEG_INFINITY,
            3 if special => -0.0,
            4 if special => denormal,
            5 if special => -denormal,
            6 => 0.0,
            7..11 => random.between(0, 8) as f64 - 4.0,
            _ => random.float(-3.0, 3.0),
        };
        Scalar::Float(x)
    })
    .rounded()
}

/// The smallest positive number of a float dtype.
fn least(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::from_bits(1),
        DType::F32 => f64::from(f32::from_bits(1)),
        DType::F16 => 2f64.powi(-24),
        _ => 2f64.powi(-133),
    }
}

/// Numbers from -1 to 1, or small integers.
pub fn small(random: &mut Random, ty: &Type) -> Literal {
    Literal::build(ty.clone(), |_| match ty.dtype {
        DType::Bool => Scalar::Int(i64::from(random.one_in(2))),
        d if d.is_float() => Scalar::Float(random.float(-1.0, 1.0)),
        _ => Scalar::Int(random.between(0, 20) as i64),
    })
    .rounded()
}

/// Results on a device; arguments marked `donated` are given away.
pub fn run(
    device: &CpuDevice,
    program: &Arc<Function>,
    args: &[Literal],
    donated: &[bool],
) -> Result<Vec<Literal>> {
    let executable = device.compile(program, donated)?;
    let mut last = Vec::new();
    // Twice: the second run finds memory that the first one has used.
    for _ in 0..2 {
        let argument = |(x, &donated): (&Literal, &bool)| {
            let buffer = device.upload(x.ty.clone(), &x.to_bytes())?;
            Ok(if donated { Argument::Donated(buffer) } else { Argument::Shared(buffer) })
        };
        let arguments = args.iter().zip(donated).map(argument).collect::<Result<_>>()?;
        let results = executable.run(arguments)?;
        let read = |b: &Buffer| Literal::from_bytes(b.ty.clone(), &device.download(b)?);
        let now = results.iter().map(read).collect::<Result<Vec<Literal>>>()?;
        if !last.is_empty() && bits(&last) != bits(&now) {
            return Err(Error::new("two runs differ"));
        }
        last = now;
    }
    Ok(last)
}

pub fn bits(x: &[Literal]) -> Vec<Vec<u8>> {
    x.iter().map(Literal::to_bytes).collect()
}

/// Compares every path with the reference. Errors up to `units` units in the last place of the
/// dtype, relative to the value or to `scale`, are rounding.
pub fn check(program: &Arc<Function>, args: &[Literal], units: f64, scale: f64, what: &str) {
    let inputs: Vec<&Literal> = args.iter().collect();
    let want = Evaluator::new(Precision::Typed).call(program, &inputs).unwrap();
    for device in devices() {
        for donated in [false, true] {
            let got = run(device, program, args, &vec![donated; args.len()]);
            let got = got.unwrap_or_else(|e| panic!("{what}, {}: {e}", device.isa()));
            for (r, (got, want)) in got.iter().zip(&want).enumerate() {
                let what = format!("{what}, {}, result {r}", device.isa());
                compare(got, want, units, scale, &what);
            }
        }
    }
}

/// [`check`] of the results of `build`, and of the cotangents of all operands, for operands of these
/// shapes and any of the dtypes.
pub fn check_both_ways(
    dtypes: &[DType],
    shapes: &[&[usize]],
    units: f64,
    what: &str,
    build: impl Fn(&mut Builder, &[Value]) -> Vec<Value>,
) {
    for &dtype in dtypes {
        let types: Vec<Type> = shapes.iter().map(|shape| ty(dtype, shape)).collect();
        let f = program(&types, |b, x| build(b, x));
        let backward = Arc::new(vjp(&f, &vec![true; types.len()]).unwrap());
        let random = &mut Random::new(11);
        let args: Vec<Literal> =
            backward.parameter_types().iter().map(|ty| small(random, ty)).collect();
        check(&f, &args[..types.len()], units, 20.0, &format!("{what} {dtype} forward"));
        check(&backward, &args, units, 20.0, &format!("{what} {dtype}"));
    }
}

pub fn compare(got: &Literal, want: &Literal, units: f64, scale: f64, what: &str) {
    assert_eq!(got.ty, want.ty, "{what}");
    let epsilon = 2.0 * want.ty.dtype.epsilon();
    for i in 0..want.ty.elements() {
        match (got.get(i), want.get(i)) {
            (Scalar::Float(g), Scalar::Float(w)) => {
                let tiny = units * least(want.ty.dtype);
                let tolerance = units * epsilon * w.abs().max(scale) + tiny;
                let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance;
                let ty = &want.ty;
                assert!(same, "{what}: element {i} of {ty} is {g:e}, not {w:e} ± {tolerance:e}");
            }
            (g, w) => assert_eq!(g.as_i64(), w.as_i64(), "{what}: element {i} of {}", want.ty),
        }
    }
}
