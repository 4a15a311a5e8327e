//! Elementwise work on the finished parts of a matrix product.

use super::body::{Body, Reach, Source};
use super::kernel::DIRECT;
use super::native::Native;
use super::worker::{Layout, Most, Shared, Span, Tile, Worker};
use crate::gemm::EpilogueTile;
use crate::isa::Isa;
use crate::pool::Pool;
use ferrata_ir::Result;

/// Elements that are worked on at a time.
const TILE: usize = 4096;
/// Columns of that, at most.
const COLUMNS: usize = 1024;

/// A prepared epilogue over rows of all matrices of the batch, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct Epilogue {
    body: Body,
    native: Option<Native>,
    layout: Layout,
    /// Rows of one matrix.
    rows: usize,
}

impl Epilogue {
    /// Prepares a body without reductions whose last store is the result; products have `rows`
    /// rows.
    ///
    /// # Errors
    /// An instruction without meaning.
    pub fn new(isa: Isa, source: &Source, rows: usize) -> Result<Epilogue> {
        let mut body = Body::new(isa, source)?;
        body.assign_slots(true);
        let phases = body.walks(|_| false).phases;
        let native = Native::new(isa, &body, &phases, &[], false, COLUMNS);
        let most = Most { rows: TILE, columns: COLUMNS, elements: TILE };
        let layout = Layout::new(&body, native.as_ref(), &most, &[], 1);
        Ok(Epilogue { body, native, layout, rows })
    }

    /// What is read.
    pub fn loads(&self) -> impl Iterator<Item = &Reach> {
        self.body.loads.iter().map(|l| &l.reach)
    }

    /// What is written, the result last.
    pub fn stores(&self) -> impl Iterator<Item = &Reach> {
        self.body.stores.iter().map(|s| &s.reach)
    }

    /// Works on a finished part.
    ///
    /// # Safety
    /// The operands hold all that the epilogue reaches; the part is within the product, and nobody
    /// else uses it; `apart` only if all loads lie apart from what is written; `in_place` if the
    /// part lies in the result.
    pub unsafe fn run(
        &self,
        pool: &Pool,
        operands: &[*mut u8],
        part: &EpilogueTile,
        element: usize,
        apart: bool,
        in_place: bool,
    ) {
        let mut direct = [apart; DIRECT];
        direct[self.body.stores.len() - 1] = apart && !in_place;
        let (body, layout) = (&self.body, &self.layout);
        let shared = Shared { body, layout, operands, direct: &direct, kept: &[] };
        pool.with_scratch(pool.worker(), self.layout.bytes, |scratch| {
            // SAFETY: passed on; tiles fit the layout.
            unsafe {
                let mut worker = Worker::new(shared, scratch.as_mut_ptr());
                // Code that moves nothing needs no room for tiles.
                let still = self.native.as_ref().is_some_and(|n| !n.moves());
                let most = if still { part.columns.len().max(1) } else { COLUMNS };
                for column in part.columns.clone().step_by(most) {
                    let columns = most.min(part.columns.end - column);
                    let most = if still { part.rows.len() } else { (TILE / columns).max(1) };
                    let mut next = part.rows.start;
                    while next < part.rows.end {
                        let at = (next - part.rows.start) * part.row_stride
                            + (column - part.columns.start);
                        worker.product = Span {
                            data: part.data.add(at * element),
                            row: part.row_stride as isize,
                        };
                        let row = part.batch * self.rows + next;
                        let rows = most.min(part.rows.end - next);
                        let run = self.native.as_ref().map_or(rows, |n| n.run_of_rows(body, row));
                        let tile = Tile { row, rows: rows.min(run), column, columns };
                        match &self.native {
                            Some(native) => native.run(&mut worker, 0, &tile, false),
                            None => worker.run(&tile, false),
                        }
                        next += tile.rows;
                    }
                }
            }
        });
    }
}
