//! Derivatives of functions on trees.

use super::trace::{Trace, inputs, trace};
use crate::tensor::{Frame, Tensor};
use crate::tree::{Leaves, Tree, failed, flatten};
use ferrata_ir::{Error, Function, Result, transform};
use std::panic::Location;
use std::sync::Arc;

/// The gradient of a function whose (first) result is a float scalar, in every float tensor of
/// its argument. Tensors of other dtypes get zeros. What the function captures is constant.
///
/// ```
/// use ferrata::{Tensor, grad};
/// let cube = |x: &Tensor| x.pow(3.0).sum(..);
/// let x = Tensor::from([1.0f64, 2.0]);
/// assert_eq!(grad(cube)(&x).to_vec::<f64>()?, [3.0, 12.0]);
/// // The gradient of a gradient.
/// let second = grad(|x: &Tensor| grad(cube)(x).sum(..))(&x);
/// assert_eq!(second.to_vec::<f64>()?, [6.0, 12.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn grad<A: Tree, R: Tree>(f: impl Fn(&A) -> R) -> impl Fn(&A) -> A {
    let both = value_and_grad(f);
    move |argument: &A| both(argument).1
}

/// A function's result and its gradient, as [`grad`] gives it. The function may return more than
/// its loss: the first tensor of the result is differentiated, the others are passed on.
///
/// ```
/// use ferrata::{Tensor, value_and_grad};
/// let x = Tensor::from(3.0f32);
/// let ((loss, root), slope) = value_and_grad(|x: &Tensor| (x * x, x.sqrt()))(&x);
/// assert_eq!((loss.item::<f32>()?, slope.item::<f32>()?), (9.0, 6.0));
/// assert_eq!(root.item::<f32>()?, 3f32.sqrt());
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn value_and_grad<A: Tree, R: Tree>(f: impl Fn(&A) -> R) -> impl Fn(&A) -> (R, A) {
    let line = Location::caller();
    move |argument: &A| {
        let _line = Frame::at(line);
        let leaves = flatten(argument);
        let (traced, result) = match trace_on(argument, &leaves, &f) {
            Ok(traced) => traced,
            Err((error, result)) => return (result, failed(argument, &error)),
        };
        let wrt = float_marks(&leaves, &traced.captured);
        match transform::value_and_grad(&traced.function, &wrt) {
            Err(error) => (failed(&result, &error), failed(argument, &error)),
            Ok(program) => {
                let all = inputs(&leaves.tensors, &traced.captured);
                let mut results = Tensor::call(&Arc::new(program), false, &all);
                let gradients = results.split_off(traced.leaves.tensors.len());
                let gradients = spread(&leaves, gradients);
                (traced.leaves.rebuild(&result, &results), leaves.rebuild(argument, &gradients))
            }
        }
    }
}

/// A function's result and its directional derivative along `tangent`, a tree of the argument's
/// structure (forward mode).
///
/// ```
/// use ferrata::{Tensor, jvp};
/// let (x, dx) = (Tensor::from(2.0f64), Tensor::from(0.5f64));
/// let (y, dy) = jvp(|x: &Tensor| x * x, &x, &dx);
/// assert_eq!((y.item::<f64>()?, dy.item::<f64>()?), (4.0, 2.0));
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn jvp<A: Tree, R: Tree>(f: impl Fn(&A) -> R, argument: &A, tangent: &A) -> (R, R) {
    let _line = Frame::at(Location::caller());
    let leaves = flatten(argument);
    let (traced, result) = match trace_on(argument, &leaves, &f) {
        Ok(traced) => traced,
        Err((error, result)) => return (failed(&result, &error), result),
    };
    let wrt = float_marks(&leaves, &traced.captured);
    let tangents = flatten(tangent);
    let program = same_types(&leaves, &tangents, "tangent")
        .and_then(|()| transform::jvp(&traced.function, &wrt));
    match program {
        Err(error) => (failed(&result, &error), failed(&result, &error)),
        Ok(program) => {
            let mut all = inputs(&leaves.tensors, &traced.captured);
            all.extend(tangents.tensors.iter().filter(|t| t.dtype().is_float()));
            let mut results = Tensor::call(&program, false, &all);
            let moved = results.split_off(traced.leaves.tensors.len());
            (traced.leaves.rebuild(&result, &results), traced.leaves.rebuild(&result, &moved))
        }
    }
}

/// A function's result, and the cotangents of its argument for a `cotangent` of the result's
/// structure (reverse mode).
///
/// ```
/// use ferrata::{Tensor, vjp};
/// let x = Tensor::from([1.0f64, 2.0]);
/// let (y, dx) = vjp(|x: &Tensor| x * x, &x, &Tensor::from([1.0f64, 10.0]));
/// assert_eq!(y.to_vec::<f64>()?, [1.0, 4.0]);
/// assert_eq!(dx.to_vec::<f64>()?, [2.0, 40.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn vjp<A: Tree, R: Tree>(f: impl Fn(&A) -> R, argument: &A, cotangent: &R) -> (R, A) {
    let _line = Frame::at(Location::caller());
    let leaves = flatten(argument);
    let (traced, result) = match trace_on(argument, &leaves, &f) {
        Ok(traced) => traced,
        Err((error, result)) => return (result, failed(argument, &error)),
    };
    let wrt = float_marks(&leaves, &traced.captured);
    let cotangents = flatten(cotangent);
    let program = same_types(&traced.leaves, &cotangents, "cotangent")
        .and_then(|()| transform::vjp(&traced.function, &wrt));
    match program {
        Err(error) => (failed(&result, &error), failed(argument, &error)),
        Ok(program) => {
            let mut all = inputs(&leaves.tensors, &traced.captured);
            all.extend(cotangents.tensors.iter().filter(|t| t.dtype().is_float()));
            let mut results = Tensor::call(&Arc::new(program), false, &all);
            let gradients = spread(&leaves, results.split_off(traced.leaves.tensors.len()));
            (traced.leaves.rebuild(&result, &results), leaves.rebuild(argument, &gradients))
        }
    }
}

/// What a trace leaves when the result's structure has been taken out of it.
pub(super) struct Program {
    pub function: Arc<Function>,
    pub captured: Vec<Tensor>,
    pub leaves: Leaves,
}

/// Traces `f` on placeholders for the tensors of `argument`. On failure, the error and the result
/// with that error in every tensor.
pub(super) fn trace_on<A: Tree, R: Tree>(
    argument: &A,
    leaves: &Leaves,
    f: impl Fn(&A) -> R,
) -> Result<(Program, R), (Error, R)> {
    match trace("f", &leaves.tensors, |inside| f(&leaves.rebuild(argument, inside))) {
        Ok(Trace { function, captured, result, leaves }) => {
            Ok((Program { function, captured, leaves }, result))
        }
        Err(untraced) => {
            let failed = untraced.failed();
            Err((untraced.error, failed))
        }
    }
}

/// Which parameters are differentiated: float arguments, not captured values.
fn float_marks(leaves: &Leaves, captured: &[Tensor]) -> Vec<bool> {
    let floats = leaves.tensors.iter().map(|t| t.dtype().is_float());
    floats.chain(captured.iter().map(|_| false)).collect()
}

/// Gradients of the float tensors in their places, zeros for the others.
fn spread(leaves: &Leaves, gradients: Vec<Tensor>) -> Vec<Tensor> {
    let mut gradients = gradients.into_iter();
    let one = |t: &Tensor| {
        let found = if t.dtype().is_float() { gradients.next() } else { None };
        found.unwrap_or_else(|| t.zeros_like())
    };
    leaves.tensors.iter().map(one).collect()
}

fn same_types(want: &Leaves, got: &Leaves, what: &str) -> Result<()> {
    got.check()?;
    if want.tensors.len() != got.tensors.len() {
        let (n, m) = (want.tensors.len(), got.tensors.len());
        return Err(Error::new(format!("the {what} has {m} tensors instead of {n}")));
    }
    for ((w, g), path) in want.tensors.iter().zip(&got.tensors).zip(&want.paths) {
        if w.ty() != g.ty() {
            let (w, g) = (w.ty(), g.ty());
            return Err(Error::new(format!("the {what} of `{path}` is {g} instead of {w}")));
        }
    }
    Ok(())
}
