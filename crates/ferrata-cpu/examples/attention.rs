//! Times attention, forward and backward, at the shapes of GPT training and of decoding.
//!
//! `cargo run --release -p ferrata-cpu --example attention [dtype] [name] [threads]` prints, for
//! every shape whose name contains the given one, the best and the median time of some runs, and,
//! on Linux, the memory of results and workspace.

use std::time::Instant;

use ferrata_cpu::attention::{
    Attention, Backward, Forward, Input, Written, attention, attention_backward,
};
use ferrata_cpu::{Isa, Pool};
use ferrata_ir::{DType, Literal, Scalar, Type};

/// Name, batch, query heads, key heads, queries, keys, features.
const CASES: [(&str, usize, usize, usize, usize, usize, usize); 5] = [
    ("GPT 10.8 M", 8, 6, 6, 256, 256, 64),
    ("GPT-2 124 M", 2, 12, 12, 256, 256, 64),
    ("GPT-2, 2048", 1, 12, 12, 2048, 2048, 64),
    ("grouped, 4096", 1, 4, 2, 4096, 4096, 64),
    ("decode", 8, 32, 8, 1, 4096, 128),
];

fn main() -> Result<(), String> {
    let argument = |n| std::env::args().nth(n).unwrap_or_default();
    let dtype = match &*argument(1) {
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        _ => DType::F32,
    };
    let threads = argument(3).parse().ok();
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads));
    let isa = Isa::current()?;
    println!("{dtype}, {isa}, {} threads", pool.threads());
    let wanted = argument(2);
    let cases = CASES.into_iter().filter(|case| case.0.contains(&wanted));
    for (name, batch, query_heads, key_heads, queries, keys, features) in cases {
        let causal = queries > 1;
        let problem = Attention {
            dtype,
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
            mask: None,
        };
        let mut q = Tensor::new(dtype, batch, query_heads, queries, features);
        let mut k = Tensor::new(dtype, batch, key_heads, keys, features);
        let mut v = Tensor::new(dtype, batch, key_heads, keys, features);
        let mut out = Tensor::new(dtype, batch, query_heads, queries, features);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let mut lse = Tensor::new(DType::F32, batch, query_heads, queries, 1);
        let (qi, ki, vi) = (q.input(), k.input(), v.input());
        let lse_written = Some(lse.written());
        let results: usize = [&out, &lse, &dq, &dk, &dv].iter().map(|t| t.data.len()).sum();
        let before = most_memory();
        let forward = Forward { q: qi, k: ki, v: vi, out: out.written(), lse: lse_written };
        time(&format!("{name}, forward"), || {
            // SAFETY: the tensors have the problem's sizes.
            unsafe { attention(&pool, isa, &problem, &forward) }
        })?;
        if causal {
            let (out, lse) = (out.input(), lse.input());
            let (dq, dk, dv) = (dq.written(), dk.written(), dv.written());
            let (q, k, v, dout, dmask) = (qi, ki, vi, qi, None);
            let backward = Backward { q, k, v, out, lse, dout, dq, dk, dv, dmask };
            time(&format!("{name}, backward"), || {
                // SAFETY: as above.
                unsafe { attention_backward(&pool, isa, &problem, &backward) }
            })?;
        }
        if let (Some(before), Some(after)) = (before, most_memory()) {
            let workspace = (after - before) as f64 / 1e3;
            println!("{name}, memory {:.1} MB", results as f64 / 1e6 + workspace);
        }
    }
    Ok(())
}

/// The most memory that this process has had so far, in kilobytes, where Linux says so.
fn most_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
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
    data: Vec<u8>,
    strides: [isize; 4],
}

impl Tensor {
    fn new(dtype: DType, batch: usize, heads: usize, positions: usize, features: usize) -> Tensor {
        let ty = Type::new(dtype, [batch, heads, positions, features]);
        let value = |i: usize| Scalar::Float(((i * 7919) % 1000) as f64 / 500.0 - 1.0);
        let data = Literal::build(ty, value).rounded().to_bytes();
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
