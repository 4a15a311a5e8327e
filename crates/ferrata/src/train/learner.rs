//! What the loop trains: anything that can take a step, be evaluated, saved and restored.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ferrata_formats::checkpoint::Checkpoint;
use ferrata_formats::huggingface::ImageDirectory;
use serde_json::Value;

use super::config::{Config, DataSection};
use super::engine::{self, Arrays, Engine};
use super::memory::check_memory;
use super::{Classifier, Error, Language, Painter, Result, Snapshot, folder, painter};
use crate::data::images::Picture;
use crate::device::Device;
use crate::inspect::Inspection;
use crate::module::Module;
use crate::tree::Tree;
use crate::{Tensor, compile};

/// A model with its optimiser and its data, driven step by step by a [`super::Trainer`].
///
/// Everything a step does must be a function of the state and of the number of the step, so that
/// a restored run continues bit for bit. [`super::Language`] is the one for language models,
/// [`super::Classifier`] that for image classifiers, [`super::Painter`] that for text-to-image
/// models; another kind of training implements this and
/// gets the loop, metrics, checkpoints and resuming.
pub trait Learner {
    /// Takes step number `step` (from 0): forward, backward, update.
    ///
    /// # Errors
    /// What the program or the data reports.
    fn step(&mut self, step: u64) -> Result<Progress>;

    /// How good the model is on the whole validation part after `step` completed steps; `None` if
    /// there is none, or as soon as `stop` is set.
    ///
    /// # Errors
    /// What the program or the data reports.
    fn evaluate(&mut self, step: u64, stop: &AtomicBool) -> Result<Option<Evaluated>>;

    /// A sample of what has been learned after `step` completed steps, if that makes sense.
    ///
    /// # Errors
    /// What the program reports.
    fn sample(&mut self, step: u64) -> Result<Option<Sample>>;

    /// Adds the files of a checkpoint; gives what the manifest is to hold besides. They are written
    /// while further steps are taken.
    ///
    /// # Errors
    /// When the state is lost.
    fn save(&self, to: &mut Snapshot) -> Result<Value>;

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

    /// What the user should know since this was last asked, such as files that were passed over.
    fn news(&mut self) -> Vec<String>;

    /// What [`Progress::seen`] counts: `tokens`, `images`.
    fn unit(&self) -> &'static str;

    /// The device and its instruction-set path; bits are reproducible on the same one only.
    fn device(&self) -> String;

    /// About how many bytes a checkpoint takes.
    fn checkpoint_bytes(&self) -> u64;
}

/// What a step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The loss before the update, the mean over what the step learned from.
    pub loss: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// How many tokens or images the step learned from.
    pub seen: u64,
    /// Seconds that the step waited for its data.
    pub waited: f64,
}

/// What an evaluation gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// The mean loss.
    pub loss: f64,
    /// Other measures by the names that they have in the metrics, such as `top1`.
    pub scores: BTreeMap<&'static str, f64>,
    /// Lines for people.
    pub report: Vec<String>,
    /// Files for the folder of the run, by name; those of the evaluation before are replaced.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// What shows what has been learned, or what is learned from.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Text.
    Text(String),
    /// A picture.
    Picture(Picture),
}

/// A learner that a configuration describes.
pub trait Task: Learner {
    /// What there is to say before the first step.
    fn facts(&self) -> &Facts;

    /// Compiles the training step without taking it.
    ///
    /// # Errors
    /// Wrong shapes and whatever else keeps the step from being compiled; more memory than this
    /// machine has.
    fn plan(&self) -> Result<StepPlan>;
}

/// What there is to say before the first step.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The architecture, such as `gpt2`.
    pub model: String,
    /// Number of trainable numbers.
    pub parameters: usize,
    /// What it learns from.
    pub data: DataFacts,
    /// The device and its instruction-set path.
    pub device: String,
    /// What the user should know, such as files that were passed over.
    pub notes: Vec<String>,
}

/// What a model learns from.
#[derive(Clone, Debug, PartialEq)]
pub enum DataFacts {
    /// Text, or recorded batches of tokens.
    Text {
        /// Number of token ids.
        vocabulary: usize,
        /// Length of a sequence in tokens.
        sequence: usize,
        /// Sequences of one step.
        sequences_per_step: usize,
        /// Size of the text in bytes; 0 for recorded batches.
        bytes: usize,
        /// Number of documents.
        documents: usize,
        /// Tokens to learn from; 0 for recorded batches.
        training_tokens: usize,
        /// Tokens of the validation part.
        validation_tokens: usize,
    },
    /// Images with captions.
    Captions {
        /// Number of token ids of captions.
        vocabulary: usize,
        /// Tokens of a caption.
        length: usize,
        /// Height and width of a picture in pixels.
        size: usize,
        /// Images of one step.
        images_per_step: usize,
        /// Images to learn from.
        training: usize,
        /// Images of the validation part.
        validation: usize,
    },
    /// Images in classes.
    Images {
        /// Number of classes.
        classes: usize,
        /// Height and width of what the model sees, in pixels.
        size: usize,
        /// Images of one step.
        images_per_step: usize,
        /// Images to learn from.
        training: usize,
        /// Images of the validation part.
        validation: usize,
    },
}

/// The compiled training step.
pub struct StepPlan {
    /// How it runs.
    pub inspection: Inspection,
    /// Time for tracing, differentiating and compiling.
    pub compile_time: Duration,
    /// Bytes of weights and optimiser.
    pub state_bytes: u64,
}

impl StepPlan {
    /// Compiles the step of `engine` for batches of the sizes of this one.
    pub(super) fn new<M>(engine: &Engine<M>, batch: Arrays) -> Result<StepPlan>
    where
        M: Module + Clone + Send + Sync + 'static,
    {
        let start = Instant::now();
        let planned = engine.prepare(&batch)?;
        let compile_time = start.elapsed();
        let inspection = Inspection::new(planned, &Device::default())?;
        Ok(StepPlan { inspection, compile_time, state_bytes: engine.state_bytes() })
    }

    /// Compiles the forward pass `f` of a model for inputs of these sizes.
    pub(super) fn forward<M: Module + Clone, X: Tree>(
        model: &M,
        inputs: X,
        f: impl Fn(&M, X) -> Tensor,
    ) -> Result<StepPlan> {
        let start = Instant::now();
        let forward = compile(|(model, inputs): (M, X)| f(&model, inputs));
        let planned = forward.planned(&(model.clone(), inputs), false)?;
        let compile_time = start.elapsed();
        let inspection = Inspection::new(planned, &Device::default())?;
        Ok(StepPlan { inspection, compile_time, state_bytes: engine::bytes(model) })
    }

    /// The plan, if this machine has the memory for it.
    pub(super) fn checked(self) -> Result<StepPlan> {
        let memory = self.inspection.memory().unwrap_or_default();
        check_memory(memory.peak().into())?;
        Ok(self)
    }
}

/// What a configuration says to train.
///
/// # Errors
/// Whatever is wrong with the configuration, the data or the model, or does not fit together.
pub fn open(config: &Config) -> Result<Box<dyn Task>> {
    match &config.data {
        DataSection::Images(_) if !config.train.recompute.is_empty() => Err(Error::new(
            "`train.recompute` names layers of a language model, and this model reads images",
            "leave it out",
        )),
        DataSection::Text(_) => Ok(Box::new(Language::from_text(config)?)),
        DataSection::Images(_) if painter::is_meant(config)? => {
            Ok(Box::new(Painter::from_images(config)?))
        }
        DataSection::Images(_) => Ok(Box::new(Classifier::from_images(config)?)),
    }
}

/// A run over recorded batches, one per step, with the model of `train.init`. Sets `train.steps` and
/// turns off evaluation, samples and accumulation.
///
/// # Errors
/// Whatever is wrong with the configuration, the file or the model, or does not fit together.
pub fn replay(config: &mut Config, file: &Path) -> Result<Box<dyn Task>> {
    let open = |init| ImageDirectory::open(folder::model_directory(init)?).map_err(Error::from);
    let images = config.train.init.as_deref().map(open).transpose()?.flatten();
    match images {
        Some(directory) => Ok(Box::new(Classifier::replay(config, &directory, file)?)),
        None => Ok(Box::new(Language::replay(config, file)?)),
    }
}

/// The device and its instruction-set path.
pub(super) fn device() -> String {
    Device::default().backend().fingerprint()
}
