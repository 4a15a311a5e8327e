//! `vmap`: a function over one sample becomes a function over a batch of them.

use super::Key;
use crate::error::{Error, Result};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// The function applied to every index of a new outermost dimension of `size`, which the
/// parameters marked in `batched` have and every result gets.
///
/// # Errors
/// When a primitive cannot be batched, named with its scope and line.
pub fn vmap(function: &Arc<Function>, batched: &[bool], size: usize) -> Result<Arc<Function>> {
    if batched.len() != function.parameters().len() {
        let (n, m) = (function.parameters().len(), batched.len());
        return Err(Error::new(format!("vmap: {n} parameters, but {m} marks")));
    }
    self::batched(function, batched, &vec![true; function.results().len()], size)
}

/// Which results depend on the parameters marked in `batched`.
pub(crate) fn depends(function: &Function, batched: &[bool]) -> Vec<bool> {
    let mut marks = vec![false; function.value_count()];
    for (p, &has) in function.parameters().iter().zip(batched) {
        marks[p.index()] = has;
    }
    for node in function.nodes() {
        let any = node.inputs.iter().any(|v| marks[v.index()]);
        node.outputs.iter().for_each(|v| marks[v.index()] = any);
    }
    function.results().iter().map(|v| marks[v.index()]).collect()
}

/// The batched function; a result has the new dimension if it is `required` or depends on a
/// batched parameter.
pub(crate) fn batched(
    function: &Arc<Function>,
    batched: &[bool],
    required: &[bool],
    size: usize,
) -> Result<Arc<Function>> {
    let key = Key::Batch { batched: batched.to_vec(), required: required.to_vec(), size };
    function.memo.get(key, || build(function, batched, required, size))
}

fn build(
    function: &Function,
    batched: &[bool],
    required: &[bool],
    size: usize,
) -> Result<Function> {
    let mut b = Builder::new(format!("{}.batch", function.name));
    let mut map: Vec<Option<(Value, bool)>> = vec![None; function.value_count()];
    for (&p, &has) in function.parameters().iter().zip(batched) {
        let ty = function.ty(p);
        let ty = if has { with_batch(ty, size) } else { ty.clone() };
        map[p.index()] = Some((b.parameter(ty), has));
    }
    let undefined = || Error::new("a value is used before it is defined");
    for node in function.nodes() {
        b.set_origin(node.origin.clone());
        let args = node
            .inputs
            .iter()
            .map(|v| map[v.index()].ok_or_else(undefined))
            .collect::<Result<Vec<_>>>()?;
        let (values, marks): (Vec<Value>, Vec<bool>) = args.into_iter().unzip();
        let any = marks.iter().any(|&m| m);
        let results = if any {
            node.op.rules().batch(&mut b, &values, &marks, size).map_err(|e| {
                let types: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
                e.at(node.op.name(), &types, &node.origin)
            })?
        } else {
            b.emit(node.op.clone(), &values)
        };
        for (&o, r) in node.outputs.iter().zip(results) {
            map[o.index()] = Some((r, any));
        }
    }
    let mut results = Vec::new();
    for (v, &needed) in function.results().iter().zip(required) {
        let (r, has) = map[v.index()].ok_or_else(undefined)?;
        results.push(if has || !needed { r } else { b.add_batch(r, size) });
    }
    let mut out = b.finish(&results)?;
    super::prune(&mut out);
    Ok(out)
}

fn with_batch(ty: &Type, size: usize) -> Type {
    let mut shape = vec![size];
    shape.extend(&ty.shape);
    ty.with_shape(shape)
}
