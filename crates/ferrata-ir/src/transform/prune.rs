//! Removal of nodes that nobody uses.

use crate::program::Function;

/// Drops nodes whose results are not needed and that have no effect.
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
}
