//! Losses.

use crate::tensor::{Tensor, dimension};
use ferrata_ir::composite::{self, CrossEntropy};
use ferrata_ir::{Result, Value};

pub use ferrata_ir::composite::Reduction;

/// Settings of [`Tensor::cross_entropy_with`] and [`Tensor::nll_with`].
#[derive(Clone, Debug)]
pub struct Classes {
    /// Dimension that counts the classes; negative ones count from the end.
    pub dim: i64,
    /// One number per class.
    pub weight: Option<Tensor>,
    /// Positions with this class id cost nothing.
    pub ignore: Option<i64>,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// What becomes of the costs of the positions.
    pub reduction: Reduction,
}

impl Default for Classes {
    /// The mean over positions, classes in the last dimension.
    fn default() -> Self {
        Classes {
            dim: -1,
            weight: None,
            ignore: None,
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
        }
    }
}

impl Classes {
    fn settings(&self, rank: usize) -> Result<CrossEntropy> {
        Ok(CrossEntropy {
            dim: dimension(self.dim, rank)?,
            ignore_index: self.ignore,
            label_smoothing: self.label_smoothing,
            reduction: self.reduction,
        })
    }
}

impl Tensor {
    /// Mean cross-entropy of logits, with classes in the last dimension, against class ids of the
    /// remaining shape, or probabilities of the same shape.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let logits = Tensor::from([[0.0f32, 0.0], [0.0, 100.0]]);
    /// let loss = logits.cross_entropy(&Tensor::from([0i64, 1])).item::<f32>()?;
    /// assert!((loss - 2f32.ln() / 2.0).abs() < 1e-6);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn cross_entropy(&self, target: &Tensor) -> Tensor {
        self.cross_entropy_with(target, &Classes::default())
    }

    /// Cross-entropy with class weights, an ignored id, label smoothing, and other reductions.
    #[track_caller]
    pub fn cross_entropy_with(&self, target: &Tensor, classes: &Classes) -> Tensor {
        let inputs: Vec<&Tensor> = [self, target].into_iter().chain(&classes.weight).collect();
        Tensor::op("cross_entropy", &inputs, || {
            let settings = classes.settings(self.rank())?;
            Ok(Tensor::built1("cross_entropy", &inputs, |b, x| {
                composite::cross_entropy(b, x[0], x[1], x.get(2).copied(), &settings)
            }))
        })
    }

    /// `-x[target]` of logarithms of probabilities, else as [`Tensor::cross_entropy_with`].
    #[track_caller]
    pub fn nll_with(&self, target: &Tensor, classes: &Classes) -> Tensor {
        let inputs: Vec<&Tensor> = [self, target].into_iter().chain(&classes.weight).collect();
        Tensor::op("nll", &inputs, || {
            let settings = classes.settings(self.rank())?;
            Ok(Tensor::built1("nll", &inputs, |b, x| {
                composite::nll(b, x[0], x[1], x.get(2).copied(), &settings)
            }))
        })
    }

    /// `(x - target)²`.
    #[track_caller]
    pub fn mse(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        Tensor::built1("mse", &[self, target], |b, x| composite::mse(b, x[0], x[1], reduction))
    }

    /// `|x - target|`.
    #[track_caller]
    pub fn l1(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        Tensor::built1("l1", &[self, target], |b, x| composite::l1(b, x[0], x[1], reduction))
    }

    /// With `d = |x - target|`: `d² / 2` up to `delta`, then `delta (d - delta / 2)`.
    #[track_caller]
    pub fn huber(&self, target: &Tensor, delta: f64, reduction: Reduction) -> Tensor {
        Tensor::built1("huber", &[self, target], |b, x| {
            composite::huber(b, x[0], x[1], delta, reduction)
        })
    }

    /// With `d = |x - target|`: `d² / (2 beta)` below `beta`, then `d - beta / 2`.
    #[track_caller]
    pub fn smooth_l1(&self, target: &Tensor, beta: f64, reduction: Reduction) -> Tensor {
        Tensor::built1("smooth_l1", &[self, target], |b, x| {
            composite::smooth_l1(b, x[0], x[1], beta, reduction)
        })
    }

    /// Binary cross-entropy of probabilities.
    #[track_caller]
    pub fn bce(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        Tensor::built1("bce", &[self, target], |b, x| composite::bce(b, x[0], x[1], reduction))
    }

    /// Binary cross-entropy of logits; `weight` multiplies the positive part and broadcasts.
    #[track_caller]
    pub fn bce_with_logits(
        &self,
        target: &Tensor,
        weight: Option<&Tensor>,
        reduction: Reduction,
    ) -> Tensor {
        let given: Vec<&Tensor> = [self, target].into_iter().chain(weight).collect();
        Tensor::op("bce_with_logits", &given, || {
            let weight = weight.map(|w| w.broadcast_to(self.shape()));
            let inputs: Vec<&Tensor> = [self, target].into_iter().chain(&weight).collect();
            Ok(Tensor::built1("bce_with_logits", &inputs, |b, x: &[Value]| {
                composite::bce_with_logits(b, x[0], x[1], x.get(2).copied(), reduction)
            }))
        })
    }

    /// `target (log target - x)`, with `x` the logarithms of probabilities.
    #[track_caller]
    pub fn kl_div(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        Tensor::built1("kl_div", &[self, target], |b, x| {
            composite::kl_div(b, x[0], x[1], reduction)
        })
    }
}
