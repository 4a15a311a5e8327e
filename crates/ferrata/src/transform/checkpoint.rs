//! Recomputation: memory for time.

use super::derivative::trace_on;
use super::trace::inputs;
use crate::tensor::{Frame, Tensor};
use crate::tree::{Tree, flatten};
use std::panic::Location;

/// The same function, whose derivative keeps only its inputs and computes the rest again.
///
/// ```
/// use ferrata::{Tensor, checkpoint, grad};
/// let block = checkpoint(|x: &Tensor| x.exp().sin());
/// let x = Tensor::from(0.5f64);
/// let slope = grad(|x: &Tensor| block(x))(&x).item::<f64>()?;
/// assert!((slope - 0.5f64.exp().cos() * 0.5f64.exp()).abs() < 1e-12);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn checkpoint<A: Tree, R: Tree>(f: impl Fn(&A) -> R) -> impl Fn(&A) -> R {
    let line = Location::caller();
    move |argument: &A| {
        let _line = Frame::at(line);
        let leaves = flatten(argument);
        match trace_on(argument, &leaves, &f) {
            Err((_, result)) => result,
            Ok((traced, result)) => {
                let all = inputs(&leaves.tensors, &traced.captured);
                traced.leaves.rebuild(&result, &Tensor::call(&traced.function, true, &all))
            }
        }
    }
}
