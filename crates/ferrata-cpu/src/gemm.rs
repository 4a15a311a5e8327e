//! Matrix products of any strides, batched.
//!
//! Map: `packed` (the blocked product), `deep` (long sums, cut), `pack` and `tile` (its two loops), `skinny` (few rows
//! or few columns, bound by memory), `winograd` (convolutions of 3 × 3 taps), `element` (dtypes).

use std::marker::PhantomData;
use std::ops::Range;

use ferrata_ir::DType;
use half::{bf16, f16};

use crate::isa::{Isa, Kernel, Level};
use crate::pool::Pool;
use crate::simd::{Dot, Fma, Simd, VectorI32, VectorI64};

mod deep;
mod element;
mod pack;
mod packed;
mod skinny;
mod tile;
mod winograd;

#[cfg(test)]
mod tests;

pub use crate::steps::Steps;
pub use element::{Pack, Stored};
pub(crate) use pack::{Panels, Places};
use packed::Product;
pub(crate) use tile::Tile;

/// A matrix in memory: row and column each give an offset in elements, of any sign, 0 included, and
/// elements may overlap.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The element at row 0, column 0.
    pub data: *const u8,
    /// Where each row lies.
    pub rows: &'a Steps,
    /// Where each column lies.
    pub columns: &'a Steps,
}

/// The output matrix; its columns are contiguous.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The element at row 0, column 0.
    pub data: *mut u8,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// The operands' dtype or its accumulator.
    pub dtype: DType,
}

/// A dimension over which the product is repeated.
#[derive(Clone, Copy, Debug)]
pub struct BatchDim {
    /// How often.
    pub extent: usize,
    /// Elements between neighbours in the left operand; 0 repeats it.
    pub a_stride: isize,
    /// Elements between neighbours in the right operand; 0 repeats it.
    pub b_stride: isize,
    /// Elements between neighbours in the output.
    pub c_stride: isize,
}

/// A finished part of one product, in the accumulation dtype, before it is converted to the
/// output's dtype.
#[derive(Debug)]
pub struct EpilogueTile {
    /// Which matrix of the batch, counted in row-major order of the batch dimensions.
    pub batch: usize,
    /// Rows of the product.
    pub rows: Range<usize>,
    /// Columns of the product.
    pub columns: Range<usize>,
    /// The first element of the part; may be changed in place.
    pub data: *mut u8,
    /// Elements from one row to the next.
    pub row_stride: usize,
}

/// What runs on every finished part; parts come in any order, from any thread.
pub type Epilogue<'a> = dyn Fn(&EpilogueTile) + Sync + 'a;

/// A batched matrix product `C[m, n] = A[m, k] · B[k, n]`, plus what `C` holds if `accumulate`.
///
/// Operands of f16 and bf16 accumulate in f32, those of i8, u8, i16 in i32; integers wrap.
#[derive(Clone, Copy)]
pub struct Gemm<'a> {
    /// The dtype of both operands.
    pub dtype: DType,
    /// Rows of the output.
    pub m: usize,
    /// Columns of the output.
    pub n: usize,
    /// The contracted dimension.
    pub k: usize,
    /// The left operand.
    pub a: Operand<'a>,
    /// The right operand.
    pub b: Operand<'a>,
    /// The output; without one the epilogue is all that sees the result.
    pub c: Option<Output>,
    /// Batch dimensions, outermost first.
    pub batch: &'a [BatchDim],
    /// Whether to add to the output's content.
    pub accumulate: bool,
    /// Runs on every finished part.
    pub epilogue: Option<&'a Epilogue<'a>>,
}

/// Multiplications in one product below which a batch is spread over threads by whole products.
const WHOLE: usize = 1 << 24;

/// Computes a matrix product on the pool.
///
/// # Errors
/// A dtype that has no products, or an output dtype that the operands' dtype cannot give.
///
/// # Safety
/// Operands are readable and the output writable at every index that their sizes and strides
/// give, aligned for their dtype; nobody else touches the output meanwhile; the outputs of
/// different batch indices do not overlap.
pub unsafe fn gemm(pool: &Pool, isa: Isa, problem: &Gemm<'_>) -> Result<(), String> {
    let out = problem.c.map_or(problem.dtype.accumulator(), |c| c.dtype);
    if problem.accumulate && problem.c.is_none() {
        return Err("a product that accumulates needs an output".into());
    }
    macro_rules! run {
        ($in:ty, $out:ty, $runner:ident, $run:ident) => {{
            let marker = PhantomData::<($in, $out)>;
            isa.$run($runner { pool, problem, marker });
            Ok(())
        }};
    }
    match (problem.dtype, out) {
        (DType::F64, DType::F64) => run!(f64, f64, RunF64, run),
        (DType::F32, DType::F32) => run!(f32, f32, RunF32, run),
        (DType::F16, DType::F32) => run!(f16, f32, RunF32, run),
        (DType::F16, DType::F16) => run!(f16, f16, RunF32, run),
        (DType::BF16, DType::F32) => run!(bf16, f32, RunBf16, run_dots),
        (DType::BF16, DType::BF16) => run!(bf16, bf16, RunBf16, run_dots),
        (DType::I64, DType::I64) => run!(i64, i64, RunI64, run),
        (DType::I32, DType::I32) | (DType::U32, DType::U32) => run!(i32, i32, RunI32, run),
        (DType::I16, DType::I32) => run!(i16, i32, RunI32, run),
        (DType::I16, DType::I16) => run!(i16, i16, RunI32, run),
        (DType::I8, DType::I32) => run!(i8, i32, RunI8, run_dots),
        (DType::I8, DType::I8) => run!(i8, i8, RunI8, run_dots),
        (DType::U8, DType::I32) => run!(u8, i32, RunU8, run_dots),
        (DType::U8, DType::U8) => run!(u8, u8, RunU8, run_dots),
        (dtype, out) => Err(format!(
            "no matrix product of {dtype} into {out} on this device; cast the operands, or give \
             an output of {dtype} or {}",
            dtype.accumulator()
        )),
    }
}

/// A problem whose types are known; one for each kind of dot instruction.
macro_rules! runner {
    ($name:ident, [$($generic:tt)*] $in:ty, $acc:ty, |$l:ident| $dot:ty) => {
        struct $name<'a, T> {
            pool: &'a Pool,
            problem: &'a Gemm<'a>,
            marker: PhantomData<T>,
        }

        impl<$($generic)* Out: Stored<$acc>> Kernel for $name<'_, ($in, Out)> {
            type Output = ();

            #[inline(always)]
            fn run<$l: Level>(self) {
                batched::<$l, $dot, $in, Out, $acc>(self.pool, self.problem);
            }
        }
    };
}
runner!(RunF64, [] f64, f64, |L| Fma<L::F64>);
runner!(RunF32, [In: Stored<f32>,] In, f32, |L| Fma<L::F32>);
runner!(RunBf16, [] bf16, f32, |L| L::Bf16);
runner!(RunI64, [] i64, i64, |L| Fma<VectorI64>);
runner!(RunI32, [In: Stored<i32>,] In, i32, |L| Fma<VectorI32>);
runner!(RunI8, [] i8, i32, |L| L::Int8);
runner!(RunU8, [] u8, i32, |L| L::Int8);

/// Runs every product of the batch.
fn batched<L, D, In, Out, A>(pool: &Pool, problem: &Gemm<'_>)
where
    L: Level,
    D: Dot<Acc: Simd<Elem = A>, Left: Pack<In>, Right: Pack<In>>,
    A: Stored<A> + Default + skinny::Sum,
    In: Stored<A>,
    Out: Stored<A>,
{
    let count: usize = problem.batch.iter().map(|d| d.extent).product();
    if problem.m == 0 || problem.n == 0 || count == 0 {
        return;
    }
    let shared = Shared(problem);
    let one = |index: usize| {
        let product = shared.product::<In, Out, A>(index);
        // SAFETY: `gemm`'s contract, and `Isa::run` chose `L` by what the machine has.
        unsafe {
            let done = product.multiply_skinny::<L, D::Acc>(pool)
                || product.multiply_winograd::<L>(pool)
                || product.multiply_deep::<L, D>(pool);
            if !done {
                product.multiply::<L, D>(pool);
            }
        }
    };
    let size = problem.m * problem.n * problem.k;
    if count > 1 && size <= WHOLE {
        // A few products per task, so that tiny ones do not pay for a task each.
        let group = (WHOLE / 256 / size.max(1)).clamp(1, 64);
        pool.run(count.div_ceil(group), &|task, _| {
            (task * group..((task + 1) * group).min(count)).for_each(one);
        });
    } else {
        (0..count).for_each(one);
    }
}

/// A problem seen from several threads.
struct Shared<'a>(&'a Gemm<'a>);

// SAFETY: operands are only read; every product writes its own part of the output, by `gemm`'s
// contract.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// The product at `index` of the batch.
    fn product<In, Out, A: 'static>(&self, index: usize) -> Product<'a, In, Out, A>
    where
        Out: 'static,
    {
        let g = self.0;
        let (mut a, mut b, mut c) = (0isize, 0isize, 0isize);
        let mut rest = index;
        for dim in g.batch.iter().rev() {
            let at = (rest % dim.extent) as isize;
            rest /= dim.extent;
            a += at * dim.a_stride;
            b += at * dim.b_stride;
            c += at * dim.c_stride;
        }
        // Offsets from a null output are never used.
        let out = g.c.map_or(std::ptr::null_mut(), |o| o.data.cast::<Out>().wrapping_offset(c));
        Product {
            m: g.m,
            n: g.n,
            k: g.k,
            a: g.a.data.cast::<In>().wrapping_offset(a),
            a_rows: g.a.rows,
            a_columns: g.a.columns,
            b: g.b.data.cast::<In>().wrapping_offset(b),
            b_rows: g.b.rows,
            b_columns: g.b.columns,
            first: 0,
            c: out,
            c_row: g.c.map_or(0, |o| o.row_stride),
            accumulate: g.accumulate,
            batch: index,
            epilogue: g.epilogue,
            marker: PhantomData,
        }
    }
}
