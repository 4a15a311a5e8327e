//! A kernel becomes launches of programs, with memory between them.

use super::{Launch, columns, contract, index, loops, plan};
use crate::target::Target;
use ferrata_compiler::kernel::{Access, Instruction, Loop, Store, View};
use ferrata_compiler::{Kernel, row_major};
use ferrata_ir::primitive::Primitive;
use ferrata_ir::{DType, Error, Result};

/// What a kernel has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// Programs, in order.
    pub launches: Vec<Launch>,
    /// Memory between them: bytes of each piece. Their operands come behind those of the kernel.
    pub workspaces: Vec<usize>,
}

/// Programs for a kernel. Each time that the vendor's compiler finds a tile too large for the
/// unified buffer, `halvings` is raised by one.
///
/// # Errors
/// For operations and dtypes that the cores do not compute with.
pub fn lower(kernel: &Kernel, target: &Target, halvings: u32) -> Result<Lowered> {
    let views = kernel.reads().into_iter().chain(kernel.writes());
    let operands = views.map(|v| v.operand + 1).max().unwrap_or(0);
    let mut lowering = Lowering {
        target,
        halvings,
        operands,
        lowered: Lowered { launches: Vec::new(), workspaces: Vec::new() },
    };
    match kernel {
        Kernel::Loop(nest) => lowering.nest(nest)?,
        Kernel::Contract(c) => contract::lower(c, &mut lowering)?,
        Kernel::Primitive { op: Primitive::Gather(op), inputs, outputs } => {
            index::gather(op, inputs, outputs, &mut lowering)?;
        }
        Kernel::Primitive { op: Primitive::Scatter(op), inputs, outputs } => {
            index::scatter(op, inputs, outputs, &mut lowering)?;
        }
        Kernel::Primitive { op, .. } => {
            return Err(Error::new(format!("the cores have no kernel for {}", op.name())));
        }
        Kernel::Composite { composite, .. } => {
            return Err(Error::new(format!("`{}` was never claimed", composite.name)));
        }
    }
    Ok(lowering.lowered)
}

/// Whether a nest computes more than single numbers in f64, or leaves such a number in memory.
fn varies_in_f64(nest: &Loop) -> bool {
    let moves = |a: &Access| a.strides.iter().any(|&s| s != 0);
    let wide = |d: DType| d == DType::F64;
    let mut varies: Vec<bool> = Vec::new();
    let mut found = nest.stores.iter().any(|s| wide(s.access.dtype));
    for x in &nest.body {
        let (is, dtype) = match x {
            Instruction::Load(i) => (moves(&nest.loads[*i]), nest.loads[*i].dtype),
            Instruction::Product => (true, DType::F32),
            Instruction::Constant { dtype, .. } => (false, *dtype),
            Instruction::Index { dtype, .. } => (true, *dtype),
            Instruction::Apply { dtype, args, .. } => (args.iter().any(|&a| varies[a]), *dtype),
            Instruction::Cast { to, arg, .. } => (varies[*arg], *to),
            Instruction::ReduceColumns { dtype, .. } => (true, *dtype),
        };
        found |= is && wide(dtype);
        varies.push(is);
    }
    found
}

/// Launches under construction.
pub(crate) struct Lowering<'a> {
    pub target: &'a Target,
    halvings: u32,
    operands: usize,
    lowered: Lowered,
}

impl Lowering<'_> {
    /// The operand of a new piece of memory.
    fn allocate(&mut self, bytes: usize) -> usize {
        self.lowered.workspaces.push(bytes);
        self.operands + self.lowered.workspaces.len() - 1
    }

    /// A new piece of memory for so many elements, row-major.
    pub fn dense(&mut self, dtype: DType, counts: &[usize]) -> Access {
        let operand = self.allocate(counts.iter().product::<usize>() * dtype.size());
        Access { operand, dtype, offset: 0, strides: row_major(counts) }
    }

    /// Appends a launch.
    pub fn launch(&mut self, launch: Launch) {
        self.lowered.launches.push(launch);
    }

    /// Appends the launches of a loop nest.
    ///
    /// # Errors
    /// For operations and dtypes that the cores do not compute with.
    pub fn nest(&mut self, nest: &Loop) -> Result<()> {
        if varies_in_f64(nest) {
            let error = Error::new("the cores compute with single numbers of f64 only");
            return Err(error.help("cast to f32"));
        }
        let nest = coalesced(nest);
        let reduces = |x: &Instruction| matches!(x, Instruction::ReduceColumns { .. });
        let nests = if nest.body.iter().any(reduces)
            && !plan::row_fits(&nest, self.target, self.halvings)
        {
            columns::split(&nest, &mut |bytes| self.allocate(bytes))
        } else {
            vec![nest]
        };
        let rows = |nest: &Loop| nest.body.iter().any(reduces);
        for nest in nests.iter().flat_map(|nest| alike(nest, rows(nest))) {
            let row = rows(&nest);
            let tiles = plan::tiles(&nest, self.target, self.halvings, row);
            let launch = loops::emit(&nest, &tiles, self.target.vector_cores)?;
            self.launch(launch);
        }
        Ok(())
    }

    /// A dense copy of an operand in memory between launches, with the strides of the copy.
    ///
    /// # Errors
    /// For dtypes that the cores do not compute with.
    pub fn packed(&mut self, access: &Access, counts: &[usize]) -> Result<Access> {
        let dense = self.dense(access.dtype, counts);
        self.copy(counts, access.clone(), dense.clone())?;
        Ok(dense)
    }

    /// Copies elements.
    ///
    /// # Errors
    /// For dtypes that the cores do not compute with.
    pub fn copy(&mut self, counts: &[usize], from: Access, to: Access) -> Result<()> {
        self.nest(&Loop {
            rows: counts.to_vec(),
            columns: Vec::new(),
            loads: vec![from],
            body: vec![Instruction::Load(0)],
            stores: vec![Store { register: 0, access: to, combine: None }],
        })
    }
}

/// How a kernel steps through a view.
pub(crate) fn access(view: &View) -> Access {
    Access {
        operand: view.operand,
        dtype: view.dtype,
        offset: view.offset,
        strides: view.strides.clone(),
    }
}

/// Stores that combine over the same loops share a nest, and so do those that are written once along
/// the same loops, which their nest then lacks. What only stores comes last: it may overwrite what
/// the others read. With `row`, columns stay together and are no such loops.
fn alike(nest: &Loop, row: bool) -> Vec<Loop> {
    let key = |s: usize| {
        let store = &nest.stores[s];
        let combines = store.combine.is_some();
        let still = |(l, &stride): (usize, &isize)| l >= nest.rows.len() && stride == 0 && !row;
        let once: Vec<bool> = store.access.strides.iter().enumerate().map(still).collect();
        let combined = plan::combined(nest, s);
        let once: Vec<bool> = once.iter().zip(&combined).map(|(o, c)| *o && !c).collect();
        // What only stores joins whatever combines, if that is one kind.
        (!combines, combined, once)
    };
    let mut keys: Vec<_> = (0..nest.stores.len()).map(key).collect();
    let mut sums = keys.iter().filter(|k| !k.0).cloned().collect::<Vec<_>>();
    sums.dedup();
    if let [sum] = &sums[..] {
        for key in keys.iter_mut().filter(|k| k.0 && k.2 == sum.2) {
            *key = sum.clone();
        }
    }
    let mut kinds = keys.clone();
    kinds.sort();
    kinds.dedup();
    let part = |kind| {
        let stores = (0..nest.stores.len()).filter(|&s| keys[s] == kind);
        let stores = stores.map(|s| nest.stores[s].clone()).collect();
        let mut part = columns::needed(&Loop { stores, ..nest.clone() });
        let counts = part.rows.iter_mut().chain(&mut part.columns);
        counts.zip(&kind.2).filter(|(_, once)| **once).for_each(|(n, _)| *n = 1);
        part
    };
    kinds.into_iter().map(part).collect()
}

/// The nest with neighbouring loops made one wherever every access steps evenly through both.
fn coalesced(nest: &Loop) -> Loop {
    let mut nest = nest.clone();
    let mut l = 0;
    while l + 1 < nest.rows.len() + nest.columns.len() {
        let rows = nest.rows.len();
        let counts = [&nest.rows[..], &nest.columns].concat();
        let (outer, inner) = (counts[l], counts[l + 1]);
        let even = |a: &Access| a.strides[l] == a.strides[l + 1] * inner as isize;
        let used = |x: &Instruction| matches!(x, Instruction::Index { dim, .. } if [l, l + 1].contains(dim));
        let drop = outer == 1 || inner == 1;
        let mut accesses = nest.loads.iter().chain(nest.stores.iter().map(|s| &s.access));
        let merges = l + 1 != rows && !nest.body.iter().any(used) && (drop || accesses.all(even));
        if !merges {
            l += 1;
            continue;
        }
        // Of two loops, one of which takes one step, the other one's strides count.
        let gone = if drop && inner == 1 { l + 1 } else { l };
        let stores = nest.stores.iter_mut().map(|s| &mut s.access);
        nest.loads.iter_mut().chain(stores).for_each(|a| {
            a.strides.remove(gone);
        });
        for x in &mut nest.body {
            if let Instruction::Index { dim, .. } = x
                && *dim > l
            {
                *dim -= 1;
            }
        }
        let group = if l < rows { &mut nest.rows } else { &mut nest.columns };
        let at = if l < rows { l } else { l - rows };
        group[at] = outer * inner;
        group.remove(at + 1);
    }
    nest
}
