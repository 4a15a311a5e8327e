//! Language models as learners: text or recorded batches, the model, its engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrata_formats::checkpoint::Checkpoint;
use ferrata_formats::huggingface::{self, ModelConfig, ModelDirectory};
use ferrata_ir::DType;
use serde_json::Value;

use super::config::TrainSection;
use super::engine::{self, CONFIG_FILE, Engine, WEIGHTS};
use super::feed::Feed;
use super::learner::{self, DataFacts, Evaluated, Facts, Sample, StepPlan, Task};
use super::memory::check_memory;
use super::next_token::{self, Evaluate};
use super::stepper::Stepper;
use super::{Config, Corpus, Error, Learner, Progress, Result, Snapshot, folder};
use crate::data::{BatchSource, RandomWindows, Replay, SequentialWindows, Tokenizer};
use crate::models::{GenerateOptions, Model};
use crate::{Key, Module};

/// A language model that learns from text or from recorded batches.
pub struct Language {
    stepper: Stepper<Model>,
    model_config: ModelConfig,
    tokenizer: Option<Tokenizer>,
    validation: Option<SequentialWindows>,
    evaluation: Evaluate<Model>,
    settings: Settings,
    facts: Facts,
}

/// What is needed of the configuration after the start.
struct Settings {
    /// Sequences of a microbatch.
    rows: usize,
    /// Their length in tokens.
    sequence: usize,
    seed: u64,
    sample_tokens: usize,
    prompt: String,
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
        let mut corpus = Corpus::open(config.data.text()?, tokenizer)?;
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
        let model = initial(&model_config, directory.as_ref(), config)?;
        let data = DataFacts::Text {
            vocabulary: model_config.vocab_size(),
            sequence,
            sequences_per_step: batch * config.train.accumulate,
            bytes: corpus.bytes,
            documents: corpus.documents,
            training_tokens: corpus.train.len(),
            validation_tokens: validation.as_ref().map_or(0, |(tokens, _)| *tokens),
        };
        let facts = facts(&model, data, corpus.notes);
        let loss = next_token::loss(config.train.label_smoothing);
        let engine = Engine::new(model, loss, next_token::STEP, config)?;
        let feed = Feed::new(Arc::new(source), config.train.accumulate, 1);
        Ok(Language {
            stepper: Stepper::new(engine, feed, batch * sequence, config, corpus.identity),
            model_config,
            tokenizer: Some(corpus.tokenizer),
            validation: validation.map(|(_, windows)| windows),
            evaluation: next_token::evaluation(config.train.dtype.dtype()),
            settings: Settings::new(config, sequence),
            facts,
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
        config.replays(recorded.steps().unwrap_or_default(), batch)?;
        let model = initial(&model_config, Some(&directory), config)?;
        let data = DataFacts::Text {
            vocabulary: model_config.vocab_size(),
            sequence,
            sequences_per_step: batch,
            bytes: 0,
            documents: 0,
            training_tokens: 0,
            validation_tokens: 0,
        };
        let facts = facts(&model, data, Vec::new());
        let loss = next_token::loss(config.train.label_smoothing);
        let engine = Engine::new(model, loss, next_token::STEP, config)?;
        let feed = Feed::new(Arc::new(recorded), 1, 1);
        Ok(Language {
            stepper: Stepper::new(engine, feed, batch * sequence, config, String::new()),
            model_config,
            tokenizer,
            validation: None,
            evaluation: next_token::evaluation(config.train.dtype.dtype()),
            settings: Settings::new(config, sequence),
            facts,
        })
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
                let batch = self.stepper.feed.source.batch(0)?;
                let first = batch.integers("input_ids")?.first().copied().unwrap_or_default();
                Ok(vec![u32::try_from(first).unwrap_or_default()])
            }
        }
    }
}

impl Settings {
    fn new(config: &Config, sequence: usize) -> Settings {
        Settings {
            rows: config.train.batch,
            sequence,
            seed: config.train.seed,
            sample_tokens: config.train.sample_tokens,
            prompt: config.train.prompt.clone(),
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

/// The model that a run begins with.
fn initial(
    model_config: &ModelConfig,
    from: Option<&ModelDirectory>,
    config: &Config,
) -> Result<Model> {
    let TrainSection { seed, recompute, .. } = &config.train;
    let model = match from {
        Some(directory) => Model::from_directory(directory)?,
        None => Model::new(model_config, &Key::new(*seed).fold(WEIGHTS))?,
    };
    match recompute.iter().find(|&&layer| layer >= model.depth()) {
        None => Ok(model.with_recompute(recompute.iter().copied())),
        Some(layer) => Err(Error::new(
            format!("`train.recompute` names layer {layer} and the model has {}", model.depth()),
            "layers are numbered from 0",
        )),
    }
}

fn facts(model: &Model, data: DataFacts, notes: Vec<String>) -> Facts {
    Facts {
        model: model.config().model_type().to_owned(),
        parameters: model.parameter_count(),
        data,
        device: learner::device(),
        notes,
    }
}

impl Task for Language {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn plan(&self) -> Result<StepPlan> {
        let batch = next_token::example(self.settings.rows, self.settings.sequence);
        StepPlan::new(&self.stepper.engine, batch)?.checked()
    }
}

impl Learner for Language {
    fn step(&mut self, step: u64) -> Result<Progress> {
        self.stepper.step(step)
    }

    fn evaluate(&mut self, _: u64, stop: &AtomicBool) -> Result<Option<Evaluated>> {
        let Some(windows) = &self.validation else { return Ok(None) };
        let mut sum = 0.0;
        for batch in windows.iter() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let model = self.stepper.engine.best_model()?;
            sum += next_token::loss_sum(&self.evaluation, model, &batch?)?;
        }
        let loss = sum / windows.targets() as f64;
        Ok(Some(Evaluated { loss, ..Evaluated::default() }))
    }

    fn sample(&mut self, step: u64) -> Result<Option<Sample>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let prompt = self.sample_prompt(tokenizer)?;
        let options = GenerateOptions {
            max_new: self.settings.sample_tokens,
            temperature: 0.8,
            seed: self.settings.seed ^ step,
            ..GenerateOptions::default()
        };
        let mut generation = self.stepper.engine.best_model()?.generate(&prompt, &options)?;
        generation.by_ref().try_for_each(|id| id.map(drop))?;
        Ok(Some(Sample::Text(tokenizer.decode(generation.ids())?)))
    }

    fn save(&self, to: &mut Snapshot) -> Result<Value> {
        to.bytes(CONFIG_FILE, self.model_config.to_json().as_bytes());
        if let Some((name, text)) = self.tokenizer_file()? {
            to.bytes(name, text.as_bytes());
        }
        self.stepper.save(to)
    }

    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()> {
        self.stepper.restore(
            checkpoint,
            state,
            ["the text is not the one", "the same text and tokenizer"],
        )
    }

    fn export(&self, path: &Path) -> Result<()> {
        let weights = Engine::weights(self.stepper.engine.best_model()?)?;
        huggingface::write_directory(path, &self.model_config, engine::views(&weights), None)?;
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.save(path)?;
        }
        Ok(())
    }

    fn explain_not_finite(&mut self, step: u64) -> Option<String> {
        Some(self.stepper.explained(step))
    }

    fn news(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn unit(&self) -> &'static str {
        "tokens"
    }

    fn device(&self) -> String {
        self.facts.device.clone()
    }

    fn checkpoint_bytes(&self) -> u64 {
        self.stepper.checkpoint_bytes()
    }
}
