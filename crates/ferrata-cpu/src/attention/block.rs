//! Blocks of keys × queries: their size, what is visible in them, and how operands are packed.

use std::any::TypeId;
use std::ops::Range;

use super::{Attention, Value, Vector};
use crate::gemm::{Pack, Panels, Places, Stored, Tile};
use crate::isa::{Kernel, Level};
use crate::simd::{Dot, Simd};

/// Queries and keys of a block, at most: a multiple of every tile's rows and columns.
pub const SIDE: usize = 96;
/// Queries whose softmax is computed together: few enough for registers.
pub const STRIP: usize = 32;
const _: () = assert!(SIDE.is_multiple_of(STRIP));

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

    /// Whether any of some queries sees any of some keys.
    pub fn meet(&self, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        let visible = self.visible_keys(queries, keys.end);
        visible.start < keys.end && keys.start < visible.end
    }

    /// Queries that see any of some keys.
    pub fn seeing_queries(&self, keys: &Range<usize>) -> Range<usize> {
        self.visible_queries(keys.start).start..self.visible_queries(keys.end - 1).end
    }

    /// Queries that see a key.
    pub fn visible_queries(&self, key: usize) -> Range<usize> {
        let own = key as isize - self.offset;
        let end = self.window.map_or(isize::MAX, |w| own.saturating_add(w as isize).max(0));
        let start = if self.causal { own.max(0) } else { 0 };
        (start as usize).min(end as usize)..end as usize
    }

    /// Overwrites what a block's queries do not see.
    #[inline(always)]
    pub fn hide<T: Copy>(
        &self,
        block: &mut [T],
        queries: &Range<usize>,
        keys: &Range<usize>,
        value: T,
    ) {
        if self.sees_all(queries, keys) {
            return;
        }
        for (row, key) in block.chunks_exact_mut(SIDE).zip(keys.clone()) {
            let visible = within(&self.visible_queries(key), queries);
            row[..visible.start].fill(value);
            row[visible.end..queries.len()].fill(value);
        }
    }

    /// Whether every query of a block sees every key of it.
    fn sees_all(&self, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        let (first, last) = (self.visible_queries(keys.start), self.visible_queries(keys.end - 1));
        last.start <= queries.start && first.end >= queries.end
    }
}

/// What `range` has of `block`, counted from the block's start.
pub fn within(range: &Range<usize>, block: &Range<usize>) -> Range<usize> {
    let start = range.start.clamp(block.start, block.end) - block.start;
    start..(range.end.clamp(block.start, block.end) - block.start).max(start)
}

/// `range`, counted from the start of a block, counted from 0.
pub fn beyond(range: Range<usize>, block: &Range<usize>) -> Range<usize> {
    range.start + block.start..(range.end + block.start).min(block.end)
}

/// The ranges of `SIDE` that cover `whole`, cut at multiples of `SIDE`.
pub fn blocks(whole: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (whole.start / SIDE..whole.end.div_ceil(SIDE))
        .map(move |i| (i * SIDE).max(whole.start)..((i + 1) * SIDE).min(whole.end))
        .filter(|range| !range.is_empty())
}

/// Elements that `lines` lines of `steps` steps take when packed for `D` in panels of `width`.
pub fn packed_size<D: Dot>(lines: usize, steps: usize, width: usize) -> usize {
    lines.next_multiple_of(width) * grouped::<D>(steps)
}

/// Steps, rounded up to whole groups.
pub fn grouped<D: Dot>(steps: usize) -> usize {
    steps.next_multiple_of(D::GROUP)
}

/// Packs positions as lines and features as steps.
///
/// # Safety
/// The machine has `L`; the head is readable there; `to` has room for `packed_size`.
pub unsafe fn pack_positions<L: Level, D: Dot, E: Copy + 'static, P: Pack<E>>(
    head: Head<E>,
    positions: &Range<usize>,
    features: usize,
    width: usize,
    to: *mut P,
) {
    // SAFETY: passed on.
    unsafe {
        let from = head.data.offset(positions.start as isize * head.position);
        let (line, step) = (Places::even(head.position), Places::even(head.feature));
        let lines = positions.len();
        let panels = Panels { from, line, step, lines, depth: features, width, to };
        panels.pack_for::<L, D>(grouped::<D>(features) * width);
    }
}

/// Packs features as lines and positions as steps.
///
/// # Safety
/// As [`pack_positions`].
pub unsafe fn pack_features<L: Level, D: Dot, E: Copy + 'static, P: Pack<E>>(
    head: Head<E>,
    positions: &Range<usize>,
    features: usize,
    width: usize,
    to: *mut P,
) {
    // SAFETY: passed on.
    unsafe {
        let from = head.data.offset(positions.start as isize * head.position);
        let (line, step) = (Places::even(head.feature), Places::even(head.position));
        let depth = positions.len();
        let panels = Panels { from, line, step, lines: features, depth, width, to };
        panels.pack_for::<L, D>(grouped::<D>(depth) * width);
    }
}

/// Elements that [`operand`] needs.
pub fn operand_size<D: Dot>() -> usize {
    if TypeId::of::<D::Left>() == TypeId::of::<Value<D>>() { 0 } else { SIDE * SIDE }
}

/// A block of keys × `SIDE` queries as the left operand of products, laid out as `layout` says: as
/// it is, or rounded.
///
/// # Safety
/// The machine has `L`; the block has so many keys; `to` has room for `operand_size`.
pub unsafe fn operand<L, D>(
    block: *const Value<D>,
    [keys, queries]: [usize; 2],
    layout: Layout,
    to: *mut D::Left,
) -> *const D::Left
where
    L: Level,
    D: Dot<Left: Stored<Value<D>>>,
{
    if operand_size::<D>() == 0 {
        return block.cast();
    }
    // SAFETY: passed on.
    unsafe { L::call(Round::<D> { block, keys, queries, layout, to }) };
    to
}

struct Round<D: Dot> {
    block: *const Value<D>,
    keys: usize,
    queries: usize,
    layout: Layout,
    to: *mut D::Left,
}

impl<D: Dot<Left: Stored<Value<D>>>> Kernel for Round<D> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        const { assert!(D::GROUP <= 4) };
        let group = D::GROUP;
        // SAFETY: `operand`'s contract.
        unsafe {
            if matches!(self.layout, Layout::Rows) {
                // Groups are neighbouring queries.
                for key in 0..self.keys {
                    let to = self.to.add(key * SIDE);
                    D::Left::narrow_row::<L>(self.block.add(key * SIDE), to, SIDE);
                    for i in self.queries..grouped::<D>(self.queries) {
                        to.add(i).write(D::Left::default());
                    }
                }
                return;
            }
            // Groups are neighbouring keys.
            for first in (0..self.keys).step_by(group) {
                let mut rows = [[D::Left::default(); SIDE]; 4];
                for (key, row) in (first..self.keys).zip(&mut rows[..group]) {
                    D::Left::narrow_row::<L>(self.block.add(key * SIDE), row.as_mut_ptr(), SIDE);
                }
                for i in 0..SIDE {
                    for (g, row) in rows[..group].iter().enumerate() {
                        self.to.add(first * SIDE + i * group + g).write(row[i]);
                    }
                }
            }
        }
    }
}

/// Writes `count` features, `step` elements apart.
///
/// # Safety
/// They are writable.
#[inline(always)]
pub unsafe fn write_row<E: Stored<T>, T>(
    to: *mut E,
    step: isize,
    count: usize,
    value: impl Fn(usize) -> T,
) {
    // SAFETY: passed on. The first loop is the one that becomes vector code.
    unsafe {
        if step == 1 {
            (0..count).for_each(|j| to.add(j).write(E::narrow(value(j))));
        } else {
            (0..count).for_each(|j| to.offset(j as isize * step).write(E::narrow(value(j))));
        }
    }
}

/// `C[rows, columns] (+)= A·B` for one block, as far as it is needed.
pub struct Product<D: Dot, F> {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub a: *const D::Left,
    /// How rows and steps of `a` lie.
    pub layout: Layout,
    /// Packed panels of columns.
    pub b: *const D::Right,
    /// Steps of a panel of `b`.
    pub b_depth: usize,
    pub c: *mut Value<D>,
    pub ld: usize,
    /// For some rows, the columns that are wanted (where `a` is packed; others may be left as they
    /// are), or the steps that count (where it is a block, whose products are added to `c`).
    pub needed: F,
}

/// How a left operand lies in memory.
#[derive(Clone, Copy)]
pub enum Layout {
    /// In packed panels of this many steps.
    Packed,
    /// Rows of a block are neighbours, groups of steps `SIDE` groups apart: a block read transposed.
    Columns,
    /// Steps are neighbours, rows `SIDE` apart: a block as it is.
    Rows,
}

impl<D: Dot<Acc: Vector>, F: Fn(Range<usize>) -> Range<usize>> Kernel for Product<D, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let group = D::GROUP;
        // SAFETY: whoever makes a product gives operands of its sizes.
        unsafe {
            match self.layout {
                Layout::Packed => {
                    // A panel of `b` is used for all rows while it is near.
                    for j in (0..self.columns).step_by(nr) {
                        for i in (0..self.rows).step_by(mr) {
                            let wanted = (self.needed)(i..(i + mr).min(self.rows));
                            if wanted.start < j + nr && j < wanted.end {
                                let a = self.a.add(i * grouped::<D>(self.depth));
                                self.tile(i, j, 0..self.depth, a, mr * group).dots::<L, D>();
                            }
                        }
                    }
                }
                Layout::Columns | Layout::Rows => {
                    let rows = matches!(self.layout, Layout::Rows);
                    let (line, step) = if rows { (SIDE, 1) } else { (group, SIDE) };
                    for i in (0..self.rows).step_by(mr) {
                        let steps = (self.needed)(i..(i + mr).min(self.rows));
                        if steps.is_empty() {
                            continue;
                        }
                        let steps = steps.start / group * group..steps.end;
                        let a = self.a.add(i * line + steps.start * step);
                        for j in (0..self.columns).step_by(nr) {
                            if rows {
                                self.tile(i, j, steps.clone(), a, SIDE).dots_of_rows::<L, D>();
                            } else {
                                self.tile(i, j, steps.clone(), a, SIDE * group).dots::<L, D>();
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<D: Dot<Acc: Vector>, F> Product<D, F> {
    /// The tile at row `i` and column `j` over some steps, the first of which `a` points to.
    #[inline(always)]
    unsafe fn tile(
        &self,
        i: usize,
        j: usize,
        steps: Range<usize>,
        a: *const D::Left,
        a_stride: usize,
    ) -> Tile<D::Left, D::Right, Value<D>> {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        // SAFETY: passed on.
        unsafe {
            Tile {
                depth: steps.len().div_ceil(D::GROUP),
                a,
                a_stride,
                b: self.b.add(j * grouped::<D>(self.b_depth) + steps.start * nr),
                c: self.c.add(i * self.ld + j),
                ld: self.ld,
                rows: (self.rows - i).min(mr),
                cols: (self.columns - j).min(nr),
                accumulate: !matches!(self.layout, Layout::Packed),
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
