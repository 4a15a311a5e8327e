//! When sums over ranks are made: as soon as what they sum is known, small ones together.

use crate::error::{Error, Result};
use crate::primitive::Primitive;
use crate::program::{Builder, Function, Node, Value};
use std::collections::HashMap;

/// Larger values, in bytes, are combined alone: sending them takes longer than agreeing to.
const SMALL: usize = 64 << 10;

/// A value that is combined over ranks. Its place is given in nodes of the whole program, so that
/// all ranks see the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combined {
    /// The result.
    pub value: Value,
    /// Behind how many nodes the operand is known.
    pub known: usize,
    /// The node that wants the result.
    pub wanted: usize,
}

/// Combines small values together that can be combined at the same time: one by one, ranks would
/// wait for each other every time. `all` is in the order in which results are wanted.
pub(super) fn together(function: Function, all: &[Combined]) -> Result<Function> {
    let mut makers = vec![None; function.value_count()];
    for (at, node) in function.nodes.iter().enumerate() {
        node.outputs.iter().for_each(|v| makers[v.index()] = Some(at));
    }
    let mut bundles: Vec<(Combined, Vec<&Node>)> = Vec::new();
    let mut open: HashMap<_, usize> = HashMap::new();
    for value in all {
        let Some(node) = makers[value.value.index()].map(|at| &function.nodes[at]) else {
            continue;
        };
        let (Primitive::AllReduce(op), ty) = (&node.op, function.ty(value.value)) else { continue };
        if ty.bytes() > SMALL {
            continue;
        }
        let last = open.entry((op, ty.dtype)).or_insert(usize::MAX);
        match bundles.get_mut(*last) {
            Some((first, members)) if value.known <= first.wanted => members.push(node),
            _ => {
                *last = bundles.len();
                bundles.push((*value, vec![node]));
            }
        }
    }
    bundles.retain(|(_, members)| members.len() > 1);
    if bundles.is_empty() {
        return Ok(function);
    }
    // Behind how many nodes all that a bundle combines is there.
    let ready = |members: &[&Node]| {
        let makers = members.iter().filter_map(|node| makers[node.inputs[0].index()]);
        makers.map(|at| at + 1).max().unwrap_or(0)
    };
    let mut b = Builder::new(function.name.clone());
    let mut map: Vec<Option<Value>> = vec![None; function.value_count()];
    for &p in &function.parameters {
        map[p.index()] = Some(b.parameter(function.ty(p).clone()));
    }
    let get = |map: &[Option<Value>], v: Value| {
        map[v.index()].ok_or_else(|| Error::new("a value is used before it is defined"))
    };
    let ready: Vec<usize> = bundles.iter().map(|(_, members)| ready(members)).collect();
    // The bundle that a value is in, and where it begins there.
    let mut parts: HashMap<Value, (Value, usize)> = HashMap::new();
    for at in 0..=function.nodes.len() {
        let now = bundles.iter().zip(&ready).filter(|(_, ready)| **ready == at);
        for ((_, members), _) in now {
            let Primitive::AllReduce(op) = &members[0].op else { continue };
            b.set_origin(members[0].origin.clone());
            let mut flat = Vec::new();
            for node in members {
                let v = get(&map, node.inputs[0])?;
                flat.push(b.reshape(v, &[function.ty(node.outputs[0]).elements()]));
            }
            let joined = b.concatenate(&flat, 0);
            let combined = b.emit1(op.clone(), &[joined]);
            let mut start = 0;
            for node in members {
                parts.insert(node.outputs[0], (combined, start));
                start += function.ty(node.outputs[0]).elements();
            }
        }
        let Some(node) = function.nodes.get(at) else { continue };
        b.set_origin(node.origin.clone());
        // Cut out only where it is wanted, or ranks would wait for it before.
        if let Some(&(combined, start)) = node.outputs.first().and_then(|v| parts.get(v)) {
            let ty = function.ty(node.outputs[0]);
            let part = b.slice_dim(combined, 0, start, start + ty.elements());
            map[node.outputs[0].index()] = Some(b.reshape(part, &ty.shape));
            continue;
        }
        let inputs = node.inputs.iter().map(|&v| get(&map, v)).collect::<Result<Vec<_>>>()?;
        let results = b.emit(node.op.clone(), &inputs);
        node.outputs.iter().zip(results).for_each(|(o, r)| map[o.index()] = Some(r));
    }
    let results = function.results.iter().map(|&v| get(&map, v)).collect::<Result<Vec<_>>>()?;
    b.finish(&results)
}

/// Moves sums over ranks to where what they sum is known, so that they can go on while the rank
/// computes further. Ranks of a group differ only in zeros that stand for partial sums, which are
/// never what is summed, so they still agree on an order.
pub(super) fn early(function: &mut Function) {
    // Where values are known: behind the parameters, or behind a node.
    let mut known: HashMap<Value, usize> = HashMap::new();
    let mut order = Vec::with_capacity(function.nodes.len());
    for (i, node) in function.nodes.iter().enumerate() {
        let (place, moved) = match node.op {
            Primitive::AllReduce(_) | Primitive::ReduceScatter(_) => {
                (known.get(&node.inputs[0]).copied().unwrap_or(0), true)
            }
            _ => (i + 1, false),
        };
        known.extend(node.outputs.iter().map(|&v| (v, place)));
        order.push((place, moved, i));
    }
    order.sort_unstable();
    let nodes = std::mem::take(&mut function.nodes).into_iter();
    let mut nodes: Vec<Option<Node>> = nodes.map(Some).collect();
    function.nodes = order.into_iter().filter_map(|(.., i)| nodes[i].take()).collect();
}
