//! Roots, exponentials, logarithms and powers.

use super::{Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature, unary};

/// Every operation of this file.
pub(super) static ALL: &[&ElementwiseOp] =
    &[&EXP, &EXP2, &EXPM1, &LOG, &LOG1P, &SQRT, &RSQRT, &LOGISTIC, &POW];

/// `e^x`.
pub static EXP: ElementwiseOp =
    unary("exp", |x| x[0].exp(), Derivative::Rule(|b, _, y, _, dx| b.mul(y, dx)), ScalarOp::Exp);

/// `2^x`.
pub static EXP2: ElementwiseOp = ElementwiseOp {
    name: "exp2",
    signature: Signature::Float(1),
    reference: Reference::Float(|x| x[0].exp2()),
    derivative: Derivative::Rule(|b, _, y, _, dx| {
        let slope = b.scale(y, std::f64::consts::LN_2);
        b.mul(slope, dx)
    }),
    kernel: Kernel::Expand(|e, dtype, x| {
        let two = e.constant(dtype, 2.0);
        e.apply(ScalarOp::Pow, &[two, x[0]])
    }),
};

/// `e^x - 1`, accurate also near 0.
pub static EXPM1: ElementwiseOp = unary(
    "expm1",
    |x| x[0].exp_m1(),
    Derivative::Rule(|b, _, y, _, dx| {
        let slope = b.offset(y, 1.0);
        b.mul(slope, dx)
    }),
    ScalarOp::Expm1,
);

/// Natural logarithm.
pub static LOG: ElementwiseOp =
    unary("log", |x| x[0].ln(), Derivative::Rule(|b, x, _, _, dx| b.div(dx, x[0])), ScalarOp::Log);

/// `log(1 + x)`, accurate also near 0.
pub static LOG1P: ElementwiseOp = unary(
    "log1p",
    |x| x[0].ln_1p(),
    Derivative::Rule(|b, x, _, _, dx| {
        let divisor = b.offset(x[0], 1.0);
        b.div(dx, divisor)
    }),
    ScalarOp::Log1p,
);

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

/// `a^b`; the derivative in `a` is 0 where `b` is 0, that in `b` is 0 where `a` is 0.
pub static POW: ElementwiseOp = ElementwiseOp {
    name: "pow",
    signature: Signature::Float(2),
    reference: Reference::Float(|x| x[0].powf(x[1])),
    derivative: Derivative::Rule(|b, x, y, i, dx| {
        let zero = b.zeros_like(y);
        let one = b.full_like(y, 1.0);
        // Both slopes are computed at a harmless point where they do not count.
        let flat = b.eq(x[1 - i], zero);
        let slope = if i == 0 {
            let exponent = b.select(flat, one, x[1]);
            let less = b.sub(exponent, one);
            let power = b.pow(x[0], less);
            b.mul(x[1], power)
        } else {
            let base = b.select(flat, one, x[0]);
            let log = b.log(base);
            b.mul(y, log)
        };
        let slope = b.select(flat, zero, slope);
        b.mul(slope, dx)
    }),
    kernel: Kernel::Op(ScalarOp::Pow),
};
