//! Gather and scatter.

use super::moves::{copy, start};
use crate::exec::Context;
use crate::exec::tile::ops::{self, Arg, Call, Kind, Loop, Reduction};
use crate::steps::{Block, Steps};
use ferrata_compiler::kernel::View;
use ferrata_ir::DType;
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::primitive::index::{BadIndex, Gather, Scatter, ScatterKind};

/// Bytes that one task moves, at least.
const TASK: usize = 64 << 10;

/// Integers of a view, by position.
pub(super) struct Indices<'a> {
    view: &'a View,
    steps: Steps,
}

impl<'a> Indices<'a> {
    pub fn new(view: &'a View) -> Self {
        Indices { view, steps: Steps::new(&view.shape, &view.strides) }
    }

    /// The integer at a position.
    ///
    /// # Safety
    /// The position is in the view, and the view in its operand.
    pub unsafe fn get(&self, operands: &[*mut u8], at: usize) -> i64 {
        let from = start(self.view, operands);
        let offset = self.steps.at(at);
        // SAFETY: passed on.
        unsafe {
            match self.view.dtype {
                DType::I64 => *from.cast::<i64>().offset(offset),
                _ => i64::from(*from.cast::<i32>().offset(offset)),
            }
        }
    }
}

/// Operand `[B.., I.., S..]`, addressed at positions `[B.., P..]`.
struct Addressed<'a> {
    view: &'a View,
    batch: usize,
    indexed: usize,
    bad: BadIndex,
    indices: Indices<'a>,
    /// Positions in all, and those of one batch entry.
    positions: usize,
    per_batch: usize,
    outer: Steps,
    /// The slice at a position.
    slice: Steps,
    elements: usize,
}

impl<'a> Addressed<'a> {
    fn new(view: &'a View, batch: usize, indexed: usize, bad: BadIndex, indices: &'a View) -> Self {
        let rank = indices.shape.len() - 1;
        let split = batch + indexed;
        Addressed {
            view,
            batch,
            indexed,
            bad,
            positions: indices.shape[..rank].iter().product(),
            per_batch: indices.shape[batch..rank].iter().product(),
            indices: Indices::new(indices),
            outer: Steps::new(&view.shape[..batch], &view.strides[..batch]),
            slice: Steps::new(&view.shape[split..], &view.strides[split..]),
            elements: view.shape[split..].iter().product(),
        }
    }

    /// Offset of the slice at a position; `None` where the access does not happen.
    unsafe fn target(&self, operands: &[*mut u8], at: usize) -> Option<isize> {
        let mut offset = self.outer.at(at / self.per_batch.max(1));
        for d in 0..self.indexed {
            let size = self.view.shape[self.batch + d] as i64;
            // SAFETY: passed on.
            let mut index = unsafe { self.indices.get(operands, at * self.indexed + d) };
            if self.bad == BadIndex::Clip {
                index = index.clamp(0, (size - 1).max(0));
            }
            if !(0..size).contains(&index) {
                return None;
            }
            offset += index as isize * self.view.strides[self.batch + d];
        }
        Some(offset)
    }
}

/// Copies elements `first..last` of strided `steps` to contiguous memory.
unsafe fn pull(steps: &Steps, size: usize, from: *const u8, range: [usize; 2], to: *mut u8) {
    let mut at = range[0];
    while at < range[1] {
        let columns = steps.run(at).min(range[1] - at);
        let block = Block { rows: 1, columns, dense_row: 0, row: 0, column: steps.stride() };
        // SAFETY: the caller has the elements and room for them.
        unsafe {
            let from = from.offset(steps.at(at) * size as isize);
            block.gather(size, from, to.add((at - range[0]) * size));
        }
        at += columns;
    }
}

#[derive(Clone, Copy)]
struct Operands<'a>(&'a [*mut u8]);

// SAFETY: tasks write different elements.
unsafe impl Sync for Operands<'_> {}

impl<'a> Operands<'a> {
    fn get(self) -> &'a [*mut u8] {
        self.0
    }
}

/// Runs a gather.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn gather(
    op: &Gather,
    cx: &Context<'_>,
    inputs: &[View],
    output: &View,
    operands: &[*mut u8],
) {
    let from = Addressed::new(&inputs[0], op.batch, op.indexed, op.bad, &inputs[1]);
    let size = output.dtype.size();
    let bytes = from.elements * size;
    let group = (TASK / bytes.max(1)).clamp(1, 4096);
    let shared = Operands(operands);
    cx.pool.run(from.positions.div_ceil(group), &|task, _| {
        let operands = shared.get();
        for at in task * group..((task + 1) * group).min(from.positions) {
            // SAFETY: the target is in the operand; every position has its own slice.
            unsafe {
                let to = start(output, operands).add(at * bytes);
                match from.target(operands, at) {
                    Some(offset) => {
                        let data = start(&inputs[0], operands).offset(offset * size as isize);
                        pull(&from.slice, size, data, [0, from.elements], to);
                    }
                    None => std::ptr::write_bytes(to, 0, bytes),
                }
            }
        }
    });
}

/// Bytes of workspace of a scatter: halves are summed in f32.
pub(super) fn scatter_workspace(op: &Scatter, output: &View) -> usize {
    if sums_halves(op, output) { 4 * output.shape.iter().product::<usize>() } else { 0 }
}

fn sums_halves(op: &Scatter, output: &View) -> bool {
    op.kind == ScatterKind::Add && matches!(output.dtype, DType::F16 | DType::BF16)
}

fn reduction(kind: ScatterKind, dtype: DType) -> Option<Reduction> {
    let kind = match kind {
        ScatterKind::Set => return None,
        ScatterKind::Add => ReduceKind::Sum,
        ScatterKind::Max => ReduceKind::Max,
        ScatterKind::Min => ReduceKind::Min,
    };
    ops::reduction(kind, Kind::of(dtype))
}

fn call(run: Loop, columns: usize, from: *const u8, out: *mut u8) {
    let arg = Arg { data: from, row: 0, vector: true };
    // SAFETY: the caller has so many elements on both sides.
    unsafe { run(&Call { rows: 1, columns, out, out_row: 0, args: [arg; 3] }) };
}

/// Runs a scatter. Tasks share the elements of the slices, so that each element sees all updates
/// in order.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn scatter(
    op: &Scatter,
    cx: &Context<'_>,
    inputs: &[View],
    output: &View,
    operands: &[*mut u8],
) {
    let pool = cx.pool;
    // SAFETY: the result has the operand's shape, and overlaps nothing.
    unsafe { copy(pool, &inputs[0], output, operands) };
    let half = matches!(output.dtype, DType::F16 | DType::BF16);
    let wide = sums_halves(op, output);
    let size = output.dtype.size();
    let elements: usize = output.shape.iter().product();
    let reduce = reduction(op.kind, output.dtype);
    let out = start(output, operands);
    if wide {
        call(ops::widen(output.dtype), elements, out, cx.workspace);
    }
    let to = Addressed::new(output, op.batch, op.indexed, op.bad, &inputs[1]);
    let updates = Steps::new(&inputs[2].shape, &inputs[2].strides);
    let work = to.positions * size;
    let part = (TASK / work.max(1)).max(1).next_multiple_of(64).min(to.elements.max(1));
    let shared = Operands(operands);
    let workspace = Operands(std::slice::from_ref(&cx.workspace));
    // Registers of a part: the update, and for halves two of them widened.
    let room = part * 4;
    pool.run(to.elements.div_ceil(part), &|task, thread| {
        pool.with_scratch(thread, 3 * room.next_multiple_of(64), |scratch| {
            let range = [task * part, ((task + 1) * part).min(to.elements)];
            let columns = range[1] - range[0];
            let (operands, workspace) = (shared.get(), workspace.get()[0]);
            let update = scratch.as_mut_ptr::<u8>();
            for at in 0..to.positions {
                // SAFETY: targets are in the result; tasks have different elements of each slice.
                unsafe {
                    let Some(offset) = to.target(operands, at) else { continue };
                    let place = offset as usize + range[0];
                    let first = at * to.elements + range[0];
                    let from = start(&inputs[2], operands);
                    let there = start(output, operands).add(place * size);
                    let Some(reduce) = &reduce else {
                        pull(&updates, size, from, [first, first + columns], there);
                        continue;
                    };
                    pull(&updates, size, from, [first, first + columns], update);
                    if !half {
                        call(reduce.rows, columns, update, there);
                        continue;
                    }
                    let second = update.add(room.next_multiple_of(64));
                    call(ops::widen(output.dtype), columns, update, second);
                    if wide {
                        call(reduce.rows, columns, second, workspace.add(place * 4));
                        continue;
                    }
                    let third = update.add(2 * room.next_multiple_of(64));
                    call(ops::widen(output.dtype), columns, there, third);
                    call(reduce.rows, columns, second, third);
                    call(ops::narrow(output.dtype), columns, third, there);
                }
            }
        });
    });
    if wide {
        call(ops::narrow(output.dtype), elements, cx.workspace, out);
    }
}
