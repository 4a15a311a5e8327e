//! Replacing the functions that a primitive holds, and those of a whole program.

use ferrata_ir::primitive::{Call, Cond, Scan};
use ferrata_ir::{Error, Function, Primitive, Result};
use std::collections::HashMap;
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

/// The functions that have been rebuilt, by the old ones.
#[derive(Default)]
pub struct Rebuilt(HashMap<*const Function, Arc<Function>>);

impl Rebuilt {
    /// The same primitive, holding the new functions.
    pub fn primitive(&self, op: &Primitive) -> Primitive {
        with_callees(op, |f| self.0.get(&Arc::as_ptr(f)).unwrap_or(f).clone())
    }
}

/// The program with every function made anew by `rebuild`, callees first.
///
/// # Errors
/// The first that `rebuild` gives.
pub fn rebuild_functions(
    program: &Arc<Function>,
    rebuild: impl Fn(&Function, &Rebuilt) -> Result<Function>,
) -> Result<Arc<Function>> {
    let mut done = Rebuilt::default();
    let mut failed = None;
    program.visit(&mut |f| match rebuild(f, &done) {
        Ok(new) => {
            done.0.insert(Arc::as_ptr(f), Arc::new(new));
        }
        Err(e) => failed = Some(failed.take().unwrap_or(e)),
    });
    let new = done.0.remove(&Arc::as_ptr(program));
    match failed {
        Some(e) => Err(e),
        None => new.ok_or_else(|| Error::new("the program was not visited")),
    }
}
