//! Language models as learners: text or recorded batches, the model, its engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferrata_formats::checkpoint::{Checkpoint, CheckpointWriter};
use ferrata_formats::huggingface::{self, ModelConfig, ModelDirectory};
use ferrata_ir::DType;
use serde_json::{Value, json};

use super::engine::{self, Engine, WEIGHTS};
use super::memory::check_memory;
use super::{Config, Corpus, Error, Learner, Progress, Result, folder};
use crate::data::{
    Batch, BatchSource, Loader, LoaderState, RandomWindows, Replay, SequentialWindows, Tokenizer,
};
use crate::device::Device;
use crate::inspect::Inspection;
use crate::models::{GenerateOptions, Model};
use crate::optim::Schedule;
use crate::profile;
use crate::{Key, Module};

/// The files of a checkpoint; its folder is a Hugging Face directory too.
const WEIGHTS_FILE: &str = "model.safetensors";
const CONFIG_FILE: &str = "config.json";
const TRAINING_FILE: &str = "training.safetensors";

/// Batches that are made ahead while a step runs.
const PREFETCH: usize = 2;

/// A language model that learns from text or from recorded batches.
pub struct Language {
    engine: Engine<Model>,
    model_config: ModelConfig,
    tokenizer: Option<Tokenizer>,
    source: Arc<dyn BatchSource>,
    loader: Option<Loader>,
    validation: Option<SequentialWindows>,
    schedule: Schedule,
    settings: Settings,
    facts: Facts,
    /// Changes with the text, the tokenizer or the split.
    data_identity: String,
}

/// What is needed of the configuration after the start.
struct Settings {
    accumulate: usize,
    seed: u64,
    sample_tokens: usize,
    prompt: String,
    watch: bool,
}

/// What there is to say before the first step.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// `gpt2` or `llama`.
    pub model: &'static str,
    /// Number of trainable numbers.
    pub parameters: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Length of a sequence in tokens.
    pub sequence: usize,
    /// Sequences of one step.
    pub sequences_per_step: usize,
    /// Size of the text in bytes; 0 for recorded batches.
    pub text_bytes: usize,
    /// Number of documents.
    pub documents: usize,
    /// Tokens to learn from; 0 for recorded batches.
    pub training_tokens: usize,
    /// Tokens of the validation part.
    pub validation_tokens: usize,
    /// The device and its instruction-set path.
    pub device: String,
    /// What the user should know, such as files that were passed over.
    pub notes: Vec<String>,
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
    /// Compiles the step of `engine` for `rows` sequences of `length` tokens.
    pub(super) fn new(engine: &Engine<Model>, rows: usize, length: usize) -> Result<StepPlan> {
        let start = Instant::now();
        let planned = engine.prepare(rows, length)?;
        let compile_time = start.elapsed();
        let inspection = Inspection::new(planned, &Device::default())?;
        Ok(StepPlan { inspection, compile_time, state_bytes: engine.state_bytes() })
    }
}

/// Where the weights come from, and the tokenizer that belongs to them.
struct Start {
    directory: Option<ModelDirectory>,
    tokenizer: Option<Tokenizer>,
}

impl Start {
    fn new(config: &Config) -> Result<Start> {
        let Some(path) = &config.train.init else {
            return Ok(Start { directory: None, tokenizer: None });
        };
        let directory = ModelDirectory::open(folder::model_directory(path)?)?;
        let tokenizer = match directory.tokenizer_files().is_empty() {
            true => None,
            false => Some(Tokenizer::load(&directory.path)?),
        };
        Ok(Start { directory: Some(directory), tokenizer })
    }
}

impl Language {
    /// Opens the text of the configuration and makes the model: with random weights, or from the
    /// directory `train.init`.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the text, the tokenizer or the model, or does not
    /// fit together.
    pub fn from_text(config: &Config) -> Result<Language> {
        config.check()?;
        let Start { directory, tokenizer } = Start::new(config)?;
        let mut corpus = Corpus::open(&config.data, tokenizer)?;
        let vocabulary = corpus.tokenizer.vocab_size();
        let model_config = match (&directory, &config.model) {
            (Some(directory), _) => fitting(directory, vocabulary)?,
            (None, Some(section)) => section.to_model_config(vocabulary)?,
            (None, None) => return Err(no_model()),
        };
        let sequence = match (&config.model, &directory) {
            (Some(section), _) => section.context().min(model_config.context()),
            (None, _) => model_config.context(),
        };
        let (batch, seed) = (config.train.batch, config.train.seed);
        let source = RandomWindows::new(corpus.train.clone(), sequence, batch, seed)?;
        let validation = corpus.validation.take();
        let validation = validation
            .map(|tokens| {
                Ok::<_, Error>((tokens.len(), SequentialWindows::new(tokens, sequence, batch)?))
            })
            .transpose()?;
        check_memory(least_memory(&model_config, batch, sequence))?;
        let model = initial(&model_config, directory.as_ref(), seed)?;
        let facts = Facts {
            model: model_config.model_type(),
            parameters: model.parameter_count(),
            vocabulary: model_config.vocab_size(),
            sequence,
            sequences_per_step: batch * config.train.accumulate,
            text_bytes: corpus.bytes,
            documents: corpus.documents,
            training_tokens: corpus.train.len(),
            validation_tokens: validation.as_ref().map_or(0, |(tokens, _)| *tokens),
            device: device(),
            notes: corpus.notes,
        };
        Ok(Language {
            engine: Engine::new(model, config),
            model_config,
            tokenizer: Some(corpus.tokenizer),
            source: Arc::new(source),
            loader: None,
            validation: validation.map(|(_, windows)| windows),
            schedule: config.learning_rate(),
            settings: Settings::new(config),
            facts,
            data_identity: corpus.identity,
        })
    }

    /// Takes the batches of `file` in order, one per step, and the model of `train.init`. Sets
    /// `train.steps` and turns off evaluation, samples and accumulation.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the file or the model, or does not fit together.
    pub fn replay(config: &mut Config, file: &Path) -> Result<Language> {
        let Start { directory, tokenizer } = Start::new(config)?;
        let Some(directory) = directory else {
            return Err(Error::new(
                "recorded batches need a model to start from",
                "pass --init MODEL_DIR",
            ));
        };
        let model_config = directory.config.clone();
        let recorded = Replay::open(file, model_config.vocab_size())?;
        let (batch, sequence) = (recorded.batch_size(), recorded.sequence());
        if sequence > model_config.context() {
            return Err(Error::new(
                format!(
                    "the batches of `{}` have {sequence} positions and the model knows {}",
                    file.display(),
                    model_config.context()
                ),
                "record shorter sequences or start from a model with a longer context",
            ));
        }
        let train = &mut config.train;
        train.steps = recorded.steps().unwrap_or_default();
        train.batch = batch;
        train.accumulate = 1;
        train.log_every = 1;
        train.eval_every = 0;
        train.sample_every = 0;
        train.checkpoint_every = 0;
        config.check_run()?;
        let model = initial(&model_config, Some(&directory), config.train.seed)?;
        let facts = Facts {
            model: model_config.model_type(),
            parameters: model.parameter_count(),
            vocabulary: model_config.vocab_size(),
            sequence,
            sequences_per_step: batch,
            text_bytes: 0,
            documents: 0,
            training_tokens: 0,
            validation_tokens: 0,
            device: device(),
            notes: Vec::new(),
        };
        Ok(Language {
            engine: Engine::new(model, config),
            model_config,
            tokenizer,
            source: Arc::new(recorded),
            loader: None,
            validation: None,
            schedule: config.learning_rate(),
            settings: Settings::new(config),
            facts,
            data_identity: String::new(),
        })
    }

    /// What there is to say before the first step.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Compiles the training step without taking it.
    ///
    /// # Errors
    /// Wrong shapes and whatever else keeps the step from being compiled; more memory than this
    /// machine has.
    pub fn plan(&self) -> Result<StepPlan> {
        let rows = self.facts.sequences_per_step / self.settings.accumulate;
        let plan = StepPlan::new(&self.engine, rows, self.facts.sequence)?;
        let memory = plan.inspection.memory().unwrap_or_default();
        check_memory(memory.peak().into())?;
        Ok(plan)
    }

    /// The microbatches of a step.
    fn batches(&mut self, step: u64) -> Result<Vec<Batch>> {
        let count = self.settings.accumulate as u64;
        let first = step * count;
        let loader = match self.loader.take() {
            Some(loader) if loader.state().position == first => loader,
            _ => Loader::new(self.source.clone(), LoaderState { position: first }, PREFETCH),
        };
        let loader = self.loader.insert(loader);
        let ended = || Error::new(format!("the data ends before step {}", step + 1), "give more");
        (0..count).map(|_| Ok(loader.next_batch().ok_or_else(ended)??)).collect()
    }

    /// The tokenizer's file, with its name.
    fn tokenizer_file(&self) -> Result<Option<(&'static str, String)>> {
        Ok(self.tokenizer.as_ref().map(Tokenizer::file).transpose()?)
    }

    /// What a sample begins with: the prompt, or the first token of the validation part.
    fn sample_prompt(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let prompt = tokenizer.encode_prompt(&self.settings.prompt)?;
        match prompt.is_empty() {
            false => Ok(prompt),
            true => {
                let batch = self.source.batch(0)?;
                let first = batch.integers("input_ids")?.first().copied().unwrap_or_default();
                Ok(vec![u32::try_from(first).unwrap_or_default()])
            }
        }
    }
}

impl Settings {
    fn new(config: &Config) -> Settings {
        Settings {
            accumulate: config.train.accumulate,
            seed: config.train.seed,
            sample_tokens: config.train.sample_tokens,
            prompt: config.train.prompt.clone(),
            watch: config.train.watch_nan,
        }
    }
}

/// The configuration of a model to start from, if its vocabulary holds all tokens.
fn fitting(directory: &ModelDirectory, vocabulary: usize) -> Result<ModelConfig> {
    let known = directory.config.vocab_size();
    if vocabulary > known {
        return Err(Error::new(
            format!(
                "the tokenizer has {vocabulary} tokens and the model `{}` knows {known}",
                directory.path.display()
            ),
            "use the tokenizer that belongs to the model (leave data.tokenizer out)",
        ));
    }
    Ok(directory.config.clone())
}

fn no_model() -> Error {
    Error::new("no model is given", "add a [model] section or pass --init MODEL_DIR")
}

/// Bytes that no way to train can do without: weights, gradients, and a hidden state of every
/// token. A mistake of many orders of magnitude is found before anything is made.
fn least_memory(config: &ModelConfig, batch: usize, sequence: usize) -> u128 {
    let hidden = batch as u128 * sequence as u128 * config.width() as u128;
    (2 * config.parameters() + hidden) * DType::F32.size() as u128
}

fn initial(config: &ModelConfig, from: Option<&ModelDirectory>, seed: u64) -> Result<Model> {
    match from {
        Some(directory) => Ok(Model::from_directory(directory)?),
        None => Ok(Model::new(config, &Key::new(seed).fold(WEIGHTS))?),
    }
}

fn device() -> String {
    Device::default().backend().fingerprint()
}

impl Learner for Language {
    fn step(&mut self, step: u64) -> Result<Progress> {
        let batches = profile::host("data", || self.batches(step))?;
        let tokens = batches.iter().map(|batch| Ok(batch.integers("targets")?.len() as u64));
        let tokens = tokens.sum::<Result<u64>>()?;
        let lr = self.schedule.at(step);
        let (loss, grad_norm) = self.engine.step(step, lr, &batches, self.settings.watch)?;
        Ok(Progress { loss, grad_norm, lr, tokens })
    }

    fn evaluate(&mut self, _: u64, stop: &AtomicBool) -> Result<Option<f64>> {
        let Some(windows) = &self.validation else { return Ok(None) };
        let mut sum = 0.0;
        for batch in windows.iter() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            sum += self.engine.evaluate(&batch?)?;
        }
        Ok(Some(sum / windows.targets() as f64))
    }

    fn sample(&mut self, step: u64) -> Result<Option<String>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let prompt = self.sample_prompt(tokenizer)?;
        let options = GenerateOptions {
            max_new: self.settings.sample_tokens,
            temperature: 0.8,
            seed: self.settings.seed ^ step,
            ..GenerateOptions::default()
        };
        let mut generation = self.engine.best_model()?.generate(&prompt, &options)?;
        generation.by_ref().try_for_each(|id| id.map(drop))?;
        Ok(Some(tokenizer.decode(generation.ids())?))
    }

    fn save(&self, writer: &mut CheckpointWriter) -> Result<Value> {
        writer.bytes(CONFIG_FILE, self.model_config.to_json().as_bytes())?;
        if let Some((name, text)) = self.tokenizer_file()? {
            writer.bytes(name, text.as_bytes())?;
        }
        let weights = Engine::weights(self.engine.model()?)?;
        writer.tensors(WEIGHTS_FILE, engine::views(&weights), &engine::metadata())?;
        let extra = self.engine.extra()?;
        writer.tensors(TRAINING_FILE, engine::views(&extra), &BTreeMap::new())?;
        // The position in the data and all random numbers follow from the seed and the step.
        Ok(json!({ "data": self.data_identity, "seed": self.settings.seed }))
    }

    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()> {
        if state.get("data").and_then(Value::as_str) != Some(&self.data_identity) {
            return Err(Error::new(
                format!(
                    "the text is not the one that `{}` learned from",
                    checkpoint.path().display()
                ),
                "give the same text and tokenizer, or start a new run with --init",
            ));
        }
        let weights = checkpoint.tensors(WEIGHTS_FILE)?;
        self.engine.restore(&weights, &checkpoint.tensors(TRAINING_FILE)?)
    }

    fn export(&self, path: &Path) -> Result<()> {
        let weights = Engine::weights(self.engine.best_model()?)?;
        huggingface::write_directory(path, &self.model_config, engine::views(&weights), None)?;
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.save(path)?;
        }
        Ok(())
    }

    fn explain_not_finite(&mut self, step: u64) -> Option<String> {
        let lr = self.schedule.at(step);
        let batches = self.batches(step);
        match batches.and_then(|batches| self.engine.explain(step, lr, &batches)) {
            Ok(reason) => Some(reason),
            Err(error) => Some(format!("it could not be traced ({error})")),
        }
    }

    fn device(&self) -> String {
        self.facts.device.clone()
    }

    fn checkpoint_bytes(&self) -> u64 {
        // A little for configuration, tokenizer and manifest.
        self.engine.state_bytes() + (1 << 16)
    }
}
