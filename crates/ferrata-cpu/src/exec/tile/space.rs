//! The iteration space of a loop kernel, simplified: loops of one step dropped, neighbours merged
//! where every operand allows it, rows that are combined innermost.

use ferrata_compiler::kernel::{Instruction, Loop, Store};
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
    /// When an access lacks a stride.
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

/// Splits a kernel whose stores combine over different loops into kernels that each combine over
/// the same ones. Stores that do not combine come last, as they may replace what is loaded.
pub(crate) fn split(kernel: &Loop) -> Vec<Loop> {
    let combined = |s: &Store| -> Vec<bool> {
        let strides = s.access.strides.iter().zip(&kernel.rows);
        strides.map(|(&stride, &size)| stride == 0 && size > 1 && s.combine.is_some()).collect()
    };
    let mut groups: Vec<(Vec<bool>, Vec<Store>)> = Vec::new();
    for store in kernel.stores.iter().filter(|s| s.combine.is_some()) {
        let key = combined(store);
        match groups.iter_mut().find(|g| g.0 == key) {
            Some(group) => group.1.push(store.clone()),
            None => groups.push((key, vec![store.clone()])),
        }
    }
    let plain = kernel.stores.iter().filter(|s| s.combine.is_none()).cloned();
    match groups.last_mut() {
        Some(last) => last.1.extend(plain),
        None => groups.push((Vec::new(), plain.collect())),
    }
    groups.into_iter().map(|(_, stores)| Loop { stores, ..kernel.clone() }).collect()
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
