//! What the tests share: the simulated device, inputs, comparison.

use ferrata_ascend::{AscendSimulator, Compiler, Target};
use ferrata_compiler::{Argument, Buffer, Device};
use ferrata_ir::testing::Random;
use ferrata_ir::{
    Builder, DType, Evaluator, Function, Literal, Precision, Result, Scalar, Type, Value,
};
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// The simulated device, if this machine has the compiler.
pub fn device() -> Option<&'static Arc<AscendSimulator>> {
    static DEVICE: OnceLock<Option<Arc<AscendSimulator>>> = OnceLock::new();
    let make = || {
        let target = Target::find("Ascend910B3").unwrap();
        match Compiler::find() {
            Ok(compiler) => Some(Arc::new(AscendSimulator::new(target, compiler).unwrap())),
            Err(error) => {
                // Not by `eprintln!`, which the harness hides.
                let mut errors = std::io::stderr();
                writeln!(errors, "NOT RUN: {error}").unwrap();
                None
            }
        }
    };
    DEVICE.get_or_init(make).as_ref()
}

pub fn ty(dtype: DType, shape: &[usize]) -> Type {
    Type::new(dtype, shape)
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

/// Numbers from -2 to 2, or small integers, some below 0.
pub fn numbers(random: &mut Random, ty: &Type) -> Literal {
    Literal::build(ty.clone(), |_| match ty.dtype {
        DType::Bool => Scalar::Int(i64::from(random.one_in(2))),
        d if d.is_float() => Scalar::Float(random.float(-2.0, 2.0)),
        _ => Scalar::Int(random.between(0, 20) as i64 - 5),
    })
    .rounded()
}

/// Results on a device.
pub fn run(
    device: &dyn Device,
    program: &Arc<Function>,
    args: &[Literal],
    donate: bool,
) -> Result<Vec<Literal>> {
    let executable = device.compile(program, &vec![donate; args.len()])?;
    let argument = |x: &Literal| {
        let buffer = device.upload(x.ty.clone(), &x.to_bytes())?;
        Ok(if donate { Argument::Donated(buffer) } else { Argument::Shared(buffer) })
    };
    let arguments = args.iter().map(argument).collect::<Result<_>>()?;
    let results = executable.run(arguments)?;
    let read = |b: &Buffer| Literal::from_bytes(b.ty.clone(), &device.download(b)?);
    results.iter().map(read).collect()
}

/// Compares the simulator with the reference. Errors up to `units` units in the last place of the
/// dtype, relative to the value or to `scale`, are rounding.
pub fn check(program: &Arc<Function>, args: &[Literal], units: f64, scale: f64, what: &str) {
    let Some(device) = device() else { return };
    check_on(&**device, program, args, units, scale, what);
}

/// [`check`] on another device.
pub fn check_on(
    device: &dyn Device,
    program: &Arc<Function>,
    args: &[Literal],
    units: f64,
    scale: f64,
    what: &str,
) {
    let inputs: Vec<&Literal> = args.iter().collect();
    let want = Evaluator::new(Precision::Typed).call(program, &inputs).unwrap();
    for donate in [false, true] {
        let got = run(device, program, args, donate);
        let got = got.unwrap_or_else(|e| panic!("{what}: {e}"));
        for (r, (got, want)) in got.iter().zip(&want).enumerate() {
            compare(got, want, units, scale, &format!("{what}, result {r}"));
        }
    }
}

pub fn compare(got: &Literal, want: &Literal, units: f64, scale: f64, what: &str) {
    assert_eq!(got.ty, want.ty, "{what}");
    let epsilon = 2.0 * want.ty.dtype.epsilon().max(DType::F32.epsilon());
    for i in 0..want.ty.elements() {
        match (got.get(i), want.get(i)) {
            (Scalar::Float(g), Scalar::Float(w)) => {
                let tolerance = units * epsilon * w.abs().max(scale);
                let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance;
                let ty = &want.ty;
                assert!(same, "{what}: element {i} of {ty} is {g:e}, not {w:e} ± {tolerance:e}");
            }
            (g, w) => assert_eq!(g.as_i64(), w.as_i64(), "{what}: element {i} of {}", want.ty),
        }
    }
}
