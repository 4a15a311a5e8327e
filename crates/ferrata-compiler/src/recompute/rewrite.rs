//! The program in which some links are gone: forward functions no longer return them, backward
//! functions make them where they first use them.

use super::pairs::Pair;
use crate::callees::{Rebuilt, rebuild_functions};
use ferrata_ir::primitive::Call;
use ferrata_ir::transform::prune;
use ferrata_ir::{Builder, Error, Function, Node, Result, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The program without the links for which `again(pair, link)` holds.
///
/// # Errors
/// When a function is ill-typed.
pub(super) fn without(
    program: &Arc<Function>,
    pairs: &[Pair],
    again: &dyn Fn(usize, usize) -> bool,
) -> Result<Arc<Function>> {
    rebuild_functions(program, |f, done| {
        let mut new: HashMap<usize, NewCall> = HashMap::new();
        let here = pairs.iter().enumerate().filter(|(_, pair)| std::ptr::eq(&*pair.home, f));
        for (p, pair) in here {
            let again = |link: usize| again(p, link);
            if !(0..pair.links.len()).any(again) {
                continue;
            }
            let forward = NewCall::forward(pair, &again)?;
            let backward = Backward::new(pair, &again).finish()?;
            for &(there, here) in &pair.calls {
                new.insert(there, forward.clone());
                let extra = backward.extra.iter().map(|&i| f.nodes()[there].inputs[i]).collect();
                new.insert(here, NewCall { extra, ..backward.call.clone() });
            }
        }
        with_calls(f, &new, done)
    })
}

/// The function with some of its nodes replaced by new calls.
fn with_calls(f: &Function, new: &HashMap<usize, NewCall>, done: &Rebuilt) -> Result<Function> {
    let mut b = Builder::new(f.name.clone());
    let mut map: Vec<Option<Value>> = vec![None; f.value_count()];
    for &p in f.parameters() {
        map[p.index()] = Some(b.parameter(f.ty(p).clone()));
    }
    let get = |map: &[Option<Value>], vs: &[Value]| -> Result<Vec<Value>> {
        vs.iter().map(|v| map[v.index()].ok_or_else(undefined)).collect()
    };
    for (at, node) in f.nodes().iter().enumerate() {
        b.set_origin(node.origin.clone());
        let Some(call) = new.get(&at) else {
            let results = b.emit(done.primitive(&node.op), &get(&map, &node.inputs)?);
            node.outputs.iter().zip(results).for_each(|(o, r)| map[o.index()] = Some(r));
            continue;
        };
        let kept = node.inputs.iter().zip(&call.operands).filter(|(_, kept)| **kept);
        let mut inputs: Vec<Value> = kept.map(|(v, _)| *v).collect();
        inputs.extend(&call.extra);
        let op = Call { function: call.function.clone(), recompute: false };
        let results = b.emit(op, &get(&map, &inputs)?);
        let outputs = node.outputs.iter().zip(&call.results).filter(|(_, kept)| **kept);
        outputs.zip(results).for_each(|((o, _), r)| map[o.index()] = Some(r));
    }
    let mut rebuilt = b.finish(&get(&map, f.results())?)?;
    rebuilt.composite = f.composite.clone();
    rebuilt.derivative = f.derivative.clone();
    Ok(rebuilt)
}

fn undefined() -> Error {
    Error::new("a value is used before it is defined")
}

/// What takes the place of a call.
#[derive(Clone)]
struct NewCall {
    function: Arc<Function>,
    /// Which operands of the old call stay.
    operands: Vec<bool>,
    /// Which results of the old call stay.
    results: Vec<bool>,
    /// More operands, values of the main function.
    extra: Vec<Value>,
}

impl NewCall {
    /// A call of the forward function without some of its results.
    fn forward(pair: &Pair, again: &dyn Fn(usize) -> bool) -> Result<NewCall> {
        let old = &pair.forward;
        let mut results = vec![true; old.results().len()];
        for link in (0..pair.links.len()).filter(|&l| again(l)) {
            results[pair.links[link].result] = false;
        }
        let mut b = Builder::new(old.name.clone());
        let types: Vec<_> = old.parameter_types().into_iter().cloned().collect();
        let parameters = b.parameters(&types);
        let all = b.inline(old, &parameters);
        let kept: Vec<Value> =
            all.into_iter().zip(&results).filter(|(_, kept)| **kept).map(|(v, _)| v).collect();
        let mut new = b.finish(&kept)?;
        prune(&mut new);
        let operands = vec![true; parameters.len()];
        Ok(NewCall { function: Arc::new(new), operands, results, extra: Vec::new() })
    }
}

/// A backward function under construction.
struct Backward<'a> {
    pair: &'a Pair,
    b: Builder,
    /// Values of the old backward function.
    own: Vec<Option<Value>>,
    /// Parameters that are gone, and the forward function's values that they were.
    gone: HashMap<Value, Value>,
    /// Values of the forward function that are there.
    known: HashMap<Value, Value>,
    /// Parameters that stay.
    operands: Vec<bool>,
    /// Parameters of the forward function that are passed in addition.
    extra: Vec<usize>,
}

/// A call of a new backward function; the forward call's operands that it takes in addition.
struct BackwardCall {
    call: NewCall,
    extra: Vec<usize>,
}

impl<'a> Backward<'a> {
    fn new(pair: &'a Pair, again: &dyn Fn(usize) -> bool) -> Self {
        let old = &pair.backward;
        let links = || (0..pair.links.len()).filter(|&l| again(l));
        let mut operands = vec![true; old.parameters().len()];
        links().for_each(|l| operands[pair.links[l].parameter] = false);
        let gone = links().map(|l| (old.parameters()[pair.links[l].parameter], pair.value(l)));
        let gone = gone.collect();
        let mut b = Builder::new(old.name.clone());
        let mut own = vec![None; old.value_count()];
        for (&p, _) in old.parameters().iter().zip(&operands).filter(|(_, kept)| **kept) {
            own[p.index()] = Some(b.parameter(old.ty(p).clone()));
        }
        let there = pair.kept(again).into_iter();
        let mut known: HashMap<Value, Value> = there
            .filter_map(|(value, p)| Some((value, own[old.parameters()[p].index()]?)))
            .collect();
        // What else the work needs of the layer's operands.
        let mut extra = Vec::new();
        for at in pair.needed(again) {
            for (i, p) in pair.forward.parameters().iter().enumerate() {
                if pair.forward.nodes()[at].inputs.contains(p) && !known.contains_key(p) {
                    known.insert(*p, b.parameter(pair.forward.ty(*p).clone()));
                    extra.push(i);
                }
            }
        }
        Backward { pair, b, own, gone, known, operands, extra }
    }

    fn finish(mut self) -> Result<BackwardCall> {
        let old = self.pair.backward.clone();
        for node in old.nodes() {
            let inputs = self.values(&node.inputs)?;
            self.b.set_origin(node.origin.clone());
            let results = self.b.emit(node.op.clone(), &inputs);
            node.outputs.iter().zip(results).for_each(|(o, r)| self.own[o.index()] = Some(r));
        }
        let results = self.values(old.results())?;
        let function = Arc::new(self.b.finish(&results)?);
        let (operands, extra) = (self.operands, Vec::new());
        let call = NewCall { function, operands, results: vec![true; results.len()], extra };
        Ok(BackwardCall { call, extra: self.extra })
    }

    /// Values of the old backward function; what is gone is made now.
    fn values(&mut self, old: &[Value]) -> Result<Vec<Value>> {
        let mut new = Vec::with_capacity(old.len());
        for v in old {
            new.push(match (self.own[v.index()], self.gone.get(v).copied()) {
                (Some(there), _) => there,
                (None, Some(value)) => self.again(value)?,
                (None, None) => return Err(undefined()),
            });
        }
        Ok(new)
    }

    /// A value of the forward function, made again unless it is there.
    fn again(&mut self, value: Value) -> Result<Value> {
        if let Some(&there) = self.known.get(&value) {
            return Ok(there);
        }
        let forward = self.pair.forward.clone();
        let maker = self.pair.maker(value).ok_or_else(undefined)?;
        let node: &Node = &forward.nodes()[maker];
        let inputs = node.inputs.iter().map(|&v| self.again(v)).collect::<Result<Vec<_>>>()?;
        self.b.set_origin(node.origin.clone());
        let results = self.b.emit(node.op.clone(), &inputs);
        self.known.extend(node.outputs.iter().copied().zip(results));
        self.known.get(&value).copied().ok_or_else(undefined)
    }
}
