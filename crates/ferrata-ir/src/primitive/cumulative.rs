//! Running reductions along a dimension.

use super::attribute::attributes;
use super::{
    BadIndex, Loops, Operand, ReduceKind, Rules, Save, Scan, Tangents, expect_dim, expect_inputs,
    not_linear, zero,
};
use crate::DType;
use crate::error::Result;
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};
use std::sync::Arc;

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
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(d) = dx[0].filter(|_| b.ty(x[0]).dtype.is_float()) else { return zero(1) };
        Ok(vec![Some(match self.kind {
            ReduceKind::Sum => b.emit1(self.clone(), &[d]),
            ReduceKind::Product => self.product_tangent(b, x[0], y[0], d)?,
            _ => {
                let places = self.places(b, x[0], y[0]);
                b.take_along(d, places, self.dim, BadIndex::Clip)
            }
        })])
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

impl Cumulative {
    /// `t[i] = t[i-1] x[i] + y[i-1] dx[i]`, which is right also where elements are 0.
    fn product_tangent(&self, b: &mut Builder, x: Value, y: Value, dx: Value) -> Result<Value> {
        let lead = |b: &mut Builder, v| b.move_dim(v, self.dim, 0);
        let (x, y, dx) = (lead(b, x), lead(b, y), lead(b, dx));
        let length = b.ty(x).shape[0];
        let line = b.ty(x).with_shape(&b.ty(x).shape[1..]);
        let one = b.full(b.ty(x).with_shape([&[length.min(1)], &line.shape[..]].concat()), 1.0);
        let before = if self.reverse {
            let later = b.slice_dim(y, 0, length.min(1), length);
            b.concatenate(&[later, one], 0)
        } else {
            let earlier = b.slice_dim(y, 0, 0, length.saturating_sub(1));
            b.concatenate(&[one, earlier], 0)
        };
        let mut body = Builder::new("cumulative_product.tangent");
        let p = body.parameters(&vec![line.clone(); 4]);
        let (old, new) = (body.mul(p[0], p[1]), body.mul(p[3], p[2]));
        let t = body.add(old, new);
        let scan = Scan {
            body: Arc::new(body.finish(&[t, t])?),
            constants: 0,
            carries: 1,
            length,
            reverse: self.reverse,
            save: Save::All,
        };
        let start = b.full(line, 0.0);
        let tangents = b.emit(scan, &[start, x, before, dx])[1];
        Ok(b.move_dim(tangents, 0, self.dim))
    }

    /// For each element of a running extremum the place that it came from, the latest among
    /// equals.
    fn places(&self, b: &mut Builder, x: Value, y: Value) -> Value {
        let ty = b.ty(x).with_dtype(DType::I64);
        let (equal, nan) = (b.eq(x, y), b.ne(x, x));
        let found = b.or(equal, nan);
        let place = b.iota(ty.clone(), self.dim);
        let (kind, nowhere) = if self.reverse {
            (ReduceKind::Min, ty.shape[self.dim] as i64)
        } else {
            (ReduceKind::Max, -1)
        };
        let nowhere = b.full(ty, nowhere);
        let place = b.select(found, place, nowhere);
        b.emit1(Cumulative { kind, dim: self.dim, reverse: self.reverse }, &[place])
    }
}
