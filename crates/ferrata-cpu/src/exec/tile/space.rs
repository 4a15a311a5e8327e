//! The iteration space of a loop kernel, simplified: loops of one step dropped, neighbours merged
//! where every operand allows it, rows that are combined innermost.

use ferrata_compiler::kernel::{Access, Instruction, Loop, Store};
use ferrata_ir::{Error, Result, Scalar};

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

/// The same kernel with rows and columns exchanged, if its columns lie across memory and all that
/// becomes of reductions along them is stored: they turn into combined rows.
pub(crate) fn turned(kernel: &Loop) -> Option<Loop> {
    let split = kernel.rows.len();
    let reduces = |r: usize| match kernel.body[r] {
        Instruction::ReduceColumns { kind, arg, .. } => Some((kind, arg)),
        _ => None,
    };
    let mut used = kernel.body.iter().flat_map(Instruction::args).copied();
    let inner = |sizes: &[usize], strides: &[isize]| {
        let varying = sizes.iter().zip(strides).rev().find(|s| *s.0 > 1);
        varying.map_or(0, |s| s.1.unsigned_abs())
    };
    let both = |a: &Access| {
        let (rows, columns) = a.strides.split_at(split);
        (inner(&kernel.rows, rows), inner(&kernel.columns, columns))
    };
    let accesses = || kernel.loads.iter().chain(kernel.stores.iter().map(|s| &s.access));
    let across = |which: fn((usize, usize)) -> bool| -> usize {
        accesses().filter(|a| which(both(a))).map(|a| a.dtype.size()).sum()
    };
    let gains = across(|(r, c)| r == 1 && c > 1) > across(|(r, c)| c == 1 && r > 1);
    let whole = |s: &Store| {
        // A reduction is stored once for all columns, anything else for each.
        let each = reduces(s.register).is_none();
        let mut columns = kernel.columns.iter().zip(&s.access.strides[split..]);
        s.combine.is_none() && columns.all(|c| *c.0 == 1 || (*c.1 != 0) == each)
    };
    let any = (0..kernel.body.len()).any(|r| reduces(r).is_some());
    if !any || !gains || used.any(|r| reduces(r).is_some()) || !kernel.stores.iter().all(whole) {
        return None;
    }
    let turn = |a: &Access| {
        let mut a = a.clone();
        a.strides.rotate_left(split);
        a
    };
    let body = kernel.body.iter().map(|i| match i {
        // Nothing uses it any more.
        Instruction::ReduceColumns { dtype, .. } => {
            Instruction::Constant { dtype: *dtype, value: Scalar::Int(0) }
        }
        &Instruction::Index { dim, dtype } => {
            let dim = if dim < split { dim + kernel.columns.len() } else { dim - split };
            Instruction::Index { dim, dtype }
        }
        other => other.clone(),
    });
    let stores = kernel.stores.iter().map(|s| match reduces(s.register) {
        Some((kind, register)) => Store { register, access: turn(&s.access), combine: Some(kind) },
        None => Store { access: turn(&s.access), ..s.clone() },
    });
    Some(Loop {
        rows: kernel.columns.clone(),
        columns: kernel.rows.clone(),
        loads: kernel.loads.iter().map(turn).collect(),
        body: body.collect(),
        stores: stores.collect(),
    })
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
