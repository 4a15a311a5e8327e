//! Kernels whose compiled form is kept beside the tests, so that they run without the compiler. If
//! what is emitted for them changes, `FERRATA_BLESS=1` and the compiler write it anew.

use crate::support::{check_on, numbers, program, ty};
use ferrata_ascend::{AscendSimulator, Compiler, Target};
use ferrata_ir::primitive::index::{BadIndex, ScatterKind};
use ferrata_ir::primitive::{Gather, ReduceKind, Scatter};
use ferrata_ir::testing::Random;
use ferrata_ir::{Builder, DType, Function, Literal, Value};
use std::sync::Arc;

pub fn target() -> Target {
    Target::find("Ascend910B3").unwrap()
}

/// The compiler that knows these kernels.
pub fn compiler() -> Compiler {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compiled");
    if std::env::var_os("FERRATA_BLESS").is_some() {
        return Compiler::find().unwrap().keeping(folder);
    }
    Compiler::kept(folder)
}

/// One program for each kind of kernel.
pub fn programs() -> Vec<(&'static str, Arc<Function>)> {
    let f32s = |shape: &[usize]| ty(DType::F32, shape);
    let indices = ty(DType::I64, &[5, 1]);
    let gather = Gather { batch: 0, indexed: 1, bad: BadIndex::Clip };
    let scatter = Scatter { batch: 0, indexed: 1, kind: ScatterKind::Add, bad: BadIndex::Drop };
    vec![
        (
            "AdamW",
            program(&[f32s(&[400_000]), f32s(&[400_000]), f32s(&[400_000]), f32s(&[])], |b, x| {
                adam(b, x, 400_000)
            }),
        ),
        ("normalisation", program(&[f32s(&[50, 100]), f32s(&[100])], |b, x| norm(b, x, [50, 100]))),
        ("sum of rows", program(&[f32s(&[9000, 3])], |b, x| vec![b.sum(x[0], &[0])])),
        (
            "product",
            program(&[f32s(&[200, 600]), f32s(&[300, 600]), f32s(&[300])], |b, x| {
                let y = b.dot(x[0], x[1], (&[], &[]), (&[1], &[1]));
                let bias = b.broadcast_trailing(x[2], &[200, 300]);
                let y = b.add(y, bias);
                vec![b.logistic(y)]
            }),
        ),
        ("gather", program(&[f32s(&[7, 20]), indices.clone()], |b, x| b.emit(gather, x))),
        ("scatter", program(&[f32s(&[7, 20]), indices, f32s(&[5, 20])], |b, x| b.emit(scatter, x))),
    ]
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

pub fn arguments(program: &Function) -> Vec<Literal> {
    let random = &mut Random::new(3);
    program.parameter_types().iter().map(|ty| numbers(random, ty)).collect()
}

#[test]
fn kernels_that_are_kept() {
    let device = AscendSimulator::new(target(), compiler()).unwrap();
    for (name, program) in programs() {
        check_on(&device, &program, &arguments(&program), 32.0, 20.0, name);
    }
    assert!(device.on_host().is_empty(), "{:?}", device.on_host());
}
