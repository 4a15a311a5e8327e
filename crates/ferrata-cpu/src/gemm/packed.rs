//! The packed, blocked product of one pair of matrices.
//!
//! Chunks of the operands are packed once, in parallel (a left operand whose rows are contiguous
//! is read in place); then blocks of the output, each a task, go tile by tile. The contracted dimension is cut by sizes alone, and each
//! output element adds its chunks in order, so neither the number of threads nor the blocks
//! change a bit.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use super::element::Stored;
use super::pack::Panels;
use super::tile::Tile;
use super::{Epilogue, EpilogueTile};
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::Simd;

/// Lines of an operand in one packed chunk, so that chunks take a few megabytes.
const CHUNK: usize = 4096;
/// The same where the accumulators need a chunk-sized buffer of their own.
const BUFFERED_CHUNK: usize = 2048;
/// Bytes of the contracted dimension in one chunk: a left panel stays in the first-level cache, a
/// block's right panels in the second.
const DEPTH_BYTES: usize = 2048;
/// Output rows of one task, at most.
const TASK_ROWS: usize = 96;
/// Output columns of one task, at most.
const TASK_COLUMNS: usize = 512;
/// Lines packed by one task, at most.
const TASK_LINES: usize = 256;
/// Multiplications below which waking other threads costs more than it brings.
const SERIAL: usize = 1 << 19;

/// One product `C = A·B`, all strides in elements.
pub(super) struct Product<'a, In, Out, A> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const In,
    pub a_row: isize,
    pub a_col: isize,
    pub b: *const In,
    pub b_row: isize,
    pub b_col: isize,
    /// Rows of contiguous elements; null where only the epilogue wants the result.
    pub c: *mut Out,
    pub c_row: usize,
    pub accumulate: bool,
    /// Whether `Out` is the accumulation type, so that `c` can hold partial sums.
    pub direct: bool,
    pub batch: usize,
    pub epilogue: Option<&'a Epilogue<'a>>,
    pub marker: PhantomData<A>,
}

// SAFETY: the pointers are used from several threads only for reads of the operands and for
// writes to parts of `c` that no other task touches, by `multiply`'s contract.
unsafe impl<In, Out, A> Sync for Product<'_, In, Out, A> {}

/// Parts of one chunk step: which lines and steps, and where they lie packed.
#[derive(Clone)]
struct Chunk<A> {
    rows: Range<usize>,
    columns: Range<usize>,
    steps: Range<usize>,
    a: *mut A,
    b: *mut A,
    /// Accumulators of the chunk where `c` cannot hold them, else null.
    sums: *mut A,
}

// SAFETY: tasks write disjoint parts of the packed buffers and of the sums.
unsafe impl<A> Sync for Chunk<A> {}

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

impl<In, Out, A> Product<'_, In, Out, A>
where
    A: Copy + Default + Send + Sync + 'static,
    In: Stored<A>,
    Out: Stored<A>,
{
    /// Computes the product with vectors `V`.
    ///
    /// # Safety
    /// The machine has `L` and `V`; operands are readable and `c` writable at every index their
    /// strides and sizes give; nobody else touches `c` meanwhile.
    pub unsafe fn multiply<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool) {
        let size = size_of::<A>();
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let depth = part(self.k, DEPTH_BYTES / size, 1).max(1);
        let buffered = !self.direct || self.c.is_null();
        let most = if buffered { BUFFERED_CHUNK } else { CHUNK };
        let rows = part(self.m, most, mr);
        let columns = part(self.n, most, nr);
        let a_bytes = match self.left_in_place() {
            None => (rows * depth * size).next_multiple_of(64),
            Some(_) => 0,
        };
        let b_bytes = (columns * depth * size).next_multiple_of(64);
        let sum_bytes = if buffered { rows * columns * size } else { 0 };
        pool.with_scratch(pool.worker(), a_bytes + b_bytes + sum_bytes, |scratch| {
            let base = scratch.as_mut_ptr::<u8>();
            // SAFETY: within the scratch.
            let (b, sums) = unsafe { (base.add(a_bytes), base.add(a_bytes + b_bytes)) };
            let sums = if buffered { sums } else { std::ptr::null_mut() };
            let whole = (0..self.m, 0..self.n, 0..self.k);
            for j in 0..self.n.div_ceil(columns) {
                for i in 0..self.m.div_ceil(rows) {
                    // One chunk of depth even where `k` is 0: it writes zeros.
                    for p in 0..self.k.div_ceil(depth).max(1) {
                        let chunk = Chunk {
                            rows: piece(&whole.0, rows, i),
                            columns: piece(&whole.1, columns, j),
                            steps: piece(&whole.2, depth, p),
                            a: base.cast(),
                            b: b.cast(),
                            sums: sums.cast(),
                        };
                        // SAFETY: passed on; the scratch has room for a chunk.
                        unsafe {
                            self.pack::<L, V>(pool, &chunk);
                            self.blocks::<L, V>(pool, &chunk);
                        }
                    }
                }
            }
        });
    }

    /// This product where nothing needs conversion.
    pub fn same(&self) -> Option<&Product<'_, A, A, A>> {
        let accumulated = TypeId::of::<A>();
        if TypeId::of::<In>() != accumulated || TypeId::of::<Out>() != accumulated {
            return None;
        }
        // SAFETY: the types are the same.
        Some(unsafe { &*std::ptr::from_ref(self).cast() })
    }

    /// The left operand, where its layout lets tiles read it without packing.
    fn left_in_place(&self) -> Option<*const A> {
        let same = TypeId::of::<In>() == TypeId::of::<A>();
        (same && self.a_col == 1 && self.a_row > 0).then(|| self.a.cast())
    }

    fn each(&self, pool: &Pool, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if self.m * self.n * self.k <= SERIAL {
            (0..tasks).for_each(|index| task(index, pool.worker()));
        } else {
            pool.run(tasks, task);
        }
    }

    /// Packs both operands of a chunk.
    unsafe fn pack<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool, chunk: &Chunk<A>) {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let (a_lines, b_lines) =
            (part(chunk.rows.len(), TASK_LINES, mr), part(chunk.columns.len(), TASK_LINES, nr));
        let packs_a = self.left_in_place().is_none();
        let a_tasks = if packs_a { chunk.rows.len().div_ceil(a_lines) } else { 0 };
        let b_tasks = chunk.columns.len().div_ceil(b_lines);
        let depth = chunk.steps.len();
        self.each(pool, a_tasks + b_tasks, &|task, _| {
            // SAFETY: `multiply`'s contract; tasks pack disjoint panels.
            unsafe {
                let step = chunk.steps.start as isize;
                if task < a_tasks {
                    let lines = piece(&chunk.rows, a_lines, task);
                    let start = lines.start as isize;
                    let from = self.a.offset(start * self.a_row + step * self.a_col);
                    let to = chunk.a.add((lines.start - chunk.rows.start) * depth);
                    let (line, step, lines) = (self.a_row, self.a_col, lines.len());
                    Panels { from, line, step, lines, depth, width: mr, to }.pack::<L>();
                } else {
                    let lines = piece(&chunk.columns, b_lines, task - a_tasks);
                    let start = lines.start as isize;
                    let from = self.b.offset(start * self.b_col + step * self.b_row);
                    let to = chunk.b.add((lines.start - chunk.columns.start) * depth);
                    let (line, step, lines) = (self.b_col, self.b_row, lines.len());
                    Panels { from, line, step, lines, depth, width: nr, to }.pack::<L>();
                }
            }
        });
    }

    /// Computes the blocks of a packed chunk.
    unsafe fn blocks<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool, chunk: &Chunk<A>) {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        let rows = part(chunk.rows.len(), TASK_ROWS, mr);
        let columns = part(chunk.columns.len(), TASK_COLUMNS, nr);
        let across = chunk.columns.len().div_ceil(columns);
        let down = chunk.rows.len().div_ceil(rows);
        self.each(pool, across * down, &|task, _| {
            let rows = piece(&chunk.rows, rows, task / across);
            let columns = piece(&chunk.columns, columns, task % across);
            // SAFETY: `multiply`'s contract; tasks compute disjoint blocks.
            unsafe { self.block::<L, V>(chunk, rows, columns) };
        });
    }

    /// Computes one block, and finishes it when the chunk is the last of the depth.
    unsafe fn block<L: Level, V: Simd<Elem = A>>(
        &self,
        chunk: &Chunk<A>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let first = chunk.steps.start == 0;
        // SAFETY: the block lies within `c` and, relative to the chunk, within its buffers.
        unsafe {
            let (row, column) =
                (rows.start - chunk.rows.start, columns.start - chunk.columns.start);
            let (c, ld) = if chunk.sums.is_null() {
                (self.c.add(rows.start * self.c_row + columns.start).cast::<A>(), self.c_row)
            } else {
                let ld = chunk.columns.len();
                (chunk.sums.add(row * ld + column), ld)
            };
            let copy = Copied { rows: rows.len(), columns: columns.len(), sums: c, ld };
            if first && self.accumulate && !chunk.sums.is_null() {
                copy.widen(self.c.add(rows.start * self.c_row + columns.start), self.c_row);
            }
            let in_place = self.left_in_place();
            let left = match in_place {
                None => chunk.a.add(row * chunk.steps.len()).cast_const(),
                Some(a) => a.offset(rows.start as isize * self.a_row).add(chunk.steps.start),
            };
            L::call(Block::<A, V> {
                rows: rows.len(),
                columns: columns.len(),
                depth: chunk.steps.len(),
                a: left,
                a_row: in_place.map(|_| self.a_row),
                b: chunk.b.add(column * chunk.steps.len()),
                c,
                ld,
                accumulate: self.accumulate || !first,
                vector: PhantomData,
            });
            if chunk.steps.end < self.k {
                return;
            }
            let (batch, data) = (self.batch, c.cast());
            if let Some(epilogue) = self.epilogue {
                let (rows, columns) = (rows.clone(), columns.clone());
                epilogue(&EpilogueTile { batch, rows, columns, data, row_stride: ld });
            }
            if !chunk.sums.is_null() && !self.c.is_null() {
                copy.narrow(self.c.add(rows.start * self.c_row + columns.start), self.c_row);
            }
        }
    }
}

/// The tiles of one block.
struct Block<A, V> {
    rows: usize,
    columns: usize,
    depth: usize,
    a: *const A,
    /// Elements from one row of `a` to the next where it is not packed.
    a_row: Option<isize>,
    b: *const A,
    c: *mut A,
    ld: usize,
    accumulate: bool,
    vector: PhantomData<V>,
}

impl<A: Copy, V: Simd<Elem = A>> Kernel for Block<A, V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (mr, nr) = (V::TILE_ROWS, V::TILE_VECTORS * V::LANES);
        for i in (0..self.rows).step_by(mr) {
            for j in (0..self.columns).step_by(nr) {
                // SAFETY: the panels and the tile lie within the block.
                unsafe {
                    let tile = Tile {
                        depth: self.depth,
                        a: self.a.offset(i as isize * self.a_row.unwrap_or(self.depth as isize)),
                        a_stride: self.a_row.map_or(mr, |row| row as usize),
                        b: self.b.add(j * self.depth),
                        c: self.c.add(i * self.ld + j),
                        ld: self.ld,
                        rows: (self.rows - i).min(mr),
                        cols: (self.columns - j).min(nr),
                        accumulate: self.accumulate,
                    };
                    match self.a_row {
                        None => tile.compute::<L, V>(),
                        Some(_) => tile.compute_rows::<L, V>(),
                    }
                }
            }
        }
    }
}

/// A block of accumulators, to be copied from or to the output.
struct Copied<A> {
    rows: usize,
    columns: usize,
    sums: *mut A,
    ld: usize,
}

impl<A: Copy> Copied<A> {
    /// Fills the accumulators.
    unsafe fn widen<Out: Stored<A>>(&self, from: *const Out, row: usize) {
        for i in 0..self.rows {
            for j in 0..self.columns {
                // SAFETY: within the block, on both sides.
                unsafe { *self.sums.add(i * self.ld + j) = from.add(i * row + j).read().widen() };
            }
        }
    }

    /// Writes the accumulators out.
    unsafe fn narrow<Out: Stored<A>>(&self, to: *mut Out, row: usize) {
        for i in 0..self.rows {
            for j in 0..self.columns {
                // SAFETY: within the block, on both sides.
                unsafe { to.add(i * row + j).write(Out::narrow(*self.sums.add(i * self.ld + j))) };
            }
        }
    }
}
