//! Functions of one sample, applied to a batch.

use super::derivative::trace_on;
use super::trace::inputs;
use crate::tensor::{Frame, Tensor};
use crate::tree::{Tree, failed, flatten};
use ferrata_ir::{Error, Result, Type, transform};
use std::panic::Location;

/// A function of one sample becomes a function of a batch: every tensor of the argument has the
/// samples along dimension 0, and so has every tensor of the result. What the function captures
/// is the same for all samples.
///
/// ```
/// use ferrata::{Tensor, grad, vmap};
/// // Gradients of every example on its own.
/// let w = Tensor::from(3.0f32);
/// let xs = Tensor::from([1.0f32, 2.0, 4.0]);
/// let each = vmap(|x: &Tensor| grad(|w: &Tensor| (w * x).square())(&w))(&xs);
/// assert_eq!(each.to_vec::<f32>()?, [6.0, 24.0, 96.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[track_caller]
pub fn vmap<A: Tree, R: Tree>(f: impl Fn(&A) -> R) -> impl Fn(&A) -> R {
    let line = Location::caller();
    move |argument: &A| {
        let _line = Frame::at(line);
        let mut leaves = flatten(argument);
        let outer = leaves.tensors.clone();
        let (size, sample) = match sample_types(&outer) {
            Ok(found) => found,
            // The function still has to say what its result looks like.
            Err(error) => (0, outer.iter().map(|_| Err(error.clone())).collect()),
        };
        leaves.tensors = sample
            .into_iter()
            .map(|ty| match ty {
                Ok(ty) => Tensor::placeholder(ty, 0),
                Err(error) => Tensor::failed(error),
            })
            .collect();
        let (traced, result) = match trace_on(argument, &leaves, &f) {
            Ok(traced) => traced,
            Err((_, result)) => return result,
        };
        let marks: Vec<bool> =
            outer.iter().map(|_| true).chain(traced.captured.iter().map(|_| false)).collect();
        match transform::vmap(&traced.function, &marks, size) {
            Err(error) => failed(&result, &error),
            Ok(program) => {
                let results = Tensor::call(&program, false, &inputs(&outer, &traced.captured));
                traced.leaves.rebuild(&result, &results)
            }
        }
    }
}

/// The number of samples, and the type of one sample of each tensor.
fn sample_types(tensors: &[Tensor]) -> Result<(usize, Vec<Result<Type>>)> {
    if let Some(error) = tensors.iter().find_map(|t| t.error()) {
        return Err(error);
    }
    let mut size = None;
    let mut types = Vec::new();
    for tensor in tensors {
        let Some((&n, rest)) = tensor.shape().split_first() else {
            return Err(Error::new("vmap: a scalar has no dimension of samples")
                .help("capture what is the same for all samples instead of passing it"));
        };
        if *size.get_or_insert(n) != n {
            let first = size.unwrap_or(n);
            return Err(Error::new(format!("vmap: arguments have {first} and {n} samples")));
        }
        types.push(Ok(Type::new(tensor.dtype(), rest)));
    }
    let size = size.ok_or_else(|| Error::new("vmap: the argument holds no tensor"))?;
    Ok((size, types))
}
