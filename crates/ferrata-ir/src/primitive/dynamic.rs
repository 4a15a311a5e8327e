//! Slices whose place is computed.

use super::attribute::attributes;
use super::{
    BadIndex, Concatenate, Dense, Gather, Loops, Operand, Rules, Scatter, ScatterKind, Tangents,
    expect_indices, expect_inputs, zero,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};
use std::sync::Arc;

/// The window of shape `sizes` of the first operand at the indices in the second, i64 or i32
/// `[rank]`, which are moved so that the window lies inside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DynamicSlice {
    /// Shape of the window.
    pub sizes: Vec<usize>,
}

attributes!(DynamicSlice { sizes });

/// The first operand with a window replaced by the second. The window starts at the indices in the
/// third, i64 or i32 `[rank]`, which are moved so that it lies inside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DynamicUpdate {}

attributes!(DynamicUpdate {});

fn expect_window(operand: &Type, sizes: &[usize], starts: &Type) -> Result<()> {
    expect_indices(starts)?;
    if starts.shape != [operand.rank()] {
        return Err(Error::new(format!(
            "starts are {starts}, but {operand} needs one for each dimension"
        )));
    }
    let fits =
        sizes.len() == operand.rank() && sizes.iter().zip(&operand.shape).all(|(s, n)| s <= n);
    if !fits {
        return Err(Error::new(format!("a window of {sizes:?} does not fit in {operand}")));
    }
    Ok(())
}

/// Offset in the operand of each element of the window, in row-major order.
fn window(operand: &Type, sizes: &[usize], starts: &Literal) -> Vec<usize> {
    let (strides, inner) = (row_major_strides(&operand.shape), row_major_strides(sizes));
    let starts: Vec<usize> = (0..sizes.len())
        .map(|d| starts.get(d).as_i64().clamp(0, (operand.shape[d] - sizes[d]) as i64) as usize)
        .collect();
    let at = |i: usize| {
        (0..sizes.len()).map(|d| (starts[d] + i / inner[d] % sizes[d]) * strides[d]).sum()
    };
    (0..sizes.iter().product()).map(at).collect()
}

/// For windows at batched `starts` `[n, rank]`: indices `[n, sizes.., k]` of their elements in the
/// `k` leading dimensions; in the dimensions after these, windows are whole.
fn batched_indices(
    b: &mut Builder,
    starts: Value,
    shape: &[usize],
    sizes: &[usize],
) -> (Value, usize) {
    let k = (0..sizes.len()).rposition(|d| sizes[d] != shape[d]).map_or(0, |d| d + 1);
    let starts = b.cast(starts, DType::I64);
    let starts = b.slice_dim(starts, 1, 0, k);
    let like = b.ty(starts).clone();
    let last: Vec<i64> = (0..k).map(|d| (shape[d] - sizes[d]) as i64).collect();
    let last = Literal::int(Type::new(DType::I64, [k]), last);
    let last = b.emit1(Dense { value: Arc::new(last) }, &[]);
    let last = b.broadcast_trailing(last, &like.shape);
    let first = b.full(like.clone(), 0i64);
    let starts = b.min(starts, last);
    let starts = b.max(starts, first);
    let mut to = vec![like.shape[0]];
    to.extend(&sizes[..k]);
    to.push(k);
    let starts = b.broadcast(starts, &to, &[0, k + 1]);
    if k == 0 {
        return (starts, 0);
    }
    let mut column = to.clone();
    column[k + 1] = 1;
    let columns: Vec<Value> =
        (0..k).map(|d| b.iota(Type::new(DType::I64, column.clone()), d + 1)).collect();
    let offsets = b.emit1(Concatenate { dim: k + 1 }, &columns);
    (b.add(starts, offsets), k)
}

/// Unbatched `starts` with a 0 in front, for a new leading dimension that is taken whole.
fn leading_zero(b: &mut Builder, starts: Value) -> Value {
    let zero = b.full(b.ty(starts).with_shape([1]), 0i64);
    b.emit1(Concatenate { dim: 0 }, &[zero, starts])
}

impl Rules for DynamicSlice {
    fn name(&self) -> &'static str {
        "dynamic_slice"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        expect_window(inputs[0], &self.sizes, inputs[1])?;
        Ok(vec![inputs[0].with_shape(self.sizes.clone())])
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
        let at = window(&inputs[0].ty, &self.sizes, inputs[1]);
        Ok(vec![Literal::build(outputs[0].clone(), |i| inputs[0].get(at[i]))])
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
        let starts = inputs[1].known()?;
        Ok(vec![Some(b.emit1(DynamicUpdate {}, &[nothing, dy, starts])), None])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        if !batched[1] {
            let starts = leading_zero(b, inputs[1]);
            let sizes = [&[size], &self.sizes[..]].concat();
            return Ok(b.emit(DynamicSlice { sizes }, &[inputs[0], starts]));
        }
        let operand = b.ty(inputs[0]).shape[usize::from(batched[0])..].to_vec();
        let (indices, indexed) = batched_indices(b, inputs[1], &operand, &self.sizes);
        let op = Gather { batch: usize::from(batched[0]), indexed, bad: BadIndex::Clip };
        Ok(b.emit(op, &[inputs[0], indices]))
    }
}

impl Rules for DynamicUpdate {
    fn name(&self) -> &'static str {
        "dynamic_update"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 3)?;
        let (x, update) = (inputs[0], inputs[1]);
        if x.dtype != update.dtype {
            return Err(Error::new(format!("an update {update} does not fit {x}"))
                .help(format!("cast it, for example with .cast({})", x.dtype)));
        }
        expect_window(x, &update.shape, inputs[2])?;
        Ok(vec![x.clone()])
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
        let (x, update) = (inputs[0], inputs[1]);
        let mut out: Vec<_> = (0..x.ty.elements()).map(|i| x.get(i)).collect();
        for (i, at) in window(&x.ty, &update.ty.shape, inputs[2]).into_iter().enumerate() {
            out[at] = update.get(i);
        }
        Ok(vec![Literal::build(outputs[0].clone(), |i| out[i])])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if dx[0].is_none() && dx[1].is_none() {
            return zero(1);
        }
        let operand = dx[0].unwrap_or_else(|| b.zeros_like(x[0]));
        let update = dx[1].unwrap_or_else(|| b.zeros_like(x[1]));
        Ok(vec![Some(b.emit1(DynamicUpdate {}, &[operand, update, x[2]]))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return zero(3) };
        let starts = inputs[2].known()?;
        let update = inputs[1].ty(b);
        let operand = inputs[0].is_linear().then(|| {
            let nothing = b.full(update.clone(), 0.0);
            b.emit1(DynamicUpdate {}, &[dy, nothing, starts])
        });
        let update = inputs[1]
            .is_linear()
            .then(|| b.emit1(DynamicSlice { sizes: update.shape.clone() }, &[dy, starts]));
        Ok(vec![operand, update, None])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let both = b.batch_all(&inputs[..2], &batched[..2], size);
        if !batched[2] {
            let starts = leading_zero(b, inputs[2]);
            return Ok(b.emit(DynamicUpdate {}, &[both[0], both[1], starts]));
        }
        let (operand, update) = (b.ty(both[0]).shape.clone(), b.ty(both[1]).shape.clone());
        let (indices, indexed) = batched_indices(b, inputs[2], &operand[1..], &update[1..]);
        let op = Scatter { batch: 1, indexed, kind: ScatterKind::Set, bad: BadIndex::Clip };
        Ok(b.emit(op, &[both[0], indices, both[1]]))
    }
}
