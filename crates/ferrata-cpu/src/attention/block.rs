//! Blocks of keys × queries: their size, what is visible in them, and how operands are packed.

use std::ops::Range;

use super::{Attention, Vector};
use crate::gemm::{Panels, Tile};
use crate::isa::{Kernel, Level};

/// Queries and keys of a block, at most: a multiple of every tile's rows and columns.
pub const SIDE: usize = 96;

/// One head's positions and features, some of them, in memory.
#[derive(Clone, Copy)]
pub struct Head<T> {
    pub data: *const T,
    /// Elements from one position to the next.
    pub position: isize,
    /// Elements from one feature to the next.
    pub feature: isize,
}

/// As [`Head`], to be written.
#[derive(Clone, Copy)]
pub struct HeadMut<T> {
    pub data: *mut T,
    pub position: isize,
    pub feature: isize,
}

/// The head of a tensor.
pub fn head<T>(tensor: &super::Input, batch: usize, head: usize) -> Head<T> {
    let [b, h, position, feature] = tensor.strides;
    let at = batch as isize * b + head as isize * h;
    Head { data: tensor.data.cast::<T>().wrapping_offset(at), position, feature }
}

/// The head of a tensor that is written.
pub fn head_mut<T>(tensor: &super::Written, batch: usize, head: usize) -> HeadMut<T> {
    let [b, h, position, feature] = tensor.strides;
    let at = batch as isize * b + head as isize * h;
    HeadMut { data: tensor.data.cast::<T>().wrapping_offset(at), position, feature }
}

impl Attention<'_> {
    /// Keys that any of some queries sees.
    pub fn visible_keys(&self, queries: &Range<usize>, length: usize) -> Range<usize> {
        let first = queries.start as isize + self.offset;
        let last = queries.end as isize - 1 + self.offset;
        let start = self.window.map_or(0, |w| (first - w as isize + 1).max(0) as usize);
        let end = if self.causal { (last + 1).clamp(0, length as isize) as usize } else { length };
        if start < end { start..end } else { 0..0 }
    }

    /// Queries that see a key.
    fn visible_queries(&self, key: usize) -> Range<usize> {
        let own = key as isize - self.offset;
        let end = self.window.map_or(isize::MAX, |w| own.saturating_add(w as isize).max(0));
        let start = if self.causal { own.max(0) } else { 0 };
        (start as usize).min(end as usize)..end as usize
    }

    /// Overwrites what a block's queries do not see.
    pub fn mask<T: Copy>(
        &self,
        block: &mut [T],
        queries: &Range<usize>,
        keys: &Range<usize>,
        value: T,
    ) {
        for (row, key) in block.chunks_exact_mut(SIDE).zip(keys.clone()) {
            let visible = self.visible_queries(key);
            let count = queries.len();
            let start = visible.start.saturating_sub(queries.start).min(count);
            let end = visible.end.saturating_sub(queries.start).clamp(start, count);
            row[..start].fill(value);
            row[end..count].fill(value);
        }
    }

    /// Whether every query of a block sees every key of it.
    pub fn sees_all(&self, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        let (first, last) = (self.visible_queries(keys.start), self.visible_queries(keys.end - 1));
        last.start <= queries.start && first.end >= queries.end
    }
}

/// The ranges of `SIDE` that cover `whole`, cut at multiples of `SIDE`.
pub fn blocks(whole: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (whole.start / SIDE..whole.end.div_ceil(SIDE))
        .map(move |i| (i * SIDE).max(whole.start)..((i + 1) * SIDE).min(whole.end))
        .filter(|range| !range.is_empty())
}

/// Elements that `lines` lines of `steps` steps take when packed in panels of `width`.
pub fn packed_size(lines: usize, steps: usize, width: usize) -> usize {
    lines.next_multiple_of(width) * steps
}

/// Packs positions as lines and features as steps.
///
/// # Safety
/// The machine has `L`; the head is readable there; `to` has room for `packed_size`.
pub unsafe fn pack_positions<L: Level, T: Copy + Default + crate::gemm::Stored<T> + 'static>(
    head: Head<T>,
    positions: Range<usize>,
    features: usize,
    width: usize,
    to: *mut T,
) {
    // SAFETY: passed on.
    unsafe {
        let from = head.data.offset(positions.start as isize * head.position);
        let (line, step, lines) = (head.position, head.feature, positions.len());
        Panels { from, line, step, lines, depth: features, width, to }.pack::<L>();
    }
}

/// Packs features as lines and positions as steps.
///
/// # Safety
/// As [`pack_positions`].
pub unsafe fn pack_features<L: Level, T: Copy + Default + crate::gemm::Stored<T> + 'static>(
    head: Head<T>,
    positions: Range<usize>,
    features: usize,
    width: usize,
    to: *mut T,
) {
    // SAFETY: passed on.
    unsafe {
        let from = head.data.offset(positions.start as isize * head.position);
        let (line, step, depth) = (head.feature, head.position, positions.len());
        Panels { from, line, step, lines: features, depth, width, to }.pack::<L>();
    }
}

/// `C[rows, columns] (+)= A·B` for one block.
pub struct Product<V: Vector> {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub a: *const V::Elem,
    /// How rows and steps of `a` lie.
    pub layout: Layout,
    /// Packed panels of columns.
    pub b: *const V::Elem,
    /// Elements from one panel of `b` to the next.
    pub b_panel: usize,
    pub c: *mut V::Elem,
    pub ld: usize,
    pub accumulate: bool,
}

/// How a left operand lies in memory.
#[derive(Clone, Copy)]
pub enum Layout {
    /// In packed panels of this many steps.
    Packed,
    /// Rows of a block are neighbours, steps `SIDE` apart: a block read transposed.
    Columns,
    /// Steps are neighbours, rows `SIDE` apart: a block as it is.
    Rows,
}

impl<V: Vector> Kernel for Product<V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let (a_stride, panel) = match self.layout {
            Layout::Packed => (mr, self.depth * mr),
            Layout::Columns => (SIDE, mr),
            Layout::Rows => (SIDE, mr * SIDE),
        };
        for i in (0..self.rows).step_by(mr) {
            for j in (0..self.columns).step_by(nr) {
                // SAFETY: whoever makes a product gives operands of its sizes.
                unsafe {
                    let tile = Tile {
                        depth: self.depth,
                        a: self.a.add(i / mr * panel),
                        a_stride,
                        b: self.b.add(j / nr * self.b_panel),
                        c: self.c.add(i * self.ld + j),
                        ld: self.ld,
                        rows: (self.rows - i).min(mr),
                        cols: (self.columns - j).min(nr),
                        accumulate: self.accumulate,
                    };
                    match self.layout {
                        Layout::Rows => tile.compute_rows::<L, V>(),
                        Layout::Packed | Layout::Columns => tile.compute::<L, V>(),
                    }
                }
            }
        }
    }
}

/// Cuts a buffer into parts, each starting at a multiple of 64 bytes.
pub struct Carve {
    used: usize,
}

impl Carve {
    pub fn new() -> Carve {
        Carve { used: 0 }
    }

    /// Reserves `count` elements; the byte offset of the first.
    pub fn take<T>(&mut self, count: usize) -> usize {
        let start = self.used;
        self.used += (count * size_of::<T>()).next_multiple_of(64);
        start
    }

    /// Bytes reserved.
    pub fn total(&self) -> usize {
        self.used
    }
}
