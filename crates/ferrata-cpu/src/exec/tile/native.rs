//! Bodies as machine code: one call works on a whole tile, with values in vector registers from
//! the loads to the stores.

#[cfg_attr(not(target_arch = "x86_64"), path = "native/elsewhere.rs")]
mod function;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod math;

use super::body::{Body, Phase, Reach, Store, Work};
use super::worker::{Most, Span, Tile, Worker};
use crate::isa::Isa;
use crate::steps::Steps;
use function::{Function, allowed, compile};
use std::sync::Arc;

/// Bytes of all operands beyond which none will be found in a cache when it is wanted next.
const CACHED: isize = 64 << 20;
/// Columns up to which a row is over before the machine's own prefetching has caught up.
const AHEAD: usize = 8192;
/// Elements that rows one stride apart should have, for code to follow the stride.
const FOLLOWED: usize = 1024;

/// What a pointer in the table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// Elements of a load.
    Load(usize),
    /// The product's tile, in an epilogue.
    Product,
    /// Indices that are not computed: one for each row, or for each column.
    Index(usize),
    /// The first index of a tile's columns, as an i32.
    First(usize),
    /// Elements that a walk leaves for a later one.
    Kept(usize),
    /// Elements of a store.
    Store(usize),
    /// Rows that a store has combined.
    Combined(usize),
    /// The result of a reduction of an earlier walk, by its register.
    Sum(usize),
    /// The result of a reduction of this walk.
    OwnSum(usize),
}

/// A row of the table: a pointer, and the bytes from one row to the next.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Row {
    data: *mut u8,
    step: isize,
}

/// Whether loops of a path are generated code.
pub(crate) fn generates(isa: Isa) -> bool {
    isa > Isa::Portable && allowed()
}

/// The code of a body.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    /// One function for all walks, or one for each.
    functions: Arc<[Function]>,
    /// The same with stores past the caches, of kernels too large for them.
    streaming: Option<Arc<[Function]>>,
    /// For each load, then each store, whether tiles of it are moved through memory of the
    /// worker, since its columns are not contiguous or its rows too scattered.
    moved: Vec<bool>,
}

/// The part of a worker's memory that code needs, as offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// The table of pointers.
    table: usize,
    /// For each load, then each store, where its tile is moved through.
    moved: Vec<usize>,
    /// For each register that is an index, its elements.
    indices: Vec<usize>,
}

impl Native {
    /// Compiles a body for tiles of some columns; `None` where the path has no code, or the system
    /// allows none. With `apart`, one function for each walk.
    pub fn new(
        isa: Isa,
        body: &Body,
        phases: &[Phase],
        kept: &[usize],
        apart: bool,
        columns: usize,
    ) -> Option<Native> {
        let fits = |steps: &Steps| {
            let (low, high) = steps.bounds();
            i32::try_from(low).is_ok() && i32::try_from(high).is_ok()
        };
        let indices = body.registers.iter().filter_map(|r| match &r.work {
            Work::Index(_, column) => Some(column),
            _ => None,
        });
        if !generates(isa) || !indices.into_iter().all(fits) {
            return None;
        }
        let moved: Vec<bool> = body.reaches().map(|r| r.is_scattered(columns)).collect();
        let ahead = columns <= AHEAD;
        let functions = |streams: bool| -> Option<Arc<[Function]>> {
            let count = if apart { phases.len() } else { 1 };
            let only = |p: usize| apart.then_some(p);
            (0..count).map(|p| compile(isa, body, phases, kept, only(p), streams, ahead)).collect()
        };
        let bytes: isize = body.reaches().map(Reach::bytes).map(|(first, end)| end - first).sum();
        let stores = body.stores.iter().zip(&moved[body.loads.len()..]);
        let mut streamed = stores.filter(|(s, _)| s.may_stream()).peekable();
        let streams =
            bytes > CACHED && streamed.peek().is_some() && streamed.all(|(_, moved)| !moved);
        let streaming = if streams { Some(functions(true)?) } else { None };
        Some(Native { functions: functions(false)?, streaming, moved })
    }

    /// Whether some operand is moved through memory of the worker.
    pub fn moves(&self) -> bool {
        self.moved.contains(&true)
    }

    /// Bytes of an element of everything that is moved.
    pub fn moved_bytes(&self, body: &Body) -> usize {
        let moved = body.reaches().zip(&self.moved).filter(|m| *m.1);
        moved.map(|(r, _)| r.dtype.size()).sum()
    }

    /// Takes places for tiles of some size.
    pub fn places(&self, body: &Body, most: &Most, mut take: impl FnMut(usize) -> usize) -> Places {
        let entries = self.functions.iter().map(|f| f.entries.len()).max().unwrap_or(0);
        let mut places = Places { table: take(entries * size_of::<Row>()), ..Places::default() };
        let loads = body.loads.len();
        for (i, (reach, &moved)) in body.reaches().zip(&self.moved).enumerate() {
            let store = i.checked_sub(loads).map(|s| &body.stores[s]);
            // One element for each row may have to wait there, too.
            let per_row = store.is_some_and(|s| s.per_row);
            let by_row = store.is_some() || !reach.row.is_still();
            let elements = most.of(by_row, !per_row && !reach.column.is_still());
            let size = if per_row { 8 } else { reach.dtype.size() };
            places.moved.push(take(if moved || per_row { elements * size } else { 0 }));
        }
        for r in &body.registers {
            let elements = match &r.work {
                Work::Index(..) => most.of(r.by_row, r.by_column),
                _ => 0,
            };
            places.indices.push(take(8 * elements));
        }
        places
    }

    /// How many rows from one on code can follow with a stride.
    pub fn run_of_rows(&self, body: &Body, row: usize) -> usize {
        let followed =
            body.reaches().zip(&self.moved).filter(|(r, moved)| !**moved && !r.row.is_still());
        followed.map(|(r, _)| r.row.run(row)).min().unwrap_or(usize::MAX)
    }

    /// Runs a function on a tile; stores of one element for each row only if `per_row`.
    ///
    /// # Safety
    /// As for [`Worker::run`].
    pub unsafe fn run(&self, worker: &mut Worker<'_>, which: usize, tile: &Tile, per_row: bool) {
        let entries = &self.functions[which].entries;
        let table = worker.shared.layout.native.table;
        // SAFETY: the layout has room for the table; entries stay within their operands.
        unsafe {
            let table = worker.memory.add(table).cast::<Row>();
            let mut streams = true;
            // Reductions along columns need to know where a row ends.
            let mut long = tile.rows > 1 && worker.shared.body.reductions == 0;
            for (e, &entry) in entries.iter().enumerate() {
                let row = self.row(worker, entry, tile, per_row);
                long &= self.is_long(worker, entry, &row, tile);
                streams &= self.is_streamable(worker, entry, &row, tile);
                *table.add(e) = row;
            }
            let (rows, columns) =
                if long { (1, tile.rows * tile.columns) } else { (tile.rows, tile.columns) };
            let streaming = self.streaming.as_ref().filter(|_| streams);
            streaming.unwrap_or(&self.functions)[which].run(table, rows, columns);
            for &entry in entries {
                if let Entry::Store(s) = entry {
                    self.after(worker, s, tile);
                }
            }
        }
    }

    /// Whether an operand's rows follow each other without a gap, or all its elements are one.
    fn is_long(&self, worker: &Worker<'_>, entry: Entry, row: &Row, tile: &Tile) -> bool {
        let body = worker.shared.body;
        let long = |size: usize| row.step == (tile.columns * size) as isize;
        match entry {
            Entry::Load(l) => {
                let reach = &body.loads[l].reach;
                match (reach.row.is_still(), reach.column.is_still()) {
                    (true, still) => still,
                    (false, still) => !still && long(reach.dtype.size()),
                }
            }
            Entry::Store(s) => {
                let store = &body.stores[s];
                !store.per_row && long(store.reach.dtype.size())
            }
            Entry::Product => body
                .registers
                .iter()
                .find(|r| matches!(r.work, Work::Product))
                .is_some_and(|r| long(r.kind.size())),
            _ => false,
        }
    }

    /// Whether a store that may stream can: to lines of its own, aligned.
    fn is_streamable(&self, worker: &Worker<'_>, entry: Entry, row: &Row, tile: &Tile) -> bool {
        let Entry::Store(s) = entry else { return true };
        let aligned = |x: usize| x.is_multiple_of(64);
        let rows = tile.rows == 1 || aligned(row.step.unsigned_abs());
        let direct = worker.shared.direct.get(s) == Some(&true);
        !worker.shared.body.stores[s].may_stream() || direct && rows && aligned(row.data.addr())
    }

    unsafe fn row(&self, worker: &mut Worker<'_>, entry: Entry, tile: &Tile, per_row: bool) -> Row {
        let shared = worker.shared;
        let (body, layout) = (shared.body, shared.layout);
        let places = &layout.native;
        let still = |data| Row { data, step: 0 };
        // SAFETY: passed on; the layout has all places.
        unsafe {
            let at = |offset: usize| worker.memory.add(offset);
            match entry {
                Entry::Load(l) => {
                    let reach = &body.loads[l].reach;
                    let by = (!reach.row.is_still(), !reach.column.is_still());
                    if !self.moved[l] {
                        return reach.followed(shared.operands, tile);
                    }
                    let (data, size) = (at(places.moved[l]), reach.dtype.size());
                    let row = if by.1 { tile.columns } else { 1 };
                    let from = shared.operands[reach.operand].cast_const();
                    reach.gather(from, Span { data, row: row as isize }, by.0, by.1, tile);
                    Row { data, step: if by.0 { (row * size) as isize } else { 0 } }
                }
                Entry::Store(s) => {
                    let store = &body.stores[s];
                    let (place, size) =
                        (places.moved[body.loads.len() + s], store.reach.dtype.size());
                    if store.combine.is_some() {
                        let size = body.registers[store.register].kind.size();
                        return Row { data: at(place), step: size as isize };
                    }
                    if store.per_row && !per_row {
                        return still(at(place));
                    }
                    if !self.moved[body.loads.len() + s] {
                        return store.reach.followed(shared.operands, tile);
                    }
                    let row = if store.per_row { 1 } else { tile.columns };
                    Row { data: at(place), step: (row * size) as isize }
                }
                Entry::Product => {
                    let product = body.registers.iter().find(|r| matches!(r.work, Work::Product));
                    let size = product.map_or(0, |r| r.kind.size()) as isize;
                    Row { data: worker.product.data, step: worker.product.row * size }
                }
                Entry::Index(i) => {
                    let r = &body.registers[i];
                    let data = at(places.indices[i]);
                    if let Work::Index(row, column) = &r.work {
                        worker.index(r, row, column, tile, Span { data, row: 0 });
                    }
                    Row { data, step: if r.by_row { r.kind.size() as isize } else { 0 } }
                }
                Entry::First(i) => {
                    let data = at(places.indices[i]);
                    if let Work::Index(_, column) = &body.registers[i].work {
                        *data.cast::<i32>() = column.at(tile.column) as i32;
                    }
                    still(data)
                }
                Entry::Kept(i) => {
                    let k = shared.kept.iter().position(|&k| k == i).unwrap_or(0);
                    still(at(layout.kept[k] + tile.column * body.registers[i].kind.size()))
                }
                Entry::Combined(s) => {
                    let size = body.registers[body.stores[s].register].kind.size();
                    let at = layout.combined[s] + (tile.column - worker.first_column) * size;
                    still(worker.accumulators.add(at))
                }
                Entry::Sum(i) => still(worker.sums.add(8 * body.entry(i))),
                Entry::OwnSum(i) => still(worker.own_sums.add(8 * body.entry(i))),
            }
        }
    }

    /// Moves a tile of a store to where it belongs, or combines its rows.
    unsafe fn after(&self, worker: &mut Worker<'_>, s: usize, tile: &Tile) {
        let shared = worker.shared;
        let store = &shared.body.stores[s];
        let i = shared.body.loads.len() + s;
        // SAFETY: passed on.
        unsafe {
            let data = worker.memory.add(shared.layout.native.moved[i]);
            if store.combine.is_some() {
                if tile.column == 0 {
                    worker.set_span(store.register, Span { data, row: 1 });
                    let to = worker.accumulators.add(shared.layout.combined[s]);
                    worker.accumulate(store, tile, to);
                }
            } else if self.moved[i] {
                let row = if store.per_row { 1 } else { tile.columns as isize };
                let to = shared.operands[store.reach.operand];
                store.reach.scatter(Span { data, row }, to, true, store.per_row, tile);
            }
        }
    }
}

impl Store {
    /// Whether it writes whole vectors of memory and nothing else.
    fn may_stream(&self) -> bool {
        !self.per_row && self.combine.is_none() && matches!(self.reach.dtype.size(), 4 | 8)
    }
}

impl Body {
    /// The place of a reduction among all.
    fn entry(&self, register: usize) -> usize {
        match self.registers[register].work {
            Work::Reduce { entry, .. } => entry,
            _ => 0,
        }
    }

    /// What is read, then what is written.
    pub fn reaches(&self) -> impl Iterator<Item = &Reach> {
        self.loads.iter().map(|l| &l.reach).chain(self.stores.iter().map(|s| &s.reach))
    }
}

impl Reach {
    /// Whether code cannot follow its elements along columns, or its rows are too scattered.
    fn is_scattered(&self, columns: usize) -> bool {
        let dense = self.column.is_still() || self.column.single() == Some(1);
        let rows = self.row.single().is_some() || self.row.inner() * columns >= FOLLOWED;
        !dense || !(self.row.is_still() || rows)
    }

    /// Where a tile's rows begin, and the bytes from one to the next.
    unsafe fn followed(&self, operands: &[*mut u8], tile: &Tile) -> Row {
        let size = self.dtype.size() as isize;
        let column = if self.column.is_still() { 0 } else { self.column.at(tile.column) };
        let at = self.offset + self.row.at(tile.row) + column;
        let step = if self.row.is_still() { 0 } else { self.row.stride() * size };
        // SAFETY: the operand holds every element that the tile reaches.
        Row { data: unsafe { operands[self.operand].offset(at * size) }, step }
    }
}
