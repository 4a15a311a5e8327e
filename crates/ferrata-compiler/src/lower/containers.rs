//! Concatenations and paddings are mostly free: what goes into a larger value is made in its
//! place, and read there.

use super::instructions::compute;
use super::{Lowering, Operands, copy_loop};
use crate::body::{Body, Id, Kind, Op, Operand, Scalarly};
use crate::fuse::Group;
use crate::kernel::{Access, Instruction, Kernel, Loop, Store};
use crate::nest::Nest;
use crate::strided::{Map, Refusal, Strided, coalesce, row_major};
use ferrata_ir::primitive::Pad;
use ferrata_ir::{Error, Primitive, Result, Scalar};
use std::collections::HashMap;

/// Where a value stands in a larger one.
pub struct Part {
    /// The larger value.
    pub whole: Id,
    /// Its window on the larger one, with dimensions in the order of the part's elements.
    pub window: Strided,
}

/// A map of a nest into a part with this window, as a map into the whole; loops are split where
/// needed.
fn through(window: &Strided, nest: &mut Nest, map: impl Fn(&Nest) -> &Map) -> Result<Map, Refusal> {
    nest.splitting(|nest| {
        let indices = map(nest).indices(&nest.loops, &window.shape)?;
        Ok(Map::compose(window, &indices, nest.loops.len()))
    })
}

/// Values that become parts of others, which kernels with strides make (a loop nest, a product or
/// a composite) and whose other readers can find them there.
pub fn parts_of_containers(body: &Body, groups: &[Group]) -> HashMap<Id, Part> {
    let mut nests: Vec<Option<&Nest>> = vec![None; body.values.len()];
    let mut readers: Vec<Vec<&Group>> = vec![Vec::new(); body.values.len()];
    for group in groups {
        if let Group::Nest(nest) | Group::Product { nest, .. } = group {
            nest.outputs.iter().for_each(|o| nests[o.value] = Some(nest));
            nest.demands.keys().for_each(|&v| readers[v].push(group));
        }
        if let Group::Single(op) | Group::Product { op, .. } = group {
            body.ops[*op].inputs.iter().for_each(|x| readers[x.value].push(group));
        }
    }
    let mut parts = HashMap::new();
    for (at, op) in body.ops.iter().enumerate() {
        let Some(container) = Container::of(body, op) else { continue };
        for (x, window) in op.inputs.iter().zip(container.windows(body, op)) {
            let value = x.value;
            let elements = body.values[value].ty.elements();
            let Some(window) = x.window.in_order(elements, &window) else { continue };
            let fits = match nests[value] {
                Some(nest) => {
                    let stored = |i: &usize| nest.outputs[*i].value == value;
                    (0..nest.outputs.len())
                        .filter(stored)
                        .all(|i| through(&window, &mut nest.clone(), |n| &n.outputs[i].map).is_ok())
                }
                None => body.layout(value).is_some_and(|l| window.compose(l).is_some()),
            };
            // Twice in one container it has two places.
            let once = op.inputs.iter().filter(|y| y.value == value).count() == 1;
            let found = |group: &&Group| is_found(body, group, at, value, &window);
            if fits
                && once
                && !parts.contains_key(&value)
                && !body.results.contains(&value)
                && readers[value].iter().all(found)
            {
                parts.insert(value, Part { whole: op.outputs[0], window });
            }
        }
    }
    parts
}

/// Whether a group that reads a value can read it through a window; `container` does not read it.
fn is_found(body: &Body, group: &Group, container: usize, value: Id, window: &Strided) -> bool {
    if let Group::Single(at) | Group::Product { op: at, .. } = group
        && *at != container
    {
        let op = &body.ops[*at];
        let mut uses = op.inputs.iter().filter(|x| x.value == value).peekable();
        // Called functions take dense arguments.
        let called = uses.peek().is_some() && !op.kind.callees().is_empty();
        if called || !uses.all(|x| window.compose(&x.window).is_some()) {
            return false;
        }
    }
    let (Group::Nest(nest) | Group::Product { nest, .. }) = group else { return true };
    let wanted = nest.demands.get(&value).map_or(0, Vec::len);
    (0..wanted).all(|i| through(window, &mut nest.clone(), |n| &n.demands[&value][i]).is_ok())
}

/// A value that holds others.
pub enum Container<'a> {
    /// Side by side along a dimension.
    Concatenation(usize),
    /// One, with copies of a number around it.
    Padding(&'a Pad, Scalar),
}

impl<'a> Container<'a> {
    /// The container that an operation makes.
    pub fn of(body: &Body, op: &'a Op) -> Option<Self> {
        match &op.kind {
            Kind::Concatenate(dim) => Some(Container::Concatenation(*dim)),
            Kind::Primitive(Primitive::Pad(pad)) => {
                let Kind::Map(Scalarly::Constant(fill)) = body.maker(op.inputs[1].value)?.kind
                else {
                    return None;
                };
                let around = pad.low.iter().chain(&pad.high).all(|&n| n >= 0)
                    && pad.interior.iter().all(|&n| n == 0);
                around.then_some(Container::Padding(pad, fill))
            }
            _ => None,
        }
    }

    /// For each value inside its window on the container.
    fn windows(&self, body: &Body, op: &Op) -> Vec<Strided> {
        let strides = row_major(&body.values[op.outputs[0]].ty.shape);
        let window = |offset: isize, shape: &[usize]| Strided {
            offset,
            shape: shape.to_vec(),
            strides: strides.clone(),
        };
        match self {
            Container::Concatenation(dim) => {
                let mut start = 0;
                let one = |x: &Operand| {
                    let offset = start * strides[*dim];
                    start += x.window.shape[*dim] as isize;
                    window(offset, &x.window.shape)
                };
                op.inputs.iter().map(one).collect()
            }
            Container::Padding(pad, _) => {
                let before = pad.low.iter().zip(&strides).map(|(&n, s)| n as isize * s).sum();
                vec![window(before, &op.inputs[0].window.shape)]
            }
        }
    }
}

pub(super) fn no_place() -> Error {
    Error::new("a part without a place in the whole")
}

impl Lowering<'_> {
    /// Turns the maps of outputs and operands that are parts into maps of the whole; `made` is not
    /// read from memory.
    pub(super) fn place_parts(&self, nest: &mut Nest, made: Option<Id>) -> Result<()> {
        for i in 0..nest.outputs.len() {
            let Some(part) = self.parts.get(&nest.outputs[i].value) else { continue };
            nest.outputs[i].map =
                through(&part.window, nest, |nest| &nest.outputs[i].map).map_err(|_| no_place())?;
        }
        let wanted: Vec<Id> =
            nest.demands.keys().copied().filter(|v| self.parts.contains_key(v)).collect();
        let wanted = wanted.into_iter().filter(|&v| Some(v) != made);
        for value in wanted {
            let part = &self.parts[&value];
            for i in 0..nest.demands[&value].len() {
                let placed = through(&part.window, nest, |nest| &nest.demands[&value][i])
                    .map_err(|_| no_place())?;
                let map = nest.demands[&value][i].clone();
                nest.demand(part.whole, placed.clone());
                nest.aliases.push(((value, map), (part.whole, placed)));
            }
            nest.demands.remove(&value);
        }
        Ok(())
    }

    /// The window of an operand on what really is in memory.
    pub(super) fn placed(&self, value: Id, window: &Strided) -> Result<Strided> {
        match self.parts.get(&value) {
            Some(part) => part.window.compose(window).ok_or_else(no_place),
            None => Ok(window.clone()),
        }
    }

    /// Copies the values that are not in their place yet, and fills what is around them.
    pub(super) fn container(&mut self, op: &Op, container: &Container) -> Result<()> {
        let whole = op.outputs[0];
        if self.sources[whole].is_none() {
            self.allocate(whole);
        }
        for (x, window) in op.inputs.iter().zip(container.windows(self.body, op)) {
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
        if let Container::Padding(pad, fill) = container {
            self.fill_around(op, pad, *fill)?;
        }
        Ok(())
    }

    /// Writes a padding: for each dimension what is before and behind the inner value, of what
    /// earlier dimensions have inside.
    fn fill_around(&mut self, op: &Op, pad: &Pad, fill: Scalar) -> Result<()> {
        let whole = op.outputs[0];
        let (shape, dtype) = (&self.body.values[whole].ty.shape, self.body.dtype(whole));
        let inner = &op.inputs[0].window.shape;
        let strides = row_major(shape);
        for d in 0..shape.len() {
            let behind = pad.low[d] as usize + inner[d];
            for (start, count) in [(0, pad.low[d] as usize), (behind, pad.high[d] as usize)] {
                let mut columns = [&inner[..d], &[count], &shape[d + 1..]].concat();
                if columns.contains(&0) {
                    continue;
                }
                let before = |e: usize| pad.low[e] as usize * strides[e] as usize;
                let offset = (0..d).map(before).sum::<usize>() + start * strides[d] as usize;
                let mut steps = [strides.clone()];
                coalesce(&mut columns, &mut steps, |_, _| true);
                let [strides] = steps;
                let rows = columns.drain(..columns.len().saturating_sub(1)).collect();
                let mut operands = Operands::default();
                let operand = operands.store(self.source(whole)?);
                let computed = compute(dtype);
                let access = Access { operand, dtype, offset, strides };
                let kernel = Loop {
                    rows,
                    columns,
                    loads: vec![],
                    body: vec![Instruction::Constant { dtype: computed, value: fill }],
                    stores: vec![Store { register: 0, access, combine: None }],
                };
                self.run(Kernel::Loop(kernel), operands, &op.origin);
            }
        }
        Ok(())
    }
}
