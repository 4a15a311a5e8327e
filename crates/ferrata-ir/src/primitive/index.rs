//! Reading and writing at computed indices.

use super::attribute::{attribute_words, attributes};
use super::{
    Loops, Operand, ReduceKind, Rules, Tangents, expect_indices, expect_inputs, not_linear, zero,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::Type;

/// What happens at an index outside of the operand. Negative indices are outside too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadIndex {
    /// The nearest index inside is taken instead; in an operand without elements as for `Drop`.
    Clip,
    /// The access does not happen: a gather gives 0 there, a scatter changes nothing.
    Drop,
}

attribute_words!(BadIndex { Clip => "clip", Drop => "drop" });

/// How a scatter combines an update with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterKind {
    /// The update replaces it; the last one wins.
    Set,
    /// Sum.
    Add,
    /// The larger one; NaN wins.
    Max,
    /// The smaller one; NaN wins.
    Min,
}

attribute_words!(ScatterKind { Set => "set", Add => "add", Max => "max", Min => "min" });

impl ScatterKind {
    fn reduction(self) -> Option<ReduceKind> {
        match self {
            ScatterKind::Set => None,
            ScatterKind::Add => Some(ReduceKind::Sum),
            ScatterKind::Max => Some(ReduceKind::Max),
            ScatterKind::Min => Some(ReduceKind::Min),
        }
    }
}

/// Reads slices at computed indices: operand `[B.., I.., S..]` and indices `[B.., P.., k]`, i64 or
/// i32, give `[B.., P.., S..]`. `B` are the `batch` leading dimensions, `I` the `indexed` ones
/// after them, `k = indexed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Number of leading dimensions that operand and indices share.
    pub batch: usize,
    /// Number of dimensions that the indices address.
    pub indexed: usize,
    /// The rule for indices outside.
    pub bad: BadIndex,
}

attributes!(Gather { batch, indexed, bad });

/// Writes slices at computed indices: operand `[B.., I.., S..]`, indices `[B.., P.., k]` and
/// updates `[B.., P.., S..]` give a changed operand. Updates are applied in row-major order of
/// their positions `P`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scatter {
    /// Number of leading dimensions that all operands share.
    pub batch: usize,
    /// Number of dimensions that the indices address.
    pub indexed: usize,
    /// How an update is combined with what is there.
    pub kind: ScatterKind,
    /// The rule for indices outside.
    pub bad: BadIndex,
}

attributes!(Scatter { batch, indexed, kind, bad });

/// Shape of what is read or written: `[B.., P.., S..]`.
fn accessed(batch: usize, indexed: usize, operand: &Type, indices: &Type) -> Result<Vec<usize>> {
    expect_indices(indices)?;
    if operand.rank() < batch + indexed {
        let want = batch + indexed;
        return Err(Error::new(format!("operand {operand} needs at least {want} dimensions")));
    }
    if indices.rank() < batch + 1 || indices.shape.last() != Some(&indexed) {
        return Err(Error::new(format!(
            "indices {indices} need {batch} batch dimensions and a last one of {indexed}"
        )));
    }
    if operand.shape[..batch] != indices.shape[..batch] {
        return Err(Error::new(format!(
            "batch dimensions {:?} of the operand and {:?} of the indices differ",
            &operand.shape[..batch],
            &indices.shape[..batch]
        )));
    }
    let positions = &indices.shape[..indices.rank() - 1];
    Ok([positions, &operand.shape[batch + indexed..]].concat())
}

/// Where each slice of the operand starts that `indices` name, in row-major order of positions.
fn targets<'a>(
    batch: usize,
    indexed: usize,
    bad: BadIndex,
    operand: &'a Type,
    indices: &'a Literal,
) -> impl Iterator<Item = Option<usize>> + 'a {
    let sizes = &operand.shape[batch..batch + indexed];
    let inside: usize = sizes.iter().product();
    let slice: usize = operand.shape[batch + indexed..].iter().product();
    let shape = &indices.ty.shape;
    let positions: usize = shape[batch..shape.len() - 1].iter().product();
    let all = positions * shape[..batch].iter().product::<usize>();
    (0..all).map(move |at| {
        let mut target = 0;
        for (d, &size) in sizes.iter().enumerate() {
            let mut index = indices.get(at * indexed + d).as_i64();
            if bad == BadIndex::Clip {
                index = index.clamp(0, (size as i64 - 1).max(0));
            }
            if index < 0 || index >= size as i64 {
                return None;
            }
            target = target * size + index as usize;
        }
        Some((at / positions * inside + target) * slice)
    })
}

impl Rules for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let shape = accessed(self.batch, self.indexed, inputs[0], inputs[1])?;
        Ok(vec![inputs[0].with_shape(shape)])
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
        let (x, indices) = (inputs[0], inputs[1]);
        let slice: usize = x.ty.shape[self.batch + self.indexed..].iter().product();
        let starts: Vec<_> = targets(self.batch, self.indexed, self.bad, &x.ty, indices).collect();
        let nothing = ReduceKind::Or.identity(x.ty.dtype);
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            starts[i / slice].map_or(nothing, |start| x.get(start + i % slice))
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        Ok(vec![dx[0].map(|d| b.emit1(self.clone(), &[d, x[1]]))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return zero(2) };
        let nothing = b.full(inputs[0].ty(b), 0.0);
        let indices = inputs[1].known()?;
        let add = Scatter {
            batch: self.batch,
            indexed: self.indexed,
            kind: ScatterKind::Add,
            bad: self.bad,
        };
        Ok(vec![Some(b.emit1(add, &[nothing, indices, dy])), None])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        if !batched[0] {
            // One operand for all: the new dimension is one more dimension of positions.
            let indices = b.move_dim(inputs[1], 0, self.batch);
            let y = b.emit1(self.clone(), &[inputs[0], indices]);
            return Ok(vec![b.move_dim(y, self.batch, 0)]);
        }
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(Gather { batch: self.batch + 1, ..self.clone() }, &inputs))
    }
}

impl Scatter {
    fn gather(&self) -> Gather {
        Gather { batch: self.batch, indexed: self.indexed, bad: self.bad }
    }

    /// Whether the update at a position is the last one for its target; shaped like `updates`.
    fn last_writers(&self, b: &mut Builder, indices: Value, operand: &Type, to: &[usize]) -> Value {
        let shape = b.ty(indices).shape.clone();
        let positions = &shape[..shape.len() - 1];
        let count = positions[self.batch..].iter().product::<usize>();
        let order = b.iota(Type::new(DType::I64, [count]), 0);
        let order = b.reshape(order, &positions[self.batch..]);
        let order = b.broadcast_trailing(order, positions);
        let addressed = operand.shape[..self.batch + self.indexed].to_vec();
        let nobody = b.full(Type::new(DType::I64, addressed), -1i64);
        let last = Scatter { kind: ScatterKind::Max, ..self.clone() };
        let last = b.emit1(last, &[nobody, indices, order]);
        let last = b.emit1(self.gather(), &[last, indices]);
        let wins = b.eq(last, order);
        let leading: Vec<usize> = (0..positions.len()).collect();
        b.broadcast(wins, to, &leading)
    }
}

impl Rules for Scatter {
    fn name(&self) -> &'static str {
        "scatter"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 3)?;
        let shape = accessed(self.batch, self.indexed, inputs[0], inputs[1])?;
        let want = inputs[0].with_shape(shape);
        if *inputs[2] != want {
            return Err(Error::new(format!("updates are {}, not {want}", inputs[2])));
        }
        if let Some(kind) = self.kind.reduction() {
            kind.accepts(inputs[0].dtype)?;
        }
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
        let (x, indices, updates) = (inputs[0], inputs[1], inputs[2]);
        let slice: usize = x.ty.shape[self.batch + self.indexed..].iter().product();
        let combine = self.kind.reduction().map(|k| k.op().reference);
        let mut out: Vec<_> = (0..x.ty.elements()).map(|i| x.get(i)).collect();
        let starts = targets(self.batch, self.indexed, self.bad, &x.ty, indices);
        for (at, start) in starts.enumerate() {
            let Some(start) = start else { continue };
            for i in 0..slice {
                let update = updates.get(at * slice + i);
                let there = &mut out[start + i];
                *there = combine.map_or(update, |f| f.apply(&[*there, update]));
            }
        }
        Ok(vec![Literal::build(outputs[0].clone(), |i| out[i])])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if !b.ty(x[0]).dtype.is_float() || (dx[0].is_none() && dx[2].is_none()) {
            return zero(1);
        }
        let operand = dx[0].unwrap_or_else(|| b.zeros_like(x[0]));
        let updates = dx[2].unwrap_or_else(|| b.zeros_like(x[2]));
        if matches!(self.kind, ScatterKind::Set | ScatterKind::Add) {
            return Ok(vec![Some(b.emit1(self.clone(), &[operand, x[1], updates]))]);
        }
        // All that equal the extremum share its tangent, the operand's own element included.
        let add = Scatter { kind: ScatterKind::Add, ..self.clone() };
        let dtype = b.ty(x[0]).dtype;
        let extremum = b.emit1(self.gather(), &[y[0], x[1]]);
        let kept = b.eq(x[0], y[0]);
        let kept = b.cast(kept, dtype);
        let written = b.eq(x[2], extremum);
        let written = b.cast(written, dtype);
        let count = b.emit1(add.clone(), &[kept, x[1], written]);
        let operand = b.mul(operand, kept);
        let updates = b.mul(updates, written);
        let sum = b.emit1(add, &[operand, x[1], updates]);
        Ok(vec![Some(b.div(sum, count))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return zero(3) };
        let indices = inputs[1].known()?;
        let overwrites = match self.kind {
            ScatterKind::Set => true,
            ScatterKind::Add => false,
            ScatterKind::Max | ScatterKind::Min => return not_linear(),
        };
        let updates = inputs[2].ty(b);
        let operand = inputs[0].is_linear().then(|| {
            if !overwrites {
                return dy;
            }
            let nothing = b.full(updates.clone(), 0.0);
            b.emit1(self.clone(), &[dy, indices, nothing])
        });
        let updates = inputs[2].is_linear().then(|| {
            let read = b.emit1(self.gather(), &[dy, indices]);
            if !overwrites {
                return read;
            }
            let last = self.last_writers(b, indices, &inputs[0].ty(b), &updates.shape);
            let nothing = b.zeros_like(read);
            b.select(last, read, nothing)
        });
        Ok(vec![operand, None, updates])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(Scatter { batch: self.batch + 1, ..self.clone() }, &inputs))
    }
}
