//! Convolution in any number of dimensions, with stride, dilation, padding, groups, and gaps
//! between the elements of its input. The three of them, forward and both gradients, are one.

use super::attribute::attributes;
use super::windows::window_count;
use super::{
    Dim, Factor, Loops, Operand, Rules, SumOfProducts, Tangents, bilinear, expect_inputs,
    not_linear,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// `x [N, G, C, S…]` and `w [G, O, C, K…]` give `y [N, G, O, P…]`: for each of `G` groups, `O`
/// results of `C` channels. In each spatial dimension
/// `y[p] = Σ_k x[(p · stride + k · dilation - low) / spread] w[k]`, where an index that is no whole
/// number, or outside of `x`, reads 0. Sums are accumulated in the dtype's accumulator type.
///
/// `spread` is 1 in an ordinary convolution; a transposed one of stride `s` is a convolution with
/// `spread` `s` and a reversed kernel. The result has a place for every position of the kernel
/// inside of the input, after `low` and `high` elements (cropped, if negative) are added to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Step of the kernel, per spatial dimension, at least 1.
    pub stride: Vec<usize>,
    /// Step from one element of the kernel to the next, at least 1.
    pub dilation: Vec<usize>,
    /// Step between the elements of the input, at least 1.
    pub spread: Vec<usize>,
    /// Zeros before the input; negative amounts crop.
    pub low: Vec<i64>,
    /// Zeros after the input; negative amounts crop.
    pub high: Vec<i64>,
}

attributes!(Convolution { stride, dilation, spread, low, high });

/// Dimensions before the spatial ones.
pub const SPATIAL: usize = 3;

impl Convolution {
    /// A convolution of unit steps without padding.
    pub fn plain(spatial: usize) -> Self {
        Convolution {
            stride: vec![1; spatial],
            dilation: vec![1; spatial],
            spread: vec![1; spatial],
            low: vec![0; spatial],
            high: vec![0; spatial],
        }
    }

    /// Number of spatial dimensions.
    pub fn spatial(&self) -> usize {
        self.stride.len()
    }

    /// Size of spatial dimension `d` with gaps and padding; `None` if it is negative.
    pub fn padded(&self, d: usize, size: usize) -> Option<usize> {
        let outside = i128::from(self.low[d]) + i128::from(self.high[d]);
        usize::try_from(i128::from(spread_over(size, self.spread[d])) + outside).ok()
    }

    /// Positions along spatial dimension `d` for an input and a kernel of these sizes; `None` if
    /// more is cropped than there is.
    pub fn positions(&self, d: usize, size: usize, kernel: usize) -> Option<usize> {
        let padded = self.padded(d, size)?;
        Some(window_count(padded, kernel, self.stride[d], self.dilation[d]))
    }

    /// The input's index in dimension `d` that position `p` and element `k` of the kernel meet.
    fn source(&self, d: usize, p: usize, k: usize, size: usize) -> Option<usize> {
        let at = (p * self.stride[d] + k * self.dilation[d]) as i64 - self.low[d];
        let step = self.spread[d] as i64;
        let inside = at >= 0 && at % step == 0 && at / step < size as i64;
        inside.then_some((at / step) as usize)
    }

    /// The convolution of the result's cotangent with the reversed kernel that gives the input's.
    fn of_input(&self, x: &Type, w: &Type, y: &Type) -> Convolution {
        let mut op = self.clone();
        for d in 0..self.spatial() {
            let at = d + SPATIAL;
            let reach = (w.shape[at] as i64 - 1) * self.dilation[d] as i64;
            (op.stride[d], op.spread[d]) = (self.spread[d], self.stride[d]);
            op.low[d] = reach - self.low[d];
            op.high[d] = spread_over(x.shape[at], self.spread[d]) + reach
                - spread_over(y.shape[at], self.stride[d])
                - op.low[d];
        }
        op
    }

    /// The convolution of the input with the result's cotangent that gives the kernel's.
    fn of_kernel(&self, x: &Type, w: &Type, y: &Type) -> Convolution {
        let mut op = self.clone();
        for d in 0..self.spatial() {
            let at = d + SPATIAL;
            (op.stride[d], op.dilation[d]) = (self.dilation[d], self.stride[d]);
            op.high[d] = spread_over(w.shape[at], self.dilation[d])
                + spread_over(y.shape[at], self.stride[d])
                - 1
                - spread_over(x.shape[at], self.spread[d])
                - self.low[d];
        }
        op
    }
}

/// Elements that `size` elements take at steps of `step`.
fn spread_over(size: usize, step: usize) -> i64 {
    if size == 0 { 0 } else { (size as i64 - 1) * step as i64 + 1 }
}

/// `[N, G, C, …]` as `[C, G, N, …]`.
fn exchanged(b: &mut Builder, x: Value, i: usize, j: usize) -> Value {
    let mut order: Vec<usize> = (0..b.ty(x).rank()).collect();
    order.swap(i, j);
    b.transpose(x, &order)
}

impl Rules for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let (x, w, n) = (inputs[0], inputs[1], self.spatial());
        let lengths = [self.dilation.len(), self.spread.len(), self.low.len(), self.high.len()];
        if lengths.iter().any(|&l| l != n) {
            return Err(Error::new("strides, dilations and paddings have different lengths"));
        }
        if x.rank() != n + SPATIAL || w.rank() != n + SPATIAL {
            return Err(Error::new(format!(
                "needs an input [batch, groups, channels, …] and a kernel [groups, results, \
                 channels, …] with {n} more dimensions each, but got {x} and {w}"
            )));
        }
        if x.dtype != w.dtype {
            return Err(Error::new(format!(
                "input and kernel have different dtypes {} and {}",
                x.dtype, w.dtype
            ))
            .help(format!("cast one of them, for example with .cast({})", x.dtype)));
        }
        if x.dtype == DType::Bool {
            return Err(Error::new("needs numbers, but got bool").help("cast first"));
        }
        if x.shape[1] != w.shape[0] || x.shape[2] != w.shape[2] {
            return Err(Error::new(format!(
                "the input {x} has {} groups of {} channels, but the kernel {w} takes {} groups \
                 of {}",
                x.shape[1], x.shape[2], w.shape[0], w.shape[2]
            )));
        }
        let mut shape = vec![x.shape[0], x.shape[1], w.shape[1]];
        for d in 0..n {
            if self.stride[d] == 0 || self.dilation[d] == 0 || self.spread[d] == 0 {
                return Err(Error::new("strides and dilations must be at least 1"));
            }
            let (size, kernel) = (x.shape[d + SPATIAL], w.shape[d + SPATIAL]);
            if kernel == 0 {
                return Err(Error::new(format!("the kernel {w} has no elements")));
            }
            shape.push(self.positions(d, size, kernel).ok_or_else(|| {
                let (low, high) = (self.low[d], self.high[d]);
                Error::new(format!("{low} and {high} crop more than there is of {size}"))
            })?);
        }
        Ok(vec![x.with_shape(shape)])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let w = inputs[1];
        let y = self.infer(inputs).ok()?.remove(0);
        let reduced = std::iter::once(&w.shape[2]).chain(&w.shape[SPATIAL..]);
        let factor = |reduced: bool| move |&size: &usize| Factor { size, reduced };
        let factors = y.shape.iter().map(factor(false)).chain(reduced.map(factor(true))).collect();
        let channel = y.rank();
        let mut left = vec![Dim::Factor(0), Dim::Factor(1), Dim::Factor(channel)];
        let mut right = vec![Dim::Factor(1), Dim::Factor(2), Dim::Factor(channel)];
        for d in 0..self.spatial() {
            let inner = channel + 1 + d;
            right.push(Dim::Factor(inner));
            left.push(Dim::Window {
                outer: d + SPATIAL,
                stride: self.stride[d],
                inner,
                dilation: self.dilation[d],
                low: self.low[d],
                spread: self.spread[d],
            });
        }
        let results = vec![(0..y.rank()).map(Dim::Factor).collect()];
        Some(Loops { factors, operands: vec![left, right], results, operations: 2.0 })
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let (x, w, y) = (inputs[0], inputs[1], outputs[0]);
        let strides = [&x.ty, &w.ty, y].map(|ty| row_major_strides(&ty.shape));
        let [from, by, to] = &strides;
        let taps: usize = w.ty.shape[SPATIAL..].iter().product();
        let tap_strides = row_major_strides(&w.ty.shape[SPATIAL..]);
        Ok(vec![Literal::build(y.clone(), |i| {
            let index: Vec<usize> = (0..y.rank()).map(|d| i / to[d] % y.shape[d]).collect();
            let mut sum = SumOfProducts::default();
            for tap in 0..taps {
                let place: Option<usize> = (0..self.spatial())
                    .map(|d| {
                        let at = d + SPATIAL;
                        let k = tap / tap_strides[d] % w.ty.shape[at];
                        Some(self.source(d, index[at], k, x.ty.shape[at])? * from[at])
                    })
                    .sum();
                let Some(place) = place else { continue };
                for c in 0..w.ty.shape[2] {
                    let l = index[0] * from[0] + index[1] * from[1] + c * from[2] + place;
                    let r = index[1] * by[0] + index[2] * by[1] + c * by[2] + tap;
                    sum.add(x.get(l), w.get(r));
                }
            }
            sum.of_dtype(y.dtype)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        bilinear(self, b, x, dx)
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return super::zero(2) };
        let (xt, wt, yt) = (inputs[0].ty(b), inputs[1].ty(b), b.ty(dy).clone());
        match (&inputs[0], &inputs[1]) {
            // A result without elements depends on nothing.
            (Operand::Linear(_), Operand::Known(_)) | (Operand::Known(_), Operand::Linear(_))
                if yt.elements() == 0 =>
            {
                super::zero(2)
            }
            (Operand::Linear(_), Operand::Known(w)) => {
                // [G, O, C, K] as [G, C, O, K], backwards.
                let w = exchanged(b, *w, 1, 2);
                let spatial: Vec<usize> = (SPATIAL..wt.rank()).collect();
                let w = b.flip(w, &spatial);
                let dx = b.emit1(self.of_input(&xt, &wt, &yt), &[dy, w]);
                Ok(vec![Some(dx), None])
            }
            (Operand::Known(x), Operand::Linear(_)) => {
                // The batch is what is summed over: x [C, G, N, S], dy [G, O, N, P] give
                // [C, G, O, K].
                let x = exchanged(b, *x, 0, 2);
                let mut order: Vec<usize> = (0..yt.rank()).collect();
                order[..SPATIAL].copy_from_slice(&[1, 2, 0]);
                let dy = b.transpose(dy, &order);
                let dw = b.emit1(self.of_kernel(&xt, &wt, &yt), &[x, dy]);
                Ok(vec![None, Some(b.transpose(dw, &order))])
            }
            _ => not_linear(),
        }
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let (x, w) = (inputs[0], inputs[1]);
        // The new dimension joins the batch, the results or, if both have it, the groups.
        let join = |b: &mut Builder, v: Value, at: usize| {
            let v = b.move_dim(v, 0, at);
            let mut shape = b.ty(v).shape.clone();
            let inner = shape.remove(at + 1);
            shape[at] *= inner;
            b.reshape(v, &shape)
        };
        let part = |b: &mut Builder, y: Value, at: usize| {
            let mut shape = b.ty(y).shape.clone();
            // There may be no samples at all.
            shape[at] = shape[at].checked_div(size).unwrap_or(0);
            shape.insert(at, size);
            let y = b.reshape(y, &shape);
            b.move_dim(y, at, 0)
        };
        let (x, w, at) = match (batched[0], batched[1]) {
            (true, true) => (join(b, x, 1), join(b, w, 0), 1),
            (true, false) => (join(b, x, 0), w, 0),
            _ => (x, join(b, w, 1), 2),
        };
        let y = b.emit1(self.clone(), &[x, w]);
        Ok(vec![part(b, y, at)])
    }
}
