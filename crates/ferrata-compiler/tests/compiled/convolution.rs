//! Convolutions and what stands around them: values in another order than the user's.

use crate::gpt::f32s;
use crate::support::check;
use ferrata_compiler::kernel::Instruction;
use ferrata_compiler::{Kernel, Plan};
use ferrata_ir::composite::{batch_norm_train, relu};
use ferrata_ir::primitive::{Convolution, Pad, ReduceKind, Windows};
use ferrata_ir::transform::{value_and_grad, vjp};
use ferrata_ir::{Builder, Function, Type, Value};
use std::sync::Arc;

fn same(size: usize, stride: usize) -> Convolution {
    let pad = vec![size as i64 / 2; 2];
    Convolution { stride: vec![stride; 2], low: pad.clone(), high: pad, ..Convolution::plain(2) }
}

/// An image `[N, C, H, W]` and a kernel `[O, C / G, K, K]`, as layers have them.
fn layer(b: &mut Builder, op: Convolution, x: Value, w: Value, groups: usize) -> Value {
    let (xs, ws) = (b.ty(x).shape.clone(), b.ty(w).shape.clone());
    let x = b.reshape(x, &[xs[0], groups, xs[1] / groups, xs[2], xs[3]]);
    let w = b.reshape(w, &[groups, ws[0] / groups, ws[1], ws[2], ws[3]]);
    let y = b.emit1(op, &[x, w]);
    let ys = b.ty(y).shape.clone();
    b.reshape(y, &[ys[0], ys[1] * ys[2], ys[3], ys[4]])
}

/// Normalisation over batch and space, then a rectifier.
fn normalized(b: &mut Builder, x: Value, scale: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let count = (shape[0] * shape[2] * shape[3]) as f64;
    let sum = b.sum(x, &[0, 2, 3]);
    let mean = b.scale(sum, 1.0 / count);
    let mean = b.broadcast(mean, &shape, &[1]);
    let centred = b.sub(x, mean);
    let square = b.mul(centred, centred);
    let sum = b.sum(square, &[0, 2, 3]);
    let variance = b.scale(sum, 1.0 / count);
    let variance = b.offset(variance, 1e-5);
    let root = b.rsqrt(variance);
    let factor = b.mul(root, scale);
    let factor = b.broadcast(factor, &shape, &[1]);
    let y = b.mul(centred, factor);
    let zero = b.zeros_like(y);
    b.max(y, zero)
}

/// Two residual blocks, the second one with a stride, pooled and projected.
fn residual_net() -> Arc<Function> {
    let mut b = Builder::new("net");
    let x = b.parameter(f32s(&[2, 3, 6, 6]));
    let stem = b.parameter(f32s(&[4, 3, 3, 3]));
    let w: Vec<Value> = [[4, 4, 3], [4, 4, 3], [8, 4, 3], [8, 8, 3], [8, 4, 1]]
        .map(|[o, c, k]| b.parameter(f32s(&[o, c, k, k])))
        .to_vec();
    let scale: Vec<Value> = [4, 4, 8].map(|c| b.parameter(f32s(&[c]))).to_vec();
    let head = b.parameter(f32s(&[8, 5]));
    let y = layer(&mut b, same(3, 1), x, stem, 1);
    let y = normalized(&mut b, y, scale[0]);
    let z = layer(&mut b, same(3, 1), y, w[0], 1);
    let z = normalized(&mut b, z, scale[1]);
    let z = layer(&mut b, same(3, 1), z, w[1], 1);
    let y = b.add(y, z);
    let z = layer(&mut b, same(3, 2), y, w[2], 1);
    let z = normalized(&mut b, z, scale[2]);
    let z = layer(&mut b, same(3, 1), z, w[3], 1);
    let y = layer(&mut b, same(1, 2), y, w[4], 1);
    let y = b.add(y, z);
    let pooled = b.sum(y, &[2, 3]);
    let logits = b.dot(pooled, head, (&[], &[]), (&[1], &[0]));
    let square = b.mul(logits, logits);
    let loss = b.sum(square, &[0, 1]);
    Arc::new(b.finish(&[loss]).unwrap())
}

#[test]
fn a_residual_net_and_its_gradient() {
    let f = residual_net();
    check(&f);
    let marks = vec![true; f.parameters().len()];
    check(&Arc::new(value_and_grad(&f, &marks).unwrap()));
}

#[test]
fn grouped_and_depthwise() {
    for (groups, channels, results) in [(2, 4, 6), (4, 4, 4), (3, 3, 6)] {
        let mut b = Builder::new("f");
        let x = b.parameter(f32s(&[2, channels, 5, 5]));
        let w = b.parameter(f32s(&[results, channels / groups, 3, 3]));
        let scale = b.parameter(f32s(&[results]));
        let y = layer(&mut b, same(3, 2), x, w, groups);
        let y = normalized(&mut b, y, scale);
        let f = Arc::new(b.finish(&[y]).unwrap());
        check(&f);
        check(&Arc::new(vjp(&f, &[true; 3]).unwrap()));
    }
}

#[test]
fn moves_and_reductions_of_permuted_values() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[2, 3, 4, 6]));
    let w = b.parameter(f32s(&[4, 3, 1, 1]));
    let y = layer(&mut b, same(1, 1), x, w, 1);
    let zero = b.full(Type::scalar(b.ty(y).dtype), 0.5);
    let op = Pad { low: vec![0, 1, 0, -1], high: vec![0, 0, 2, 0], interior: vec![0, 0, 0, 1] };
    let padded = b.emit1(op, &[y, zero]);
    let sliced = b.slice_dim(y, 3, 1, 5);
    let flipped = b.flip(sliced, &[1, 3]);
    let joined = b.concatenate(&[flipped, sliced], 1);
    let pooled = b.emit1(Windows { dim: 3, size: 2, stride: 2, dilation: 1 }, &[joined]);
    let pooled = b.reduce(ReduceKind::Max, pooled, &[4]);
    let turned = b.transpose(pooled, &[0, 2, 1, 3]);
    let flat = b.reshape(turned, &[8, 16]);
    let shuffled = b.reshape(y, &[2, 2, 2, 4, 6]);
    let shuffled = b.transpose(shuffled, &[0, 3, 1, 4, 2]);
    let shuffled = b.reshape(shuffled, &[2, 8, 12]);
    let first = b.arg_reduce(ferrata_ir::primitive::Extremum::Max, y, 1);
    let product = b.dot(y, y, (&[0], &[0]), (&[1, 3], &[1, 3]));
    let f = Arc::new(b.finish(&[padded, flat, shuffled, first, product]).unwrap());
    check(&f);
    check(&Arc::new(vjp(&f, &[true, true]).unwrap()));
}
/// Kernels that only bring elements into another order.
fn copies(plan: &Plan) -> usize {
    let moves = |k: &Kernel| matches!(k, Kernel::Loop(l) if matches!(l.body[..], [Instruction::Load(_)]) && l.stores[0].combine.is_none());
    plan.kernels.iter().filter(|k| moves(k)).count()
}

#[test]
fn activations_stay_channels_last() {
    // Only the image is brought into another order, and nothing is copied to be multiplied.
    let plan = check(&residual_net());
    assert_eq!(copies(&plan), 1, "{plan}");
}

/// Three convolutions with batch normalisation and rectifiers, the last two by one function.
fn repeated_net() -> Arc<Function> {
    let block = |b: &mut Builder, x: Value, w: Value, channel: &[Value]| {
        let y = layer(b, same(3, 1), x, w, 1);
        let parameters = [channel[0], channel[1], channel[2], channel[3]];
        let y = batch_norm_train(b, y, parameters, 0.1, 1e-5).y;
        relu(b, y)
    };
    let mut b = Builder::new("block");
    let (x, w) = (b.parameter(f32s(&[2, 4, 6, 6])), b.parameter(f32s(&[4, 4, 3, 3])));
    let channel = [0; 4].map(|_| b.parameter(f32s(&[4])));
    let y = block(&mut b, x, w, &channel);
    let y = b.add(x, y);
    let repeated = Arc::new(b.finish(&[y]).unwrap());
    let mut b = Builder::new("net");
    let x = b.parameter(f32s(&[2, 3, 6, 6]));
    let stem = b.parameter(f32s(&[4, 3, 3, 3]));
    let w = [0; 2].map(|_| b.parameter(f32s(&[4, 4, 3, 3])));
    let channel = [0; 4].map(|_| b.parameter(f32s(&[4])));
    let mut y = block(&mut b, x, stem, &channel);
    for w in w {
        y = b.call(&repeated, &[&[y, w][..], &channel].concat())[0];
    }
    let y = b.mul(y, y);
    let loss = b.sum(y, &[0, 1, 2, 3]);
    Arc::new(b.finish(&[loss]).unwrap())
}

#[test]
fn repeated_blocks_stay_channels_last() {
    let plan = check(&repeated_net());
    assert_eq!(copies(&plan), 1, "{plan}");
}

#[test]
fn no_row_steps_across_channels() {
    let f = repeated_net();
    let marks: Vec<bool> = (0..f.parameters().len()).map(|i| i > 0).collect();
    let plan = check(&Arc::new(value_and_grad(&f, &marks).unwrap()));
    for kernel in &plan.kernels {
        let Kernel::Loop(l) = &**kernel else { continue };
        if l.columns.iter().product::<usize>() <= 16 {
            continue;
        }
        let least = |strides: &[isize]| strides.iter().map(|s| s.abs()).filter(|s| *s > 0).min();
        for access in l.loads.iter().chain(l.stores.iter().map(|s| &s.access)) {
            let (rows, columns) = access.strides.split_at(l.rows.len());
            let (Some(rows), Some(columns)) = (least(rows), least(columns)) else { continue };
            assert!(columns <= rows, "{kernel}");
        }
    }
}
