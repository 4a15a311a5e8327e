//! Soft-max and its relatives, shifted by the maximum so that nothing overflows.

use super::{
    Keep, Own, call, dims_attribute, expect_dim, expect_dims, expect_float, function, widen,
    with_own,
};
use crate::error::Result;
use crate::primitive::{Attribute, ReduceKind};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// `softmax`: `e^x / sum(e^x)` along `dim`; a row of -infinity gives NaN.
///
/// Backward: `softmax_backward(y, dy) -> dx`. Attribute: `dim`.
pub fn softmax(b: &mut Builder, x: Value, dim: usize) -> Value {
    call(b, "softmax", &[x], 1, |types| {
        let own = Own {
            names: ("softmax", "softmax_backward"),
            forward: along("softmax", &types[0], dim, |b, x| {
                let e = shifted(b, x, dim);
                let e = b.exp(e);
                let sum = b.sum(e, &[dim]);
                let sum = repeat(b, sum, x, dim);
                b.div(e, sum)
            })?,
            results: 1,
            keep: &[Keep::Result(0)],
        };
        with_own(own, |b, kept, dy| {
            let dtype = b.ty(kept[0]).dtype;
            let (y, dy) = (widen(b, kept[0]), widen(b, dy[0]));
            let terms = b.mul(y, dy);
            let sum = b.sum(terms, &[dim]);
            let sum = repeat(b, sum, y, dim);
            let rest = b.sub(dy, sum);
            let dx = b.mul(y, rest);
            vec![b.cast(dx, dtype)]
        })
    })[0]
}

/// `log_softmax`: `x - logsumexp(x)` along `dim`.
///
/// Backward: `log_softmax_backward(y, dy) -> dx`. Attribute: `dim`.
pub fn log_softmax(b: &mut Builder, x: Value, dim: usize) -> Value {
    call(b, "log_softmax", &[x], 1, |types| {
        let own = Own {
            names: ("log_softmax", "log_softmax_backward"),
            forward: along("log_softmax", &types[0], dim, |b, x| {
                let low = shifted(b, x, dim);
                let e = b.exp(low);
                let sum = b.sum(e, &[dim]);
                let log = b.log(sum);
                let log = repeat(b, log, x, dim);
                b.sub(low, log)
            })?,
            results: 1,
            keep: &[Keep::Result(0)],
        };
        with_own(own, |b, kept, dy| {
            let dtype = b.ty(kept[0]).dtype;
            let (y, dy) = (widen(b, kept[0]), widen(b, dy[0]));
            let p = b.exp(y);
            let sum = b.sum(dy, &[dim]);
            let sum = repeat(b, sum, y, dim);
            let part = b.mul(p, sum);
            let dx = b.sub(dy, part);
            vec![b.cast(dx, dtype)]
        })
    })[0]
}

/// `logsumexp`: `log(sum(e^x))` along `dims`, which disappear; -infinity where all elements are.
///
/// Backward: `logsumexp_backward(x, y, dy) -> dx`. Attribute: `dims`.
pub fn logsumexp(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    call(b, "logsumexp", &[x], 1, |types| {
        expect_float("the operand", &types[0])?;
        expect_dims(&types[0], dims)?;
        let attributes = vec![("dims", dims_attribute(dims))];
        let own = Own {
            names: ("logsumexp", "logsumexp_backward"),
            forward: function("logsumexp", attributes, types, |b, x| {
                let dtype = b.ty(x[0]).dtype;
                let x = widen(b, x[0]);
                let y = log_of_sum(b, x, dims);
                vec![b.cast(y, dtype)]
            })?,
            results: 1,
            keep: &[Keep::Input(0), Keep::Result(0)],
        };
        with_own(own, |b, kept, dy| {
            let dtype = b.ty(kept[0]).dtype;
            let (x, y, dy) = (widen(b, kept[0]), widen(b, kept[1]), widen(b, dy[0]));
            let shape = b.ty(x).shape.clone();
            let y = zero_unless_finite(b, y);
            let y = b.broadcast_reduced(y, &shape, dims);
            let dy = b.broadcast_reduced(dy, &shape, dims);
            let low = b.sub(x, y);
            let p = b.exp(low);
            let dx = b.mul(dy, p);
            vec![b.cast(dx, dtype)]
        })
    })[0]
}

/// `log(sum(e^x))` along `dims`, as primitives.
pub(super) fn log_of_sum(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    let shape = b.ty(x).shape.clone();
    let top = highest(b, x, dims);
    let top = zero_unless_finite(b, top);
    let shift = b.broadcast_reduced(top, &shape, dims);
    let low = b.sub(x, shift);
    let e = b.exp(low);
    let sum = b.sum(e, dims);
    let log = b.log(sum);
    b.add(log, top)
}

/// The largest element along `dims`; as a shift that cancels it takes no part in derivatives.
fn highest(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    let still = b.stop_gradient(x);
    b.reduce(ReduceKind::Max, still, dims)
}

fn zero_unless_finite(b: &mut Builder, x: Value) -> Value {
    let zero = b.zeros_like(x);
    let finite = b.apply(&crate::primitive::elementwise::IS_FINITE, &[x]);
    b.select(finite, x, zero)
}

/// `x` less its largest element along `dim`.
fn shifted(b: &mut Builder, x: Value, dim: usize) -> Value {
    let top = highest(b, x, &[dim]);
    let top = repeat(b, top, x, dim);
    b.sub(x, top)
}

/// `x`, which lacks dimension `dim`, in the shape of `like`.
fn repeat(b: &mut Builder, x: Value, like: Value, dim: usize) -> Value {
    let shape = b.ty(like).shape.clone();
    b.broadcast_reduced(x, &shape, &[dim])
}

/// A composite of one operand that works along `dim`, in the accumulator dtype.
fn along(
    name: &'static str,
    ty: &Type,
    dim: usize,
    body: impl FnOnce(&mut Builder, Value) -> Value,
) -> Result<Arc<Function>> {
    expect_float("the operand", ty)?;
    expect_dim(ty, dim)?;
    let attributes = vec![("dim", Attribute::Int(dim as i64))];
    function(name, attributes, std::slice::from_ref(ty), |b, x| {
        let x = widen(b, x[0]);
        let y = body(b, x);
        vec![b.cast(y, ty.dtype)]
    })
}
