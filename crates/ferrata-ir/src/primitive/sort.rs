//! Sorting along a dimension.

use super::attribute::attributes;
use super::{BadIndex, Loops, Operand, Rules, Tangents, expect_dim, expect_inputs, not_linear};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};
use std::cmp::Ordering;

/// Sorted values and their former indices (i64) along `dim`. Stable; NaN counts as the largest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// Along which dimension.
    pub dim: usize,
    /// Whether the largest comes first.
    pub descending: bool,
}

attributes!(Sort { dim, descending });

/// The `k` largest or smallest values along `dim`, the most extreme first, and their indices
/// (i64). Among equals the first ones; NaN counts as the largest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopK {
    /// How many.
    pub k: usize,
    /// Along which dimension.
    pub dim: usize,
    /// Whether the largest are wanted, else the smallest.
    pub largest: bool,
}

attributes!(TopK { k, dim, largest });

/// The order of values in which NaN is the largest.
pub fn compare(x: Scalar, y: Scalar) -> Ordering {
    match (x, y) {
        (Scalar::Float(x), Scalar::Float(y)) => {
            x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
        }
        (x, y) => x.as_i64().cmp(&y.as_i64()),
    }
}

/// The first `k` of the sorted elements along `dim`, and their indices.
fn first(x: &Literal, k: usize, dim: usize, descending: bool, outputs: &[&Type]) -> Vec<Literal> {
    let (size, stride) = (x.ty.shape[dim], row_major_strides(&x.ty.shape)[dim]);
    let to = row_major_strides(&outputs[0].shape)[dim];
    let mut places = vec![0; outputs[0].elements()];
    let mut order: Vec<usize> = Vec::new();
    for line in 0..x.ty.elements() / size.max(1) {
        let at = |i: usize| x.get(line / stride * stride * size + line % stride + i * stride);
        order.clear();
        order.extend(0..size);
        order.sort_by(|&i, &j| {
            let ascending = compare(at(i), at(j));
            if descending { ascending.reverse() } else { ascending }
        });
        for (n, &i) in order.iter().take(k).enumerate() {
            places[line / to * to * k + line % to + n * to] = i;
        }
    }
    let values = Literal::build(outputs[0].clone(), |i| {
        let line = i / (to * k) * to + i % to;
        x.get(line / stride * stride * size + line % stride + places[i] * stride)
    });
    vec![values, Literal::build(outputs[1].clone(), |i| Scalar::Int(places[i] as i64))]
}

/// The rules that sort and top-k share: the tangent of a value comes from where the value was.
macro_rules! by_place {
    () => {
        fn loops(&self, _: &[&Type]) -> Option<Loops> {
            None
        }

        fn jvp(
            &self,
            b: &mut Builder,
            _: &[Value],
            y: &mut Vec<Value>,
            dx: &[Option<Value>],
        ) -> Result<Tangents> {
            let d = dx[0].map(|d| b.take_along(d, y[1], self.dim, BadIndex::Clip));
            Ok(vec![d, None])
        }

        fn transpose(
            &self,
            _: &mut Builder,
            _: &[Operand],
            _: &[Option<Value>],
        ) -> Result<Tangents> {
            not_linear()
        }

        fn batch(
            &self,
            b: &mut Builder,
            inputs: &[Value],
            _: &[bool],
            _: usize,
        ) -> Result<Vec<Value>> {
            Ok(b.emit(Self { dim: self.dim + 1, ..self.clone() }, inputs))
        }
    };
}

impl Rules for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        expect_dim(inputs[0], self.dim)?;
        Ok(vec![inputs[0].clone(), inputs[0].with_dtype(DType::I64)])
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let size = inputs[0].ty.shape[self.dim];
        Ok(first(inputs[0], size, self.dim, self.descending, outputs))
    }

    by_place!();
}

impl Rules for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        expect_dim(inputs[0], self.dim)?;
        let mut shape = inputs[0].shape.clone();
        if self.k > shape[self.dim] {
            let (k, d, x) = (self.k, self.dim, inputs[0]);
            return Err(Error::new(format!("dimension {d} of {x} has no {k} elements")));
        }
        shape[self.dim] = self.k;
        let values = inputs[0].with_shape(shape);
        let places = values.with_dtype(DType::I64);
        Ok(vec![values, places])
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        Ok(first(inputs[0], self.k, self.dim, self.largest, outputs))
    }

    by_place!();
}
