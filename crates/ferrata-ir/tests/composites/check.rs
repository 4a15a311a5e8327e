//! The checks that every differentiable composite passes.

use ferrata_ir::primitive::{Call, Primitive};
use ferrata_ir::transform::{value_and_grad, vmap};
use ferrata_ir::{Builder, DType, Evaluator, Function, Literal, Precision, Type, Value};
use std::sync::Arc;

/// An f64 type.
pub fn f64s(shape: &[usize]) -> Type {
    Type::new(DType::F64, shape)
}

/// Numbers between about -1.7 and 1.7 that differ by `seed`.
pub fn wave(seed: usize, n: usize) -> Vec<f64> {
    (0..n).map(|i| 1.7 * ((i * 7 + seed * 13) as f64 * 0.731 + seed as f64).sin()).collect()
}

/// A literal of such numbers.
pub fn random(seed: usize, shape: &[usize]) -> Literal {
    Literal::float(f64s(shape), wave(seed, shape.iter().product()))
}

/// An i64 literal.
pub fn ints(shape: &[usize], values: &[i64]) -> Literal {
    Literal::int(Type::new(DType::I64, shape), values.to_vec())
}

/// A bool literal.
pub fn bools(shape: &[usize], values: &[i64]) -> Literal {
    Literal::int(Type::new(DType::Bool, shape), values.to_vec())
}

/// The function that `body` builds from parameters of the arguments' types.
pub fn build(
    args: &[Literal],
    body: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Arc<Function> {
    let mut b = Builder::new("f");
    let x: Vec<Value> = args.iter().map(|a| b.parameter(a.ty.clone())).collect();
    let y = body(&mut b, &x);
    Arc::new(b.finish(&y).unwrap())
}

/// Results in f64.
pub fn run(f: &Function, args: &[Literal]) -> Vec<Literal> {
    Evaluator::new(Precision::Exact).call(f, &args.iter().collect::<Vec<_>>()).unwrap()
}

/// The function without anybody's own derivative.
fn strip(f: &Function) -> Arc<Function> {
    let mut b = Builder::new(f.name.clone());
    let mut map = vec![None; f.value_count()];
    for &p in f.parameters() {
        map[p.index()] = Some(b.parameter(f.ty(p).clone()));
    }
    for node in f.nodes() {
        let inputs: Vec<Value> = node.inputs.iter().map(|v| map[v.index()].unwrap()).collect();
        let op = match &node.op {
            Primitive::Call(c) => {
                Call { function: strip(&c.function), recompute: c.recompute }.into()
            }
            other => other.clone(),
        };
        for (&o, r) in node.outputs.iter().zip(b.emit(op, &inputs)) {
            map[o.index()] = Some(r);
        }
    }
    let results: Vec<Value> = f.results().iter().map(|v| map[v.index()].unwrap()).collect();
    Arc::new(b.finish(&results).unwrap())
}

/// A weighted sum of the float results: weights differ from element to element.
fn weighted(f: &Arc<Function>, from: usize) -> Arc<Function> {
    let mut b = Builder::new("weighted");
    let x: Vec<Value> = f.parameter_types().into_iter().map(|t| b.parameter(t.clone())).collect();
    let y = b.call(f, &x);
    let mut total = b.full(f64s(&[]), 0.0);
    for (i, &v) in y.iter().enumerate().skip(from) {
        let ty = b.ty(v).clone();
        if !ty.dtype.is_float() {
            continue;
        }
        let n = ty.elements();
        let flat = b.reshape(v, &[n]);
        let at = b.iota(f64s(&[n]), 0);
        let phase = b.offset(at, 0.3 + i as f64);
        let weight = b.sin(phase);
        let terms = b.mul(flat, weight);
        let sum = b.sum(terms, &[0]);
        total = b.add(total, sum);
    }
    Arc::new(b.finish(&[total]).unwrap())
}

fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}[{i}]: {g}, not {w}");
    }
}

/// Gradients of a scalar function by central differences.
fn differences(f: &Function, args: &[Literal], wrt: &[bool]) -> Vec<Vec<f64>> {
    let h = 1e-5;
    let at = |which: usize, i: usize, by: f64| {
        let mut args = args.to_vec();
        let mut v = args[which].to_f64();
        v[i] += by;
        args[which] = Literal::float(args[which].ty.clone(), v);
        run(f, &args)[0].to_f64()[0]
    };
    let marked = (0..args.len()).filter(|&i| wrt[i]);
    marked
        .map(|which| {
            let n = args[which].ty.elements();
            (0..n).map(|i| (at(which, i, h) - at(which, i, -h)) / (2.0 * h)).collect()
        })
        .collect()
}

fn gradient(f: &Arc<Function>, args: &[Literal], wrt: &[bool]) -> Vec<Vec<f64>> {
    let g = value_and_grad(f, wrt).unwrap();
    run(&g, args)[1..].iter().map(Literal::to_f64).collect()
}

fn compare(what: &str, got: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        close(&format!("{what} {i}"), g, w, tolerance);
    }
}

/// First and second derivatives in the float arguments, against finite differences and against
/// differentiation through the bodies; batching of value and gradient against a loop.
pub fn check(args: &[Literal], body: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>) {
    let f = build(args, body);
    let wrt: Vec<bool> = args.iter().map(|a| a.ty.dtype.is_float()).collect();
    let loss = weighted(&f, 0);
    let own = gradient(&loss, args, &wrt);
    compare("gradient", &own, &differences(&loss, args, &wrt), 2e-8);
    compare("gradient of the body", &own, &gradient(&strip(&loss), args, &wrt), 1e-12);
    let once = Arc::new(value_and_grad(&loss, &wrt).unwrap());
    let again = weighted(&once, 1);
    let second = gradient(&again, args, &wrt);
    compare("second derivative", &second, &differences(&again, args, &wrt), 1e-7);
    batches(&once, args);
}

/// `vmap` over every argument against one call for each sample.
fn batches(f: &Arc<Function>, args: &[Literal]) {
    let size = 2;
    let sample = |n: usize| -> Vec<Literal> {
        let shift = |a: &Literal| {
            if a.ty.dtype.is_float() {
                let v = a.to_f64().iter().map(|x| x + 0.1 * n as f64).collect();
                Literal::float(a.ty.clone(), v)
            } else {
                a.clone()
            }
        };
        args.iter().map(shift).collect()
    };
    let samples: Vec<Vec<Literal>> = (0..size).map(sample).collect();
    let stacked: Vec<Literal> = (0..args.len())
        .map(|i| {
            let mut shape = vec![size];
            shape.extend(&args[i].ty.shape);
            let n = args[i].ty.elements();
            Literal::build(args[i].ty.with_shape(shape), |e| samples[e / n][i].get(e % n))
        })
        .collect();
    let together = run(&vmap(f, &vec![true; args.len()], size).unwrap(), &stacked);
    for (n, sample) in samples.iter().enumerate() {
        for (all, one) in together.iter().zip(run(f, sample)) {
            let one = one.to_f64();
            close("batched", &all.to_f64()[n * one.len()..][..one.len()], &one, 1e-12);
        }
    }
}
