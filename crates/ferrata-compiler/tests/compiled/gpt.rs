//! A GPT, written with primitives.

use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Function, Type, Value};
use std::sync::Arc;

pub fn softmax(b: &mut Builder, x: Value) -> Value {
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

pub fn layer_norm(b: &mut Builder, x: Value, weight: Value, bias: Value) -> Value {
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

/// Causal attention and a gated layer, as a GPT has them.
pub fn block(batch: usize, time: usize, width: usize, heads: usize) -> Function {
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
    let head = width / heads;
    let mut part = |i: usize| {
        let y = b.slice_dim(qkv, 2, i * width, (i + 1) * width);
        let y = b.reshape(y, &[batch, time, heads, head]);
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

/// Some blocks, cross-entropy over classes. Inputs: embedded tokens, weights, targets.
pub fn model(
    batch: usize,
    time: usize,
    width: usize,
    heads: usize,
    layers: usize,
    classes: usize,
) -> Arc<Function> {
    let block = Arc::new(block(batch, time, width, heads));
    let mut b = Builder::new("model");
    let mut x = b.parameter(f32s(&[batch, time, width]));
    for _ in 0..layers {
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

/// Gradients, clipping by their norm, and AdamW for every weight. Inputs: those of `loss`, then
/// first and second moments, then the learning rate. Results: loss, weights, moments.
pub fn step(loss: &Arc<Function>) -> Function {
    let types: Vec<Type> = loss.parameter_types().into_iter().cloned().collect();
    let mut marks = vec![true; types.len()];
    (marks[0], marks[types.len() - 1]) = (false, false);
    let gradient = Arc::new(value_and_grad(loss, &marks).unwrap());
    let weights = 1..types.len() - 1;
    let mut b = Builder::new("step");
    let inputs: Vec<Value> = types.iter().map(|t| b.parameter(t.clone())).collect();
    let first: Vec<Value> = weights.clone().map(|i| b.parameter(types[i].clone())).collect();
    let second: Vec<Value> = weights.clone().map(|i| b.parameter(types[i].clone())).collect();
    let rate = b.parameter(f32s(&[]));
    let outcome = b.call(&gradient, &inputs);
    let grads = &outcome[1..];
    let mut norm = b.full(f32s(&[]), 1e-12);
    for &g in grads {
        let square = b.mul(g, g);
        let dims: Vec<usize> = (0..b.ty(g).rank()).collect();
        let sum = b.sum(square, &dims);
        norm = b.add(norm, sum);
    }
    let norm = b.rsqrt(norm);
    let one = b.full_like(norm, 1.0);
    let clip = b.min(norm, one);
    let mut results = [vec![outcome[0]], vec![], vec![], vec![]];
    for (i, p) in weights.enumerate() {
        let shape = types[p].shape.clone();
        let scale = b.broadcast(clip, &shape, &[]);
        let g = b.mul(grads[i], scale);
        let (kept, new) = (b.scale(first[i], 0.9), b.scale(g, 0.1));
        let m = b.add(kept, new);
        let square = b.mul(g, g);
        let (kept, new) = (b.scale(second[i], 0.99), b.scale(square, 0.01));
        let v = b.add(kept, new);
        let root = b.sqrt(v);
        let root = b.offset(root, 1e-8);
        let change = b.div(m, root);
        let decay = b.scale(inputs[p], 0.1);
        let change = b.add(change, decay);
        let rate = b.broadcast(rate, &shape, &[]);
        let change = b.mul(change, rate);
        let weight = b.sub(inputs[p], change);
        results[1].push(weight);
        results[2].push(m);
        results[3].push(v);
    }
    b.finish(&results.concat()).unwrap()
}

/// A type of f32 values.
pub fn f32s(shape: &[usize]) -> Type {
    Type::new(DType::F32, shape)
}
