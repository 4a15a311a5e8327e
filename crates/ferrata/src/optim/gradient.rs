//! What happens to gradients before the update, and to parameters after it.

use crate::tensor::Tensor;
use crate::tree::{self, Tree};
use ferrata_ir::DType;

/// Added to the norm by which gradients are divided, so that zero gradients stay zero.
const NORM_EPS: f64 = 1e-6;

/// The root of the sum of all squares of the float tensors of a tree, tied parameters once; f64 if
/// one of them is, else f32.
#[track_caller]
pub fn global_norm(tree: &impl Tree) -> Tensor {
    let floats: Vec<Tensor> =
        tree::leaves(tree).into_iter().filter(|t| t.dtype().is_float()).collect();
    let wide = floats.iter().any(|t| t.dtype() == DType::F64);
    let dtype = if wide { DType::F64 } else { DType::F32 };
    let squares = floats.iter().map(|t| t.cast(dtype).square().sum(..));
    let sum = squares.reduce(|a, b| a + b);
    sum.unwrap_or_else(|| Tensor::zeros((), dtype)).sqrt()
}

/// The gradients scaled down to a global norm of about `limit` if it is above, by the factor
/// `min(1, limit / (norm + 1e-6))`; and the norm before.
#[track_caller]
pub fn clip_by_norm<T: Tree>(gradients: &T, limit: f64) -> (T, Tensor) {
    let norm = global_norm(gradients);
    let factor = (limit / (&norm + NORM_EPS)).minimum(1.0);
    let clipped = tree::map(gradients, |g| match g.dtype().is_float() {
        true => g * factor.cast(g.dtype()),
        false => g.clone(),
    });
    (clipped, norm)
}

/// The gradients with every element limited to `-limit ..= limit`.
#[track_caller]
pub fn clip_by_value<T: Tree>(gradients: &T, limit: f64) -> T {
    tree::map(gradients, |g| match g.dtype().is_float() {
        true => g.clamp(-limit, limit),
        false => g.clone(),
    })
}

/// The sum of the gradients of the microbatches so far and those of the next one.
#[track_caller]
pub fn accumulate<T: Tree + Clone>(sum: Option<&T>, gradients: &T) -> T {
    sum.map_or_else(|| gradients.clone(), |sum| tree::zip(sum, gradients, |a, b| a + b))
}

/// The mean gradient of `count` microbatches from their sum.
#[track_caller]
pub fn average<T: Tree>(sum: &T, count: usize) -> T {
    let factor = 1.0 / count.max(1) as f64;
    tree::map(sum, |g| if g.dtype().is_float() { g * factor } else { g.clone() })
}

/// The exponential moving average of parameters: `decay average + (1 - decay) new`, for a scalar
/// `decay`.
#[track_caller]
pub fn moving_average<T: Tree>(average: &T, new: &T, decay: &Tensor) -> T {
    let (kept, added) = (decay, 1.0 - decay);
    tree::zip(average, new, |a, b| match a.dtype().is_float() {
        true => a * kept.cast(a.dtype()) + b * added.cast(a.dtype()),
        false => b.clone(),
    })
}
