//! Times matrix products at the shapes of a GPT training step.
//!
//! `cargo run --release -p ferrata-cpu --example gemm [threads] [name]` prints, for every shape (or
//! those whose name contains `name`), the best and the median time of some runs, and the rate of
//! the best.

use std::time::Instant;

use ferrata_cpu::gemm::{Gemm, Operand, Output, gemm};
use ferrata_cpu::{Isa, Pool, peak};
use ferrata_ir::DType;

/// `m`, `n`, `k`, and whether each operand lies transposed.
type Case = (&'static str, usize, usize, usize, bool, bool);

const CASES: [Case; 16] = [
    ("square", 1024, 1024, 1024, false, false),
    ("square", 2048, 2048, 2048, false, false),
    ("qkv", 2048, 1152, 384, false, false),
    ("mlp up", 2048, 1536, 384, false, false),
    ("mlp down", 2048, 384, 1536, false, false),
    ("mlp up, weight stored transposed", 2048, 1536, 384, false, true),
    ("mlp up, input gradient", 2048, 384, 1536, false, true),
    ("mlp down, input gradient", 2048, 1536, 384, false, true),
    ("mlp up, weight gradient", 384, 1536, 2048, true, false),
    ("mlp down, weight gradient", 1536, 384, 2048, true, false),
    ("logits, 65 tokens", 2048, 65, 384, false, false),
    ("logits, GPT-2", 512, 50257, 768, false, false),
    ("small", 64, 64, 64, false, false),
    ("tiny", 16, 16, 16, false, false),
    ("row times matrix", 1, 4096, 4096, false, false),
    ("row times transposed matrix", 1, 4096, 4096, false, true),
];

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads));
    let isa = Isa::current()?;
    let threads = pool.threads();
    println!("{isa}, {threads} threads");
    println!("f32 multiply-adds {:.1} GFLOP/s", peak::f32_fma(threads, isa) / 1e9);
    println!("f64 multiply-adds {:.1} GFLOP/s", peak::f64_fma(threads, isa) / 1e9);
    println!("bf16 dots {:.1?} GFLOP/s", peak::bf16_dot(threads, isa).map(|x| x / 1e9));
    println!("int8 dots {:.1?} Gop/s", peak::int8_dot(threads, isa).map(|x| x / 1e9));
    for kib in [16, 256, 4096, 262_144] {
        let speed = peak::bandwidth(threads, isa, kib << 10);
        let [read, copy, write] = [speed.read, speed.copy, speed.write].map(|x| x / 1e9);
        println!("{kib} KiB: read {read:.1}, copy {copy:.1}, write {write:.1} GB/s");
    }
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let cases = CASES.into_iter().filter(|case| case.0.contains(&wanted));
    for (name, m, n, k, a_turned, b_turned) in cases {
        let a = values(m * k);
        let b = values(k * n);
        let mut c = vec![0f32; m * n];
        let operand = |data: &[f32], rows: usize, columns: usize, turned: bool| Operand {
            data: data.as_ptr().cast(),
            row_stride: if turned { 1 } else { columns as isize },
            column_stride: if turned { rows as isize } else { 1 },
        };
        let problem = Gemm {
            dtype: DType::F32,
            m,
            n,
            k,
            a: operand(&a, m, k, a_turned),
            b: operand(&b, k, n, b_turned),
            c: Some(Output { data: c.as_mut_ptr().cast(), row_stride: n, dtype: DType::F32 }),
            batch: &[],
            accumulate: false,
            epilogue: None,
        };
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        let repeats = ((1e8 / flops) as usize).max(1);
        let mut times: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..repeats {
                    // SAFETY: the buffers have the sizes that the strides give.
                    unsafe { gemm(&pool, isa, &problem) }?;
                }
                Ok(start.elapsed().as_secs_f64() / repeats as f64)
            })
            .collect::<Result<_, String>>()?;
        times.sort_by(f64::total_cmp);
        println!(
            "{name:34} {m:5} {n:5} {k:5}  best {:9.1} us  median {:9.1} us  {:6.1} GFLOP/s",
            times[0] * 1e6,
            times[times.len() / 2] * 1e6,
            flops / times[0] / 1e9
        );
    }
    Ok(())
}

/// Some numbers around 0.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect()
}
