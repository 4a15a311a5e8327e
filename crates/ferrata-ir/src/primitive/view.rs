//! Primitives that only move elements: broadcast, reshape, transpose, slice, reverse, pad,
//! concatenate. All are linear.

use super::attribute::attributes;
use super::{Dim, Factor, Loops, Operand, Rules, Tangents, expect_inputs, linear};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// Operand dimension `i` becomes result dimension `dims[i]`; a dimension of size 1 is repeated to
/// the result's size, and result dimensions that are in no `dims` are repeated too. `dims` rises.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broadcast {
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// For each operand dimension, its place in the result.
    pub dims: Vec<usize>,
}

attributes!(Broadcast { shape, dims });

/// The same elements, row-major, in another shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reshape {
    /// Shape of the result.
    pub shape: Vec<usize>,
}

attributes!(Reshape { shape });

/// Dimension `i` of the result is dimension `permutation[i]` of the operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transpose {
    /// A permutation of the operand's dimensions.
    pub permutation: Vec<usize>,
}

attributes!(Transpose { permutation });

/// Elements `start, start + stride, …` below `limit`, in each dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// First index, per dimension.
    pub start: Vec<usize>,
    /// End (exclusive), per dimension.
    pub limit: Vec<usize>,
    /// Step, per dimension, at least 1.
    pub stride: Vec<usize>,
}

attributes!(Slice { start, limit, stride });

/// The dimensions `dims` run backwards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reverse {
    /// Rising list of dimensions.
    pub dims: Vec<usize>,
}

attributes!(Reverse { dims });

/// Surrounds the first operand with copies of the second, a scalar: `low` before and `high` after
/// each dimension (negative amounts crop), `interior` between neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Amount before each dimension.
    pub low: Vec<i64>,
    /// Amount after each dimension.
    pub high: Vec<i64>,
    /// Amount between neighbours in each dimension, not negative.
    pub interior: Vec<usize>,
}

attributes!(Pad { low, high, interior });

/// The operands one after the other along `dim`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concatenate {
    /// The dimension along which sizes add up.
    pub dim: usize,
}

attributes!(Concatenate { dim });

/// Builds a literal whose element at an index is the source's element at the mapped index.
fn remap(x: &Literal, ty: &Type, source: impl Fn(&[usize]) -> usize) -> Literal {
    let strides = row_major_strides(&ty.shape);
    let mut index = vec![0; ty.rank()];
    Literal::build(ty.clone(), |i| {
        for (d, slot) in index.iter_mut().enumerate() {
            *slot = i / strides[d] % ty.shape[d];
        }
        x.get(source(&index))
    })
}

fn parallel(shape: &[usize]) -> Vec<Factor> {
    shape.iter().map(|&size| Factor { size, reduced: false }).collect()
}

/// A nest over the result's dimensions that only moves elements.
pub(super) fn moving(shape: &[usize], operands: Vec<Vec<Dim>>) -> Loops {
    let result = (0..shape.len()).map(Dim::Factor).collect();
    Loops { factors: parallel(shape), operands, results: vec![result], operations: 0.0 }
}

impl Rules for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let (x, to) = (inputs[0], &self.shape);
        let rises = self.dims.windows(2).all(|w| w[0] < w[1]);
        if self.dims.len() != x.rank() || !rises || self.dims.iter().any(|&d| d >= to.len()) {
            let dims = &self.dims;
            return Err(Error::new(format!("dimensions {dims:?} do not place {x} in {to:?}")));
        }
        for (i, &d) in self.dims.iter().enumerate() {
            if x.shape[i] != 1 && x.shape[i] != to[d] {
                return Err(Error::new(format!(
                    "cannot broadcast {:?} to {to:?}: dimension {i} is {}, not 1 or {}",
                    x.shape, x.shape[i], to[d]
                )));
            }
        }
        Ok(vec![x.with_shape(to.clone())])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let at = |(i, &d): (usize, &usize)| {
            if inputs[0].shape[i] == self.shape[d] { Dim::Factor(d) } else { Dim::One }
        };
        Some(moving(&self.shape, vec![self.dims.iter().enumerate().map(at).collect()]))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let x = inputs[0];
        let strides = row_major_strides(&x.ty.shape);
        Ok(vec![remap(x, outputs[0], |index| {
            let at = |(i, &d): (usize, &usize)| {
                if x.ty.shape[i] == 1 { 0 } else { index[d] * strides[i] }
            };
            self.dims.iter().enumerate().map(at).sum()
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
        let shape = inputs[0].ty(b).shape;
        let kept = |d: usize| self.dims.iter().position(|&k| k == d);
        let repeated: Vec<usize> = (0..self.shape.len())
            .filter(|&d| kept(d).is_none_or(|i| shape[i] != self.shape[d]))
            .collect();
        linear(dy, |d| {
            let sum = b.sum(d, &repeated);
            b.reshape(sum, &shape)
        })
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        _: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let mut shape = vec![size];
        shape.extend(&self.shape);
        let mut dims = vec![0];
        dims.extend(self.dims.iter().map(|d| d + 1));
        Ok(b.emit(Broadcast { shape, dims }, inputs))
    }
}

impl Reshape {
    /// Groups of operand and result dimensions with equal products, in order.
    pub fn groups(from: &[usize], to: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut groups = Vec::new();
        let (mut i, mut j) = (0, 0);
        while i < from.len() || j < to.len() {
            let (mut a, mut b) = (1usize, 1usize);
            let (start_i, start_j) = (i, j);
            // Equal dimensions belong together, those of size 1 too.
            if i < from.len() && j < to.len() && from[i] == to[j] {
                groups.push((vec![i], vec![j]));
                (i, j) = (i + 1, j + 1);
                continue;
            }
            loop {
                if a == b && (i > start_i || j > start_j) && (a > 1 || (i > start_i && j > start_j))
                {
                    break;
                }
                if (a <= b && i < from.len()) || j >= to.len() {
                    if i >= from.len() {
                        break;
                    }
                    a *= from[i];
                    i += 1;
                } else {
                    b *= to[j];
                    j += 1;
                }
            }
            groups.push(((start_i..i).collect(), (start_j..j).collect()));
        }
        groups
    }

    /// The loops of a reshape of this shape: a group of 1:n or n:1 dimensions splits or merges. An
    /// n:m group has no common factors; each of its dimensions gets a factor of its own, and
    /// these are named.
    pub(crate) fn nest(&self, from: &[usize]) -> (Loops, Vec<usize>) {
        let mut loops = Loops {
            factors: vec![],
            operands: vec![vec![]],
            results: vec![vec![]],
            operations: 0.0,
        };
        let mut apart = Vec::new();
        for (split, joined) in Reshape::groups(from, &self.shape) {
            let (fine, fine_shape) = if split.len() > joined.len() {
                (&split, from)
            } else {
                (&joined, &self.shape[..])
            };
            if split.len() > 1 && joined.len() > 1 {
                for (dims, shape, all) in [
                    (&split, from, &mut loops.operands[0]),
                    (&joined, &self.shape[..], &mut loops.results[0]),
                ] {
                    for &d in dims {
                        apart.push(loops.factors.len());
                        all.push(Dim::Factor(loops.factors.len()));
                        loops.factors.push(Factor { size: shape[d], reduced: false });
                    }
                }
                continue;
            }
            let first = loops.factors.len();
            loops
                .factors
                .extend(parallel(&fine.iter().map(|&d| fine_shape[d]).collect::<Vec<_>>()));
            let ids: Vec<usize> = (first..loops.factors.len()).collect();
            let dims = |n: usize| -> Vec<Dim> {
                match n {
                    0 => vec![],
                    1 if ids.len() != 1 => vec![Dim::Merged(ids.clone())],
                    _ => ids.iter().map(|&f| Dim::Factor(f)).collect(),
                }
            };
            loops.operands[0].extend(dims(split.len()));
            loops.results[0].extend(dims(joined.len()));
        }
        (loops, apart)
    }
}

impl Rules for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let result = inputs[0].with_shape(self.shape.clone());
        let (from, to) = (inputs[0].elements(), result.elements());
        if from != to {
            let (x, shape) = (inputs[0], &self.shape);
            return Err(Error::new(format!(
                "cannot reshape {x} with {from} elements to {shape:?} with {to}"
            )));
        }
        Ok(vec![result])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let (loops, apart) = self.nest(&inputs[0].shape);
        apart.is_empty().then_some(loops)
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        Ok(vec![Literal { ty: outputs[0].clone(), elements: inputs[0].elements.clone() }])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        linear(dx, |d| b.reshape(d, &self.shape))
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let shape = inputs[0].ty(b).shape;
        linear(dy, |d| b.reshape(d, &shape))
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        _: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let mut shape = vec![size];
        shape.extend(&self.shape);
        Ok(b.emit(Reshape { shape }, inputs))
    }
}

impl Rules for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if sorted != (0..inputs[0].rank()).collect::<Vec<_>>() {
            let (p, x) = (&self.permutation, inputs[0]);
            return Err(Error::new(format!("{p:?} is no permutation of the dimensions of {x}")));
        }
        let shape: Vec<usize> = self.permutation.iter().map(|&d| inputs[0].shape[d]).collect();
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let shape: Vec<usize> = self.permutation.iter().map(|&d| inputs[0].shape[d]).collect();
        Some(moving(&shape, vec![self.inverse().into_iter().map(Dim::Factor).collect()]))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let strides = row_major_strides(&inputs[0].ty.shape);
        Ok(vec![remap(inputs[0], outputs[0], |index| {
            index.iter().zip(&self.permutation).map(|(i, &d)| i * strides[d]).sum()
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        linear(dx, |d| b.transpose(d, &self.permutation))
    }

    fn transpose(&self, b: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        let inverse = self.inverse();
        linear(dy, |d| b.transpose(d, &inverse))
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        let mut permutation = vec![0];
        permutation.extend(self.permutation.iter().map(|d| d + 1));
        Ok(b.emit(Transpose { permutation }, inputs))
    }
}

impl Transpose {
    fn inverse(&self) -> Vec<usize> {
        let mut inverse = vec![0; self.permutation.len()];
        for (i, &d) in self.permutation.iter().enumerate() {
            inverse[d] = i;
        }
        inverse
    }
}

impl Slice {
    fn shape(&self) -> Vec<usize> {
        let dims = self.start.iter().zip(&self.limit).zip(&self.stride);
        dims.map(|((&s, &l), &step)| (l - s).div_ceil(step)).collect()
    }
}

impl Rules for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let x = inputs[0];
        if [&self.start, &self.limit, &self.stride].iter().any(|v| v.len() != x.rank()) {
            return Err(Error::new(format!("needs one range for each dimension of {x}")));
        }
        for d in 0..x.rank() {
            let (s, l, step) = (self.start[d], self.limit[d], self.stride[d]);
            if s > l || l > x.shape[d] || step == 0 {
                return Err(Error::new(format!(
                    "range {s}..{l} with step {step} does not fit dimension {d} of {x}"
                )));
            }
        }
        Ok(vec![x.with_shape(self.shape())])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let dims = (0..inputs[0].rank()).map(|d| Dim::Affine {
            factor: d,
            stride: self.stride[d] as isize,
            offset: self.start[d] as isize,
        });
        Some(moving(&self.shape(), vec![dims.collect()]))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let strides = row_major_strides(&inputs[0].ty.shape);
        Ok(vec![remap(inputs[0], outputs[0], |index| {
            (0..index.len()).map(|d| (self.start[d] + index[d] * self.stride[d]) * strides[d]).sum()
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
        let ty = inputs[0].ty(b);
        let mut pad = Pad { low: vec![], high: vec![], interior: vec![] };
        for (d, kept) in self.shape().into_iter().enumerate() {
            let covered = kept.saturating_sub(1) * self.stride[d] + kept.min(1);
            pad.low.push(self.start[d] as i64);
            pad.high.push((ty.shape[d] - self.start[d] - covered) as i64);
            pad.interior.push(self.stride[d] - 1);
        }
        linear(dy, |d| {
            let zero = b.full(Type::scalar(ty.dtype), 0.0);
            b.emit1(pad.clone(), &[d, zero])
        })
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        _: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let mut op = self.clone();
        op.start.insert(0, 0);
        op.limit.insert(0, size);
        op.stride.insert(0, 1);
        Ok(b.emit(op, inputs))
    }
}

impl Rules for Reverse {
    fn name(&self) -> &'static str {
        "reverse"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        for &d in &self.dims {
            super::expect_dim(inputs[0], d)?;
        }
        Ok(vec![inputs[0].clone()])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let shape = &inputs[0].shape;
        let dims = (0..shape.len()).map(|d| {
            if !self.dims.contains(&d) {
                return Dim::Factor(d);
            }
            Dim::Affine { factor: d, stride: -1, offset: shape[d] as isize - 1 }
        });
        Some(moving(shape, vec![dims.collect()]))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let shape = &inputs[0].ty.shape;
        let strides = row_major_strides(shape);
        Ok(vec![remap(inputs[0], outputs[0], |index| {
            let at =
                |d: usize| if self.dims.contains(&d) { shape[d] - 1 - index[d] } else { index[d] };
            (0..index.len()).map(|d| at(d) * strides[d]).sum()
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

    fn transpose(&self, b: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        linear(dy, |d| b.emit1(self.clone(), &[d]))
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(Reverse { dims: self.dims.iter().map(|d| d + 1).collect() }, inputs))
    }
}

impl Rules for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let x = inputs[0];
        if *inputs[1] != Type::scalar(x.dtype) {
            return Err(Error::new(format!("fill value is {}, not {}[]", inputs[1], x.dtype)));
        }
        if self.low.len() != x.rank()
            || self.high.len() != x.rank()
            || self.interior.len() != x.rank()
        {
            return Err(Error::new(format!("needs amounts for each dimension of {x}")));
        }
        let mut shape = Vec::new();
        for d in 0..x.rank() {
            // No sum of these overflows 128 bits.
            let gaps = x.shape[d].saturating_sub(1) as i128 * self.interior[d] as i128;
            let outside = i128::from(self.low[d]) + i128::from(self.high[d]);
            let size = usize::try_from(x.shape[d] as i128 + gaps + outside);
            shape.push(
                size.map_err(|_| Error::new(format!("amounts do not fit dimension {d} of {x}")))?,
            );
        }
        Ok(vec![x.with_shape(shape)])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let (x, fill, ty) = (inputs[0], inputs[1].get(0), outputs[0]);
        let (from, to) = (row_major_strides(&x.ty.shape), row_major_strides(&ty.shape));
        Ok(vec![Literal::build(ty.clone(), |i| {
            let mut at = 0;
            for d in 0..ty.rank() {
                let index = (i / to[d] % ty.shape[d]) as i64 - self.low[d];
                let step = self.interior[d] as i64 + 1;
                if index < 0 || index % step != 0 || index / step >= x.ty.shape[d] as i64 {
                    return fill;
                }
                at += (index / step) as usize * from[d];
            }
            x.get(at)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if dx.iter().all(Option::is_none) {
            return super::zero(1);
        }
        let inner = dx[0].unwrap_or_else(|| b.zeros_like(x[0]));
        let fill = dx[1].unwrap_or_else(|| b.zeros_like(x[1]));
        Ok(vec![Some(b.emit1(self.clone(), &[inner, fill]))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return super::zero(2) };
        let ty = inputs[0].ty(b);
        let zero = b.full(Type::scalar(ty.dtype), 0.0);
        // Undo the outer padding by the opposite one, then pick every (interior + 1)-th element.
        let crop = Pad {
            low: self.low.iter().map(|l| -l).collect(),
            high: self.high.iter().map(|h| -h).collect(),
            interior: vec![0; ty.rank()],
        };
        let middle = b.emit1(crop, &[dy, zero]);
        let shape = b.ty(middle).shape.clone();
        let stride = self.interior.iter().map(|i| i + 1).collect();
        let inner = b.emit1(Slice { start: vec![0; ty.rank()], limit: shape, stride }, &[middle]);
        let fill = inputs[1].is_linear().then(|| {
            let all: Vec<usize> = (0..ty.rank()).collect();
            let (total, kept) = (b.sum(dy, &all), b.sum(inner, &all));
            b.sub(total, kept)
        });
        Ok(vec![inputs[0].is_linear().then_some(inner), fill])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let mut op = self.clone();
        op.low.insert(0, 0);
        op.high.insert(0, 0);
        op.interior.insert(0, 0);
        let x = if batched[0] { inputs[0] } else { b.add_batch(inputs[0], size) };
        if !batched[1] {
            return Ok(b.emit(op, &[x, inputs[1]]));
        }
        // A fill value for each sample: pad with a marker, then choose.
        let ones = b.full(b.ty(x).with_dtype(crate::DType::Bool), 1i64);
        let no = b.full(Type::scalar(crate::DType::Bool), 0i64);
        let zero = b.full(Type::scalar(b.ty(x).dtype), 0.0);
        let inside = b.emit1(op.clone(), &[ones, no]);
        let padded = b.emit1(op, &[x, zero]);
        let shape = b.ty(padded).shape.clone();
        let fill = b.broadcast(inputs[1], &shape, &[0]);
        Ok(vec![b.select(inside, padded, fill)])
    }
}

impl Rules for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        let Some(first) = inputs.first() else { return Err(Error::new("needs an operand")) };
        super::expect_dim(first, self.dim)?;
        let mut shape = first.shape.clone();
        shape[self.dim] = 0;
        for ty in inputs {
            let fits = ty.rank() == first.rank()
                && (0..ty.rank()).all(|d| d == self.dim || ty.shape[d] == first.shape[d]);
            if ty.dtype != first.dtype || !fits {
                return Err(Error::new(format!(
                    "{ty} does not fit {first} in all dimensions but {}",
                    self.dim
                )));
            }
            shape[self.dim] = shape[self.dim].saturating_add(ty.shape[self.dim]);
        }
        Ok(vec![first.with_shape(shape)])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let ty = outputs[0];
        let strides = row_major_strides(&ty.shape);
        Ok(vec![Literal::build(ty.clone(), |i| {
            let mut along = i / strides[self.dim] % ty.shape[self.dim];
            let mut k = 0;
            while along >= inputs[k].ty.shape[self.dim] {
                along -= inputs[k].ty.shape[self.dim];
                k += 1;
            }
            let inner = strides[self.dim];
            let outer = i / (inner * ty.shape[self.dim]);
            inputs[k].get((outer * inputs[k].ty.shape[self.dim] + along) * inner + i % inner)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if dx.iter().all(Option::is_none) {
            return super::zero(1);
        }
        let parts: Vec<Value> =
            x.iter().zip(dx).map(|(&x, d)| d.unwrap_or_else(|| b.zeros_like(x))).collect();
        Ok(vec![Some(b.emit1(self.clone(), &parts))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return super::zero(inputs.len()) };
        let mut start = 0;
        let mut cotangents = Vec::new();
        for operand in inputs {
            let size = operand.ty(b).shape[self.dim];
            let part = || b.slice_dim(dy, self.dim, start, start + size);
            cotangents.push(operand.is_linear().then(part));
            start += size;
        }
        Ok(cotangents)
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(Concatenate { dim: self.dim + 1 }, &inputs))
    }
}
