//! Concatenations are mostly free: what is made for nothing else is made in its place.

use super::{Lowering, Operands, copy_loop};
use crate::body::{Body, Id, Kind, Op};
use crate::fuse::Group;
use crate::kernel::Kernel;
use crate::nest::Nest;
use crate::strided::{Map, Strided, row_major};
use ferrata_ir::{Error, Result};
use std::collections::HashMap;

/// Where a value stands in a larger one.
pub struct Part {
    /// The larger value.
    pub whole: Id,
    /// Its window on the larger one, with dimensions in the order of the part's elements.
    pub window: Strided,
}

/// Values that only a concatenation uses, as a whole, and that a kernel with strides makes: a
/// loop nest, a product or a composite.
pub fn parts_of_containers(body: &Body, groups: &[Group]) -> HashMap<Id, Part> {
    let mut nests: Vec<Option<&Nest>> = vec![None; body.values.len()];
    for group in groups {
        if let Group::Nest(nest) | Group::Product { nest, .. } = group {
            nest.outputs.iter().for_each(|o| nests[o.value] = Some(nest));
        }
    }
    let mut uses = vec![0; body.values.len()];
    body.results.iter().for_each(|&r| uses[r] += 1);
    for op in &body.ops {
        op.inputs.iter().for_each(|x| uses[x.value] += 1);
    }
    let mut parts = HashMap::new();
    for op in body.ops.iter().filter(|op| op.outputs.len() == 1) {
        let windows = windows(body, op);
        for (x, window) in op.inputs.iter().zip(windows) {
            let elements = body.values[x.value].ty.elements();
            let fits = |window: &Strided| match nests[x.value] {
                Some(nest) => reaches(nest, x.value, window),
                None => body.layout(x.value).is_some_and(|l| window.compose(l).is_some()),
            };
            if uses[x.value] == 1
                && let Some(window) = x.window.in_order(elements, &window)
                && fits(&window)
            {
                parts.insert(x.value, Part { whole: op.outputs[0], window });
            }
        }
    }
    parts
}

/// Whether the loops of a nest, split where needed, can store a value through a window.
fn reaches(nest: &Nest, value: Id, window: &Strided) -> bool {
    let Some(i) = nest.outputs.iter().position(|o| o.value == value) else { return false };
    let mut nest = nest.clone();
    nest.splitting(|n| n.outputs[i].map.indices(&n.loops, &window.shape)).is_ok()
}

/// For each operand of a concatenation its window on the result; none for other operations.
fn windows(body: &Body, op: &Op) -> Vec<Strided> {
    let Kind::Concatenate(dim) = op.kind else { return Vec::new() };
    let strides = row_major(&body.values[op.outputs[0]].ty.shape);
    let mut start = 0;
    op.inputs
        .iter()
        .map(|x| {
            let shape = x.window.shape.clone();
            let offset = start * strides[dim];
            start += shape[dim] as isize;
            Strided { offset, shape, strides: strides.clone() }
        })
        .collect()
}

pub(super) fn no_place() -> Error {
    Error::new("a part without a place in the whole")
}

impl Lowering<'_> {
    /// Turns the maps of outputs that are parts into maps of the whole.
    pub(super) fn place_parts(&self, nest: &mut Nest) -> Result<()> {
        for i in 0..nest.outputs.len() {
            let Some(part) = self.parts.get(&nest.outputs[i].value) else { continue };
            let placed = nest.splitting(|nest| {
                let indices = nest.outputs[i].map.indices(&nest.loops, &part.window.shape)?;
                Ok(Map::compose(&part.window, &indices, nest.loops.len()))
            });
            nest.outputs[i].map = placed.map_err(|_| no_place())?;
        }
        Ok(())
    }

    /// Copies the operands that are not in their place yet.
    pub(super) fn concatenate(&mut self, op: &Op) -> Result<()> {
        let whole = op.outputs[0];
        if self.sources[whole].is_none() {
            self.allocate(whole);
        }
        for (x, window) in op.inputs.iter().zip(windows(self.body, op)) {
            let empty = window.shape.contains(&0);
            if empty || self.parts.get(&x.value).is_some_and(|p| p.whole == whole) {
                continue;
            }
            let mut operands = Operands::default();
            let from = self.view(x, &mut operands)?;
            let to = operands.store(self.source(whole)?);
            let strides = [window.strides.clone(), from.strides.clone()];
            let offsets = [window.offset as usize, from.offset];
            let numbers = [to, from.operand];
            let kernel = copy_loop(&window.shape, strides, offsets, numbers, from.dtype);
            self.run(Kernel::Loop(kernel), operands, &op.origin);
        }
        Ok(())
    }
}
