//! Times matrix products at the shapes of a GPT training step, and convolutions at those of a
//! ResNet-18, against what the machine can do.
//!
//! `cargo run --release -p ferrata-cpu --example gemm [threads] [name]` prints, for every shape (or
//! those whose name contains `name`), the best and the median time of some runs, the rate of the
//! best, and its share of the measured peak: of arithmetic, or, where each number of an operand is
//! used once, of the speed of memory.

use std::time::Instant;

use ferrata_cpu::gemm::{Gemm, Operand, Output, Steps, gemm};
use ferrata_cpu::peak::{self, Bandwidth};
use ferrata_cpu::{Isa, Pool};
use ferrata_ir::DType::{self, BF16, F32, F64, I8, I32};

/// A product, and dtypes of operands and result.
struct Case {
    name: &'static str,
    what: What,
    dtypes: &'static [[DType; 2]],
}

#[derive(Clone, Copy)]
enum What {
    /// `m`, `n`, `k`, and whether each operand lies transposed.
    Product([usize; 3], [bool; 2]),
    /// A convolution of channels-last images, already padded, or its gradient by the input or by
    /// the weights.
    Convolution(Convolution, Pass),
}

#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Input,
    Weights,
}

/// Square, with weights as `[output][tap][channel]`.
#[derive(Clone, Copy)]
struct Convolution {
    images: usize,
    /// Of the result.
    side: usize,
    channels: usize,
    outputs: usize,
    taps: usize,
    stride: usize,
}

/// Where rows and columns of both operands lie, and how large it all is.
struct Places {
    /// Rows, columns and length of the sums.
    size: [usize; 3],
    left: [Steps; 2],
    right: [Steps; 2],
    /// Elements of the operands.
    elements: [usize; 2],
    /// The first element of the right operand.
    start: usize,
}

impl What {
    fn places(self) -> Places {
        let (c, pass) = match self {
            What::Product([m, n, k], turned) => {
                let places = |rows: usize, columns: usize, turned: bool| {
                    let [row, column] = if turned { [1, rows] } else { [columns, 1] };
                    [steps(&[(rows, row)]), steps(&[(columns, column)])]
                };
                return Places {
                    size: [m, n, k],
                    left: places(m, k, turned[0]),
                    right: places(k, n, turned[1]),
                    elements: [m * k, k * n],
                    start: 0,
                };
            }
            What::Convolution(c, pass) => (c, pass),
        };
        let (side, taps, channels, outputs) = (c.side, c.taps, c.channels, c.outputs);
        let pixels = c.images * side * side;
        let all_taps = taps * taps * channels;
        // Images as a window steps through them: images, rows, columns; taps.
        let window = |stride: usize, channels: usize| {
            let wide = (side - 1) * stride + taps;
            let [row, column] = [wide * channels, channels];
            let at = [(c.images, wide * row), (side, stride * row), (side, stride * column)];
            let tap = [(taps, row), (taps, column), (channels, 1)];
            (steps(&at), steps(&tap), c.images * wide * row)
        };
        match pass {
            Pass::Forward => {
                let (rows, sums, elements) = window(c.stride, channels);
                Places {
                    size: [pixels, outputs, all_taps],
                    left: [rows, sums],
                    right: [steps(&[(all_taps, 1)]), steps(&[(outputs, all_taps)])],
                    elements: [elements, outputs * all_taps],
                    start: 0,
                }
            }
            Pass::Input => {
                let (rows, sums, elements) = window(1, outputs);
                let tap = -(channels as isize);
                let sizes = [taps, taps, outputs];
                let turned = Steps::new(&sizes, &[taps as isize * tap, tap, all_taps as isize]);
                Places {
                    size: [pixels, channels, taps * taps * outputs],
                    left: [rows, sums],
                    right: [turned, steps(&[(channels, 1)])],
                    elements: [elements, outputs * all_taps],
                    start: all_taps - channels,
                }
            }
            Pass::Weights => {
                let (sums, columns, elements) = window(c.stride, channels);
                Places {
                    size: [outputs, all_taps, pixels],
                    left: [steps(&[(outputs, 1)]), steps(&[(pixels, outputs)])],
                    right: [sums, columns],
                    elements: [pixels * outputs, elements],
                    start: 0,
                }
            }
        }
    }
}

fn steps(loops: &[(usize, usize)]) -> Steps {
    let (sizes, strides): (Vec<usize>, Vec<isize>) =
        loops.iter().map(|&(size, stride)| (size, stride as isize)).unzip();
    Steps::new(&sizes, &strides)
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
    Case { name, what: What::Product(size, turned), dtypes }
}

/// Batch 32: `side`, `channels`, `outputs`, `taps`, `stride`.
const fn layer(name: &'static str, layer: [usize; 5], pass: Pass) -> Case {
    let [side, channels, outputs, taps, stride] = layer;
    let convolution = Convolution { images: 32, side, channels, outputs, taps, stride };
    Case { name, what: What::Convolution(convolution, pass), dtypes: BOTH }
}

const CASES: [Case; 36] = [
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
    layer("conv, 64 channels", [32, 64, 64, 3, 1], Pass::Forward),
    layer("conv, 64 channels, input gradient", [32, 64, 64, 3, 1], Pass::Input),
    layer("conv, 64 channels, weight gradient", [32, 64, 64, 3, 1], Pass::Weights),
    layer("conv, 128 channels", [16, 128, 128, 3, 1], Pass::Forward),
    layer("conv, 128 channels, input gradient", [16, 128, 128, 3, 1], Pass::Input),
    layer("conv, 128 channels, weight gradient", [16, 128, 128, 3, 1], Pass::Weights),
    layer("conv, 256 channels", [8, 256, 256, 3, 1], Pass::Forward),
    layer("conv, 256 channels, input gradient", [8, 256, 256, 3, 1], Pass::Input),
    layer("conv, 256 channels, weight gradient", [8, 256, 256, 3, 1], Pass::Weights),
    layer("conv, 512 channels", [4, 512, 512, 3, 1], Pass::Forward),
    layer("conv, 512 channels, input gradient", [4, 512, 512, 3, 1], Pass::Input),
    layer("conv, 512 channels, weight gradient", [4, 512, 512, 3, 1], Pass::Weights),
    layer("conv, images", [32, 3, 64, 3, 1], Pass::Forward),
    layer("conv, images, weight gradient", [32, 3, 64, 3, 1], Pass::Weights),
    layer("conv, stride 2", [16, 64, 128, 3, 2], Pass::Forward),
    layer("conv, stride 2, weight gradient", [16, 64, 128, 3, 2], Pass::Weights),
    layer("conv, 1 × 1, stride 2", [16, 64, 128, 1, 2], Pass::Forward),
    layer("conv, 1 × 1, stride 2, weight gradient", [16, 64, 128, 1, 2], Pass::Weights),
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
    let places = case.what.places();
    let [m, n, k] = places.size;
    let [a, b] = places.elements.map(|elements| numbers(dtype, elements));
    let mut c = vec![0u8; m * n * out.size()];
    let Places { left, right, start, .. } = &places;
    let first = b[start * dtype.size()..].as_ptr();
    let problem = Gemm {
        dtype,
        m,
        n,
        k,
        a: Operand { data: a.as_ptr(), rows: &left[0], columns: &left[1] },
        b: Operand { data: first, rows: &right[0], columns: &right[1] },
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
        "{:38} {:4} {:4} {m:5} {n:5} {k:5}  best {:9.1} us  median {:9.1} us  {:6.1} Gop/s  {share}",
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
