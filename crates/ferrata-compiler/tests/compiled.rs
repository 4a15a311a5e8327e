//! Compiled and interpreted programs against the reference evaluator.

mod support;

use ferrata_ir::primitive::{Call, Cond, Pad, ReduceKind, Reverse, Save, Scan};
use ferrata_ir::transform::{value_and_grad, vjp, vmap};
use ferrata_ir::{Builder, DType, Function, Type, Value};
use std::sync::Arc;
use support::{check, check_donated, f32s};

fn softmax(b: &mut Builder, x: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let last = [shape.len() - 1];
    let top = b.reduce(ReduceKind::Max, x, &last);
    let top = b.broadcast_reduced(top, &shape, &last);
    let x = b.sub(x, top);
    let e = b.exp(x);
    let sum = b.sum(e, &last);
    let sum = b.broadcast_reduced(sum, &shape, &last);
    b.div(e, sum)
}

fn layer_norm(b: &mut Builder, x: Value, weight: Value, bias: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let last = [shape.len() - 1];
    let n = shape[last[0]] as f64;
    let mean = b.sum(x, &last);
    let mean = b.scale(mean, 1.0 / n);
    let mean = b.broadcast_reduced(mean, &shape, &last);
    let x = b.sub(x, mean);
    let square = b.mul(x, x);
    let var = b.sum(square, &last);
    let var = b.scale(var, 1.0 / n);
    let var = b.offset(var, 1e-5);
    let scale = b.rsqrt(var);
    let scale = b.broadcast_reduced(scale, &shape, &last);
    let x = b.mul(x, scale);
    let weight = b.broadcast_trailing(weight, &shape);
    let bias = b.broadcast_trailing(bias, &shape);
    let x = b.mul(x, weight);
    b.add(x, bias)
}

fn linear(b: &mut Builder, x: Value, weight: Value, bias: Value) -> Value {
    let rank = b.ty(x).rank();
    let y = b.dot(x, weight, (&[], &[]), (&[rank - 1], &[0]));
    let bias = b.broadcast_trailing(bias, &b.ty(y).shape.clone());
    b.add(y, bias)
}

const HEADS: usize = 2;

/// Causal attention and a gated layer, as a GPT has them.
fn block(batch: usize, time: usize, width: usize) -> Function {
    let mut b = Builder::new("block");
    let x = b.parameter(f32s(&[batch, time, width]));
    let p = |b: &mut Builder, shape: &[usize]| b.parameter(f32s(shape));
    let (w1, b1) = (p(&mut b, &[width]), p(&mut b, &[width]));
    let (wqkv, bqkv) = (p(&mut b, &[width, 3 * width]), p(&mut b, &[3 * width]));
    let (wo, bo) = (p(&mut b, &[width, width]), p(&mut b, &[width]));
    let (w2, b2) = (p(&mut b, &[width]), p(&mut b, &[width]));
    let (wu, bu) = (p(&mut b, &[width, 4 * width]), p(&mut b, &[4 * width]));
    let (wd, bd) = (p(&mut b, &[4 * width, width]), p(&mut b, &[width]));
    let h = layer_norm(&mut b, x, w1, b1);
    let qkv = linear(&mut b, h, wqkv, bqkv);
    let head = width / HEADS;
    let mut part = |i: usize| {
        let y = b.slice_dim(qkv, 2, i * width, (i + 1) * width);
        let y = b.reshape(y, &[batch, time, HEADS, head]);
        b.transpose(y, &[0, 2, 1, 3])
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let scores = b.dot(q, k, (&[0, 1], &[0, 1]), (&[3], &[3]));
    let scores = b.scale(scores, 1.0 / (head as f64).sqrt());
    let ty = b.ty(scores).with_dtype(DType::I64);
    let (rows, columns) = (b.iota(ty.clone(), 2), b.iota(ty, 3));
    let visible = b.ge(rows, columns);
    let never = b.full_like(scores, -1e30);
    let scores = b.select(visible, scores, never);
    let probabilities = softmax(&mut b, scores);
    let y = b.matmul(probabilities, v);
    let y = b.transpose(y, &[0, 2, 1, 3]);
    let y = b.reshape(y, &[batch, time, width]);
    let y = linear(&mut b, y, wo, bo);
    let x = b.add(x, y);
    let h = layer_norm(&mut b, x, w2, b2);
    let h = linear(&mut b, h, wu, bu);
    let gate = b.logistic(h);
    let h = b.mul(h, gate);
    let h = linear(&mut b, h, wd, bd);
    let x = b.add(x, h);
    b.finish(&[x]).unwrap()
}

/// Two blocks, cross-entropy over classes.
fn model() -> Arc<Function> {
    let (batch, time, width, classes) = (2, 3, 4, 5);
    let block = Arc::new(block(batch, time, width));
    let mut b = Builder::new("model");
    let mut x = b.parameter(f32s(&[batch, time, width]));
    for _ in 0..2 {
        let mut args = vec![x];
        for ty in &block.parameter_types()[1..] {
            args.push(b.parameter((*ty).clone()));
        }
        x = b.call(&block, &args)[0];
    }
    let head = b.parameter(f32s(&[classes, width]));
    let logits = b.dot(x, head, (&[], &[]), (&[2], &[1]));
    let targets = b.parameter(Type::new(DType::I64, [batch, time]));
    let shape = b.ty(logits).shape.clone();
    let top = b.reduce(ReduceKind::Max, logits, &[2]);
    let wide = b.broadcast_reduced(top, &shape, &[2]);
    let shifted = b.sub(logits, wide);
    let e = b.exp(shifted);
    let sum = b.sum(e, &[2]);
    let log_sum = b.log(sum);
    let class = b.iota(Type::new(DType::I64, shape.clone()), 2);
    let wanted = b.broadcast_reduced(targets, &shape, &[2]);
    let hit = b.eq(class, wanted);
    let zero = b.zeros_like(shifted);
    let picked = b.select(hit, shifted, zero);
    let picked = b.sum(picked, &[2]);
    let loss = b.sub(log_sum, picked);
    let loss = b.sum(loss, &[0, 1]);
    let loss = b.scale(loss, 1.0 / (batch * time) as f64);
    Arc::new(b.finish(&[loss]).unwrap())
}

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
    let f = Arc::new(block(2, 3, 4));
    check(&f);
    let marks = vec![true; f.parameters().len()];
    check(&Arc::new(vjp(&f, &marks).unwrap()));
}

#[test]
fn repeated_layers_with_loss_and_gradient() {
    let f = model();
    check(&f);
    let mut marks = vec![true; f.parameters().len()];
    *marks.last_mut().unwrap() = false;
    check(&Arc::new(value_and_grad(&f, &marks).unwrap()));
}

#[test]
fn recomputed_layer() {
    let layer = Arc::new(block(1, 3, 4));
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

#[test]
fn batched_block() {
    let f = Arc::new(block(1, 3, 4));
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
