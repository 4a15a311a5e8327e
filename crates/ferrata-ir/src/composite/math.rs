//! Elementwise functions of two values that need care, and remainders.

use super::{Keep, Own, call, expect_dtype, expect_float, expect_shape, function, widen, with_own};
use crate::DType;
use crate::error::{Error, Result};
use crate::primitive::{Cumulative, ReduceKind};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// `logaddexp`: `log(e^x + e^y)` without overflow, on two values of one type. Backward:
/// `logaddexp_backward(x, y, dz) -> (dx, dy)`.
pub fn logaddexp(b: &mut Builder, x: Value, y: Value) -> Value {
    call(b, "logaddexp", &[x, y], 1, |types| {
        let forward = pairwise("logaddexp", types, logaddexp_of)?;
        let keep = &[Keep::Input(0), Keep::Input(1)];
        let own = Own { names: ("logaddexp", "logaddexp_backward"), forward, results: 1, keep };
        with_own(own, |b, kept, dz| {
            let dtype = types[0].dtype;
            let (x, y, dz) = (widen(b, kept[0]), widen(b, kept[1]), widen(b, dz[0]));
            let ahead = difference(b, x, y);
            let behind = b.neg(ahead);
            let share = |b: &mut Builder, d: Value| {
                let s = b.logistic(d);
                let d = b.mul(dz, s);
                b.cast(d, dtype)
            };
            vec![share(b, ahead), share(b, behind)]
        })
    })[0]
}

/// `max(x, y) + log1p(e^-|x - y|)`.
fn logaddexp_of(b: &mut Builder, x: Value, y: Value) -> Value {
    let top = b.max(x, y);
    let apart = difference(b, x, y);
    let apart = b.abs(apart);
    let apart = b.neg(apart);
    let e = b.exp(apart);
    let log = b.log1p(e);
    b.add(top, log)
}

/// `x - y`, and 0 for two equal infinities.
fn difference(b: &mut Builder, x: Value, y: Value) -> Value {
    let same = b.eq(x, y);
    let zero = b.zeros_like(x);
    let d = b.sub(x, y);
    b.select(same, zero, d)
}

/// `logcumsumexp`: the logarithm of the running sum of `e^x` along `dim`, without overflow or
/// underflow. Attribute: `dim`.
pub fn logcumsumexp(b: &mut Builder, x: Value, dim: usize) -> Value {
    call(b, "logcumsumexp", &[x], 1, |types| {
        expect_float("the operand", &types[0])?;
        super::expect_dim(&types[0], dim)?;
        let attributes = vec![("dim", crate::primitive::Attribute::Int(dim as i64))];
        function("logcumsumexp", attributes, types, |b, x| {
            let mut y = widen(b, x[0]);
            let size = types[0].shape[dim];
            // After the round with a given reach, each element holds the sum of the last
            // 2 * reach elements (Hillis and Steele): every partial sum is shifted by its own
            // maximum, which one shift for the whole run cannot do.
            let mut reach = 1;
            while reach < size {
                let head = b.slice_dim(y, dim, 0, reach);
                let tail = b.slice_dim(y, dim, reach, size);
                let behind = b.slice_dim(y, dim, 0, size - reach);
                let tail = logaddexp(b, tail, behind);
                y = b.concatenate(&[head, tail], dim);
                reach *= 2;
            }
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

/// `hypot`: `sqrt(x^2 + y^2)` without overflow, on two values of one type; the gradient where both
/// are 0 is 0. Backward: `hypot_backward(x, y, z, dz) -> (dx, dy)`.
pub fn hypot(b: &mut Builder, x: Value, y: Value) -> Value {
    call(b, "hypot", &[x, y], 1, |types| {
        let forward = pairwise("hypot", types, |b, x, y| {
            let (x, y) = (b.abs(x), b.abs(y));
            let (long, short) = (b.max(x, y), b.min(x, y));
            super::statistics::unless_zero(b, long, |b, long| {
                let ratio = b.div(short, long);
                let square = b.mul(ratio, ratio);
                let square = b.offset(square, 1.0);
                let root = b.sqrt(square);
                b.mul(long, root)
            })
        })?;
        let keep = &[Keep::Input(0), Keep::Input(1), Keep::Result(0)];
        let own = Own { names: ("hypot", "hypot_backward"), forward, results: 1, keep };
        with_own(own, |b, kept, dz| {
            let (z, dz) = (widen(b, kept[2]), widen(b, dz[0]));
            let zero = b.zeros_like(z);
            let one = b.full_like(z, 1.0);
            let none = b.eq(z, zero);
            let z = b.select(none, one, z);
            let share = |b: &mut Builder, x: Value| {
                let x = widen(b, x);
                let cosine = b.div(x, z);
                let d = b.mul(dz, cosine);
                b.cast(d, types[0].dtype)
            };
            vec![share(b, kept[0]), share(b, kept[1])]
        })
    })[0]
}

/// `remainder`: `x - floor(x / y) y`, with the sign of `y`, on two values of one numeric type;
/// integers by 0 give 0.
pub fn remainder(b: &mut Builder, x: Value, y: Value) -> Value {
    call(b, "remainder", &[x, y], 1, |types| {
        expect_pair(types)?;
        function("remainder", vec![], types, |b, x| {
            let r = b.rem(x[0], x[1]);
            let other_side = needs_step(b, r, x[1]);
            let shifted = b.add(r, x[1]);
            vec![b.select(other_side, shifted, r)]
        })
    })[0]
}

/// `floor_div`: `floor(x / y)`, on two values of one numeric type; the gradient is 0; integers by
/// 0 give 0.
pub fn floor_div(b: &mut Builder, x: Value, y: Value) -> Value {
    call(b, "floor_div", &[x, y], 1, |types| {
        expect_pair(types)?;
        function("floor_div", vec![], types, |b, x| {
            let ratio = b.div(x[0], x[1]);
            if types[0].dtype.is_float() {
                return vec![b.floor(ratio)];
            }
            // Integer division truncates: one less where the remainder has the other sign.
            let r = b.rem(x[0], x[1]);
            let step = needs_step(b, r, x[1]);
            let one = b.full(types[0].clone(), 1i64);
            let less = b.sub(ratio, one);
            vec![b.select(step, less, ratio)]
        })
    })[0]
}

/// Whether the remainder `r` of a truncated division is not 0 and on the other side than `y`.
fn needs_step(b: &mut Builder, r: Value, y: Value) -> Value {
    let zero = b.full(b.ty(r).clone(), 0i64);
    let some = b.ne(r, zero);
    let r_negative = b.lt(r, zero);
    let y_negative = b.lt(y, zero);
    let opposite = b.xor(r_negative, y_negative);
    b.and(some, opposite)
}

/// `cummax` and `cummin` (`kind` maximum or minimum): the running extreme along `dim` and the
/// index (i64) of its last occurrence so far; NaN wins. The gradient goes to that index.
/// Attribute: `dim`.
pub fn cumulative_extreme(b: &mut Builder, x: Value, dim: usize, maximum: bool) -> (Value, Value) {
    let (name, kind) =
        if maximum { ("cummax", ReduceKind::Max) } else { ("cummin", ReduceKind::Min) };
    let results = call(b, name, &[x], 2, |types| {
        super::expect_dim(&types[0], dim)?;
        kind.accepts(types[0].dtype)?;
        let attributes = vec![("dim", crate::primitive::Attribute::Int(dim as i64))];
        function(name, attributes, types, |b, x| {
            let still = b.stop_gradient(x[0]);
            let run = b.emit1(Cumulative { kind, dim, reverse: false }, &[still]);
            // An element that equals the run up to it sets a new index; NaN differs from itself.
            let hit = b.eq(still, run);
            let nan = b.ne(still, still);
            let hit = b.or(hit, nan);
            let places = Type::new(DType::I64, types[0].shape.clone());
            let place = b.iota(places.clone(), dim);
            let none = b.full(places, 0i64);
            let set = b.select(hit, place, none);
            let last = Cumulative { kind: ReduceKind::Max, dim, reverse: false };
            let index = b.emit1(last, &[set]);
            let y = b.take_along(x[0], index, dim, crate::primitive::BadIndex::Clip);
            vec![y, index]
        })
    });
    (results[0], results[1])
}

/// Checks for two values of one type.
fn expect_pair(types: &[Type]) -> Result<()> {
    if types[0].dtype == DType::Bool {
        return Err(Error::new("needs numbers, but got bool").help("cast first"));
    }
    expect_dtype("the second operand", &types[1], types[0].dtype)?;
    expect_shape("the second operand", &types[1], &types[0].shape)
}

/// An elementwise composite of two floats of one type.
fn pairwise(
    name: &'static str,
    types: &[Type],
    f: impl Fn(&mut Builder, Value, Value) -> Value,
) -> Result<Arc<Function>> {
    expect_float("the first operand", &types[0])?;
    expect_pair(types)?;
    function(name, vec![], types, |b, x| {
        let (x, y) = (widen(b, x[0]), widen(b, x[1]));
        let z = f(b, x, y);
        vec![b.cast(z, types[0].dtype)]
    })
}
