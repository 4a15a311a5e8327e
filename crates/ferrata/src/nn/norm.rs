//! Normalisation of channels.

use super::Context;
use crate::module::Module;
use crate::tensor::Tensor;
use ferrata_ir::DType;

/// Normalises each channel: by the statistics of the batch in training, by their running means in
/// evaluation. New running means are noted in the context ([`Context::update`]).
///
/// ```
/// use ferrata::nn::{BatchNorm, Context};
/// use ferrata::{DType, Key, Module, Tensor};
/// let layer = BatchNorm::new(3);
/// let x = Tensor::iota([4, 3, 2, 2], 0, DType::F32);
/// let mut cx = Context::train(Key::new(0));
/// let y = layer.forward(&x, &mut cx);
/// assert!(y.mean(..).item::<f32>()?.abs() < 1e-6);
/// let layer = layer.updated(&cx.updates(&layer));
/// assert!((layer.running_mean.at(0).item::<f32>()? - 0.1 * 1.5).abs() < 1e-6);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct BatchNorm {
    /// `[channels]`.
    pub weight: Tensor,
    /// `[channels]`.
    pub bias: Tensor,
    /// `[channels]`; state, not trained.
    pub running_mean: Tensor,
    /// `[channels]`; state, not trained.
    pub running_var: Tensor,
    /// How much of the batch's statistics goes into the running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

impl BatchNorm {
    /// A layer for inputs `[batch, channels, ..]`; momentum 0.1, `eps` 1e-5.
    #[track_caller]
    pub fn new(channels: usize) -> Self {
        BatchNorm {
            weight: Tensor::ones([channels], DType::F32),
            bias: Tensor::zeros([channels], DType::F32),
            running_mean: Tensor::zeros([channels], DType::F32),
            running_var: Tensor::ones([channels], DType::F32),
            momentum: 0.1,
            eps: 1e-5,
        }
    }

    /// The same shape as `x [batch, channels, ..]`. Parameters and statistics stay in their own
    /// dtype.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.cast(x);
        let (mean, variance) = (&self.running_mean, &self.running_var);
        if !cx.is_training() {
            return x.batch_norm(&self.weight, &self.bias, mean, variance, self.eps);
        }
        let (y, new_mean, new_variance) =
            x.batch_norm_train(&self.weight, &self.bias, (mean, variance), self.momentum, self.eps);
        cx.update(mean, new_mean);
        cx.update(variance, new_variance);
        y
    }
}

/// Normalises groups of channels of each sample.
#[derive(Clone, Debug, Module)]
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Tensor,
    /// `[channels]`.
    pub bias: Tensor,
    /// Number of groups, a divisor of the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// A layer for inputs `[batch, channels, ..]`; `eps` is 1e-5.
    #[track_caller]
    pub fn new(groups: usize, channels: usize) -> Self {
        GroupNorm {
            weight: Tensor::ones([channels], DType::F32),
            bias: Tensor::zeros([channels], DType::F32),
            groups,
            eps: 1e-5,
        }
    }

    /// The same shape as `x [batch, channels, ..]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        cx.cast(x).group_norm(&self.weight, &self.bias, self.groups, self.eps)
    }
}

/// Normalises each channel of each sample.
#[derive(Clone, Debug, Module)]
pub struct InstanceNorm {
    /// `[channels]`.
    pub weight: Tensor,
    /// `[channels]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl InstanceNorm {
    /// A layer for inputs `[batch, channels, ..]`; `eps` is 1e-5.
    #[track_caller]
    pub fn new(channels: usize) -> Self {
        InstanceNorm {
            weight: Tensor::ones([channels], DType::F32),
            bias: Tensor::zeros([channels], DType::F32),
            eps: 1e-5,
        }
    }

    /// The same shape as `x [batch, channels, ..]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        cx.cast(x).instance_norm(&self.weight, &self.bias, self.eps)
    }
}
