//! Operations with one operand.

use super::{Body, Call, Kind, Loop};
use crate::isa::{Isa, Level};
use crate::math::Math;
use ferrata_ir::primitive::ScalarOp;
use std::marker::PhantomData;

/// One element of a loop.
pub(super) trait Lane1<T, U> {
    fn apply<L: Level>(x: T) -> U;
}

/// Applies a lane function to every element.
pub(super) struct Unary<T, U, F>(PhantomData<(T, U, F)>);

impl<T: Copy, U: Copy, F: Lane1<T, U>> Body for Unary<T, U, F> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        for r in 0..call.rows {
            // SAFETY: passed on.
            unsafe {
                let out = call.out::<U>(r);
                if call.args[0].vector {
                    for (y, &x) in out.iter_mut().zip(call.row::<T>(0, r)) {
                        *y = F::apply::<L>(x);
                    }
                } else {
                    out.fill(F::apply::<L>(call.scalar::<T>(0, r)));
                }
            }
        }
    }
}

/// The loop of a lane function; compiled for each path if one is given.
macro_rules! lane1 {
    (@body $make:ident($($isa:expr)?), $t:ty => $u:ty, |$x:ident| $e:expr) => {{
        struct Lane;
        impl $crate::exec::tile::ops::unary::Lane1<$t, $u> for Lane {
            #[inline(always)]
            fn apply<L: $crate::isa::Level>($x: $t) -> $u {
                $e
            }
        }
        type Body = $crate::exec::tile::ops::unary::Unary<$t, $u, Lane>;
        $crate::exec::tile::ops::$make::<Body>($($isa)?)
    }};
    ($t:ty => $u:ty, |$x:ident| $e:expr) => {
        lane1!(@body portable(), $t => $u, |$x| $e)
    };
    ($isa:expr, $t:ty => $u:ty, |$x:ident| $e:expr) => {
        lane1!(@body entry($isa), $t => $u, |$x| $e)
    };
}
pub(super) use lane1;

/// Copies elements of a size, or repeats the element of a row.
pub(crate) fn copy(size: usize) -> Loop {
    match size {
        1 => lane1!(u8 => u8, |x| x),
        2 => lane1!(u16 => u16, |x| x),
        4 => lane1!(u32 => u32, |x| x),
        _ => lane1!(u64 => u64, |x| x),
    }
}

/// Sign of a float: 0 and NaN stay.
macro_rules! float_sign {
    ($x:ident) => {
        if $x > 0.0 {
            1.0
        } else if $x < 0.0 {
            -1.0
        } else {
            $x
        }
    };
}

/// Operations of one float type. Those that generated code calls are compiled for its path.
macro_rules! float {
    ($isa:expr, $op:expr, $t:ty) => {
        match $op {
            ScalarOp::Neg => lane1!($t => $t, |x| -x),
            ScalarOp::Abs => lane1!($t => $t, |x| x.abs()),
            ScalarOp::Sign => lane1!($t => $t, |x| float_sign!(x)),
            ScalarOp::Floor => lane1!($t => $t, |x| x.floor()),
            ScalarOp::Ceil => lane1!($t => $t, |x| x.ceil()),
            ScalarOp::Round => lane1!($t => $t, |x| x.round_ties_even()),
            ScalarOp::Trunc => lane1!($t => $t, |x| x.trunc()),
            ScalarOp::Sqrt => lane1!($t => $t, |x| x.sqrt()),
            ScalarOp::Rsqrt => lane1!($t => $t, |x| Math::rsqrt::<L>(x)),
            ScalarOp::IsFinite => lane1!($t => u8, |x| u8::from(x.is_finite())),
            ScalarOp::Exp => lane1!($t => $t, |x| Math::exp::<L>(x)),
            ScalarOp::Expm1 => lane1!($isa, $t => $t, |x| Math::expm1::<L>(x)),
            ScalarOp::Log => lane1!($t => $t, |x| Math::log::<L>(x)),
            ScalarOp::Log1p => lane1!($isa, $t => $t, |x| Math::log1p::<L>(x)),
            ScalarOp::Sin => lane1!($isa, $t => $t, |x| Math::sin::<L>(x)),
            ScalarOp::Cos => lane1!($isa, $t => $t, |x| Math::cos::<L>(x)),
            ScalarOp::Tan => lane1!($isa, $t => $t, |x| Math::tan::<L>(x)),
            ScalarOp::Asin => lane1!($isa, $t => $t, |x| Math::asin::<L>(x)),
            ScalarOp::Acos => lane1!($isa, $t => $t, |x| Math::acos::<L>(x)),
            ScalarOp::Atan => lane1!($isa, $t => $t, |x| Math::atan::<L>(x)),
            ScalarOp::Sinh => lane1!($isa, $t => $t, |x| Math::sinh::<L>(x)),
            ScalarOp::Cosh => lane1!($isa, $t => $t, |x| Math::cosh::<L>(x)),
            ScalarOp::Asinh => lane1!($isa, $t => $t, |x| Math::asinh::<L>(x)),
            ScalarOp::Acosh => lane1!($isa, $t => $t, |x| Math::acosh::<L>(x)),
            ScalarOp::Atanh => lane1!($isa, $t => $t, |x| Math::atanh::<L>(x)),
            ScalarOp::Tanh => lane1!($t => $t, |x| Math::tanh::<L>(x)),
            ScalarOp::Logistic => lane1!($t => $t, |x| Math::logistic::<L>(x)),
            ScalarOp::Erf => lane1!($t => $t, |x| Math::erf::<L>(x)),
            ScalarOp::Erfc => lane1!($isa, $t => $t, |x| Math::erfc::<L>(x)),
            ScalarOp::ErfInv => lane1!($t => $t, |x| Math::erfinv::<L>(x)),
            ScalarOp::Lgamma => lane1!($t => $t, |x| Math::lgamma::<L>(x)),
            ScalarOp::Digamma => lane1!($t => $t, |x| Math::digamma::<L>(x)),
            _ => return None,
        }
    };
}

/// Operations of a signed integer type.
macro_rules! signed {
    ($op:expr, $t:ty) => {
        match $op {
            ScalarOp::Neg => lane1!($t => $t, |x| x.wrapping_neg()),
            ScalarOp::Abs => lane1!($t => $t, |x| x.wrapping_abs()),
            ScalarOp::Sign => lane1!($t => $t, |x| x.signum()),
            ScalarOp::Not => lane1!($t => $t, |x| <$t>::from(x == 0)),
            _ => return None,
        }
    };
}

/// Operations of an unsigned integer type.
macro_rules! unsigned {
    ($op:expr, $t:ty) => {
        match $op {
            ScalarOp::Neg => lane1!($t => $t, |x| x.wrapping_neg()),
            ScalarOp::Abs => lane1!($t => $t, |x| x),
            ScalarOp::Sign => lane1!($t => $t, |x| <$t>::from(x != 0)),
            ScalarOp::Not => lane1!($t => $t, |x| <$t>::from(x == 0)),
            _ => return None,
        }
    };
}

/// The loop of an operation on registers of a kind; `None` where it has no meaning.
pub(crate) fn unary(isa: Isa, op: ScalarOp, kind: Kind) -> Option<Loop> {
    Some(match kind {
        Kind::F32 => float!(isa, op, f32),
        Kind::F64 => float!(Isa::Portable, op, f64),
        Kind::I32 => signed!(op, i32),
        Kind::I64 => signed!(op, i64),
        Kind::I16 => signed!(op, i16),
        Kind::I8 => signed!(op, i8),
        Kind::U8 => unsigned!(op, u8),
        Kind::U32 => unsigned!(op, u32),
        Kind::Bool => match op {
            ScalarOp::Not => lane1!(u8 => u8, |x| x ^ 1),
            _ => return None,
        },
    })
}
