//! The forward computation over blocks.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, Head, HeadMut, Layout, Product, SIDE, STRIP, beyond, blocks, grouped, head, head_mut,
    operand, operand_size, pack_features, pack_positions, packed_size, within, write_row,
};
use super::{Attention, Forward, Number, Products, Value, few};
use crate::gemm::Stored;
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;
use crate::pool::Pool;
use crate::simd::{Dot, Simd};

/// Tasks that a problem is cut into, at least, where it is long enough.
const TASKS: usize = 32;

/// A problem seen from several threads.
struct Shared<'a>(&'a Attention<'a>, &'a Forward);

// SAFETY: inputs are only read; every task writes its own queries, by `attention`'s contract.
unsafe impl Sync for Shared<'_> {}

/// Computes attention on the pool, on elements `E` in memory. The machine has `L` (the caller runs
/// at it).
pub fn run<L: Level, D: Products<E>, E: Stored<Value<D>>>(
    pool: &Pool,
    problem: &Attention<'_>,
    tensors: &Forward,
) {
    let heads = problem.batch * problem.key_heads;
    if heads == 0 || problem.queries == 0 {
        return;
    }
    if few::applies(problem) {
        few::run::<L, D::Acc, E>(pool, problem, tensors);
        return;
    }
    let parts = TASKS.div_ceil(heads).min(problem.queries.div_ceil(SIDE));
    let part = problem.queries.div_ceil(parts).next_multiple_of(SIDE);
    let shared = Shared(problem, tensors);
    pool.run(heads * parts, &|task, worker| {
        let Shared(problem, tensors) = &shared;
        let (at, index) = (task / parts, task % parts);
        let queries = index * part..((index + 1) * part).min(problem.queries);
        if queries.is_empty() {
            return;
        }
        let task = Task::<L, D, E> {
            problem,
            tensors,
            batch: at / problem.key_heads,
            key_head: at % problem.key_heads,
            queries,
            types: PhantomData,
        };
        task.run(pool, worker);
    });
}

/// Some queries of the heads that share a key head.
struct Task<'a, L, D, E> {
    problem: &'a Attention<'a>,
    tensors: &'a Forward,
    batch: usize,
    key_head: usize,
    queries: Range<usize>,
    types: PhantomData<(L, D, E)>,
}

impl<L: Level, D: Products<E>, E: Stored<Value<D>>> Task<'_, L, D, E> {
    fn run(&self, pool: &Pool, worker: usize) {
        let p = self.problem;
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let keys = p.visible_keys(&self.queries, p.length(self.batch));
        // Panels start at multiples of a block.
        let keys = keys.start / SIDE * SIDE..keys.end;
        let mut carve = Carve::new();
        let k_at = carve.take::<D::Left>(packed_size::<D>(keys.len(), p.features, mr));
        let v_at = carve.take::<D::Right>(packed_size::<D>(p.value_features, keys.len(), nr));
        let q_at = carve.take::<D::Right>(packed_size::<D>(SIDE, p.features, nr));
        let scores_at = carve.take::<Value<D>>(SIDE * SIDE);
        let operand_at = carve.take::<D::Left>(operand_size::<D>());
        let ld = p.value_features.next_multiple_of(nr);
        let sums_at = carve.take::<Value<D>>(SIDE * ld);
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let at = |offset: usize| base.wrapping_add(offset);
            let (k, v, q) = (at(k_at).cast(), at(v_at).cast(), at(q_at).cast());
            let (scores, sums) = (at(scores_at).cast(), at(sums_at).cast());
            // Scores beyond the last query are computed with and go nowhere, but are read.
            // SAFETY: the scratch has room for them.
            unsafe { std::ptr::write_bytes::<Value<D>>(scores, 0, SIDE * SIDE) };
            let key_head: Head<E> = head(&self.tensors.k, self.batch, self.key_head);
            let value_head: Head<E> = head(&self.tensors.v, self.batch, self.key_head);
            // SAFETY: `attention`'s contract; the scratch has room for what is packed.
            unsafe {
                pack_positions::<L, D, E, D::Left>(key_head, &keys, p.features, mr, k);
                pack_features::<L, D, E, D::Right>(value_head, &keys, p.value_features, nr, v);
            }
            for i in 0..p.group() {
                let query_head = self.key_head * p.group() + i;
                for queries in blocks(self.queries.clone()) {
                    let from: Head<E> = head(&self.tensors.q, self.batch, query_head);
                    // SAFETY: as above; the block's queries are this task's alone.
                    unsafe {
                        pack_positions::<L, D, E, D::Right>(from, &queries, p.features, nr, q);
                        L::call(Block::<D, E> {
                            problem: p,
                            batch: self.batch,
                            query_head,
                            packed: keys.clone(),
                            queries: queries.clone(),
                            k,
                            v,
                            q,
                            scores: std::slice::from_raw_parts_mut(scores, SIDE * SIDE),
                            operand: at(operand_at).cast(),
                            sums,
                            ld,
                            out: head_mut(&self.tensors.out, self.batch, query_head),
                            lse: self.tensors.lse.map(|t| head_mut(&t, self.batch, query_head)),
                        });
                    }
                }
            }
        });
    }
}

/// A block of queries against all their keys.
struct Block<'a, D: Dot, E> {
    problem: &'a Attention<'a>,
    batch: usize,
    query_head: usize,
    /// The keys that are packed.
    packed: Range<usize>,
    queries: Range<usize>,
    k: *const D::Left,
    v: *const D::Right,
    q: *const D::Right,
    /// Scores: keys × `SIDE` queries.
    scores: &'a mut [Value<D>],
    /// Room for them as an operand.
    operand: *mut D::Left,
    /// Sums of values: queries × `ld`.
    sums: *mut Value<D>,
    ld: usize,
    out: HeadMut<E>,
    lse: Option<HeadMut<Value<D>>>,
}

impl<D: Products<E>, E: Stored<Value<D>>> Kernel for Block<'_, D, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(mut self) {
        let zero = Value::<D>::default();
        let mut softmax =
            Softmax { largest: [Value::<D>::from_f64(f64::NEG_INFINITY); SIDE], sum: [zero; SIDE] };
        // SAFETY: the sums have a row of `ld` for each of `SIDE` queries.
        unsafe { self.sums.write_bytes(0, SIDE * self.ld) };
        let length = self.problem.length(self.batch);
        let visible = self.problem.visible_keys(&self.queries, length);
        for keys in blocks(visible.start / SIDE * SIDE..visible.end) {
            self.add::<L>(keys, length, &mut softmax);
        }
        self.finish::<L>(&softmax);
    }
}

impl<D: Products<E>, E: Stored<Value<D>>> Block<'_, D, E> {
    /// Adds some keys.
    #[inline(always)]
    fn add<L: Level>(
        &mut self,
        keys: Range<usize>,
        length: usize,
        softmax: &mut Softmax<Value<D>>,
    ) {
        let p = self.problem;
        let nr = D::Acc::TILE_VECTORS * D::Acc::LANES;
        let first = keys.start - self.packed.start;
        let queries = self.queries.clone();
        // SAFETY: packed panels and buffers have the sizes that the task reserved; the machine
        // has `L`, as this runs at it.
        unsafe {
            L::call(Product::<D, _> {
                rows: keys.len(),
                columns: queries.len(),
                depth: p.features,
                a: self.k.add(first * grouped::<D>(p.features)),
                layout: Layout::Packed,
                b: self.q,
                b_depth: p.features,
                c: self.scores.as_mut_ptr(),
                ld: SIDE,
                needed: |rows| within(&p.seeing_queries(&beyond(rows, &keys)), &queries),
            });
            let scores = &mut self.scores[..keys.len() * SIDE];
            let heads = [self.batch, self.query_head];
            let factor =
                p.finish_scores::<L, Value<D>>((&mut *scores, SIDE), heads, &queries, &keys);
            let infinite = Value::<D>::from_f64(f64::NEG_INFINITY);
            p.hide(scores, &queries, &keys, infinite);
            let factors = softmax.add::<L>(scores, queries.len(), factor);
            let one = Value::<D>::from_f64(1.0);
            let smaller =
                factors.iter().enumerate().take(queries.len()).filter(|(_, f)| **f != one);
            for (i, &factor) in smaller {
                let row = std::slice::from_raw_parts_mut(self.sums.add(i * self.ld), self.ld);
                for x in row {
                    *x = *x * factor;
                }
            }
            let size = [keys.len(), queries.len()];
            let layout = Layout::Columns;
            L::call(Product::<D, _> {
                rows: queries.len(),
                columns: p.value_features,
                depth: keys.len(),
                a: operand::<L, D>(self.scores.as_ptr(), size, layout, self.operand),
                layout,
                b: self.v.add(first * nr),
                b_depth: self.packed.len(),
                c: self.sums,
                ld: self.ld,
                needed: |rows| within(&p.visible_keys(&beyond(rows, &queries), length), &keys),
            });
        }
    }

    /// Writes the output and the logarithms.
    #[inline(always)]
    fn finish<L: Level>(&self, softmax: &Softmax<Value<D>>) {
        let zero = Value::<D>::default();
        let unit = Value::<D>::from_f64(std::f64::consts::LN_2);
        for (i, query) in self.queries.clone().enumerate() {
            let sum = softmax.sum[i];
            let factor = if sum == zero { zero } else { Value::<D>::from_f64(1.0) / sum };
            // SAFETY: this query's row of the sums and of the output.
            unsafe {
                let row = self.sums.add(i * self.ld);
                let out = self.out.data.offset(query as isize * self.out.position);
                let value = |j: usize| row.add(j).read() * factor;
                write_row(out, self.out.feature, self.problem.value_features, value);
                if let Some(lse) = &self.lse {
                    let to = lse.data.offset(query as isize * lse.position);
                    to.write(L::mul_add(softmax.largest[i], unit, sum.log::<L>()));
                }
            }
        }
    }
}

/// The softmax of every query of a block so far, to the base 2.
struct Softmax<T> {
    /// The largest score.
    largest: [T; SIDE],
    /// The sum of the exponentials of scores less the largest.
    sum: [T; SIDE],
}

impl<T: Number> Softmax<T> {
    /// Adds rows of scores of so many queries, which are still to be multiplied by `factor` and
    /// become exponentials; what earlier sums must be multiplied with.
    #[inline(always)]
    fn add<L: Level>(&mut self, scores: &mut [T], queries: usize, factor: T) -> [T; SIDE] {
        let infinite = T::from_f64(f64::NEG_INFINITY);
        let top = largest(scores);
        let mut factors = [T::default(); SIDE];
        for start in (0..queries).step_by(STRIP) {
            let mut base = [T::default(); STRIP];
            let mut sums = base;
            for i in 0..STRIP {
                let (x, old) = (top[start + i] * factor, self.largest[start + i]);
                let largest = larger(x, old);
                // Queries that have seen nothing yet: -∞ less itself would be NaN.
                base[i] = if largest == infinite { T::default() } else { largest };
                let kept = (old - base[i]).decay::<L>();
                factors[start + i] = kept;
                sums[i] = self.sum[start + i] * kept;
                self.largest[start + i] = largest;
            }
            for row in scores.chunks_exact_mut(SIDE) {
                let row = &mut row[start..start + STRIP];
                for ((x, &b), sum) in row.iter_mut().zip(&base).zip(&mut sums) {
                    let e = L::mul_add(*x, factor, -b).decay::<L>();
                    *x = e;
                    *sum = *sum + e;
                }
            }
            self.sum[start..start + STRIP].copy_from_slice(&sums);
        }
        factors
    }
}

/// The larger number; the second if either is NaN.
#[inline(always)]
fn larger<T: PartialOrd>(x: T, y: T) -> T {
    if x > y { x } else { y }
}

/// The largest score of every query, four keys at a time so that little goes through memory.
#[inline(always)]
fn largest<T: Number>(scores: &[T]) -> [T; SIDE] {
    let mut top = [T::from_f64(f64::NEG_INFINITY); SIDE];
    let fours = scores.chunks_exact(4 * SIDE);
    for row in fours.remainder().chunks_exact(SIDE) {
        for (m, &x) in top.iter_mut().zip(row) {
            *m = larger(x, *m);
        }
    }
    for four in fours {
        let (ab, cd) = four.split_at(2 * SIDE);
        let ((a, b), (c, d)) = (ab.split_at(SIDE), cd.split_at(SIDE));
        for ((((m, &a), &b), &c), &d) in top.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *m = larger(larger(larger(a, b), larger(c, d)), *m);
        }
    }
    top
}
