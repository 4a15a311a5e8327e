//! Which functions stay functions: those called several times, which are compiled once, and the
//! composites that the device claims. All others are inlined, and those that convolve, too: what
//! they take and give would have to be in the user's order, not channels last.

use ferrata_ir::primitive::{Call, Cond, Scan};
use ferrata_ir::{Builder, Composite, Function, Primitive, Result, Type, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Functions with fewer nodes than this are inlined however often they are called.
const SMALL: usize = 8;

/// The program with all calls inlined but those worth keeping.
///
/// # Errors
/// When a function is ill-typed.
pub fn inline(
    program: &Arc<Function>,
    claims: &dyn Fn(&Composite, &[&Type]) -> bool,
) -> Result<Arc<Function>> {
    let mut calls: HashMap<*const Function, usize> = HashMap::new();
    let mut convolving: HashSet<*const Function> = HashSet::new();
    program.visit(&mut |f| {
        let convolves = |op: &Primitive| {
            matches!(op, Primitive::Convolution(_))
                || op.functions().into_iter().any(|f| convolving.contains(&Arc::as_ptr(f)))
        };
        if f.nodes().iter().any(|n| convolves(&n.op)) {
            convolving.insert(Arc::as_ptr(f));
        }
        for callee in f.nodes().iter().flat_map(|n| n.op.functions()) {
            *calls.entry(Arc::as_ptr(callee)).or_default() += 1;
        }
    });
    Inliner { claims, calls, convolving, done: HashMap::new() }.function(program)
}

struct Inliner<'a> {
    claims: &'a dyn Fn(&Composite, &[&Type]) -> bool,
    calls: HashMap<*const Function, usize>,
    convolving: HashSet<*const Function>,
    done: HashMap<*const Function, Arc<Function>>,
}

impl Inliner<'_> {
    fn claimed(&self, f: &Function) -> bool {
        f.composite.as_ref().is_some_and(|c| (self.claims)(c, &f.parameter_types()))
    }

    fn function(&mut self, f: &Arc<Function>) -> Result<Arc<Function>> {
        if let Some(done) = self.done.get(&Arc::as_ptr(f)) {
            return Ok(done.clone());
        }
        let done = if f.nodes().iter().all(|n| n.op.functions().is_empty()) {
            f.clone()
        } else {
            Arc::new(self.rebuild(f)?)
        };
        self.done.insert(Arc::as_ptr(f), done.clone());
        Ok(done)
    }

    fn rebuild(&mut self, f: &Function) -> Result<Function> {
        let mut b = Builder::new(f.name.clone());
        let mut map: Vec<Option<Value>> = vec![None; f.value_count()];
        for &p in f.parameters() {
            map[p.index()] = Some(b.parameter(f.ty(p).clone()));
        }
        for node in f.nodes() {
            let args: Vec<Value> = node.inputs.iter().filter_map(|v| map[v.index()]).collect();
            b.set_origin(node.origin.clone());
            let results = match &node.op {
                Primitive::Call(call) if self.claimed(&call.function) => {
                    b.emit(node.op.clone(), &args)
                }
                Primitive::Call(call) => {
                    let callee = self.function(&call.function)?;
                    let known = Arc::as_ptr(&call.function);
                    let kept = self.calls[&known] > 1 && !self.convolving.contains(&known);
                    if kept && call.function.composite.is_none() && callee.nodes().len() >= SMALL {
                        b.emit(Call { function: callee, recompute: false }, &args)
                    } else {
                        b.inline(&callee, &args)
                    }
                }
                Primitive::Scan(scan) => {
                    let body = self.function(&scan.body)?;
                    b.emit(Scan { body, ..scan.clone() }, &args)
                }
                Primitive::Cond(cond) => {
                    let [yes, no] = &cond.branches;
                    let branches = [self.function(yes)?, self.function(no)?];
                    b.emit(Cond { branches }, &args)
                }
                other => b.emit(other.clone(), &args),
            };
            for (&o, r) in node.outputs.iter().zip(results) {
                map[o.index()] = Some(r);
            }
        }
        let results: Vec<Value> = f.results().iter().filter_map(|v| map[v.index()]).collect();
        b.finish(&results)
    }
}
