//! Sort, top-k, arg-reduce and running reductions.

use super::moves::{copy, start};
use crate::exec::Context;
use crate::exec::tile::ops::{self, Arg, Call, Kind};
use crate::steps::Steps;
use ferrata_compiler::kernel::View;
use ferrata_ir::primitive::arg_reduce::Extremum;
use ferrata_ir::primitive::{ArgReduce, Cumulative};
use ferrata_ir::{DType, Result};
use half::f16;

/// Elements of one task, at least.
const TASK: usize = 16 << 10;

/// A number whose order is that of the elements, with NaN the largest and both zeros equal.
unsafe fn key(dtype: DType, at: *const u8) -> u64 {
    let float = |x: f64| {
        if x.is_nan() {
            return u64::MAX;
        }
        let bits = (x + 0.0).to_bits();
        if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
    };
    let int = |x: i64| (x as u64) ^ 1 << 63;
    // SAFETY: the caller has an element of this dtype.
    unsafe {
        match dtype {
            DType::F64 => float(*at.cast::<f64>()),
            DType::F32 => float(f64::from(*at.cast::<f32>())),
            DType::F16 => float((*at.cast::<f16>()).to_f64()),
            DType::BF16 => float((*at.cast::<half::bf16>()).to_f64()),
            DType::I64 => int(*at.cast::<i64>()),
            DType::I32 => int(i64::from(*at.cast::<i32>())),
            DType::I16 => int(i64::from(*at.cast::<i16>())),
            DType::I8 => int(i64::from(*at.cast::<i8>())),
            DType::U32 => int(i64::from(*at.cast::<u32>())),
            DType::U8 | DType::Bool => int(i64::from(*at)),
        }
    }
}

/// The lines of a view along a dimension.
struct Lines {
    others: Steps,
    count: usize,
    size: usize,
    stride: isize,
    bytes: usize,
}

impl Lines {
    fn of(view: &View, dim: usize) -> Lines {
        let without = |v: &[isize]| {
            let mut v = v.to_vec();
            v.remove(dim);
            v
        };
        let mut shape = view.shape.clone();
        let size = shape.remove(dim);
        Lines {
            count: shape.iter().product(),
            others: Steps::new(&shape, &without(&view.strides)),
            size,
            stride: view.strides[dim],
            bytes: view.dtype.size(),
        }
    }

    /// Byte offset of an element of a line.
    fn at(&self, line: usize, i: usize) -> isize {
        (self.others.at(line) + i as isize * self.stride) * self.bytes as isize
    }
}

#[derive(Clone, Copy)]
struct Ends([*mut u8; 3]);

// SAFETY: tasks write different lines.
unsafe impl Sync for Ends {}

impl Ends {
    fn get(self) -> [*mut u8; 3] {
        self.0
    }
}

/// Runs a sort or top-k: the first `k` of each sorted line, and where they were.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn first(
    cx: &Context<'_>,
    [x, values, places]: [&View; 3],
    dim: usize,
    k: usize,
    descending: bool,
    operands: &[*mut u8],
) {
    let (from, to, at) = (Lines::of(x, dim), Lines::of(values, dim), Lines::of(places, dim));
    let ends = Ends([x, values, places].map(|v| start(v, operands)));
    let group = (TASK / from.size.max(1)).clamp(1, 1024);
    let size = from.size;
    cx.pool.run(from.count.div_ceil(group), &|task, thread| {
        cx.pool.with_scratch(thread, 16 * size, |scratch| {
            let [x_data, values, places] = ends.get();
            // SAFETY: the scratch has room for a pair for each element of a line; lines are in
            // their operands.
            unsafe {
                let pairs = scratch.as_mut_ptr::<(u64, u64)>();
                for line in task * group..((task + 1) * group).min(from.count) {
                    for i in 0..size {
                        let key = key(x.dtype, x_data.offset(from.at(line, i)));
                        // Reversed keys keep equal elements in their order.
                        *pairs.add(i) = (if descending { !key } else { key }, i as u64);
                    }
                    let pairs = std::slice::from_raw_parts_mut(pairs, size);
                    if k < size && k > 0 {
                        pairs.select_nth_unstable(k - 1);
                    }
                    pairs[..k].sort_unstable();
                    for (n, &(_, i)) in pairs[..k].iter().enumerate() {
                        let element = x_data.offset(from.at(line, i as usize));
                        let to = values.offset(to.at(line, n));
                        std::ptr::copy_nonoverlapping(element, to, from.bytes);
                        *places.offset(at.at(line, n)).cast::<i64>() = i as i64;
                    }
                }
            }
        });
    });
}

/// Runs an arg-reduce.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn extreme(
    op: &ArgReduce,
    cx: &Context<'_>,
    x: &View,
    output: &View,
    operands: &[*mut u8],
) {
    let lines = Lines::of(x, op.dim);
    let ends = Ends([start(x, operands), start(output, operands), std::ptr::null_mut()]);
    let group = (TASK / lines.size.max(1)).clamp(1, 4096);
    cx.pool.run(lines.count.div_ceil(group), &|task, _| {
        let [x_data, out, _] = ends.get();
        for line in task * group..((task + 1) * group).min(lines.count) {
            let mut best = (0, 0);
            for i in 0..lines.size {
                // SAFETY: the element is in the operand.
                let key = unsafe { key(x.dtype, x_data.offset(lines.at(line, i))) };
                // Larger is more extreme; NaN is so at both ends.
                let nan = x.dtype.is_float() && key == u64::MAX;
                let key = if op.kind == Extremum::Min && !nan { !key } else { key };
                if i == 0 || key > best.0 {
                    best = (key, i);
                }
            }
            // SAFETY: the result has an index for each line.
            unsafe { *out.cast::<i64>().add(line) = best.1 as i64 };
        }
    });
}

/// Bytes of workspace of a running reduction: halves run in f32.
pub(super) fn running_workspace(output: &View) -> usize {
    match output.dtype {
        DType::F16 | DType::BF16 => 4 * output.shape.iter().product::<usize>(),
        _ => 0,
    }
}

/// Runs a running reduction: line by line, all inner elements at a time.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn running(
    op: &Cumulative,
    cx: &Context<'_>,
    x: &View,
    output: &View,
    operands: &[*mut u8],
) -> Result<()> {
    let kind = Kind::of(output.dtype);
    let reduction = ops::reduction(op.kind, kind).ok_or("a reduction without meaning")?;
    // SAFETY: the result has the operand's shape, and overlaps nothing.
    unsafe { copy(cx.pool, x, output, operands) };
    let half = matches!(output.dtype, DType::F16 | DType::BF16);
    let elements: usize = output.shape.iter().product();
    let out = start(output, operands);
    let call = |run: ops::Loop, columns: usize, from: *const u8, out: *mut u8| {
        let arg = Arg { data: from, row: 0, vector: true };
        // SAFETY: both sides have so many elements.
        unsafe { run(&Call { rows: 1, columns, out, out_row: 0, args: [arg; 3] }) };
    };
    let data = if half {
        call(ops::widen(output.dtype), elements, out, cx.workspace);
        cx.workspace
    } else {
        out
    };
    let size = kind.size();
    let length = output.shape[op.dim];
    let inner: usize = output.shape[op.dim + 1..].iter().product();
    let outer: usize = output.shape[..op.dim].iter().product();
    let ends = Ends([data; 3]);
    let group = (TASK / (length * inner).max(1)).clamp(1, 4096);
    cx.pool.run(outer.div_ceil(group), &|task, _| {
        let [data, ..] = ends.get();
        for line in task * group..((task + 1) * group).min(outer) {
            let base = line * length * inner;
            for n in 1..length {
                let (at, before) =
                    if op.reverse { (length - 1 - n, length - n) } else { (n, n - 1) };
                let place = |i: usize| data.wrapping_add((base + i * inner) * size);
                call(reduction.rows, inner, place(before), place(at));
            }
        }
    });
    if half {
        call(ops::narrow(output.dtype), elements, cx.workspace, out);
    }
    Ok(())
}
