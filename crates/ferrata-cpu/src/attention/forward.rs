//! The forward computation over blocks.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, Head, HeadMut, Layout, Product, SIDE, blocks, head, head_mut, pack_features,
    pack_positions, packed_size,
};
use super::{Attention, Forward, Vector, few};
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;
use crate::pool::Pool;

/// Tasks that a problem is cut into, at least, where it is long enough.
const TASKS: usize = 32;

/// A problem seen from several threads.
struct Shared<'a>(&'a Attention<'a>, &'a Forward);

// SAFETY: inputs are only read; every task writes its own queries, by `attention`'s contract.
unsafe impl Sync for Shared<'_> {}

/// Computes attention on the pool. The machine has `L` (the caller runs at it).
pub fn run<L: Level, V: Vector>(pool: &Pool, problem: &Attention<'_>, tensors: &Forward) {
    let heads = problem.batch * problem.key_heads;
    if heads == 0 || problem.queries == 0 {
        return;
    }
    if few::applies(problem) {
        few::run::<L, V>(pool, problem, tensors);
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
        let task = Task::<L, V> {
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
struct Task<'a, L, V> {
    problem: &'a Attention<'a>,
    tensors: &'a Forward,
    batch: usize,
    key_head: usize,
    queries: Range<usize>,
    types: PhantomData<(L, V)>,
}

impl<L: Level, V: Vector> Task<'_, L, V> {
    fn run(&self, pool: &Pool, worker: usize) {
        let p = self.problem;
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let keys = p.visible_keys(&self.queries, p.length(self.batch));
        // Panels start at multiples of a block.
        let keys = keys.start / SIDE * SIDE..keys.end;
        let mut carve = Carve::new();
        let k_at = carve.take::<V::Elem>(packed_size(keys.len(), p.features, mr));
        let v_at = carve.take::<V::Elem>(packed_size(p.value_features, keys.len(), nr));
        let q_at = carve.take::<V::Elem>(packed_size(SIDE, p.features, nr));
        let scores_at = carve.take::<V::Elem>(SIDE * SIDE);
        let ld = p.value_features.next_multiple_of(nr);
        let sums_at = carve.take::<V::Elem>(SIDE * ld);
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let at = |offset: usize| base.wrapping_add(offset).cast::<V::Elem>();
            let (k, v) = (at(k_at), at(v_at));
            let key_head: Head<V::Elem> = head(&self.tensors.k, self.batch, self.key_head);
            let value_head: Head<V::Elem> = head(&self.tensors.v, self.batch, self.key_head);
            // SAFETY: `attention`'s contract; the scratch has room for what is packed.
            unsafe {
                pack_positions::<L, _>(key_head, keys.clone(), p.features, mr, k);
                pack_features::<L, _>(value_head, keys.clone(), p.value_features, nr, v);
            }
            for i in 0..p.group() {
                let query_head = self.key_head * p.group() + i;
                for queries in blocks(self.queries.clone()) {
                    let (q, scores, sums) = (at(q_at), at(scores_at), at(sums_at));
                    let from: Head<V::Elem> = head(&self.tensors.q, self.batch, query_head);
                    let row = (self.batch * p.query_heads + query_head) * p.queries;
                    let lse = self.tensors.lse.cast::<V::Elem>();
                    // SAFETY: as above; the block's queries are this task's alone.
                    unsafe {
                        pack_positions::<L, _>(from, queries.clone(), p.features, nr, q);
                        L::call(Block::<V> {
                            problem: p,
                            length: p.length(self.batch),
                            packed: keys.clone(),
                            queries: queries.clone(),
                            k,
                            v,
                            q,
                            scores: std::slice::from_raw_parts_mut(scores, SIDE * SIDE),
                            sums,
                            ld,
                            out: head_mut(&self.tensors.out, self.batch, query_head),
                            lse: if lse.is_null() { lse } else { lse.add(row + queries.start) },
                        });
                    }
                }
            }
        });
    }
}

/// A block of queries against all their keys.
struct Block<'a, V: Vector> {
    problem: &'a Attention<'a>,
    length: usize,
    /// The keys that are packed.
    packed: Range<usize>,
    queries: Range<usize>,
    k: *const V::Elem,
    v: *const V::Elem,
    q: *const V::Elem,
    /// Scores: keys × `SIDE` queries.
    scores: &'a mut [V::Elem],
    /// Sums of values: queries × `ld`.
    sums: *mut V::Elem,
    ld: usize,
    out: HeadMut<V::Elem>,
    lse: *mut V::Elem,
}

/// The softmax of every query of a block so far.
struct Softmax<T> {
    /// The largest score.
    largest: [T; SIDE],
    /// The sum of the exponentials of scores less the largest.
    sum: [T; SIDE],
}

impl<V: Vector> Kernel for Block<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(mut self) {
        let zero = V::Elem::default();
        let mut softmax =
            Softmax { largest: [V::Elem::from_f64(f64::NEG_INFINITY); SIDE], sum: [zero; SIDE] };
        // SAFETY: the sums have a row of `ld` for each of `SIDE` queries.
        unsafe { self.sums.write_bytes(0, SIDE * self.ld) };
        let visible = self.problem.visible_keys(&self.queries, self.length);
        for keys in blocks(visible.start / SIDE * SIDE..visible.end) {
            self.add::<L>(keys, &mut softmax);
        }
        self.finish::<L>(&softmax);
    }
}

impl<V: Vector> Block<'_, V> {
    /// Adds some keys.
    #[inline(always)]
    fn add<L: Level>(&mut self, keys: Range<usize>, softmax: &mut Softmax<V::Elem>) {
        let p = self.problem;
        let nr = V::TILE_VECTORS * V::LANES;
        let first = keys.start - self.packed.start;
        let infinite = V::Elem::from_f64(f64::NEG_INFINITY);
        // SAFETY: packed panels and buffers have the sizes that the task reserved; the machine
        // has `L`, as this runs at it.
        unsafe {
            L::call(Product::<V> {
                rows: keys.len(),
                columns: self.queries.len(),
                depth: p.features,
                a: self.k.add(first * p.features),
                layout: Layout::Packed,
                b: self.q,
                b_panel: p.features * nr,
                c: self.scores.as_mut_ptr(),
                ld: SIDE,
                accumulate: false,
            });
            let scores = &mut self.scores[..keys.len() * SIDE];
            scale_scores::<L, V::Elem>(p, scores);
            if !p.sees_all(&self.queries, &keys) {
                p.mask(scores, &self.queries, &keys, infinite);
            }
            let factors = softmax.add::<L>(scores);
            for (i, &factor) in factors.iter().enumerate().take(self.queries.len()) {
                let row = std::slice::from_raw_parts_mut(self.sums.add(i * self.ld), self.ld);
                for x in row {
                    *x = *x * factor;
                }
            }
            L::call(Product::<V> {
                rows: self.queries.len(),
                columns: p.value_features,
                depth: keys.len(),
                a: self.scores.as_ptr(),
                layout: Layout::Columns,
                b: self.v.add(first * nr),
                b_panel: self.packed.len() * nr,
                c: self.sums,
                ld: self.ld,
                accumulate: true,
            });
        }
    }

    /// Writes the output and the logarithms.
    #[inline(always)]
    fn finish<L: Level>(&self, softmax: &Softmax<V::Elem>) {
        let zero = V::Elem::default();
        for (i, query) in self.queries.clone().enumerate() {
            let sum = softmax.sum[i];
            let factor = if sum == zero { zero } else { V::Elem::from_f64(1.0) / sum };
            // SAFETY: this query's row of the sums and of the output.
            unsafe {
                let row = self.sums.add(i * self.ld);
                let out = self.out.data.offset(query as isize * self.out.position);
                for j in 0..self.problem.value_features {
                    out.offset(j as isize * self.out.feature).write(*row.add(j) * factor);
                }
                if !self.lse.is_null() {
                    self.lse.add(i).write(softmax.largest[i] + sum.log::<L>());
                }
            }
        }
    }
}

/// Scales scores, and caps them.
#[inline(always)]
pub fn scale_scores<L: Level, T: Math>(problem: &Attention<'_>, scores: &mut [T]) {
    let scale = T::from_f64(problem.scale);
    match problem.softcap {
        None => {
            for x in scores {
                *x = *x * scale;
            }
        }
        Some(cap) => {
            let (scale, cap) = (T::from_f64(problem.scale / cap), T::from_f64(cap));
            for x in scores {
                *x = cap * (*x * scale).tanh::<L>();
            }
        }
    }
}

impl<T: Math> Softmax<T> {
    /// Adds rows of scores, which become exponentials; what earlier sums must be multiplied with.
    #[inline(always)]
    fn add<L: Level>(&mut self, scores: &mut [T]) -> [T; SIDE] {
        let mut largest = self.largest;
        for row in scores.chunks_exact(SIDE) {
            for (m, &x) in largest.iter_mut().zip(row) {
                *m = if x > *m { x } else { *m };
            }
        }
        let infinite = T::from_f64(f64::NEG_INFINITY);
        let mut base = largest;
        for m in &mut base {
            // Queries that have seen nothing yet: -∞ less itself would be NaN.
            *m = if *m == infinite { T::default() } else { *m };
        }
        let mut factors = [T::default(); SIDE];
        for ((f, &old), &m) in factors.iter_mut().zip(&self.largest).zip(&base) {
            *f = (old - m).exp::<L>();
        }
        for (sum, &f) in self.sum.iter_mut().zip(&factors) {
            *sum = *sum * f;
        }
        for row in scores.chunks_exact_mut(SIDE) {
            for ((x, &m), sum) in row.iter_mut().zip(&base).zip(&mut self.sum) {
                let e = (*x - m).exp::<L>();
                *x = e;
                *sum = *sum + e;
            }
        }
        self.largest = largest;
        factors
    }
}
