//! What must hold between the values of a configuration.

use std::path::Path;

use super::load::TOKENIZERS;
use super::{
    Config, DataSection, OptimizerKind, OptimizerSection, ScheduleKind, ScheduleSection,
    TrainSection,
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
pub(super) const LARGEST: usize = 1 << 31;
pub(super) fn size(key: &str, value: usize, largest: usize) -> Result<()> {
    if (1..=largest).contains(&value) {
        return Ok(());
    }
    let remedy = format!("it has to be at least 1 and at most {largest}");
    Err(Error::new(format!("`{key}` is {value}"), remedy))
}

pub(super) fn in_range(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value < high {
        return Ok(());
    }
    let remedy = match high {
        f64::INFINITY => format!("it has to be a finite number, {low} or more"),
        _ => format!("it has to be at least {low} and less than {high}"),
    };
    Err(Error::new(format!("`{key}` is {value}"), remedy))
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
