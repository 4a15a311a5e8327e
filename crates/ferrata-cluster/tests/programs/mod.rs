//! Programs of language models of any size, as a library would trace them.

use std::sync::Arc;

use ferrata_cluster::describe::Loss;
use ferrata_ir::composite::{
    CrossEntropy, cross_entropy, dropout, embedding, gelu_tanh, layer_norm, softmax,
};
use ferrata_ir::{Builder, DType, Function, Type, Value};

/// A GPT with dropout, whose attention is written out.
#[derive(Clone, Copy, Debug)]
pub struct Gpt {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub sequence: usize,
    pub vocabulary: usize,
}

const RATE: f64 = 0.1;
const ROWS: usize = 2;

impl Gpt {
    fn weights(self) -> Vec<(&'static str, Vec<usize>)> {
        let h = self.hidden;
        vec![
            ("ln_1.weight", vec![h]),
            ("ln_1.bias", vec![h]),
            ("c_attn.weight", vec![h, 3 * h]),
            ("c_attn.bias", vec![3 * h]),
            ("attn.c_proj.weight", vec![h, h]),
            ("attn.c_proj.bias", vec![h]),
            ("ln_2.weight", vec![h]),
            ("ln_2.bias", vec![h]),
            ("c_fc.weight", vec![h, 4 * h]),
            ("c_fc.bias", vec![4 * h]),
            ("mlp.c_proj.weight", vec![4 * h, h]),
            ("mlp.c_proj.bias", vec![h]),
        ]
    }

    /// The loss of two sequences in bf16.
    pub fn loss(self) -> Loss {
        let (h, s) = (self.hidden, self.sequence);
        let layer = Arc::new(self.layer());
        let mut b = Builder::new("loss");
        let mut names = Vec::new();
        let mut weight = |b: &mut Builder, name: String, shape: Vec<usize>| {
            names.push(name);
            b.parameter(Type::new(DType::F32, shape))
        };
        let table = weight(&mut b, "wte.weight".to_owned(), vec![self.vocabulary, h]);
        let positions = weight(&mut b, "wpe.weight".to_owned(), vec![s, h]);
        let norm = ["weight", "bias"].map(|n| weight(&mut b, format!("ln_f.{n}"), vec![h]));
        let mut layers = Vec::new();
        for i in 0..self.layers {
            let all = self.weights().into_iter();
            let own = all.map(|(name, shape)| weight(&mut b, format!("h.{i}.{name}"), shape));
            layers.push(own.collect::<Vec<Value>>());
        }
        let ids = b.parameter(Type::new(DType::I64, [ROWS, s]));
        let targets = b.parameter(Type::new(DType::I64, [ROWS, s]));
        let key = b.parameter(Type::new(DType::U32, [2]));
        let half = b.cast(table, DType::BF16);
        let x = embedding(&mut b, half, ids, None);
        let positions = b.cast(positions, DType::BF16);
        let positions = b.broadcast(positions, &[ROWS, s, h], &[1, 2]);
        let x = b.add(x, positions);
        let mut x = drop_some(&mut b, x, key, 0);
        for (i, mut inputs) in layers.into_iter().enumerate() {
            let number = b.full(Type::scalar(DType::U32), i as i64 + 1);
            let key = b.fold_key(key, number);
            inputs.extend([x, key]);
            x = b.call(&layer, &inputs)[0];
        }
        let norm = norm.map(|w| b.cast(w, DType::BF16));
        let x = layer_norm(&mut b, x, Some(norm[0]), Some(norm[1]), 1, 1e-5);
        let logits = b.dot(x, half, (&[], &[]), (&[2], &[1]));
        let logits = b.cast(logits, DType::F32);
        let loss = cross_entropy(&mut b, logits, targets, None, &CrossEntropy::new(2));
        let program = Arc::new(b.finish(&[loss]).unwrap());
        Loss { program, weights: names, rows: ROWS, sequence: s, dtype: DType::BF16 }
    }

    fn layer(self) -> Function {
        let (h, s, a) = (self.hidden, self.sequence, self.heads);
        let size = h / a;
        let mut b = Builder::new("layer");
        let mut w: Vec<Value> = Vec::new();
        for (_, shape) in self.weights() {
            let parameter = b.parameter(Type::new(DType::F32, shape));
            w.push(b.cast(parameter, DType::BF16));
        }
        let x = b.parameter(Type::new(DType::BF16, [ROWS, s, h]));
        let key = b.parameter(Type::new(DType::U32, [2]));
        let normal = layer_norm(&mut b, x, Some(w[0]), Some(w[1]), 1, 1e-5);
        let all = linear(&mut b, normal, w[2], w[3]);
        let part = |b: &mut Builder, i: usize| {
            let part = b.slice_dim(all, 2, i * h, (i + 1) * h);
            let split = b.reshape(part, &[ROWS, s, a, size]);
            b.transpose(split, &[0, 2, 1, 3])
        };
        let [q, k, v] = [0, 1, 2].map(|i| part(&mut b, i));
        let scores = b.dot(q, k, (&[0, 1], &[0, 1]), (&[3], &[3]));
        let scores = b.cast(scores, DType::F32);
        let scores = b.scale(scores, 1.0 / (size as f64).sqrt());
        let plane = Type::new(DType::I64, [s, s]);
        let (row, column) = (b.iota(plane.clone(), 0), b.iota(plane, 1));
        let past = b.le(column, row);
        let past = b.broadcast_trailing(past, &[ROWS, a, s, s]);
        let hidden = b.full_like(scores, f64::NEG_INFINITY);
        let scores = b.select(past, scores, hidden);
        let p = softmax(&mut b, scores, 3);
        let p = b.cast(p, DType::BF16);
        let p = drop_some(&mut b, p, key, 0);
        let y = b.dot(p, v, (&[0, 1], &[0, 1]), (&[3], &[2]));
        let y = b.transpose(y, &[0, 2, 1, 3]);
        let y = b.reshape(y, &[ROWS, s, h]);
        let y = linear(&mut b, y, w[4], w[5]);
        let y = drop_some(&mut b, y, key, 1);
        let x = b.add(x, y);
        let normal = layer_norm(&mut b, x, Some(w[6]), Some(w[7]), 1, 1e-5);
        let y = linear(&mut b, normal, w[8], w[9]);
        let y = gelu_tanh(&mut b, y);
        let y = linear(&mut b, y, w[10], w[11]);
        let y = drop_some(&mut b, y, key, 2);
        let x = b.add(x, y);
        b.finish(&[x]).unwrap()
    }
}

fn linear(b: &mut Builder, x: Value, weight: Value, bias: Value) -> Value {
    let y = b.dot(x, weight, (&[], &[]), (&[2], &[0]));
    let shape = b.ty(y).shape.clone();
    let bias = b.broadcast(bias, &shape, &[shape.len() - 1]);
    b.add(y, bias)
}

fn drop_some(b: &mut Builder, x: Value, key: Value, place: i64) -> Value {
    let place = b.full(Type::scalar(DType::U32), place);
    let key = b.fold_key(key, place);
    dropout(b, x, key, RATE)
}
