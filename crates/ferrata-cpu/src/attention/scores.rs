//! Blocks of probabilities and of the gradients of scores, for whatever needs the latter.

use std::marker::PhantomData;
use std::ops::Range;

use super::block::{
    Carve, Head, Layout, Product, SIDE, STRIP, beyond, grouped, head, operand, operand_size,
    pack_features, pack_positions, packed_size, within,
};
use super::{Attention, Backward, Number, Products, Value, Vector};
use crate::gemm::{Pack, Stored};
use crate::isa::{Kernel, Level, Real};
use crate::math::Math;
use crate::simd::{Dot, Simd};

/// The packed operands of some keys and a block of queries of one head, and room for a block of
/// scores.
pub struct Operands<D: Dot> {
    /// The keys that are packed.
    pub keys: Range<usize>,
    /// Keys and values as rows of left operands.
    k: *mut D::Left,
    v: *mut D::Left,
    /// Queries and output gradients as right operands, columns being positions.
    q: *mut D::Right,
    dout: *mut D::Right,
    /// Keys, queries and output gradients as right operands whose columns are features, for
    /// products of the block with them; null without.
    pub k_features: *mut D::Right,
    pub q_features: *mut D::Right,
    pub dout_features: *mut D::Right,
    /// Room for a block as the left operand of these products.
    rounded: *mut D::Left,
    /// Per query: the logarithm to the base 2, and the sum of output times its gradient.
    exponents: *mut Value<D>,
    delta: *mut Value<D>,
    /// Blocks of keys × queries: probabilities, and gradients of scores.
    pub scores: *mut Value<D>,
    pub dscores: *mut Value<D>,
}

/// Where the parts of [`Operands`] are to lie in a buffer.
pub struct Reserved<D> {
    left: [usize; 3],
    right: [usize; 5],
    values: [usize; 4],
    products: bool,
    dot: PhantomData<D>,
}

impl<D: Dot<Acc: Vector>> Operands<D> {
    /// Reserves room for so many keys; `products` if blocks are multiplied with them.
    pub fn reserve(
        carve: &mut Carve,
        p: &Attention<'_>,
        keys: usize,
        products: bool,
    ) -> Reserved<D> {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let (features, values) = (p.features, p.value_features);
        let size = packed_size::<D>;
        let wanted = |count: usize| if products { count } else { 0 };
        let left = [size(keys, features, mr), size(keys, values, mr), wanted(operand_size::<D>())];
        let right = [
            size(SIDE, features, nr),
            size(SIDE, values, nr),
            wanted(size(features, keys, nr)),
            wanted(size(features, SIDE, nr)),
            wanted(size(values, SIDE, nr)),
        ];
        Reserved {
            left: left.map(|count| carve.take::<D::Left>(count)),
            right: right.map(|count| carve.take::<D::Right>(count)),
            values: [SIDE, SIDE, SIDE * SIDE, SIDE * SIDE].map(|n| carve.take::<Value<D>>(n)),
            products,
            dot: PhantomData,
        }
    }

    /// Packs keys and values, of batch entry and key head `heads`.
    ///
    /// # Safety
    /// The machine has `L`; the tensors can be read; room was reserved for so many keys.
    pub unsafe fn keys<L: Level, E>(
        &mut self,
        p: &Attention<'_>,
        tensors: &Backward,
        [batch, key_head]: [usize; 2],
        keys: Range<usize>,
    ) where
        D: Products<E>,
        E: Copy + 'static,
    {
        let mr = D::Acc::TILE_ROWS;
        let [k, v] = [&tensors.k, &tensors.v].map(|tensor| head::<E>(tensor, batch, key_head));
        let none = std::ptr::null_mut();
        // SAFETY: passed on.
        unsafe {
            pack::<L, D, E, _>(k, &keys, p.features, mr, self.k, self.k_features);
            pack::<L, D, E, _>(v, &keys, p.value_features, mr, self.v, none);
        }
        self.keys = keys;
    }

    /// Packs a block of queries and gradients of outputs, of batch entry and query head `heads`.
    ///
    /// # Safety
    /// As [`Operands::keys`].
    pub unsafe fn queries<L: Level, E>(
        &mut self,
        p: &Attention<'_>,
        tensors: &Backward,
        [batch, query_head]: [usize; 2],
        queries: Range<usize>,
    ) where
        D: Products<E>,
        E: Stored<Value<D>>,
    {
        let nr = D::Acc::TILE_VECTORS * D::Acc::LANES;
        let [q, dout] = [&tensors.q, &tensors.dout].map(|t| head::<E>(t, batch, query_head));
        // SAFETY: passed on.
        unsafe {
            pack::<L, D, E, _>(q, &queries, p.features, nr, self.q, self.q_features);
            let values = p.value_features;
            pack::<L, D, E, _>(dout, &queries, values, nr, self.dout, self.dout_features);
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

    /// A block of probabilities or gradients of scores as the left operand of products.
    ///
    /// # Safety
    /// As [`operand`]; room was reserved for products.
    pub unsafe fn operand<L: Level>(
        &self,
        block: *const Value<D>,
        size: [usize; 2],
        layout: Layout,
    ) -> *const D::Left
    where
        D: Dot<Left: Stored<Value<D>>>,
    {
        // SAFETY: passed on.
        unsafe { operand::<L, D>(block, size, layout, self.rounded) }
    }
}

/// Packs positions as lines of `width`, and, unless `by_features` is null, features as columns of
/// a right operand.
///
/// # Safety
/// As [`pack_positions`].
unsafe fn pack<L, D, E, P>(
    head: Head<E>,
    positions: &Range<usize>,
    features: usize,
    width: usize,
    to: *mut P,
    by_features: *mut D::Right,
) where
    L: Level,
    D: Products<E>,
    E: Copy + 'static,
    P: Pack<E>,
{
    let nr = D::Acc::TILE_VECTORS * D::Acc::LANES;
    // SAFETY: passed on.
    unsafe {
        pack_positions::<L, D, E, P>(head, positions, features, width, to);
        if !by_features.is_null() {
            pack_features::<L, D, E, D::Right>(head, positions, features, nr, by_features);
        }
    }
}

impl<D: Dot> Reserved<D> {
    /// The operands in a buffer, nothing packed yet.
    ///
    /// # Safety
    /// The buffer has the room that was reserved.
    pub unsafe fn at(&self, base: *mut u8) -> Operands<D> {
        let [k, v, rounded] = self.left.map(|at| base.wrapping_add(at).cast());
        let right = self.right.map(|at| base.wrapping_add(at).cast());
        let [q, dout, features @ ..] = right;
        let wanted = |p: *mut D::Right| if self.products { p } else { std::ptr::null_mut() };
        let [k_features, q_features, dout_features] = features.map(wanted);
        let values = self.values.map(|at| base.wrapping_add(at).cast());
        let [exponents, delta, scores, dscores]: [*mut Value<D>; 4] = values;
        // Lanes beyond the last query are computed with, too.
        // SAFETY: passed on.
        unsafe {
            [exponents, delta].iter().for_each(|each| each.write_bytes(0, SIDE));
            [scores, dscores].iter().for_each(|block| block.write_bytes(0, SIDE * SIDE));
        }
        Operands {
            keys: 0..0,
            k,
            v,
            q,
            dout,
            k_features,
            q_features,
            dout_features,
            rounded,
            exponents,
            delta,
            scores,
            dscores,
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
pub struct Scores<'a, D: Dot> {
    pub problem: &'a Attention<'a>,
    /// Batch entry and query head.
    pub heads: [usize; 2],
    pub operands: &'a Operands<D>,
    pub keys: Range<usize>,
    pub queries: Range<usize>,
    /// Whether the gradients are those of the products of queries and keys, or of the scores.
    pub of_products: bool,
}

impl<D: Dot<Acc: Vector>> Kernel for Scores<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (p, b) = (self.problem, self.operands);
        let (keys, queries) = (&self.keys, &self.queries);
        let first = keys.start - b.keys.start;
        // SAFETY: the operands have room for every block; the machine has `L`.
        unsafe {
            let product = |depth: usize, a: *const D::Left, b, c| {
                L::call(Product::<D, _> {
                    rows: keys.len(),
                    columns: queries.len(),
                    depth,
                    a: a.add(first * grouped::<D>(depth)),
                    layout: Layout::Packed,
                    b,
                    b_depth: depth,
                    c,
                    ld: SIDE,
                    needed: |rows| within(&p.seeing_queries(&beyond(rows, keys)), queries),
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

impl<D: Dot<Acc: Vector>> Scores<'_, D> {
    /// Turns products into probabilities, and gradients of the latter into those of scores.
    #[inline(always)]
    fn softmax<L: Level>(
        &self,
        scores: &mut [Value<D>],
        dscores: &mut [Value<D>],
        exponents: &[Value<D>],
        delta: &[Value<D>],
    ) {
        let p = self.problem;
        let zero = Value::<D>::default();
        let zeros = [zero; SIDE];
        let scale = if self.of_products { p.scale } else { 1.0 };
        let (mut delta, mut scale) = (delta, Value::<D>::from_f64(scale));
        if let (Some(cap), true) = (p.softcap, self.of_products) {
            // The slope of the cap, while the products are there.
            let inner = Value::<D>::from_f64(p.scale / cap);
            let one = Value::<D>::from_f64(1.0);
            for (row, drow) in scores.chunks_exact(SIDE).zip(dscores.chunks_exact_mut(SIDE)) {
                for i in 0..SIDE {
                    let t = (row[i] * inner).tanh::<L>();
                    drow[i] = (drow[i] - delta[i]) * scale * (one - t * t);
                }
            }
            (delta, scale) = (&zeros, one);
        }
        let factor = p.finish_scores::<L, Value<D>>(
            (&mut *scores, SIDE),
            self.heads,
            &self.queries,
            &self.keys,
        );
        let rows = scores.chunks_exact_mut(SIDE).zip(dscores.chunks_exact_mut(SIDE));
        for ((row, drow), key) in rows.zip(self.keys.clone()) {
            let seen = within(&p.visible_queries(key), &self.queries);
            // What nobody sees is hidden below.
            for start in (seen.start / STRIP * STRIP..seen.end).step_by(STRIP) {
                let strip = start..start + STRIP;
                let ends = exponents[strip.clone()].iter().zip(&delta[strip.clone()]);
                let products = row[strip.clone()].iter_mut().zip(&mut drow[strip]);
                for ((x, dx), (&exponent, &delta)) in products.zip(ends) {
                    *x = L::mul_add(*x, factor, -exponent).decay::<L>();
                    *dx = *x * (*dx - delta) * scale;
                }
            }
        }
        p.hide(scores, &self.queries, &self.keys, zero);
        p.hide(dscores, &self.queries, &self.keys, zero);
    }
}
