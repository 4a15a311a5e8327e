//! Times matrix products at the shapes of a GPT training step, against what the machine can do.
//!
//! `cargo run --release -p ferrata-cpu --example gemm [threads] [name]` prints, for every shape (or
//! those whose name contains `name`), the best and the median time of some runs, the rate of the
//! best, and its share of the measured peak: of arithmetic, or, where each number of an operand is
//! used once, of the speed of memory.

use std::time::Instant;

use ferrata_cpu::gemm::{Gemm, Operand, Output, gemm};
use ferrata_cpu::peak::{self, Bandwidth};
use ferrata_cpu::{Isa, Pool};
use ferrata_ir::DType::{self, BF16, F32, F64, I8, I32};

/// `m`, `n`, `k`, whether each operand lies transposed, and dtypes of operands and result.
struct Case {
    name: &'static str,
    size: [usize; 3],
    turned: [bool; 2],
    dtypes: &'static [[DType; 2]],
}

const BOTH: &[[DType; 2]] = &[[F32, F32], [BF16, BF16]];
/// A gradient of weights is accumulated in f32.
const GRADIENT: &[[DType; 2]] = &[[F32, F32], [BF16, F32]];
const ALL: &[[DType; 2]] = &[[F32, F32], [F64, F64], [BF16, BF16], [BF16, F32], [I8, I32]];
const ROW: [bool; 2] = [false, false];
const LEFT: [bool; 2] = [true, false];
const RIGHT: [bool; 2] = [false, true];

const fn case(
    name: &'static str,
    size: [usize; 3],
    turned: [bool; 2],
    dtypes: &'static [[DType; 2]],
) -> Case {
    Case { name, size, turned, dtypes }
}

const CASES: [Case; 18] = [
    case("square", [2048, 2048, 2048], ROW, ALL),
    case("square, right transposed", [2048, 2048, 2048], RIGHT, ALL),
    case("projection", [1024, 768, 768], ROW, BOTH),
    case("qkv", [2048, 1152, 384], ROW, BOTH),
    case("qkv, weight gradient", [384, 1152, 2048], LEFT, GRADIENT),
    case("mlp up", [2048, 1536, 384], ROW, BOTH),
    case("mlp up, stored transposed", [2048, 1536, 384], RIGHT, BOTH),
    case("mlp up, input gradient", [2048, 384, 1536], RIGHT, BOTH),
    case("mlp up, weight gradient", [384, 1536, 2048], LEFT, GRADIENT),
    case("mlp down", [2048, 384, 1536], ROW, BOTH),
    case("mlp down, weight gradient", [1536, 384, 2048], LEFT, GRADIENT),
    case("logits, 65 tokens", [2048, 65, 384], ROW, BOTH),
    case("logits, weight gradient", [384, 65, 2048], LEFT, GRADIENT),
    case("logits, GPT-2", [512, 50257, 768], RIGHT, BOTH),
    case("small", [64, 64, 64], ROW, BOTH),
    case("tiny", [16, 16, 16], ROW, BOTH),
    case("row times matrix", [1, 4096, 4096], ROW, BOTH),
    case("row times transposed matrix", [1, 4096, 4096], RIGHT, BOTH),
];

/// The peaks of the machine, on all threads.
struct Peaks {
    f32: f64,
    f64: f64,
    bf16: Option<f64>,
    int8: Option<f64>,
    memory: Bandwidth,
}

impl Peaks {
    fn measure(threads: usize, isa: Isa) -> Peaks {
        Peaks {
            f32: peak::f32_fma(threads, isa),
            f64: peak::f64_fma(threads, isa),
            bf16: peak::bf16_dot(threads, isa),
            int8: peak::int8_dot(threads, isa),
            memory: peak::bandwidth(threads, isa, 128 << 20),
        }
    }

    fn of(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F64 => self.f64,
            DType::BF16 => self.bf16.unwrap_or(self.f32),
            DType::I8 => self.int8.unwrap_or(self.f32),
            _ => self.f32,
        }
    }
}

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok());
    let pool = Pool::new(threads.unwrap_or_else(Pool::default_threads));
    let isa = Isa::current()?;
    let peaks = Peaks::measure(pool.threads(), isa);
    let giga = |x: Option<f64>| x.map_or("none".into(), |x| format!("{:.0}", x / 1e9));
    println!(
        "{isa}, {} threads; peak f32 {}, f64 {}, bf16 {}, int8 {} Gop/s; read {} GB/s",
        pool.threads(),
        giga(Some(peaks.f32)),
        giga(Some(peaks.f64)),
        giga(peaks.bf16),
        giga(peaks.int8),
        giga(Some(peaks.memory.read)),
    );
    let wanted = std::env::args().nth(2).unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        for &dtypes in case.dtypes {
            time(&pool, isa, &peaks, case, dtypes)?;
        }
    }
    Ok(())
}

fn time(
    pool: &Pool,
    isa: Isa,
    peaks: &Peaks,
    case: &Case,
    [dtype, out]: [DType; 2],
) -> Result<(), String> {
    let [m, n, k] = case.size;
    let (a, b) = (numbers(dtype, m * k), numbers(dtype, k * n));
    let mut c = vec![0u8; m * n * out.size()];
    let operand = |data: &[u8], rows: usize, columns: usize, turned: bool| Operand {
        data: data.as_ptr(),
        row_stride: if turned { 1 } else { columns as isize },
        column_stride: if turned { rows as isize } else { 1 },
    };
    let problem = Gemm {
        dtype,
        m,
        n,
        k,
        a: operand(&a, m, k, case.turned[0]),
        b: operand(&b, k, n, case.turned[1]),
        c: Some(Output { data: c.as_mut_ptr(), row_stride: n, dtype: out }),
        batch: &[],
        accumulate: false,
        epilogue: None,
    };
    let operations = 2.0 * m as f64 * n as f64 * k as f64;
    let repeats = ((1e8 / operations) as usize).max(1);
    let run = || {
        let start = Instant::now();
        for _ in 0..repeats {
            // SAFETY: the buffers have the sizes that the strides give.
            unsafe { gemm(pool, isa, &problem) }?;
        }
        Ok::<f64, String>(start.elapsed().as_secs_f64() / repeats as f64)
    };
    run()?;
    let mut times = (0..11).map(|_| run()).collect::<Result<Vec<f64>, _>>()?;
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    let share = if m == 1 {
        let bytes = (b.len() + a.len() + c.len()) as f64;
        format!(
            "{:5.1} % of the memory: {:.1} GB/s",
            bytes / best / peaks.memory.read * 100.0,
            bytes / best / 1e9
        )
    } else {
        format!("{:5.1} %", operations / best / peaks.of(dtype) * 100.0)
    };
    println!(
        "{:28} {:4} {:4} {m:5} {n:5} {k:5}  best {:9.1} us  median {:9.1} us  {:6.1} Gop/s  {share}",
        case.name,
        dtype.name(),
        out.name(),
        best * 1e6,
        median * 1e6,
        operations / best / 1e9,
    );
    Ok(())
}

/// Some small numbers around 0, as bytes, in rotation so that rows differ.
fn numbers(dtype: DType, count: usize) -> Vec<u8> {
    let number = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
    match dtype {
        F32 => (0..count).flat_map(|i| number(i).to_le_bytes()).collect(),
        F64 => (0..count).flat_map(|i| f64::from(number(i)).to_le_bytes()).collect(),
        // The upper half of an f32.
        BF16 => {
            (0..count).flat_map(|i| ((number(i).to_bits() >> 16) as u16).to_le_bytes()).collect()
        }
        _ => (0..count).map(|i| (i * 7919 % 251) as u8).collect(),
    }
}
