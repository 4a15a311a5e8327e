//! A report on an NPU: what its runtime has and lacks, and whether every primitive and kind of kernel
//! gives what the reference evaluator gives.

use crate::chip::Chip;
use crate::compiler::{self, Compiler};
use crate::device::Ascend;
use crate::npu::AscendNpu;
use crate::runtime::abi::Package;
use crate::runtime::{self, Cann, Search, operators};
use ferrata_compiler::{Argument, Buffer, Device};
use ferrata_ir::primitive::index::{BadIndex, ScatterKind};
use ferrata_ir::primitive::{Gather, Primitive, ReduceKind, Scatter};
use ferrata_ir::testing::{Options, Random, case, function_of};
use ferrata_ir::{
    Builder, DType, Evaluator, Function, Literal, Precision, Result, Scalar, Type, Value,
};
use std::env;
use std::fmt::Write;
use std::sync::Arc;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All of it, as lines of text.
    pub text: String,
    /// Programs whose results are right.
    pub right: usize,
    /// Programs whose results are wrong, or that failed.
    pub wrong: usize,
}

/// Variables of the environment that decide what is found.
const VARIABLES: [&str; 8] = [
    runtime::VARIABLE,
    compiler::VARIABLE,
    "ASCEND_HOME_PATH",
    "ASCEND_TOOLKIT_HOME",
    "ASCEND_OPP_PATH",
    "ASCEND_CUSTOM_OPP_PATH",
    "ASCEND_RT_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
];
/// Floats that primitives are run in.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// Random nodes of each primitive for each of them.
const NODES: usize = 3;
/// Roundings that a result may be off by, relative to the largest one.
const UNITS: f64 = 64.0;

impl Report {
    /// Looks at a machine, and tries a chip out by its number.
    pub fn new(search: &Search, number: usize, compiler: Result<Compiler>) -> Report {
        let mut report = Report::default();
        let (system, machine) = (env::consts::OS, env::consts::ARCH);
        report.line(format_args!("ferrata {}, {system} {machine}", env!("CARGO_PKG_VERSION")));
        for name in VARIABLES {
            let value = env::var(name).unwrap_or_else(|_| "not set".into());
            report.line(format_args!("  {name}: {value}"));
        }
        report.compiler(&compiler);
        match AscendNpu::open(search, number, compiler) {
            Ok(npu) => {
                report.runtime(npu.cann());
                report.line(format_args!("chip {number}: {}", npu.fingerprint()));
                match npu.memory() {
                    Ok((free, total)) => {
                        report.line(format_args!("  {free} of {total} bytes free"));
                    }
                    Err(error) => report.fails("memory", &error.to_string()),
                }
                for (kernels, path) in npu.paths() {
                    report.line(format_args!("  {kernels}: {path}"));
                }
                report.primitives(&npu);
                report.kernels(&npu);
            }
            Err(error) => {
                // The runtime may tell more than the chip.
                match Cann::open(search) {
                    Ok(cann) => report.runtime(&cann),
                    Err(error) => report.line(format_args!("runtime: {error}")),
                }
                report.fails("opening the chip", &error.to_string());
            }
        }
        let Report { right, wrong, .. } = report;
        report.line(format_args!("{right} right, {wrong} wrong"));
        report
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn fails(&mut self, what: &str, why: &str) {
        self.wrong += 1;
        self.line(format_args!("  {what}: WRONG: {why}"));
    }

    fn compiler(&mut self, compiler: &Result<Compiler>) {
        match compiler {
            Ok(compiler) => {
                let tools = compiler.tools().map_or("none".into(), |p| p.display().to_string());
                self.line(format_args!("compiler: {tools}"));
                match compiler.last_step() {
                    Ok(path) => self.line(format_args!("  last step: {}", path.display())),
                    Err(error) => self.line(format_args!("  last step: {error}")),
                }
            }
            Err(error) => self.line(format_args!("compiler: {error}")),
        }
    }

    fn runtime(&mut self, cann: &Cann) {
        let unknown = || "unknown".to_owned();
        let release = cann.release(Package::Cann).unwrap_or_else(unknown);
        let driver = cann.release(Package::Driver).unwrap_or_else(unknown);
        let version = cann.version().map_or_else(|e| e.to_string(), |v| format!("{v:?}"));
        self.line(format_args!("runtime: CANN {release}, driver {driver}, interface {version}"));
        for (library, path) in cann.opened() {
            self.line(format_args!("  {library}: {}", path.display()));
        }
        for (library, why) in cann.absent() {
            self.line(format_args!("  {library}: NOT OPENED: {why}"));
        }
        let found = runtime::DECLARATIONS.len() - cann.missing().len();
        self.line(format_args!("  {found} functions found, {} missing", cann.missing().len()));
        for missing in cann.missing() {
            let lost = missing.lost.unwrap_or("nothing works");
            self.line(format_args!("    {} of {}: {lost}", missing.name, missing.library));
        }
        for (name, found) in operators(cann) {
            let found = if found { "found" } else { "MISSING" };
            self.line(format_args!("  operator {name}: {found}"));
        }
        match cann.chips() {
            Ok(chips) => self.line(format_args!("  {chips} chips")),
            Err(error) => self.line(format_args!("  chips: {error}")),
        }
    }

    /// Random nodes of every primitive, each as a program.
    fn primitives<C: Chip>(&mut self, device: &Ascend<C>) {
        self.line(format_args!("primitives:"));
        // What prints, and what needs other ranks, is left out.
        let names = Primitive::names().into_iter().filter(|name| *name != "debug_print");
        for name in names {
            for float in FLOATS {
                let options = Options {
                    dtypes: vec![float, float, DType::I64, DType::I32, DType::Bool],
                    sizes: vec![2, 3, 5, 1],
                    depth: 0,
                    ..Options::default()
                };
                let random = &mut Random::new(7);
                for _ in 0..NODES {
                    let Some(case) = case(name, random, &options) else { continue };
                    if case.op.is_collective() {
                        continue;
                    }
                    let arguments = case.literals(random);
                    let program = function_of(&arguments, |b, x| b.emit(case.op.clone(), x));
                    let types = case.operands.iter().map(|(ty, _)| ty.to_string());
                    let what = format!("{name}({})", types.collect::<Vec<_>>().join(", "));
                    self.program(device, &what, program, &arguments);
                }
            }
        }
    }

    /// Kernels of the sizes that training has; what the host would compute is not run.
    fn kernels<C: Chip>(&mut self, device: &Ascend<C>) {
        self.line(format_args!("kernels:"));
        let all = kernels().unwrap_or_else(|error| {
            self.fails("kernels", &error.to_string());
            Vec::new()
        });
        for (what, program) in all {
            match lacks(device, &program) {
                Ok(lacks) if lacks.is_empty() => {
                    let random = &mut Random::new(3);
                    let types = program.parameter_types();
                    let arguments: Vec<Literal> =
                        types.iter().map(|ty| numbers(random, ty)).collect();
                    self.program(device, what, Ok(program), &arguments);
                }
                Ok(lacks) => self.line(format_args!("  {what}: not run: {}", lacks.join("; "))),
                Err(error) => self.fails(what, &error.to_string()),
            }
        }
    }

    fn program<C: Chip>(
        &mut self,
        device: &Ascend<C>,
        what: &str,
        program: Result<Arc<Function>>,
        arguments: &[Literal],
    ) {
        let done = program.and_then(|program| {
            let inputs: Vec<&Literal> = arguments.iter().collect();
            let want = Evaluator::new(Precision::Typed).call(&program, &inputs)?;
            let got = run(device, &program, arguments)?;
            let different = got.iter().zip(&want).find_map(|(got, want)| difference(got, want));
            Ok((different, lacks(device, &program)?))
        });
        match done {
            Ok((None, lacks)) if lacks.is_empty() => {
                self.right += 1;
                self.line(format_args!("  {what}: right, by our kernels"));
            }
            Ok((None, lacks)) => {
                self.right += 1;
                self.line(format_args!(
                    "  {what}: right, not by our kernels: {}",
                    lacks.join("; ")
                ));
            }
            Ok((Some(different), lacks)) => {
                let by = if lacks.is_empty() { "our kernels".into() } else { lacks.join("; ") };
                self.fails(what, &format!("{different} (by {by})"));
            }
            Err(error) => self.fails(what, &error.to_string()),
        }
    }
}

/// Why kernels of a program are not ours.
fn lacks<C: Chip>(device: &Ascend<C>, program: &Arc<Function>) -> Result<Vec<String>> {
    let donated = vec![false; program.parameter_types().len()];
    let plan = ferrata_compiler::compile(program, &donated, device)?;
    let mut lacks = Vec::new();
    for kernel in &plan.kernels {
        lacks.extend(device.chip().prepare(kernel)?.lacks);
    }
    lacks.sort();
    lacks.dedup();
    Ok(lacks)
}

fn run(
    device: &dyn Device,
    program: &Arc<Function>,
    arguments: &[Literal],
) -> Result<Vec<Literal>> {
    let executable = device.compile(program, &vec![false; arguments.len()])?;
    let upload = |x: &Literal| Ok(Argument::Shared(device.upload(x.ty.clone(), &x.to_bytes())?));
    let results = executable.run(arguments.iter().map(upload).collect::<Result<_>>()?)?;
    let read = |b: &Buffer| Literal::from_bytes(b.ty.clone(), &device.download(b)?);
    results.iter().map(read).collect()
}

/// The first element that differs by more than roundings.
fn difference(got: &Literal, want: &Literal) -> Option<String> {
    let floats = |x: &Literal, i: usize| match x.get(i) {
        Scalar::Float(x) => Some(x),
        Scalar::Int(_) => None,
    };
    let elements = want.ty.elements();
    let finite = (0..elements).filter_map(|i| floats(want, i)).filter(|x| x.is_finite());
    let largest = finite.fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let epsilon = want.ty.dtype.epsilon().max(DType::F32.epsilon());
    let same = |i: usize| match (floats(got, i), floats(want, i)) {
        (Some(g), Some(w)) => {
            g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= UNITS * epsilon * largest
        }
        _ => got.get(i).as_i64() == want.get(i).as_i64(),
    };
    let i = (0..elements).find(|&i| !same(i))?;
    Some(format!("element {i} of {} is {:?}, not {:?}", want.ty, got.get(i), want.get(i)))
}

/// Numbers from -2 to 2, or small integers, some below 0.
fn numbers(random: &mut Random, ty: &Type) -> Literal {
    Literal::build(ty.clone(), |_| match ty.dtype {
        DType::Bool => Scalar::Int(i64::from(random.one_in(2))),
        d if d.is_float() => Scalar::Float(random.float(-2.0, 2.0)),
        _ => Scalar::Int(random.between(0, 20) as i64 - 5),
    })
    .rounded()
}

/// One program for each kind of kernel, as large as in training.
///
/// # Errors
/// Never, unless a primitive has changed.
pub fn kernels() -> Result<Vec<(&'static str, Arc<Function>)>> {
    let f32s = |shape: &[usize]| Type::new(DType::F32, shape);
    let indices = Type::new(DType::I64, [5, 1]);
    let gather = Gather { batch: 0, indexed: 1, bad: BadIndex::Clip };
    let scatter = Scatter { batch: 0, indexed: 1, kind: ScatterKind::Add, bad: BadIndex::Drop };
    let many = f32s(&[400_000]);
    let adam = program(&[many.clone(), many.clone(), many, f32s(&[])], |b, x| adam(b, x, 400_000));
    let product = program(&[f32s(&[200, 600]), f32s(&[300, 600]), f32s(&[300])], |b, x| {
        let y = b.dot(x[0], x[1], (&[], &[]), (&[1], &[1]));
        let bias = b.broadcast_trailing(x[2], &[200, 300]);
        let y = b.add(y, bias);
        vec![b.logistic(y)]
    });
    let rows = [f32s(&[7, 20]), indices, f32s(&[5, 20])];
    Ok(vec![
        ("AdamW", adam?),
        (
            "normalisation",
            program(&[f32s(&[50, 100]), f32s(&[100])], |b, x| norm(b, x, [50, 100]))?,
        ),
        ("sum of rows", program(&[f32s(&[9000, 3])], |b, x| vec![b.sum(x[0], &[0])])?),
        ("product", product?),
        ("gather", program(&rows[..2], |b, x| b.emit(gather, x))?),
        ("scatter", program(&rows, |b, x| b.emit(scatter, x))?),
    ])
}

/// The function of these parameters that `build` describes.
fn program(
    types: &[Type],
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let mut b = Builder::new("test");
    let args: Vec<Value> = types.iter().map(|t| b.parameter(t.clone())).collect();
    let results = build(&mut b, &args);
    b.finish(&results).map(Arc::new)
}

/// A step of AdamW on a parameter, its gradient, a mean, and a rate.
fn adam(b: &mut Builder, x: &[Value], n: usize) -> Vec<Value> {
    let [parameter, gradient, mean, rate] = [x[0], x[1], x[2], x[3]];
    let old = b.scale(mean, 0.9);
    let new = b.scale(gradient, 0.1);
    let mean = b.add(old, new);
    let square = b.mul(gradient, gradient);
    let size = b.offset(square, 1e-4);
    let size = b.rsqrt(size);
    let step = b.mul(mean, size);
    let rate = b.broadcast_trailing(rate, &[n]);
    let step = b.mul(step, rate);
    vec![b.sub(parameter, step), mean]
}

/// Rows over the root of the mean of their squares, with a weight.
fn norm(b: &mut Builder, x: &[Value], shape: [usize; 2]) -> Vec<Value> {
    let square = b.mul(x[0], x[0]);
    let sum = b.reduce(ReduceKind::Sum, square, &[1]);
    let mean = b.scale(sum, 1.0 / shape[1] as f64);
    let mean = b.offset(mean, 1e-5);
    let scale = b.rsqrt(mean);
    let scale = b.broadcast_reduced(scale, &shape, &[1]);
    let y = b.mul(x[0], scale);
    let weight = b.broadcast_trailing(x[1], &shape);
    vec![b.mul(y, weight)]
}
