//! What to train, on what, and how: the sections of a configuration file.
//!
//! ```toml
//! [model]
//! kind = "gpt2"
//! layers = 4
//! heads = 4
//! dim = 128
//! context = 64
//!
//! [data]
//! kind = "text"           # the default; or "images"
//! text = "book.txt"       # a file, a folder, or a list of them
//! tokenizer = "char"
//!
//! [train]
//! steps = 2000
//! batch = 12
//!
//! [optimizer]
//! kind = "adamw"
//! lr = 1e-3
//!
//! [schedule]
//! kind = "cosine"
//! warmup = 100
//! final_lr = 1e-4
//! ```
//!
//! Every key has a default except those whose absence [`Config::check`] reports. Unknown keys are
//! errors that suggest the nearest known one.

mod check;
mod data;
mod flow;
mod load;
mod model;
mod parallel;
mod plan;
mod size;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use data::{CropKind, DataSection, ImageSection, TextSection};
pub use flow::{FlowSection, TimesKind};
pub use load::{Override, Source};
pub use model::{ModelKind, ModelSection, StemKind};
pub use parallel::ParallelSection;
pub use size::Size;

/// A whole configuration; see the module's documentation for the form of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The architecture; absent if the weights of an existing model are the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSection>,
    /// What to learn from.
    pub data: DataSection,
    /// How a text-to-image model learns and paints.
    #[serde(skip_serializing_if = "FlowSection::is_default")]
    pub flow: FlowSection,
    /// Length, batch, reporting, checkpoints.
    pub train: TrainSection,
    /// The update rule.
    pub optimizer: OptimizerSection,
    /// The course of the learning rate.
    pub schedule: ScheduleSection,
    /// How the run is spread over ranks.
    #[serde(skip_serializing_if = "ParallelSection::is_default")]
    pub parallel: ParallelSection,
}

/// The dtype of activations and matrix products; parameters are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeType {
    /// Single precision throughout.
    #[default]
    F32,
    /// Mixed precision: `f32` parameters, `bf16` compute.
    Bf16,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Model directory whose weights are the start, in place of random ones; its shape is used
    /// and `[model]` is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Number of optimiser steps.
    pub steps: u64,
    /// Sequences or images per microbatch.
    pub batch: usize,
    /// Microbatches per step; their gradients are averaged.
    pub accumulate: usize,
    /// Seed of the initial weights, the order of the data, dropout and samples.
    pub seed: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between evaluations on the validation part; 0 means at the end only.
    pub eval_every: u64,
    /// Steps between samples; 0 means none.
    pub sample_every: u64,
    /// Length of a sample in tokens.
    pub sample_tokens: usize,
    /// What samples begin with; the start of the validation part if empty.
    pub prompt: String,
    /// Steps between checkpoints; 0 means at the end only.
    pub checkpoint_every: u64,
    /// Number of latest checkpoints that are kept, beside the best one.
    pub keep: usize,
    /// Compute precision.
    pub dtype: ComputeType,
    /// How much memory a step may occupy: `"4GB"`. What does not fit is computed again in the
    /// backward pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Layers of a language model, numbered from 0, of which only the input is kept for the
    /// backward pass; the rest is computed again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recompute: Vec<usize>,
    /// Threads; 0 means one per core, or a fair share of them for each of several ranks that a
    /// launcher starts on one machine. The result does not depend on it.
    pub threads: usize,
    /// Decay of an exponential moving average of the weights, which is then evaluated, sampled
    /// and exported; 0 means none. At first it is less: `(1 + step) / (10 + step)`.
    pub ema: f64,
    /// Share of the target that is spread over all tokens or classes.
    pub label_smoothing: f64,
    /// Parameters whose path matches one of these are not trained; `*` stands for any characters:
    /// `transformer.wte.*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Gradients are scaled down to this global norm; 0 means never.
    pub clip_norm: f64,
    /// Every gradient entry is limited to this size; 0 means never.
    pub clip_value: f64,
    /// Whether to find the first node that makes a NaN or an infinity, should the loss become
    /// one.
    pub watch_nan: bool,
}

impl Default for TrainSection {
    fn default() -> Self {
        TrainSection {
            init: None,
            steps: 1000,
            batch: 8,
            accumulate: 1,
            seed: 0,
            log_every: 1,
            eval_every: 250,
            sample_every: 0,
            sample_tokens: 128,
            prompt: String::new(),
            checkpoint_every: 500,
            keep: 2,
            dtype: ComputeType::F32,
            memory: None,
            recompute: Vec::new(),
            threads: 0,
            ema: 0.0,
            label_smoothing: 0.0,
            freeze: Vec::new(),
            clip_norm: 0.0,
            clip_value: 0.0,
            watch_nan: false,
        }
    }
}

/// The update rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Gradient descent, with `momentum`, `dampening` and `nesterov`.
    Sgd,
    /// Adam; `weight_decay` is added to the gradient.
    Adam,
    /// Adam with decoupled `weight_decay`.
    #[default]
    AdamW,
    /// The sign of an interpolated momentum.
    Lion,
    /// Division by a moving root mean square.
    RmsProp,
    /// Division by the root of the sum of squares.
    Adagrad,
    /// Orthogonalised momentum on matrices, AdamW on everything else.
    Muon,
}

/// Which parameters weight decay acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayOn {
    /// Parameters with two or more dimensions.
    #[default]
    Matrices,
    /// All parameters.
    All,
}

/// `[optimizer]`. Keys that the kind has no use for are errors; those that are absent take the
/// usual values of the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSection {
    /// The update rule.
    pub kind: OptimizerKind,
    /// The highest learning rate; the schedule scales it.
    pub lr: f64,
    /// Decay of the first and second moments (Adam, AdamW, Lion; Muon's vectors).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<Vec<f64>>,
    /// Added to the denominator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Weight decay.
    pub weight_decay: f64,
    /// Which parameters weight decay acts on.
    pub decay_on: DecayOn,
    /// Momentum (SGD, RMSprop, Muon).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Dampening of the momentum (SGD).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dampening: Option<f64>,
    /// Nesterov's form of the momentum (SGD, Muon).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Whether the largest second moment so far is used (Adam, AdamW).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amsgrad: Option<bool>,
    /// Decay of the mean square (RMSprop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Whether the mean square is centred (RMSprop).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub centered: Option<bool>,
    /// How the learning rate falls by itself: `lr / (1 + step lr_decay)` (Adagrad).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_decay: Option<f64>,
    /// How the length of a step depends on the shape of a matrix (Muon).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<StepScale>,
    /// Learning rate of the parameters that are no matrices (Muon); `lr` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector_lr: Option<f64>,
}

/// How the length of a step of Muon depends on the shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepScale {
    /// `sqrt(max(1, rows / columns))`, the default.
    Spectral,
    /// `0.2 sqrt(max(rows, columns))`, which makes steps as long as those of Adam.
    Rms,
}

impl Default for OptimizerSection {
    fn default() -> Self {
        OptimizerSection {
            kind: OptimizerKind::AdamW,
            lr: 1e-3,
            betas: None,
            eps: None,
            weight_decay: 0.0,
            decay_on: DecayOn::Matrices,
            momentum: None,
            dampening: None,
            nesterov: None,
            amsgrad: None,
            alpha: None,
            centered: None,
            lr_decay: None,
            scale: None,
            vector_lr: None,
        }
    }
}

/// The shapes of the learning rate over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// `lr` throughout, after the warm-up.
    #[default]
    Constant,
    /// A straight line from `lr` to `final_lr`.
    Linear,
    /// Half a cosine from `lr` to `final_lr`.
    Cosine,
    /// Warm-up, stable, decay: `lr`, then a straight line to `final_lr` over `decay` steps.
    Wsd,
}

/// `[schedule]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    /// The shape.
    pub kind: ScheduleKind,
    /// Steps over which the learning rate rises from 0 to `lr` in a straight line.
    pub warmup: u64,
    /// The learning rate at the end.
    pub final_lr: f64,
    /// Steps of the decay at the end (`wsd` only; a tenth of the steps by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<u64>,
}
