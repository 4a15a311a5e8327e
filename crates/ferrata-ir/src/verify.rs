//! The rules that every finished program keeps. The type system of Rust cannot hold them, so they
//! are checked after every pass in debug builds and tests.

use crate::error::{Error, Result};
use crate::primitive::Primitive;
use crate::program::{Function, Node, Value};
use crate::types::Type;
use std::collections::HashSet;
use std::sync::Arc;

/// Checks `function` and all that it calls:
///
/// 1. every value is defined once, by a parameter or a node, before it is used;
/// 2. every node's results have the types that its primitive infers from its operands, so callees
///    fit their calls;
/// 3. a derivative's functions fit the function that brings them;
/// 4. no placeholder of differentiation is left.
///
/// # Errors
/// Names function, operation, scope and line of the first offender.
pub fn verify(function: &Arc<Function>) -> Result<()> {
    check_all(function, &mut HashSet::new())
}

fn check_all(function: &Arc<Function>, seen: &mut HashSet<*const Function>) -> Result<()> {
    if !seen.insert(Arc::as_ptr(function)) {
        return Ok(());
    }
    for callee in function.nodes().iter().flat_map(|n| n.op.functions()) {
        check_all(callee, seen)?;
    }
    if let Some(own) = &function.derivative {
        check_all(&own.forward, seen)?;
        check_all(&own.backward, seen)?;
    }
    check(function)
}

fn check(function: &Function) -> Result<()> {
    let name = &function.name;
    let mut defined = vec![false; function.value_count()];
    for &p in function.parameters() {
        define(function, p, &mut defined)?;
    }
    for node in function.nodes() {
        check_node(function, node, &mut defined).map_err(|e| {
            let known = node.inputs.iter().filter(|v| v.index() < function.value_count());
            let operands: Vec<&Type> = known.map(|&v| function.ty(v)).collect();
            e.at(node.op.name(), &operands, &node.origin)
        })?;
    }
    if let Some(v) = function.results().iter().find(|v| defined.get(v.index()) != Some(&true)) {
        return Err(Error::new(format!("result %{} of `{name}` is not defined", v.index())));
    }
    check_derivative(function)
}

fn define(function: &Function, v: Value, defined: &mut [bool]) -> Result<()> {
    match defined.get_mut(v.index()) {
        Some(slot) if !*slot => {
            *slot = true;
            Ok(())
        }
        Some(_) => {
            Err(Error::new(format!("%{} is defined twice in `{}`", v.index(), function.name)))
        }
        None => Err(Error::new(format!("%{} of `{}` has no type", v.index(), function.name))),
    }
}

fn check_node(function: &Function, node: &Node, defined: &mut [bool]) -> Result<()> {
    let name = &function.name;
    if let Some(v) = node.inputs.iter().find(|v| defined.get(v.index()) != Some(&true)) {
        let v = v.index();
        return Err(Error::new(format!("%{v} is used before it is defined in `{name}`")));
    }
    if matches!(node.op, Primitive::CustomLinear(_)) {
        return Err(Error::new(format!("a placeholder of differentiation is left in `{name}`")));
    }
    for &v in &node.outputs {
        define(function, v, defined)?;
    }
    let operands: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
    let inferred = node.op.infer(&operands)?;
    let found: Vec<&Type> = node.outputs.iter().map(|&v| function.ty(v)).collect();
    if found != inferred.iter().collect::<Vec<_>>() {
        let show =
            |types: Vec<&Type>| types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::new(format!(
            "results are ({}) in `{name}`, but must be ({})",
            show(found),
            show(inferred.iter().collect())
        )));
    }
    Ok(())
}

fn check_derivative(function: &Function) -> Result<()> {
    let Some(own) = &function.derivative else { return Ok(()) };
    let name = &function.name;
    let (parameters, results) = (function.parameter_types(), function.result_types());
    if own.forward.parameter_types() != parameters {
        return Err(Error::new(format!("the forward function of `{name}` takes other parameters")));
    }
    let found = own.forward.result_types();
    if found.len() < results.len() || found[..results.len()] != results[..] {
        return Err(Error::new(format!(
            "the forward function of `{name}` does not begin with its results"
        )));
    }
    let floats = |types: &[&Type]| -> Vec<Type> {
        types.iter().filter(|t| t.dtype.is_float()).map(|&t| t.clone()).collect()
    };
    let mut taken: Vec<Type> = found[results.len()..].iter().map(|&t| t.clone()).collect();
    taken.extend(floats(&results));
    if own.backward.parameter_types() != taken.iter().collect::<Vec<_>>() {
        return Err(Error::new(format!(
            "the backward function of `{name}` must take the residuals, then a cotangent of each \
             float result"
        )));
    }
    if own.backward.result_types() != floats(&parameters).iter().collect::<Vec<_>>() {
        return Err(Error::new(format!(
            "the backward function of `{name}` must give a cotangent of each float parameter"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::program::{Builder, CustomDerivative};

    fn scalar() -> Type {
        Type::scalar(DType::F32)
    }

    /// `x ↦ -(x + x)`.
    fn sound() -> Function {
        let mut b = Builder::new("f");
        let x = b.parameter(scalar());
        let y = b.add(x, x);
        let z = b.neg(y);
        b.finish(&[z]).unwrap()
    }

    fn refused(function: Function, want: &str) {
        let error = verify(&Arc::new(function)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn sound_programs_pass() {
        verify(&Arc::new(sound())).unwrap();
    }

    #[test]
    fn values_are_defined_once_and_before_use() {
        let mut f = sound();
        f.nodes.swap(0, 1);
        refused(f, "neg(f32[]): %1 is used before it is defined in `f`");
        let mut f = sound();
        f.nodes[1].outputs[0] = f.parameters[0];
        refused(f, "neg(f32[]): %0 is defined twice");
        let mut f = sound();
        f.nodes.pop();
        refused(f, "result %2 of `f` is not defined");
        let mut f = sound();
        f.types.pop();
        refused(f, "%2 of `f` has no type");
    }

    #[test]
    fn types_are_those_that_the_primitive_infers() {
        let mut f = sound();
        f.types[1] = Type::new(DType::F32, [2]);
        refused(f, "add(f32[], f32[]): results are (f32[2]) in `f`, but must be (f32[])");
        let mut b = Builder::new("g");
        let x = b.parameter(scalar());
        let y = b.call(&Arc::new(sound()), &[x]);
        let mut g = b.finish(&y).unwrap();
        g.types[0] = scalar().with_dtype(DType::F64);
        refused(g, "call(f64[]): argument 0 of `f` is f64[], not f32[]");
    }

    #[test]
    fn derivatives_fit_their_function() {
        let with = |forward: Function, backward: Function| {
            let (forward, backward) = (Arc::new(forward), Arc::new(backward));
            let mut f = sound();
            f.derivative = Some(CustomDerivative { forward, backward });
            f
        };
        verify(&Arc::new(with(sound(), sound()))).unwrap();
        let mut b = Builder::new("two");
        let p = b.parameters(&[scalar(), scalar()]);
        let two = b.finish(&p).unwrap();
        refused(with(two.clone(), sound()), "the forward function of `f` takes other parameters");
        refused(with(sound(), two), "the backward function of `f` must take the residuals");
        let mut none = sound();
        none.results.clear();
        refused(with(none.clone(), sound()), "does not begin with its results");
        refused(with(sound(), none), "must give a cotangent of each float parameter");
    }
}
