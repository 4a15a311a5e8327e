//! Loop kernels: how their iteration space is cut into tiles and tasks, by sizes only.

use super::body::{Body, Output, Phase, Reach, Register, Source, Walks, Work};
use super::native::Native;
use super::ops::{Arg, Call};
use super::space::{Dim, Space};
use super::worker::{Layout, Most, Shared, Span, Tile, Worker};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::steps::Steps;
use ferrata_compiler::kernel::{Access, Instruction, Loop};
use ferrata_ir::Result;

/// Bytes of registers that a tile should take, so that they stay in the first-level cache.
const TILE_BYTES: usize = 32 << 10;
/// Least and greatest number of elements of a tile.
const TILE: (usize, usize) = (1024, 4096);
/// Rows up to this length are one tile; longer ones are walked in blocks of columns.
const SHORT_ROW: usize = 8192;
/// Below this many long rows, threads share the columns of a row.
const FEW_ROWS: usize = 8;
/// Elements of one task, at least.
const TASK: usize = 16 << 10;
/// Parts that rows combined into one are cut into, at most.
const PARTS: usize = 32;
/// Side of the tile of a body that reads or writes across memory order.
const SQUARE: usize = 64;
/// Bytes of kept registers that a walk may leave for the next one.
const KEPT_BYTES: usize = 1 << 20;
/// Cost from which on a register is kept rather than computed again.
const KEPT_COST: usize = 8;
/// Stores that may be computed into directly.
pub(super) const DIRECT: usize = 64;

/// How the columns of a row are walked.
#[derive(Clone, Debug)]
enum Walk {
    /// All of a row is in one tile, or there are no sums along columns; code keeps some registers
    /// from one walk over the row to the next.
    Once { kept: Vec<usize> },
    /// Row by row, several times in blocks of columns.
    Rows(Walks),
    /// Several times over all rows, threads sharing the columns.
    Columns(Walks),
}

/// A loop kernel, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct LoopKernel {
    body: Body,
    native: Option<Native>,
    layout: Layout,
    walk: Walk,
    /// Groups of rows that are combined into one; otherwise one group.
    groups: usize,
    group_rows: usize,
    /// Rows from one group to the next: `group_rows`, or 1 if there are none.
    group_step: usize,
    columns: usize,
    tile_rows: usize,
    tile_columns: usize,
    /// Groups, rows of a group and columns that one task works on.
    task_groups: usize,
    task_rows: usize,
    task_columns: usize,
    /// Tasks that share the rows of one group.
    parts: usize,
}

impl LoopKernel {
    /// Prepares a kernel.
    ///
    /// # Errors
    /// An instruction that has no meaning.
    pub fn new(isa: Isa, kernel: &Loop) -> Result<LoopKernel> {
        LoopKernel::prepare(isa, kernel, true)
    }

    /// Prepares a kernel for the interpreter.
    #[cfg(test)]
    pub fn interpreted(isa: Isa, kernel: &Loop) -> Result<LoopKernel> {
        LoopKernel::prepare(isa, kernel, false)
    }

    /// Whether it is machine code, or only moves elements.
    #[cfg(test)]
    pub fn is_native(&self) -> bool {
        self.native.is_some() || self.body.is_copy()
    }

    fn prepare(isa: Isa, kernel: &Loop, generate: bool) -> Result<LoopKernel> {
        let space = Space::of(kernel)?;
        let source = source(kernel, &space);
        let mut body = Body::new(isa, &source)?;
        let columns: usize = space.columns.iter().map(|d| d.size).product();
        let (kept, combined): (Vec<&Dim>, Vec<&Dim>) = space.rows.iter().partition(|d| !d.combined);
        let product = |dims: &[&Dim]| dims.iter().map(|d| d.size).product::<usize>();
        let combines = kernel.stores.iter().any(|s| s.combine.is_some());
        let (groups, group_rows) =
            if combines { (product(&kept), product(&combined)) } else { (1, product(&kept)) };

        let reduces = body.reductions > 0;
        let few = groups * group_rows < FEW_ROWS && columns > SHORT_ROW;
        let walks = body.walks(keep(columns));
        let native = match reduces && few {
            _ if !generate || body.is_copy() && body.crosses_memory() => None,
            true => {
                let phases = body.walks(|_| false).phases;
                Native::new(isa, &body, &phases, &[], true, columns)
            }
            false => Native::new(isa, &body, &walks.phases, &walks.kept, false, columns),
        };
        let walk = if reduces && few {
            Walk::Columns(body.walks(|_| false))
        } else if !reduces || columns <= SHORT_ROW || native.is_some() {
            Walk::Once { kept: if native.is_some() { walks.kept } else { Vec::new() } }
        } else {
            Walk::Rows(walks)
        };
        let once = matches!(walk, Walk::Once { .. });
        body.assign_slots(once);
        let tile = match &native {
            Some(native) if !native.moves() => TASK,
            Some(native) => (TILE_BYTES / native.moved_bytes(&body)).clamp(TILE.0, TILE.1),
            None => {
                let full = body.slots.iter().filter(|s| s.by_row && s.by_column);
                let bytes = full.map(|s| s.size).sum::<usize>().max(1);
                (TILE_BYTES / bytes).clamp(TILE.0, TILE.1) / 64 * 64
            }
        };
        let across = body.crosses_memory() && !reduces;
        let tile_columns = match (reduces && once, across) {
            (true, _) => columns,
            (_, true) => columns.min(SQUARE),
            _ => columns.min(tile),
        };
        let rows = (tile / tile_columns.max(1)).clamp(1, group_rows.max(1));
        let tile_rows = if once { rows } else { 1 };
        let mut kernel = LoopKernel {
            layout: Layout::default(),
            body,
            native,
            walk,
            groups,
            group_rows,
            group_step: group_rows.max(1),
            columns,
            tile_rows,
            tile_columns,
            task_groups: 1,
            task_rows: group_rows.max(1),
            task_columns: columns,
            parts: 1,
        };
        kernel.cut(combines);
        let width = match kernel.walk {
            Walk::Columns(_) => kernel.task_columns,
            _ if combines && kernel.kept().is_empty() => kernel.task_columns,
            _ => columns,
        };
        let span = match kernel.walk {
            Walk::Columns(_) if kernel.native.is_some() => kernel.task_columns,
            _ => tile_columns,
        };
        let (rows, columns) = (tile_rows, span.max(1));
        let most = Most { rows, columns, elements: rows * columns };
        let (native, kept) = (kernel.native.as_ref(), kernel.kept());
        kernel.layout = Layout::new(&kernel.body, native, &most, kept, width.max(1));
        Ok(kernel)
    }

    /// Registers that one walk over a row leaves for the next.
    fn kept(&self) -> &[usize] {
        match &self.walk {
            Walk::Once { kept } => kept,
            Walk::Rows(walks) => &walks.kept,
            Walk::Columns(_) => &[],
        }
    }

    /// Cuts the iteration space into tasks.
    fn cut(&mut self, combines: bool) {
        let blocks_columns = match self.walk {
            Walk::Once { .. } => self.body.reductions == 0,
            Walk::Rows(_) => false,
            Walk::Columns(_) => true,
        };
        if blocks_columns && self.columns > TASK {
            self.task_columns = TASK.next_multiple_of(self.tile_columns.max(1));
        }
        let row = self.task_columns.max(1);
        let wanted = (TASK / row).max(1).next_multiple_of(self.tile_rows);
        if !combines {
            self.task_rows = wanted.min(self.group_rows.max(1));
            return;
        }
        self.task_groups = (TASK / (row * self.group_step)).clamp(1, self.groups.max(1));
        let others = self.groups.div_ceil(self.task_groups) * self.column_tasks();
        if others < PARTS && self.group_rows > wanted {
            let most = self.group_rows.div_ceil(PARTS).next_multiple_of(self.tile_rows);
            self.task_groups = 1;
            self.task_rows = wanted.max(most);
            self.parts = self.group_rows.div_ceil(self.task_rows);
        }
    }

    fn column_tasks(&self) -> usize {
        self.columns.div_ceil(self.task_columns.max(1)).max(1)
    }

    fn combines(&self) -> bool {
        self.body.stores.iter().any(|s| s.combine.is_some())
    }

    /// Bytes that a run needs beside the operands.
    pub fn workspace(&self) -> usize {
        let sums = match self.walk {
            Walk::Columns(_) => {
                8 * self.body.reductions * self.groups * self.group_rows * (1 + self.column_tasks())
            }
            _ => 0,
        };
        let parts = if self.parts > 1 {
            self.groups * self.column_tasks() * self.parts * self.layout.accumulators
        } else {
            0
        };
        sums.next_multiple_of(64) + parts
    }

    /// Everything that the kernel reaches: operand, first and last byte, whether it is written.
    pub fn reaches(&self) -> impl Iterator<Item = (usize, isize, isize, bool)> {
        let loads = self.body.loads.iter().map(|l| (&l.reach, false));
        let empty = self.columns == 0 || self.groups * self.group_rows == 0;
        let stores = self.body.stores.iter().map(|s| (&s.reach, true));
        let all = loads.filter(move |_| !empty).chain(stores.filter(move |_| !empty));
        all.map(|(reach, written)| {
            let (first, end) = reach.bytes();
            (reach.operand, first, end, written)
        })
    }

    /// Runs the kernel.
    ///
    /// # Safety
    /// Operands hold all that [`LoopKernel::reaches`] says, aligned for their dtypes, and nobody
    /// else writes them; the workspace has [`LoopKernel::workspace`] bytes, aligned to 64.
    pub unsafe fn run(&self, pool: &Pool, operands: &[*mut u8], workspace: *mut u8) {
        let mut direct = [false; DIRECT];
        self.find_direct(operands, &mut direct);
        let kept = self.kept();
        let shared =
            Shared { body: &self.body, layout: &self.layout, operands, direct: &direct, kept };
        // SAFETY: passed on.
        unsafe {
            match &self.walk {
                Walk::Columns(walks) => self.run_columns(pool, shared, walks, workspace),
                _ => self.run_rows(pool, shared, workspace),
            }
        }
    }

    /// Stores that no load overlaps may be computed into before all loads are done.
    fn find_direct(&self, operands: &[*mut u8], direct: &mut [bool; DIRECT]) {
        let range = |reach: &Reach| {
            let (first, end) = reach.bytes();
            let base = operands[reach.operand] as isize;
            (base + first, base + end)
        };
        for (store, direct) in self.body.stores.iter().zip(direct) {
            let out = range(&store.reach);
            *direct = !self.body.loads.iter().any(|load| {
                let read = range(&load.reach);
                read.0 < out.1 && out.0 < read.1
            });
        }
    }

    unsafe fn run_rows(&self, pool: &Pool, shared: Shared<'_>, workspace: *mut u8) {
        let across = self.column_tasks();
        let down = match self.combines() {
            true => self.groups.div_ceil(self.task_groups) * self.parts,
            false => self.group_rows.div_ceil(self.task_rows),
        };
        let parts = Parts(workspace);
        let task = |index: usize, thread: usize| {
            pool.with_scratch(thread, self.layout.bytes, |scratch| {
                // SAFETY: the scratch is the worker's own; tasks write different elements.
                unsafe {
                    let mut worker = Worker::new(shared, scratch.as_mut_ptr());
                    if self.parts > 1 {
                        worker.accumulators = parts.at(index * self.layout.accumulators);
                    }
                    self.task(&mut worker, index / across, index % across);
                }
            });
        };
        let tasks = across * down;
        if tasks == 1 {
            task(0, pool.worker());
        } else {
            pool.run(tasks, &task);
        }
        if self.parts > 1 || across > 1 {
            pool.with_scratch(pool.worker(), self.layout.bytes, |scratch| {
                // SAFETY: all tasks are done; the workspace holds their results.
                unsafe {
                    let mut worker = Worker::new(shared, scratch.as_mut_ptr());
                    if self.parts > 1 {
                        self.join(&worker, workspace);
                    }
                    if across > 1 && self.body.stores.iter().any(|s| s.per_row) {
                        for row in 0..self.groups * self.group_rows {
                            worker.run_rows(&Tile { row, rows: 1, column: 0, columns: 0 });
                        }
                    }
                }
            });
        }
    }

    /// Columns of one task.
    fn task_span(&self, across: usize) -> (usize, usize) {
        let first = across * self.task_columns;
        (first, (first + self.task_columns).min(self.columns))
    }

    unsafe fn task(&self, worker: &mut Worker<'_>, down: usize, across: usize) {
        let (first, last) = self.task_span(across);
        worker.first_column = first;
        // SAFETY: passed on.
        unsafe {
            if !self.combines() {
                let rows = down * self.task_rows;
                let end = (rows + self.task_rows).min(self.group_rows);
                return self.rows(worker, rows, end, first, last);
            }
            let (groups, part) = (down / self.parts * self.task_groups, down % self.parts);
            for group in groups..(groups + self.task_groups).min(self.groups) {
                self.clear(worker);
                let start = group * self.group_step;
                let end = start + ((part + 1) * self.task_rows).min(self.group_rows);
                self.rows(worker, start + part * self.task_rows, end, first, last);
                if self.parts == 1 {
                    self.finish(worker, worker.accumulators, group, first, last);
                }
            }
        }
    }

    /// Works on a block of rows.
    unsafe fn rows(
        &self,
        worker: &mut Worker<'_>,
        row: usize,
        end: usize,
        first: usize,
        last: usize,
    ) {
        match &self.walk {
            Walk::Once { .. } => {
                let mut at = row;
                while at < end {
                    let mut rows = self.tile_rows.min(end - at);
                    if let Some(native) = &self.native {
                        rows = rows.min(native.run_of_rows(&self.body, at));
                    }
                    for (column, columns) in blocks(first, last, self.tile_columns) {
                        let per_row = column + columns == self.columns && first == 0;
                        let tile = Tile { row: at, rows, column, columns };
                        // SAFETY: passed on.
                        unsafe {
                            match &self.native {
                                Some(native) => native.run(worker, 0, &tile, per_row),
                                None => worker.run(&tile, per_row),
                            }
                        }
                    }
                    at += rows;
                }
            }
            Walk::Rows(walks) => {
                for row in row..end {
                    for (p, phase) in walks.phases.iter().enumerate() {
                        let tile = Tile { row, rows: 1, column: 0, columns: 0 };
                        // SAFETY: passed on.
                        unsafe {
                            worker.once(phase, &tile);
                            worker.begin(phase, true);
                        }
                        let stores = p + 1 == walks.phases.len();
                        self.walk_blocks(worker, phase, row, (first, last), stores);
                        if stores {
                            // SAFETY: passed on.
                            unsafe { worker.store_rows(&tile) };
                        }
                    }
                }
            }
            Walk::Columns(_) => {}
        }
    }

    /// One walk over columns of one row.
    fn walk_blocks(
        &self,
        worker: &mut Worker<'_>,
        phase: &Phase,
        row: usize,
        span: (usize, usize),
        stores: bool,
    ) {
        for (column, columns) in blocks(span.0, span.1, self.tile_columns) {
            let tile = Tile { row, rows: 1, column, columns };
            // SAFETY: the caller of `run` vouches for the operands; tiles stay in the sizes.
            unsafe {
                worker.block(phase, &tile);
                if stores {
                    worker.store(&tile, false);
                }
            }
        }
    }

    unsafe fn run_columns(
        &self,
        pool: &Pool,
        shared: Shared<'_>,
        walks: &Walks,
        workspace: *mut u8,
    ) {
        let rows = self.groups * self.group_rows;
        let (count, across) = (self.body.reductions, self.column_tasks());
        // Sums of each row, then sums of each row's part in each task.
        let sums = Parts(workspace);
        let row_sums = |row: usize| 8 * count * row;
        let part_sums = |row: usize, task: usize| 8 * count * (rows + row * across + task);
        // SAFETY: tiles and sums are within their memory.
        let once = |worker: &mut Worker<'_>, row: usize, phases: usize| unsafe {
            let tile = Tile { row, rows: 1, column: 0, columns: 0 };
            worker.sums = sums.at(row_sums(row));
            for (p, phase) in walks.phases.iter().enumerate().take(phases) {
                worker.once(phase, &tile);
                if p + 1 < phases {
                    worker.begin(phase, false);
                }
            }
            tile
        };
        for (p, phase) in walks.phases.iter().enumerate() {
            let last = p + 1 == walks.phases.len();
            pool.run(across, &|task, thread| {
                pool.with_scratch(thread, self.layout.bytes, |scratch| {
                    // SAFETY: the scratch is the worker's own; tasks write different elements.
                    unsafe {
                        let mut worker = Worker::new(shared, scratch.as_mut_ptr());
                        let span = self.task_span(task);
                        worker.first_column = span.0;
                        for group in 0..self.groups {
                            self.clear(&worker);
                            for row in group * self.group_step..(group + 1) * self.group_rows {
                                if let Some(native) = &self.native {
                                    // Earlier sums are those of the row; its own go to the task.
                                    worker.sums = sums.at(row_sums(row));
                                    worker.own_sums = sums.at(part_sums(row, task));
                                    let (column, columns) = (span.0, span.1 - span.0);
                                    let tile = Tile { row, rows: 1, column, columns };
                                    native.run(&mut worker, p, &tile, false);
                                    continue;
                                }
                                once(&mut worker, row, p + 1);
                                worker.sums = sums.at(part_sums(row, task));
                                worker.begin(phase, true);
                                self.walk_blocks(&mut worker, phase, row, span, last);
                            }
                            if last && self.combines() {
                                self.finish(&worker, worker.accumulators, group, span.0, span.1);
                            }
                        }
                    }
                });
            });
            // SAFETY: the workspace holds the sums of all rows and tasks.
            unsafe { self.join_sums(phase, rows, sums.at(0)) };
        }
        pool.with_scratch(pool.worker(), self.layout.bytes, |scratch| {
            // SAFETY: all columns are done.
            unsafe {
                let mut worker = Worker::new(shared, scratch.as_mut_ptr());
                for row in 0..rows {
                    let tile = once(&mut worker, row, walks.phases.len());
                    worker.store_rows(&tile);
                }
            }
        });
    }

    /// Combines the sums of all tasks of a phase, in order.
    unsafe fn join_sums(&self, phase: &Phase, rows: usize, sums: *mut u8) {
        let (count, across) = (self.body.reductions, self.column_tasks());
        for row in 0..rows {
            for &i in &phase.block {
                let register = &self.body.registers[i];
                let Work::Reduce { reduction, entry, .. } = &register.work else { continue };
                let size = register.kind.size();
                // SAFETY: sums of each row, then of each row's part in each task.
                unsafe {
                    let out = sums.add(8 * (count * row + entry));
                    *out.cast::<u64>() = reduction.identity;
                    let data = sums.add(8 * (count * (rows + row * across) + entry));
                    let row = (8 * count / size) as isize;
                    let arg = Arg { data, row, vector: true };
                    let (rows, columns) = (across, 1);
                    (reduction.rows)(&Call { rows, columns, out, out_row: 0, args: [arg; 3] });
                }
            }
        }
    }

    /// Sets the combined rows to what changes nothing.
    unsafe fn clear(&self, worker: &Worker<'_>) {
        for (store, &at) in self.body.stores.iter().zip(&self.layout.combined) {
            let Some(reduction) = &store.combine else { continue };
            let size = self.body.registers[store.register].kind.size();
            let count = if store.per_row { 1 } else { self.task_columns };
            let bits = reduction.identity.to_ne_bytes();
            // SAFETY: the accumulators have an element for each column of a task.
            unsafe {
                let to = worker.accumulators.add(at);
                for i in 0..count {
                    std::ptr::copy_nonoverlapping(bits.as_ptr(), to.add(i * size), size);
                }
            }
        }
    }

    /// Writes the combined rows of a group.
    unsafe fn finish(
        &self,
        worker: &Worker<'_>,
        accumulators: *mut u8,
        group: usize,
        first: usize,
        last: usize,
    ) {
        let row = group * self.group_step;
        let tile = Tile { row, rows: 1, column: first, columns: last - first };
        for (store, &at) in self.body.stores.iter().zip(&self.layout.combined) {
            if store.combine.is_some() && !(store.per_row && first > 0) {
                // SAFETY: the accumulators hold the tile's elements.
                unsafe {
                    worker.write(store, Span { data: accumulators.add(at), row: 0 }, &tile);
                }
            }
        }
    }

    /// Combines the parts of each group in order.
    unsafe fn join(&self, worker: &Worker<'_>, workspace: *mut u8) {
        let across = self.column_tasks();
        for group in 0..self.groups {
            for task in 0..across {
                let (first, last) = self.task_span(task);
                let bytes = self.layout.accumulators;
                let at = |part: usize| ((group * self.parts + part) * across + task) * bytes;
                for (store, &offset) in self.body.stores.iter().zip(&self.layout.combined) {
                    let Some(reduction) = &store.combine else { continue };
                    let size = self.body.registers[store.register].kind.size();
                    // SAFETY: the workspace holds the parts.
                    unsafe {
                        let row = (across * bytes / size) as isize;
                        let data = workspace.add(at(1) + offset);
                        let arg = Arg { data, row, vector: true };
                        let columns = if store.per_row { 1 } else { last - first };
                        let out = workspace.add(at(0) + offset);
                        let rows = self.parts - 1;
                        (reduction.rows)(&Call { rows, columns, out, out_row: 0, args: [arg; 3] });
                    }
                }
                // SAFETY: the first part now holds the whole.
                unsafe { self.finish(worker, workspace.add(at(0)), group, first, last) };
            }
        }
    }
}

/// Which registers a walk along rows of so many columns keeps for the next: those that cost much,
/// as long as there is room.
fn keep(columns: usize) -> impl Fn(&Register) -> bool {
    let budget = std::cell::Cell::new(KEPT_BYTES);
    move |r| {
        let bytes = columns * r.kind.size();
        let keep = r.cost >= KEPT_COST && bytes <= budget.get() && r.kind.size() >= 4;
        if keep {
            budget.set(budget.get() - bytes);
        }
        keep
    }
}

/// Starts and sizes of the blocks of a range of columns; at least one, which may be empty.
fn blocks(first: usize, last: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = (last - first).div_ceil(width.max(1)).max(1);
    (0..count).map(move |b| (first + b * width, width.min(last - first - b * width)))
}

/// Memory that tasks share, each with a part of its own.
#[derive(Clone, Copy)]
struct Parts(*mut u8);

// SAFETY: tasks use different parts.
unsafe impl Sync for Parts {}

impl Parts {
    unsafe fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: the caller stays within the memory.
        unsafe { self.0.add(offset) }
    }
}

impl Body {
    /// Whether elements are only moved, as they are.
    fn is_copy(&self) -> bool {
        self.order.iter().all(|&i| matches!(self.registers[i].work, Work::Load(_)))
            && self.loads.iter().all(|l| l.widen.is_none())
            && self.stores.iter().all(|s| s.combine.is_none())
    }

    /// Whether some operand is read or written across the order of its memory.
    fn crosses_memory(&self) -> bool {
        let reaches =
            self.loads.iter().map(|l| &l.reach).chain(self.stores.iter().map(|s| &s.reach));
        let mut all = reaches.filter(|r| !r.row.is_still() && !r.column.is_still());
        all.any(|r| r.column.stride().unsigned_abs() > r.row.stride().unsigned_abs())
    }
}

impl Reach {
    /// First byte and end, from the operand's start.
    pub fn bytes(&self) -> (isize, isize) {
        let (rows, columns) = (self.row.bounds(), self.column.bounds());
        let size = self.dtype.size() as isize;
        let first = self.offset + rows.0 + columns.0;
        (first * size, (self.offset + rows.1 + columns.1 + 1) * size)
    }
}

/// The body of a kernel over the flattened space.
fn source<'a>(kernel: &'a Loop, space: &Space) -> Source<'a> {
    let steps = |dims: &[Dim], f: &dyn Fn(&Dim) -> isize| {
        let sizes: Vec<usize> = dims.iter().map(|d| d.size).collect();
        Steps::new(&sizes, &dims.iter().map(f).collect::<Vec<_>>())
    };
    let reach = |access: &Access, number: usize| Reach {
        operand: access.operand,
        dtype: access.dtype,
        offset: access.offset as isize,
        row: steps(&space.rows, &|d| d.strides[number]),
        column: steps(&space.columns, &|d| d.strides[number]),
    };
    let loops = kernel.rows.len() + kernel.columns.len();
    let index = |l: usize| {
        let count = |d: &Dim| isize::from(d.index == Some(l));
        (steps(&space.rows, &count), steps(&space.columns, &count))
    };
    let first = kernel.loads.len();
    let outputs = kernel.stores.iter().enumerate();
    let code: &[Instruction] = &kernel.body;
    Source {
        loads: kernel.loads.iter().enumerate().map(|(i, a)| reach(a, i)).collect(),
        code,
        indices: (0..loops).map(index).collect(),
        product: None,
        outputs: outputs
            .map(|(i, s)| Output {
                register: s.register,
                reach: reach(&s.access, first + i),
                combine: s.combine,
            })
            .collect(),
    }
}
