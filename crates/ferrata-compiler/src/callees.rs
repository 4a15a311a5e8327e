//! Replacing the functions that a primitive holds.

use ferrata_ir::primitive::{Call, Cond, Scan};
use ferrata_ir::{Function, Primitive};
use std::sync::Arc;

/// The same primitive, holding `new` of each of its functions.
pub fn with_callees(op: &Primitive, new: impl Fn(&Arc<Function>) -> Arc<Function>) -> Primitive {
    match op {
        Primitive::Call(c) => Call { function: new(&c.function), ..c.clone() }.into(),
        Primitive::Scan(s) => Scan { body: new(&s.body), ..s.clone() }.into(),
        Primitive::Cond(c) => Cond { branches: [new(&c.branches[0]), new(&c.branches[1])] }.into(),
        other => other.clone(),
    }
}
