//! Random networks: products, normalisations, attention-like and table look-ups, with their
//! gradients. Unlike other random programs they keep dimensions apart, so that there is much to
//! cut.

use std::sync::Arc;

use ferrata_ir::composite;
use ferrata_ir::primitive::{ReduceKind, Save, Scan};
use ferrata_ir::testing::Random;
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Function, Type, Value};

const SIZES: [usize; 4] = [4, 6, 8, 5];
const ROWS: usize = 12;

fn float(shape: &[usize]) -> Type {
    Type::new(DType::F64, shape.to_vec())
}

struct Maker<'a> {
    b: Builder,
    random: &'a mut Random,
    pool: Vec<Value>,
}

impl Maker<'_> {
    fn weight(&mut self, shape: &[usize]) -> Value {
        self.b.parameter(float(shape))
    }

    /// Values do not grow.
    fn keep(&mut self, x: Value) {
        let x = self.b.sin(x);
        self.pool.push(x);
    }

    fn any(&mut self) -> Value {
        let recent = self.pool.len().saturating_sub(4);
        self.pool[self.random.between(recent, self.pool.len() - 1)]
    }

    fn grow(&mut self) {
        let x = self.any();
        let shape = self.b.ty(x).shape.clone();
        let rank = shape.len();
        let d = self.random.below(rank.max(1));
        match self.random.below(13) {
            0..=2 if rank > 0 => {
                let n = *self.random.pick(&SIZES);
                let w = self.weight(&[shape[d], n]);
                let y = self.b.dot(x, w, (&[], &[]), (&[d], &[0]));
                self.keep(y);
            }
            3 if rank == 3 => {
                let y = self.b.dot(x, x, (&[0], &[0]), (&[2], &[2]));
                let y = composite::softmax(&mut self.b, y, 2);
                let y = self.b.dot(y, x, (&[0], &[0]), (&[2], &[1]));
                self.keep(y);
            }
            4 if rank > 0 => {
                let kind = *self.random.pick(&[ReduceKind::Sum, ReduceKind::Max]);
                let sum = self.b.reduce(kind, x, &[d]);
                let sum = self.b.broadcast_reduced(sum, &shape, &[d]);
                let y = self.b.sub(x, sum);
                self.keep(y);
            }
            5 if rank > 0 && rank < 4 && shape[d].is_multiple_of(2) && shape[d] > 2 => {
                let mut to = shape.clone();
                to[d] /= 2;
                to.insert(d + self.random.below(2), 2);
                let y = self.b.reshape(x, &to);
                self.keep(y);
            }
            6 if rank > 1 => {
                let d = self.random.below(rank - 1);
                let mut to = shape.clone();
                to[d] *= to.remove(d + 1);
                if to[d] <= 48 {
                    let y = self.b.reshape(x, &to);
                    self.keep(y);
                }
            }
            7 if rank > 1 => {
                let order = self.random.permutation(rank);
                let y = self.b.transpose(x, &order);
                self.keep(y);
            }
            8 if rank > 0 && shape[d].is_multiple_of(2) && shape[d] > 3 => {
                let half = shape[d] / 2;
                let left = self.b.slice_dim(x, d, 0, half);
                let right = self.b.slice_dim(x, d, half, 2 * half);
                let y = self.b.mul(left, right);
                let parts = if self.random.one_in(2) { vec![y, left] } else { vec![y] };
                let y = self.b.concatenate(&parts, d);
                self.keep(y);
            }
            9 if rank > 0 => {
                let last = shape[rank - 1];
                let (w, v) = (self.weight(&[last]), self.weight(&[last]));
                let y = composite::layer_norm(&mut self.b, x, Some(w), Some(v), 1, 1e-5);
                self.keep(y);
            }
            10 => {
                let n = *self.random.pick(&SIZES);
                let table = self.weight(&[ROWS, n]);
                let length = *self.random.pick(&SIZES);
                let ids = self.b.parameter(Type::new(DType::I64, [4, length]));
                let y = composite::embedding(&mut self.b, table, ids, None);
                self.keep(y);
            }
            11 if rank > 0 && rank < 4 => {
                // One layer, called twice with weights of its own each time.
                let last = shape[rank - 1];
                let mut layer = Builder::new("layer");
                let y = layer.parameter(float(&shape));
                let [up, down] = [[last, 8], [8, last]].map(|s| layer.parameter(float(&s)));
                let z = layer.dot(y, up, (&[], &[]), (&[rank - 1], &[0]));
                let z = layer.tanh(z);
                let z = layer.dot(z, down, (&[], &[]), (&[rank - 1], &[0]));
                let z = layer.add(y, z);
                let layer = Arc::new(layer.finish(&[z]).expect("a layer"));
                let mut y = x;
                for _ in 0..2 {
                    let (up, down) = (self.weight(&[last, 8]), self.weight(&[8, last]));
                    y = self.b.call(&layer, &[y, up, down])[0];
                }
                self.keep(y);
            }
            12 if rank > 1 && shape[0] < 9 => {
                let inner = &shape[1..];
                let mut step = Builder::new("step");
                let w = step.parameter(float(inner));
                let state = step.parameter(float(inner));
                let slice = step.parameter(float(inner));
                let y = step.mul(state, w);
                let y = step.add(y, slice);
                let y = step.sin(y);
                let body = Arc::new(step.finish(&[y, y]).expect("a step"));
                let (w, first) = (self.weight(inner), self.weight(inner));
                let scan = Scan {
                    body,
                    constants: 1,
                    carries: 1,
                    length: shape[0],
                    reverse: self.random.one_in(2),
                    save: Save::All,
                };
                let all = self.b.emit(scan, &[w, first, x])[1];
                self.keep(all);
            }
            _ => {
                let y = self.any();
                if self.b.ty(y).shape == shape {
                    let z = self.b.add(x, y);
                    self.keep(z);
                }
            }
        }
    }
}

/// A random network's loss with its gradients in all weights.
pub fn random_network(seed: u64) -> Arc<Function> {
    let random = &mut Random::new(seed);
    let mut maker = Maker { b: Builder::new("network"), random, pool: Vec::new() };
    let x = maker.b.parameter(float(&[4, 6, 8]));
    maker.pool.push(x);
    for _ in 0..7 {
        maker.grow();
    }
    let Maker { mut b, pool, .. } = maker;
    // The last values count, in two sums.
    let mut loss = b.full(float(&[]), 0.0);
    for &y in pool.iter().rev().take(3) {
        let square = b.mul(y, y);
        let dims: Vec<usize> = (0..b.ty(y).rank()).collect();
        let sum = b.sum(square, &dims);
        loss = b.add(loss, sum);
    }
    let network = Arc::new(b.finish(&[loss]).expect("nodes are well-typed"));
    let wrt: Vec<bool> = network.parameter_types().iter().map(|t| t.dtype.is_float()).collect();
    Arc::new(value_and_grad(&network, &wrt).expect("networks have gradients"))
}

/// The gradients of a random network summed over three batches, in a loop.
pub fn random_microbatches(seed: u64) -> Arc<Function> {
    let network = random_network(seed);
    let (inputs, results) = (network.parameter_types(), network.result_types());
    let is_data = |i: usize| i == 0 || !inputs[i].dtype.is_float();
    let (data, weights): (Vec<usize>, Vec<usize>) = (0..inputs.len()).partition(|&i| is_data(i));
    // Results are the loss, then gradients of what is float: first that of the batch.
    let sums: Vec<usize> = (0..results.len()).filter(|&i| i != 1).collect();
    let mut body = Builder::new("microbatch");
    let mut arguments = vec![None; inputs.len()];
    for &i in &weights {
        arguments[i] = Some(body.parameter(inputs[i].clone()));
    }
    let before: Vec<Value> = sums.iter().map(|&i| body.parameter(results[i].clone())).collect();
    for &i in &data {
        arguments[i] = Some(body.parameter(inputs[i].clone()));
    }
    let arguments: Vec<Value> = arguments.into_iter().flatten().collect();
    let made = body.call(&network, &arguments);
    let mut out: Vec<Value> =
        sums.iter().zip(&before).map(|(&i, &sum)| body.add(sum, made[i])).collect();
    out.push(made[1]);
    let body = Arc::new(body.finish(&out).expect("a microbatch"));
    let mut b = Builder::new("microbatches");
    let mut operands: Vec<Value> =
        weights.iter().map(|&i| b.parameter(inputs[i].clone())).collect();
    operands.extend(sums.iter().map(|&i| b.full(results[i].clone(), 0.0)));
    let length = 3;
    let stacked = |i: usize| inputs[i].with_shape([&[length], &inputs[i].shape[..]].concat());
    operands.extend(data.iter().map(|&i| b.parameter(stacked(i))));
    let (constants, carries) = (weights.len(), sums.len());
    let reverse = seed % 2 == 1;
    let scan = Scan { body, constants, carries, length, reverse, save: Save::All };
    let made = b.emit(scan, &operands);
    Arc::new(b.finish(&made).expect("a loop"))
}
