//! Copies between strided views: windows, padding, concatenation.

use crate::pool::Pool;
use crate::steps::Block;
use ferrata_compiler::kernel::View;

/// Bytes that one task copies, at least.
const TASK: usize = 128 << 10;

/// A strided box of elements on its way.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// Bytes of an element.
    pub size: usize,
    pub shape: Vec<usize>,
    /// Strides in elements of source and target.
    pub from: Vec<isize>,
    pub to: Vec<isize>,
}

/// Ends of a copy, as several threads see them.
#[derive(Clone, Copy)]
struct Ends(*const u8, *mut u8);

// SAFETY: tasks write different elements.
unsafe impl Sync for Ends {}

impl Ends {
    fn get(self) -> (*const u8, *mut u8) {
        (self.0, self.1)
    }
}

impl Copy {
    /// Copies the box.
    ///
    /// # Safety
    /// All elements are within their buffers; source and target do not overlap.
    pub unsafe fn run(&self, pool: &Pool, from: *const u8, to: *mut u8) {
        let rank = self.shape.len();
        let elements: usize = self.shape.iter().product();
        if elements == 0 {
            return;
        }
        // The inner two dimensions are moved as a block, the others one after the other.
        let inner = rank.saturating_sub(2);
        let outer: usize = self.shape[..inner].iter().product();
        let size = |d: usize| if d < rank { self.shape[d] } else { 1 };
        let stride = |s: &[isize], d: usize| if d < rank { s[d] } else { 0 };
        let (rows, columns) = if rank == 1 { (1, size(0)) } else { (size(inner), size(inner + 1)) };
        let column = if rank == 1 { 0 } else { inner + 1 };
        let row = if rank == 1 { 1 } else { inner };
        let dense = rank == 0 || columns == 1 || self.to[column] == 1;
        let ends = Ends(from, to);
        let task_rows = (TASK / (columns * self.size).max(1)).max(1);
        let pieces = rows.div_ceil(task_rows);
        let task_outer = (task_rows / rows).max(1);
        pool.run(outer.div_ceil(task_outer) * pieces, &|task, _| {
            let (from, to) = ends.get();
            let first = task % pieces * task_rows;
            let rows = task_rows.min(rows - first);
            let start = task / pieces * task_outer;
            for at in start..(start + task_outer).min(outer) {
                let (mut f, mut t, mut rest) = (0isize, 0isize, at);
                for d in (0..inner).rev() {
                    let i = (rest % self.shape[d]) as isize;
                    rest /= self.shape[d];
                    f += i * self.from[d];
                    t += i * self.to[d];
                }
                f += first as isize * stride(&self.from, row);
                t += first as isize * stride(&self.to, row);
                let bytes = self.size as isize;
                let (from, to) = (from.wrapping_offset(f * bytes), to.wrapping_offset(t * bytes));
                let across = Block {
                    rows,
                    columns,
                    dense_row: stride(&self.to, row),
                    row: stride(&self.from, row),
                    column: stride(&self.from, column),
                };
                // SAFETY: passed on.
                unsafe {
                    if dense {
                        across.gather(self.size, from, to);
                        continue;
                    }
                    for r in 0..rows as isize {
                        for c in 0..columns as isize {
                            let f = r * across.row + c * across.column;
                            let t = r * stride(&self.to, row) + c * self.to[column];
                            let (from, to) = (from.offset(f * bytes), to.offset(t * bytes));
                            std::ptr::copy_nonoverlapping(from, to, self.size);
                        }
                    }
                }
            }
        });
    }
}

/// Copies so many bytes.
///
/// # Safety
/// Both have them and do not overlap.
pub(in crate::exec) unsafe fn bytes(pool: &Pool, from: *const u8, to: *mut u8, bytes: usize) {
    let ends = Ends(from, to);
    pool.run(bytes.div_ceil(TASK), &|task, _| {
        let ((from, to), first) = (ends.get(), task * TASK);
        // SAFETY: passed on.
        unsafe { to.add(first).copy_from_nonoverlapping(from.add(first), TASK.min(bytes - first)) };
    });
}

/// The first element of a view.
pub(super) fn start(view: &View, operands: &[*mut u8]) -> *mut u8 {
    operands[view.operand].wrapping_add(view.offset * view.dtype.size())
}

/// Copies a view into one of the same shape.
///
/// # Safety
/// As for [`Copy::run`].
pub(super) unsafe fn copy(pool: &Pool, from: &View, to: &View, operands: &[*mut u8]) {
    let copy = Copy {
        size: from.dtype.size(),
        shape: from.shape.clone(),
        from: from.strides.clone(),
        to: to.strides.clone(),
    };
    // SAFETY: passed on.
    unsafe { copy.run(pool, start(from, operands), start(to, operands)) };
}

/// Offset of a window in a view, for starts that are moved so that it lies inside.
///
/// # Safety
/// The starts are in their operand.
pub(super) unsafe fn window(
    view: &View,
    sizes: &[usize],
    starts: &View,
    operands: &[*mut u8],
) -> isize {
    let indices = super::index::Indices::new(starts);
    (0..sizes.len())
        .map(|d| {
            // SAFETY: passed on.
            let index = unsafe { indices.get(operands, d) };
            index.clamp(0, (view.shape[d] - sizes[d]) as i64) as isize * view.strides[d]
        })
        .sum()
}
