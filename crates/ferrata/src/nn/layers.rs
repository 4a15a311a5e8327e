//! Simple layers.

use super::{Context, Init};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_ir::DType;

/// `x Wᵀ + b`.
///
/// ```
/// use ferrata::nn::{Context, Linear};
/// use ferrata::{DType, Key, Module, Tensor};
/// let layer = Linear::new(3, 2, &Key::new(0));
/// let y = layer.forward(&Tensor::ones([5, 3], DType::F32), &mut Context::eval());
/// assert_eq!(y.shape(), [5, 2]);
/// assert_eq!(layer.parameter_count(), 8);
/// ```
#[derive(Clone, Debug, Module)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A layer with bias, initialised as PyTorch does.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, key: &Key) -> Self {
        let bias = Init::Uniform(1.0 / (inputs.max(1) as f64).sqrt());
        Linear {
            weight: Init::FanIn.make(&[outputs, inputs], DType::F32, &key.fold(0)),
            bias: Some(bias.make(&[outputs], DType::F32, &key.fold(1))),
        }
    }

    /// A layer with the given initial weight, and a bias of zeros if wanted.
    #[track_caller]
    pub fn with_init(inputs: usize, outputs: usize, bias: bool, weight: Init, key: &Key) -> Self {
        Linear {
            weight: weight.make(&[outputs, inputs], DType::F32, key),
            bias: bias.then(|| Tensor::zeros([outputs], DType::F32)),
        }
    }

    /// `x [.., inputs]` becomes `[.., outputs]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let bias = self.bias.as_ref().map(|b| cx.cast(b));
        cx.cast(x).linear(&cx.cast(&self.weight), bias.as_ref())
    }
}

/// A table with a row for each id.
#[derive(Clone, Debug, Module)]
pub struct Embedding {
    /// `[ids, width]`.
    pub weight: Tensor,
}

impl Embedding {
    /// A table of standard normal numbers.
    #[track_caller]
    pub fn new(ids: usize, width: usize, key: &Key) -> Self {
        Embedding::with_init(ids, width, Init::Normal(1.0), key)
    }

    /// A table with the given initial values.
    #[track_caller]
    pub fn with_init(ids: usize, width: usize, init: Init, key: &Key) -> Self {
        Embedding { weight: init.make(&[ids, width], DType::F32, key) }
    }

    /// Rows at `ids [..]`, integers: `[.., width]`.
    #[track_caller]
    pub fn forward(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        cx.cast(&self.weight.embedding(ids, None))
    }

    /// Scores of every id for `x [.., width]`: the output layer that shares this table.
    #[track_caller]
    pub fn attend(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        cx.cast(x).linear(&cx.cast(&self.weight), None)
    }
}

/// Normalises the last dimension to mean 0 and variance 1, times a weight plus a bias.
#[derive(Clone, Debug, Module)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Tensor,
    /// `[width]`.
    pub bias: Option<Tensor>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// A layer for inputs `[.., width]`, with bias; `eps` is 1e-5.
    #[track_caller]
    pub fn new(width: usize) -> Self {
        LayerNorm {
            weight: Tensor::ones([width], DType::F32),
            bias: Some(Tensor::zeros([width], DType::F32)),
            eps: 1e-5,
        }
    }

    /// The same shape and dtype as `x`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.cast(x);
        let weight = self.weight.cast(x.dtype());
        let bias = self.bias.as_ref().map(|b| b.cast(x.dtype()));
        x.layer_norm(Some(&weight), bias.as_ref(), 1, self.eps)
    }
}

/// Normalises the last dimension to a mean square of 1, times a weight.
#[derive(Clone, Debug, Module)]
pub struct RmsNorm {
    /// `[width]`.
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// A layer for inputs `[.., width]`.
    #[track_caller]
    pub fn new(width: usize, eps: f64) -> Self {
        RmsNorm { weight: Tensor::ones([width], DType::F32), eps }
    }

    /// The same shape and dtype as `x`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.cast(x);
        x.rms_norm(&self.weight.cast(x.dtype()), self.eps, 0.0)
    }
}

/// Sets elements to 0 with some probability, in training only.
#[derive(Clone, Debug, Module)]
pub struct Dropout {
    /// The probability.
    pub rate: f64,
}

impl Dropout {
    /// With this probability.
    pub fn new(rate: f64) -> Self {
        Dropout { rate }
    }

    /// The same shape and dtype as `x`. Training with a rate above 0 needs a context with a key.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        if !cx.is_training() || self.rate == 0.0 {
            return x.clone();
        }
        match cx.key() {
            Ok(key) => x.dropout(self.rate, &key),
            Err(error) => Tensor::op("dropout", &[x], || Err(error)),
        }
    }
}
