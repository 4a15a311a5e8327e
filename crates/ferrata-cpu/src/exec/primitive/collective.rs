//! Collectives: parts of values are brought into one piece, exchanged, and put in place.

use super::{moves, shifted, ty};
use crate::exec::Context;
use crate::memory::ALIGNMENT;
use ferrata_compiler::kernel::View;
use ferrata_ir::communicator::alone;
use ferrata_ir::{Primitive, Result, row_major_strides};

/// A dimension that is cut, and the sizes of its parts.
type Along<'a> = Option<(usize, &'a [usize])>;

fn bytes(view: &View) -> usize {
    ty(view).bytes()
}

/// Where in the workspace what comes begins, behind what is sent.
fn received_at(x: &View) -> usize {
    bytes(x).next_multiple_of(ALIGNMENT)
}

/// Bytes of workspace: room for all that is sent and all that comes.
pub(super) fn workspace(x: &View, y: &View) -> usize {
    received_at(x) + bytes(y)
}

/// The parts of a view along a dimension, or all of it.
fn parts(view: &View, along: Along) -> Vec<View> {
    let Some((dim, sizes)) = along else { return vec![view.clone()] };
    let mut first = 0;
    let part = |&size: &usize| {
        let mut shape = view.shape.clone();
        shape[dim] = size;
        let part = shifted(view, first as isize * view.strides[dim], &shape);
        first += size;
        part
    };
    sizes.iter().map(part).collect()
}

/// Whether the parts lie one after the other in row-major order.
fn packed(view: &View, along: Along) -> bool {
    let row_major = row_major_strides(&view.shape);
    let dense = view.shape.iter().zip(view.strides.iter().zip(row_major));
    let mut dense = dense.filter(|(size, _)| **size > 1);
    dense.all(|(_, (&have, want))| have == want as isize)
        && along.is_none_or(|(dim, _)| view.shape[..dim].iter().all(|&size| size == 1))
}

/// Copies the parts of a view into one piece of memory, or back.
///
/// # Safety
/// The memory has room for all of them.
unsafe fn copy(cx: &Context<'_>, parts: &[View], operands: &[*mut u8], piece: *mut u8, back: bool) {
    let mut operands = operands.to_vec();
    operands.push(piece);
    let mut offset = 0;
    for part in parts {
        let strides = row_major_strides(&part.shape).into_iter().map(|s| s as isize).collect();
        let there = View { operand: operands.len() - 1, offset, strides, ..part.clone() };
        offset += part.shape.iter().product::<usize>();
        let (from, to) = if back { (&there, part) } else { (part, &there) };
        // SAFETY: passed on; the piece is no operand.
        unsafe { moves::copy(cx.pool, from, to, &operands) };
    }
}

/// Runs a collective on a view of its operand, with its result in another.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn run(
    op: &Primitive,
    cx: &Context<'_>,
    [x, y]: [&View; 2],
    operands: &[*mut u8],
) -> Result<()> {
    let with = &**cx.communicator.ok_or_else(alone)?;
    let (cut, joined): (Along, Along) = match op {
        Primitive::AllGather(op) => (None, Some((op.dim, &op.sizes))),
        Primitive::ReduceScatter(op) => (Some((op.dim, &op.sizes)), None),
        Primitive::AllToAll(op) => {
            (Some((op.split, &op.split_sizes)), Some((op.join, &op.join_sizes)))
        }
        _ => (None, None),
    };
    let in_place = matches!(op, Primitive::AllReduce(_));
    let (send_at, receive_at) = (cx.workspace, cx.workspace.wrapping_add(received_at(x)));
    let direct = packed(y, joined);
    let receive = if direct { moves::start(y, operands) } else { receive_at };
    let send = match () {
        () if in_place => receive,
        () if packed(x, cut) => moves::start(x, operands),
        () => send_at,
    };
    // SAFETY: the workspace has room for both; the result is nobody else's, and the operand is not
    // written while this runs.
    unsafe {
        if in_place || send == send_at {
            copy(cx, &parts(x, cut), operands, send, false);
        }
        let received = std::slice::from_raw_parts_mut(receive, bytes(y));
        let sent = || std::slice::from_raw_parts(send.cast_const(), bytes(x));
        match op {
            Primitive::AllReduce(op) => op.run(with, x.dtype, received)?,
            Primitive::AllGather(op) => op.run(with, &ty(y), sent(), received)?,
            Primitive::ReduceScatter(op) => op.run(with, &ty(x), sent(), received)?,
            Primitive::AllToAll(op) => op.run(with, (&ty(x), &ty(y)), sent(), received)?,
            Primitive::Permute(op) => op.run(with, sent(), received)?,
            other => return Err(format!("`{}` is no collective", other.name()).into()),
        }
        if !direct {
            copy(cx, &parts(y, joined), operands, receive, true);
        }
    }
    Ok(())
}
