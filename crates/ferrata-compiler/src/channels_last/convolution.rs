//! A convolution is a product whose left operand is seen through sliding windows. With one channel
//! and one result in a group it is no product, but a sum of slices, at the speed of memory.

use super::{Permuted, Walk, inverse, is_identity};
use ferrata_ir::primitive::convolution::SPATIAL;
use ferrata_ir::primitive::{Convolution, Dot, Pad, Slice, Windows};
use ferrata_ir::{Error, Result, Type, Value};
use std::iter::once;

/// A sum of more slices than this is not written out.
const SLICES: usize = 64;

impl Walk {
    /// The result of a convolution.
    pub(super) fn convolution(&mut self, op: &Convolution, x: Value, w: Value) -> Result<Permuted> {
        let (x, w) = (self.value(x)?, self.value(w)?);
        let x = if is_identity(&x.order) {
            let sequence: Vec<usize> =
                once(0).chain(SPATIAL..x.order.len()).chain([1, 2]).collect();
            self.stored_as(&x, &sequence)
        } else {
            x
        };
        let phased = |d: &usize| op.spread[*d] > 1 && op.stride[*d] == 1 && op.dilation[*d] == 1;
        let dims: Vec<usize> = (0..op.spatial()).filter(phased).collect();
        if dims.is_empty() {
            Ok(self.convolved(op, &x, &w))
        } else {
            self.phases(op, &x, &w, &dims)
        }
    }

    /// An input with gaps meets only every so many elements of the kernel, which ones depends on
    /// the position: for each phase of positions along `dims` a convolution without gaps.
    fn phases(
        &mut self,
        op: &Convolution,
        x: &Permuted,
        w: &Permuted,
        dims: &[usize],
    ) -> Result<Permuted> {
        let (xs, ws) = (self.shape(x), self.shape(w));
        let places = |d: usize| op.positions(d, xs[d + SPATIAL], ws[d + SPATIAL]).unwrap_or(0);
        let steps: Vec<usize> = dims.iter().map(|&d| op.spread[d]).collect();
        let mut parts: Vec<Option<Permuted>> = Vec::new();
        for phase in indices(&steps) {
            let mut part = op.clone();
            let mut taps = (vec![0; op.spatial()], ws[SPATIAL..].to_vec(), vec![1; op.spatial()]);
            for (&d, &r) in dims.iter().zip(&phase) {
                let (step, size) = (op.spread[d] as i64, ws[d + SPATIAL]);
                let behind = op.low[d] - r as i64;
                let first = behind.rem_euclid(step) as usize;
                let count = size.saturating_sub(first).div_ceil(op.spread[d]);
                (taps.0[d], taps.1[d], taps.2[d]) = (first, count, op.spread[d]);
                let wanted = places(d).div_ceil(op.spread[d]) + count;
                (part.spread[d], part.low[d]) = (1, (behind - first as i64) / step);
                part.high[d] = wanted as i64 - 1 - xs[d + SPATIAL] as i64 - part.low[d];
            }
            parts.push(if taps.1.contains(&0) {
                None
            } else {
                let value = self.slice(w, &taps.0, &taps.1, &taps.2);
                let w = Permuted { value, ..w.clone() };
                Some(self.convolved(&part, x, &w))
            });
        }
        self.interleaved(&parts, dims, &steps, places)
    }

    /// One value of which `parts` are every `steps`-th place along `dims`, the last one changing
    /// fastest; what is not there is 0.
    fn interleaved(
        &mut self,
        parts: &[Option<Permuted>],
        dims: &[usize],
        steps: &[usize],
        places: impl Fn(usize) -> usize,
    ) -> Result<Permuted> {
        let Some(like) = parts.iter().flatten().next().cloned() else {
            return Err(Error::new("a kernel without elements"));
        };
        let ty = self.ty(like.value);
        let shape = ty.shape.clone();
        let side = [&[1][..], &shape].concat();
        let mut values = Vec::new();
        for part in parts {
            let value = match part {
                Some(x) => self.stored_as(x, &inverse(&like.order)).value,
                None => self.b.full(ty.clone(), 0.0),
            };
            values.push(self.b.reshape(value, &side));
        }
        let all = self.b.concatenate(&values, 0);
        let all = self.b.reshape(all, &[steps, &shape].concat());
        // Each phase follows its dimension.
        let stored = |d: usize| like.order[d + SPATIAL];
        let mut permutation = Vec::new();
        let (mut merged, mut kept) = (shape.clone(), shape.clone());
        for at in 0..shape.len() {
            permutation.push(steps.len() + at);
            if let Some(i) = dims.iter().position(|&d| stored(d) == at) {
                permutation.push(i);
                merged[at] *= steps[i];
                kept[at] = places(dims[i]);
            }
        }
        let all = self.b.transpose(all, &permutation);
        let mut value = self.b.reshape(all, &merged);
        if kept != merged {
            let rank = kept.len();
            let op = Slice { start: vec![0; rank], limit: kept, stride: vec![1; rank] };
            value = self.b.emit1(op, &[value]);
        }
        Ok(Permuted { value, ..like })
    }

    fn convolved(&mut self, op: &Convolution, x: &Permuted, w: &Permuted) -> Permuted {
        let (xs, ws) = (self.shape(x), self.shape(w));
        let places = |d: usize| op.positions(d, xs[d + SPATIAL], ws[d + SPATIAL]).unwrap_or(0);
        let counts: Vec<usize> = (0..op.spatial()).map(places).collect();
        let x = self.padded(op, x);
        let places: usize = counts.iter().product();
        let taps: usize = ws[SPATIAL..].iter().product();
        if xs[1] > 1 && ws[1] == 1 && xs[2] == 1 && taps <= SLICES {
            return self.sum_of_slices(op, &x, w, &counts);
        }
        if xs[1] > 1 && ws[1] == 1 && xs[0] == 1 && (1..=SLICES).contains(&places) {
            return self.sums_of_products(op, &x, w, &counts);
        }
        self.product_of_windows(op, &x, w, places < taps)
    }

    /// The sizes of a value in the user's order.
    fn shape(&self, x: &Permuted) -> Vec<usize> {
        let stored = self.ty(x.value).shape;
        x.order.iter().map(|&d| stored[d]).collect()
    }

    /// The input with its gaps and its padding. What is only cropped is not copied.
    fn padded(&mut self, op: &Convolution, x: &Permuted) -> Permuted {
        let stored = self.ty(x.value).shape;
        let rank = stored.len();
        let mut pad = Pad { low: vec![0; rank], high: vec![0; rank], interior: vec![0; rank] };
        let mut crop = Slice { start: vec![0; rank], limit: stored.clone(), stride: vec![1; rank] };
        for d in 0..op.spatial() {
            let at = x.order[d + SPATIAL];
            let crops = |amount: i64| if op.spread[d] == 1 { (-amount).max(0) } else { 0 };
            let (low, high) = (crops(op.low[d]), crops(op.high[d]));
            // More may be cropped than there is, when the other side is padded.
            let (low, high) = if low + high <= stored[at] as i64 { (low, high) } else { (0, 0) };
            crop.start[at] = low as usize;
            crop.limit[at] = stored[at] - high as usize;
            (pad.low[at], pad.high[at]) = (op.low[d] + low, op.high[d] + high);
            pad.interior[at] = op.spread[d] - 1;
        }
        let mut value = x.value;
        if crop.limit != stored || crop.start.iter().any(|&s| s != 0) {
            value = self.b.emit1(crop, &[value]);
        }
        let outside = pad.low.iter().chain(&pad.high).any(|&p| p != 0);
        if outside || pad.interior.iter().any(|&p| p != 0) {
            let zero = self.b.full(Type::scalar(self.ty(value).dtype), 0.0);
            value = self.b.emit1(pad, &[value, zero]);
        }
        Permuted { value, order: x.order.clone(), anchored: false }
    }

    /// `[N, G, C, S…]` as windows, times `[G, O, C, K…]`. The free dimensions of the operand that
    /// comes first lie outside: for the gradient of a kernel that is the second one.
    fn product_of_windows(
        &mut self,
        op: &Convolution,
        x: &Permuted,
        w: &Permuted,
        kernel_first: bool,
    ) -> Permuted {
        let sizes = self.shape(w);
        let (mut value, mut order) = (x.value, x.order.clone());
        let mut inner = Vec::new();
        for d in 0..op.spatial() {
            let dim = order[d + SPATIAL];
            let (size, stride, dilation) = (sizes[d + SPATIAL], op.stride[d], op.dilation[d]);
            value = self.b.emit1(Windows { dim, size, stride, dilation }, &[value]);
            let shift = |e: &mut usize| *e += usize::from(*e > dim);
            order.iter_mut().for_each(shift);
            inner.iter_mut().for_each(shift);
            inner.push(dim + 1);
        }
        let windows = (value, vec![order[1]], [&[order[2]][..], &inner].concat());
        let kernel = (w.value, vec![w.order[0]], w.order[2..].to_vec());
        // The free dimensions of the windows as they are stored, by their number in the result.
        let mut free: Vec<usize> = once(0).chain(SPATIAL..order.len()).collect();
        free.sort_by_key(|&d| order[d]);
        let (left, right, place) = if kernel_first {
            (kernel, windows, [&[1, 2][..], &free].concat())
        } else {
            (windows, kernel, [&[1][..], &free, &[2]].concat())
        };
        let dot = Dot {
            left_batch: left.1,
            right_batch: right.1,
            left_contract: left.2,
            right_contract: right.2,
        };
        let value = self.b.emit1(dot, &[left.0, right.0]);
        let made = Permuted { value, order: inverse(&place), anchored: false };
        if self.ty(value).shape[0] == 1 {
            return made;
        }
        // Further work wants the groups beside their results.
        self.stored_as(&made, &[&free[..], &[1, 2]].concat())
    }

    /// One channel and one result in a group: each element of the kernel times a slice.
    fn sum_of_slices(
        &mut self,
        op: &Convolution,
        x: &Permuted,
        w: &Permuted,
        counts: &[usize],
    ) -> Permuted {
        let sizes = self.shape(w)[SPATIAL..].to_vec();
        let mut sum = None;
        for tap in indices(&sizes) {
            let from: Vec<usize> = tap.iter().zip(&op.dilation).map(|(k, d)| k * d).collect();
            let part = self.slice(x, &from, counts, &op.stride);
            let shape = self.ty(part).shape;
            let element = self.slice(w, &tap, &vec![1; tap.len()], &vec![1; tap.len()]);
            let element = self.b.reshape(element, &[self.shape(x)[1]]);
            let element = self.b.broadcast(element, &shape, &[x.order[1]]);
            let product = self.b.mul(part, element);
            sum = self.b.add_some(sum, Some(product));
        }
        // A kernel has at least one element.
        let value = sum.unwrap_or(x.value);
        Permuted { value, order: x.order.clone(), anchored: false }
    }

    /// One sample and one result in a group, and few places for the kernel: for each of them the
    /// sum of a slice times the kernel. This is the gradient of the above.
    fn sums_of_products(
        &mut self,
        op: &Convolution,
        x: &Permuted,
        w: &Permuted,
        counts: &[usize],
    ) -> Permuted {
        let sizes = self.shape(w)[SPATIAL..].to_vec();
        // The kernel in the order of the input, its only result where the only sample is.
        let mut order = x.order.clone();
        order.swap(0, 1);
        let kernel = self.stored_as(w, &inverse(&order)).value;
        let groups = x.order[1];
        let dims: Vec<usize> = (0..x.order.len()).filter(|&d| d != groups).collect();
        let mut parts = Vec::new();
        for position in indices(counts) {
            let from: Vec<usize> = position.iter().zip(&op.stride).map(|(p, s)| p * s).collect();
            let part = self.slice(x, &from, &sizes, &op.dilation);
            let product = self.b.mul(part, kernel);
            let sum = self.b.sum(product, &dims);
            let size = self.ty(sum).shape[0];
            parts.push(self.b.reshape(sum, &[1, size]));
        }
        let all = self.b.concatenate(&parts, 0);
        let count = self.ty(all).shape[1];
        let shape = [&[1, 1][..], counts, &[count]].concat();
        let value = self.b.reshape(all, &shape);
        // [N, O, P…, G].
        let mut place = vec![0, 2];
        place.extend(SPATIAL..SPATIAL + counts.len());
        place.push(1);
        Permuted { value, order: inverse(&place), anchored: false }
    }

    /// `counts` elements at steps of `steps` from `from` on, in the spatial dimensions.
    fn slice(&mut self, x: &Permuted, from: &[usize], counts: &[usize], steps: &[usize]) -> Value {
        let stored = self.ty(x.value).shape;
        let rank = stored.len();
        let mut op = Slice { start: vec![0; rank], stride: vec![1; rank], limit: stored };
        for d in 0..from.len() {
            let at = x.order[d + SPATIAL];
            op.stride[at] = steps[d];
            // No elements lie anywhere.
            op.start[at] = if counts[d] == 0 { 0 } else { from[d] };
            op.limit[at] = op.start[at] + (counts[d] * steps[d]).saturating_sub(steps[d] - 1);
        }
        self.b.emit1(op, &[x.value])
    }
}

/// Every index of a shape, in row-major order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<'_> {
    let strides = ferrata_ir::row_major_strides(shape);
    (0..shape.iter().product()).map(move |i: usize| {
        strides.iter().zip(shape).map(|(stride, size)| i / stride % size).collect()
    })
}
