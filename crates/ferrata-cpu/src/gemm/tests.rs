use std::sync::Mutex;

use half::{bf16, f16};

use super::*;
use crate::testing::Random;

/// An element type of the tests.
trait Element: Copy + PartialEq + std::fmt::Debug {
    const DTYPE: DType;
    fn make(random: &mut Random) -> Self;
    fn wide(self) -> f64;
}

macro_rules! float {
    ($t:ty, $dtype:ident, $from:expr, $to:expr) => {
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            fn make(random: &mut Random) -> $t {
                $from(random.unit())
            }
            fn wide(self) -> f64 {
                $to(self)
            }
        }
    };
}
float!(f64, F64, |x| x, |x| x);
float!(f32, F32, |x| x as f32, f64::from);
float!(f16, F16, f16::from_f64, f16::to_f64);
float!(bf16, BF16, bf16::from_f64, bf16::to_f64);

macro_rules! integer {
    ($($t:ty, $dtype:ident, $range:literal);*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            fn make(random: &mut Random) -> $t {
                (random.bits() % $range) as $t
            }
            fn wide(self) -> f64 {
                self as f64
            }
        }
    )*};
}
// Bytes of every value: dot instructions depend on signs.
integer!(i64, I64, 16; i32, I32, 16; u32, U32, 16; i16, I16, 16; i8, I8, 256; u8, U8, 256);

/// A matrix in a buffer of its own.
struct Matrix<T> {
    data: Vec<T>,
    start: usize,
    rows: Steps,
    columns: Steps,
    batch: isize,
}

/// A length as that of one or two loops.
fn factors(random: &mut Random, length: usize) -> [usize; 2] {
    let divisors: Vec<usize> = (1..=length).filter(|d| length.is_multiple_of(*d)).collect();
    let inner = if divisors.is_empty() { 1 } else { random.pick(&divisors) };
    [length / inner, inner]
}

impl<T: Element> Matrix<T> {
    /// A batch of matrices, laid out in a way drawn at random; often `rows` and `columns` are two
    /// loops each, as in a window.
    fn random(random: &mut Random, batch: usize, rows: usize, columns: usize) -> Matrix<T> {
        let gap = random.below(3) as isize;
        let (row, column) = match random.below(6) {
            0 | 1 => (columns as isize + gap, 1),
            2 => (1, rows as isize + gap),
            3 => (2 * columns as isize + gap, 2),
            4 => (0, 1),
            _ => (-(columns as isize + gap), 1),
        };
        let mut places = |length: usize, stride: isize| {
            let (sizes, any) = (factors(random, length), random.below(4) as isize - 1);
            let inner = sizes[1] as isize * stride;
            let outer = random.pick(&[inner, inner, inner + any, inner - any, any]);
            Steps::new(&sizes, &[outer, stride])
        };
        let (rows, columns) = (places(rows, row), places(columns, column));
        Matrix::placed(random, batch, rows, columns)
    }

    /// A batch of matrices whose rows and columns lie there.
    fn placed(random: &mut Random, batch: usize, rows: Steps, columns: Steps) -> Matrix<T> {
        let bounds = [rows.bounds(), columns.bounds()];
        let start = -bounds.iter().map(|b| b.0).sum::<isize>();
        let size = start + bounds.iter().map(|b| b.1).sum::<isize>() + 1;
        let shared = random.below(4) == 0;
        let stride = if shared { 0 } else { size };
        let data = (0..size as usize * batch.max(1) + 1).map(|_| T::make(random)).collect();
        Matrix { data, start: start as usize, rows, columns, batch: stride }
    }

    fn operand(&self) -> Operand<'_> {
        let data = self.data[self.start..].as_ptr().cast();
        Operand { data, rows: &self.rows, columns: &self.columns }
    }

    fn at(&self, batch: usize, i: usize, j: usize) -> f64 {
        let at = batch as isize * self.batch + self.rows.at(i) + self.columns.at(j);
        self.data[self.start.wrapping_add_signed(at)].wide()
    }
}

/// Compares one random problem with sums in f64.
fn check<In: Element, Out: Element>(pool: &Pool, isa: Isa, random: &mut Random, size: [usize; 4]) {
    let [batch, m, n, k] = size;
    let a = Matrix::<In>::random(random, batch, m, k);
    let b = Matrix::<In>::random(random, batch, k, n);
    let accumulate = random.below(2) == 0;
    product::<In, Out>(pool, isa, random, [&a, &b], size, accumulate);
}

/// Compares one product with sums in f64. The largest error, relative to the largest sum.
fn product<In: Element, Out: Element>(
    pool: &Pool,
    isa: Isa,
    random: &mut Random,
    [a, b]: [&Matrix<In>; 2],
    size: [usize; 4],
    accumulate: bool,
) -> f64 {
    let [batch, m, n, k] = size;
    let ld = n + random.below(3);
    let before: Vec<Out> = (0..batch * m * ld + 1).map(|_| Out::make(random)).collect();
    let mut c = before.clone();
    let dims = [BatchDim {
        extent: batch,
        a_stride: a.batch,
        b_stride: b.batch,
        c_stride: (m * ld) as isize,
    }];
    let problem = Gemm {
        dtype: In::DTYPE,
        m,
        n,
        k,
        a: a.operand(),
        b: b.operand(),
        c: Some(Output { data: c.as_mut_ptr().cast(), row_stride: ld, dtype: Out::DTYPE }),
        batch: &dims,
        accumulate,
        epilogue: None,
    };
    // SAFETY: the buffers have the sizes that the strides give.
    unsafe { gemm(pool, isa, &problem) }.unwrap();
    let what = format!("{isa} {} {} {size:?} accumulate {accumulate}", In::DTYPE, Out::DTYPE);
    // One rounding per step, of sums whose terms are at most 1; one more to the output.
    let accumulator = In::DTYPE.accumulator().epsilon();
    let tolerance = (k + 2) as f64 * accumulator * (k + 1) as f64;
    let (mut worst, mut largest) = (0.0f64, 0.0f64);
    for t in 0..batch {
        for i in 0..m {
            for j in 0..n {
                let at = t * m * ld + i * ld + j;
                let start = if accumulate { before[at].wide() } else { 0.0 };
                let sum: f64 = (0..k).map(|p| a.at(t, i, p) * b.at(t, p, j)).sum();
                let (got, want) = (c[at].wide(), start + sum);
                (worst, largest) = (worst.max((got - want).abs()), largest.max(want.abs()));
                if Out::DTYPE.is_float() {
                    let tolerance = tolerance + Out::DTYPE.epsilon() * (want.abs() + tolerance);
                    assert!((got - want).abs() <= tolerance, "{what}: {got} {want} at {t} {i} {j}");
                } else {
                    assert_eq!(got, Out::DTYPE.wrap_int(want as i64) as f64, "{what}");
                }
            }
            for (j, old) in before
                .iter()
                .enumerate()
                .take(t * m * ld + (i + 1) * ld)
                .skip(t * m * ld + i * ld + n)
            {
                assert_eq!(c[j], *old, "{what}: wrote between rows");
            }
        }
    }
    worst / largest
}

/// Extents that meet every edge: none, one, around the tiles, and beyond a task.
const EXTENTS: [usize; 16] = [0, 1, 2, 3, 5, 7, 8, 9, 13, 14, 16, 17, 31, 33, 65, 129];

fn sizes(random: &mut Random) -> [usize; 4] {
    let batch = random.pick(&[1, 1, 2, 3]);
    [batch, random.pick(&EXTENTS), random.pick(&EXTENTS), random.pick(&EXTENTS)]
}

#[test]
fn products_equal_sums_for_every_dtype_and_layout() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        let mut random = Random(17);
        for _ in 0..200 {
            let size = sizes(&mut random);
            check::<f32, f32>(&pool, isa, &mut random, size);
            check::<f64, f64>(&pool, isa, &mut random, size);
        }
        for _ in 0..20 {
            let size = sizes(&mut random);
            check::<f16, f32>(&pool, isa, &mut random, size);
            check::<f16, f16>(&pool, isa, &mut random, size);
            check::<bf16, f32>(&pool, isa, &mut random, size);
            check::<bf16, bf16>(&pool, isa, &mut random, size);
            check::<i64, i64>(&pool, isa, &mut random, size);
            check::<i32, i32>(&pool, isa, &mut random, size);
            check::<u32, u32>(&pool, isa, &mut random, size);
            check::<i16, i16>(&pool, isa, &mut random, size);
            check::<i16, i32>(&pool, isa, &mut random, size);
            check::<i8, i8>(&pool, isa, &mut random, size);
            check::<i8, i32>(&pool, isa, &mut random, size);
            check::<u8, u8>(&pool, isa, &mut random, size);
            check::<u8, i32>(&pool, isa, &mut random, size);
        }
    }
}

#[test]
fn long_sums_and_many_blocks() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        let mut random = Random(3);
        for size in [[1, 130, 400, 1000], [1, 250, 33, 800], [1, 1, 70, 3000], [1, 90, 3, 1500]] {
            check::<f32, f32>(&pool, isa, &mut random, size);
            check::<bf16, bf16>(&pool, isa, &mut random, size);
            check::<f64, f64>(&pool, isa, &mut random, size);
            check::<i8, i32>(&pool, isa, &mut random, size);
            check::<u8, u8>(&pool, isa, &mut random, size);
        }
        check::<f32, f32>(&pool, isa, &mut random, [1, 4100, 2, 9]);
        check::<bf16, bf16>(&pool, isa, &mut random, [1, 15, 2060, 800]);
        // Beyond what is packed at once, for groups of 1, 2 and 4 steps.
        check::<f32, f32>(&pool, isa, &mut random, [1, 13, 33, 8500]);
        check::<bf16, bf16>(&pool, isa, &mut random, [1, 13, 33, 16_500]);
        check::<i8, i8>(&pool, isa, &mut random, [1, 13, 33, 32_900]);
    }
}

/// Channels-last images, as a window of 3 × 3 taps steps through them: images, rows and columns of
/// pixels; taps and channels.
fn window([images, rows, columns, channels]: [usize; 4]) -> [Steps; 2] {
    let column = channels as isize;
    let row = (columns as isize + 2) * column;
    let image = (rows as isize + 2) * row;
    let taps = Steps::new(&[3, 3, channels], &[row, column, 1]);
    [Steps::new(&[images, rows, columns], &[image, row, column]), taps]
}

/// Convolutions and their gradients, with channels and pixels enough to be transformed.
#[test]
fn transformed_convolutions_stay_exact() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        let mut random = Random(7);
        for [images, rows, columns, channels, outputs] in
            [[1, 16, 16, 32, 48], [2, 15, 7, 80, 32], [20, 3, 4, 48, 64], [1, 9, 40, 160, 32]]
        {
            let (pixels, taps) = (images * rows * columns, 9 * channels);
            let [of_pixels, of_taps] = window([images, rows, columns, channels]);
            let images = Matrix::<f32>::placed(&mut random, 1, of_pixels.clone(), of_taps.clone());
            let wide = taps as isize;
            let around = Steps::new(&[9, channels], &[-(channels as isize), 1]);
            let outside =
                Steps::new(&[9, channels], &[-((channels * outputs) as isize), outputs as isize]);
            for (sums, columns) in [
                (Steps::new(&[taps], &[1]), Steps::new(&[outputs], &[wide])),
                (around, Steps::new(&[outputs], &[wide])),
                (outside, Steps::new(&[outputs], &[1])),
            ] {
                let weights = Matrix::<f32>::placed(&mut random, 1, sums, columns);
                let (both, size) = ([&images, &weights], [1, pixels, outputs, taps]);
                let worst = product::<f32, f32>(&pool, isa, &mut random, both, size, false);
                assert!(worst <= 1e-6, "{isa} {size:?}: {worst:e}");
            }
            let gap = outputs as isize + 16;
            let (down, across) = (Steps::new(&[outputs], &[1]), Steps::new(&[pixels], &[gap]));
            let gradient = Matrix::<f32>::placed(&mut random, 1, down, across);
            let images = Matrix::<f32>::placed(&mut random, 1, of_pixels, of_taps);
            let (both, size) = ([&gradient, &images], [1, outputs, taps, pixels]);
            let worst = product::<f32, f32>(&pool, isa, &mut random, both, size, false);
            assert!(worst <= 1e-6, "{isa} gradient {size:?}: {worst:e}");
        }
    }
}

/// Sums that are cut into parts, and left operands read in place, in runs.
#[test]
fn long_sums_of_few_and_windows_in_place() {
    let pool = Pool::new(2);
    fn all<In: Element, Out: Element>(pool: &Pool, isa: Isa, random: &mut Random) {
        for size in [[1, 14, 40, 2100], [1, 9, 27, 4099]] {
            check::<In, Out>(pool, isa, random, size);
        }
        for [rows, columns, channels] in [[5, 7, 24], [3, 26, 32], [2, 4, 70]] {
            let [pixels, taps] = window([2, rows, columns, channels]);
            let a = Matrix::<In>::placed(random, 1, pixels, taps);
            let (m, n, k) = (2 * rows * columns, 40, 9 * channels);
            let b = Matrix::<In>::random(random, 1, k, n);
            product::<In, Out>(pool, isa, random, [&a, &b], [1, m, n, k], false);
        }
    }
    for isa in Isa::available() {
        let mut random = Random(23);
        all::<f32, f32>(&pool, isa, &mut random);
        all::<f64, f64>(&pool, isa, &mut random);
        all::<bf16, bf16>(&pool, isa, &mut random);
        all::<bf16, f32>(&pool, isa, &mut random);
        all::<i8, i32>(&pool, isa, &mut random);
    }
}

/// Numbers as bf16 and f32 hold them alike; about 1 in 8 is special.
fn special(random: &mut Random) -> f64 {
    match random.below(40) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => 0.0,
        4 => -0.0,
        _ => (random.below(17) as f64 - 8.0) / 8.0,
    }
}

#[test]
fn what_is_not_finite_spreads_as_in_exact_arithmetic() {
    fn check<T: Element>(pool: &Pool, isa: Isa, [m, n, k]: [usize; 3], from: impl Fn(f64) -> T) {
        let mut random = Random((m * n * k) as u64);
        let a: Vec<f64> = (0..m * k).map(|_| special(&mut random)).collect();
        let b: Vec<f64> = (0..k * n).map(|_| special(&mut random)).collect();
        let store = |x: &[f64]| x.iter().map(|&x| from(x)).collect::<Vec<T>>();
        let (left, right) = (store(&a), store(&b));
        let mut c = store(&vec![7.0; m * n]);
        let [[m_of_a, k_of_a], [k_of_b, n_of_b]] = row_major([m, n, k]);
        let problem = Gemm {
            dtype: T::DTYPE,
            m,
            n,
            k,
            a: Operand { data: left.as_ptr().cast(), rows: &m_of_a, columns: &k_of_a },
            b: Operand { data: right.as_ptr().cast(), rows: &k_of_b, columns: &n_of_b },
            c: Some(Output { data: c.as_mut_ptr().cast(), row_stride: n, dtype: T::DTYPE }),
            batch: &[],
            accumulate: false,
            epilogue: None,
        };
        // SAFETY: the buffers have the sizes that the strides give.
        unsafe { gemm(pool, isa, &problem) }.unwrap();
        for i in 0..m {
            for j in 0..n {
                let want: f64 = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
                let got = c[i * n + j].wide();
                // Eighths of small numbers: finite sums are exact but for the output's rounding.
                let rounding = want.abs() * T::DTYPE.epsilon();
                let same = if want.is_finite() {
                    (got - want).abs() <= rounding
                } else {
                    got == want || (got.is_nan() && want.is_nan())
                };
                assert!(same, "{isa} {} {m} {n} {k}: {got} {want} at {i} {j}", T::DTYPE);
            }
        }
    }
    let pool = Pool::new(2);
    for isa in Isa::available() {
        for size in [[1, 40, 5], [40, 1, 5], [13, 33, 3], [25, 70, 6], [64, 64, 7]] {
            check::<f32>(&pool, isa, size, |x| x as f32);
            check::<f64>(&pool, isa, size, |x| x);
            check::<bf16>(&pool, isa, size, bf16::from_f64);
            check::<f16>(&pool, isa, size, f16::from_f64);
        }
    }
}

#[test]
fn subnormals_count_or_are_zeros_where_the_path_says_so() {
    let pool = Pool::new(1);
    for isa in Isa::available() {
        // More rows than a skinny product has.
        let [m, n, k] = [16, 32, 2];
        let tiny = f32::from_bits(0x0040_0000);
        let a: Vec<bf16> = vec![bf16::from_f32(tiny); m * k];
        let b: Vec<bf16> = vec![bf16::from_f32(1e30); k * n];
        let mut c = vec![f32::NAN; m * n];
        let places = row_major([m, n, k]);
        let floats = plain([m, n, k], &places, &[0.0; 32], &[0.0; 64], &mut c);
        let problem = Gemm {
            dtype: DType::BF16,
            a: Operand { data: a.as_ptr().cast(), ..floats.a },
            b: Operand { data: b.as_ptr().cast(), ..floats.b },
            ..floats
        };
        // SAFETY: the buffers have the sizes that the strides give.
        unsafe { gemm(&pool, isa, &problem) }.unwrap();
        let product = 2.0 * tiny * bf16::from_f32(1e30).to_f32();
        let want = if isa >= Isa::Avx512Bf16 { 0.0 } else { product };
        assert!(c.iter().all(|&x| (x - want).abs() <= 1e-6 * product), "{isa} {} {want}", c[0]);
    }
}

/// Rows and columns of row-major operands.
fn row_major([m, n, k]: [usize; 3]) -> [[Steps; 2]; 2] {
    let matrix = |rows: usize, columns: usize| {
        [Steps::new(&[rows], &[columns as isize]), Steps::new(&[columns], &[1])]
    };
    [matrix(m, k), matrix(k, n)]
}

/// A plain f32 problem over row-major operands.
fn plain<'a>(
    size: [usize; 3],
    places: &'a [[Steps; 2]; 2],
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
) -> Gemm<'a> {
    let [m, n, k] = size;
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
    let operand = |data: &[f32], [rows, columns]: &'a [Steps; 2]| Operand {
        data: data.as_ptr().cast(),
        rows,
        columns,
    };
    Gemm {
        dtype: DType::F32,
        m,
        n,
        k,
        a: operand(a, &places[0]),
        b: operand(b, &places[1]),
        c: Some(Output { data: c.as_mut_ptr().cast(), row_stride: n, dtype: DType::F32 }),
        batch: &[],
        accumulate: false,
        epilogue: None,
    }
}

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.unit() as f32).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for isa in Isa::available() {
        for size in [[300, 500, 900], [1, 1000, 700], [5, 700, 900], [700, 3, 800], [64, 64, 64]] {
            let [m, n, k] = size;
            let (a, b) = (values(1, m * k), values(2, k * n));
            let results: Vec<Vec<f32>> = [1, 2, 3]
                .into_iter()
                .map(|threads| {
                    let mut c = vec![0.0; m * n];
                    let places = row_major(size);
                    let problem = plain(size, &places, &a, &b, &mut c);
                    // SAFETY: `plain` checks the sizes.
                    unsafe { gemm(&Pool::new(threads), isa, &problem) }.unwrap();
                    c
                })
                .collect();
            assert!(results.iter().all(|r| r == &results[0]), "{isa} {size:?}");
        }
    }
}

#[test]
fn the_epilogue_sees_every_element_once_and_before_conversion() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        for [m, n, k] in [[200, 500, 800], [1, 300, 50], [300, 2, 50], [7, 9, 3], [20, 20, 0]] {
            let (a, b) = (values(1, m * k + 1), values(2, k * n + 1));
            let mut plain_c = vec![0.0; m * n];
            let places = row_major([m, n, k]);
            let problem = plain([m, n, k], &places, &a, &b, &mut plain_c);
            // SAFETY: `plain` checks the sizes.
            unsafe { gemm(&pool, isa, &problem) }.unwrap();

            let seen = Mutex::new(vec![f32::NAN; m * n]);
            let epilogue = |tile: &EpilogueTile| {
                assert_eq!(tile.batch, 0);
                let mut seen = seen.lock().unwrap();
                for (i, row) in tile.rows.clone().enumerate() {
                    for (j, column) in tile.columns.clone().enumerate() {
                        // SAFETY: within the tile.
                        let x = unsafe { tile.data.cast::<f32>().add(i * tile.row_stride + j) };
                        let old = &mut seen[row * n + column];
                        assert!(old.is_nan());
                        // SAFETY: as above.
                        unsafe {
                            *old = *x;
                            *x += 1.0;
                        }
                    }
                }
            };
            let mut c = vec![0.0; m * n];
            let problem = plain([m, n, k], &places, &a, &b, &mut c);
            let problem = Gemm { epilogue: Some(&epilogue), ..problem };
            // SAFETY: `plain` checks the sizes.
            unsafe { gemm(&pool, isa, &problem) }.unwrap();
            assert_eq!(*seen.lock().unwrap(), plain_c);
            assert!(c.iter().zip(&plain_c).all(|(c, p)| *c == p + 1.0));

            seen.lock().unwrap().fill(f32::NAN);
            let problem = Gemm { c: None, ..problem };
            // SAFETY: as above.
            unsafe { gemm(&pool, isa, &problem) }.unwrap();
            assert_eq!(*seen.lock().unwrap(), plain_c);
        }
    }
}

#[test]
fn wrong_dtypes_are_errors() {
    let pool = Pool::new(1);
    let mut c = [0.0];
    let places = row_major([1, 1, 1]);
    let problem = plain([1, 1, 1], &places, &[1.0], &[1.0], &mut c);
    let wrong = Gemm { dtype: DType::Bool, ..problem };
    // SAFETY: nothing is read before the error.
    let error = unsafe { gemm(&pool, Isa::Portable, &wrong) }.unwrap_err();
    assert!(error.contains("no matrix product of bool into f32"), "{error}");
    let wrong = Gemm { c: None, accumulate: true, ..problem };
    // SAFETY: as above.
    assert!(unsafe { gemm(&pool, Isa::Portable, &wrong) }.is_err());
}
