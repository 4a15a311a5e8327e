//! What must hold between the values of a configuration.

use std::path::Path;

use ferrata_formats::huggingface::{
    Activation, Gpt2Config, LlamaConfig, ModelConfig, RopeScaling, SpecialTokens,
};
use ferrata_ir::DType;

use super::load::TOKENIZERS;
use super::{
    Config, DataSection, ModelKind, ModelSection, OptimizerKind, OptimizerSection, ScheduleKind,
    ScheduleSection, TrainSection,
};
use crate::train::{Error, Result};

impl Config {
    /// Checks every section and what they must agree on. The data is looked at later, when it is
    /// opened.
    ///
    /// # Errors
    /// The first value that cannot be, with the key and what to change.
    pub fn check(&self) -> Result<()> {
        if let Some(model) = &self.model {
            model.check()?;
        }
        self.data.check()?;
        self.check_run()
    }

    /// Checks what a replay needs: no data, and the model of a directory.
    pub(crate) fn check_run(&self) -> Result<()> {
        self.train.check()?;
        self.optimizer.check()?;
        self.schedule.check(self.train.steps)
    }
}

fn positive(key: &str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::new(format!("`{key}` is 0"), "it has to be at least 1")),
        _ => Ok(()),
    }
}

/// Sizes beyond this are mistakes; it keeps products of a few sizes within range.
const LARGEST: usize = 1 << 31;
/// As [`LARGEST`], for layers, of which each takes some memory before anything is computed.
const MOST_LAYERS: usize = 1 << 10;
/// Models beyond this are mistakes, for any number of machines.
const MOST_PARAMETERS: u128 = 1 << 50;

fn size(key: &str, value: usize, largest: usize) -> Result<()> {
    if (1..=largest).contains(&value) {
        return Ok(());
    }
    let remedy = format!("it has to be at least 1 and at most {largest}");
    Err(Error::new(format!("`{key}` is {value}"), remedy))
}

fn in_range(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value < high {
        return Ok(());
    }
    let remedy = match high {
        f64::INFINITY => format!("it has to be a finite number, {low} or more"),
        _ => format!("it has to be at least {low} and less than {high}"),
    };
    Err(Error::new(format!("`{key}` is {value}"), remedy))
}

impl ModelSection {
    fn check(&self) -> Result<()> {
        size("model.layers", self.layers, MOST_LAYERS)?;
        for (key, value) in [
            ("model.heads", Some(self.heads)),
            ("model.dim", Some(self.dim)),
            ("model.context", Some(self.context)),
            ("model.hidden", self.hidden),
            ("model.kv_heads", self.kv_heads),
            ("model.vocab", self.vocab),
        ] {
            value.map_or(Ok(()), |value| size(key, value, LARGEST))?;
        }
        let (heads, dim) = (self.heads, self.dim);
        if !dim.is_multiple_of(heads) {
            let remedy = match (1..=dim.min(heads)).rev().find(|&n| dim.is_multiple_of(n)) {
                Some(fitting) => format!("set model.heads to {fitting} or change model.dim"),
                None => "change one of them".to_owned(),
            };
            return Err(Error::new(
                format!("`model.heads` = {heads} does not divide `model.dim` = {dim}"),
                remedy,
            ));
        }
        in_range("model.dropout", self.dropout, 0.0, 1.0)?;
        match self.kind {
            ModelKind::Gpt2 => self.only_for_llama(),
            ModelKind::Llama => self.check_llama(),
        }
    }

    fn only_for_llama(&self) -> Result<()> {
        let given = [
            ("model.kv_heads", self.kv_heads.is_some()),
            ("model.rope_theta", self.rope_theta.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(Error::new(
                format!("`{key}` has no meaning for model.kind = \"gpt2\""),
                "remove it or set model.kind = \"llama\"",
            )),
            None => Ok(()),
        }
    }

    fn check_llama(&self) -> Result<()> {
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        if !self.heads.is_multiple_of(kv_heads) {
            return Err(Error::new(
                format!(
                    "`model.kv_heads` = {kv_heads} does not divide `model.heads` = {}",
                    self.heads
                ),
                "choose a divisor of model.heads",
            ));
        }
        let size = self.dim / self.heads;
        if !size.is_multiple_of(2) {
            return Err(Error::new(
                format!("heads of size {size} (model.dim / model.heads) cannot turn in pairs"),
                "choose model.dim and model.heads so that their quotient is even",
            ));
        }
        if self.dropout != 0.0 {
            return Err(Error::new(
                "`model.dropout` has no meaning for model.kind = \"llama\"",
                "remove it or set model.kind = \"gpt2\"",
            ));
        }
        in_range("model.rope_theta", self.rope_theta.unwrap_or(1e4), 1.0, f64::INFINITY)
    }

    /// The configuration as it stands in a `config.json`, for a tokenizer with `vocab` ids.
    ///
    /// # Errors
    /// If `model.vocab` is smaller than `vocab`, or the sizes do not fit together.
    pub fn to_model_config(&self, vocab: usize) -> Result<ModelConfig> {
        self.check()?;
        let vocab_size = self.vocab.unwrap_or(vocab);
        if vocab_size < vocab {
            return Err(Error::new(
                format!("`model.vocab` = {vocab_size} is less than the tokenizer's {vocab} tokens"),
                "remove model.vocab or raise it",
            ));
        }
        let config = match self.kind {
            ModelKind::Gpt2 => ModelConfig::Gpt2(self.gpt2(vocab_size)),
            ModelKind::Llama => ModelConfig::Llama(self.llama(vocab_size)),
        };
        config.validate(Path::new("[model]"))?;
        let parameters = config.parameters();
        if parameters > MOST_PARAMETERS {
            return Err(Error::new(
                format!("the model would have {parameters} parameters"),
                "make model.dim, model.layers or model.hidden smaller",
            ));
        }
        Ok(config)
    }

    fn gpt2(&self, vocab_size: usize) -> Gpt2Config {
        Gpt2Config {
            vocab_size,
            n_positions: self.context,
            n_embd: self.dim,
            n_layer: self.layers,
            n_head: self.heads,
            n_inner: self.hidden.unwrap_or(4 * self.dim),
            activation_function: Activation::GeluTanh,
            layer_norm_epsilon: 1e-5,
            embd_pdrop: self.dropout,
            attn_pdrop: self.dropout,
            resid_pdrop: self.dropout,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: self.tie.unwrap_or(true),
            dtype: DType::F32,
            tokens: SpecialTokens::default(),
        }
    }

    fn llama(&self, vocab_size: usize) -> LlamaConfig {
        LlamaConfig {
            vocab_size,
            hidden_size: self.dim,
            intermediate_size: self
                .hidden
                .unwrap_or((8 * self.dim).div_ceil(3).next_multiple_of(32)),
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.dim / self.heads,
            max_position_embeddings: self.context,
            rms_norm_eps: 1e-5,
            rope_theta: self.rope_theta.unwrap_or(1e4),
            rope_scaling: RopeScaling::None,
            hidden_act: Activation::Silu,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: self.tie.unwrap_or(false),
            attention_dropout: 0.0,
            initializer_range: 0.02,
            dtype: DType::F32,
            tokens: SpecialTokens::default(),
        }
    }
}

impl DataSection {
    pub(in crate::train) fn check(&self) -> Result<()> {
        if self.text.is_empty() && self.jsonl.is_empty() && !self.cargo_sources {
            return Err(Error::new(
                "no data is given",
                "set data.text, data.jsonl or data.cargo_sources, or pass --text PATH",
            ));
        }
        for path in self.text.iter().chain(&self.jsonl) {
            if let Err(error) = path.metadata() {
                let cause = format!("cannot read the data `{}`: {error}", path.display());
                return Err(Error::new(cause, "check the path"));
            }
        }
        in_range("data.validation", self.validation, 0.0, 1.0)?;
        let Some(tokenizer) = self.tokenizer.as_deref() else { return Ok(()) };
        if tokenizer == "bpe" && self.vocab < 257 {
            return Err(Error::new(
                format!("`data.vocab` is {}", self.vocab),
                "a bpe tokenizer needs more than its 256 bytes; set at least 257",
            ));
        }
        let file = Path::new(tokenizer);
        if !TOKENIZERS.contains(&tokenizer) && !file.exists() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::new(
                format!("`data.tokenizer` = `{name}` is neither a kind of tokenizer nor a file"),
                "choose char, byte, bpe or the path of a tokenizer.json",
            ));
        }
        Ok(())
    }
}

impl TrainSection {
    fn check(&self) -> Result<()> {
        size("train.batch", self.batch, LARGEST)?;
        size("train.accumulate", self.accumulate, LARGEST)?;
        positive("train.steps", usize::try_from(self.steps).unwrap_or(usize::MAX))?;
        positive("train.keep", self.keep)?;
        positive("train.log_every", usize::try_from(self.log_every).unwrap_or(usize::MAX))?;
        in_range("train.ema", self.ema, 0.0, 1.0)?;
        in_range("train.clip_norm", self.clip_norm, 0.0, f64::INFINITY)?;
        in_range("train.clip_value", self.clip_value, 0.0, f64::INFINITY)
    }
}

impl OptimizerSection {
    /// The keys that were given, with the kinds that have a use for them.
    fn uses(&self) -> [(&'static str, bool, &'static [OptimizerKind]); 11] {
        use OptimizerKind::{Adagrad, Adam, AdamW, Lion, Muon, RmsProp, Sgd};
        [
            ("betas", self.betas.is_some(), &[Adam, AdamW, Lion, Muon]),
            ("eps", self.eps.is_some(), &[Adam, AdamW, RmsProp, Adagrad, Muon]),
            ("momentum", self.momentum.is_some(), &[Sgd, RmsProp, Muon]),
            ("dampening", self.dampening.is_some(), &[Sgd]),
            ("nesterov", self.nesterov.is_some(), &[Sgd, Muon]),
            ("amsgrad", self.amsgrad.is_some(), &[Adam, AdamW]),
            ("alpha", self.alpha.is_some(), &[RmsProp]),
            ("centered", self.centered.is_some(), &[RmsProp]),
            ("lr_decay", self.lr_decay.is_some(), &[Adagrad]),
            ("scale", self.scale.is_some(), &[Muon]),
            ("vector_lr", self.vector_lr.is_some(), &[Muon]),
        ]
    }

    fn check(&self) -> Result<()> {
        for (key, given, kinds) in self.uses() {
            if given && !kinds.contains(&self.kind) {
                let name = format!("{:?}", self.kind).to_lowercase();
                return Err(Error::new(
                    format!("`optimizer.{key}` has no meaning for optimizer.kind = \"{name}\""),
                    "remove it or choose another kind",
                ));
            }
        }
        let infinity = f64::INFINITY;
        in_range("optimizer.lr", self.lr, 0.0, infinity)?;
        in_range("optimizer.weight_decay", self.weight_decay, 0.0, infinity)?;
        in_range("optimizer.eps", self.eps.unwrap_or_default(), 0.0, infinity)?;
        in_range("optimizer.lr_decay", self.lr_decay.unwrap_or_default(), 0.0, infinity)?;
        in_range("optimizer.vector_lr", self.vector_lr.unwrap_or_default(), 0.0, infinity)?;
        in_range("optimizer.momentum", self.momentum.unwrap_or_default(), 0.0, 1.0)?;
        in_range("optimizer.alpha", self.alpha.unwrap_or_default(), 0.0, 1.0)?;
        match self.betas.as_deref() {
            None => Ok(()),
            Some([first, second]) => {
                in_range("optimizer.betas", *first, 0.0, 1.0)?;
                in_range("optimizer.betas", *second, 0.0, 1.0)
            }
            Some(other) => Err(Error::new(
                format!("`optimizer.betas` has {} entries", other.len()),
                "give two, such as [0.9, 0.99]",
            )),
        }
    }
}

impl ScheduleSection {
    fn check(&self, steps: u64) -> Result<()> {
        in_range("schedule.final_lr", self.final_lr, 0.0, f64::INFINITY)?;
        if self.kind != ScheduleKind::Wsd && self.decay.is_some() {
            return Err(Error::new(
                "`schedule.decay` has a meaning for schedule.kind = \"wsd\" only",
                "remove it or choose that kind",
            ));
        }
        let busy = self.warmup.saturating_add(self.decay.unwrap_or_default());
        if self.kind != ScheduleKind::Constant && busy > steps {
            return Err(Error::new(
                format!("warm-up and decay take {busy} steps and the run has {steps}"),
                "shorten schedule.warmup or raise train.steps",
            ));
        }
        Ok(())
    }
}
