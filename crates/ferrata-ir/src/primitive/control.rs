//! Calls, branches, and the placeholder for a composite's own derivative.

mod cond;

use super::attribute::attributes;
use super::{Loops, Operand, Rules, Tangents, not_linear};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Function, Value};
use crate::transform::{batch, derivative};
use crate::types::Type;
use std::sync::Arc;

/// Calls a function. A repeated layer is one function called many times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The callee.
    pub function: Arc<Function>,
    /// Whether the derivative keeps only the inputs and computes the rest again.
    pub recompute: bool,
}

attributes!(Call { function, recompute });

/// Calls one of two functions: operands are a bool scalar, then the arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cond {
    /// Called when the condition is true, and when it is false.
    pub branches: [Arc<Function>; 2],
}

attributes!(Cond { branches });

/// Stands between jvp and transposition for a composite that brings its own backward function.
/// Operands: `residuals` known values, then the tangents of the float inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomLinear {
    /// `backward(residuals, cotangents) -> cotangents of the float inputs`.
    pub backward: Arc<Function>,
    /// How many operands are residuals.
    pub residuals: usize,
    /// Types of the result tangents.
    pub outputs: Vec<Type>,
}

attributes!(CustomLinear { backward, residuals, outputs });

/// Checks operand types against a function's parameters.
pub(super) fn expect_arguments(function: &Function, inputs: &[&Type]) -> Result<()> {
    let want = function.parameter_types();
    if want.len() != inputs.len() {
        let (n, m) = (want.len(), inputs.len());
        return Err(Error::new(format!("`{}` takes {n} arguments, {m} given", function.name)));
    }
    for (i, (want, got)) in want.iter().zip(inputs).enumerate() {
        if want != got {
            let name = &function.name;
            return Err(Error::new(format!("argument {i} of `{name}` is {got}, not {want}")));
        }
    }
    Ok(())
}

impl Rules for Call {
    fn name(&self) -> &'static str {
        "call"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_arguments(&self.function, inputs)?;
        Ok(self.function.result_types().into_iter().cloned().collect())
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(&self, cx: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        cx.call(&self.function, inputs)
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        derivative::jvp_call(self, b, x, y, dx)
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        derivative::transpose_call(self, b, inputs, dy)
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let required = vec![true; self.function.results().len()];
        let function = batch::batched(&self.function, batched, &required, size)?;
        Ok(b.emit(Call { function, recompute: self.recompute }, inputs))
    }
}

impl Rules for Cond {
    fn name(&self) -> &'static str {
        "cond"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        let Some((condition, arguments)) = inputs.split_first() else {
            return Err(Error::new("needs a condition"));
        };
        if **condition != Type::scalar(DType::Bool) {
            return Err(Error::new(format!("the condition is {condition}, not bool[]"))
                .help("reduce it with all() or any(), or select between both results"));
        }
        for branch in &self.branches {
            expect_arguments(branch, arguments)?;
        }
        let [yes, no] = [&self.branches[0], &self.branches[1]].map(|f| f.result_types());
        if yes != no {
            return Err(Error::new(format!(
                "branches `{}` and `{}` have results of different types",
                self.branches[0].name, self.branches[1].name
            )));
        }
        Ok(yes.into_iter().cloned().collect())
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(&self, cx: &Evaluator, inputs: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        let which = usize::from(inputs[0].get(0).as_i64() == 0);
        cx.call(&self.branches[which], &inputs[1..])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if b.reverse() {
            cond::reverse_mode(self, b, x, y, &dx[1..])
        } else {
            cond::forward_mode(self, b, x, y, &dx[1..])
        }
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        cond::transpose_linear(self, b, inputs, dy)
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let required = vec![true; self.branches[0].results().len()];
        let branch = |f| batch::batched(f, &batched[1..], &required, size);
        let branches = [branch(&self.branches[0])?, branch(&self.branches[1])?];
        if !batched[0] {
            return Ok(b.emit(Cond { branches }, inputs));
        }
        let [yes, no] = branches.map(|f| b.call(&f, &inputs[1..]));
        let choose = |(yes, no): (Value, Value)| {
            let shape = b.ty(yes).shape.clone();
            let condition = b.broadcast(inputs[0], &shape, &[0]);
            b.select(condition, yes, no)
        };
        Ok(yes.into_iter().zip(no).map(choose).collect())
    }
}

impl Rules for CustomLinear {
    fn name(&self) -> &'static str {
        "custom_linear"
    }

    fn infer(&self, _: &[&Type]) -> Result<Vec<Type>> {
        Ok(self.outputs.clone())
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(&self, _: &Evaluator, _: &[&Literal], _: &[&Type]) -> Result<Vec<Literal>> {
        Err(Error::new("only transposition gives this a meaning"))
    }

    fn jvp(
        &self,
        _: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        _: &[Option<Value>],
    ) -> Result<Tangents> {
        not_linear()
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let mut args =
            inputs[..self.residuals].iter().map(Operand::known).collect::<Result<Vec<_>>>()?;
        for (d, ty) in dy.iter().zip(&self.outputs) {
            args.push(d.unwrap_or_else(|| b.full(ty.clone(), 0.0)));
        }
        let cotangents = b.call(&self.backward, &args);
        let mut all = vec![None; self.residuals];
        all.extend(cotangents.into_iter().map(Some));
        for (slot, operand) in all.iter_mut().zip(inputs) {
            if !operand.is_linear() {
                *slot = None;
            }
        }
        Ok(all)
    }

    fn batch(&self, _: &mut Builder, _: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Err(Error::new("only transposition gives this a meaning"))
    }
}
