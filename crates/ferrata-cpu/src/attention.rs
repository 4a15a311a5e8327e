//! Attention without the matrix of scores: forward, backward, and for few queries.
//!
//! Scores are computed block by block, transposed: a row of keys' scores has its queries side by
//! side, so that the softmax works on whole vectors and never across one. Blocks that no query
//! may see are skipped. Nothing of the size queries × keys exists.
//!
//! Products take operands of the elements' dtype where the path has dot instructions for it, else
//! of the accumulators'; all else is computed in the accumulators' type.
//!
//! Map: `block` (sizes, what is visible, packing), `mask` (from products to scores), `forward`,
//! `backward`, `scores` (what the latter recomputes), `few` (decoding).

use std::marker::PhantomData;

use ferrata_ir::DType;
use half::{bf16, f16};

use crate::gemm::{Pack, Stored};
use crate::isa::{Isa, Kernel, Level};
use crate::math::Math;
use crate::pool::Pool;
use crate::simd::{Dot, Fma, Simd};

mod backward;
mod block;
mod few;
mod forward;
mod mask;
mod scores;

pub use mask::{Mask, MaskGradient};

#[cfg(test)]
mod tests;

/// A tensor [batch, heads, positions, features] that is read; strides in elements.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// The first element.
    pub data: *const u8,
    /// Elements between neighbours, per dimension.
    pub strides: [isize; 4],
}

/// A tensor [batch, heads, positions, features] that is written; strides in elements.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The first element.
    pub data: *mut u8,
    /// Elements between neighbours, per dimension.
    pub strides: [isize; 4],
}

/// What attention computes: `softmax(scale · q·kᵀ) · v` over the keys that a query may see.
///
/// Query `i` sees key `j` if `j` is below its batch entry's length, and, where `causal`,
/// `j ≤ i + offset`, and, with a window of `w`, `j > i + offset - w`, and if a bool mask says so. A
/// query that sees no key gives 0. f16 and bf16 are computed in f32; where the path has dot
/// instructions for bf16, probabilities and gradients of scores are rounded before products.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// f64, f32, bf16 or f16, of every tensor.
    pub dtype: DType,
    /// Batch entries.
    pub batch: usize,
    /// Heads of the queries, a multiple of those of the keys.
    pub query_heads: usize,
    /// Heads of keys and values; neighbouring query heads share one.
    pub key_heads: usize,
    /// Positions of the queries.
    pub queries: usize,
    /// Positions of the keys and values.
    pub keys: usize,
    /// Features of queries and keys.
    pub features: usize,
    /// Features of values and of the output.
    pub value_features: usize,
    /// Multiplies the scores.
    pub scale: f64,
    /// Whether a query sees no key after its own position.
    pub causal: bool,
    /// The position of query 0 among the keys.
    pub offset: isize,
    /// How many keys up to its own position a query sees.
    pub window: Option<usize>,
    /// Scores become `cap · tanh(score / cap)`.
    pub softcap: Option<f64>,
    /// For every batch entry the number of keys that are valid.
    pub lengths: Option<&'a [i64]>,
    /// What is added to the scores, or hides keys.
    pub mask: Option<Mask>,
}

impl Attention<'_> {
    fn check(&self) -> Result<(), String> {
        if !self.dtype.is_float() {
            return Err(format!("attention of {} is not defined; cast to a float", self.dtype));
        }
        if let Some(mask) = &self.mask
            && ![DType::Bool, self.dtype].contains(&mask.dtype)
        {
            return Err(format!(
                "a mask of {} for attention of {}; cast it, or give one of bool",
                mask.dtype, self.dtype
            ));
        }
        if self.key_heads == 0 && self.query_heads > 0
            || self.key_heads > 0 && !self.query_heads.is_multiple_of(self.key_heads)
        {
            return Err(format!(
                "attention with {} query heads and {} key heads; the first must be a multiple \
                 of the second",
                self.query_heads, self.key_heads
            ));
        }
        if let Some(lengths) = self.lengths
            && lengths.len() != self.batch
        {
            return Err(format!(
                "attention over {} batch entries with {} lengths; give one per entry",
                self.batch,
                lengths.len()
            ));
        }
        Ok(())
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.query_heads / self.key_heads.max(1)
    }

    /// Valid keys of a batch entry.
    fn length(&self, batch: usize) -> usize {
        self.lengths.map_or(self.keys, |l| l[batch].clamp(0, self.keys as i64) as usize)
    }
}

/// The tensors of the forward computation.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Queries: [batch, query heads, queries, features].
    pub q: Input,
    /// Keys: [batch, key heads, keys, features].
    pub k: Input,
    /// Values: [batch, key heads, keys, value features].
    pub v: Input,
    /// The output: [batch, query heads, queries, value features].
    pub out: Written,
    /// The logarithm of the sum of the exponentials of each query's scores, in the accumulator of
    /// the dtype: [batch, query heads, queries, 1]; -∞ for a query that sees no key.
    pub lse: Option<Written>,
}

/// The tensors of the backward computation; shapes as in [`Forward`].
#[derive(Clone, Copy, Debug)]
pub struct Backward {
    /// Queries.
    pub q: Input,
    /// Keys.
    pub k: Input,
    /// Values.
    pub v: Input,
    /// The forward output.
    pub out: Input,
    /// The forward logarithms.
    pub lse: Input,
    /// The gradient of the output.
    pub dout: Input,
    /// The gradient of the queries.
    pub dq: Written,
    /// The gradient of the keys.
    pub dk: Written,
    /// The gradient of the values.
    pub dv: Written,
    /// The gradient of a mask that is added.
    pub dmask: Option<MaskGradient>,
}

/// Computes attention.
///
/// # Errors
/// Dtypes that have no attention, or sizes that do not fit each other.
///
/// # Safety
/// Inputs are readable and outputs writable at every index that the sizes and strides give,
/// aligned for the dtype; outputs overlap nothing, and nobody else touches them meanwhile.
pub unsafe fn attention(
    pool: &Pool,
    isa: Isa,
    problem: &Attention<'_>,
    tensors: &Forward,
) -> Result<(), String> {
    run(pool, isa, problem, tensors)
}

/// Computes the gradients of attention from the gradient of its output.
///
/// # Errors
/// As [`attention`].
///
/// # Safety
/// As [`attention`].
pub unsafe fn attention_backward(
    pool: &Pool,
    isa: Isa,
    problem: &Attention<'_>,
    tensors: &Backward,
) -> Result<(), String> {
    run(pool, isa, problem, tensors)
}

/// Runs a computation on the types of the problem's dtype.
fn run<'a, X>(
    pool: &'a Pool,
    isa: Isa,
    problem: &'a Attention<'_>,
    tensors: &'a X,
) -> Result<(), String>
where
    Run<'a, f64, X>: Kernel<Output = ()>,
    Run<'a, f32, X>: Kernel<Output = ()>,
    Run<'a, bf16, X>: Kernel<Output = ()>,
    Run<'a, f16, X>: Kernel<Output = ()>,
{
    problem.check()?;
    match problem.dtype {
        DType::F64 => isa.run(Run::<f64, _> { pool, problem, tensors, element: PhantomData }),
        DType::BF16 => {
            isa.run_dots(Run::<bf16, _> { pool, problem, tensors, element: PhantomData });
        }
        DType::F16 => isa.run(Run::<f16, _> { pool, problem, tensors, element: PhantomData }),
        _ => isa.run(Run::<f32, _> { pool, problem, tensors, element: PhantomData }),
    }
    Ok(())
}

/// A computation on elements `E` in memory.
struct Run<'a, E, X> {
    pool: &'a Pool,
    problem: &'a Attention<'a>,
    tensors: &'a X,
    element: PhantomData<E>,
}

macro_rules! runs {
    ($t:ty, |$l:ident| $dot:ty) => {
        impl Kernel for Run<'_, $t, Forward> {
            type Output = ();
            #[inline(always)]
            fn run<$l: Level>(self) {
                forward::run::<$l, $dot, $t>(self.pool, self.problem, self.tensors);
            }
        }

        impl Kernel for Run<'_, $t, Backward> {
            type Output = ();
            #[inline(always)]
            fn run<$l: Level>(self) {
                backward::run::<$l, $dot, $t>(self.pool, self.problem, self.tensors);
            }
        }
    };
}
runs!(f64, |L| Fma<L::F64>);
runs!(f32, |L| Fma<L::F32>);
runs!(bf16, |L| L::Bf16);
runs!(f16, |L| Fma<L::F32>);

/// An element type that is computed in.
trait Number: Math + Stored<Self> {}
impl<T: Math + Stored<T>> Number for T {}

/// The vectors of such a type.
trait Vector: Simd<Elem: Number> {}
impl<V: Simd<Elem: Number>> Vector for V {}

/// What products are added up in, and all else is computed in.
type Value<D> = <<D as Dot>::Acc as Simd>::Elem;

/// How products of elements `E` in memory are computed.
trait Products<E>: Dot<Acc: Vector, Left: Pack<E> + Stored<Value<Self>>, Right: Pack<E>> {}
impl<E, D> Products<E> for D where
    D: Dot<Acc: Vector, Left: Pack<E> + Stored<Value<D>>, Right: Pack<E>>
{
}
