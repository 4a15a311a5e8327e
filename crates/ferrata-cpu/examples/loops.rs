//! Times fused loops at the shapes of language models, against the bandwidth of memory.
//!
//! `cargo run --release -p ferrata-cpu --example loops [filter]` prints, for every program, the
//! median time of its kernels, the bytes of its operands and results per second, and their share
//! of what a plain copy reaches in the same run.

use ferrata_compiler::watch::Activity;
use ferrata_compiler::{Argument, Buffer, Device};
use ferrata_cpu::{CpuDevice, CpuOptions, Pool};
use ferrata_ir::composite::{self, CrossEntropy};
use ferrata_ir::transform::vjp;
use ferrata_ir::{Builder, DType, Function, Result, Type, Value};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A program, and which of its arguments results may replace.
struct Case {
    name: String,
    program: Arc<Function>,
    donated: Vec<bool>,
}

fn function(
    types: &[Type],
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let mut b = Builder::new("loop");
    let args: Vec<Value> = types.iter().map(|t| b.parameter(t.clone())).collect();
    let results = build(&mut b, &args);
    Ok(Arc::new(b.finish(&results)?))
}

/// The gradients alone.
fn backward(forward: &Arc<Function>, wrt: &[bool]) -> Result<Arc<Function>> {
    let whole = Arc::new(vjp(forward, wrt)?);
    let types: Vec<Type> = whole.parameter_types().into_iter().cloned().collect();
    function(&types, |b, x| {
        let results = b.call(&whole, x);
        results[forward.result_types().len()..].to_vec()
    })
}

fn cases() -> Result<Vec<Case>> {
    let mut all = Vec::new();
    let mut add = |name: String, program: Arc<Function>| {
        // Results that replace arguments touch no new memory.
        let mut results = program.result_types();
        let donated = program.parameter_types().into_iter().map(|t| {
            let found = results.iter().position(|r| *r == t);
            found.map(|at| results.remove(at)).is_some()
        });
        let donated = donated.collect();
        all.push(Case { name, program, donated });
    };
    for dtype in [DType::F32, DType::BF16] {
        let t = |shape: &[usize]| Type::new(dtype, shape);
        let mut both = |name: &str, types: &[Type], build: fn(&mut Builder, &[Value]) -> Value| {
            let f = function(types, |b, x| vec![build(b, x)])?;
            add(format!("{name} {dtype}"), f.clone());
            let wrt: Vec<bool> = types.iter().map(|t| t.dtype.is_float()).collect();
            add(format!("{name} backward {dtype}"), backward(&f, &wrt)?);
            Ok::<(), ferrata_ir::Error>(())
        };
        for (rows, columns) in [(2048, 1536), (16384, 3072)] {
            let x = t(&[rows, columns]);
            both(&format!("gelu [{rows},{columns}]"), std::slice::from_ref(&x), |b, x| {
                composite::gelu(b, x[0])
            })?;
            both(&format!("gelu_tanh [{rows},{columns}]"), std::slice::from_ref(&x), |b, x| {
                composite::gelu_tanh(b, x[0])
            })?;
            both(&format!("swiglu [{rows},{columns}]"), &[x.clone(), x], |b, x| {
                composite::swiglu(b, x[0], x[1])
            })?;
        }
        for (rows, columns) in [(2048, 384), (32768, 768)] {
            let (x, w) = (t(&[rows, columns]), t(&[columns]));
            both(&format!("layer_norm [{rows},{columns}]"), &[x, w.clone(), w], |b, x| {
                composite::layer_norm(b, x[0], Some(x[1]), Some(x[2]), 1, 1e-5)
            })?;
        }
        for (rows, columns) in [(12288, 256), (8192, 4096)] {
            let x = t(&[rows, columns]);
            both(&format!("softmax [{rows},{columns}]"), &[x], |b, x| {
                composite::softmax(b, x[0], 1)
            })?;
        }
        let key = Type::new(DType::U32, [2]);
        let f = function(&[t(&[2048, 1536]), key], |b, x| {
            vec![composite::dropout(b, x[0], x[1], 0.1)]
        })?;
        add(format!("dropout [2048,1536] {dtype}"), f);
        let f = function(&[t(&[8, 6, 256, 64])], |b, x| vec![b.transpose(x[0], &[0, 2, 1, 3])])?;
        add(format!("transpose heads [8,6,256,64] {dtype}"), f);
        let f = function(&[t(&[2048, 1536])], |b, x| vec![b.transpose(x[0], &[1, 0])])?;
        add(format!("transpose [2048,1536] {dtype}"), f);
        let f = function(&[t(&[2048, 1536])], |b, x| vec![b.sum(x[0], &[0])])?;
        add(format!("sum of rows [2048,1536] {dtype}"), f);
        let f = function(&[t(&[144, 4096])], |b, x| {
            let square = b.mul(x[0], x[0]);
            vec![b.sum(square, &[0, 1])]
        })?;
        add(format!("sum of squares [144,4096] {dtype}"), f);
    }
    let ids = Type::new(DType::I64, [8192]);
    let f = function(&[Type::new(DType::F32, [8192, 50257]), ids], |b, x| {
        vec![composite::cross_entropy(b, x[0], x[1], None, &CrossEntropy::new(1))]
    })?;
    add("cross_entropy [8192,50257] f32".into(), f.clone());
    add("cross_entropy backward [8192,50257] f32".into(), backward(&f, &[true, false])?);
    for (name, count) in [("590 K", 589_824), ("124 M", 124_000_000)] {
        let types = vec![Type::new(DType::F32, [count]); 4];
        add(format!("adamw {name}"), function(&types, adamw)?);
    }
    Ok(all)
}

/// Parameter, gradient and both moments to parameter and moments.
fn adamw(b: &mut Builder, x: &[Value]) -> Vec<Value> {
    let (p, g) = (x[0], x[1]);
    let average = |b: &mut Builder, old: Value, new: Value, keep: f64| {
        let (old, new) = (b.scale(old, keep), b.scale(new, 1.0 - keep));
        b.add(old, new)
    };
    let m = average(b, x[2], g, 0.9);
    let square = b.mul(g, g);
    let v = average(b, x[3], square, 0.95);
    let root = b.sqrt(v);
    let root = b.offset(root, 1e-8);
    let step = b.div(m, root);
    let decay = b.scale(p, 0.1);
    let step = b.add(step, decay);
    let step = b.scale(step, -1e-3);
    vec![b.add(p, step), m, v]
}

/// Seconds that the kernels of each of some runs take, in order.
fn time(device: &CpuDevice, case: &Case, runs: usize) -> Result<Vec<f64>> {
    let executable = device.compile(&case.program, &case.donated)?;
    let mut args: Vec<Buffer> = Vec::new();
    for ty in case.program.parameter_types() {
        let bytes = (0..ty.bytes()).map(|i| {
            if ty.dtype.is_float() {
                // Numbers of either sign around 1.
                let size = ty.dtype.size();
                let high = if i % size == size - 1 {
                    0x3e | ((i / size * 7) % 3 / 2 * 0x80) as u8
                } else {
                    0
                };
                if i % size >= size.saturating_sub(2) { high.max((i % 97) as u8 & 0x3f) } else { 0 }
            } else {
                u8::from(i % 8 == 0) * (i / 8 % 251) as u8
            }
        });
        args.push(device.upload(ty.clone(), &bytes.collect::<Vec<u8>>())?);
    }
    let total = Arc::new(Mutex::new(0.0));
    let sum = total.clone();
    device.watch(Some(Arc::new(move |event| {
        if let (Activity::Kernel { .. }, Ok(mut sum)) = (&event.activity, sum.lock()) {
            *sum += (event.end - event.start).as_secs_f64();
        }
    })));
    let mut times = Vec::new();
    for _ in 0..runs + 2 {
        if let Ok(mut total) = total.lock() {
            *total = 0.0;
        }
        let given = std::mem::take(&mut args);
        let kept: Vec<Option<Buffer>> =
            given.iter().zip(&case.donated).map(|(b, &d)| (!d).then(|| b.clone())).collect();
        let given = given
            .into_iter()
            .zip(&case.donated)
            .map(|(b, &donated)| if donated { Argument::Donated(b) } else { Argument::Shared(b) });
        let mut results = executable.run(given.collect())?;
        for (kept, ty) in kept.into_iter().zip(case.program.parameter_types()) {
            let new = results.iter().position(|r| r.ty == *ty);
            args.extend(kept.or_else(|| new.map(|at| results.remove(at))));
        }
        times.push(total.lock().map_or(0.0, |t| *t));
    }
    device.watch(None);
    // The first runs touch new memory.
    let mut times = times.split_off(2);
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Bytes per second of a copy from memory to memory, reads and writes counted.
fn copy_bandwidth(pool: &Pool) -> f64 {
    const BYTES: usize = 256 << 20;
    struct Part(*mut u8);
    // SAFETY: tasks use different parts.
    unsafe impl Sync for Part {}
    impl Part {
        fn at(&self, offset: usize) -> *mut u8 {
            self.0.wrapping_add(offset)
        }
    }
    let (mut from, mut to) = (vec![1u8; BYTES], vec![2u8; BYTES]);
    let (a, b) = (Part(from.as_mut_ptr()), Part(to.as_mut_ptr()));
    let part = 1 << 20;
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        pool.run(BYTES / part, &|task, _| {
            let (from, to) = (a.at(task * part), b.at(task * part));
            // SAFETY: parts are within their vectors, and apart.
            unsafe { from.copy_to_nonoverlapping(to, part) };
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * BYTES as f64 / best
}

fn main() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let device = CpuDevice::new(CpuOptions::default())?;
    let limit = copy_bandwidth(&Pool::new(device.threads()));
    println!("{}, {} threads, copy {:.1} GB/s", device.isa(), device.threads(), limit / 1e9);
    for case in cases()?.iter().filter(|c| c.name.contains(&filter)) {
        let types = case.program.parameter_types().into_iter();
        let types = types.chain(case.program.result_types());
        let bytes: usize = types.map(Type::bytes).sum();
        let runs = (1 << 31) / bytes.max(1 << 25) + 3;
        let times = time(&device, case, runs)?;
        let median = times[times.len() / 2];
        let speed = bytes as f64 / median;
        let (ms, share) = (median * 1e3, 100.0 * speed / limit);
        println!("{:44} {ms:9.3} ms {:7.1} GB/s {share:5.0} %", case.name, speed / 1e9);
    }
    Ok(())
}
