//! The gradients, from the forward output and logarithms.
//!
//! A task owns the keys of one key head, or some of them where heads are few. For every block of
//! queries it recomputes the probabilities and adds to the gradients of its keys and values; the
//! queries' it finishes block by block, or, if it has only some keys, leaves them in a buffer of
//! its own: those of the tasks of one head are then summed in order.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, HeadMut, Layout, Product, SIDE, beyond, blocks, head_mut, within, write_row,
};
use super::scores::{Operands, Scores};
use super::{Attention, Backward, Number, Products, Value, Vector, mask};
use crate::gemm::Stored;
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::{Dot, Simd};

/// Tasks that a problem is cut into, at least, where it is long enough.
const TASKS: usize = 16;

/// A problem seen from several threads, and the gradients of the queries by part.
struct Shared<'a, T>(&'a Attention<'a>, &'a Backward, *mut T);

// SAFETY: inputs are only read; every task writes its own keys and its own part of the buffer, by
// `attention_backward`'s contract.
unsafe impl<T> Sync for Shared<'_, T> {}

/// Computes the gradients on the pool, on elements `E` in memory. The machine has `L` (the caller
/// runs at it).
pub fn run<L: Level, D: Products<E>, E: Stored<Value<D>>>(
    pool: &Pool,
    problem: &Attention<'_>,
    tensors: &Backward,
) {
    let heads = problem.batch * problem.key_heads;
    if heads == 0 {
        return;
    }
    let parts = (TASKS / heads).min(problem.keys.div_ceil(SIDE)).max(1);
    let part = problem.keys.div_ceil(parts).next_multiple_of(SIDE);
    // For every part the gradients of the queries of all heads of the group.
    let rows = problem.group() * problem.queries;
    let size = rows * problem.features;
    let whole = parts == 1;
    let bytes = if whole { 0 } else { heads * parts * size * size_of::<Value<D>>() };
    pool.with_scratch(pool.worker(), bytes, |scratch| {
        let shared = Shared(problem, tensors, scratch.as_mut_ptr::<Value<D>>());
        pool.run(heads * parts, &|task, worker| {
            let Shared(problem, tensors, sums) = &shared;
            let (at, index) = (task / parts, task % parts);
            let keys = index * part..((index + 1) * part).min(problem.keys);
            let task = Task::<L, D, E> {
                problem,
                tensors,
                batch: at / problem.key_heads,
                key_head: at % problem.key_heads,
                keys: keys.start.min(keys.end)..keys.end,
                // SAFETY: the buffer has `size` elements for every task.
                dq: (!whole).then(|| unsafe { sums.add(task * size) }),
                types: PhantomData,
            };
            task.run(pool, worker);
        });
        if whole {
            return;
        }
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
        mask::gradient::<L, D, E>(pool, problem, tensors, dmask);
    }
}

/// Sums the parts of one head's gradient into the first one, and writes it.
struct Sum<E, T> {
    out: HeadMut<E>,
    first: *mut T,
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
        for i in 0..self.positions {
            // SAFETY: `run`'s tasks give buffers of these sizes.
            unsafe {
                let sums = self.first.add(i * self.features);
                for part in 1..self.parts {
                    let from = sums.add(part * self.stride).cast_const();
                    for j in 0..self.features {
                        sums.add(j).write(sums.add(j).read() + from.add(j).read());
                    }
                }
                let to = self.out.data.offset(i as isize * self.out.position);
                write_row(to, self.out.feature, self.features, |j| sums.add(j).read());
            }
        }
    }
}

/// Some keys of one key head.
struct Task<'a, L, D: Dot, E> {
    problem: &'a Attention<'a>,
    tensors: &'a Backward,
    batch: usize,
    key_head: usize,
    keys: Range<usize>,
    /// This part's gradients of the queries of the group's heads, where there are several parts.
    dq: Option<*mut Value<D>>,
    types: PhantomData<(L, D, E)>,
}

impl<L: Level, D: Products<E>, E: Stored<Value<D>>> Task<'_, L, D, E> {
    fn run(&self, pool: &Pool, worker: usize) {
        let p = self.problem;
        let (features, values) = (p.features, p.value_features);
        let length = p.length(self.batch);
        let valid = self.keys.start..self.keys.end.min(length).max(self.keys.start);
        let mut carve = Carve::new();
        let operands = Operands::<D>::reserve(&mut carve, p, valid.len(), true);
        let dk = carve.take::<Value<D>>(self.keys.len() * features);
        let dv = carve.take::<Value<D>>(self.keys.len() * values);
        let dq = carve.take::<Value<D>>(SIDE * features);
        pool.with_scratch(worker, carve.total(), |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let [dk, dv, dq] = [dk, dv, dq].map(|at| base.wrapping_add(at).cast::<Value<D>>());
            // SAFETY: the scratch has the room that was reserved.
            let mut operands = unsafe { operands.at(base) };
            // SAFETY: `attention_backward`'s contract; the scratch has room for all of this.
            unsafe {
                dk.write_bytes(0, self.keys.len() * features);
                dv.write_bytes(0, self.keys.len() * values);
                operands.keys::<L, E>(p, self.tensors, [self.batch, self.key_head], valid.clone());
                for i in 0..p.group() {
                    let heads = [self.batch, self.key_head * p.group() + i];
                    let out = head_mut::<E>(&self.tensors.dq, heads[0], heads[1]);
                    for queries in blocks(0..p.queries) {
                        let of_part = |all: *mut Value<D>| {
                            all.wrapping_add((i * p.queries + queries.start) * features)
                        };
                        let to = self.dq.map_or(dq, of_part);
                        to.write_bytes(0, queries.len() * features);
                        self.queries(&mut operands, heads, &queries, [dk, dv, to]);
                        if self.dq.is_none() {
                            write::<L, E, _>(out, &queries, to, features);
                        }
                    }
                }
                let [out_k, out_v] = [&self.tensors.dk, &self.tensors.dv]
                    .map(|t| head_mut::<E>(t, self.batch, self.key_head));
                write::<L, E, _>(out_k, &self.keys, dk, features);
                write::<L, E, _>(out_v, &self.keys, dv, values);
            }
        });
    }

    /// Adds what a block of queries gives to the gradients of keys, values and these queries.
    unsafe fn queries(
        &self,
        operands: &mut Operands<D>,
        heads: [usize; 2],
        queries: &Range<usize>,
        [dk, dv, dq]: [*mut Value<D>; 3],
    ) {
        let p = self.problem;
        let valid = operands.keys.clone();
        if valid.is_empty() || !p.meet(queries, &valid) {
            return;
        }
        // SAFETY: `run`'s buffers.
        unsafe {
            operands.queries::<L, E>(p, self.tensors, heads, queries.clone());
            for keys in blocks(valid).filter(|keys| p.meet(queries, keys)) {
                let first = keys.start - self.keys.start;
                let (problem, operands, of_products) = (p, &*operands, true);
                L::call(Block {
                    scores: Scores {
                        problem,
                        heads,
                        operands,
                        keys,
                        queries: queries.clone(),
                        of_products,
                    },
                    dk: dk.add(first * p.features),
                    dv: dv.add(first * p.value_features),
                    dq,
                });
            }
        }
    }
}

/// Writes the gradient of some positions of a head.
unsafe fn write<L: Level, E: Stored<T>, T: Number>(
    head: HeadMut<E>,
    positions: &Range<usize>,
    first: *mut T,
    features: usize,
) {
    let start = positions.start as isize * head.position;
    let out = HeadMut { data: head.data.wrapping_offset(start), ..head };
    // SAFETY: passed on.
    unsafe {
        L::call(Sum { out, first, parts: 1, stride: 0, positions: positions.len(), features });
    }
}

/// A block of keys and queries.
struct Block<'a, D: Dot> {
    scores: Scores<'a, D>,
    /// Gradients of the block's keys and values.
    dk: *mut Value<D>,
    dv: *mut Value<D>,
    /// Gradients of the block's queries.
    dq: *mut Value<D>,
}

impl<D> Kernel for Block<'_, D>
where
    D: Dot<Acc: Vector, Left: Stored<Value<D>>>,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let Scores { problem: p, operands: o, .. } = self.scores;
        let (keys, queries) = (&self.scores.keys.clone(), &self.scores.queries.clone());
        let nr = D::Acc::TILE_VECTORS * D::Acc::LANES;
        let first = keys.start - o.keys.start;
        let size = [keys.len(), queries.len()];
        let seeing = |rows| within(&p.seeing_queries(&beyond(rows, keys)), queries);
        // SAFETY: the task's buffers have room for every block; the machine has `L`.
        unsafe {
            L::call(self.scores);
            // Gradients of values and keys: keys × features, over queries.
            let by_keys = |columns: usize, block: *const Value<D>, b: *const D::Right, c| {
                let layout = Layout::Rows;
                L::call(Product::<D, _> {
                    rows: keys.len(),
                    columns,
                    depth: queries.len(),
                    a: o.operand::<L>(block, size, layout),
                    layout,
                    b,
                    b_depth: queries.len(),
                    c,
                    ld: columns,
                    needed: seeing,
                });
            };
            by_keys(p.value_features, o.scores, o.dout_features, self.dv);
            by_keys(p.features, o.dscores, o.q_features, self.dk);
            let layout = Layout::Columns;
            L::call(Product::<D, _> {
                rows: queries.len(),
                columns: p.features,
                depth: keys.len(),
                a: o.operand::<L>(o.dscores, size, layout),
                layout,
                b: o.k_features.add(first * nr),
                b_depth: o.keys.len(),
                c: self.dq,
                ld: p.features,
                needed: |rows| within(&p.visible_keys(&beyond(rows, queries), o.keys.end), keys),
            });
        }
    }
}
