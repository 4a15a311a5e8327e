//! Comparisons and selection.

use super::{Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature};

/// Every operation of this file.
pub(super) static ALL: &[&ElementwiseOp] = &[&EQ, &NE, &LT, &LE, &GT, &GE, &IS_FINITE, &SELECT];

/// `a == b`; false for NaN.
pub static EQ: ElementwiseOp = compare("eq", |a, b| a == b, |a, b| a == b, ScalarOp::Eq);
/// `a != b`; true for NaN.
pub static NE: ElementwiseOp = compare("ne", |a, b| a != b, |a, b| a != b, ScalarOp::Ne);
/// `a < b`; false for NaN.
pub static LT: ElementwiseOp = compare("lt", |a, b| a < b, |a, b| a < b, ScalarOp::Lt);
/// `a <= b`; false for NaN.
pub static LE: ElementwiseOp = compare("le", |a, b| a <= b, |a, b| a <= b, ScalarOp::Le);
/// `a > b`; false for NaN.
pub static GT: ElementwiseOp = compare("gt", |a, b| a > b, |a, b| a > b, ScalarOp::Gt);
/// `a >= b`; false for NaN.
pub static GE: ElementwiseOp = compare("ge", |a, b| a >= b, |a, b| a >= b, ScalarOp::Ge);

const fn compare(
    name: &'static str,
    float: fn(f64, f64) -> bool,
    int: fn(i64, i64) -> bool,
    op: ScalarOp,
) -> ElementwiseOp {
    ElementwiseOp {
        name,
        signature: Signature::Compare,
        reference: Reference::Compare(float, int),
        derivative: Derivative::Zero,
        kernel: Kernel::Op(op),
    }
}

/// Whether `x` is neither infinite nor NaN.
pub static IS_FINITE: ElementwiseOp = ElementwiseOp {
    name: "is_finite",
    signature: Signature::Test,
    reference: Reference::Test(f64::is_finite),
    derivative: Derivative::Zero,
    kernel: Kernel::Op(ScalarOp::IsFinite),
};

/// `condition ? a : b`.
pub static SELECT: ElementwiseOp = ElementwiseOp {
    name: "select",
    signature: Signature::Select,
    reference: Reference::Select,
    derivative: Derivative::Linear(
        |i| i > 0,
        |b, x, _, i, dx| {
            let none = b.zeros_like(dx);
            if i == 1 { b.select(x[0], dx, none) } else { b.select(x[0], none, dx) }
        },
    ),
    kernel: Kernel::Op(ScalarOp::Select),
};
