//! Activation functions. The smooth ones keep only their operands for the backward pass.

use super::{
    AttributeList, Keep, Own, call, expect_dtype, expect_float, expect_shape, function, number,
    widen, with_own,
};
use crate::error::Result;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::sync::Arc;

const SELU_SCALE: f64 = 1.0507009873554805;
const SELU_ALPHA: f64 = 1.6732632423543772;
/// Factor of the cubic term in the tanh form of GELU.
const GELU_CUBIC: f64 = 0.044715;

/// `relu`: `max(x, 0)`; the gradient at 0 is 0; NaN stays.
pub fn relu(b: &mut Builder, x: Value) -> Value {
    plain(b, "relu", vec![], x, |b, x| not_below(b, x, 0.0, 0.0))
}

/// `relu6`: `min(max(x, 0), 6)`; the gradient at 0 and 6 is 0.
pub fn relu6(b: &mut Builder, x: Value) -> Value {
    plain(b, "relu6", vec![], x, |b, x| {
        let low = not_below(b, x, 0.0, 0.0);
        not_above(b, x, 6.0, low, 6.0)
    })
}

/// `leaky_relu`: `x` where it is above 0, else `slope x`. Attribute: `slope`.
pub fn leaky_relu(b: &mut Builder, x: Value, slope: f64) -> Value {
    plain(b, "leaky_relu", vec![("slope", number(slope))], x, |b, x| {
        let steep = b.scale(x, slope);
        where_positive(b, x, x, steep)
    })
}

/// `elu`: `x` where it is above 0, else `alpha (e^x - 1)`. Attribute: `alpha`.
pub fn elu(b: &mut Builder, x: Value, alpha: f64) -> Value {
    plain(b, "elu", vec![("alpha", number(alpha))], x, |b, x| elu_of(b, x, alpha))
}

/// `selu`: the self-normalising multiple of [`elu`].
pub fn selu(b: &mut Builder, x: Value) -> Value {
    plain(b, "selu", vec![], x, |b, x| {
        let y = elu_of(b, x, SELU_ALPHA);
        b.scale(y, SELU_SCALE)
    })
}

fn elu_of(b: &mut Builder, x: Value, alpha: f64) -> Value {
    // Where the exponential is not wanted it must not overflow, not even in the derivative.
    let zero = b.zeros_like(x);
    let low = where_positive(b, x, zero, x);
    let e = b.expm1(low);
    let e = b.scale(e, alpha);
    where_positive(b, x, x, e)
}

/// `softsign`: `x / (1 + |x|)`.
pub fn softsign(b: &mut Builder, x: Value) -> Value {
    plain(b, "softsign", vec![], x, |b, x| {
        let size = b.abs(x);
        let size = b.offset(size, 1.0);
        b.div(x, size)
    })
}

/// `hard_sigmoid`: `min(max(x + 3, 0), 6) / 6`; the gradient at -3 and 3 is 0.
pub fn hard_sigmoid(b: &mut Builder, x: Value) -> Value {
    plain(b, "hard_sigmoid", vec![], x, hard_sigmoid_of)
}

/// `hard_swish`: `x` times [`hard_sigmoid`].
pub fn hard_swish(b: &mut Builder, x: Value) -> Value {
    plain(b, "hard_swish", vec![], x, |b, x| {
        let gate = hard_sigmoid_of(b, x);
        b.mul(x, gate)
    })
}

fn hard_sigmoid_of(b: &mut Builder, x: Value) -> Value {
    let line = b.offset(x, 3.0);
    let line = b.scale(line, 1.0 / 6.0);
    let zero = b.zeros_like(x);
    let corner = b.full_like(x, -3.0);
    let below = b.le(x, corner);
    let y = b.select(below, zero, line);
    not_above(b, x, 3.0, y, 1.0)
}

/// `silu`: `x sigmoid(x)`. Backward: `silu_backward(x, dy) -> dx`.
pub fn silu(b: &mut Builder, x: Value) -> Value {
    smooth(b, ("silu", "silu_backward"), vec![], x, silu_of, silu_slope)
}

fn silu_of(b: &mut Builder, x: Value) -> Value {
    let s = b.logistic(x);
    b.mul(x, s)
}

fn silu_slope(b: &mut Builder, x: Value) -> Value {
    // s (1 + x (1 - s))
    let s = b.logistic(x);
    let minus = b.neg(x);
    let rest = b.logistic(minus);
    let inner = b.mul(x, rest);
    let inner = b.offset(inner, 1.0);
    b.mul(s, inner)
}

/// `swiglu`: `silu(gate) up`, on two values of one type. Backward:
/// `swiglu_backward(gate, up, dy) -> (dgate, dup)`.
pub fn swiglu(b: &mut Builder, gate: Value, up: Value) -> Value {
    call(b, "swiglu", &[gate, up], 1, |types| {
        expect_float("the gate", &types[0])?;
        expect_dtype("the other operand", &types[1], types[0].dtype)?;
        expect_shape("the other operand", &types[1], &types[0].shape)?;
        let dtype = types[0].dtype;
        let own = Own {
            names: ("swiglu", "swiglu_backward"),
            forward: function("swiglu", vec![], types, |b, x| {
                let (gate, up) = (widen(b, x[0]), widen(b, x[1]));
                let gate = silu_of(b, gate);
                let y = b.mul(gate, up);
                vec![b.cast(y, dtype)]
            })?,
            results: 1,
            keep: &[Keep::Input(0), Keep::Input(1)],
        };
        with_own(own, |b, kept, dy| {
            let (gate, up) = (widen(b, kept[0]), widen(b, kept[1]));
            let dy = widen(b, dy[0]);
            let slope = silu_slope(b, gate);
            let dgate = b.mul(dy, up);
            let dgate = b.mul(dgate, slope);
            let open = silu_of(b, gate);
            let dup = b.mul(dy, open);
            vec![b.cast(dgate, dtype), b.cast(dup, dtype)]
        })
    })[0]
}

/// `gelu`: `x Φ(x)` with the normal distribution function, `0.5 x (1 + erf(x / sqrt 2))`.
/// Backward: `gelu_backward(x, dy) -> dx`.
pub fn gelu(b: &mut Builder, x: Value) -> Value {
    let distribution = |b: &mut Builder, x: Value| {
        let small = b.scale(x, FRAC_1_SQRT_2);
        let e = b.erf(small);
        let e = b.offset(e, 1.0);
        b.scale(e, 0.5)
    };
    let f = |b: &mut Builder, x: Value| {
        let p = distribution(b, x);
        b.mul(x, p)
    };
    let slope = |b: &mut Builder, x: Value| {
        let p = distribution(b, x);
        let square = b.mul(x, x);
        let half = b.scale(square, -0.5);
        let density = b.exp(half);
        let density = b.scale(density, 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
        let tail = b.mul(x, density);
        b.add(p, tail)
    };
    smooth(b, ("gelu", "gelu_backward"), vec![], x, f, slope)
}

/// `gelu_tanh`: `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, the form that GPT-2 uses, as
/// the same `x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))`, which loses no digits where it is small.
/// Backward: `gelu_tanh_backward(x, dy) -> dx`.
pub fn gelu_tanh(b: &mut Builder, x: Value) -> Value {
    let scale = 2.0 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
    let gate = move |b: &mut Builder, x: Value| {
        let square = b.mul(x, x);
        let factor = b.scale(square, scale * GELU_CUBIC);
        let factor = b.offset(factor, scale);
        let inner = b.mul(x, factor);
        (square, b.logistic(inner))
    };
    let f = |b: &mut Builder, x: Value| {
        let (_, s) = gate(b, x);
        b.mul(x, s)
    };
    let slope = |b: &mut Builder, x: Value| {
        // s + x s (1 - s) scale (1 + 3 cubic x^2)
        let (square, s) = gate(b, x);
        let inner = b.scale(square, 3.0 * GELU_CUBIC * scale);
        let inner = b.offset(inner, scale);
        let one = b.full_like(s, 1.0);
        let rest = b.sub(one, s);
        let steep = b.mul(x, inner);
        let steep = b.mul(steep, rest);
        let steep = b.offset(steep, 1.0);
        b.mul(s, steep)
    };
    smooth(b, ("gelu_tanh", "gelu_tanh_backward"), vec![], x, f, slope)
}

/// `softplus`: `log(1 + e^(beta x)) / beta`, without overflow. Attribute: `beta`. Backward:
/// `softplus_backward(x, dy) -> dx`.
pub fn softplus(b: &mut Builder, x: Value, beta: f64) -> Value {
    let f = |b: &mut Builder, x: Value| {
        let steep = b.scale(x, beta);
        let y = softplus_of(b, steep);
        b.scale(y, 1.0 / beta)
    };
    let slope = |b: &mut Builder, x: Value| {
        let steep = b.scale(x, beta);
        b.logistic(steep)
    };
    smooth(b, ("softplus", "softplus_backward"), vec![("beta", number(beta))], x, f, slope)
}

/// `log_sigmoid`: `log(sigmoid(x))`, without overflow. Backward:
/// `log_sigmoid_backward(x, dy) -> dx`.
pub fn log_sigmoid(b: &mut Builder, x: Value) -> Value {
    let f = |b: &mut Builder, x: Value| {
        let minus = b.neg(x);
        let y = softplus_of(b, minus);
        b.neg(y)
    };
    let slope = |b: &mut Builder, x: Value| {
        let minus = b.neg(x);
        b.logistic(minus)
    };
    smooth(b, ("log_sigmoid", "log_sigmoid_backward"), vec![], x, f, slope)
}

/// `mish`: `x tanh(softplus(x))`. Backward: `mish_backward(x, dy) -> dx`.
pub fn mish(b: &mut Builder, x: Value) -> Value {
    let gate = |b: &mut Builder, x: Value| {
        let y = softplus_of(b, x);
        b.tanh(y)
    };
    let f = |b: &mut Builder, x: Value| {
        let t = gate(b, x);
        b.mul(x, t)
    };
    let slope = |b: &mut Builder, x: Value| {
        // t + x (1 - t^2) sigmoid(x)
        let t = gate(b, x);
        let square = b.mul(t, t);
        let one = b.full_like(t, 1.0);
        let rest = b.sub(one, square);
        let s = b.logistic(x);
        let steep = b.mul(rest, s);
        let steep = b.mul(x, steep);
        b.add(t, steep)
    };
    smooth(b, ("mish", "mish_backward"), vec![], x, f, slope)
}

/// `log(1 + e^x)` as primitives: `max(x, 0) + log1p(e^-|x|)`.
fn softplus_of(b: &mut Builder, x: Value) -> Value {
    let size = b.abs(x);
    let minus = b.neg(size);
    let e = b.exp(minus);
    let log = b.log1p(e);
    let zero = b.zeros_like(x);
    let top = b.max(x, zero);
    b.add(top, log)
}

/// `x`, or `value` where `x <= bound`.
fn not_below(b: &mut Builder, x: Value, bound: f64, value: f64) -> Value {
    let bound = b.full_like(x, bound);
    let value = b.full_like(x, value);
    let below = b.le(x, bound);
    b.select(below, value, x)
}

/// `y`, or `value` where `x >= bound`.
fn not_above(b: &mut Builder, x: Value, bound: f64, y: Value, value: f64) -> Value {
    let bound = b.full_like(x, bound);
    let value = b.full_like(x, value);
    let above = b.ge(x, bound);
    b.select(above, value, y)
}

/// `yes` where `x > 0`, else `no`.
fn where_positive(b: &mut Builder, x: Value, yes: Value, no: Value) -> Value {
    let zero = b.zeros_like(x);
    let positive = b.gt(x, zero);
    b.select(positive, yes, no)
}

/// An elementwise composite that is differentiated through its body.
fn plain(
    b: &mut Builder,
    name: &'static str,
    attributes: AttributeList,
    x: Value,
    f: impl Fn(&mut Builder, Value) -> Value,
) -> Value {
    call(b, name, &[x], 1, |types| elementwise(name, attributes, types, f))[0]
}

/// An elementwise composite whose backward half multiplies by `slope(x)`.
fn smooth(
    b: &mut Builder,
    names: (&'static str, &'static str),
    attributes: AttributeList,
    x: Value,
    f: impl Fn(&mut Builder, Value) -> Value,
    slope: impl Fn(&mut Builder, Value) -> Value,
) -> Value {
    call(b, names.0, &[x], 1, |types| {
        let forward = elementwise(names.0, attributes, types, f)?;
        let own = Own { names, forward, results: 1, keep: &[Keep::Input(0)] };
        with_own(own, |b, kept, dy| {
            let (x, dy) = (widen(b, kept[0]), widen(b, dy[0]));
            let slope = slope(b, x);
            let dx = b.mul(dy, slope);
            vec![b.cast(dx, types[0].dtype)]
        })
    })[0]
}

fn elementwise(
    name: &'static str,
    attributes: AttributeList,
    types: &[Type],
    f: impl Fn(&mut Builder, Value) -> Value,
) -> Result<Arc<Function>> {
    expect_float("the operand", &types[0])?;
    function(name, attributes, types, |b, x| {
        let x = widen(b, x[0]);
        let y = f(b, x);
        vec![b.cast(y, types[0].dtype)]
    })
}
