//! Blocks of probabilities and of the gradients of scores, for whatever needs the latter.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, Head, Layout, Product, SIDE, beyond, head, pack_features, pack_positions, packed_size,
    widened, widened_size, within,
};
use super::{Attention, Backward, Number, Vector};
use crate::gemm::Stored;
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;

/// The packed operands of some keys and a block of queries of one head, and room for a block of
/// scores.
pub struct Operands<V: Vector> {
    /// The keys that are packed.
    pub keys: Range<usize>,
    /// Keys and values as rows of left operands.
    k: *mut V::Elem,
    v: *mut V::Elem,
    /// Queries and output gradients as right operands, columns being positions.
    q: *mut V::Elem,
    dout: *mut V::Elem,
    /// Keys, queries and output gradients as right operands whose columns are features, for
    /// products of the block with them; null without.
    pub k_features: *mut V::Elem,
    pub q_features: *mut V::Elem,
    pub dout_features: *mut V::Elem,
    /// Per query: the logarithm to the base 2, and the sum of output times its gradient.
    exponents: *mut V::Elem,
    delta: *mut V::Elem,
    /// Blocks of keys × queries: probabilities, and gradients of scores.
    pub scores: *mut V::Elem,
    pub dscores: *mut V::Elem,
    /// Room for what has to be widened.
    wide: *mut V::Elem,
}

/// Where the parts of [`Operands`] are to lie in a buffer.
pub struct Reserved<V> {
    parts: [usize; 12],
    products: bool,
    vector: PhantomData<V>,
}

impl<V: Vector> Operands<V> {
    /// Reserves room for so many keys; `products` if blocks are multiplied with them.
    pub fn reserve<E: 'static>(
        carve: &mut Carve,
        p: &Attention<'_>,
        keys: usize,
        products: bool,
    ) -> Reserved<V> {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let (features, values) = (p.features, p.value_features);
        let mut take = |count: usize| carve.take::<V::Elem>(count);
        let of_features = |lines: usize, steps: usize| {
            if products { packed_size(lines, steps, nr) } else { 0 }
        };
        let of_features =
            [of_features(features, keys), of_features(features, SIDE), of_features(values, SIDE)];
        let parts = [
            take(packed_size(keys, features, mr)),
            take(packed_size(keys, values, mr)),
            take(packed_size(SIDE, features, nr)),
            take(packed_size(SIDE, values, nr)),
            take(of_features[0]),
            take(of_features[1]),
            take(of_features[2]),
            take(SIDE),
            take(SIDE),
            take(SIDE * SIDE),
            take(SIDE * SIDE),
            take(widened_size::<E, V::Elem>(keys.max(SIDE), features.max(values))),
        ];
        Reserved { parts, products, vector: PhantomData }
    }

    /// Packs keys and values, of batch entry and key head `heads`.
    ///
    /// # Safety
    /// The machine has `L`; the tensors can be read; room was reserved for so many keys.
    pub unsafe fn keys<L: Level, E: Stored<V::Elem>>(
        &mut self,
        p: &Attention<'_>,
        tensors: &Backward,
        [batch, key_head]: [usize; 2],
        keys: Range<usize>,
    ) {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let (features, values) = (p.features, p.value_features);
        let k: Head<E> = head(&tensors.k, batch, key_head);
        let v: Head<E> = head(&tensors.v, batch, key_head);
        // SAFETY: passed on.
        unsafe {
            let k = widened::<L, _, _>(k, keys.clone(), features, self.wide);
            pack_positions::<L, _>(k, keys.clone(), features, mr, self.k);
            if !self.k_features.is_null() {
                pack_features::<L, _>(k, keys.clone(), features, nr, self.k_features);
            }
            let v = widened::<L, _, _>(v, keys.clone(), values, self.wide);
            pack_positions::<L, _>(v, keys.clone(), values, mr, self.v);
        }
        self.keys = keys;
    }

    /// Packs a block of queries and gradients of outputs, of batch entry and query head `heads`.
    ///
    /// # Safety
    /// As [`Operands::keys`].
    pub unsafe fn queries<L: Level, E: Stored<V::Elem>>(
        &mut self,
        p: &Attention<'_>,
        tensors: &Backward,
        [batch, query_head]: [usize; 2],
        queries: Range<usize>,
    ) {
        let nr = V::TILE_VECTORS * V::LANES;
        let (features, values) = (p.features, p.value_features);
        let q: Head<E> = head(&tensors.q, batch, query_head);
        let dout: Head<E> = head(&tensors.dout, batch, query_head);
        // SAFETY: passed on.
        unsafe {
            let q = widened::<L, _, _>(q, queries.clone(), features, self.wide);
            pack_positions::<L, _>(q, queries.clone(), features, nr, self.q);
            if !self.q_features.is_null() {
                pack_features::<L, _>(q, queries.clone(), features, nr, self.q_features);
            }
            let wide = widened::<L, _, _>(dout, queries.clone(), values, self.wide);
            pack_positions::<L, _>(wide, queries.clone(), values, nr, self.dout);
            if !self.dout_features.is_null() {
                pack_features::<L, _>(wide, queries.clone(), values, nr, self.dout_features);
            }
            L::call(Delta {
                out: head(&tensors.out, batch, query_head),
                dout,
                lse: head(&tensors.lse, batch, query_head),
                queries,
                features: values,
                exponents: self.exponents,
                sums: self.delta,
            });
        }
    }
}

impl<V: Vector> Reserved<V> {
    /// The operands in a buffer, nothing packed yet.
    pub fn at(&self, base: *mut u8) -> Operands<V> {
        let [
            k,
            v,
            q,
            dout,
            k_features,
            q_features,
            dout_features,
            exponents,
            delta,
            scores,
            dscores,
            wide,
        ] = self.parts.map(|offset| base.wrapping_add(offset).cast::<V::Elem>());
        let wanted = |p: *mut V::Elem| if self.products { p } else { std::ptr::null_mut() };
        Operands {
            keys: 0..0,
            k,
            v,
            q,
            dout,
            k_features: wanted(k_features),
            q_features: wanted(q_features),
            dout_features: wanted(dout_features),
            exponents,
            delta,
            scores,
            dscores,
            wide,
        }
    }
}

/// What the blocks need of every query: its logarithm to the base 2, and the sum of output times
/// its gradient.
struct Delta<E, T> {
    out: Head<E>,
    dout: Head<E>,
    lse: Head<T>,
    queries: Range<usize>,
    features: usize,
    exponents: *mut T,
    sums: *mut T,
}

impl<E: Stored<T>, T: Number> Kernel for Delta<E, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (unit, infinite) =
            (T::from_f64(std::f64::consts::LOG2_E), T::from_f64(f64::NEG_INFINITY));
        for (at, i) in self.queries.enumerate() {
            // SAFETY: `attention_backward`'s contract; `run`'s buffers have an element for every
            // query.
            unsafe {
                let x = self.out.data.offset(i as isize * self.out.position);
                let y = self.dout.data.offset(i as isize * self.dout.position);
                let sum = match (self.out.feature, self.dout.feature) {
                    (1, 1) => dot::<L, E, T>((x, 1), (y, 1), self.features),
                    (xs, ys) => dot::<L, E, T>((x, xs), (y, ys), self.features),
                };
                self.sums.add(at).write(sum);
                // What a query without keys sees has to become 0, not NaN.
                let lse = self.lse.data.offset(i as isize * self.lse.position).read();
                let exponent = if lse == infinite { T::default() } else { lse * unit };
                self.exponents.add(at).write(exponent);
            }
        }
    }
}

/// The dot product of two rows, each a start and a step.
#[inline(always)]
unsafe fn dot<L: Level, E: Stored<T>, T: Number>(
    (x, xs): (*const E, isize),
    (y, ys): (*const E, isize),
    count: usize,
) -> T {
    const LANES: usize = 16;
    // SAFETY: the caller's rows have `count` elements.
    let product = |j: usize, sum: T| unsafe {
        let (x, y) = (x.offset(j as isize * xs).read(), y.offset(j as isize * ys).read());
        L::mul_add(x.widen(), y.widen(), sum)
    };
    let mut sums = [T::default(); LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = product(start + j, *sum);
        }
    }
    let mut sum = T::default();
    for j in whole..count {
        sum = product(j, sum);
    }
    sums.into_iter().fold(sum, |a, b| a + b)
}

/// A block of keys and queries, to become probabilities and gradients of scores.
pub struct Scores<'a, V: Vector> {
    pub problem: &'a Attention<'a>,
    /// Batch entry and query head.
    pub heads: [usize; 2],
    pub operands: &'a Operands<V>,
    pub keys: Range<usize>,
    pub queries: Range<usize>,
    /// Whether the gradients are those of the products of queries and keys, or of the scores.
    pub of_products: bool,
}

impl<V: Vector> Kernel for Scores<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (p, b) = (self.problem, self.operands);
        let (keys, queries) = (&self.keys, &self.queries);
        let nr = V::TILE_VECTORS * V::LANES;
        let first = keys.start - b.keys.start;
        // SAFETY: the operands have room for every block; the machine has `L`.
        unsafe {
            let product = |depth: usize, a: *const V::Elem, b: *const V::Elem, c| {
                L::call(Product {
                    rows: keys.len(),
                    columns: queries.len(),
                    depth,
                    a: a.add(first * depth),
                    layout: Layout::Packed,
                    b,
                    b_panel: depth * nr,
                    c,
                    ld: SIDE,
                    needed: |rows| within(&p.seeing_queries(&beyond(rows, keys)), queries),
                    vector: PhantomData::<V>,
                });
            };
            product(p.features, b.k, b.q, b.scores);
            product(p.value_features, b.v, b.dout, b.dscores);
            let scores = std::slice::from_raw_parts_mut(b.scores, keys.len() * SIDE);
            let dscores = std::slice::from_raw_parts_mut(b.dscores, keys.len() * SIDE);
            let exponents = std::slice::from_raw_parts(b.exponents, SIDE);
            let delta = std::slice::from_raw_parts(b.delta, SIDE);
            self.softmax::<L>(scores, dscores, exponents, delta);
        }
    }
}

impl<V: Vector> Scores<'_, V> {
    /// Turns products into probabilities, and gradients of the latter into those of scores.
    #[inline(always)]
    fn softmax<L: Level>(
        &self,
        scores: &mut [V::Elem],
        dscores: &mut [V::Elem],
        exponents: &[V::Elem],
        delta: &[V::Elem],
    ) {
        let p = self.problem;
        let zero = V::Elem::default();
        let zeros = [zero; SIDE];
        let scale = if self.of_products { p.scale } else { 1.0 };
        let (mut delta, mut scale) = (delta, V::Elem::from_f64(scale));
        if let (Some(cap), true) = (p.softcap, self.of_products) {
            // The slope of the cap, while the products are there.
            let inner = V::Elem::from_f64(p.scale / cap);
            let one = V::Elem::from_f64(1.0);
            for (row, drow) in scores.chunks_exact(SIDE).zip(dscores.chunks_exact_mut(SIDE)) {
                for i in 0..SIDE {
                    let t = (row[i] * inner).tanh::<L>();
                    drow[i] = (drow[i] - delta[i]) * scale * (one - t * t);
                }
            }
            (delta, scale) = (&zeros, one);
        }
        let factor = p.finish_scores::<L, V::Elem>(
            (&mut *scores, SIDE),
            self.heads,
            &self.queries,
            &self.keys,
        );
        for (row, drow) in scores.chunks_exact_mut(SIDE).zip(dscores.chunks_exact_mut(SIDE)) {
            for i in 0..SIDE {
                let x = L::mul_add(row[i], factor, -exponents[i]).decay::<L>();
                row[i] = x;
                drow[i] = x * (drow[i] - delta[i]) * scale;
            }
        }
        p.hide(scores, &self.queries, &self.keys, zero);
        p.hide(dscores, &self.queries, &self.keys, zero);
    }
}
