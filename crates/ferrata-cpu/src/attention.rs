//! Attention without the matrix of scores: forward, backward, and for few queries.
//!
//! Scores are computed block by block, transposed: a row of keys' scores has its queries side by
//! side, so that the softmax works on whole vectors and never across one. Blocks that no query
//! may see are skipped. Nothing of the size queries × keys exists.
//!
//! Map: `block` (sizes, masks, packing), `forward`, `backward`, `few` (decoding).

use std::marker::PhantomData;

use ferrata_ir::DType;

use crate::isa::{Isa, Kernel, Level};
use crate::math::Math;
use crate::pool::Pool;
use crate::simd::Simd;

mod backward;
mod block;
mod few;
mod forward;

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
/// `j ≤ i + offset`, and, with a window of `w`, `j > i + offset - w`. A query that sees no key
/// gives 0.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// f32 or f64, of every tensor.
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
}

impl Attention<'_> {
    fn check(&self) -> Result<(), String> {
        if self.dtype != DType::F32 && self.dtype != DType::F64 {
            return Err(format!(
                "no attention kernel for {} on this device; cast to f32 or f64",
                self.dtype
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
    /// The logarithm of the sum of the exponentials of each query's scores, contiguous:
    /// [batch, query heads, queries]; -∞ for a query that sees no key. May be null.
    pub lse: *mut u8,
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
    pub lse: *const u8,
    /// The gradient of the output.
    pub dout: Input,
    /// The gradient of the queries.
    pub dq: Written,
    /// The gradient of the keys.
    pub dk: Written,
    /// The gradient of the values.
    pub dv: Written,
}

/// Computes attention.
///
/// # Errors
/// A dtype other than f32 and f64, or sizes that do not fit each other.
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
    problem.check()?;
    match problem.dtype {
        DType::F64 => isa.run(Run::<f64, _> { pool, problem, tensors, element: PhantomData }),
        _ => isa.run(Run::<f32, _> { pool, problem, tensors, element: PhantomData }),
    }
    Ok(())
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
    problem.check()?;
    match problem.dtype {
        DType::F64 => isa.run(Run::<f64, _> { pool, problem, tensors, element: PhantomData }),
        _ => isa.run(Run::<f32, _> { pool, problem, tensors, element: PhantomData }),
    }
    Ok(())
}

/// A computation whose element type is known.
struct Run<'a, T, X> {
    pool: &'a Pool,
    problem: &'a Attention<'a>,
    tensors: &'a X,
    element: PhantomData<T>,
}

macro_rules! runs {
    ($t:ty, $vector:ident) => {
        impl Kernel for Run<'_, $t, Forward> {
            type Output = ();
            #[inline(always)]
            fn run<L: Level>(self) {
                forward::run::<L, L::$vector>(self.pool, self.problem, self.tensors);
            }
        }

        impl Kernel for Run<'_, $t, Backward> {
            type Output = ();
            #[inline(always)]
            fn run<L: Level>(self) {
                backward::run::<L, L::$vector>(self.pool, self.problem, self.tensors);
            }
        }
    };
}
runs!(f32, F32);
runs!(f64, F64);

/// The vectors of an element type that has elementary functions.
trait Vector: Simd<Elem: Math + crate::gemm::Stored<Self::Elem>> {}
impl<V: Simd<Elem: Math + crate::gemm::Stored<V::Elem>>> Vector for V {}
