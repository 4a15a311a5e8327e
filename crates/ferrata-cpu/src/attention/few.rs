//! Few queries against many keys, as in decoding: bound by reading keys and values, which happens
//! once, in place, for all the queries of a key head together.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use super::block::{Carve, Head, head, head_mut, write_row};
use super::{Attention, Forward, Number, Vector};
use crate::gemm::Stored;
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;
use crate::pool::Pool;

/// Queries of one key head up to which this path is taken.
const FEW: usize = 8;
/// Keys of one task.
const KEYS: usize = 256;

/// Whether a problem has few queries.
pub fn applies(problem: &Attention<'_>) -> bool {
    problem.queries * problem.group() <= FEW
}

/// A problem seen from several threads, and the parts' results.
struct Shared<'a, T>(&'a Attention<'a>, &'a Forward, *mut T);

// SAFETY: inputs are only read; every task writes its own part, by `attention`'s contract.
unsafe impl<T> Sync for Shared<'_, T> {}

/// Computes attention on the pool: parts of the keys first, then the parts are joined in order.
pub fn run<L: Level, V: Vector, E: Stored<V::Elem>>(
    pool: &Pool,
    problem: &Attention<'_>,
    tensors: &Forward,
) {
    let heads = problem.batch * problem.key_heads;
    let rows = problem.queries * problem.group();
    let parts = problem.keys.div_ceil(KEYS).max(1);
    // Of every row: the largest score, the sum of powers of 2, the sum of values.
    let width = 2 + problem.value_features;
    let bytes = heads * parts * rows * width * size_of::<V::Elem>();
    pool.with_scratch(pool.worker(), bytes, |scratch| {
        let shared = Shared(problem, tensors, scratch.as_mut_ptr::<V::Elem>());
        pool.run(heads * parts, &|task, worker| {
            let Shared(problem, tensors, results) = &shared;
            let (at, index) = (task / parts, task % parts);
            let batch = at / problem.key_heads;
            let length = problem.length(batch);
            let keys = (index * KEYS).min(length)..((index + 1) * KEYS).min(length);
            let mut carve = Carve::new();
            let q_at = carve.take::<V::Elem>(rows * problem.features);
            let scores_at = carve.take::<V::Elem>(rows * KEYS);
            let row_at = carve.take::<V::Elem>(problem.features.max(problem.value_features));
            pool.with_scratch(worker, carve.total(), |scratch| {
                let base = scratch.as_mut_ptr::<u8>();
                let at_offset = |offset: usize| base.wrapping_add(offset).cast::<V::Elem>();
                // SAFETY: `attention`'s contract; the scratch holds what was reserved; the
                // results of this task are its own.
                unsafe {
                    L::call(Part::<V, E> {
                        problem,
                        tensors,
                        batch,
                        key_head: at % problem.key_heads,
                        keys,
                        q: at_offset(q_at),
                        scores: at_offset(scores_at),
                        row: at_offset(row_at),
                        results: results.add(task * rows * width),
                        types: PhantomData,
                    });
                }
            });
        });
        let shared = &shared;
        pool.run(heads, &|at, _| {
            let Shared(problem, tensors, results) = shared;
            for r in 0..rows {
                // SAFETY: the parts of this head, and its rows of the output.
                unsafe {
                    let first = results.add((at * parts * rows + r) * width);
                    join::<L, V, E>(problem, tensors, at, r, first, parts, rows * width);
                }
            }
        });
    });
}

/// Some keys of one key head.
struct Part<'a, V: Vector, E> {
    problem: &'a Attention<'a>,
    tensors: &'a Forward,
    batch: usize,
    key_head: usize,
    keys: Range<usize>,
    q: *mut V::Elem,
    scores: *mut V::Elem,
    /// A row of keys or values whose features are not neighbours in memory is copied here.
    row: *mut V::Elem,
    results: *mut V::Elem,
    types: PhantomData<(V, E)>,
}

/// `count` features of a position, as neighbours of the type that is computed in: in place, or
/// copied.
#[inline(always)]
unsafe fn row<E: Stored<T>, T: Number>(
    head: Head<E>,
    position: usize,
    count: usize,
    copy: *mut T,
) -> *const T {
    // SAFETY: the position exists, and `copy` has room for `count`.
    unsafe {
        let from = head.data.offset(position as isize * head.position);
        match head.feature {
            1 if TypeId::of::<E>() == TypeId::of::<T>() => return from.cast(),
            1 => write_row(copy, 1, count, |i| from.add(i).read().widen()),
            step => write_row(copy, 1, count, |i| from.offset(i as isize * step).read().widen()),
        }
        copy
    }
}

impl<V: Vector, E: Stored<V::Elem>> Kernel for Part<'_, V, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let p = self.problem;
        let rows = p.queries * p.group();
        let width = 2 + p.value_features;
        // SAFETY: `run`'s tasks give buffers of these sizes.
        unsafe {
            for r in 0..rows {
                let query_head = self.key_head * p.group() + r / p.queries;
                let from: Head<E> = head(&self.tensors.q, self.batch, query_head);
                let to = self.q.add(r * p.features);
                let x = row(from, r % p.queries, p.features, to);
                if !std::ptr::eq(x, to) {
                    to.copy_from_nonoverlapping(x, p.features);
                }
            }
            let k: Head<E> = head(&self.tensors.k, self.batch, self.key_head);
            for (j, key) in self.keys.clone().enumerate() {
                let k = row(k, key, p.features, self.row);
                for r in 0..rows {
                    let x = dot::<V>(self.q.add(r * p.features), k, p.features);
                    self.scores.add(r * KEYS + j).write(x);
                }
            }
            for r in 0..rows {
                let scores = std::slice::from_raw_parts_mut(self.scores.add(r * KEYS), KEYS);
                let scores = &mut scores[..self.keys.len()];
                let (query_head, query) =
                    (self.key_head * p.group() + r / p.queries, r % p.queries);
                let (heads, query) = ([self.batch, query_head], query..query + 1);
                let factor =
                    p.finish_scores::<L, V::Elem>((&mut *scores, 1), heads, &query, &self.keys);
                let visible = p.visible_keys(&query, self.keys.end);
                let infinite = V::Elem::from_f64(f64::NEG_INFINITY);
                let mut largest = infinite;
                for (x, key) in scores.iter_mut().zip(self.keys.clone()) {
                    *x = if visible.contains(&key) { *x * factor } else { infinite };
                    largest =
                        if *x > largest || x.partial_cmp(&x).is_none() { *x } else { largest };
                }
                let base = if largest == infinite { V::Elem::default() } else { largest };
                for x in scores.iter_mut() {
                    *x = (*x - base).exp2::<L>();
                }
                let sum = scores.iter().fold(V::Elem::default(), |sum, &x| sum + x);
                let result = self.results.add(r * width);
                result.write(largest);
                result.add(1).write(sum);
                std::slice::from_raw_parts_mut(result.add(2), p.value_features)
                    .fill(V::Elem::default());
            }
            let v: Head<E> = head(&self.tensors.v, self.batch, self.key_head);
            for (j, key) in self.keys.clone().enumerate() {
                let v = row(v, key, p.value_features, self.row);
                for r in 0..rows {
                    let factor = self.scores.add(r * KEYS + j).read();
                    add::<V>(self.results.add(r * width + 2), factor, v, p.value_features);
                }
            }
        }
    }
}

/// The dot product of two rows.
#[inline(always)]
unsafe fn dot<V: Vector>(a: *const V::Elem, b: *const V::Elem, count: usize) -> V::Elem {
    let whole = count / V::LANES * V::LANES;
    // SAFETY: both have `count` elements.
    unsafe {
        let mut sum = V::splat(V::Elem::default());
        for i in (0..whole).step_by(V::LANES) {
            sum = sum.mul_add(V::load(a.add(i)), V::load(b.add(i)));
        }
        if whole < count {
            let (a, b) = (a.add(whole), b.add(whole));
            sum = sum.mul_add(V::load_first(a, count - whole), V::load_first(b, count - whole));
        }
        sum.sum()
    }
}

/// Adds `factor · x` to a row.
#[inline(always)]
unsafe fn add<V: Vector>(to: *mut V::Elem, factor: V::Elem, x: *const V::Elem, count: usize) {
    let whole = count / V::LANES * V::LANES;
    // SAFETY: both have `count` elements.
    unsafe {
        let factor = V::splat(factor);
        for i in (0..whole).step_by(V::LANES) {
            V::load(to.add(i)).mul_add(factor, V::load(x.add(i))).store(to.add(i));
        }
        if whole < count {
            let (to, x, left) = (to.add(whole), x.add(whole), count - whole);
            let sum = V::load_first(to, left).mul_add(factor, V::load_first(x, left));
            sum.store_first(to, left);
        }
    }
}

/// Joins the parts of one row, `stride` elements apart, and writes its output.
unsafe fn join<L: Level, V: Vector, E: Stored<V::Elem>>(
    problem: &Attention<'_>,
    tensors: &Forward,
    at: usize,
    r: usize,
    first: *mut V::Elem,
    parts: usize,
    stride: usize,
) {
    let infinite = V::Elem::from_f64(f64::NEG_INFINITY);
    let (batch, key_head) = (at / problem.key_heads, at % problem.key_heads);
    let (query_head, query) =
        (key_head * problem.group() + r / problem.queries, r % problem.queries);
    // SAFETY: `run` gives a row of every part, and `attention` a row of the output.
    unsafe {
        let mut largest = infinite;
        for part in 0..parts {
            let x = *first.add(part * stride);
            largest = if x > largest || x.partial_cmp(&x).is_none() { x } else { largest };
        }
        let base = if largest == infinite { V::Elem::default() } else { largest };
        let mut sum = V::Elem::default();
        for part in 0..parts {
            let part = first.add(part * stride);
            let factor = (*part - base).exp2::<L>();
            sum = sum + *part.add(1) * factor;
            part.write(factor);
        }
        let inverse = V::Elem::from_f64(1.0) / sum;
        let inverse = if sum == V::Elem::default() { sum } else { inverse };
        let out = head_mut::<E>(&tensors.out, batch, query_head);
        let out_row = out.data.offset(query as isize * out.position);
        for j in 0..problem.value_features {
            let mut x = V::Elem::default();
            for part in 0..parts {
                let part = first.add(part * stride);
                x = x + *part.add(2 + j) * *part;
            }
            out_row.offset(j as isize * out.feature).write(E::narrow(x * inverse));
        }
        if let Some(lse) = &tensors.lse {
            let unit = V::Elem::from_f64(std::f64::consts::LN_2);
            let to = head_mut::<V::Elem>(lse, batch, query_head);
            let to = to.data.offset(query as isize * to.position);
            to.write(L::mul_add(largest, unit, sum.log::<L>()));
        }
    }
}
