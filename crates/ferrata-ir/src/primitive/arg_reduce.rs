//! The place of the largest or smallest element along a dimension.

use super::attribute::{attribute_words, attributes};
use super::{Loops, Rules, expect_dim, expect_inputs, integer_results};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// Which end of the order is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extremum {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

attribute_words!(Extremum { Max => "max", Min => "min" });

/// Index (i64) of the extreme element along `dim`, which disappears. The first one among equals;
/// NaN is more extreme than every number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgReduce {
    /// Largest or smallest.
    pub kind: Extremum,
    /// Along which dimension.
    pub dim: usize,
}

attributes!(ArgReduce { kind, dim });

impl Extremum {
    /// Whether `x` is strictly more extreme than `best`.
    pub fn beats(self, x: Scalar, best: Scalar) -> bool {
        match (x, best) {
            (Scalar::Float(x), Scalar::Float(best)) => match self {
                _ if best.is_nan() => false,
                _ if x.is_nan() => true,
                Extremum::Max => x > best,
                Extremum::Min => x < best,
            },
            (x, best) => match self {
                Extremum::Max => x.as_i64() > best.as_i64(),
                Extremum::Min => x.as_i64() < best.as_i64(),
            },
        }
    }
}

impl Rules for ArgReduce {
    fn name(&self) -> &'static str {
        "arg_reduce"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        expect_dim(inputs[0], self.dim)?;
        let mut shape = inputs[0].shape.clone();
        if shape.remove(self.dim) == 0 {
            let (d, x) = (self.dim, inputs[0]);
            return Err(Error::new(format!("dimension {d} of {x} has no element to choose")));
        }
        Ok(vec![Type::new(DType::I64, shape)])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        // Partial results are pairs of value and place, so they cannot be combined as results.
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let x = inputs[0];
        let stride = row_major_strides(&x.ty.shape)[self.dim];
        let size = x.ty.shape[self.dim];
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            let line = i / stride * stride * size + i % stride;
            let at = |k: usize| x.get(line + k * stride);
            let best = (1..size)
                .fold(0, |best, k| if self.kind.beats(at(k), at(best)) { k } else { best });
            Scalar::Int(best as i64)
        })])
    }

    integer_results!();

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(ArgReduce { dim: self.dim + 1, ..self.clone() }, inputs))
    }
}
