//! What must hold between the values of a configuration.

use super::{Config, OptimizerKind, OptimizerSection, ScheduleKind, ScheduleSection, TrainSection};
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
        self.flow.check()?;
        self.check_run()
    }

    /// Sets what a replay of so many batches of a size determines, and checks the rest.
    pub(crate) fn replays(&mut self, steps: u64, batch: usize) -> Result<()> {
        let train = &mut self.train;
        train.steps = steps;
        train.batch = batch;
        train.accumulate = 1;
        train.log_every = 1;
        train.eval_every = 0;
        train.sample_every = 0;
        train.checkpoint_every = 0;
        self.check_run()
    }

    /// Checks what a replay needs: no data, and the model of a directory.
    fn check_run(&self) -> Result<()> {
        self.train.check()?;
        self.parallel.check()?;
        self.optimizer.check()?;
        self.schedule.check(self.train.steps)
    }
}

pub(super) fn positive(key: &str, value: usize) -> Result<()> {
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

impl TrainSection {
    fn check(&self) -> Result<()> {
        size("train.batch", self.batch, LARGEST)?;
        size("train.accumulate", self.accumulate, LARGEST)?;
        positive("train.steps", usize::try_from(self.steps).unwrap_or(usize::MAX))?;
        positive("train.keep", self.keep)?;
        positive("train.log_every", usize::try_from(self.log_every).unwrap_or(usize::MAX))?;
        in_range("train.ema", self.ema, 0.0, 1.0)?;
        in_range("train.label_smoothing", self.label_smoothing, 0.0, 1.0)?;
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
