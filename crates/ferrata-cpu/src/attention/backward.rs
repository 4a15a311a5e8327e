//! The gradients, from the forward output and logarithms.
//!
//! A task owns some keys of one key head. It walks all query blocks that see them, recomputes
//! their probabilities, and adds to the gradients of its keys and values, and to the queries' in
//! a buffer of its own; the buffers of the tasks of one head are summed in order at the end.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, Head, HeadMut, Layout, Product, SIDE, blocks, head, head_mut, pack_features,
    pack_positions, packed_size,
};
use super::forward::scale_scores;
use super::{Attention, Backward, Vector};
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;
use crate::pool::Pool;

/// Tasks that a problem is cut into, at least, where it is long enough.
const TASKS: usize = 16;

/// A problem seen from several threads, and the gradients of the queries by part.
struct Shared<'a, T>(&'a Attention<'a>, &'a Backward, *mut T);

// SAFETY: inputs are only read; every task writes its own keys and its own part of the buffer, by
// `attention_backward`'s contract.
unsafe impl<T> Sync for Shared<'_, T> {}

/// Computes the gradients on the pool. The machine has `L` (the caller runs at it).
pub fn run<L: Level, V: Vector>(pool: &Pool, problem: &Attention<'_>, tensors: &Backward) {
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
            let task = Task::<L, V> {
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
            let out = head_mut(&tensors.dq, batch, key_head * problem.group() + i);
            let (positions, features) = (problem.queries, problem.features);
            // SAFETY: the parts of this head, and its part of the output.
            unsafe {
                let first = sums.add(at * parts * size + i * positions * features);
                L::call(Sum { out, first, parts, stride: size, positions, features });
            }
        });
    });
}

/// Sums the parts of one head's gradient.
struct Sum<T> {
    out: HeadMut<T>,
    first: *const T,
    parts: usize,
    /// Elements from one part to the next.
    stride: usize,
    positions: usize,
    features: usize,
}

impl<T: Real> Kernel for Sum<T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for i in 0..self.positions {
            for j in 0..self.features {
                // SAFETY: `run`'s tasks give buffers of these sizes.
                unsafe {
                    let at = self.first.add(i * self.features + j);
                    let mut sum = *at;
                    for part in 1..self.parts {
                        sum = sum + *at.add(part * self.stride);
                    }
                    let to = i as isize * self.out.position + j as isize * self.out.feature;
                    self.out.data.offset(to).write(sum);
                }
            }
        }
    }
}

/// Some keys of one key head.
struct Task<'a, L, V: Vector> {
    problem: &'a Attention<'a>,
    tensors: &'a Backward,
    batch: usize,
    key_head: usize,
    keys: Range<usize>,
    /// This part's gradients of the queries of the group's heads.
    dq: *mut V::Elem,
    types: PhantomData<(L, V)>,
}

/// Where everything of a task lies.
struct Buffers<T> {
    /// Keys and values as rows of left operands.
    k: *mut T,
    v: *mut T,
    /// Keys as a right operand whose columns are features.
    k_features: *mut T,
    /// Queries and output gradients as right operands, columns being positions.
    q: *mut T,
    dout: *mut T,
    /// The same, columns being features.
    q_features: *mut T,
    dout_features: *mut T,
    /// Per query: the logarithm, and the sum of output times its gradient.
    lse: *mut T,
    delta: *mut T,
    /// Blocks of keys × queries: probabilities, and gradients of scores.
    scores: *mut T,
    dscores: *mut T,
    /// Gradients of the task's keys and values.
    dk: *mut T,
    dv: *mut T,
}

impl<L: Level, V: Vector> Task<'_, L, V> {
    fn run(&self, pool: &Pool, worker: usize) {
        let p = self.problem;
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let (features, values) = (p.features, p.value_features);
        let length = p.length(self.batch);
        let valid = self.keys.start..self.keys.end.min(length).max(self.keys.start);
        // Query panels of positions start at multiples of a block.
        let queries = p.queries.next_multiple_of(SIDE);
        let mut carve = Carve::new();
        let mut take = |count: usize| carve.take::<V::Elem>(count);
        let offsets = [
            take(packed_size(valid.len(), features, mr)),
            take(packed_size(valid.len(), values, mr)),
            take(packed_size(features, valid.len(), nr)),
            take(packed_size(queries, features, nr)),
            take(packed_size(queries, values, nr)),
            take(packed_size(features, p.queries, nr)),
            take(packed_size(values, p.queries, nr)),
            take(queries),
            take(queries),
            take(SIDE * SIDE),
            take(SIDE * SIDE),
            take(self.keys.len() * features),
            take(self.keys.len() * values),
        ];
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let [k, v, k_features, q, dout, q_features, dout_features, lse, delta, s, ds, dk, dv] =
                offsets.map(|offset| base.wrapping_add(offset).cast::<V::Elem>());
            let b = Buffers {
                k,
                v,
                k_features,
                q,
                dout,
                q_features,
                dout_features,
                lse,
                delta,
                scores: s,
                dscores: ds,
                dk,
                dv,
            };
            // SAFETY: `attention_backward`'s contract; the scratch has room for all of this.
            unsafe {
                b.dk.write_bytes(0, self.keys.len() * features);
                b.dv.write_bytes(0, self.keys.len() * values);
                self.dq.write_bytes(0, p.group() * p.queries * features);
                let keys: Head<V::Elem> = head(&self.tensors.k, self.batch, self.key_head);
                let vals: Head<V::Elem> = head(&self.tensors.v, self.batch, self.key_head);
                pack_positions::<L, _>(keys, valid.clone(), features, mr, b.k);
                pack_positions::<L, _>(vals, valid.clone(), values, mr, b.v);
                pack_features::<L, _>(keys, valid.clone(), features, nr, b.k_features);
                for i in 0..p.group() {
                    self.head(&b, &valid, i);
                }
                let dk = head_mut(&self.tensors.dk, self.batch, self.key_head);
                let dv = head_mut(&self.tensors.dv, self.batch, self.key_head);
                self.write(dk, b.dk, features);
                self.write(dv, b.dv, values);
            }
        });
    }

    /// Writes the gradient of the task's keys or values.
    unsafe fn write(&self, to: HeadMut<V::Elem>, from: *const V::Elem, features: usize) {
        let start = self.keys.start as isize * to.position;
        let out = HeadMut { data: to.data.wrapping_offset(start), ..to };
        let positions = self.keys.len();
        // SAFETY: the task's own positions.
        unsafe {
            L::call(Sum { out, first: from, parts: 1, stride: 0, positions, features });
        }
    }

    /// Adds what the `i`th query head of the group gives.
    unsafe fn head(&self, b: &Buffers<V::Elem>, valid: &Range<usize>, i: usize) {
        let p = self.problem;
        let nr = V::TILE_VECTORS * V::LANES;
        let query_head = self.key_head * p.group() + i;
        let all = 0..p.queries;
        let q: Head<V::Elem> = head(&self.tensors.q, self.batch, query_head);
        let out: Head<V::Elem> = head(&self.tensors.out, self.batch, query_head);
        let dout: Head<V::Elem> = head(&self.tensors.dout, self.batch, query_head);
        // SAFETY: `run`'s buffers; `attention_backward`'s contract.
        unsafe {
            pack_positions::<L, _>(q, all.clone(), p.features, nr, b.q);
            pack_positions::<L, _>(dout, all.clone(), p.value_features, nr, b.dout);
            pack_features::<L, _>(q, all.clone(), p.features, nr, b.q_features);
            pack_features::<L, _>(dout, all.clone(), p.value_features, nr, b.dout_features);
            let row = (self.batch * p.query_heads + query_head) * p.queries;
            let lse = self.tensors.lse.cast::<V::Elem>().add(row);
            b.lse.copy_from_nonoverlapping(lse, p.queries);
            L::call(Delta {
                out,
                dout,
                to: b.delta,
                positions: p.queries,
                features: p.value_features,
            });
            for keys in blocks(valid.clone()) {
                for queries in blocks(all.clone()) {
                    let visible = p.visible_keys(&queries, valid.end);
                    if visible.end <= keys.start || visible.start >= keys.end {
                        continue;
                    }
                    L::call(Block::<V> {
                        problem: p,
                        valid: valid.clone(),
                        keys: keys.clone(),
                        queries,
                        buffers: b,
                        dk: b.dk.add((keys.start - self.keys.start) * p.features),
                        dv: b.dv.add((keys.start - self.keys.start) * p.value_features),
                        dq: self.dq.add(i * p.queries * p.features),
                    });
                }
            }
        }
    }
}

/// Per query, the sum of output times its gradient.
struct Delta<T> {
    out: Head<T>,
    dout: Head<T>,
    to: *mut T,
    positions: usize,
    features: usize,
}

impl<T: Real> Kernel for Delta<T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for i in 0..self.positions as isize {
            let mut sum = T::default();
            for j in 0..self.features as isize {
                // SAFETY: `attention_backward`'s contract.
                unsafe {
                    let x = *self.out.data.offset(i * self.out.position + j * self.out.feature);
                    let y = *self.dout.data.offset(i * self.dout.position + j * self.dout.feature);
                    sum = L::mul_add(x, y, sum);
                }
            }
            // SAFETY: `run`'s buffer has an element for every query.
            unsafe { self.to.add(i as usize).write(sum) };
        }
    }
}

/// A block of keys and queries.
struct Block<'a, V: Vector> {
    problem: &'a Attention<'a>,
    /// The keys that are packed.
    valid: Range<usize>,
    keys: Range<usize>,
    queries: Range<usize>,
    buffers: &'a Buffers<V::Elem>,
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
        let (p, b) = (self.problem, self.buffers);
        let nr = V::TILE_VECTORS * V::LANES;
        let (features, values) = (p.features, p.value_features);
        let (rows, columns) = (self.keys.len(), self.queries.len());
        let (first, query) = (self.keys.start - self.valid.start, self.queries.start);
        // SAFETY: the task's buffers have room for every block; the machine has `L`.
        unsafe {
            // Scores and the gradients of the probabilities: keys × queries.
            let positions =
                |depth: usize, a: *const V::Elem, b: *const V::Elem, c: *mut V::Elem| {
                    let (a, b) = (a.add(first * depth), b.add(query * depth));
                    let (layout, b_panel, ld) = (Layout::Packed, depth * nr, SIDE);
                    let accumulate = false;
                    L::call(Product::<V> {
                        rows,
                        columns,
                        depth,
                        a,
                        layout,
                        b,
                        b_panel,
                        c,
                        ld,
                        accumulate,
                    });
                };
            positions(features, b.k, b.q, b.scores);
            positions(values, b.v, b.dout, b.dscores);
            let scores = std::slice::from_raw_parts_mut(b.scores, rows * SIDE);
            let dscores = std::slice::from_raw_parts_mut(b.dscores, rows * SIDE);
            let lse = std::slice::from_raw_parts(b.lse.add(query), SIDE);
            let delta = std::slice::from_raw_parts(b.delta.add(query), SIDE);
            self.softmax::<L>(scores, dscores, lse, delta);
            // Gradients of values and keys: keys × features, over queries.
            let by_keys = |columns: usize, a: *const V::Elem, b: *const V::Elem, c| {
                let (b, depth, layout) = (b.add(query * nr), self.queries.len(), Layout::Rows);
                let (b_panel, ld, accumulate) = (p.queries * nr, columns, true);
                L::call(Product::<V> {
                    rows,
                    columns,
                    depth,
                    a,
                    layout,
                    b,
                    b_panel,
                    c,
                    ld,
                    accumulate,
                });
            };
            by_keys(values, b.scores, b.dout_features, self.dv);
            by_keys(features, b.dscores, b.q_features, self.dk);
            L::call(Product::<V> {
                rows: columns,
                columns: features,
                depth: rows,
                a: b.dscores,
                layout: Layout::Columns,
                b: b.k_features.add(first * nr),
                b_panel: self.valid.len() * nr,
                c: self.dq.add(query * features),
                ld: features,
                accumulate: true,
            });
        }
    }
}

impl<V: Vector> Block<'_, V> {
    /// Turns scores into probabilities, and their gradients into those of the products q·k.
    #[inline(always)]
    fn softmax<L: Level>(
        &self,
        scores: &mut [V::Elem],
        dscores: &mut [V::Elem],
        lse: &[V::Elem],
        delta: &[V::Elem],
    ) {
        let p = self.problem;
        let scale = V::Elem::from_f64(p.scale);
        scale_scores::<L, V::Elem>(p, scores);
        let rows = scores.chunks_exact_mut(SIDE).zip(dscores.chunks_exact_mut(SIDE));
        if let Some(cap) = p.softcap {
            let inverse = V::Elem::from_f64(1.0 / cap);
            let one = V::Elem::from_f64(1.0);
            for (row, drow) in rows {
                for i in 0..SIDE {
                    let t = row[i] * inverse;
                    let x = (row[i] - lse[i]).exp::<L>();
                    row[i] = x;
                    drow[i] = x * (drow[i] - delta[i]) * scale * (one - t * t);
                }
            }
        } else {
            for (row, drow) in rows {
                for i in 0..SIDE {
                    let x = (row[i] - lse[i]).exp::<L>();
                    row[i] = x;
                    drow[i] = x * (drow[i] - delta[i]) * scale;
                }
            }
        }
        if !p.sees_all(&self.queries, &self.keys) {
            p.mask(scores, &self.queries, &self.keys, V::Elem::default());
            p.mask(dscores, &self.queries, &self.keys, V::Elem::default());
        }
    }
}
