//! Transposition of linear functions.

use super::{Key, prune};
use crate::error::{Error, Result};
use crate::primitive::Operand;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// A transposed function: `(known parameters, present result cotangents) -> cotangents of the
/// linear parameters that are present`.
#[derive(Debug)]
pub(crate) struct Transposed {
    pub function: Arc<Function>,
    /// For each linear parameter, whether its cotangent is a result (else it is zero).
    pub present: Vec<bool>,
}

/// Transposes `function`, which is linear in the parameters marked `linear`, for cotangents of the
/// results marked `cotangents` (those of the others are zero).
pub(crate) fn transposed(
    function: &Arc<Function>,
    linear: &[bool],
    cotangents: &[bool],
) -> Result<Arc<Transposed>> {
    let key = Key::Transpose { linear: linear.to_vec(), cotangents: cotangents.to_vec() };
    function.memo.get(key, || build(function, linear, cotangents))
}

fn build(function: &Function, linear: &[bool], cotangents: &[bool]) -> Result<Transposed> {
    let mut b = Builder::new(format!("{}.transpose", function.name));
    let mut known: Vec<Option<Value>> = vec![None; function.value_count()];
    let mut is_linear = vec![false; function.value_count()];
    for (&p, &l) in function.parameters().iter().zip(linear) {
        is_linear[p.index()] = l;
        if !l {
            known[p.index()] = Some(b.parameter(function.ty(p).clone()));
        }
    }
    let mut ct: Vec<Option<Value>> = vec![None; function.value_count()];
    let marked = function.results().iter().zip(cotangents).filter(|(_, c)| **c);
    let seeds: Vec<(Value, Value)> =
        marked.map(|(&r, _)| (r, b.parameter(function.ty(r).clone()))).collect();
    let undefined = || Error::new("a value is used before it is defined");
    for node in function.nodes() {
        if node.inputs.iter().any(|v| is_linear[v.index()]) {
            node.outputs.iter().for_each(|v| is_linear[v.index()] = true);
            continue;
        }
        b.set_origin(node.origin.clone());
        let args = node
            .inputs
            .iter()
            .map(|v| known[v.index()].ok_or_else(undefined))
            .collect::<Result<Vec<_>>>()?;
        let results = b.emit(node.op.clone(), &args);
        for (&o, r) in node.outputs.iter().zip(results) {
            known[o.index()] = Some(r);
        }
    }
    for (r, seed) in seeds {
        if is_linear[r.index()] {
            ct[r.index()] = b.add_some(ct[r.index()], Some(seed));
        }
    }
    for node in function.nodes().iter().rev() {
        let dy: Vec<Option<Value>> = node.outputs.iter().map(|v| ct[v.index()]).collect();
        if dy.iter().all(Option::is_none) {
            continue;
        }
        b.set_origin(node.origin.clone());
        let operand = |v: &Value| match known[v.index()] {
            Some(k) => Operand::Known(k),
            None => Operand::Linear(function.ty(*v).clone()),
        };
        let operands: Vec<Operand> = node.inputs.iter().map(operand).collect();
        let dx = node.op.rules().transpose(&mut b, &operands, &dy).map_err(|e| {
            let types: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
            e.at(node.op.name(), &types, &node.origin)
        })?;
        for ((&v, d), operand) in node.inputs.iter().zip(dx).zip(&operands) {
            if operand.is_linear() {
                ct[v.index()] = b.add_some(ct[v.index()], d);
            }
        }
    }
    let wanted = || function.parameters().iter().zip(linear).filter(|(_, l)| **l);
    let results: Vec<Value> = wanted().filter_map(|(p, _)| ct[p.index()]).collect();
    let present = wanted().map(|(p, _)| ct[p.index()].is_some()).collect();
    let mut out = b.finish(&results)?;
    prune(&mut out);
    Ok(Transposed { function: Arc::new(out), present })
}
