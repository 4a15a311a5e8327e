//! The update rules and their settings.
//!
//! In the formulas `g` is the gradient, `p` the parameter, `wd` the weight decay, and `t` counts
//! steps from 1; what is remembered starts at 0.

use ferrata_ir::DType;

/// An update rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Gradient descent with momentum.
    Sgd(Sgd),
    /// Adam and AdamW.
    Adam(Adam),
    /// Lion.
    Lion(Lion),
    /// RMSprop.
    RmsProp(RmsProp),
    /// Adagrad.
    Adagrad(Adagrad),
    /// Muon.
    Muon(Muon),
}

/// Gradient descent: `g += wd p`; with momentum, `buf = g` at first, then
/// `buf = momentum buf + (1 - dampening) g`; the step is `buf`, or `g + momentum buf` in
/// Nesterov's form. `p -= lr step`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sgd {
    /// Decay of the running direction; 0 keeps none.
    pub momentum: f64,
    /// Part of the gradient that does not enter the running direction.
    pub dampening: f64,
    /// Whether to look one step ahead.
    pub nesterov: bool,
}

/// Adam: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)`. Decoupled (AdamW), `p` is first
/// multiplied by `1 - lr wd`; otherwise `g += wd p`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// Decays `b1` and `b2` of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Whether weight decay acts on the parameter directly (AdamW).
    pub decoupled: bool,
    /// Whether the largest `v` so far is used.
    pub amsgrad: bool,
}

/// Lion: `p -= lr (sign(b1 m + (1 - b1) g) + wd p)`, then `m = b2 m + (1 - b2) g`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lion {
    /// Decays `b1` of the direction and `b2` of the memory.
    pub betas: (f64, f64),
}

/// RMSprop: `g += wd p`, `v = alpha v + (1 - alpha) g^2`; centred, the square of the running mean
/// of `g` is taken off `v`; `u = g / (sqrt(v) + eps)`; with momentum, `buf = momentum buf + u`
/// takes the place of `u`. `p -= lr u`.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// Decay of the mean square.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decay of the running direction; 0 keeps none.
    pub momentum: f64,
    /// Whether to divide by the standard deviation instead of the root mean square.
    pub centered: bool,
}

/// Adagrad: `g += wd p`, `sum += g^2`,
/// `p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(sum) + eps)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    /// How the learning rate falls.
    pub lr_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// What `sum` starts at.
    pub initial: f64,
}

/// Muon, for parameters with two dimensions: `buf = momentum buf + (1 - momentum) g`; the
/// direction is `buf`, or `(1 - momentum) g + momentum buf` in Nesterov's form, made orthogonal by
/// a Newton-Schulz iteration. `p = p (1 - lr wd) - lr scale direction`. Parameters with another
/// number of dimensions use `vectors`.
#[derive(Clone, Debug, PartialEq)]
pub struct Muon {
    /// Decay of the running direction.
    pub momentum: f64,
    /// Whether to look one step ahead.
    pub nesterov: bool,
    /// Rounds of the Newton-Schulz iteration.
    pub rounds: usize,
    /// The dtype of the iteration, which need not be exact; that of the parameter if `None`.
    pub compute: Option<DType>,
    /// Added to the norm by which the direction is divided at first.
    pub eps: f64,
    /// How the length of a step depends on the shape.
    pub scale: MuonScale,
    /// The rule for parameters that are no matrices.
    pub vectors: Adam,
    /// Their learning rate over that of matrices.
    pub vector_lr_scale: f64,
}

/// How the length of a step of [`Muon`] depends on the shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MuonScale {
    /// `sqrt(max(1, rows / columns))`.
    #[default]
    Spectral,
    /// `0.2 sqrt(max(rows, columns))`, which makes steps as long as Adam's.
    Rms,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { betas: (0.9, 0.999), eps: 1e-8, decoupled: false, amsgrad: false }
    }
}

impl Default for Lion {
    fn default() -> Self {
        Lion { betas: (0.9, 0.99) }
    }
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false }
    }
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad { lr_decay: 0.0, eps: 1e-10, initial: 0.0 }
    }
}

impl Default for Muon {
    fn default() -> Self {
        Muon {
            momentum: 0.95,
            nesterov: true,
            rounds: 5,
            compute: None,
            eps: 1e-7,
            scale: MuonScale::Spectral,
            vectors: Adam { betas: (0.9, 0.95), decoupled: true, ..Adam::default() },
            vector_lr_scale: 1.0,
        }
    }
}

macro_rules! rules {
    ($($rule:ident),*) => {$(
        impl From<$rule> for Rule {
            fn from(rule: $rule) -> Rule {
                Rule::$rule(rule)
            }
        }
    )*};
}

rules!(Sgd, Adam, Lion, RmsProp, Adagrad, Muon);
