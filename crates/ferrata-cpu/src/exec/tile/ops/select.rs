//! Selection between two operands.

use super::{Body, Call, Loop, portable};
use crate::isa::Level;
use std::marker::PhantomData;

/// `condition ? x : y` on elements of one size.
struct Select<T>(PhantomData<T>);

/// Chooses without a branch.
#[inline(always)]
fn choose<T>(condition: u8, x: T, y: T) -> T {
    if condition != 0 { x } else { y }
}

impl<T: Copy> Body for Select<T> {
    #[inline(always)]
    unsafe fn run<L: Level>(call: &Call) {
        for r in 0..call.rows {
            // SAFETY: passed on.
            unsafe {
                let out = call.out::<T>(r);
                if !call.args[0].vector {
                    let chosen = if call.scalar::<u8>(0, r) != 0 { 1 } else { 2 };
                    if call.args[chosen].vector {
                        out.copy_from_slice(call.row::<T>(chosen, r));
                    } else {
                        out.fill(call.scalar::<T>(chosen, r));
                    }
                    continue;
                }
                let condition = call.row::<u8>(0, r);
                match (call.args[1].vector, call.args[2].vector) {
                    (true, true) => {
                        let (x, y) = (call.row::<T>(1, r), call.row::<T>(2, r));
                        for (((z, &c), &x), &y) in out.iter_mut().zip(condition).zip(x).zip(y) {
                            *z = choose(c, x, y);
                        }
                    }
                    (true, false) => {
                        let y = call.scalar::<T>(2, r);
                        for ((z, &c), &x) in out.iter_mut().zip(condition).zip(call.row::<T>(1, r))
                        {
                            *z = choose(c, x, y);
                        }
                    }
                    (false, true) => {
                        let x = call.scalar::<T>(1, r);
                        for ((z, &c), &y) in out.iter_mut().zip(condition).zip(call.row::<T>(2, r))
                        {
                            *z = choose(c, x, y);
                        }
                    }
                    (false, false) => {
                        let (x, y) = (call.scalar::<T>(1, r), call.scalar::<T>(2, r));
                        for (z, &c) in out.iter_mut().zip(condition) {
                            *z = choose(c, x, y);
                        }
                    }
                }
            }
        }
    }
}

/// The loop for elements of this many bytes; the first operand holds truth values.
pub(crate) fn select(size: usize) -> Loop {
    match size {
        1 => portable::<Select<u8>>(),
        2 => portable::<Select<u16>>(),
        4 => portable::<Select<u32>>(),
        _ => portable::<Select<u64>>(),
    }
}
