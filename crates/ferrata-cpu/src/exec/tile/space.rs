//! The iteration space of a loop kernel, simplified: loops of one step dropped, neighbours merged
//! where every operand allows it, rows that are combined innermost.

use ferrata_compiler::kernel::{Instruction, Loop};
use ferrata_ir::{Error, Result};

/// Columns that a tile should have at least, where there is a choice.
const FEW_COLUMNS: usize = 32;

/// A loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dim {
    pub size: usize,
    /// For each load, then each store.
    pub strides: Vec<isize>,
    /// The loop of the kernel whose index this loop counts, if some instruction asks for it.
    pub index: Option<usize>,
    /// Whether stores combine over it.
    pub combined: bool,
}

/// Row and column loops, outermost first.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub rows: Vec<Dim>,
    pub columns: Vec<Dim>,
}

impl Space {
    /// Of a kernel.
    ///
    /// # Errors
    /// When an access lacks a stride, or stores combine over different loops.
    pub fn of(kernel: &Loop) -> Result<Space> {
        let loops = kernel.rows.len() + kernel.columns.len();
        let accesses = kernel.loads.iter().chain(kernel.stores.iter().map(|s| &s.access));
        if accesses.clone().any(|a| a.strides.len() != loops) {
            return Err(Error::new("an access of a kernel has not one stride for each loop"));
        }
        let asked = |l: usize| {
            let asks = |i: &Instruction| matches!(i, Instruction::Index { dim, .. } if *dim == l);
            kernel.body.iter().any(asks)
        };
        let combining: Vec<_> = kernel.stores.iter().filter(|s| s.combine.is_some()).collect();
        let dim = |l: usize, size: usize| Dim {
            size,
            strides: accesses.clone().map(|a| a.strides[l]).collect(),
            index: asked(l).then_some(l),
            combined: l < kernel.rows.len() && combining.iter().any(|s| s.access.strides[l] == 0),
        };
        let sizes = kernel.rows.iter().chain(&kernel.columns);
        let dims: Vec<Dim> = sizes.enumerate().map(|(l, &size)| dim(l, size)).collect();
        let (rows, columns) = dims.split_at(kernel.rows.len());
        let mixed = rows.iter().any(|d| {
            let first = kernel.loads.len();
            let stores = kernel.stores.iter().zip(&d.strides[first..]);
            d.size > 1
                && d.combined
                && stores.clone().any(|(s, &stride)| s.combine.is_some() && stride != 0)
        });
        if mixed {
            return Err(Error::new("stores of one kernel combine over different rows"));
        }
        let reduces = kernel.body.iter().any(|i| matches!(i, Instruction::ReduceColumns { .. }));
        let (kept, combined): (Vec<Dim>, Vec<Dim>) =
            rows.iter().filter(|d| d.size != 1).cloned().partition(|d| !d.combined);
        let columns: Vec<Dim> = columns.iter().filter(|d| d.size != 1).cloned().collect();
        if reduces || !combining.is_empty() {
            let mut rows = merged(kept);
            rows.extend(merged(combined));
            return Ok(Space { rows, columns: merged(columns) });
        }
        let mut rows = merged(kept.into_iter().chain(columns).collect());
        let mut columns: Vec<Dim> = Vec::new();
        while columns.iter().map(|d| d.size).product::<usize>() < FEW_COLUMNS {
            let Some(inner) = rows.pop() else { break };
            columns.insert(0, inner);
        }
        Ok(Space { rows, columns })
    }
}

/// Merges neighbours that every operand steps over with one stride.
fn merged(dims: Vec<Dim>) -> Vec<Dim> {
    let mut out: Vec<Dim> = Vec::with_capacity(dims.len());
    for dim in dims {
        let fits = |outer: &Dim| {
            let steps = outer.strides.iter().zip(&dim.strides);
            outer.index.is_none()
                && dim.index.is_none()
                && steps.clone().all(|(&outer, &inner)| outer == inner * dim.size as isize)
        };
        match out.last_mut() {
            Some(outer) if fits(outer) => {
                *outer = Dim { size: outer.size * dim.size, ..dim };
            }
            _ => out.push(dim),
        }
    }
    out
}
