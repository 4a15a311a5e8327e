//! A trained model, opened for use, and its loss on text.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ferrata_formats::huggingface::{ModelConfig, ModelDirectory};

use super::config::{ComputeType, Config, Source, TextSection};
use super::engine::Engine;
use super::folder::{self, CONFIG};
use super::{Corpus, Error, Result, StepPlan, next_token};
use crate::data::{SequentialWindows, Tokenizer, Tokens};
use crate::models::Model;
use crate::nn::Context;
use crate::{DType, Key, Tensor};

/// A model with its tokenizer, from a model directory, a checkpoint or the folder of a run.
pub struct Trained {
    /// The model.
    pub model: Model,
    /// Its tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// The directory that it was read from.
    pub directory: PathBuf,
}

/// The loss of a model on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// The mean loss per token, in nats.
    pub loss: f64,
    /// Over how many tokens.
    pub tokens: usize,
}

impl Trained {
    /// Opens what `path` means: see [`super::model_directory`].
    ///
    /// # Errors
    /// If there is no model, or it is damaged; names the file or tensor.
    pub fn open(path: &Path) -> Result<Trained> {
        let directory = folder::model_directory(path)?;
        let opened = ModelDirectory::open(&directory)?;
        let tokenizer = match opened.tokenizer_files().is_empty() {
            true => None,
            false => Some(Tokenizer::load(&directory)?),
        };
        Ok(Trained { model: Model::from_directory(&opened)?, tokenizer, directory })
    }

    /// The tokens that `prompt` stands for; for an empty one, what a text begins with.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the tokenizer does not know a character.
    pub fn prompt(&self, prompt: &str) -> Result<Vec<u32>> {
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Error::new(
                format!("`{}` has no tokenizer", self.directory.display()),
                "give token ids with --tokens and print them with --print-tokens",
            ));
        };
        let ids = tokenizer.encode_prompt(prompt)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let begins = self.model.config().tokens().bos.or(tokenizer.end_of_text());
        match begins {
            Some(id) => Ok(vec![id]),
            None => {
                Ok(tokenizer.encode("\n").ok().filter(|ids| !ids.is_empty()).unwrap_or(vec![0]))
            }
        }
    }

    /// The text to evaluate on: `texts`, or, if there are none, the validation part of the run
    /// that made the model.
    ///
    /// # Errors
    /// If the text cannot be read, or there is neither text nor a run with a validation part.
    pub fn evaluation_text(&self, texts: &[PathBuf]) -> Result<Tokens> {
        let tokenizer = || match self.tokenizer {
            Some(_) => Ok(Tokenizer::load(&self.directory)?),
            None => Err(Error::new(
                format!("`{}` has no tokenizer", self.directory.display()),
                "put its tokenizer.json into the directory",
            )),
        };
        if !texts.is_empty() {
            let section =
                TextSection { text: texts.to_vec(), validation: 0.0, ..TextSection::default() };
            return Ok(Corpus::open(&section, Some(tokenizer()?))?.train);
        }
        let run = self.directory.ancestors().take(2).map(|folder| folder.join(CONFIG));
        let Some(file) = run.into_iter().find(|file| file.is_file()) else {
            return Err(Error::new(
                format!("no text is given and `{}` is no run", self.directory.display()),
                "pass --text PATH",
            ));
        };
        let mut section = Config::load(Source::File(&file), &[])?.data.text()?.clone();
        section.tokenizer = None;
        Corpus::open(&section, Some(tokenizer()?))?
            .validation
            .ok_or_else(|| Error::new("the run has no validation part", "pass --text PATH"))
    }

    /// The mean loss over `tokens`, in windows of `context` tokens (by default the model's
    /// context), `batch` of them at a time; `None` once `stop` is set.
    ///
    /// # Errors
    /// If there are too few tokens, one that the model does not know, or a context longer than
    /// the model's.
    pub fn evaluate(
        &self,
        tokens: &Tokens,
        context: Option<usize>,
        batch: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let longest = self.model.context();
        let context = context.unwrap_or(longest);
        if context == 0 || context > longest {
            return Err(Error::new(
                format!("a context of {context} tokens is asked for and the model has {longest}"),
                format!("give a context between 1 and {longest}"),
            ));
        }
        let windows = SequentialWindows::new(tokens.clone(), context, batch)?;
        let program = next_token::evaluation(None);
        let mut sum = 0.0;
        for batch in windows.iter() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            self.model.check_ids(batch.integers("input_ids")?)?;
            self.model.check_ids(batch.integers("targets")?)?;
            sum += next_token::loss_sum(&program, &self.model, &batch)?;
        }
        let tokens = windows.targets();
        Ok(Some(Evaluation { loss: sum / tokens as f64, tokens }))
    }
}

impl Trained {
    /// The model that a configuration file describes, with random weights.
    ///
    /// # Errors
    /// If the configuration is wrong, or leaves the size of the vocabulary open.
    pub fn from_config(file: &Path) -> Result<Trained> {
        let config = Config::load(Source::File(file), &[])?;
        let model = Model::new(&described(&config)?, &Key::new(0))?;
        let directory = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Trained { model, tokenizer: None, directory })
    }

    /// Compiles the forward pass, or the training step with AdamW, for `batch` sequences of
    /// `sequence` tokens (the model's context by default).
    ///
    /// # Errors
    /// Impossible sizes, and whatever else keeps it from being compiled.
    pub fn inspect(
        &self,
        training: bool,
        batch: usize,
        sequence: Option<usize>,
    ) -> Result<StepPlan> {
        let longest = self.model.context();
        let sequence = sequence.unwrap_or(longest);
        if batch == 0 || sequence == 0 || sequence > longest {
            return Err(Error::new(
                format!("{batch} sequences of {sequence} tokens are no batch for this model"),
                format!("give at least 1 sequence and between 1 and {longest} tokens"),
            ));
        }
        if training {
            let loss = next_token::loss(0.0);
            let engine =
                Engine::new(self.model.clone(), loss, next_token::STEP, &Config::default())?;
            return StepPlan::new(&engine, next_token::example(batch, sequence));
        }
        let ids = Tensor::zeros([batch, sequence], DType::I64);
        StepPlan::forward(&self.model, ids, |model: &Model, ids| {
            model.forward(&ids, &mut Context::eval())
        })
    }
}

/// The language model that a configuration describes.
pub(super) fn described(config: &Config) -> Result<ModelConfig> {
    let section = config.model.as_ref().ok_or_else(|| {
        let cause = "the configuration has no [model] section";
        Error::new(cause, "add one or give a model directory")
    })?;
    let text = config.data.text()?;
    let vocabulary = match (section.vocab, text.tokenizer.as_deref()) {
        (Some(vocabulary), _) => vocabulary,
        (None, None | Some("byte")) => Tokenizer::bytes().vocab_size(),
        (None, Some("bpe")) => text.vocab,
        (None, Some("char")) => {
            return Err(Error::new(
                "the vocabulary depends on the text",
                "set model.vocab in the configuration",
            ));
        }
        (None, Some(path)) => Tokenizer::load(path)?.vocab_size(),
    };
    section.to_model_config(vocabulary)
}

impl Evaluation {
    /// `e` to the loss.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

impl ComputeType {
    /// The dtype of activations and products; `None`: that of the parameters.
    pub fn dtype(self) -> Option<DType> {
        match self {
            ComputeType::F32 => None,
            ComputeType::Bf16 => Some(DType::BF16),
        }
    }
}
