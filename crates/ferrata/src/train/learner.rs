//! What the loop trains: anything that can take a step, be evaluated, saved and restored.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use ferrata_formats::checkpoint::{Checkpoint, CheckpointWriter};
use serde_json::Value;

use super::Result;

/// A model with its optimiser and its data, driven step by step by a [`super::Trainer`].
///
/// Everything a step does must be a function of the state and of the number of the step, so that
/// a restored run continues bit for bit. [`super::Language`] is the one for language models;
/// another kind of training implements this and gets the loop, metrics, checkpoints and resuming.
pub trait Learner {
    /// Takes step number `step` (from 0): forward, backward, update.
    ///
    /// # Errors
    /// What the program or the data reports.
    fn step(&mut self, step: u64) -> Result<Progress>;

    /// The mean loss over the whole validation part after `step` completed steps; `None` if there
    /// is none, or as soon as `stop` is set.
    ///
    /// # Errors
    /// What the program or the data reports.
    fn evaluate(&mut self, step: u64, stop: &AtomicBool) -> Result<Option<f64>>;

    /// A sample of what has been learned after `step` completed steps, if that makes sense.
    ///
    /// # Errors
    /// What the program reports.
    fn sample(&mut self, step: u64) -> Result<Option<String>>;

    /// Adds the files of a checkpoint to `writer`; gives what the manifest is to hold besides.
    ///
    /// # Errors
    /// What writing reports.
    fn save(&self, writer: &mut CheckpointWriter) -> Result<Value>;

    /// Takes over the state of a checkpoint; `state` is what [`Learner::save`] gave.
    ///
    /// # Errors
    /// If the checkpoint is of another model or other data.
    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()>;

    /// Writes the trained model into the folder `path`, for use outside training.
    ///
    /// # Errors
    /// What writing reports.
    fn export(&self, path: &Path) -> Result<()>;

    /// Finds what made the loss of step number `step` (from 0) not finite: one line.
    fn explain_not_finite(&mut self, step: u64) -> Option<String>;

    /// The device and its instruction-set path; bits are reproducible on the same one only.
    fn device(&self) -> String;

    /// About how many bytes a checkpoint takes.
    fn checkpoint_bytes(&self) -> u64;
}

/// What a step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The loss before the update, the mean over the tokens of the step.
    pub loss: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// Tokens that the step learned from.
    pub tokens: u64,
}
