//! Reductions of a block along its rows or its columns, in an order that depends on sizes only.

use super::{Body, Call, Kind, Loop, portable};
use crate::isa::Level;
use ferrata_ir::primitive::ReduceKind;
use std::marker::PhantomData;

/// How two elements are combined.
trait Combine<T> {
    const IDENTITY: T;
    fn apply(x: T, y: T) -> T;
}

/// The loops of one kind of reduction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    /// Which.
    pub kind: ReduceKind,
    /// Combines the columns of each row of the operand: one result for each row.
    pub columns: Loop,
    /// Combines each row of the operand into the result, a single row, in order.
    pub rows: Loop,
    /// The bits of the value that changes nothing.
    pub identity: u64,
}

/// Partial results that a row is spread over.
const LANES: usize = 64;
/// Rows up to this length are combined from left to right.
const SHORT: usize = 16;

#[inline(always)]
fn fold<T: Copy, C: Combine<T>>(x: &[T]) -> T {
    if x.len() <= SHORT {
        return x.iter().fold(C::IDENTITY, |sum, &x| C::apply(sum, x));
    }
    let mut lanes = [C::IDENTITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = C::apply(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = C::apply(*lane, x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (lane, &x) in low.iter_mut().zip(&high[..width]) {
            *lane = C::apply(*lane, x);
        }
        width /= 2;
    }
    lanes[0]
}

struct Columns<T, C>(PhantomData<(T, C)>);

impl<T: Copy, C: Combine<T>> Body for Columns<T, C> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        for r in 0..call.rows {
            // SAFETY: passed on; the result has one element for each row.
            unsafe { *call.out.cast::<T>().add(r) = fold::<T, C>(call.row::<T>(0, r)) };
        }
    }
}

struct Rows<T, C>(PhantomData<(T, C)>);

impl<T: Copy, C: Combine<T>> Body for Rows<T, C> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        // SAFETY: passed on.
        unsafe {
            let sums = call.out::<T>(0);
            for r in 0..call.rows {
                for (sum, &x) in sums.iter_mut().zip(call.row::<T>(0, r)) {
                    *sum = C::apply(*sum, x);
                }
            }
        }
    }
}

/// The loops of one way to combine one type.
macro_rules! combine {
    ($t:ty, $kind:ident, $identity:expr, |$x:ident, $y:ident| $e:expr) => {{
        struct C;
        impl Combine<$t> for C {
            const IDENTITY: $t = $identity;
            #[inline(always)]
            fn apply($x: $t, $y: $t) -> $t {
                $e
            }
        }
        (portable::<Columns<$t, C>>(), portable::<Rows<$t, C>>())
    }};
}

macro_rules! float {
    ($kind:expr, $t:ty) => {
        match $kind {
            ReduceKind::Sum => combine!($t, Sum, 0.0, |x, y| x + y),
            ReduceKind::Product => combine!($t, Product, 1.0, |x, y| x * y),
            ReduceKind::Max => combine!($t, Max, <$t>::NEG_INFINITY, |x, y| {
                if x > y || x.is_nan() { x } else { y }
            }),
            ReduceKind::Min => combine!($t, Min, <$t>::INFINITY, |x, y| {
                if x < y || x.is_nan() { x } else { y }
            }),
            _ => return None,
        }
    };
}

macro_rules! integer {
    ($kind:expr, $t:ty) => {
        match $kind {
            ReduceKind::Sum => combine!($t, Sum, 0, |x, y| x.wrapping_add(y)),
            ReduceKind::Product => combine!($t, Product, 1, |x, y| x.wrapping_mul(y)),
            ReduceKind::Max => combine!($t, Max, <$t>::MIN, |x, y| x.max(y)),
            ReduceKind::Min => combine!($t, Min, <$t>::MAX, |x, y| x.min(y)),
            ReduceKind::And => combine!($t, And, !0, |x, y| x & y),
            ReduceKind::Or => combine!($t, Or, 0, |x, y| x | y),
        }
    };
}

/// The loops of a reduction of registers of a kind; `None` where it has no meaning.
pub(crate) fn reduction(kind: ReduceKind, of: Kind) -> Option<Reduction> {
    let (columns, rows) = match of {
        Kind::F32 => float!(kind, f32),
        Kind::F64 => float!(kind, f64),
        Kind::I32 => integer!(kind, i32),
        Kind::I64 => integer!(kind, i64),
        Kind::I16 => integer!(kind, i16),
        Kind::I8 => integer!(kind, i8),
        Kind::U8 => integer!(kind, u8),
        Kind::U32 => integer!(kind, u32),
        Kind::Bool => match kind {
            ReduceKind::And => combine!(u8, And, 1, |x, y| x & y),
            ReduceKind::Or => combine!(u8, Or, 0, |x, y| x | y),
            _ => return None,
        },
    };
    let identity = of.bits(kind.identity(of.dtype()));
    Some(Reduction { kind, columns, rows, identity })
}
