//! Functions with a derivative of their own.

use super::trace::{Trace, Untraced, inputs, trace};
use crate::tensor::{Frame, Tensor};
use crate::tree::{self, Leaves, Tree, flatten};
use ferrata_ir::{Builder, Error, Function, Result, Value, transform};
use std::collections::HashMap;
use std::panic::Location;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A composite with its own derivative. `forward` gives the result and what the backward pass
/// needs; `backward` gets these and the cotangent of the result, and gives the cotangent of the
/// argument. Forward-mode and higher derivatives go through the body of `forward`.
///
/// Values that the functions capture are constants; capturing a float that is being
/// differentiated outside is an error, because its gradient would be lost.
///
/// ```
/// use ferrata::{Tensor, custom, grad};
/// // The identity, whose gradient is clipped.
/// let clipped = custom(
///     "clip_gradient",
///     |x: &Tensor| (x.clone(), ()),
///     |_: &(), dy: &Tensor| dy.clamp(-1.0, 1.0),
/// );
/// let slope = grad(|x: &Tensor| (clipped(x) * 5.0).sum(..))(&Tensor::from([1.0f32, 2.0]));
/// assert_eq!(slope.to_vec::<f32>()?, [1.0, 1.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn custom<A: Tree, R: Tree, S: Tree>(
    name: &str,
    forward: impl Fn(&A) -> (R, S),
    backward: impl Fn(&S, &R) -> A,
) -> impl Fn(&A) -> R {
    let line = Location::caller();
    let name = composite_name(name);
    move |argument: &A| {
        let _line = Frame::at(line);
        let leaves = flatten(argument);
        let traced = match forward_pass(name, argument, &leaves, &forward) {
            Ok(traced) => traced,
            Err((error, result)) => return tree::failed(&result, &error),
        };
        match composite(name, &leaves, &traced, &backward) {
            Err(error) => tree::failed(&traced.result, &error),
            Ok((function, captured)) => {
                let results = Tensor::call(&function, false, &inputs(&leaves.tensors, &captured));
                traced.results.rebuild(&traced.result, &results)
            }
        }
    }
}

/// Composites are claimed by devices by name: a user's never has the name of a built-in one.
fn composite_name(name: &str) -> &'static str {
    static NAMES: OnceLock<Mutex<HashMap<String, &'static str>>> = OnceLock::new();
    let names = NAMES.get_or_init(Mutex::default);
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    names.entry(name.to_string()).or_insert_with(|| format!("custom.{name}").leak())
}

/// The traced forward function: `(argument, captured) -> (result, residuals)`.
struct Forward<R, S> {
    trace: Trace<Vec<Tensor>>,
    result: R,
    results: Leaves,
    saved: S,
    residuals: Leaves,
}

fn forward_pass<A: Tree, R: Tree, S: Tree>(
    name: &str,
    argument: &A,
    leaves: &Leaves,
    forward: impl Fn(&A) -> (R, S),
) -> Result<Forward<R, S>, (Error, R)> {
    let (result, saved, traced) = {
        let mut both = None;
        let traced = trace(name, &leaves.tensors, |inside| {
            let (result, saved) = forward(&leaves.rebuild(argument, inside));
            let all = [flatten(&result).tensors, flatten(&saved).tensors].concat();
            both = Some((result, saved));
            all
        });
        let Some((result, saved)) = both else { unreachable!("the function has run") };
        (result, saved, traced)
    };
    match traced {
        Err(Untraced { error, .. }) => Err((error, result)),
        Ok(trace) => {
            let (results, residuals) = (flatten(&result), flatten(&saved));
            Ok(Forward { trace, result, results, saved, residuals })
        }
    }
}

/// The function with its derivative, and the captured values of both passes.
fn composite<A: Tree, R: Tree, S: Tree>(
    name: &'static str,
    leaves: &Leaves,
    forward: &Forward<R, S>,
    backward: impl Fn(&S, &R) -> A,
) -> Result<(Arc<Function>, Vec<Tensor>)> {
    let back = backward_pass(name, leaves, forward, backward)?;
    let mut captured = forward.trace.captured.clone();
    let own = captured.len();
    captured.extend(back.captured.iter().cloned());
    if let Some(t) = captured.iter().find(|t| t.is_traced() && t.dtype().is_float()) {
        let ty = t.ty();
        return Err(Error::new(format!("{name} captures {ty}, whose gradient would be lost"))
            .help("pass it as a part of the argument, or capture its stop_gradient()"));
    }
    let results = forward.results.tensors.len();
    let whole = |keep_residuals: bool| -> Result<Function> {
        let mut b = Builder::new(name);
        let all: Vec<Value> = inputs(&leaves.tensors, &captured)
            .into_iter()
            .map(|t| b.parameter(t.ty().clone()))
            .collect();
        let (used, extra) = all.split_at(leaves.tensors.len() + own);
        let mut out = b.inline(&forward.trace.function, used);
        if keep_residuals {
            out.extend(extra);
        } else {
            out.truncate(results);
        }
        let mut function = b.finish(&out)?;
        transform::prune(&mut function);
        Ok(function)
    };
    let mut b = Builder::new(format!("{name}.backward"));
    let mut parameters = |tensors: &[Tensor]| -> Vec<Value> {
        tensors.iter().map(|t| b.parameter(t.ty().clone())).collect()
    };
    let saved = parameters(&forward.residuals.tensors);
    let extra = parameters(&back.captured);
    let floats: Vec<Tensor> =
        forward.results.tensors.iter().filter(|t| t.dtype().is_float()).cloned().collect();
    let cotangents = parameters(&floats);
    let mut out = b.inline(&back.function, &[saved, cotangents, extra].concat());
    for t in captured.iter().filter(|t| t.dtype().is_float()) {
        out.push(b.full(t.ty().clone(), 0.0));
    }
    let backward = b.finish(&out)?;
    let function = whole(false)?.as_composite(name, Vec::new());
    let function = function.with_derivative(Arc::new(whole(true)?), Arc::new(backward));
    Ok((Arc::new(function), captured))
}

/// The traced backward function: `(residuals, float cotangents, captured) -> float gradients`.
fn backward_pass<A: Tree, R: Tree, S: Tree>(
    name: &str,
    leaves: &Leaves,
    forward: &Forward<R, S>,
    backward: impl Fn(&S, &R) -> A,
) -> Result<Trace<Vec<Tensor>>> {
    let saved = forward.residuals.tensors.len();
    let mut like = forward.residuals.tensors.clone();
    like.extend(forward.results.tensors.iter().filter(|t| t.dtype().is_float()).cloned());
    let trace = trace(name, &like, |inside| {
        let residuals = forward.residuals.rebuild(&forward.saved, &inside[..saved]);
        let mut given = inside[saved..].iter().cloned();
        let cotangents: Vec<Tensor> = forward
            .results
            .tensors
            .iter()
            .map(|t| if t.dtype().is_float() { given.next() } else { None })
            .zip(&forward.results.tensors)
            .map(|(d, t)| d.unwrap_or_else(|| Tensor::zeros(t.shape(), t.dtype())))
            .collect();
        let gradient = backward(&residuals, &forward.results.rebuild(&forward.result, &cotangents));
        let gradients = flatten(&gradient).tensors;
        gradients.into_iter().filter(|t| t.dtype().is_float() || t.error().is_some()).collect()
    })
    .map_err(|untraced: Untraced<Vec<Tensor>>| untraced.error)?;
    let floats = leaves.tensors.iter().zip(&leaves.paths).filter(|(t, _)| t.dtype().is_float());
    let floats: Vec<_> = floats.collect();
    if floats.len() != trace.result.len() {
        let (n, m) = (floats.len(), trace.result.len());
        return Err(Error::new(format!(
            "the backward function of {name} gives {m} gradients for {n} float tensors"
        )));
    }
    for ((t, path), g) in floats.iter().zip(&trace.result) {
        if t.ty() != g.ty() {
            let (t, g) = (t.ty(), g.ty());
            return Err(Error::new(format!(
                "the backward function of {name} gives {g} as gradient of `{path}`, which is {t}"
            )));
        }
    }
    Ok(trace)
}
