//! Operations with two operands.

use super::{Body, Call, Kind, Loop, entry, portable};
use crate::isa::{Isa, Level};
use crate::math::Math;
use ferrata_ir::primitive::ScalarOp;
use std::marker::PhantomData;

/// One element of a loop.
pub(super) trait Lane2<T, U> {
    fn apply<L: Level>(x: T, y: T) -> U;
}

/// Applies a lane function to every pair of elements.
pub(super) struct Binary<T, U, F>(PhantomData<(T, U, F)>);

impl<T: Copy, U: Copy, F: Lane2<T, U>> Body for Binary<T, U, F> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        for r in 0..call.rows {
            // SAFETY: passed on.
            unsafe {
                let out = call.out::<U>(r);
                match (call.args[0].vector, call.args[1].vector) {
                    (true, true) => {
                        let (x, y) = (call.row::<T>(0, r), call.row::<T>(1, r));
                        for ((z, &x), &y) in out.iter_mut().zip(x).zip(y) {
                            *z = F::apply::<L>(x, y);
                        }
                    }
                    (true, false) => {
                        let y = call.scalar::<T>(1, r);
                        for (z, &x) in out.iter_mut().zip(call.row::<T>(0, r)) {
                            *z = F::apply::<L>(x, y);
                        }
                    }
                    (false, true) => {
                        let x = call.scalar::<T>(0, r);
                        for (z, &y) in out.iter_mut().zip(call.row::<T>(1, r)) {
                            *z = F::apply::<L>(x, y);
                        }
                    }
                    (false, false) => {
                        let (x, y) = (call.scalar::<T>(0, r), call.scalar::<T>(1, r));
                        out.fill(F::apply::<L>(x, y));
                    }
                }
            }
        }
    }
}

/// The loop of a lane function; compiled for each path if one is given.
macro_rules! lane2 {
    (@body $make:ident($($isa:expr)?), $t:ty => $u:ty, |$x:ident, $y:ident| $e:expr) => {{
        struct Lane;
        impl Lane2<$t, $u> for Lane {
            #[inline(always)]
            fn apply<L: Level>($x: $t, $y: $t) -> $u {
                $e
            }
        }
        $make::<Binary<$t, $u, Lane>>($($isa)?)
    }};
    ($t:ty => $u:ty, |$x:ident, $y:ident| $e:expr) => {
        lane2!(@body portable(), $t => $u, |$x, $y| $e)
    };
    ($isa:expr, $t:ty => $u:ty, |$x:ident, $y:ident| $e:expr) => {
        lane2!(@body entry($isa), $t => $u, |$x, $y| $e)
    };
}

/// Comparisons of one type.
macro_rules! compare {
    ($op:expr, $t:ty) => {
        match $op {
            ScalarOp::Eq => lane2!($t => u8, |x, y| u8::from(x == y)),
            ScalarOp::Ne => lane2!($t => u8, |x, y| u8::from(x != y)),
            ScalarOp::Lt => lane2!($t => u8, |x, y| u8::from(x < y)),
            ScalarOp::Le => lane2!($t => u8, |x, y| u8::from(x <= y)),
            ScalarOp::Gt => lane2!($t => u8, |x, y| u8::from(x > y)),
            ScalarOp::Ge => lane2!($t => u8, |x, y| u8::from(x >= y)),
            _ => return None,
        }
    };
}

/// Operations of one float type. A NaN wins in max and min.
macro_rules! float {
    ($isa:expr, $op:expr, $t:ty) => {
        match $op {
            ScalarOp::Add => lane2!($t => $t, |x, y| x + y),
            ScalarOp::Sub => lane2!($t => $t, |x, y| x - y),
            ScalarOp::Mul => lane2!($t => $t, |x, y| x * y),
            ScalarOp::Div => lane2!($t => $t, |x, y| x / y),
            ScalarOp::Rem => lane2!($t => $t, |x, y| x % y),
            ScalarOp::Max => lane2!($t => $t, |x, y| if x > y || x.is_nan() { x } else { y }),
            ScalarOp::Min => lane2!($t => $t, |x, y| if x < y || x.is_nan() { x } else { y }),
            ScalarOp::Pow => lane2!($isa, $t => $t, |x, y| Math::pow::<L>(x, y)),
            ScalarOp::Atan2 => lane2!($isa, $t => $t, |x, y| Math::atan2::<L>(x, y)),
            other => compare!(other, $t),
        }
    };
}

/// Operations of one integer type. Shifts work on the value as an i64, so that amounts beyond the
/// width behave as the program says.
macro_rules! integer {
    ($op:expr, $t:ty) => {
        match $op {
            ScalarOp::Add => lane2!($t => $t, |x, y| x.wrapping_add(y)),
            ScalarOp::Sub => lane2!($t => $t, |x, y| x.wrapping_sub(y)),
            ScalarOp::Mul => lane2!($t => $t, |x, y| x.wrapping_mul(y)),
            ScalarOp::Div => {
                lane2!($t => $t, |x, y| if y == 0 { 0 } else { x.wrapping_div(y) })
            }
            ScalarOp::Rem => {
                lane2!($t => $t, |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) })
            }
            ScalarOp::Max => lane2!($t => $t, |x, y| x.max(y)),
            ScalarOp::Min => lane2!($t => $t, |x, y| x.min(y)),
            ScalarOp::And => lane2!($t => $t, |x, y| x & y),
            ScalarOp::Or => lane2!($t => $t, |x, y| x | y),
            ScalarOp::Xor => lane2!($t => $t, |x, y| x ^ y),
            ScalarOp::Shl => lane2!($t => $t,
                |x, y| if (0..64).contains(&(y as i64)) { ((x as i64) << y as i64) as $t } else { 0 }),
            ScalarOp::Shr => lane2!($t => $t, |x, y| {
                let amount = if (0..64).contains(&(y as i64)) { y as i64 } else { 63 };
                ((x as i64) >> amount) as $t
            }),
            other => compare!(other, $t),
        }
    };
}

/// The loop of an operation on registers of a kind; `None` where it has no meaning.
#[allow(clippy::unnecessary_cast)] // One macro for all integer types.
pub(crate) fn binary(isa: Isa, op: ScalarOp, kind: Kind) -> Option<Loop> {
    Some(match kind {
        Kind::F32 => float!(isa, op, f32),
        Kind::F64 => float!(Isa::Portable, op, f64),
        Kind::I32 => integer!(op, i32),
        Kind::I64 => integer!(op, i64),
        Kind::I16 => integer!(op, i16),
        Kind::I8 => integer!(op, i8),
        Kind::U8 => integer!(op, u8),
        Kind::U32 => integer!(op, u32),
        Kind::Bool => match op {
            ScalarOp::And => lane2!(u8 => u8, |x, y| x & y),
            ScalarOp::Or => lane2!(u8 => u8, |x, y| x | y),
            ScalarOp::Xor => lane2!(u8 => u8, |x, y| x ^ y),
            ScalarOp::Shl => lane2!(u8 => u8, |x, _y| x),
            ScalarOp::Shr => lane2!(u8 => u8, |x, y| x & (y ^ 1)),
            other => compare!(other, u8),
        },
    })
}
