//! Simplification of one function: rewriting rules that change no bit of any result, sharing of
//! equal work, removal of work that nobody needs.

mod constants;
mod loops;
mod rules;

use crate::callees::{Rebuilt, rebuild_functions};
use ferrata_ir::transform::prune;
use ferrata_ir::{Builder, Error, Function, Primitive, Result, Type, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// What a rule makes of a node with one result.
enum Rewrite {
    /// Another value stands in for the result.
    Value(Value),
    /// The node becomes another one, to which the rules are applied again.
    Node(Primitive, Vec<Value>),
}

/// The program with every function simplified.
///
/// # Errors
/// When a function is ill-typed.
pub fn simplify(program: &Arc<Function>) -> Result<Arc<Function>> {
    rebuild_functions(program, function)
}

fn function(f: &Function, done: &Rebuilt) -> Result<Function> {
    let mut cx =
        Simplifier { b: Builder::new(f.name.clone()), makers: Vec::new(), known: HashMap::new() };
    let mut map: Vec<Option<Value>> = vec![None; f.value_count()];
    for &p in f.parameters() {
        map[p.index()] = Some(cx.b.parameter(f.ty(p).clone()));
    }
    for node in f.nodes() {
        let args = node
            .inputs
            .iter()
            .map(|v| {
                map[v.index()].ok_or_else(|| Error::new("a value is used before it is defined"))
            })
            .collect::<Result<Vec<_>>>()?;
        cx.b.set_origin(node.origin.clone());
        let results = cx.emit(done.primitive(&node.op), args);
        for (&o, r) in node.outputs.iter().zip(results) {
            map[o.index()] = Some(r);
        }
    }
    let results: Vec<Value> = f.results().iter().filter_map(|v| map[v.index()]).collect();
    let mut simple = cx.b.finish(&results)?;
    simple.composite = f.composite.clone();
    simple.derivative = f.derivative.clone();
    prune(&mut simple);
    Ok(simple)
}

/// A function under construction, with what the rules need to know of it.
struct Simplifier {
    b: Builder,
    /// For each value, the node that makes it.
    makers: Vec<Option<usize>>,
    /// Results of nodes that may stand in for equal ones.
    known: HashMap<(Primitive, Vec<Value>), Vec<Value>>,
}

impl Simplifier {
    fn maker(&self, v: Value) -> Option<(&Primitive, &[Value])> {
        let node = &self.b.nodes()[self.makers.get(v.index()).copied().flatten()?];
        Some((&node.op, &node.inputs))
    }

    fn ty(&self, v: Value) -> &Type {
        self.b.ty(v)
    }

    fn emit(&mut self, mut op: Primitive, mut args: Vec<Value>) -> Vec<Value> {
        while let Some(rewrite) = self.rewrite(&op, &args) {
            match rewrite {
                Rewrite::Value(v) => return vec![v],
                Rewrite::Node(new, inputs) => (op, args) = (new, inputs),
            }
        }
        if let Primitive::Scan(scan) = &op
            && let Some(results) = self.without_still_carries(scan, &args)
        {
            return results;
        }
        let shared =
            !op.has_effect() && op.functions().is_empty() && !matches!(op, Primitive::Barrier(_));
        if !shared {
            return self.push(op, &args);
        }
        if let Some(known) = self.known.get(&(op.clone(), args.clone())) {
            return known.clone();
        }
        let results = self.push(op.clone(), &args);
        self.known.insert((op, args), results.clone());
        results
    }

    fn push(&mut self, op: Primitive, args: &[Value]) -> Vec<Value> {
        let results = self.b.emit(op, args);
        let at = self.b.nodes().len().checked_sub(1);
        for r in &results {
            self.makers.resize(self.makers.len().max(r.index() + 1), None);
            self.makers[r.index()] = at;
        }
        results
    }
}
