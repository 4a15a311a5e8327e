//! Primitives that pass values through: gradient stops, recompute barriers, debug prints, names of
//! dimensions.

use super::attribute::attributes;
use super::{Loops, Operand, Rules, Tangents, expect_inputs, linear, not_linear, zero};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::Type;

/// Identity whose derivative is zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StopGradient {}

attributes!(StopGradient {});

/// Identity on several values that no pass may look through: what is computed from its results is
/// computed again, even where the same computation from its inputs exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Barrier {}

attributes!(Barrier {});

/// Identity that shows its operand to the user when it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DebugPrint {
    /// Shown before the value.
    pub label: String,
}

attributes!(DebugPrint { label });

/// Identity that names the dimensions of its operand, so that whoever lays a program out on a mesh
/// can say how values that no parameter determines are cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Annotate {
    /// One name for each dimension, separated by commas; `-` for those that have none.
    pub names: String,
}

attributes!(Annotate { names });

impl Rules for Annotate {
    fn name(&self) -> &'static str {
        "annotate"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let (names, rank) = (self.names.split(',').count(), inputs[0].rank());
        match names == rank {
            true => Ok(vec![inputs[0].clone()]),
            false => Err(Error::new(format!("{names} names for the {rank} dimensions"))),
        }
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        Some(Loops { operations: 0.0, ..Loops::elementwise(&inputs[0].shape, 1) })
    }

    fn evaluate(&self, _: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        Ok(vec![inputs[0].clone()])
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
        Ok(b.emit(Annotate { names: format!("-,{}", self.names) }, inputs))
    }
}

impl Rules for StopGradient {
    fn name(&self) -> &'static str {
        "stop_gradient"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        Ok(vec![inputs[0].clone()])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        Some(Loops { operations: 0.0, ..Loops::elementwise(&inputs[0].shape, 1) })
    }

    fn evaluate(&self, _: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        Ok(vec![inputs[0].clone()])
    }

    fn jvp(
        &self,
        _: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        _: &[Option<Value>],
    ) -> Result<Tangents> {
        zero(1)
    }

    fn transpose(&self, _: &mut Builder, _: &[Operand], _: &[Option<Value>]) -> Result<Tangents> {
        not_linear()
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}

impl Rules for Barrier {
    fn name(&self) -> &'static str {
        "barrier"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        Ok(inputs.iter().map(|&t| t.clone()).collect())
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(&self, _: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        Ok(inputs.iter().map(|&x| x.clone()).collect())
    }

    fn jvp(
        &self,
        _: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        Ok(dx.to_vec())
    }

    fn transpose(&self, _: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        Ok(dy.to_vec())
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(self.clone(), &inputs))
    }
}

impl Rules for DebugPrint {
    fn name(&self) -> &'static str {
        "debug_print"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        Ok(vec![inputs[0].clone()])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(&self, cx: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        cx.show(&self.label, inputs[0]);
        Ok(vec![inputs[0].clone()])
    }

    fn jvp(
        &self,
        _: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        Ok(dx.to_vec())
    }

    fn transpose(&self, _: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        Ok(dy.to_vec())
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}
