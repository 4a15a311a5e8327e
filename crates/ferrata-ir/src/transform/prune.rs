//! Removal of nodes that nobody uses.

use crate::program::{Function, Value};

/// Drops nodes whose results are not needed and that have no effect. The values that stay are
/// numbered anew, in the same order and without holes.
pub fn prune(function: &mut Function) {
    let mut live = vec![false; function.types.len()];
    for v in &function.results {
        live[v.index()] = true;
    }
    let mut keep: Vec<bool> = function
        .nodes
        .iter()
        .rev()
        .map(|node| {
            let needed = node.outputs.iter().any(|v| live[v.index()]) || node.op.has_effect();
            if needed {
                node.inputs.iter().for_each(|v| live[v.index()] = true);
            }
            needed
        })
        .collect();
    function.nodes.retain(|_| keep.pop().unwrap_or(true));
    renumber(function);
}

fn renumber(function: &mut Function) {
    let mut defined = vec![false; function.types.len()];
    let outputs = function.nodes.iter().flat_map(|n| &n.outputs);
    for v in function.parameters.iter().chain(outputs) {
        defined[v.index()] = true;
    }
    let mut next = 0;
    let numbers: Vec<u32> = defined
        .iter()
        .map(|&d| {
            next += u32::from(d);
            next.saturating_sub(1)
        })
        .collect();
    let renumber = |values: &mut Vec<Value>| {
        values.iter_mut().for_each(|v| *v = Value(numbers[v.index()]));
    };
    renumber(&mut function.parameters);
    renumber(&mut function.results);
    for node in &mut function.nodes {
        renumber(&mut node.inputs);
        renumber(&mut node.outputs);
    }
    let mut defined = defined.into_iter();
    function.types.retain(|_| defined.next().unwrap_or(false));
}
