//! `[flow]`: how a text-to-image model learns and paints.

use serde::{Deserialize, Serialize};

use super::check::{LARGEST, in_range, size};
use crate::flow::{Sampler, Solver, Times};
use crate::models::Prediction;
use crate::train::{Error, Result};

/// How times to learn at are distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimesKind {
    /// All times alike.
    Uniform,
    /// Most of them in the middle, as `time_mean` and `time_std` say.
    #[default]
    LogitNormal,
}

/// `[flow]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowSection {
    /// What the model tells: the velocity (a new one by default), or the picture, from which the
    /// velocity follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict: Option<Prediction>,
    /// How times to learn at are distributed, from noise at 0 to the picture at 1.
    pub times: TimesKind,
    /// Above 0, times are later: nearer to the picture (`times = "logit_normal"`).
    pub time_mean: f64,
    /// The spread of times (`times = "logit_normal"`).
    pub time_std: f64,
    /// The share of captions that are left out in training, so that guidance has something to
    /// compare with.
    pub text_dropout: f64,
    /// How a step of painting is made.
    pub solver: Solver,
    /// Steps of painting.
    pub steps: usize,
    /// Above 1, steps of painting are shorter near the noise.
    pub shift: f64,
    /// How much what the caption adds is exaggerated; at 1 not at all.
    pub guidance: f64,
    /// What samples show; the captions of the validation part if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// In evaluation, so many scenes with one object and so many with two are painted from
    /// captions with pairs of words that no training scene has, and checked.
    pub eval_prompts: usize,
}

impl Default for FlowSection {
    fn default() -> Self {
        let Sampler { solver, steps, shift } = Sampler::default();
        FlowSection {
            predict: None,
            times: TimesKind::default(),
            time_mean: 0.0,
            time_std: 1.0,
            text_dropout: 0.1,
            solver,
            steps,
            shift,
            guidance: 3.0,
            prompts: Vec::new(),
            eval_prompts: 0,
        }
    }
}

impl FlowSection {
    /// Whether nothing has been set.
    pub(super) fn is_default(&self) -> bool {
        *self == FlowSection::default()
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that cannot be, with the key and what to change.
    pub fn check(&self) -> Result<()> {
        in_range("flow.text_dropout", self.text_dropout, 0.0, 1.0)?;
        in_range("flow.time_mean", self.time_mean, -100.0, 100.0)?;
        in_range("flow.time_std", self.time_std, 0.0, 100.0)?;
        size("flow.steps", self.steps, LARGEST)?;
        in_range("flow.guidance", self.guidance, 0.0, 1e3)?;
        match self.shift > 0.0 && self.shift <= 1e3 {
            true => Ok(()),
            false => Err(Error::new(
                format!("`flow.shift` is {}", self.shift),
                "it has to be above 0 and at most 1000; 1 leaves the steps equal",
            )),
        }
    }

    /// How times to learn at are distributed.
    pub fn times(&self) -> Times {
        match self.times {
            TimesKind::Uniform => Times::Uniform,
            TimesKind::LogitNormal => {
                Times::LogitNormal { mean: self.time_mean, std: self.time_std }
            }
        }
    }

    /// How noise becomes pictures.
    pub fn sampler(&self) -> Sampler {
        Sampler { solver: self.solver, steps: self.steps, shift: self.shift }
    }
}
