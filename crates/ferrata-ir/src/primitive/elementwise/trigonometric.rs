//! Circular and hyperbolic functions and their inverses, of radians.

use super::{Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature, unary};

/// Every operation of this file.
#[rustfmt::skip]
pub(super) static ALL: &[&ElementwiseOp] = &[
    &SIN, &COS, &TAN, &ASIN, &ACOS, &ATAN, &SINH, &COSH, &TANH, &ASINH, &ACOSH, &ATANH, &ATAN2,
];

/// Sine.
pub static SIN: ElementwiseOp = unary(
    "sin",
    |x| x[0].sin(),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = b.cos(x[0]);
        b.mul(slope, dx)
    }),
    ScalarOp::Sin,
);

/// Cosine.
pub static COS: ElementwiseOp = unary(
    "cos",
    |x| x[0].cos(),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = b.sin(x[0]);
        let slope = b.neg(slope);
        b.mul(slope, dx)
    }),
    ScalarOp::Cos,
);

/// Tangent.
pub static TAN: ElementwiseOp = unary(
    "tan",
    |x| x[0].tan(),
    Derivative::Rule(|b, _, y, _, dx| {
        let square = b.mul(y, y);
        let slope = b.offset(square, 1.0);
        b.mul(slope, dx)
    }),
    ScalarOp::Tan,
);

/// Inverse sine.
pub static ASIN: ElementwiseOp = unary(
    "asin",
    |x| x[0].asin(),
    Derivative::Rule(|b, x, _, _, dx| {
        let rest = b.one_minus_square(x[0]);
        let slope = b.rsqrt(rest);
        b.mul(slope, dx)
    }),
    ScalarOp::Asin,
);

/// Inverse cosine.
pub static ACOS: ElementwiseOp = unary(
    "acos",
    |x| x[0].acos(),
    Derivative::Rule(|b, x, _, _, dx| {
        let rest = b.one_minus_square(x[0]);
        let slope = b.rsqrt(rest);
        let slope = b.neg(slope);
        b.mul(slope, dx)
    }),
    ScalarOp::Acos,
);

/// Inverse tangent.
pub static ATAN: ElementwiseOp = unary(
    "atan",
    |x| x[0].atan(),
    Derivative::Rule(|b, x, _, _, dx| {
        let square = b.mul(x[0], x[0]);
        let divisor = b.offset(square, 1.0);
        b.div(dx, divisor)
    }),
    ScalarOp::Atan,
);

/// Hyperbolic sine.
pub static SINH: ElementwiseOp = unary(
    "sinh",
    |x| x[0].sinh(),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = b.cosh(x[0]);
        b.mul(slope, dx)
    }),
    ScalarOp::Sinh,
);

/// Hyperbolic cosine.
pub static COSH: ElementwiseOp = unary(
    "cosh",
    |x| x[0].cosh(),
    Derivative::Rule(|b, x, _, _, dx| {
        let slope = b.sinh(x[0]);
        b.mul(slope, dx)
    }),
    ScalarOp::Cosh,
);

/// Hyperbolic tangent.
pub static TANH: ElementwiseOp = unary(
    "tanh",
    |x| x[0].tanh(),
    Derivative::Rule(|b, _, y, _, dx| {
        let slope = b.one_minus_square(y);
        b.mul(slope, dx)
    }),
    ScalarOp::Tanh,
);

/// Inverse hyperbolic sine.
pub static ASINH: ElementwiseOp = unary(
    "asinh",
    |x| libm::asinh(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let square = b.mul(x[0], x[0]);
        let square = b.offset(square, 1.0);
        let slope = b.rsqrt(square);
        b.mul(slope, dx)
    }),
    ScalarOp::Asinh,
);

/// Inverse hyperbolic cosine.
pub static ACOSH: ElementwiseOp = unary(
    "acosh",
    |x| libm::acosh(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let square = b.mul(x[0], x[0]);
        let square = b.offset(square, -1.0);
        let slope = b.rsqrt(square);
        b.mul(slope, dx)
    }),
    ScalarOp::Acosh,
);

/// Inverse hyperbolic tangent.
pub static ATANH: ElementwiseOp = unary(
    "atanh",
    |x| libm::atanh(x[0]),
    Derivative::Rule(|b, x, _, _, dx| {
        let divisor = b.one_minus_square(x[0]);
        b.div(dx, divisor)
    }),
    ScalarOp::Atanh,
);

/// Angle of the point with ordinate `a` and abscissa `b`.
pub static ATAN2: ElementwiseOp = ElementwiseOp {
    name: "atan2",
    signature: Signature::Float(2),
    reference: Reference::Float(|x| x[0].atan2(x[1])),
    derivative: Derivative::Rule(|b, x, _, i, dx| {
        let (rise, run) = (b.mul(x[0], x[0]), b.mul(x[1], x[1]));
        let square = b.add(rise, run);
        let slope = b.div(x[1 - i], square);
        let term = b.mul(slope, dx);
        if i == 0 { term } else { b.neg(term) }
    }),
    kernel: Kernel::Op(ScalarOp::Atan2),
};
