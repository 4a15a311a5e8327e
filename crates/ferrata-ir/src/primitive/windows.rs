//! Sliding windows of a dimension. Linear, and only a way to look at the operand.

use super::attribute::attributes;
use super::view::{Pad, moving};
use super::{Dim, Loops, Operand, Rules, Tangents, expect_dim, expect_inputs, linear};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// Dimension `dim` becomes two, (windows, `size`): element `j` of window `i` is element
/// `i · stride + j · dilation` of the operand. There are as many windows as lie inside.
///
/// Sums, maxima and products over the second one are pooling and convolution; the windows
/// themselves are "unfold", their transpose, which adds what overlaps, is "fold".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Which dimension.
    pub dim: usize,
    /// Elements of a window, at least 1.
    pub size: usize,
    /// Step from one window to the next, at least 1.
    pub stride: usize,
    /// Step from one element of a window to the next, at least 1.
    pub dilation: usize,
}

attributes!(Windows { dim, size, stride, dilation });

/// How many windows of `size` elements lie inside of `length` elements.
pub fn window_count(length: usize, size: usize, stride: usize, dilation: usize) -> usize {
    let span = (size - 1).saturating_mul(dilation).saturating_add(1);
    if length < span { 0 } else { (length - span) / stride + 1 }
}

impl Windows {
    /// Shape of the windows of an operand.
    pub fn shape(&self, of: &[usize]) -> Vec<usize> {
        let mut shape = of.to_vec();
        shape[self.dim] = window_count(shape[self.dim], self.size, self.stride, self.dilation);
        shape.insert(self.dim + 1, self.size);
        shape
    }

    /// What index `i` of dimension `dim` of `x`, put back every `step`-th element from `low` on,
    /// adds to the operand's dimension of `length` elements.
    fn put(
        &self,
        b: &mut Builder,
        dy: Value,
        (dim, i): (usize, usize),
        (step, low): (usize, usize),
        length: usize,
    ) -> Value {
        let x = b.slice_dim(dy, dim, i, i + 1);
        let mut shape = b.ty(x).shape.clone();
        shape.remove(dim);
        let x = b.reshape(x, &shape);
        let covered = (shape[self.dim] - 1) * step + 1;
        self.pad(b, x, low, length as i64 - (low + covered) as i64, step - 1)
    }

    fn pad(&self, b: &mut Builder, x: Value, low: usize, high: i64, interior: usize) -> Value {
        let rank = b.ty(x).rank();
        let mut op = Pad { low: vec![0; rank], high: vec![0; rank], interior: vec![0; rank] };
        (op.low[self.dim], op.high[self.dim], op.interior[self.dim]) = (low as i64, high, interior);
        let zero = b.full(Type::scalar(b.ty(x).dtype), 0.0);
        b.emit1(op, &[x, zero])
    }

    /// The sum of what all windows say of each of `length` elements.
    pub(crate) fn fold(&self, b: &mut Builder, dy: Value, length: usize) -> Value {
        let shape = b.ty(dy).shape.clone();
        let count = shape[self.dim];
        if count == 0 {
            let mut shape = shape;
            shape.remove(self.dim + 1);
            shape[self.dim] = length;
            return b.full(b.ty(dy).with_shape(shape), 0.0);
        }
        if self.dilation == 1 && self.stride >= self.size {
            // Windows that do not overlap stand side by side.
            let mut side = Windows { dim: self.dim + 1, ..self.clone() };
            let wide = side.pad(b, dy, 0, (self.stride - self.size) as i64, 0);
            let mut shape = shape;
            shape.remove(self.dim + 1);
            shape[self.dim] = count * self.stride;
            side.dim = self.dim;
            let all = b.reshape(wide, &shape);
            return side.pad(b, all, 0, length as i64 - (count * self.stride) as i64, 0);
        }
        let parts: Vec<Value> = if self.size <= count {
            let at = |j| ((self.dim + 1, j), (self.stride, j * self.dilation));
            (0..self.size).map(at).map(|(from, to)| self.put(b, dy, from, to, length)).collect()
        } else {
            let at = |i| ((self.dim, i), (self.dilation, i * self.stride));
            (0..count).map(at).map(|(from, to)| self.put(b, dy, from, to, length)).collect()
        };
        let first = parts[0];
        parts[1..].iter().fold(first, |sum, &part| b.add(sum, part))
    }
}

impl Rules for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        expect_dim(inputs[0], self.dim)?;
        if self.size == 0 || self.stride == 0 || self.dilation == 0 {
            return Err(Error::new(format!(
                "windows of {} elements, {} apart, at steps of {}: all three must be at least 1",
                self.size, self.dilation, self.stride
            )));
        }
        Ok(vec![inputs[0].with_shape(self.shape(&inputs[0].shape))])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let shape = self.shape(&inputs[0].shape);
        let mut operand: Vec<Dim> =
            (0..shape.len()).filter(|&d| d != self.dim + 1).map(Dim::Factor).collect();
        operand[self.dim] = Dim::Window {
            outer: self.dim,
            stride: self.stride,
            inner: self.dim + 1,
            dilation: self.dilation,
            low: 0,
            spread: 1,
        };
        Some(moving(&shape, vec![operand]))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let (x, ty) = (inputs[0], outputs[0]);
        let (from, to) = (row_major_strides(&x.ty.shape), row_major_strides(&ty.shape));
        let (inner, length) = (from[self.dim], x.ty.shape[self.dim]);
        Ok(vec![Literal::build(ty.clone(), |i| {
            let outer = i / to[self.dim] / ty.shape[self.dim];
            let window = i / to[self.dim] % ty.shape[self.dim];
            let element = i / to[self.dim + 1] % self.size;
            let along = window * self.stride + element * self.dilation;
            x.get((outer * length + along) * inner + i % inner)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        linear(dx, |d| b.emit1(self.clone(), &[d]))
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let length = inputs[0].ty(b).shape[self.dim];
        linear(dy, |d| self.fold(b, d, length))
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(Windows { dim: self.dim + 1, ..self.clone() }, inputs))
    }
}
