//! The gradients, from the forward output and logarithms.
//!
//! A task owns some keys of one key head. It walks all query blocks that see them, recomputes
//! their probabilities, and adds to the gradients of its keys and values, and to the queries' in
//! a buffer of its own; the buffers of the tasks of one head are summed in order at the end.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, HeadMut, Layout, Product, SIDE, beyond, blocks, head_mut, within, write_row,
};
use super::scores::{Operands, Scores};
use super::{Attention, Backward, Number, Vector, mask};
use crate::gemm::Stored;
use crate::isa::{Kernel, Level};
use crate::pool::Pool;

/// Tasks that a problem is cut into, at least, where it is long enough.
const TASKS: usize = 16;

/// A problem seen from several threads, and the gradients of the queries by part.
struct Shared<'a, T>(&'a Attention<'a>, &'a Backward, *mut T);

// SAFETY: inputs are only read; every task writes its own keys and its own part of the buffer, by
// `attention_backward`'s contract.
unsafe impl<T> Sync for Shared<'_, T> {}

/// Computes the gradients on the pool, on elements `E` in memory. The machine has `L` (the caller
/// runs at it).
pub fn run<L: Level, V: Vector, E: Stored<V::Elem>>(
    pool: &Pool,
    problem: &Attention<'_>,
    tensors: &Backward,
) {
    let heads = problem.batch * problem.key_heads;
    if heads == 0 {
        return;
    }
    let parts = TASKS.div_ceil(heads).min(problem.keys.div_ceil(SIDE)).max(1);
    let part = problem.keys.div_ceil(parts).next_multiple_of(SIDE);
    // For every part the gradients of the queries of all heads of the group.
    let rows = problem.group() * problem.queries;
    let size = rows * problem.features;
    let bytes = heads * parts * size * size_of::<V::Elem>();
    pool.with_scratch(pool.worker(), bytes, |scratch| {
        let shared = Shared(problem, tensors, scratch.as_mut_ptr::<V::Elem>());
        pool.run(heads * parts, &|task, worker| {
            let Shared(problem, tensors, sums) = &shared;
            let (at, index) = (task / parts, task % parts);
            let keys = index * part..((index + 1) * part).min(problem.keys);
            let task = Task::<L, V, E> {
                problem,
                tensors,
                batch: at / problem.key_heads,
                key_head: at % problem.key_heads,
                keys: keys.start.min(keys.end)..keys.end,
                // SAFETY: the buffer has `size` elements for every task.
                dq: unsafe { sums.add(task * size) },
                types: PhantomData,
            };
            task.run(pool, worker);
        });
        let shared = &shared;
        pool.run(heads * problem.group(), &|row, _| {
            let Shared(problem, tensors, sums) = shared;
            let (at, i) = (row / problem.group(), row % problem.group());
            let (batch, key_head) = (at / problem.key_heads, at % problem.key_heads);
            let out = head_mut::<E>(&tensors.dq, batch, key_head * problem.group() + i);
            let (positions, features) = (problem.queries, problem.features);
            // SAFETY: the parts of this head, and its part of the output.
            unsafe {
                let first = sums.add(at * parts * size + i * positions * features);
                L::call(Sum { out, first, parts, stride: size, positions, features });
            }
        });
    });
    if let Some(dmask) = &tensors.dmask {
        mask::gradient::<L, V, E>(pool, problem, tensors, dmask);
    }
}

/// Sums the parts of one head's gradient.
struct Sum<E, T> {
    out: HeadMut<E>,
    first: *const T,
    parts: usize,
    /// Elements from one part to the next.
    stride: usize,
    positions: usize,
    features: usize,
}

impl<E: Stored<T>, T: Number> Kernel for Sum<E, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        /// Features that are summed together.
        const CHUNK: usize = 32;
        for i in 0..self.positions {
            for start in (0..self.features).step_by(CHUNK) {
                let count = CHUNK.min(self.features - start);
                // SAFETY: `run`'s tasks give buffers of these sizes.
                unsafe {
                    let at = self.first.add(i * self.features + start);
                    let mut sums = [T::default(); CHUNK];
                    for part in 0..self.parts {
                        let from = at.add(part * self.stride);
                        if count == CHUNK {
                            for (j, sum) in sums.iter_mut().enumerate() {
                                *sum = *sum + from.add(j).read();
                            }
                        } else {
                            for (j, sum) in sums.iter_mut().enumerate().take(count) {
                                *sum = *sum + from.add(j).read();
                            }
                        }
                    }
                    let step = self.out.feature;
                    let to = i as isize * self.out.position + start as isize * step;
                    write_row(self.out.data.offset(to), step, count, |j| sums[j]);
                }
            }
        }
    }
}

/// Some keys of one key head.
struct Task<'a, L, V: Vector, E> {
    problem: &'a Attention<'a>,
    tensors: &'a Backward,
    batch: usize,
    key_head: usize,
    keys: Range<usize>,
    /// This part's gradients of the queries of the group's heads.
    dq: *mut V::Elem,
    types: PhantomData<(L, V, E)>,
}

impl<L: Level, V: Vector, E: Stored<V::Elem>> Task<'_, L, V, E> {
    fn run(&self, pool: &Pool, worker: usize) {
        let p = self.problem;
        let (features, values) = (p.features, p.value_features);
        let length = p.length(self.batch);
        let valid = self.keys.start..self.keys.end.min(length).max(self.keys.start);
        // The queries that see any of them, from the start of a block on.
        let seeing = if valid.is_empty() { 0..0 } else { p.seeing_queries(&valid) };
        let seeing = seeing.start.min(p.queries)..seeing.end.min(p.queries);
        let queries = seeing.start / SIDE * SIDE..seeing.end;
        let mut carve = Carve::new();
        let operands = Operands::<V>::reserve::<E>(&mut carve, p, valid.len(), queries.len(), true);
        let dk = carve.take::<V::Elem>(self.keys.len() * features);
        let dv = carve.take::<V::Elem>(self.keys.len() * values);
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let [dk, dv] = [dk, dv].map(|at| base.wrapping_add(at).cast::<V::Elem>());
            let mut operands = operands.at(base);
            // SAFETY: `attention_backward`'s contract; the scratch has room for all of this.
            unsafe {
                dk.write_bytes(0, self.keys.len() * features);
                dv.write_bytes(0, self.keys.len() * values);
                self.dq.write_bytes(0, p.group() * p.queries * features);
                operands.keys::<L, E>(p, self.tensors, [self.batch, self.key_head], valid.clone());
                for i in 0..p.group() {
                    let heads = [self.batch, self.key_head * p.group() + i];
                    operands.queries::<L, E>(p, self.tensors, heads, queries.clone());
                    for keys in blocks(valid.clone()) {
                        let first = keys.start - self.keys.start;
                        for queries in blocks(queries.clone()) {
                            if !p.meet(&queries, &keys) {
                                continue;
                            }
                            L::call(Block {
                                scores: Scores {
                                    problem: p,
                                    heads,
                                    operands: &operands,
                                    keys: keys.clone(),
                                    queries,
                                    of_products: true,
                                },
                                dk: dk.add(first * features),
                                dv: dv.add(first * values),
                                dq: self.dq.add(i * p.queries * features),
                            });
                        }
                    }
                }
                self.write(head_mut(&self.tensors.dk, self.batch, self.key_head), dk, features);
                self.write(head_mut(&self.tensors.dv, self.batch, self.key_head), dv, values);
            }
        });
    }

    /// Writes the gradient of the task's keys or values.
    unsafe fn write(&self, to: HeadMut<E>, from: *const V::Elem, features: usize) {
        let start = self.keys.start as isize * to.position;
        let out = HeadMut { data: to.data.wrapping_offset(start), ..to };
        let positions = self.keys.len();
        // SAFETY: the task's own positions.
        unsafe {
            L::call(Sum { out, first: from, parts: 1, stride: 0, positions, features });
        }
    }
}

/// A block of keys and queries.
struct Block<'a, V: Vector> {
    scores: Scores<'a, V>,
    /// Gradients of the block's keys and values.
    dk: *mut V::Elem,
    dv: *mut V::Elem,
    /// Gradients of the head's queries, from the first on.
    dq: *mut V::Elem,
}

impl<V: Vector> Kernel for Block<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Scores { problem: p, operands: b, .. } = self.scores;
        let (keys, queries) = (&self.scores.keys.clone(), &self.scores.queries.clone());
        let nr = V::TILE_VECTORS * V::LANES;
        let (first, query) = (keys.start - b.keys.start, queries.start - b.queries.start);
        let vector = PhantomData::<V>;
        let seeing = |rows| within(&p.seeing_queries(&beyond(rows, keys)), queries);
        // SAFETY: the task's buffers have room for every block; the machine has `L`.
        unsafe {
            L::call(self.scores);
            // Gradients of values and keys: keys × features, over queries.
            let by_keys = |columns: usize, a: *const V::Elem, right: *const V::Elem, c| {
                L::call(Product {
                    rows: keys.len(),
                    columns,
                    depth: queries.len(),
                    a,
                    layout: Layout::Rows,
                    b: right.add(query * nr),
                    b_panel: b.queries.len() * nr,
                    c,
                    ld: columns,
                    needed: seeing,
                    vector,
                });
            };
            by_keys(p.value_features, b.scores, b.dout_features, self.dv);
            by_keys(p.features, b.dscores, b.q_features, self.dk);
            L::call(Product {
                rows: queries.len(),
                columns: p.features,
                depth: keys.len(),
                a: b.dscores,
                layout: Layout::Columns,
                b: b.k_features.add(first * nr),
                b_panel: b.keys.len() * nr,
                c: self.dq.add(queries.start * p.features),
                ld: p.features,
                needed: |rows| within(&p.visible_keys(&beyond(rows, queries), b.keys.end), keys),
                vector,
            });
        }
    }
}
