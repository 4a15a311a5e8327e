//! Running reductions along a dimension.

use super::attribute::attributes;
use super::{
    Loops, Operand, ReduceKind, Rules, Tangents, expect_dim, expect_inputs, not_linear,
    unsupported, zero,
};
use crate::error::Result;
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// Element `i` of the result combines elements `0..=i` along `dim` (from the end if `reverse`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cumulative {
    /// How elements are combined.
    pub kind: ReduceKind,
    /// Along which dimension.
    pub dim: usize,
    /// Whether the run starts at the end.
    pub reverse: bool,
}

attributes!(Cumulative { kind, dim, reverse });

impl Rules for Cumulative {
    fn name(&self) -> &'static str {
        "cumulative"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        expect_dim(inputs[0], self.dim)?;
        self.kind.accepts(inputs[0].dtype)?;
        Ok(vec![inputs[0].clone()])
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
        let (x, ty) = (inputs[0], outputs[0]);
        let stride = row_major_strides(&ty.shape)[self.dim];
        let size = ty.shape[self.dim];
        let combine = self.kind.op().reference;
        let mut out: Vec<_> = (0..ty.elements()).map(|i| x.get(i)).collect();
        for i in 0..out.len() {
            // Visit each line in running order: a reversed run starts at the far end.
            let along = i / stride % size;
            if along == 0 {
                continue;
            }
            let (from, to) = if self.reverse {
                let line = i - along * stride;
                let at = line + (size - 1 - along) * stride;
                (at + stride, at)
            } else {
                (i - stride, i)
            };
            out[to] = combine.apply(&[out[from], out[to]]);
        }
        Ok(vec![Literal::build(ty.clone(), |i| out[i])])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if !b.ty(x[0]).dtype.is_float() {
            return zero(1);
        }
        match self.kind {
            ReduceKind::Sum => Ok(vec![dx[0].map(|d| b.emit1(self.clone(), &[d]))]),
            _ => unsupported("running products and extrema are not differentiated yet"),
        }
    }

    fn transpose(&self, b: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        if self.kind != ReduceKind::Sum {
            return not_linear();
        }
        let back = Cumulative { reverse: !self.reverse, ..self.clone() };
        Ok(vec![dy[0].map(|d| b.emit1(back, &[d]))])
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(Cumulative { dim: self.dim + 1, ..self.clone() }, inputs))
    }
}
