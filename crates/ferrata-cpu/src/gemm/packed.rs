//! The packed, blocked product of one pair of matrices.
//!
//! The right operand is packed chunk by chunk, in parallel, to lie in the last cache; then blocks of
//! the output, each a task, pack their rows of the left operand (or read them in place) to lie in
//! the second cache, and go tile by tile. The contracted dimension is cut by sizes alone, and each
//! output element adds its parts in order, so neither the number of threads nor the blocks change
//! a bit.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use super::element::{Pack, Stored};
use super::pack::{Panels, Places};
use super::tile::Tile;
use super::{Epilogue, EpilogueTile};
use crate::cache::Caches;
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::{Dot, Simd};
use crate::steps::Steps;

/// Groups of steps between two visits to an output tile, at most: a left panel of them stays in
/// the first cache.
const DEPTH: usize = 512;
/// Such visits in one chunk, at most.
const VISITS: usize = 16;
/// Bytes of a packed right chunk, at most, whatever the cache.
const CHUNK_BYTES: usize = 16 << 20;
/// Output columns that are finished together.
const COLUMNS: usize = 512;
/// Tiles of a task in either direction, at least.
const TASK_TILES: usize = 4;
/// Tasks that a product is split into if its size allows, so that threads end together.
const TASKS: usize = 32;
/// Multiplications of a task, at least.
const TASK: usize = 1 << 21;
/// Lines packed by one task, at most: rows of memory are read in long runs.
const TASK_LINES: usize = 512;
/// Groups of steps packed by one task, at most.
const TASK_GROUPS: usize = 256;
/// Multiplications below which waking other threads costs more than it brings.
const SERIAL: usize = 1 << 19;
/// Tiles in a row of the output up to which reading the left operand in place beats packing it.
const FEW_TILES: usize = 8;
/// Rows at one stride, and steps that are neighbours, from which on it does so where there are several
/// such runs.
const FEW_ROWS: usize = 4;
const LONG_RUN: usize = 64;

/// One product `C = A·B`, all strides in elements. Rows and columns of the operands lie anywhere.
pub(super) struct Product<'a, In, Out, A> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const In,
    pub a_rows: &'a Steps,
    pub a_columns: &'a Steps,
    pub b: *const In,
    pub b_rows: &'a Steps,
    pub b_columns: &'a Steps,
    /// The first step.
    pub first: usize,
    /// Rows of contiguous elements; null where only the epilogue wants the result.
    pub c: *mut Out,
    pub c_row: usize,
    pub accumulate: bool,
    pub batch: usize,
    pub epilogue: Option<&'a Epilogue<'a>>,
    pub marker: PhantomData<A>,
}

// SAFETY: the pointers are used from several threads only for reads of the operands and for
// writes to parts of `c` that no other task touches, by `multiply`'s contract.
unsafe impl<In, Out, A> Sync for Product<'_, In, Out, A> {}

type Accumulator<D> = <<D as Dot>::Acc as Simd>::Elem;

/// Some columns and some groups of steps, with the right operand packed.
struct Chunk<D: Dot> {
    columns: Range<usize>,
    groups: Range<usize>,
    b: Packed<D::Right>,
    /// The left operand where several tasks share its rows; else tasks read it in place or pack
    /// their own.
    a: Option<Packed<D::Left>>,
    /// Accumulators of all rows where neither `c` nor a task can keep them, else null.
    sums: *mut Accumulator<D>,
}

// SAFETY: tasks write disjoint parts of the sums.
unsafe impl<D: Dot> Sync for Chunk<D> {}

/// How a chunk's output is cut into tasks.
#[derive(Clone, Copy)]
struct Split {
    rows: usize,
    columns: usize,
}

/// `length` cut into the fewest equal parts of at most `most`, each a multiple of `unit`.
fn part(length: usize, most: usize, unit: usize) -> usize {
    let parts = length.div_ceil(most).max(1);
    length.div_ceil(parts).next_multiple_of(unit)
}

/// The `index`th part of `whole`.
fn piece(whole: &Range<usize>, part: usize, index: usize) -> Range<usize> {
    let start = whole.start + index * part;
    start..(start + part).min(whole.end)
}

/// The `index`th of `parts` parts of `whole`, whose sizes in `unit`s differ by 1 at most.
pub(super) fn share(whole: &Range<usize>, parts: usize, unit: usize, index: usize) -> Range<usize> {
    let units = whole.len().div_ceil(unit);
    let at = |index: usize| (whole.start + units * index / parts * unit).min(whole.end);
    at(index)..at(index + 1)
}

/// The operand's lines and steps, cut into tasks of packing.
struct Grid {
    lines: usize,
    steps: usize,
    /// Lines and steps of one task.
    task: [usize; 2],
}

impl Grid {
    /// Sums of lines want all steps in one task.
    fn new<D: Dot>(lines: usize, width: usize, steps: usize, sums: bool) -> Grid {
        let most = if sums { steps.max(1) } else { TASK_GROUPS * D::GROUP };
        let task = [part(lines, TASK_LINES, width), part(steps, most, D::GROUP).max(1)];
        Grid { lines, steps, task }
    }

    fn tasks(&self) -> usize {
        self.lines.div_ceil(self.task[0]) * self.steps.div_ceil(self.task[1])
    }

    fn task(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let down = self.steps.div_ceil(self.task[1]);
        let lines = piece(&(0..self.lines), self.task[0], index / down);
        (lines, piece(&(0..self.steps), self.task[1], index % down))
    }
}

/// Parts of a buffer, each aligned to 64 bytes.
#[derive(Default)]
struct Room {
    bytes: usize,
}

impl Room {
    /// Where the next part begins.
    fn take(&mut self, bytes: usize) -> usize {
        let start = self.bytes;
        self.bytes += bytes.next_multiple_of(64);
        start
    }
}

/// Adds up every line of packed panels of 8-bit integers.
struct SumLines<In, P> {
    panels: *const P,
    lines: usize,
    groups: usize,
    /// Steps in a group.
    group: usize,
    width: usize,
    sums: *mut i32,
    marker: PhantomData<In>,
}

impl<In, P: Pack<In>> Kernel for SumLines<In, P> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let row = self.width * self.group;
        for first in (0..self.lines).step_by(self.width) {
            // SAFETY: whoever makes this gives panels of all lines, and as many sums.
            unsafe {
                // Wide enough for the widest panel, whose lines have 4 bytes.
                let mut sums = [0i32; 128];
                for p in 0..self.groups {
                    let step = self.panels.add((first * self.groups + p * self.width) * self.group);
                    for (i, sum) in sums.iter_mut().enumerate().take(row) {
                        *sum = sum.wrapping_add((*step.add(i)).count());
                    }
                }
                for line in 0..self.width.min(self.lines - first) {
                    let parts = &sums[line * self.group..(line + 1) * self.group];
                    let sum = parts.iter().fold(0, |sum: i32, &x| sum.wrapping_add(x));
                    self.sums.add(first + line).write(sum);
                }
            }
        }
    }
}

/// Lines of an operand, from a first step.
struct Lines<'a, In> {
    from: *const In,
    line: Places<'a>,
    step: Places<'a>,
    count: usize,
}

// SAFETY: operands are only read.
unsafe impl<In> Sync for Lines<'_, In> {}

/// Where packed lines go, and their sums, if these are wanted.
struct Packed<P> {
    panels: *mut P,
    sums: *mut i32,
    /// Lines in a panel.
    width: usize,
}

// SAFETY: tasks write disjoint panels and sums.
unsafe impl<P> Sync for Packed<P> {}

impl<P> Packed<P> {
    /// Packs some lines, the first of two ranges of steps out of the second.
    unsafe fn fill<L, D, In>(
        &self,
        source: &Lines<'_, In>,
        lines: Range<usize>,
        steps: [Range<usize>; 2],
    ) where
        L: Level,
        D: Dot,
        P: Pack<In>,
        In: Copy + 'static,
    {
        let [steps, all] = steps;
        let (width, depth, groups) = (self.width, steps.len(), all.len().div_ceil(D::GROUP));
        let (from, count) = (source.from, lines.len());
        let (line, step) = (source.line.from(lines.start), source.step.from(steps.start));
        // SAFETY: the caller gives lines of all steps, and room for their panels and sums.
        unsafe {
            let panels = self.panels.add(lines.start * groups * D::GROUP);
            let to = panels.add(steps.start * width);
            let pack = Panels { from, line, step, lines: count, depth, width, to };
            pack.pack_for::<L, D>(groups * D::GROUP * width);
            if !self.sums.is_null() {
                let (sums, group) = (self.sums.add(lines.start), D::GROUP);
                let (panels, marker) = (panels.cast_const(), PhantomData::<In>);
                L::call(SumLines { panels, lines: count, groups, group, width, sums, marker });
            }
        }
    }
}

impl<In, Out, A> Product<'_, In, Out, A>
where
    A: Copy + Default + Send + Sync + 'static,
    In: Copy + Send + Sync + 'static,
    Out: Stored<A>,
{
    /// Computes the product with `D`.
    ///
    /// # Safety
    /// The machine has `L` and `D`; operands are readable and `c` writable at every index their
    /// strides and sizes give; nobody else touches `c` meanwhile.
    pub unsafe fn multiply<L, D>(&self, pool: &Pool)
    where
        L: Level,
        D: Dot<Acc: Simd<Elem = A>, Left: Pack<In>, Right: Pack<In>>,
    {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let groups = self.k.div_ceil(D::GROUP);
        let in_place = self.left_in_place::<D>();
        let run = if in_place { self.a_columns.inner() / D::GROUP } else { groups };
        let visit = part(run.min(groups), DEPTH, 1).max(1);
        let depth = groups.min(VISITS * visit);
        let row_bytes = depth * D::GROUP * size_of::<D::Left>();
        let column_bytes = depth * D::GROUP * size_of::<D::Right>();
        let most = (Caches::get().l3 / 2).min(CHUNK_BYTES) / column_bytes.max(1);
        let columns = part(self.n, most.max(nr) / nr * nr, nr);
        let split = self.split(row_bytes, columns, [mr, nr]);
        let shared = split.columns > 1 && !in_place;
        let kept = self.buffered() && depth < groups;
        let mut room = Room::default();
        let b = room.take(columns * column_bytes);
        let b_sums = room.take(if D::Left::SHIFT != 0 { columns * size_of::<i32>() } else { 0 });
        let rows = if shared { self.m.next_multiple_of(mr) } else { 0 };
        let a = room.take(rows * row_bytes);
        let a_sums = room.take(if D::Right::SHIFT != 0 { rows * size_of::<i32>() } else { 0 });
        let sums = room.take(if kept { self.m * columns * size_of::<A>() } else { 0 });
        pool.with_scratch(pool.worker(), room.bytes, |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            let wanted = |wanted: bool, at: usize| {
                if wanted { base.wrapping_add(at).cast() } else { std::ptr::null_mut() }
            };
            for j in 0..self.n.div_ceil(columns) {
                // One chunk of depth even where `k` is 0: it writes zeros.
                for p in 0..groups.div_ceil(depth.max(1)).max(1) {
                    let chunk = Chunk::<D> {
                        columns: piece(&(0..self.n), columns, j),
                        groups: piece(&(0..groups), depth, p),
                        b: Packed {
                            panels: base.wrapping_add(b).cast(),
                            sums: wanted(D::Left::SHIFT != 0, b_sums),
                            width: nr,
                        },
                        a: shared.then(|| Packed {
                            panels: base.wrapping_add(a).cast(),
                            sums: wanted(D::Right::SHIFT != 0, a_sums),
                            width: mr,
                        }),
                        sums: wanted(kept, sums).cast(),
                    };
                    // SAFETY: passed on; the scratch has room for a chunk.
                    unsafe {
                        self.pack::<L, D>(pool, &chunk);
                        self.blocks::<L, D>(pool, &chunk, visit, split, in_place);
                    }
                }
            }
        });
    }

    /// Whether `c` cannot hold partial sums.
    pub(super) fn buffered(&self) -> bool {
        self.c.is_null() || TypeId::of::<Out>() != TypeId::of::<A>()
    }

    fn each(&self, pool: &Pool, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if self.m * self.n * self.k <= SERIAL {
            (0..tasks).for_each(|index| task(index, pool.worker()));
        } else {
            pool.run(tasks, task);
        }
    }

    /// The steps of some groups.
    fn steps<D: Dot>(&self, groups: &Range<usize>) -> Range<usize> {
        groups.start * D::GROUP..(groups.end * D::GROUP).min(self.k)
    }

    /// Rows of the left operand.
    fn left(&self, rows: &Range<usize>, steps: &Range<usize>) -> Lines<'_, In> {
        let line = Places::of(self.a_rows).from(rows.start);
        let step = Places::of(self.a_columns).from(self.first + steps.start);
        Lines { from: self.a, line, step, count: rows.len() }
    }

    /// Columns of the right operand.
    fn right(&self, columns: &Range<usize>, steps: &Range<usize>) -> Lines<'_, In> {
        let line = Places::of(self.b_columns).from(columns.start);
        let step = Places::of(self.b_rows).from(self.first + steps.start);
        Lines { from: self.b, line, step, count: columns.len() }
    }

    /// Packs what the tasks of a chunk share.
    unsafe fn pack<L, D>(&self, pool: &Pool, chunk: &Chunk<D>)
    where
        L: Level,
        D: Dot<Left: Pack<In>, Right: Pack<In>>,
    {
        let steps = self.steps::<D>(&chunk.groups);
        let left = self.left(&(0..self.m), &steps);
        let right = self.right(&chunk.columns, &steps);
        let b = Grid::new::<D>(right.count, chunk.b.width, steps.len(), !chunk.b.sums.is_null());
        let a = chunk
            .a
            .as_ref()
            .map(|a| Grid::new::<D>(left.count, a.width, steps.len(), !a.sums.is_null()));
        let b_tasks = b.tasks();
        self.each(pool, b_tasks + a.as_ref().map_or(0, Grid::tasks), &|task, _| {
            // SAFETY: `multiply`'s contract; tasks pack disjoint parts of panels.
            unsafe {
                if task < b_tasks {
                    let (lines, part) = b.task(task);
                    chunk.b.fill::<L, D, In>(&right, lines, [part, steps.clone()]);
                } else if let (Some(grid), Some(a)) = (&a, &chunk.a) {
                    let (lines, part) = grid.task(task - b_tasks);
                    a.fill::<L, D, In>(&left, lines, [part, steps.clone()]);
                }
            }
        });
    }

    /// Computes the output of a packed chunk.
    unsafe fn blocks<L, D>(
        &self,
        pool: &Pool,
        chunk: &Chunk<D>,
        visit: usize,
        split: Split,
        in_place: bool,
    ) where
        L: Level,
        D: Dot<Acc: Simd<Elem = A>, Left: Pack<In>, Right: Pack<In>>,
    {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let row = chunk.groups.len() * D::GROUP;
        let steps = self.steps::<D>(&chunk.groups);
        self.each(pool, split.rows * split.columns, &|task, worker| {
            let rows = share(&(0..self.m), split.rows, mr, task / split.columns);
            let columns = share(&chunk.columns, split.columns, nr, task % split.columns);
            let mut room = Room::default();
            let own = chunk.a.is_none() && !in_place;
            let packed = if own { rows.len().next_multiple_of(mr) } else { 0 };
            let a = room.take(packed * row * size_of::<D::Left>());
            let a_sums = room.take(packed * size_of::<i32>());
            let buffered = self.buffered() && chunk.sums.is_null();
            let count = if buffered { rows.len() * columns.len().min(COLUMNS) } else { 0 };
            let sums = room.take(count * size_of::<A>());
            pool.with_scratch(worker, room.bytes, |scratch| {
                let base = scratch.as_mut_ptr::<u8>();
                // SAFETY: `multiply`'s contract; tasks compute disjoint blocks; the scratch has
                // room for what is packed, for sums of the output and for sums of rows.
                unsafe {
                    let a_sums = base.add(a_sums).cast::<i32>();
                    let (left, a_sums) = match &chunk.a {
                        Some(shared) => {
                            let sums = shared.sums.wrapping_add(rows.start);
                            (Left::Packed(shared.panels.add(rows.start * row)), sums)
                        }
                        None if in_place => {
                            let Lines { from, line, step, .. } = self.left(&rows, &steps);
                            (Left::InPlace { from: from.cast(), line, step }, a_sums)
                        }
                        None => {
                            let wanted = D::Right::SHIFT != 0;
                            let sums = if wanted { a_sums } else { std::ptr::null_mut() };
                            let panels = base.add(a).cast::<D::Left>();
                            let packed = Packed { panels, sums, width: mr };
                            let all = 0..steps.len();
                            let both = [all.clone(), all];
                            let lines = self.left(&rows, &steps);
                            packed.fill::<L, D, In>(&lines, 0..rows.len(), both);
                            (Left::Packed(panels), a_sums)
                        }
                    };
                    let sums = base.add(sums).cast();
                    let block = Block::<D> { chunk, visit, left, a_sums, sums };
                    for at in columns.clone().step_by(COLUMNS) {
                        let columns = at..(at + COLUMNS).min(columns.end);
                        self.block::<L, D>(&block, &rows, &columns);
                    }
                }
            });
        });
    }

    /// The tasks of a chunk: left rows of a task fit the second cache, and there are enough to
    /// keep threads busy, but none too small.
    fn split(&self, row_bytes: usize, columns: usize, [mr, nr]: [usize; 2]) -> Split {
        let [least_rows, least_columns] = [TASK_TILES * mr, TASK_TILES * nr];
        let most = (Caches::get().l2 / 2 / row_bytes.max(1)).max(least_rows);
        let mut split = Split { rows: self.m.div_ceil(most).next_power_of_two(), columns: 1 };
        let wanted = (self.m * columns * self.k / TASK).min(TASKS);
        while split.rows * split.columns < wanted {
            if self.m / (2 * split.rows) >= least_rows {
                split.rows *= 2;
            } else if columns / (2 * split.columns) >= least_columns {
                split.columns *= 2;
            } else {
                break;
            }
        }
        split
    }

    /// Whether the left operand's layout lets tiles read it without packing, and that is faster.
    fn left_in_place<D>(&self) -> bool
    where
        D: Dot<Left: Pack<In>, Right: Pack<In>>,
    {
        let same = D::Left::FLIP == Some(0) && D::Right::SHIFT == 0;
        let (row, steps) = (self.a_rows.stride(), self.a_columns);
        // Of several runs of steps, each is a visit to a tile.
        let long = steps.single().is_some() || steps.inner() >= LONG_RUN;
        let steps = steps.stride() == 1 && steps.inner().is_multiple_of(D::GROUP) && long;
        let rows = row > 0 && (self.a_rows.single().is_some() || self.a_rows.inner() >= FEW_ROWS);
        // Rows a page apart would push each other out of the first cache.
        let apart = !(row as usize).wrapping_mul(size_of::<In>()).is_multiple_of(4096);
        let few = self.n <= FEW_TILES * D::Acc::TILE_VECTORS * D::Acc::LANES;
        same && rows && steps && apart && few
    }

    /// Computes some columns of a block, and finishes them when the chunk is the last of the depth.
    unsafe fn block<L, D>(&self, block: &Block<'_, D>, rows: &Range<usize>, columns: &Range<usize>)
    where
        L: Level,
        D: Dot<Acc: Simd<Elem = A>, Left: Pack<In>, Right: Pack<In>>,
    {
        let chunk = block.chunk;
        let first = chunk.groups.start == 0;
        let at = columns.start - chunk.columns.start;
        // SAFETY: the block lies within `c` and, relative to the chunk, within its buffers.
        unsafe {
            let out = self.c.wrapping_add(rows.start * self.c_row + columns.start);
            let (c, ld) = match (self.buffered(), chunk.sums.is_null()) {
                (false, _) => (out.cast::<A>(), self.c_row),
                (true, true) => (block.sums, columns.len()),
                (true, false) => {
                    let ld = chunk.columns.len();
                    (chunk.sums.add(rows.start * ld + at), ld)
                }
            };
            let size = [rows.len(), columns.len()];
            if first && self.accumulate && self.buffered() {
                let (from, from_row) = (out.cast_const(), self.c_row);
                L::call(Widen { size, from, from_row, to: c, to_row: ld });
            }
            L::call(Tiles {
                block,
                rows: rows.len(),
                columns: at..at + columns.len(),
                c,
                ld,
                accumulate: self.accumulate || !first,
            });
            // Without steps nothing was shifted, and no sums were taken.
            if !chunk.groups.is_empty() && (D::Left::SHIFT != 0 || D::Right::SHIFT != 0) {
                // Only 8-bit integers are shifted, and they accumulate in i32.
                debug_assert!(TypeId::of::<A>() == TypeId::of::<i32>());
                let b_sums = chunk.b.sums.wrapping_add(at).cast_const();
                let shifts = [D::Left::SHIFT, D::Right::SHIFT];
                let (c, a_sums) = (c.cast(), block.a_sums.cast_const());
                L::call(Unshift { size, shifts, a_sums, b_sums, c, ld });
            }
            if chunk.groups.end * D::GROUP < self.k {
                return;
            }
            if let Some(epilogue) = self.epilogue {
                let (rows, columns, data) = (rows.clone(), columns.clone(), c.cast());
                epilogue(&EpilogueTile { batch: self.batch, rows, columns, data, row_stride: ld });
            }
            if self.buffered() && !self.c.is_null() {
                let (from, to_row) = (c.cast_const(), self.c_row);
                L::call(Narrow { size, from, from_row: ld, to: out, to_row });
            }
        }
    }
}

/// A task's rows of the left operand, from the chunk's first step on.
#[derive(Clone, Copy)]
enum Left<'a, P> {
    /// Panels.
    Packed(*const P),
    /// Where they are.
    InPlace { from: *const P, line: Places<'a>, step: Places<'a> },
}

/// The operands of a task.
struct Block<'a, D: Dot> {
    chunk: &'a Chunk<D>,
    /// Groups of steps between two visits to a tile.
    visit: usize,
    left: Left<'a, D::Left>,
    a_sums: *mut i32,
    /// Room for the accumulators of some columns.
    sums: *mut Accumulator<D>,
}

/// The tiles of some columns of a block.
struct Tiles<'a, D: Dot> {
    block: &'a Block<'a, D>,
    rows: usize,
    /// Relative to the chunk.
    columns: Range<usize>,
    c: *mut Accumulator<D>,
    ld: usize,
    accumulate: bool,
}

impl<D: Dot> Kernel for Tiles<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (mr, nr) = (D::Acc::TILE_ROWS, D::Acc::TILE_VECTORS * D::Acc::LANES);
        let (block, chunk) = (self.block, self.block.chunk);
        let groups = chunk.groups.len();
        for j in self.columns.clone().step_by(nr) {
            let mut from = 0;
            // Even without steps there is one visit: it writes zeros.
            loop {
                let depth = block.visit.min(groups - from);
                let depth = match block.left {
                    Left::Packed(_) => depth,
                    Left::InPlace { step, .. } => depth.min(step.run(from * D::GROUP) / D::GROUP),
                };
                let mut i = 0;
                while i < self.rows {
                    let most_rows = self.rows - i;
                    // SAFETY: the panels, or the rows and steps, and the tile lie within the block.
                    unsafe {
                        let mut tile = Tile {
                            depth,
                            a: std::ptr::null(),
                            a_stride: mr * D::GROUP,
                            b: chunk.b.panels.add((j * groups + from * nr) * D::GROUP).cast_const(),
                            c: self.c.add(i * self.ld + j - self.columns.start),
                            ld: self.ld,
                            rows: most_rows.min(mr),
                            cols: (self.columns.end - j).min(nr),
                            accumulate: self.accumulate || from > 0,
                        };
                        match block.left {
                            Left::Packed(panels) => {
                                tile.a = panels.add((i * groups + from * mr) * D::GROUP);
                                tile.dots::<L, D>();
                            }
                            Left::InPlace { from: first, line, step } => {
                                tile.a = first.offset(line.at(i) + step.at(from * D::GROUP));
                                tile.a_stride = line.stride() as usize;
                                tile.rows = height(line.run(i).min(most_rows), mr);
                                tile.dots_of_rows::<L, D>();
                            }
                        }
                        i += tile.rows;
                    }
                }
                from += depth;
                if from >= groups {
                    break;
                }
            }
        }
    }
}

/// Rows of the next tile of some that lie at one stride: the last two are of about one height.
fn height(rows: usize, most: usize) -> usize {
    if rows < 2 * most && rows > most { (rows / 2).next_multiple_of(2) } else { rows.min(most) }
}

/// Takes out of sums of products what shifting one operand has added: `shift · Σ other`.
struct Unshift {
    size: [usize; 2],
    /// Of the left and of the right operand.
    shifts: [i32; 2],
    /// Sums of the left operand's rows, read where the right operand is shifted.
    a_sums: *const i32,
    /// Sums of the right operand's columns, read where the left operand is shifted.
    b_sums: *const i32,
    c: *mut i32,
    ld: usize,
}

impl Kernel for Unshift {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let [left, right] = self.shifts;
        for i in 0..self.size[0] {
            for j in 0..self.size[1] {
                // SAFETY: within the block, and as many sums as it has rows and columns.
                unsafe {
                    let a = if right != 0 { right.wrapping_mul(*self.a_sums.add(i)) } else { 0 };
                    let b = if left != 0 { left.wrapping_mul(*self.b_sums.add(j)) } else { 0 };
                    let c = self.c.add(i * self.ld + j);
                    *c = c.read().wrapping_sub(a).wrapping_sub(b);
                }
            }
        }
    }
}

/// Copies rows of the output to accumulators.
struct Widen<Out, A> {
    size: [usize; 2],
    from: *const Out,
    from_row: usize,
    to: *mut A,
    to_row: usize,
}

impl<Out: Stored<A>, A> Kernel for Widen<Out, A> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for i in 0..self.size[0] {
            for j in 0..self.size[1] {
                // SAFETY: within the block, on both sides.
                unsafe {
                    let x = self.from.add(i * self.from_row + j).read().widen();
                    self.to.add(i * self.to_row + j).write(x);
                }
            }
        }
    }
}

/// Copies rows of accumulators to the output.
pub(super) struct Narrow<Out, A> {
    pub size: [usize; 2],
    pub from: *const A,
    pub from_row: usize,
    pub to: *mut Out,
    pub to_row: usize,
}

impl<Out: Stored<A>, A> Kernel for Narrow<Out, A> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for i in 0..self.size[0] {
            // SAFETY: within the block, on both sides.
            unsafe {
                let (from, to) = (self.from.add(i * self.from_row), self.to.add(i * self.to_row));
                Out::narrow_row::<L>(from, to, self.size[1]);
            }
        }
    }
}
