//! Batches of values that are worked on in f64, one thread for each.

use super::moves::start;
use crate::exec::Context;
use crate::steps::Steps;
use ferrata_compiler::kernel::View;
use ferrata_ir::DType;

/// Elements of one task, at least.
const TASK: usize = 1 << 10;

/// A view as a batch of values, each read and written as numbers in f64.
pub(super) struct Batch {
    dtype: DType,
    data: *mut u8,
    outer: Steps,
    inner: Steps,
    /// Numbers of one value.
    pub elements: usize,
}

// SAFETY: tasks write different values.
unsafe impl Sync for Batch {}

impl Batch {
    /// A view's values, which have its last `dims` dimensions each.
    pub fn new(view: &View, dims: usize, operands: &[*mut u8]) -> Batch {
        let split = view.shape.len() - dims;
        Batch {
            dtype: view.dtype,
            data: start(view, operands),
            outer: Steps::new(&view.shape[..split], &view.strides[..split]),
            inner: Steps::new(&view.shape[split..], &view.strides[split..]),
            elements: view.shape[split..].iter().product(),
        }
    }

    /// Reads value number `at`.
    ///
    /// # Safety
    /// It is in its operand, which nobody writes.
    pub unsafe fn read(&self, at: usize, to: &mut [f64]) {
        let first = self.outer.at(at);
        for (i, to) in to.iter_mut().enumerate() {
            let offset = first + self.inner.at(i);
            // SAFETY: passed on.
            *to = unsafe {
                match self.dtype {
                    DType::F64 => *self.data.cast::<f64>().offset(offset),
                    _ => f64::from(*self.data.cast::<f32>().offset(offset)),
                }
            };
        }
    }

    /// Writes value number `at`.
    ///
    /// # Safety
    /// It is in its operand, and nobody else reads or writes it.
    pub unsafe fn write(&self, at: usize, from: &[f64]) {
        let first = self.outer.at(at);
        for (i, &x) in from.iter().enumerate() {
            let offset = first + self.inner.at(i);
            // SAFETY: passed on.
            unsafe {
                match self.dtype {
                    DType::F64 => *self.data.cast::<f64>().offset(offset) = x,
                    DType::I64 => *self.data.cast::<i64>().offset(offset) = x as i64,
                    _ => *self.data.cast::<f32>().offset(offset) = x as f32,
                }
            }
        }
    }
}

/// Runs `f` for each of `count` values of so many elements, with room for `numbers`; values are
/// spread over threads.
pub(super) fn each(
    cx: &Context<'_>,
    count: usize,
    elements: usize,
    numbers: usize,
    f: impl Fn(usize, &mut [f64]) + Sync,
) {
    let group = (TASK / elements.max(1)).clamp(1, 1024);
    cx.pool.run(count.div_ceil(group), &|task, thread| {
        cx.pool.with_scratch(thread, numbers * size_of::<f64>(), |scratch| {
            let room = scratch.as_mut_ptr::<f64>();
            // SAFETY: the scratch has that room, of which any bits are numbers.
            let room = unsafe {
                room.write_bytes(0, numbers);
                std::slice::from_raw_parts_mut(room, numbers)
            };
            for at in task * group..((task + 1) * group).min(count) {
                f(at, room);
            }
        });
    });
}
