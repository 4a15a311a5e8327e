//! What a network learns from: times, points between noise and data, velocities.

use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_ir::DType;

/// How times to learn at are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Times {
    /// All times alike.
    Uniform,
    /// `sigmoid(mean + std n)` with a standard normal `n`: most of them near the middle, where the
    /// velocity is hardest to tell (Esser et al. 2024). In that paper time 1 is noise, so a mean
    /// of theirs is `-mean` here.
    LogitNormal {
        /// Above 0: later, nearer to the data.
        mean: f64,
        /// Spread.
        std: f64,
    },
}

impl Default for Times {
    /// Logit-normal with mean 0 and standard deviation 1.
    fn default() -> Self {
        Times::LogitNormal { mean: 0.0, std: 1.0 }
    }
}

impl Times {
    /// Random times, f32 `[count]`.
    ///
    /// ```
    /// use ferrata::{Key, flow::Times};
    /// let late = Times::LogitNormal { mean: 2.0, std: 0.1 }.draw(1000, &Key::new(1));
    /// let median = late.sort(0, false).0.at(500).item::<f32>()?;
    /// assert!((median - 1.0 / (1.0 + (-2f32).exp())).abs() < 1e-2);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn draw(&self, count: usize, key: &Key) -> Tensor {
        match *self {
            Times::Uniform => Tensor::rand([count], DType::F32, key),
            Times::LogitNormal { mean, std } => {
                (Tensor::randn([count], DType::F32, key) * std + mean).sigmoid()
            }
        }
    }
}

/// The points `(1 - t) noise + t data` for noise and data `[batch, ..]` and times `[batch]`.
#[track_caller]
pub fn between(noise: &Tensor, data: &Tensor, t: &Tensor) -> Tensor {
    Tensor::op("between", &[noise, data, t], || Ok(noise.lerp(data, each(t, data))))
}

/// A number for each sample of `x [batch, ..]`, in its dtype and rank.
fn each(numbers: &Tensor, x: &Tensor) -> Tensor {
    let mut shape = vec![1; x.rank()];
    if let Some(batch) = shape.first_mut() {
        *batch = numbers.elements();
    }
    numbers.cast(x.dtype()).reshape(shape)
}

/// A point on the way from random noise to each sample of `data [batch, ..]` at a random time: the
/// points, the times `[batch]`, and the noise.
#[track_caller]
pub fn noised(data: &Tensor, times: &Times, key: &Key) -> (Tensor, Tensor, Tensor) {
    let t = times.draw(data.size(0), &key.fold(0));
    let noise = Tensor::randn(data.shape(), data.dtype(), &key.fold(1));
    (between(&noise, data, &t), t, noise)
}

/// The time that is left is taken for no less than this where a velocity is divided by it.
const LEAST_LEFT: f64 = 0.05;

/// The velocity from the points `x [batch, ..]` at times `t [batch]` to the `data` that are expected
/// at time 1, in the dtype of `x`: `(data - x) / (1 - t)`, where the time that is left counts for
/// 0.05 at least. A network that tells `data` need not pass on the noise that it sees (Li & He 2025).
#[track_caller]
pub fn towards(data: &Tensor, x: &Tensor, t: &Tensor) -> Tensor {
    Tensor::op("towards", &[data, x, t], || {
        Ok((data.cast(x.dtype()) - x) / each(&(1.0 - t).maximum(LEAST_LEFT), x))
    })
}

/// The mean square distance of predicted velocities from `data - noise`, all of one shape: a
/// scalar, in f32 for half precision.
#[track_caller]
pub fn loss(predicted: &Tensor, noise: &Tensor, data: &Tensor) -> Tensor {
    Tensor::op("flow loss", &[predicted, noise, data], || {
        let wide = |x: &Tensor| x.cast(x.dtype().accumulator());
        let target = wide(data) - wide(noise);
        Ok(wide(predicted).mse(&target, crate::Reduction::Mean))
    })
}

/// Classifier-free guidance (Ho & Salimans 2022): from the unconditional velocity through the
/// conditional one; a `scale` of 1 gives the conditional one, more of it exaggerates the condition.
#[track_caller]
pub fn guided(conditional: &Tensor, unconditional: &Tensor, scale: f64) -> Tensor {
    unconditional.lerp(conditional, scale)
}
