//! Runs a prepared body on one tile: a block of rows and columns.

use super::body::{Body, Load, Phase, Reach, Register, Store, Work};
use super::native::{Native, Places};
use super::ops::{Arg, Call, Kind, Loop, Reduction};
use crate::steps::{Block, Steps};

/// A block of the iteration space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

/// The most that a tile has of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub rows: usize,
    pub columns: usize,
    pub elements: usize,
}

impl Most {
    /// Elements of what differs between rows, and between columns.
    pub fn of(&self, by_row: bool, by_column: bool) -> usize {
        match (by_row, by_column) {
            (true, true) => self.elements,
            (true, false) => self.rows,
            (false, true) => self.columns,
            (false, false) => 1,
        }
    }
}

/// Where the elements of a register are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub data: *mut u8,
    /// Elements from one row to the next.
    pub row: isize,
}

/// Sizes of a worker's memory, and where its parts begin, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Start of each slot.
    pub slots: Vec<usize>,
    /// Start of each kept register's row.
    pub kept: Vec<usize>,
    /// Start of the elements on their way from or to half precision.
    pub halves: usize,
    /// Start of the sums along columns.
    pub sums: usize,
    /// Start of each store's combined rows, from the start of the accumulators.
    pub combined: Vec<usize>,
    /// Bytes of all accumulators.
    pub accumulators: usize,
    /// Start of the accumulators.
    pub accumulate: usize,
    /// What code needs.
    pub native: Places,
    /// All bytes.
    pub bytes: usize,
}

impl Layout {
    /// For tiles of some size, and rows of `width` columns in all.
    pub fn new(
        body: &Body,
        native: Option<&Native>,
        most: &Most,
        kept: &[usize],
        width: usize,
    ) -> Layout {
        let mut layout = Layout::default();
        let mut end = body.registers.len() * size_of::<Span>();
        let mut take = |bytes: usize| {
            end = end.next_multiple_of(64);
            end += bytes;
            end - bytes
        };
        for slot in &body.slots {
            let elements = match (slot.by_row, slot.by_column) {
                // Code has values with columns in vector registers.
                (_, true) if native.is_some() => 0,
                (by_row, by_column) => most.of(by_row, by_column),
            };
            layout.slots.push(take(elements * slot.size));
        }
        let kept = kept.iter().map(|&i| take(width * body.registers[i].kind.size()));
        layout.kept = kept.collect();
        layout.halves = take(2 * most.elements.max(width));
        if let Some(native) = native {
            layout.native = native.places(body, most, &mut take);
        }
        layout.sums = take(8 * body.reductions);
        let mut combined = 0usize;
        for store in &body.stores {
            layout.combined.push(combined);
            if store.combine.is_some() {
                let size = body.registers[store.register].kind.size();
                let bytes = size * if store.per_row { 1 } else { width };
                combined += bytes.next_multiple_of(64);
            }
        }
        layout.accumulators = combined;
        layout.accumulate = take(combined);
        layout.bytes = end;
        layout
    }
}

/// What all workers of a run share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub body: &'a Body,
    pub layout: &'a Layout,
    /// Start of each operand.
    pub operands: &'a [*mut u8],
    /// For each store, whether registers may be computed straight into it.
    pub direct: &'a [bool],
    pub kept: &'a [usize],
}

// SAFETY: operands are written only at elements that belong to one task.
unsafe impl Sync for Shared<'_> {}

/// One thread's state while it works on a task.
pub(crate) struct Worker<'a> {
    pub shared: Shared<'a>,
    /// Its memory: spans, then what the layout says.
    pub memory: *mut u8,
    /// The product's tile, in an epilogue.
    pub product: Span,
    /// Sums along columns, 8 bytes each.
    pub sums: *mut u8,
    /// Where code leaves the sums of the walk that it makes.
    pub own_sums: *mut u8,
    /// Combined rows.
    pub accumulators: *mut u8,
    /// The column that combined rows begin with.
    pub first_column: usize,
}

impl<'a> Worker<'a> {
    /// A worker on `layout.bytes` bytes of memory.
    ///
    /// # Safety
    /// The memory is aligned to 64 bytes and nobody else uses it; `shared` describes operands that
    /// hold every element that the body reaches from the tiles it will be given.
    pub unsafe fn new(shared: Shared<'a>, memory: *mut u8) -> Worker<'a> {
        let product = Span { data: std::ptr::null_mut(), row: 0 };
        // SAFETY: within the memory.
        let (sums, accumulators) =
            unsafe { (memory.add(shared.layout.sums), memory.add(shared.layout.accumulate)) };
        Worker { shared, memory, product, sums, own_sums: sums, accumulators, first_column: 0 }
    }

    unsafe fn span(&self, register: usize) -> Span {
        // SAFETY: spans stand at the start of the memory, one for each register.
        unsafe { *self.memory.cast::<Span>().add(register) }
    }

    pub unsafe fn set_span(&mut self, register: usize, span: Span) {
        // SAFETY: as above.
        unsafe { *self.memory.cast::<Span>().add(register) = span }
    }

    /// Where a register's elements go when they go nowhere else.
    unsafe fn slot(&self, register: usize, tile: &Tile) -> Span {
        let Shared { body, layout, kept, .. } = self.shared;
        let r = &body.registers[register];
        let row =
            if r.by_row && r.by_column { tile.columns as isize } else { isize::from(r.by_row) };
        // SAFETY: the layout has room for tiles of this size.
        unsafe {
            if let Some(k) = kept.iter().position(|&k| k == register) {
                let at = layout.kept[k] + tile.column * r.kind.size();
                return Span { data: self.memory.add(at), row: 0 };
            }
            Span { data: self.memory.add(layout.slots[r.slot]), row }
        }
    }

    /// Runs the whole body on a tile that holds whole rows, or on any tile if the body has no
    /// reductions along columns.
    ///
    /// # Safety
    /// The tile is within the sizes that the worker was made for.
    pub unsafe fn run(&mut self, tile: &Tile, per_row: bool) {
        // SAFETY: passed on.
        unsafe {
            for &i in &self.shared.body.order {
                self.compute(i, tile);
            }
            self.store(tile, per_row);
        }
    }

    /// Computes what is the same for all columns, and writes the stores of one element for each
    /// row.
    ///
    /// # Safety
    /// As for [`Worker::run`]; the body has no reductions along columns.
    pub unsafe fn run_rows(&mut self, tile: &Tile) {
        let body = self.shared.body;
        // SAFETY: passed on.
        unsafe {
            for &i in body.order.iter().filter(|&&i| !body.registers[i].by_column) {
                self.compute(i, tile);
            }
            self.store_rows(tile);
        }
    }

    /// Computes the registers of a phase that are the same for all columns.
    ///
    /// # Safety
    /// The tile has one row; earlier phases have left their sums.
    pub unsafe fn once(&mut self, phase: &Phase, tile: &Tile) {
        for &i in &phase.once {
            // SAFETY: passed on.
            unsafe { self.compute(i, tile) };
        }
    }

    /// Sets the sums of a phase to what changes nothing, and makes them the values of their
    /// registers.
    ///
    /// # Safety
    /// The sums have room.
    pub unsafe fn begin(&mut self, phase: &Phase, reset: bool) {
        for &i in &phase.block {
            if let Work::Reduce { reduction, entry, .. } = &self.shared.body.registers[i].work {
                // SAFETY: one entry of 8 bytes for each reduction.
                unsafe {
                    let data = self.sums.add(8 * entry);
                    if reset {
                        *data.cast::<u64>() = reduction.identity;
                    }
                    self.set_span(i, Span { data, row: 0 });
                }
            }
        }
    }

    /// Runs the part of a phase that depends on the columns, on one block of them.
    ///
    /// # Safety
    /// As for [`Worker::once`], which ran before.
    pub unsafe fn block(&mut self, phase: &Phase, tile: &Tile) {
        let body = self.shared.body;
        // SAFETY: passed on.
        unsafe {
            for &k in self.shared.kept {
                let span = self.slot(k, tile);
                self.set_span(k, span);
            }
            for &i in &phase.block {
                if let Work::Reduce { reduction, arg, entry } = &body.registers[i].work {
                    // The block's own sum is combined with what came before.
                    let sum = self.sums.add(8 * entry);
                    let size = body.registers[i].kind.size();
                    let mut two = [0u64; 2];
                    let pair = two.as_mut_ptr().cast::<u8>();
                    std::ptr::copy_nonoverlapping(sum, pair, size);
                    self.call(reduction.columns, pair.add(size), 1, 1, tile, &[*arg]);
                    combine_pair(reduction, pair, sum);
                } else {
                    self.compute(i, tile);
                }
            }
        }
    }

    /// Computes one register.
    unsafe fn compute(&mut self, i: usize, tile: &Tile) {
        let body = self.shared.body;
        let r = &body.registers[i];
        // SAFETY: passed on.
        unsafe {
            let span = match &r.work {
                Work::Load(load) => self.load(i, &body.loads[*load], tile),
                Work::Product => self.product,
                Work::Constant(bits) => {
                    let span = self.slot(i, tile);
                    *span.data.cast::<u64>() = *bits;
                    span
                }
                Work::Index(row, column) => {
                    let span = self.slot(i, tile);
                    self.index(r, row, column, tile, span);
                    span
                }
                Work::Apply { run, args, count, .. } => {
                    let span = self.target(i, tile);
                    let (rows, columns) = match (r.by_row, r.by_column) {
                        (true, true) => (tile.rows, tile.columns),
                        (true, false) => (1, tile.rows),
                        (false, true) => (1, tile.columns),
                        (false, false) => (1, 1),
                    };
                    let tile = &Tile { rows, columns, ..*tile };
                    let by_row = r.by_row && !r.by_column;
                    self.apply(*run, span, by_row, tile, &args[..*count]);
                    span
                }
                Work::Reduce { reduction, arg, .. } => {
                    let span = self.slot(i, tile);
                    let rows = if r.by_row { tile.rows } else { 1 };
                    self.call(reduction.columns, span.data, 1, rows, tile, &[*arg]);
                    span
                }
            };
            self.set_span(i, span);
        }
    }

    /// Where a register is computed: its slot, or the memory that it is stored to.
    unsafe fn target(&self, i: usize, tile: &Tile) -> Span {
        let Shared { body, direct, operands, kept, .. } = self.shared;
        // SAFETY: passed on.
        unsafe {
            let direct = body.registers[i].direct.filter(|&s| direct[s] && !kept.contains(&i));
            if let Some(s) = direct {
                let reach = &body.stores[s].reach;
                if let Some(span) = reach.dense(operands, tile) {
                    return span;
                }
            }
            self.slot(i, tile)
        }
    }

    /// An operand of a loop over a tile with rows and columns.
    unsafe fn arg(&self, register: usize) -> Arg {
        let r = &self.shared.body.registers[register];
        // SAFETY: passed on.
        let span = unsafe { self.span(register) };
        let row = if r.by_row { span.row } else { 0 };
        Arg { data: span.data, row, vector: r.by_column }
    }

    unsafe fn call(
        &self,
        run: Loop,
        out: *mut u8,
        out_row: isize,
        rows: usize,
        tile: &Tile,
        args: &[usize],
    ) {
        // SAFETY: passed on.
        unsafe {
            let mut list = [Arg { data: std::ptr::null(), row: 0, vector: false }; 3];
            for (slot, &a) in list.iter_mut().zip(args) {
                *slot = self.arg(a);
            }
            run(&Call { rows, columns: tile.columns, out, out_row, args: list });
        }
    }

    /// Applies a loop to a tile, as one long row where everything lies together.
    unsafe fn apply(&self, run: Loop, out: Span, by_row: bool, tile: &Tile, args: &[usize]) {
        let (mut rows, mut columns) = (tile.rows, tile.columns);
        // SAFETY: passed on.
        unsafe {
            let mut list = [Arg { data: std::ptr::null(), row: 0, vector: false }; 3];
            for (slot, &a) in list.iter_mut().zip(args) {
                *slot = self.arg(a);
                if by_row {
                    // Rows are the elements here.
                    *slot = Arg { vector: self.shared.body.registers[a].by_row, row: 0, ..*slot };
                }
            }
            let long = |row: isize| row == columns as isize;
            let whole = |a: &Arg| if a.vector { long(a.row) } else { a.row == 0 };
            if rows > 1 && long(out.row) && list[..args.len()].iter().all(whole) {
                (rows, columns) = (1, rows * columns);
            }
            run(&Call { rows, columns, out: out.data, out_row: out.row, args: list });
        }
    }

    unsafe fn load(&mut self, i: usize, load: &Load, tile: &Tile) -> Span {
        let Shared { body, operands, .. } = self.shared;
        let r = &body.registers[i];
        let reach = &load.reach;
        let size = reach.dtype.size();
        // SAFETY: the operand holds every element that the tile reaches.
        unsafe {
            let from = operands[reach.operand].cast_const();
            if load.widen.is_none() {
                let there = match (r.by_row, r.by_column) {
                    (true, true) => reach.dense(operands, tile),
                    (false, true) => (reach.column.single() == Some(1)).then(|| {
                        let at = reach.offset + reach.column.at(tile.column);
                        Span { data: from.offset(at * size as isize).cast_mut(), row: 0 }
                    }),
                    (true, false) => {
                        let run = reach.row.run(tile.row) >= tile.rows;
                        ((reach.row.stride() == 1 && run) || tile.rows == 1).then(|| {
                            let at = reach.offset + reach.row.at(tile.row);
                            Span { data: from.offset(at * size as isize).cast_mut(), row: 1 }
                        })
                    }
                    (false, false) => {
                        let at = reach.offset * size as isize;
                        Some(Span { data: from.offset(at).cast_mut(), row: 0 })
                    }
                };
                if let Some(span) = there {
                    return span;
                }
            }
            let span = self.target(i, tile);
            let Some(widen) = load.widen else {
                reach.gather(from, span, r.by_row, r.by_column, tile);
                return span;
            };
            let dense = reach.dense(operands, tile).filter(|_| r.by_row && r.by_column);
            let (rows, columns) = r.extent(tile);
            let (halves, row) = match dense {
                Some(there) => (there.data.cast_const(), there.row),
                None => {
                    let data = self.memory.add(self.shared.layout.halves);
                    let row = if r.by_column { columns as isize } else { 1 };
                    let halves = Span { data, row };
                    reach.gather(from, halves, r.by_row, r.by_column, tile);
                    (data.cast_const(), columns as isize)
                }
            };
            let arg = Arg { data: halves, row, vector: true };
            widen(&Call { rows, columns, out: span.data, out_row: span.row, args: [arg; 3] });
            span
        }
    }

    /// Writes the indices of a tile's rows, or of its columns.
    ///
    /// # Safety
    /// The span has room for them.
    pub unsafe fn index(&self, r: &Register, row: &Steps, column: &Steps, tile: &Tile, to: Span) {
        let (steps, first) = if r.by_row { (row, tile.row) } else { (column, tile.column) };
        let (rows, columns) = r.extent(tile);
        macro_rules! fill {
            ($t:ty) => {
                fill!($t, |index| index as $t)
            };
            ($t:ty, $of:expr) => {
                for i in 0..rows * columns {
                    // SAFETY: the slot has an element for each row or column.
                    unsafe { *to.data.cast::<$t>().add(i) = $of(steps.at(first + i)) };
                }
            };
        }
        match r.kind {
            Kind::F64 => fill!(f64),
            Kind::F32 => fill!(f32),
            Kind::I64 => fill!(i64),
            Kind::I32 => fill!(i32),
            Kind::U32 => fill!(u32),
            Kind::I16 => fill!(i16),
            Kind::I8 => fill!(i8),
            Kind::U8 => fill!(u8),
            Kind::Bool => fill!(u8, |index| u8::from(index != 0)),
        }
    }

    /// Writes the stores of one element for each row. This comes after all columns of the row,
    /// since the element may replace one that is loaded for all of them.
    ///
    /// # Safety
    /// The registers have been computed on this tile.
    pub unsafe fn store_rows(&self, tile: &Tile) {
        let stores = &self.shared.body.stores;
        for store in stores.iter().filter(|s| s.per_row && s.combine.is_none()) {
            // SAFETY: passed on.
            unsafe { self.write(store, self.span(store.register), tile) };
        }
    }

    /// Writes the stores of a tile; those of one element for each row only if `per_row`.
    ///
    /// # Safety
    /// The registers have been computed on this tile.
    pub unsafe fn store(&mut self, tile: &Tile, per_row: bool) {
        let Shared { body, layout, operands, .. } = self.shared;
        for (s, store) in body.stores.iter().enumerate() {
            // SAFETY: passed on.
            unsafe {
                if store.combine.is_some() {
                    if !store.per_row || tile.column == 0 {
                        let to = self.accumulators.add(layout.combined[s]);
                        self.accumulate(store, tile, to);
                    }
                } else if !store.per_row {
                    let r = &body.registers[store.register];
                    let span = self.span(store.register);
                    let there = store.reach.dense(operands, tile);
                    let same = there.is_some_and(|t| (t.data, t.row) == (span.data, span.row));
                    if !(same && r.by_row && r.by_column) {
                        self.write(store, span, tile);
                    }
                }
            }
        }
        if per_row {
            // SAFETY: passed on.
            unsafe { self.store_rows(tile) };
        }
    }

    /// Combines the rows of a tile into a store's accumulator.
    ///
    /// # Safety
    /// The store's register has been computed on this tile.
    pub unsafe fn accumulate(&self, store: &Store, tile: &Tile, to: *mut u8) {
        let Some(reduction) = &store.combine else { return };
        let size = self.shared.body.registers[store.register].kind.size();
        // SAFETY: passed on.
        unsafe {
            let span = self.span(store.register);
            if !store.per_row {
                let to = to.add((tile.column - self.first_column) * size);
                self.call(reduction.rows, to, 0, tile.rows, tile, &[store.register]);
                return;
            }
            let mut two = [0u64; 2];
            let pair = two.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(to, pair, size);
            let arg = Arg { data: span.data, row: 0, vector: true };
            let (rows, columns, out) = (1, tile.rows, pair.add(size));
            (reduction.columns)(&Call { rows, columns, out, out_row: 0, args: [arg; 3] });
            combine_pair(reduction, pair, to);
        }
    }

    /// Writes a register, or combined rows, to memory.
    ///
    /// # Safety
    /// The span holds the tile's elements of the store's register.
    pub unsafe fn write(&self, store: &Store, span: Span, tile: &Tile) {
        let r = &self.shared.body.registers[store.register];
        let reach = &store.reach;
        // SAFETY: the operand holds every element that the tile reaches.
        unsafe {
            let to = self.shared.operands[reach.operand];
            let by_row = !reach.row.is_still();
            let (rows, columns) = match (r.by_row, store.per_row) {
                (true, true) => (1, tile.rows),
                (false, true) => (1, 1),
                (true, false) => (tile.rows, tile.columns),
                (false, false) => (1, tile.columns),
            };
            let Some(narrow) = store.narrow else {
                reach.scatter(span, to, r.by_row, store.per_row, tile);
                return;
            };
            let data = self.memory.add(self.shared.layout.halves);
            let arg = Arg { data: span.data, row: span.row, vector: true };
            let dense = reach.dense(self.shared.operands, tile);
            if let Some(there) = dense.filter(|_| !store.per_row && r.by_row && by_row) {
                let (out, out_row) = (there.data, there.row);
                narrow(&Call { rows, columns, out, out_row, args: [arg; 3] });
                return;
            }
            let halves =
                Span { data, row: if r.by_row && !store.per_row { columns as isize } else { 1 } };
            let call = Call { rows, columns, out: data, out_row: columns as isize, args: [arg; 3] };
            narrow(&call);
            reach.scatter(halves, to, r.by_row, store.per_row, tile);
        }
    }
}

/// Combines two elements that stand one behind the other.
unsafe fn combine_pair(reduction: &Reduction, pair: *const u8, out: *mut u8) {
    let arg = Arg { data: pair, row: 0, vector: true };
    // SAFETY: the caller has both elements and room for the result.
    unsafe { (reduction.columns)(&Call { rows: 1, columns: 2, out, out_row: 0, args: [arg; 3] }) }
}

impl Register {
    /// Rows and columns of the elements that a tile has of this register, a register without
    /// columns being a row of its rows.
    fn extent(&self, tile: &Tile) -> (usize, usize) {
        match (self.by_row, self.by_column) {
            (true, true) => (tile.rows, tile.columns),
            (true, false) => (1, tile.rows),
            (false, true) => (1, tile.columns),
            (false, false) => (1, 1),
        }
    }
}

/// Calls `f(position, offset, count, stride)` for every run of equal strides among `count` indices
/// from `first` on.
fn runs(steps: &Steps, first: usize, count: usize, mut f: impl FnMut(usize, isize, usize, isize)) {
    let mut done = 0;
    while done < count {
        let n = steps.run(first + done).min(count - done);
        // An index space without dimensions has one index.
        let n = if steps.single() == Some(0) { count - done } else { n };
        f(done, steps.at(first + done), n, steps.stride());
        done += n;
    }
}

impl Reach {
    /// The tile in memory, if each of its rows is contiguous and one stride leads from row to row.
    unsafe fn dense(&self, operands: &[*mut u8], tile: &Tile) -> Option<Span> {
        let rows = tile.rows == 1 || self.row.run(tile.row) >= tile.rows || self.row.is_still();
        let columns = self.column.single() == Some(1) || tile.columns == 1;
        (rows && columns).then(|| {
            let at = self.offset + self.row.at(tile.row) + self.column.at(tile.column);
            // SAFETY: the operand holds every element that the tile reaches.
            let data = unsafe { operands[self.operand].offset(at * self.dtype.size() as isize) };
            Span { data, row: self.row.stride() }
        })
    }

    /// Reads a tile's elements into dense rows (of one element each, if there are no columns).
    ///
    /// # Safety
    /// Operand and span hold the tile's elements.
    pub unsafe fn gather(
        &self,
        from: *const u8,
        to: Span,
        by_row: bool,
        by_column: bool,
        tile: &Tile,
    ) {
        let size = self.dtype.size();
        self.blocks(by_row, by_column, tile, to.row, |dense, strided, block| {
            // SAFETY: passed on.
            unsafe {
                let from = from.offset(strided * size as isize);
                block.gather(size, from, to.data.offset(dense * size as isize));
            }
        });
    }

    /// Writes a tile's elements from dense rows.
    ///
    /// # Safety
    /// Operand and span hold the tile's elements.
    pub unsafe fn scatter(&self, from: Span, to: *mut u8, rows: bool, per_row: bool, tile: &Tile) {
        let size = self.dtype.size();
        // The same value goes to every row that the memory has.
        let by_row = rows || !self.row.is_still();
        let dense = if rows { from.row } else { 0 };
        self.blocks(by_row, !per_row, tile, dense, |at, strided, block| {
            // SAFETY: passed on.
            unsafe {
                let to = to.offset(strided * size as isize);
                block.scatter(size, from.data.offset(at * size as isize), to);
            }
        });
    }

    /// Visits dense positions, strided offsets and sizes of the blocks that a tile falls into.
    fn blocks(
        &self,
        by_row: bool,
        by_column: bool,
        tile: &Tile,
        dense_row: isize,
        mut visit: impl FnMut(isize, isize, &Block),
    ) {
        let rows = if by_row { tile.rows } else { 1 };
        let columns = if by_column { tile.columns } else { 1 };
        runs(&self.row, tile.row, rows, |r, row_at, rows, row| {
            runs(&self.column, tile.column, columns, |c, column_at, columns, column| {
                let block = if columns == 1 && dense_row == 1 {
                    Block { rows: 1, columns: rows, dense_row, row: 0, column: row }
                } else {
                    Block { rows, columns, dense_row, row, column }
                };
                let dense = r as isize * dense_row + c as isize;
                visit(dense, self.offset + row_at + column_at, &block);
            });
        });
    }
}
