//! The layout of what composites make: a device writes it through any window, so a copy that only
//! brings it into another order is left out, and the composite writes in that order itself.

use crate::body::{Body, Id, Kind, Operand, Scalarly};
use crate::strided::Strided;
use std::sync::Arc;

/// Lets composites write their results in the order in which a copy wants them.
pub fn choose_layouts(body: &mut Body) {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); body.values.len()];
    for (at, op) in body.ops.iter().enumerate() {
        op.inputs.iter().for_each(|x| users[x.value].push(at));
    }
    let mut dropped = vec![false; body.ops.len()];
    for at in 0..body.ops.len() {
        for i in 0..body.ops[at].outputs.len() {
            if let Some(found) = wanted_order(body, at, i, &users) {
                dropped[found.copy] = true;
                follow(body, at, i, found);
            }
        }
    }
    let mut dropped = dropped.into_iter();
    body.ops.retain(|_| !dropped.next().unwrap_or(false));
    for (at, op) in body.ops.iter().enumerate() {
        op.outputs.iter().for_each(|&o| body.values[o].maker = Some(at));
    }
}

/// Another order of a composite's result.
struct Order {
    /// The operation that copies it into that order.
    copy: usize,
    /// Where the result's elements stand in the copy.
    layout: Strided,
    /// The other uses, by operation and operand, with their windows on the copy.
    uses: Vec<(usize, usize, Strided)>,
}

/// The order in which the first copy of result `i` of operation `at` wants it, if all other users
/// can read it in that order, too.
fn wanted_order(body: &Body, at: usize, i: usize, users: &[Vec<usize>]) -> Option<Order> {
    let Kind::Composite { layouts, .. } = &body.ops[at].kind else { return None };
    let made = body.ops[at].outputs[i];
    if body.results.contains(&made) {
        return None;
    }
    let elements = body.values[made].ty.elements();
    let (copy, place) = users[made].iter().find_map(|&user| {
        let op = &body.ops[user];
        if !matches!(op.kind, Kind::Map(Scalarly::Copy)) {
            return None;
        }
        Some((user, op.inputs[0].window.in_order(elements, &Strided::whole(&op.space))?))
    })?;
    let layout = place.compose(&layouts[i])?;
    let mut uses = Vec::new();
    for &user in users[made].iter().filter(|&&u| u != copy) {
        let op = &body.ops[user];
        // Called functions take dense arguments.
        if !op.kind.callees().is_empty() {
            return None;
        }
        for (n, x) in op.inputs.iter().enumerate().filter(|(_, x)| x.value == made) {
            uses.push((user, n, place.compose(&x.window)?));
        }
    }
    Some(Order { copy, layout, uses })
}

/// Makes result `i` of operation `at` the copy.
fn follow(body: &mut Body, at: usize, i: usize, order: Order) {
    let value: Id = body.ops[order.copy].outputs[0];
    body.ops[at].outputs[i] = value;
    if let Kind::Composite { layouts, .. } = &mut body.ops[at].kind {
        layouts[i] = order.layout;
    }
    for (user, n, window) in order.uses {
        body.ops[user].inputs[n] = Operand { value, window: Arc::new(window) };
    }
}
