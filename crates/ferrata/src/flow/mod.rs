//! Flow matching (Lipman et al. 2023): a velocity field that carries noise to data.
//!
//! Time 0 is noise, time 1 is data, and a path between a pair is straight:
//! `x_t = (1 - t) noise + t data` with the velocity `data - noise`. A network learns the mean
//! velocity of all paths through a point, `v(x, t) = E[data - noise | x_t = x]`
//! ([`between`], [`loss`]); following it from noise makes data ([`Sampler`]), following it back
//! from data gives the exact density there ([`log_likelihood`]).
//!
//! Everything here is a plain function of tensors: batches `[batch, ..]` of any shape with a time
//! for each sample, `[batch]`.
//!
//! ```
//! use ferrata::flow::{Mixture, Sampler, between, log_likelihood, loss};
//! use ferrata::{DType, Key, Tensor};
//! // Data of which everything is known: normal with mean 3 and standard deviation 0.5.
//! let field = Mixture::new(&[vec![3.0]], &[0.5], &[1.0], DType::F64)?;
//! let noise = Tensor::from([[-1.0f64], [0.0], [1.0]]);
//!
//! let sampler = Sampler { steps: 8, ..Sampler::default() };
//! let data = sampler.sample(&noise, |x, t| Ok(field.velocity(x, t)))?;
//! assert!((data - (&noise * 0.5 + 3.0)).abs().max(..).item::<f64>()? < 0.02);
//!
//! let x = Tensor::from([[3.0f64]]);
//! let density = log_likelihood(&x, 50, |x, t| field.velocity(x, t))?;
//! assert!((density - field.log_density(&x)).abs().item::<f64>()? < 1e-6);
//! # Ok::<(), ferrata::Error>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `path` | times to learn at, points between noise and data, velocities, the loss, guidance |
//! | `sample` | [`Sampler`]: solvers and their time grid |
//! | `likelihood` | exact log-likelihood by the change of variables |
//! | `mixture` | [`Mixture`]: data whose velocity and density are known |

mod likelihood;
mod mixture;
mod path;
mod sample;

pub use likelihood::log_likelihood;
pub use mixture::Mixture;
pub use path::{Times, between, guided, loss, noised, towards};
pub use sample::{Sampler, Solver};

use crate::tensor::Tensor;
use ferrata_ir::{Error, Result};

/// The time `t` for each sample of `x [batch, ..]`: `[batch]`, in f32, or in f64 if `x` is. It is a
/// value and no constant, so that programs that take it are the same for all times.
fn times_of(x: &Tensor, t: f64) -> Tensor {
    Tensor::from(t).cast(x.dtype().accumulator()).expand([x.size(0)])
}

/// A number as a scalar of the dtype of `x`, again as a value.
fn scalar(x: &Tensor, value: f64) -> Tensor {
    Tensor::from(value).cast(x.dtype())
}

/// Checks that there are samples of floats, and steps to take.
fn check(x: &Tensor, steps: usize) -> Result<()> {
    if let Some(error) = x.error() {
        return Err(error);
    }
    if x.rank() == 0 || !x.dtype().is_float() {
        return Err(Error::new(format!("{} is no batch of samples", x.ty()))
            .help("give floats [batch, ..]"));
    }
    if steps == 0 {
        return Err(Error::new("a flow cannot be followed in 0 steps").help("set `steps` above 0"));
    }
    Ok(())
}

/// The velocity of `x` in its dtype, if it has its shape.
fn fitting(velocity: Tensor, x: &Tensor) -> Result<Tensor> {
    if let Some(error) = velocity.error() {
        return Err(error);
    }
    if velocity.shape() != x.shape() {
        let (v, x) = (velocity.ty(), x.ty());
        return Err(Error::new(format!("the velocity of {x} is {v}"))
            .help("it must have the shape of the samples"));
    }
    Ok(velocity.cast(x.dtype()))
}
