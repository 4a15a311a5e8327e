//! Results that no caller uses and parameters that no result needs disappear from functions, so
//! that nothing is computed or kept in memory for them.

use crate::callees::with_callees;
use ferrata_ir::primitive::Call;
use ferrata_ir::{Builder, Error, Function, Primitive, Result, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The program with every called function cut down to what its callers use. Bodies of loops and
/// branches keep their form, and so do claimed composites.
///
/// # Errors
/// When a function is ill-typed.
pub fn prune_calls(program: &Arc<Function>) -> Result<Arc<Function>> {
    let mut functions = Vec::new();
    program.visit(&mut |f| functions.push(f.clone()));
    let mut fixed = HashSet::from([Arc::as_ptr(program)]);
    for node in functions.iter().flat_map(|f| f.nodes()).filter(|n| callee(&n.op).is_none()) {
        fixed.extend(node.op.functions().into_iter().map(Arc::as_ptr));
    }
    let mut pruner = Pruner::default();
    for f in &functions {
        let facts = Facts::of(f, &pruner.facts, fixed.contains(&Arc::as_ptr(f)));
        pruner.facts.insert(Arc::as_ptr(f), facts);
    }
    for f in functions.iter().rev() {
        pruner.use_results(f);
    }
    for f in &functions {
        let new = Arc::new(pruner.rebuild(f)?);
        pruner.rebuilt.insert(Arc::as_ptr(f), new);
    }
    let new = pruner.rebuilt.remove(&Arc::as_ptr(program));
    new.ok_or_else(|| Error::new("the program was not visited"))
}

/// What is known of a function.
struct Facts {
    /// Results that some caller uses.
    results: Vec<bool>,
    /// Parameters that they need.
    parameters: Vec<bool>,
}

#[derive(Default)]
struct Pruner {
    facts: HashMap<*const Function, Facts>,
    rebuilt: HashMap<*const Function, Arc<Function>>,
}

/// The function that a plain call runs.
fn callee(op: &Primitive) -> Option<&Arc<Function>> {
    match op {
        Primitive::Call(c) if c.function.composite.is_none() => Some(&c.function),
        _ => None,
    }
}

/// Which values are needed for these results, given what callees need.
fn live(f: &Function, results: &[bool], facts: &HashMap<*const Function, Facts>) -> Vec<bool> {
    let mut live = vec![false; f.value_count()];
    for (r, _) in f.results().iter().zip(results).filter(|(_, used)| **used) {
        live[r.index()] = true;
    }
    for node in f.nodes().iter().rev() {
        if !node.op.has_effect() && !node.outputs.iter().any(|v| live[v.index()]) {
            continue;
        }
        let needs = callee(&node.op).and_then(|f| facts.get(&Arc::as_ptr(f)));
        for (i, v) in node.inputs.iter().enumerate() {
            live[v.index()] |= needs.is_none_or(|facts| facts.parameters[i]);
        }
    }
    live
}

impl Facts {
    /// As if no result was used yet, but any could be; a fixed function is used as it is.
    fn of(f: &Function, facts: &HashMap<*const Function, Facts>, fixed: bool) -> Facts {
        let live = live(f, &vec![true; f.results().len()], facts);
        Facts {
            results: vec![fixed; f.results().len()],
            parameters: f.parameters().iter().map(|p| fixed || live[p.index()]).collect(),
        }
    }
}

impl Pruner {
    /// Marks the results of callees that `f` uses. Callers are visited before their callees.
    fn use_results(&mut self, f: &Arc<Function>) {
        let Some(mine) = self.facts.get(&Arc::as_ptr(f)) else { return };
        let live = live(f, &mine.results, &self.facts);
        for node in f.nodes() {
            let called = callee(&node.op).and_then(|f| self.facts.get_mut(&Arc::as_ptr(f)));
            for (used, v) in called.into_iter().flat_map(|f| &mut f.results).zip(&node.outputs) {
                *used |= live[v.index()];
            }
        }
    }

    fn rebuild(&self, f: &Arc<Function>) -> Result<Function> {
        let undefined = || Error::new("a value is used before it is defined");
        let mine = self.facts.get(&Arc::as_ptr(f)).ok_or_else(undefined)?;
        let live = live(f, &mine.results, &self.facts);
        let mut b = Builder::new(f.name.clone());
        let mut map: Vec<Option<Value>> = vec![None; f.value_count()];
        for (&p, _) in f.parameters().iter().zip(&mine.parameters).filter(|(_, used)| **used) {
            map[p.index()] = Some(b.parameter(f.ty(p).clone()));
        }
        for node in f.nodes() {
            if !node.op.has_effect() && !node.outputs.iter().any(|v| live[v.index()]) {
                continue;
            }
            b.set_origin(node.origin.clone());
            let facts = callee(&node.op).and_then(|f| self.facts.get(&Arc::as_ptr(f)));
            let wanted = |i: usize| facts.is_none_or(|facts| facts.parameters[i]);
            let args = node.inputs.iter().enumerate().filter(|(i, _)| wanted(*i));
            let args = args
                .map(|(_, v)| map[v.index()].ok_or_else(undefined))
                .collect::<Result<Vec<_>>>()?;
            let made = |f: &Arc<Function>| self.rebuilt.get(&Arc::as_ptr(f)).unwrap_or(f).clone();
            let op = match callee(&node.op) {
                Some(f) => Call { function: made(f), recompute: false }.into(),
                None => with_callees(&node.op, made),
            };
            let mut results = b.emit(op, &args).into_iter();
            for (i, o) in node.outputs.iter().enumerate() {
                if facts.is_none_or(|facts| facts.results[i]) {
                    map[o.index()] = results.next();
                }
            }
        }
        let used = f.results().iter().zip(&mine.results).filter(|(_, used)| **used);
        let results =
            used.map(|(r, _)| map[r.index()].ok_or_else(undefined)).collect::<Result<Vec<_>>>()?;
        let mut new = b.finish(&results)?;
        new.composite = f.composite.clone();
        new.derivative = f.derivative.clone();
        Ok(new)
    }
}
