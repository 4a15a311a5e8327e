//! Compiled and interpreted programs against the reference evaluator.

use crate::gpt::{block, f32s, layer_norm, model, softmax, step};
use crate::support::{check, check_donated};
use ferrata_compiler::{Kernel, ReferenceDevice, trace};
use ferrata_ir::composite::gelu_tanh;
use ferrata_ir::primitive::{Call, Cond, Pad, ReduceKind, Reverse, Save, Scan};
use ferrata_ir::transform::{value_and_grad, vjp, vmap};
use ferrata_ir::{Builder, DType, Function, Type, Value};
use std::sync::Arc;

#[test]
fn softmax_and_layer_norm() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[2, 3, 5]));
    let (w, c) = (b.parameter(f32s(&[5])), b.parameter(f32s(&[5])));
    let s = softmax(&mut b, x);
    let n = layer_norm(&mut b, s, w, c);
    let f = Arc::new(b.finish(&[s, n]).unwrap());
    check(&f);
    check(&Arc::new(vjp(&f, &[true, true, true]).unwrap()));
}

#[test]
fn transformer_block_and_its_gradient() {
    let f = Arc::new(block(2, 3, 4, 2));
    check(&f);
    let marks = vec![true; f.parameters().len()];
    check(&Arc::new(vjp(&f, &marks).unwrap()));
}

#[test]
fn repeated_layers_with_loss_and_gradient() {
    let f = model(2, 3, 4, 2, 2, 5);
    check(&f);
    let mut marks = vec![true; f.parameters().len()];
    *marks.last_mut().unwrap() = false;
    check(&Arc::new(value_and_grad(&f, &marks).unwrap()));
}

#[test]
fn recomputed_layer() {
    let layer = Arc::new(block(1, 3, 4, 2));
    let mut b = Builder::new("f");
    let args: Vec<Value> =
        layer.parameter_types().into_iter().map(|t| b.parameter(t.clone())).collect();
    let y = b.emit1(Call { function: layer.clone(), recompute: true }, &args);
    let mut again = args.clone();
    again[0] = y;
    let y = b.emit1(Call { function: layer, recompute: true }, &again);
    let y = b.sum(y, &[0, 1, 2]);
    let f = Arc::new(b.finish(&[y]).unwrap());
    let marks = vec![true; f.parameters().len()];
    check(&Arc::new(value_and_grad(&f, &marks).unwrap()));
}

/// A product whose bias sum is kept for the backward pass while its activation goes on.
fn hidden(dtype: DType) -> (Builder, [Value; 2]) {
    let mut b = Builder::new("hidden");
    let ty = |shape: &[usize]| Type::new(dtype, shape.to_vec());
    let (x, w) = (b.parameter(ty(&[6, 4])), b.parameter(ty(&[4, 5])));
    let (bias, last) = (b.parameter(ty(&[5])), b.parameter(ty(&[5, 3])));
    let x = b.matmul(x, w);
    let bias = b.broadcast(bias, &[6, 5], &[1]);
    let sum = b.add(x, bias);
    let active = gelu_tanh(&mut b, sum);
    let y = b.matmul(active, last);
    (b, [sum, y])
}

#[test]
fn a_product_stores_what_is_kept_and_what_goes_on() {
    for dtype in [DType::F32, DType::BF16] {
        let (b, [sum, y]) = hidden(dtype);
        let f = Arc::new(b.finish(&[sum, y]).unwrap());
        let plan = check(&f);
        assert_eq!(plan.steps.len(), 2, "{:?}", plan.steps);
        check(&Arc::new(vjp(&f, &[true; 4]).unwrap()));
    }
}

#[test]
fn work_behind_a_product_does_not_wait_for_what_follows_from_it() {
    let mut b = Builder::new("f");
    let (x, w) = (b.parameter(f32s(&[4, 4])), b.parameter(f32s(&[4, 4])));
    let product = b.matmul(x, w);
    let again = b.matmul(product, w);
    let mixed = b.mul(product, again);
    let y = b.matmul(mixed, w);
    check(&Arc::new(b.finish(&[product, y]).unwrap()));
}

#[test]
fn a_sum_across_memory_is_not_a_row() {
    let mut b = Builder::new("f");
    let x = b.parameter(Type::new(DType::BF16, [64, 8]));
    let sum = b.sum(x, &[0]);
    let y = b.cast(sum, DType::F32);
    let plan = check(&Arc::new(b.finish(&[y]).unwrap()));
    let rows = plan.kernels.iter().find_map(|k| match &**k {
        Kernel::Loop(l) if !l.rows.is_empty() => Some(l.rows.clone()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![64]));
}

#[test]
fn batched_block() {
    let f = Arc::new(block(1, 3, 4, 2));
    let mut marks = vec![false; f.parameters().len()];
    marks[0] = true;
    check(&vmap(&f, &marks, 3).unwrap());
}

#[test]
fn adamw_step_in_place() {
    let mut b = Builder::new("adamw");
    let ty = f32s(&[6, 4]);
    let [p, m, v, g] = [(); 4].map(|()| b.parameter(ty.clone()));
    let rate = b.parameter(f32s(&[]));
    let (m0, g0) = (b.scale(m, 0.9), b.scale(g, 0.1));
    let m1 = b.add(m0, g0);
    let square = b.mul(g, g);
    let (v0, g1) = (b.scale(v, 0.99), b.scale(square, 0.01));
    let v1 = b.add(v0, g1);
    let magnitude = b.abs(v1);
    let root = b.sqrt(magnitude);
    let root = b.offset(root, 1e-3);
    let step = b.div(m1, root);
    let decay = b.scale(p, 0.1);
    let step = b.add(step, decay);
    let rate = b.broadcast(rate, &[6, 4], &[]);
    let step = b.mul(step, rate);
    let p1 = b.sub(p, step);
    let f = Arc::new(b.finish(&[p1, m1, v1]).unwrap());
    let plan = check_donated(&f, &[true, true, true, false, false]);
    assert_eq!(plan.takes, [Some(0), Some(1), Some(2)]);
    assert_eq!(plan.arena, 0);
}

#[test]
fn results_that_share_memory() {
    let mut b = Builder::new("f");
    let (x, y) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[2, 3])));
    let t = b.transpose(x, &[1, 0]);
    let s = b.add(x, y);
    let r = b.reshape(s, &[6]);
    let c = b.full(f32s(&[2, 3]), 7.0);
    let f = Arc::new(b.finish(&[x, t, s, r, s, c, y, x]).unwrap());
    check(&f);
    check_donated(&f, &[true, true]);
    // A swap: each result must wait for the other's last reader.
    let mut b = Builder::new("swap");
    let (x, y) = (b.parameter(f32s(&[3, 3])), b.parameter(f32s(&[3, 3])));
    let (p, q) = (b.matmul(x, y), b.matmul(y, x));
    let r = b.transpose(x, &[1, 0]);
    let r = b.add(r, y);
    check_donated(&Arc::new(b.finish(&[p, q, r, y, x]).unwrap()), &[true, true]);
}

#[test]
fn windows_of_computed_values() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[4, 6]));
    let e = b.exp(x);
    let s = b.slice_dim(e, 1, 1, 5);
    let r = b.emit1(Reverse { dims: vec![0, 1] }, &[s]);
    let t = b.transpose(r, &[1, 0]);
    let m = b.reshape(t, &[2, 8]);
    let n = b.neg(m);
    let zero = b.full(Type::scalar(DType::F32), 0.5);
    let pad = Pad { low: vec![1, -1], high: vec![0, 2], interior: vec![1, 0] };
    let q = b.emit1(pad, &[n, zero]);
    let i = b.iota(b.ty(q).clone(), 1);
    let i = b.reshape(i, &[6, 6]);
    let flat = b.reshape(q, &[6, 6]);
    let q = b.add(flat, i);
    let total = b.sum(q, &[0, 1]);
    let f = Arc::new(b.finish(&[n, q, total]).unwrap());
    check(&f);
    check(&Arc::new(vjp(&f, &[true]).unwrap()));
}

#[test]
fn half_precision_and_integers() {
    let mut b = Builder::new("f");
    let x = b.parameter(Type::new(DType::BF16, [3, 4]));
    let y = b.parameter(Type::new(DType::I8, [3, 4]));
    let wide = b.cast(x, DType::F32);
    let z = b.exp(wide);
    let z = b.cast(z, DType::BF16);
    let t = b.transpose(z, &[1, 0]);
    let p = b.matmul(x, t);
    let p = b.cast(p, DType::F32);
    let s = b.sum(z, &[0]);
    let i = b.mul(y, y);
    let i = b.sum(i, &[1]);
    let yt = b.transpose(y, &[1, 0]);
    let d = b.matmul(y, yt);
    check(&Arc::new(b.finish(&[z, p, s, i, d]).unwrap()));
}

/// A recurrent cell: `(weights, state, slice) -> (tanh(state · weights + slice), its square)`.
fn cell() -> Arc<Function> {
    let mut b = Builder::new("cell");
    let w = b.parameter(f32s(&[3, 3]));
    let (h, x) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[2, 3])));
    let y = b.matmul(h, w);
    let y = b.add(y, x);
    let y = b.tanh(y);
    let z = b.mul(y, y);
    Arc::new(b.finish(&[y, z]).unwrap())
}

#[test]
fn scans_and_their_gradients() {
    for (reverse, save) in [(false, Save::All), (true, Save::Every(2)), (false, Save::None)] {
        let mut b = Builder::new("f");
        let w = b.parameter(f32s(&[3, 3]));
        let (h, x) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[4, 2, 3])));
        let scan = Scan { body: cell(), constants: 1, carries: 1, length: 4, reverse, save };
        let r = b.emit(scan, &[w, h, x]);
        let total = b.sum(r[1], &[0, 1, 2]);
        let more = b.sum(r[0], &[0, 1]);
        let total = b.add(total, more);
        let f = Arc::new(b.finish(&[total, r[0], r[1]]).unwrap());
        check(&f);
        check_donated(&f, &[true; 3]);
        check(&Arc::new(value_and_grad(&f, &[true; 3]).unwrap()));
    }
}

#[test]
fn carries_that_change_places() {
    let mut b = Builder::new("fibonacci");
    let (x, y) = (b.parameter(f32s(&[2])), b.parameter(f32s(&[2])));
    let z = b.add(x, y);
    let body = Arc::new(b.finish(&[y, z, x]).unwrap());
    let mut b = Builder::new("f");
    let (x, y) = (b.parameter(f32s(&[2])), b.parameter(f32s(&[2])));
    let (length, reverse, save) = (5, false, Save::All);
    let scan = Scan { body, constants: 0, carries: 2, length, reverse, save };
    let r = b.emit(scan, &[x, y]);
    let f = Arc::new(b.finish(&r).unwrap());
    check_donated(&f, &[true, true]);
    let mut b = Builder::new("swap");
    let (x, y) = (b.parameter(f32s(&[2])), b.parameter(f32s(&[2])));
    let body = Arc::new(b.finish(&[y, x]).unwrap());
    let mut b = Builder::new("f");
    let (x, y) = (b.parameter(f32s(&[2])), b.parameter(f32s(&[2])));
    let scan = Scan { body, constants: 0, carries: 2, length: 3, reverse, save };
    let r = b.emit(scan, &[x, y]);
    check(&Arc::new(b.finish(&r).unwrap()));
}

#[test]
fn branches() {
    let mut b = Builder::new("yes");
    let (x, y) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[2, 3])));
    let s = b.add(x, y);
    let yes = Arc::new(b.finish(&[s, x]).unwrap());
    let mut b = Builder::new("no");
    let (x, y) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[2, 3])));
    let s = b.exp(x);
    let no = Arc::new(b.finish(&[s, y]).unwrap());
    for above in [-9.0, 9.0] {
        let mut b = Builder::new("f");
        let (x, y) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[3, 2])));
        let total = b.sum(x, &[0, 1]);
        let limit = b.full_like(total, above);
        let condition = b.lt(total, limit);
        let z = b.transpose(y, &[1, 0]);
        let branches = [yes.clone(), no.clone()];
        let r = b.emit(Cond { branches }, &[condition, x, z]);
        let product = b.mul(r[0], r[1]);
        let sum = b.sum(product, &[0, 1]);
        let f = Arc::new(b.finish(&[sum, r[0]]).unwrap());
        check_donated(&f, &[true, true]);
        check(&Arc::new(value_and_grad(&f, &[true, true]).unwrap()));
    }
}

#[test]
fn identities_and_empty_values() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[2, 3]));
    let e = b.parameter(f32s(&[0, 3]));
    let one = b.scale(x, 1.0);
    let half = b.full_like(x, 8.0);
    let eighth = b.div(one, half);
    let wide = b.cast(eighth, DType::F64);
    let back = b.cast(wide, DType::F32);
    let t = b.transpose(back, &[1, 0]);
    let t = b.transpose(t, &[1, 0]);
    let n = b.neg(t);
    let n = b.neg(n);
    let none = b.exp(e);
    let sum = b.sum(none, &[0]);
    let top = b.reduce(ReduceKind::Max, e, &[0, 1]);
    let et = b.transpose(e, &[1, 0]);
    let product = b.matmul(et, e);
    let all = b.full(Type::new(DType::Bool, [2, 3]), 1i64);
    let chosen = b.select(all, n, x);
    let f = Arc::new(b.finish(&[chosen, none, sum, top, product]).unwrap());
    let plan = check(&f);
    // One for the division; the other results are constants.
    assert_eq!(plan.steps.len(), 4);
}

#[test]
fn training_step_in_place() {
    let f = Arc::new(step(&model(2, 3, 4, 2, 3, 5)));
    let donated: Vec<bool> = f.parameter_types().iter().map(|t| t.dtype.is_float()).collect();
    let plan = check_donated(&f, &donated);
    let weights = (f.results().len() - 1) / 3;
    // Every weight and moment is updated where it is.
    let in_place: Vec<Option<usize>> = (1..=weights).map(Some).collect();
    assert_eq!(plan.takes[1..=weights], in_place);
    assert!(plan.takes[weights + 1..].iter().all(Option::is_some));
    check(&f);
}

#[test]
fn the_peak_says_what_lives_there() {
    let f = Arc::new(step(&model(2, 3, 8, 2, 3, 5)));
    let donated = vec![false; f.parameters().len()];
    let trace = trace(&f, &donated, &ReferenceDevice).unwrap();
    let names: Vec<&str> = trace.programs.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["program", "support", "inline", "channels_last", "simplify", "prune"]);
    let peak: usize = trace.peak().iter().map(|r| r.bytes).sum();
    assert!(peak <= trace.plan.arena, "{peak} bytes in {}", trace.plan.arena);
    assert!(trace.plan.arena <= peak + peak / 8, "{} for {peak} bytes", trace.plan.arena);
}
