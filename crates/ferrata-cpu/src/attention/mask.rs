//! From products of queries and keys to scores: scale, cap, and the operand that hides or adds;
//! and the gradient of the latter.

use std::ops::Range;

use half::{bf16, f16};

use super::block::{Carve, SIDE, blocks};
use super::scores::{Operands, Scores};
use super::{Attention, Backward, Number, Products, Value, Written};
use crate::gemm::Stored;
use crate::isa::Level;
use crate::pool::Pool;
use ferrata_ir::DType;

/// A tensor [batch, query heads, queries, keys] of what is added to the scores, or of whether a
/// key is seen; strides in elements, 0 where it repeats.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// The first element.
    pub data: *const u8,
    /// Bool, or the dtype of the other tensors.
    pub dtype: DType,
    /// Elements between neighbours, per dimension.
    pub strides: [isize; 4],
}

impl Attention<'_> {
    /// Finishes the scores of a block, up to a factor that all of them are still to be multiplied
    /// with; they then count for powers of 2. The scores of a key are `row` elements.
    #[inline(always)]
    pub(super) fn finish_scores<L: Level, T: Number>(
        &self,
        (scores, row): (&mut [T], usize),
        heads: [usize; 2],
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) -> T {
        let unit = std::f64::consts::LOG2_E;
        let in_units = T::from_f64(self.scale * unit);
        match self.softcap {
            // A factor above 0 leaves the largest score the largest.
            None if self.mask.is_none() && self.scale > 0.0 => return in_units,
            None => {
                for x in scores.iter_mut() {
                    *x = *x * in_units;
                }
            }
            Some(cap) => {
                let (scale, cap) = (T::from_f64(self.scale / cap), T::from_f64(cap * unit));
                for x in scores.iter_mut() {
                    *x = cap * (*x * scale).tanh::<L>();
                }
            }
        }
        if let Some(mask) = &self.mask {
            let [b, h, query, key] = mask.strides;
            let at = heads[0] as isize * b + heads[1] as isize * h;
            let at = at + queries.start as isize * query + keys.start as isize * key;
            let size = [row, queries.len()];
            let hide = |x: T, seen: u8| if seen != 0 { x } else { T::from_f64(f64::NEG_INFINITY) };
            let unit = T::from_f64(unit);
            let add = |x: T, m: T| L::mul_add(m, unit, x);
            let wide = |x: f32| T::from_f64(f64::from(x));
            // SAFETY: `attention`'s contract: the mask can be read at every query and key.
            unsafe {
                match mask.dtype {
                    DType::Bool => mask.apply(at, scores, size, hide),
                    DType::BF16 => {
                        mask.apply(at, scores, size, |x, m: bf16| add(x, wide(m.widen())))
                    }
                    DType::F16 => mask.apply(at, scores, size, |x, m: f16| add(x, wide(m.widen()))),
                    _ => mask.apply(at, scores, size, add),
                }
            }
        }
        T::from_f64(1.0)
    }
}

impl Mask {
    /// Changes every score of a block by the mask's element for it.
    #[inline(always)]
    unsafe fn apply<T: Copy, M: Copy>(
        &self,
        at: isize,
        scores: &mut [T],
        [row, queries]: [usize; 2],
        change: impl Fn(T, M) -> T,
    ) {
        let [_, _, query, key] = self.strides;
        for (j, row) in scores.chunks_exact_mut(row).enumerate() {
            // SAFETY: passed on.
            unsafe {
                let from = self.data.cast::<M>().offset(at + j as isize * key);
                for (i, x) in row.iter_mut().enumerate().take(queries) {
                    *x = change(*x, from.offset(i as isize * query).read());
                }
            }
        }
    }
}

/// The gradient of a mask that is added, to be written.
#[derive(Clone, Copy, Debug)]
pub struct MaskGradient {
    /// Where.
    pub to: Written,
    /// Its shape; each dimension is 1 or that of [batch, query heads, queries, keys].
    pub shape: [usize; 4],
}

/// A problem seen from several threads.
struct Shared<'a>(&'a Attention<'a>, &'a Backward, &'a MaskGradient);

// SAFETY: inputs are only read; every task writes its own elements of the gradient, by
// `attention_backward`'s contract.
unsafe impl Sync for Shared<'_> {}

/// Computes the gradient of a mask. A task owns a block of its elements, and sums over what the
/// mask repeats along in order; scores are computed once more for that.
pub(super) fn gradient<L: Level, D: Products<E>, E: Stored<Value<D>>>(
    pool: &Pool,
    problem: &Attention<'_>,
    tensors: &Backward,
    dmask: &MaskGradient,
) {
    let sizes = [problem.batch, problem.query_heads, problem.queries, problem.keys];
    let tasks: [usize; 4] = std::array::from_fn(|d| match (dmask.shape[d], d) {
        (1, _) => 1,
        (n, 0 | 1) => n,
        (n, _) => n.div_ceil(SIDE),
    });
    let shared = Shared(problem, tensors, dmask);
    pool.run(tasks.iter().product(), &|task, worker| {
        let Shared(problem, tensors, dmask) = &shared;
        let [_, t1, t2, t3] = tasks;
        let at = [task / (t1 * t2 * t3), task / (t2 * t3) % t1, task / t3 % t2, task % t3];
        // What the task sums over: one index or block of a dimension, or all of it.
        let ranges: [Range<usize>; 4] = std::array::from_fn(|d| match (dmask.shape[d], d) {
            (1, _) => 0..sizes[d],
            (_, 0 | 1) => at[d]..at[d] + 1,
            (n, _) => at[d] * SIDE..((at[d] + 1) * SIDE).min(n),
        });
        let part = Part { problem, tensors, dmask, ranges };
        // SAFETY: `attention_backward`'s contract; the machine has `L`.
        unsafe { part.run::<L, D, E>(pool, worker) };
    });
}

/// A block of the gradient.
struct Part<'a> {
    problem: &'a Attention<'a>,
    tensors: &'a Backward,
    dmask: &'a MaskGradient,
    /// Along [batch, query heads, queries, keys].
    ranges: [Range<usize>; 4],
}

impl Part<'_> {
    unsafe fn run<L, D, E>(&self, pool: &Pool, worker: usize)
    where
        L: Level,
        D: Products<E>,
        E: Stored<Value<D>>,
    {
        let p = self.problem;
        let [batches, heads, all_queries, all_keys] = self.ranges.clone();
        let mut carve = Carve::new();
        let operands = Operands::<D>::reserve(&mut carve, p, SIDE, false);
        let sums = carve.take::<Value<D>>(SIDE * SIDE);
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            // SAFETY: the scratch has the room that was reserved.
            let mut operands = unsafe { operands.at(base) };
            let sums = base.wrapping_add(sums).cast::<Value<D>>();
            // SAFETY: room was reserved for them.
            let sums = unsafe {
                sums.write_bytes(0, SIDE * SIDE);
                std::slice::from_raw_parts_mut(sums, SIDE * SIDE)
            };
            for (batch, head) in batches.flat_map(|b| heads.clone().map(move |h| (b, h))) {
                let valid = all_keys.start..all_keys.end.min(p.length(batch)).max(all_keys.start);
                for keys in blocks(valid) {
                    let key_heads = [batch, head / p.group()];
                    // SAFETY: passed on; room was reserved for blocks.
                    unsafe { operands.keys::<L, E>(p, self.tensors, key_heads, keys.clone()) };
                    for queries in blocks(all_queries.clone()).filter(|q| p.meet(q, &keys)) {
                        let heads = [batch, head];
                        // SAFETY: as above.
                        let block = unsafe {
                            operands.queries::<L, E>(p, self.tensors, heads, queries.clone());
                            L::call(Scores {
                                problem: p,
                                heads,
                                operands: &operands,
                                keys: keys.clone(),
                                queries: queries.clone(),
                                of_products: false,
                            });
                            std::slice::from_raw_parts(operands.dscores, keys.len() * SIDE)
                        };
                        self.add(sums, block, queries.len());
                    }
                }
            }
            // SAFETY: passed on.
            unsafe { self.write::<E, Value<D>>(sums) };
        });
    }

    /// Writes the task's elements.
    unsafe fn write<E: Stored<T>, T: Copy>(&self, sums: &[T]) {
        let [.., query, key] = self.dmask.to.strides;
        let strides = self.dmask.to.strides.iter().zip(&self.ranges);
        let first: isize = strides.map(|(s, r)| s * r.start as isize).sum();
        let [rows, columns] = [3, 2].map(|d| self.owned(d));
        for (j, row) in sums.chunks_exact(SIDE).enumerate().take(rows) {
            for (i, &x) in row.iter().enumerate().take(columns) {
                let at = first + j as isize * key + i as isize * query;
                // SAFETY: passed on; the elements are this task's own.
                unsafe { self.dmask.to.data.cast::<E>().offset(at).write(E::narrow(x)) };
            }
        }
    }

    /// Elements of the gradient that the task has along a dimension.
    fn owned(&self, d: usize) -> usize {
        if self.dmask.shape[d] == 1 { 1 } else { self.ranges[d].len() }
    }

    /// Adds a block of gradients of scores, keys × queries, where the mask has them.
    fn add<T: Number>(&self, sums: &mut [T], block: &[T], queries: usize) {
        let [once, same] = [3, 2].map(|d| self.dmask.shape[d] == 1);
        for (j, row) in block.chunks_exact(SIDE).enumerate() {
            let to = if once { 0 } else { j * SIDE };
            for (i, &x) in row.iter().enumerate().take(queries) {
                let sum = &mut sums[to + if same { 0 } else { i }];
                *sum = *sum + x;
            }
        }
    }
}
