//! Loops and branches inside programs.

use super::derivative::trace_on;
use super::trace::{Trace, Untraced, trace};
use crate::tensor::{Frame, Tensor};
use crate::tree::{Leaves, Tree, failed, flatten};
use ferrata_ir::primitive::{Cond, Scan};
use ferrata_ir::{Builder, Error, Function, Result, Value};
use std::panic::Location;
use std::sync::Arc;

pub use ferrata_ir::primitive::scan::Save;

/// How [`scan_with`] runs.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Whether the last slice comes first.
    pub reverse: bool,
    /// What the derivative finds of the iterations; the rest is computed again.
    pub save: Save,
}

impl Default for ScanOptions {
    /// Forward, everything saved.
    fn default() -> Self {
        ScanOptions { reverse: false, save: Save::All }
    }
}

/// A loop with carried state: `f(state, slice) -> (state, output)` for each slice of `inputs`
/// along dimension 0. Gives the last state and the stacked outputs. One iteration is traced,
/// however long the loop. The state keeps its types. What `f` captures is the same in all
/// iterations.
///
/// ```
/// use ferrata::{Tensor, grad, scan};
/// let decayed = |x: &Tensor| {
///     let start = x.at(0).zeros_like();
///     scan(start, x, |state: &Tensor, x: &Tensor| {
///         let state = state * 0.5 + x;
///         (state.clone(), state)
///     })
/// };
/// let x = Tensor::from([1.0f32, 2.0, 4.0]);
/// let (last, all) = decayed(&x);
/// assert_eq!(last.item::<f32>()?, 5.25);
/// assert_eq!(all.to_vec::<f32>()?, [1.0, 2.5, 5.25]);
/// let slope = grad(|x: &Tensor| decayed(x).0)(&x);
/// assert_eq!(slope.to_vec::<f32>()?, [0.25, 0.5, 1.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn scan<C: Tree, X: Tree, Y: Tree>(
    state: C,
    inputs: &X,
    f: impl Fn(&C, &X) -> (C, Y),
) -> (C, Y) {
    scan_with(state, inputs, ScanOptions::default(), f)
}

/// [`scan`] with options.
#[track_caller]
pub fn scan_with<C: Tree, X: Tree, Y: Tree>(
    state: C,
    inputs: &X,
    options: ScanOptions,
    f: impl Fn(&C, &X) -> (C, Y),
) -> (C, Y) {
    let _line = Frame::at(Location::caller());
    let (carry, stacked) = (flatten(&state), flatten(inputs));
    let length = length_of(&stacked);
    let mut like = carry.tensors.clone();
    like.extend(stacked.tensors.iter().map(|t| match &length {
        Ok(_) => Tensor::placeholder(t.ty().with_shape(&t.shape()[1..]), 0),
        Err(error) => Tensor::failed(error.clone()),
    }));
    let mut parts = None;
    let traced = trace("scan", &like, |inside| {
        let (carries, slices) = inside.split_at(carry.tensors.len());
        let (next, output) = f(&carry.rebuild(&state, carries), &stacked.rebuild(inputs, slices));
        let (next_leaves, output_leaves) = (flatten(&next), flatten(&output));
        let all = [&next_leaves.tensors[..], &output_leaves.tensors].concat();
        parts = Some((next, next_leaves, output, output_leaves));
        all
    });
    let Some((next, next_leaves, output, output_leaves)) = parts else {
        unreachable!("the function has run")
    };
    let program = traced.map_err(|untraced: Untraced<Vec<Tensor>>| untraced.error).and_then(|t| {
        let length = length?;
        same_state(&carry, &next_leaves)?;
        Ok((constants_first(&t, like.len())?, t.captured, length))
    });
    match program {
        Err(error) => (failed(&next, &error), failed(&output, &error)),
        Ok((body, captured, length)) => {
            let op = Scan {
                body,
                constants: captured.len(),
                carries: carry.tensors.len(),
                length,
                reverse: options.reverse,
                save: options.save,
            };
            let operands: Vec<&Tensor> =
                captured.iter().chain(&carry.tensors).chain(&stacked.tensors).collect();
            let mut results = Tensor::record(op, &operands);
            let outputs = results.split_off(carry.tensors.len());
            (next_leaves.rebuild(&next, &results), output_leaves.rebuild(&output, &outputs))
        }
    }
}

fn length_of(stacked: &Leaves) -> Result<usize> {
    stacked.check()?;
    let mut length = None;
    for (t, path) in stacked.tensors.iter().zip(&stacked.paths) {
        let Some(&n) = t.shape().first() else {
            return Err(Error::new(format!("scan: input `{path}` is a scalar without slices"))
                .help("capture what is the same in all iterations"));
        };
        if *length.get_or_insert(n) != n {
            let first = length.unwrap_or(n);
            return Err(Error::new(format!("scan: inputs have {first} and {n} slices")));
        }
    }
    length.ok_or_else(|| Error::new("scan: the inputs hold no tensor to take slices of"))
}

fn same_state(before: &Leaves, after: &Leaves) -> Result<()> {
    let (old, new) = (before.types(), after.types());
    if old == new && before.slots == after.slots {
        return Ok(());
    }
    let differing = old.iter().zip(&new).zip(&before.paths).find(|((o, n), _)| o != n);
    Err(match differing {
        Some(((o, n), path)) => Error::new(format!("scan: state `{path}` becomes {n} from {o}")),
        None => Error::new("scan: an iteration changes the structure of the state"),
    }
    .help("the state must keep its shapes and dtypes"))
}

/// The body with captured values before the others.
fn constants_first(trace: &Trace<Vec<Tensor>>, own: usize) -> Result<Arc<Function>> {
    let function = &trace.function;
    let mut b = Builder::new(function.name.clone());
    let types = function.parameter_types();
    let captured: Vec<Value> = types[own..].iter().map(|&t| b.parameter(t.clone())).collect();
    let mut all: Vec<Value> = types[..own].iter().map(|&t| b.parameter(t.clone())).collect();
    all.extend(captured);
    let results = b.inline(function, &all);
    b.finish(&results).map(Arc::new)
}

/// One of two functions of `argument`, chosen by a bool scalar when the program runs. Both must
/// give results of the same structure and types.
///
/// ```
/// use ferrata::{Tensor, cond};
/// let x = Tensor::from(-3.0f32);
/// let y = cond(&x.lt(0.0), &x, |x: &Tensor| -x, |x: &Tensor| x.clone());
/// assert_eq!(y.item::<f32>()?, 3.0);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn cond<A: Tree, R: Tree>(
    condition: &Tensor,
    argument: &A,
    then: impl Fn(&A) -> R,
    otherwise: impl Fn(&A) -> R,
) -> R {
    let _line = Frame::at(Location::caller());
    let leaves = flatten(argument);
    let (yes, result) = match trace_on(argument, &leaves, &then) {
        Ok(traced) => traced,
        Err((_, result)) => return result,
    };
    let (no, other) = match trace_on(argument, &leaves, &otherwise) {
        Ok(traced) => traced,
        Err((_, result)) => return result,
    };
    if yes.leaves.types() != no.leaves.types() || yes.leaves.slots != no.leaves.slots {
        drop(other);
        let error = Error::new("cond: the two functions give results of different types")
            .help("cast or reshape one of them");
        return failed(&result, &error);
    }
    // Both branches take all captured values, each using its own.
    let own = leaves.tensors.len();
    let branch = |function: &Arc<Function>, from: usize| -> Result<Arc<Function>> {
        let mut b = Builder::new(function.name.clone());
        let operands = leaves.tensors.iter().chain(&yes.captured).chain(&no.captured);
        let all: Vec<Value> = operands.map(|t| b.parameter(t.ty().clone())).collect();
        let count = function.parameters().len() - own;
        let used = [&all[..own], &all[from..from + count]].concat();
        let results = b.inline(function, &used);
        b.finish(&results).map(Arc::new)
    };
    let branches = branch(&yes.function, own)
        .and_then(|y| Ok([y, branch(&no.function, own + yes.captured.len())?]));
    match branches {
        Err(error) => failed(&result, &error),
        Ok(branches) => {
            let operands: Vec<&Tensor> = [condition]
                .into_iter()
                .chain(&leaves.tensors)
                .chain(&yes.captured)
                .chain(&no.captured)
                .collect();
            yes.leaves.rebuild(&result, &Tensor::record(Cond { branches }, &operands))
        }
    }
}
