//! Arithmetic, rounding and bit operations.

use super::{Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature};
use crate::program::{Builder, Value};

/// Every operation of this file.
#[rustfmt::skip]
pub(super) static ALL: &[&ElementwiseOp] = &[
    &NEG, &ABS, &SIGN, &FLOOR, &CEIL, &ROUND, &TRUNC, &ADD, &SUB, &MUL, &DIV, &REM, &MAX, &MIN,
    &CLAMP, &NOT, &AND, &OR, &XOR, &SHL, &SHR,
];

/// `-x`.
pub static NEG: ElementwiseOp = ElementwiseOp {
    name: "neg",
    signature: Signature::Number(1),
    reference: Reference::Number(|x| -x[0], |x| x[0].wrapping_neg()),
    derivative: Derivative::Linear(|_| true, |b, _, _, _, dx| b.neg(dx)),
    kernel: Kernel::Op(ScalarOp::Neg),
};

/// `|x|`; its derivative at 0 and NaN is 0.
pub static ABS: ElementwiseOp = ElementwiseOp {
    name: "abs",
    signature: Signature::Number(1),
    reference: Reference::Number(|x| x[0].abs(), |x| x[0].wrapping_abs()),
    derivative: Derivative::Rule(|b, x, _, _, dx| {
        let zero = b.zeros_like(x[0]);
        let (positive, negative) = (b.gt(x[0], zero), b.lt(x[0], zero));
        let back = b.neg(dx);
        let left = b.select(negative, back, zero);
        b.select(positive, dx, left)
    }),
    kernel: Kernel::Op(ScalarOp::Abs),
};

/// -1, 0 or 1; NaN stays NaN.
pub static SIGN: ElementwiseOp = ElementwiseOp {
    name: "sign",
    signature: Signature::Number(1),
    reference: Reference::Number(
        |x| if x[0] == 0.0 || x[0].is_nan() { x[0] } else { x[0].signum() },
        |x| x[0].signum(),
    ),
    derivative: Derivative::Zero,
    kernel: Kernel::Op(ScalarOp::Sign),
};

/// Largest whole number that is not above `x`.
pub static FLOOR: ElementwiseOp = rounding("floor", |x| x[0].floor(), ScalarOp::Floor);
/// Smallest whole number that is not below `x`.
pub static CEIL: ElementwiseOp = rounding("ceil", |x| x[0].ceil(), ScalarOp::Ceil);
/// Nearest whole number, halves to even.
pub static ROUND: ElementwiseOp = rounding("round", |x| x[0].round_ties_even(), ScalarOp::Round);
/// Whole part, toward 0.
pub static TRUNC: ElementwiseOp = rounding("trunc", |x| x[0].trunc(), ScalarOp::Trunc);

const fn rounding(name: &'static str, f: fn(&[f64]) -> f64, op: ScalarOp) -> ElementwiseOp {
    ElementwiseOp {
        name,
        signature: Signature::Float(1),
        reference: Reference::Float(f),
        derivative: Derivative::Zero,
        kernel: Kernel::Op(op),
    }
}

/// `a + b`; integers wrap.
pub static ADD: ElementwiseOp = ElementwiseOp {
    name: "add",
    signature: Signature::Number(2),
    reference: Reference::Number(|x| x[0] + x[1], |x| x[0].wrapping_add(x[1])),
    derivative: Derivative::Linear(|_| true, |_, _, _, _, dx| dx),
    kernel: Kernel::Op(ScalarOp::Add),
};

/// `a - b`; integers wrap.
pub static SUB: ElementwiseOp = ElementwiseOp {
    name: "sub",
    signature: Signature::Number(2),
    reference: Reference::Number(|x| x[0] - x[1], |x| x[0].wrapping_sub(x[1])),
    derivative: Derivative::Linear(|_| true, |b, _, _, i, dx| if i == 0 { dx } else { b.neg(dx) }),
    kernel: Kernel::Op(ScalarOp::Sub),
};

/// `a b`; integers wrap.
pub static MUL: ElementwiseOp = ElementwiseOp {
    name: "mul",
    signature: Signature::Number(2),
    reference: Reference::Number(|x| x[0] * x[1], |x| x[0].wrapping_mul(x[1])),
    derivative: Derivative::Linear(|_| true, |b, x, _, i, dx| b.mul(dx, x[1 - i])),
    kernel: Kernel::Op(ScalarOp::Mul),
};

/// `a / b`; integer division truncates, and by 0 gives 0.
pub static DIV: ElementwiseOp = ElementwiseOp {
    name: "div",
    signature: Signature::Number(2),
    reference: Reference::Number(
        |x| x[0] / x[1],
        |x| if x[1] == 0 { 0 } else { x[0].wrapping_div(x[1]) },
    ),
    derivative: Derivative::Linear(
        |i| i == 0,
        |b, x, y, i, dx| {
            if i == 0 {
                return b.div(dx, x[1]);
            }
            let slope = b.div(y, x[1]);
            let term = b.mul(slope, dx);
            b.neg(term)
        },
    ),
    kernel: Kernel::Op(ScalarOp::Div),
};

/// Remainder of the truncated division, with the sign of `a`; integers by 0 give 0.
pub static REM: ElementwiseOp = ElementwiseOp {
    name: "rem",
    signature: Signature::Number(2),
    reference: Reference::Number(
        |x| x[0] % x[1],
        |x| if x[1] == 0 { 0 } else { x[0].wrapping_rem(x[1]) },
    ),
    derivative: Derivative::Rule(|b, x, _, i, dx| {
        if i == 0 {
            return dx;
        }
        let ratio = b.div(x[0], x[1]);
        let whole = b.trunc(ratio);
        let term = b.mul(whole, dx);
        b.neg(term)
    }),
    kernel: Kernel::Op(ScalarOp::Rem),
};

/// The larger one; NaN wins; at a tie each operand gets half of the gradient.
pub static MAX: ElementwiseOp = ElementwiseOp {
    name: "max",
    signature: Signature::Number(2),
    reference: Reference::Number(
        |x| if x[0].is_nan() || x[1].is_nan() { f64::NAN } else { x[0].max(x[1]) },
        |x| x[0].max(x[1]),
    ),
    derivative: Derivative::Rule(|b, x, _, i, dx| {
        let loses = b.lt(x[i], x[1 - i]);
        contest(b, x, loses, dx)
    }),
    kernel: Kernel::Op(ScalarOp::Max),
};

/// The smaller one; NaN wins; at a tie each operand gets half of the gradient.
pub static MIN: ElementwiseOp = ElementwiseOp {
    name: "min",
    signature: Signature::Number(2),
    reference: Reference::Number(
        |x| if x[0].is_nan() || x[1].is_nan() { f64::NAN } else { x[0].min(x[1]) },
        |x| x[0].min(x[1]),
    ),
    derivative: Derivative::Rule(|b, x, _, i, dx| {
        let loses = b.gt(x[i], x[1 - i]);
        contest(b, x, loses, dx)
    }),
    kernel: Kernel::Op(ScalarOp::Min),
};

/// The tangent of an operand that `loses` against the other: nothing; half of it at a tie.
fn contest(b: &mut Builder, x: &[Value], loses: Value, dx: Value) -> Value {
    let tie = b.eq(x[0], x[1]);
    let half = b.scale(dx, 0.5);
    let none = b.zeros_like(dx);
    let alone = b.select(loses, none, dx);
    b.select(tie, half, alone)
}

/// `min(max(x, low), high)`; NaN wins. The gradient goes to `x` strictly between the bounds, else
/// to the bound that holds it.
pub static CLAMP: ElementwiseOp = ElementwiseOp {
    name: "clamp",
    signature: Signature::Number(3),
    reference: Reference::Number(
        |x| match x {
            _ if x.iter().any(|x| x.is_nan()) => f64::NAN,
            _ => x[0].max(x[1]).min(x[2]),
        },
        |x| x[0].max(x[1]).min(x[2]),
    ),
    derivative: Derivative::Rule(|b, x, _, i, dx| {
        let (x, low, high) = (x[0], x[1], x[2]);
        let (under, ordered) = (b.le(x, low), b.le(low, high));
        let held_up = b.and(under, ordered);
        let mine = match i {
            0 => {
                let (above, below) = (b.gt(x, low), b.lt(x, high));
                b.and(above, below)
            }
            1 => held_up,
            _ => {
                let raised = b.max(x, low);
                let (over, free) = (b.ge(raised, high), b.not(held_up));
                b.and(over, free)
            }
        };
        let none = b.zeros_like(dx);
        b.select(mine, dx, none)
    }),
    kernel: Kernel::Expand(|e, _, x| {
        let raised = e.apply(ScalarOp::Max, &[x[0], x[1]]);
        e.apply(ScalarOp::Min, &[raised, x[2]])
    }),
};

/// Logical negation.
pub static NOT: ElementwiseOp = ElementwiseOp {
    name: "not",
    signature: Signature::Bool(1),
    reference: Reference::Int(|x| i64::from(x[0] == 0)),
    derivative: Derivative::Zero,
    kernel: Kernel::Op(ScalarOp::Not),
};

/// Bitwise and; logical for bool.
pub static AND: ElementwiseOp = bits("and", |x| x[0] & x[1], ScalarOp::And);
/// Bitwise or; logical for bool.
pub static OR: ElementwiseOp = bits("or", |x| x[0] | x[1], ScalarOp::Or);
/// Bitwise exclusive or; logical for bool.
pub static XOR: ElementwiseOp = bits("xor", |x| x[0] ^ x[1], ScalarOp::Xor);
/// Left shift; amounts outside 0..64 give 0.
pub static SHL: ElementwiseOp =
    bits("shl", |x| if (0..64).contains(&x[1]) { x[0] << x[1] } else { 0 }, ScalarOp::Shl);
/// Right shift, arithmetic for signed types; amounts outside 0..64 give what 63 gives.
pub static SHR: ElementwiseOp =
    bits("shr", |x| x[0] >> if (0..64).contains(&x[1]) { x[1] } else { 63 }, ScalarOp::Shr);

const fn bits(name: &'static str, f: fn(&[i64]) -> i64, op: ScalarOp) -> ElementwiseOp {
    ElementwiseOp {
        name,
        signature: Signature::Bits(2),
        reference: Reference::Int(f),
        derivative: Derivative::Zero,
        kernel: Kernel::Op(op),
    }
}
