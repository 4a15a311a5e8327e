//! Roots, exponentials, logarithms, trigonometry and special functions.

use super::{Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature};

/// Every operation of this file.
pub(super) static ALL: &[&ElementwiseOp] =
    &[&EXP, &LOG, &SQRT, &RSQRT, &SIN, &COS, &TANH, &LOGISTIC, &POW];

const fn unary(
    name: &'static str,
    f: fn(&[f64]) -> f64,
    derivative: Derivative,
    op: ScalarOp,
) -> ElementwiseOp {
    ElementwiseOp {
        name,
        signature: Signature::Float(1),
        reference: Reference::Float(f),
        derivative,
        kernel: Kernel::Op(op),
    }
}

/// `e^x`.
pub static EXP: ElementwiseOp =
    unary("exp", |x| x[0].exp(), Derivative::Rule(|b, _, y, _, dx| b.mul(y, dx)), ScalarOp::Exp);

/// Natural logarithm.
pub static LOG: ElementwiseOp =
    unary("log", |x| x[0].ln(), Derivative::Rule(|b, x, _, _, dx| b.div(dx, x[0])), ScalarOp::Log);

/// Square root.
pub static SQRT: ElementwiseOp = unary(
    "sqrt",
    |x| x[0].sqrt(),
    Derivative::Rule(|b, _, y, _, dx| {
        let half = b.scale(dx, 0.5);
        b.div(half, y)
    }),
    ScalarOp::Sqrt,
);

/// `1 / sqrt(x)`.
pub static RSQRT: ElementwiseOp = unary(
    "rsqrt",
    |x| 1.0 / x[0].sqrt(),
    Derivative::Rule(|b, x, y, _, dx| {
        let slope = b.div(y, x[0]);
        let slope = b.scale(slope, -0.5);
        b.mul(slope, dx)
    }),
    ScalarOp::Rsqrt,
);

/// Sine, of radians.
pub static SIN: ElementwiseOp = unary(
    "sin",
    |x| x[0].sin(),
    Derivative::Rule(|b, x, _, _, dx| {
        let c = b.cos(x[0]);
        b.mul(c, dx)
    }),
    ScalarOp::Sin,
);

/// Cosine, of radians.
pub static COS: ElementwiseOp = unary(
    "cos",
    |x| x[0].cos(),
    Derivative::Rule(|b, x, _, _, dx| {
        let s = b.sin(x[0]);
        let s = b.neg(s);
        b.mul(s, dx)
    }),
    ScalarOp::Cos,
);

/// Hyperbolic tangent.
pub static TANH: ElementwiseOp = unary(
    "tanh",
    |x| x[0].tanh(),
    Derivative::Rule(|b, _, y, _, dx| {
        let square = b.mul(y, y);
        let one = b.full_like(y, 1.0);
        let slope = b.sub(one, square);
        b.mul(slope, dx)
    }),
    ScalarOp::Tanh,
);

/// `1 / (1 + e^-x)`.
pub static LOGISTIC: ElementwiseOp = unary(
    "logistic",
    |x| 1.0 / (1.0 + (-x[0]).exp()),
    Derivative::Rule(|b, _, y, _, dx| {
        let one = b.full_like(y, 1.0);
        let rest = b.sub(one, y);
        let slope = b.mul(y, rest);
        b.mul(slope, dx)
    }),
    ScalarOp::Logistic,
);

/// `a^b`; the derivative in `b` is 0 where `a` is 0.
pub static POW: ElementwiseOp = ElementwiseOp {
    name: "pow",
    signature: Signature::Float(2),
    reference: Reference::Float(|x| x[0].powf(x[1])),
    derivative: Derivative::Rule(|b, x, y, i, dx| {
        if i == 0 {
            let one = b.full_like(y, 1.0);
            let less = b.sub(x[1], one);
            let power = b.pow(x[0], less);
            let slope = b.mul(x[1], power);
            return b.mul(slope, dx);
        }
        let zero = b.zeros_like(y);
        let one = b.full_like(y, 1.0);
        let at_zero = b.eq(x[0], zero);
        let safe = b.select(at_zero, one, x[0]);
        let log = b.log(safe);
        let slope = b.mul(y, log);
        b.mul(slope, dx)
    }),
    kernel: Kernel::Op(ScalarOp::Pow),
};
