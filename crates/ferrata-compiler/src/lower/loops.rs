//! A nest becomes a [`Loop`]: loops are divided into rows and columns and merged where all
//! accesses allow it, and the members become instructions.

use super::access;
use super::instructions::Emitter;
use crate::body::{Body, Id};
use crate::kernel::{Instruction, Loop, Store};
use crate::nest::Nest;
use crate::strided::{Map, coalesce};

/// A loop kernel whose accesses have no operand numbers yet.
pub struct Lowered {
    /// The kernel; its stores are in the order of the nest's outputs.
    pub kernel: Loop,
    /// The value that each load reads.
    pub loads: Vec<Id>,
}

/// A total reduction is cut into rows of at most this many elements.
const ROW_OF_TOTAL: usize = 4096;
/// Columns below this number are joined by the next loop outwards.
const FEW_COLUMNS: usize = 32;

/// The kernel of a nest.
pub fn lower(body: &Body, nest: &Nest) -> Lowered {
    let mut nest = nest.clone();
    merge_loops(body, &mut nest);
    if nest.columns.is_none() {
        choose_columns(&mut nest);
    }
    columns_last(&mut nest);
    let is_column = nest.columns.clone().unwrap_or_default();
    let first_column = is_column.iter().position(|c| *c).unwrap_or(is_column.len());

    let mut emitter = Emitter::new(body);
    let mut loads = Vec::new();
    let mut accesses = Vec::new();
    for (&id, maps) in &nest.demands {
        for map in maps {
            emitter.define(id, map.clone(), Instruction::Load(accesses.len()));
            accesses.push(access(body, id, map.clone()));
            loads.push(id);
        }
    }
    emitter.aliases(&nest.aliases);
    emitter.members(&nest.members);
    let mut stores: Vec<Store> = Vec::new();
    for output in &nest.outputs {
        let mut register = emitter.register(output.source.0, &output.source.1);
        let mut combine = None;
        if let Some(kind) = output.kind {
            let over = |from: usize, to: usize| output.reduced[from..to].contains(&true);
            if over(first_column, nest.loops.len()) {
                register = emitter.reduce(kind, output.value, register);
            }
            combine = over(0, first_column).then_some(kind);
        }
        let access = access(body, output.value, output.map.clone());
        stores.push(Store { register, access, combine });
    }
    let mut roots: Vec<_> = stores.iter().map(|s| s.register).collect();
    let instructions = emitter.finish(&mut roots);
    stores.iter_mut().zip(roots).for_each(|(s, r)| s.register = r);
    let kernel = Loop {
        rows: nest.loops[..first_column].to_vec(),
        columns: nest.loops[first_column..].to_vec(),
        loads: accesses,
        body: instructions,
        stores,
    };
    Lowered { kernel, loads }
}

/// Merges neighbouring loops that nothing tells apart.
fn merge_loops(body: &Body, nest: &mut Nest) {
    let mut accesses: Vec<Vec<isize>> =
        nest.maps_of_memory(body).map(|m| m.strides.clone()).collect();
    let (columns, outputs) = (&nest.columns, &nest.outputs);
    let may = |i: usize, j: usize| {
        columns.as_ref().is_none_or(|c| c[i] == c[j])
            && outputs.iter().all(|o| o.reduced[i] == o.reduced[j])
    };
    let mut loops = nest.loops.clone();
    let kept = coalesce(&mut loops, &mut accesses, may);
    nest.select_loops(&kept, loops);
}

/// Marks the columns of a nest that has no reduction inside: the innermost loop, and more while
/// there are few.
fn choose_columns(nest: &mut Nest) {
    let total = |nest: &Nest| nest.outputs.iter().any(|o| o.reduced.iter().all(|r| *r));
    if let [length] = nest.loops[..]
        && total(nest)
        && length > ROW_OF_TOTAL
        && let Some(inner) = (64..=ROW_OF_TOTAL).rev().find(|d| length % d == 0)
    {
        nest.split(0, inner);
    }
    let mut columns = vec![false; nest.loops.len()];
    let mut count = 1;
    for l in (0..nest.loops.len()).rev() {
        let mut more = columns.clone();
        more[l] = true;
        if count >= FEW_COLUMNS || !nest.outputs.iter().all(|o| o.allows(&more)) {
            break;
        }
        columns = more;
        count *= nest.loops[l];
    }
    nest.columns = Some(columns);
}

/// Reorders the loops so that rows come first.
fn columns_last(nest: &mut Nest) {
    let columns = nest.columns.clone().unwrap_or_default();
    let n = nest.loops.len();
    let order: Vec<usize> =
        (0..n).filter(|&l| !columns[l]).chain((0..n).filter(|&l| columns[l])).collect();
    let loops = order.iter().map(|&l| nest.loops[l]).collect();
    nest.select_loops(&order, loops);
}

impl Nest {
    /// The maps that become accesses, or loop indices in instructions.
    fn maps_of_memory<'a>(&'a self, body: &'a Body) -> impl Iterator<Item = &'a Map> {
        let indices = self
            .members
            .iter()
            .filter(|m| body.ops[m.op].inputs.is_empty())
            .flat_map(|m| &m.inputs);
        let outputs = self.outputs.iter().map(|o| &o.map);
        outputs.chain(self.demands.values().flatten()).chain(indices)
    }
}
