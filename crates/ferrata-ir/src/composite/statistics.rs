//! Mean, variance and norms.

use super::norm::mean as mean_of;
use super::{call, dims_attribute, expect_dims, expect_float, function, number, widen};
use crate::error::Result;
use crate::primitive::{Attribute, ReduceKind};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// `mean` along `dims`, which disappear; NaN over no elements. Attribute: `dims`.
pub fn mean(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    call(b, "mean", &[x], 1, |types| {
        reducing("mean", &types[0], dims, vec![], |b, x| mean_of(b, x, dims))
    })[0]
}

/// `var`: `sum((x - mean)^2) / (n - correction)` along `dims`, which disappear. Attributes: `dims`,
/// `correction` (1 makes the estimate unbiased).
pub fn var(b: &mut Builder, x: Value, dims: &[usize], correction: f64) -> Value {
    call(b, "var", &[x], 1, |types| {
        let attributes = vec![("correction", number(correction))];
        reducing("var", &types[0], dims, attributes, |b, x| variance(b, x, dims, correction))
    })[0]
}

/// `std`: the square root of [`var`]; where it is 0, so is its gradient.
pub fn std(b: &mut Builder, x: Value, dims: &[usize], correction: f64) -> Value {
    call(b, "std", &[x], 1, |types| {
        let attributes = vec![("correction", number(correction))];
        reducing("std", &types[0], dims, attributes, |b, x| {
            let variance = variance(b, x, dims, correction);
            unless_zero(b, variance, |b, v| b.sqrt(v))
        })
    })[0]
}

/// `norm`: `sum(|x|^p)^(1/p)` along `dims`, which disappear. `p` may be infinite (largest or
/// smallest `|x|`) or 0 (number of non-zero elements). The gradient is 0 where the norm is, and
/// is shared among ties where `p` is infinite. Attributes: `dims`, `p`.
pub fn norm(b: &mut Builder, x: Value, dims: &[usize], p: f64) -> Value {
    call(b, "norm", &[x], 1, |types| {
        reducing("norm", &types[0], dims, vec![("p", number(p))], |b, x| norm_of(b, x, dims, p))
    })[0]
}

fn norm_of(b: &mut Builder, x: Value, dims: &[usize], p: f64) -> Value {
    if p == 2.0 {
        let square = b.mul(x, x);
        let sum = b.sum(square, dims);
        return unless_zero(b, sum, |b, s| b.sqrt(s));
    }
    if p == 0.0 {
        let zero = b.zeros_like(x);
        let counts = b.ne(x, zero);
        let counts = b.cast(counts, b.ty(x).dtype);
        return b.sum(counts, dims);
    }
    let size = b.abs(x);
    if p.is_infinite() {
        let kind = if p > 0.0 { ReduceKind::Max } else { ReduceKind::Min };
        return b.reduce(kind, size, dims);
    }
    if p == 1.0 {
        return b.sum(size, dims);
    }
    let power = |b: &mut Builder, v: Value, p: f64| {
        let p = b.full_like(v, p);
        b.pow(v, p)
    };
    let terms = unless_zero(b, size, |b, v| power(b, v, p));
    let sum = b.sum(terms, dims);
    unless_zero(b, sum, |b, s| power(b, s, 1.0 / p))
}

/// `l2_normalize`: `x / max(norm(x), eps)` with the 2-norm along `dim`. Attributes: `dim`, `eps`.
pub fn l2_normalize(b: &mut Builder, x: Value, dim: usize, eps: f64) -> Value {
    call(b, "l2_normalize", &[x], 1, |types| {
        expect_float("the operand", &types[0])?;
        expect_dims(&types[0], &[dim])?;
        let attributes = vec![("dim", Attribute::Int(dim as i64)), ("eps", number(eps))];
        function("l2_normalize", attributes, types, |b, inputs| {
            let x = widen(b, inputs[0]);
            let size = norm_of(b, x, &[dim], 2.0);
            let eps = b.full_like(size, eps);
            let size = b.max(size, eps);
            let size = b.broadcast_reduced(size, &types[0].shape, &[dim]);
            let y = b.div(x, size);
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

fn variance(b: &mut Builder, x: Value, dims: &[usize], correction: f64) -> Value {
    let shape = b.ty(x).shape.clone();
    let centre = mean_of(b, x, dims);
    let centre = b.broadcast_reduced(centre, &shape, dims);
    let off = b.sub(x, centre);
    let square = b.mul(off, off);
    let sum = b.sum(square, dims);
    let count: usize = dims.iter().map(|&d| shape[d]).product();
    let freedom = b.full_like(sum, (count as f64 - correction).max(0.0));
    b.div(sum, freedom)
}

/// `f(x)`, but 0 with gradient 0 where `x` is 0.
pub(super) fn unless_zero(
    b: &mut Builder,
    x: Value,
    f: impl FnOnce(&mut Builder, Value) -> Value,
) -> Value {
    let zero = b.zeros_like(x);
    let one = b.full_like(x, 1.0);
    let is_zero = b.eq(x, zero);
    let safe = b.select(is_zero, one, x);
    let y = f(b, safe);
    b.select(is_zero, zero, y)
}

/// A composite that reduces `dims`, in the accumulator dtype.
fn reducing(
    name: &'static str,
    ty: &Type,
    dims: &[usize],
    mut attributes: super::AttributeList,
    body: impl FnOnce(&mut Builder, Value) -> Value,
) -> Result<Arc<Function>> {
    expect_float("the operand", ty)?;
    expect_dims(ty, dims)?;
    attributes.insert(0, ("dims", dims_attribute(dims)));
    function(name, attributes, std::slice::from_ref(ty), |b, x| {
        let x = widen(b, x[0]);
        let y = body(b, x);
        vec![b.cast(y, ty.dtype)]
    })
}
