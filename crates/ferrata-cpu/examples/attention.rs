//! Times attention, forward and backward, at the shapes of GPT training and of decoding.
//!
//! `cargo run --release -p ferrata-cpu --example attention [threads]` prints, for every shape, the
//! best and the median time of some runs.

use std::time::Instant;

use ferrata_cpu::attention::{
    Attention, Backward, Forward, Input, Written, attention, attention_backward,
};
use ferrata_cpu::{Isa, Pool};
use ferrata_ir::DType;

/// Name, batch, query heads, key heads, queries, keys, features.
const CASES: [(&str, usize, usize, usize, usize, usize, usize); 4] = [
    ("quickstart GPT", 8, 6, 6, 256, 256, 64),
    ("GPT-2", 1, 12, 12, 1024, 1024, 64),
    ("long", 1, 4, 2, 4096, 4096, 64),
    ("decode", 8, 32, 8, 1, 4096, 128),
];

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads));
    let isa = Isa::current()?;
    println!("{isa}, {} threads", pool.threads());
    for (name, batch, query_heads, key_heads, queries, keys, features) in CASES {
        let causal = queries > 1;
        let problem = Attention {
            dtype: DType::F32,
            batch,
            query_heads,
            key_heads,
            queries,
            keys,
            features,
            value_features: features,
            scale: 1.0 / (features as f64).sqrt(),
            causal,
            offset: 0,
            window: None,
            softcap: None,
            lengths: None,
        };
        let mut q = Tensor::new(batch, query_heads, queries, features);
        let mut k = Tensor::new(batch, key_heads, keys, features);
        let mut v = Tensor::new(batch, key_heads, keys, features);
        let mut out = Tensor::new(batch, query_heads, queries, features);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let mut lse = vec![0f32; batch * query_heads * queries];
        let (qi, ki, vi) = (q.input(), k.input(), v.input());
        let lse_data = lse.as_mut_ptr().cast();
        let forward = Forward { q: qi, k: ki, v: vi, out: out.written(), lse: lse_data };
        time(&format!("{name}, forward"), || {
            // SAFETY: the tensors have the problem's sizes.
            unsafe { attention(&pool, isa, &problem, &forward) }
        })?;
        if causal {
            let (out, lse) = (out.input(), lse_data.cast_const());
            let (dq, dk, dv) = (dq.written(), dk.written(), dv.written());
            let backward = Backward { q: qi, k: ki, v: vi, out, lse, dout: qi, dq, dk, dv };
            time(&format!("{name}, backward"), || {
                // SAFETY: as above.
                unsafe { attention_backward(&pool, isa, &problem, &backward) }
            })?;
        }
    }
    Ok(())
}

/// Prints the time of some runs.
fn time(name: &str, run: impl Fn() -> Result<(), String>) -> Result<(), String> {
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:24} best {:9.1} us  median {:9.1} us", times[0], times[times.len() / 2]);
    Ok(())
}

/// A contiguous tensor.
#[derive(Clone)]
struct Tensor {
    data: Vec<f32>,
    strides: [isize; 4],
}

impl Tensor {
    fn new(batch: usize, heads: usize, positions: usize, features: usize) -> Tensor {
        let count = batch * heads * positions * features;
        let data = (0..count).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let strides = [heads * positions * features, positions * features, features, 1];
        Tensor { data, strides: strides.map(|s| s as isize) }
    }

    fn input(&mut self) -> Input {
        Input { data: self.data.as_ptr().cast(), strides: self.strides }
    }

    fn written(&mut self) -> Written {
        Written { data: self.data.as_mut_ptr().cast(), strides: self.strides }
    }
}
