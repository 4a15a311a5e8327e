//! Soft-max and normalisations.

use crate::tensor::{IntoDims, Tensor, dimension};
use ferrata_ir::composite;

impl Tensor {
    /// `e^x / Σ e^x` along `dim`.
    #[track_caller]
    pub fn softmax(&self, dim: i64) -> Tensor {
        Tensor::op("softmax", &[self], || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built1("softmax", &[self], |b, x| composite::softmax(b, x[0], dim)))
        })
    }

    /// Logarithm of [`Tensor::softmax`], without overflow.
    #[track_caller]
    pub fn log_softmax(&self, dim: i64) -> Tensor {
        Tensor::op("log_softmax", &[self], || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built1("log_softmax", &[self], |b, x| composite::log_softmax(b, x[0], dim)))
        })
    }

    /// `log Σ e^x` over dimensions, without overflow.
    #[track_caller]
    pub fn logsumexp(&self, dims: impl IntoDims) -> Tensor {
        self.reduced_by("logsumexp", dims, composite::logsumexp)
    }

    /// `(x - mean) / sqrt(variance + eps)` over the last `dims` dimensions, times `weight` plus
    /// `bias`, which have the shape of these.
    #[track_caller]
    pub fn layer_norm(
        &self,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        dims: usize,
        eps: f64,
    ) -> Tensor {
        let inputs: Vec<&Tensor> = [Some(self), weight, bias].into_iter().flatten().collect();
        Tensor::built1("layer_norm", &inputs, |b, x| {
            let bias = bias.and_then(|_| x.last().copied());
            composite::layer_norm(b, x[0], weight.map(|_| x[1]), bias, dims, eps)
        })
    }

    /// `x / sqrt(mean(x²) + eps) (weight + offset)` over the last dimension.
    #[track_caller]
    pub fn rms_norm(&self, weight: &Tensor, eps: f64, offset: f64) -> Tensor {
        Tensor::built1("rms_norm", &[self, weight], |b, x| {
            composite::rms_norm(b, x[0], x[1], eps, offset)
        })
    }

    /// Normalises consecutive groups of channels (dimension 1), for each sample.
    #[track_caller]
    pub fn group_norm(&self, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Tensor {
        Tensor::built1("group_norm", &[self, weight, bias], |b, x| {
            composite::group_norm(b, x[0], x[1], x[2], groups, eps)
        })
    }

    /// Normalises each channel (dimension 1) of each sample.
    #[track_caller]
    pub fn instance_norm(&self, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
        let channels = self.size(1);
        self.group_norm(weight, bias, channels, eps)
    }

    /// Normalises each channel (dimension 1) by given statistics, one number per channel.
    #[track_caller]
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        eps: f64,
    ) -> Tensor {
        Tensor::built1("batch_norm", &[self, weight, bias, mean, variance], |b, x| {
            composite::batch_norm(b, x[0], [x[1], x[2], x[3], x[4]], eps)
        })
    }

    /// Normalises each channel (dimension 1) by the statistics of the batch. Gives the result and
    /// the new running mean and variance.
    #[track_caller]
    pub fn batch_norm_train(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        running: (&Tensor, &Tensor),
        momentum: f64,
        eps: f64,
    ) -> (Tensor, Tensor, Tensor) {
        let inputs = [self, weight, bias, running.0, running.1];
        let mut results = Tensor::built("batch_norm_train", &inputs, 3, |b, x| {
            let y = composite::batch_norm_train(b, x[0], [x[1], x[2], x[3], x[4]], momentum, eps);
            vec![y.y, y.running_mean, y.running_variance]
        });
        let variance = results.swap_remove(2);
        let mean = results.swap_remove(1);
        (results.swap_remove(0), mean, variance)
    }

    /// `x / max(norm₂(x), eps)` along `dim`.
    #[track_caller]
    pub fn l2_normalize(&self, dim: i64, eps: f64) -> Tensor {
        Tensor::op("l2_normalize", &[self], || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built1("l2_normalize", &[self], |b, x| {
                composite::l2_normalize(b, x[0], dim, eps)
            }))
        })
    }
}
