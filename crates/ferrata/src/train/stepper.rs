//! What all learners have in common: the engine, its batches, the learning rate, the state that a
//! checkpoint keeps.

use ferrata_formats::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::engine::Engine;
use super::feed::Feed;
use super::{Config, Error, Progress, Result, Snapshot};
use crate::Module;
use crate::optim::Schedule;
use crate::profile;

/// Takes the steps of a learner.
pub(super) struct Stepper<M> {
    pub engine: Engine<M>,
    pub feed: Feed,
    schedule: Schedule,
    /// Tokens or images of a microbatch.
    examples: usize,
    seed: u64,
    watch: bool,
    /// Changes with the data or its split; empty for recorded batches.
    data_identity: String,
}

impl<M: Module + Clone + Send + Sync + 'static> Stepper<M> {
    /// Steps as `config` says, on microbatches of so many tokens or images.
    pub fn new(
        engine: Engine<M>,
        feed: Feed,
        examples: usize,
        config: &Config,
        data_identity: String,
    ) -> Stepper<M> {
        let (seed, watch) = (config.train.seed, config.train.watch_nan);
        let schedule = config.learning_rate();
        Stepper { engine, feed, schedule, examples, seed, watch, data_identity }
    }

    /// [`super::Learner::step`].
    pub fn step(&mut self, step: u64) -> Result<Progress> {
        let (batches, waited) = profile::host("data", || self.feed.batches(step))?;
        let lr = self.schedule.at(step);
        let (loss, grad_norm) = self.engine.step(step, lr, &batches, self.watch)?;
        let seen = (self.examples * batches.len()) as u64;
        Ok(Progress { loss, grad_norm, lr, seen, waited })
    }

    /// [`super::Learner::explain_not_finite`].
    pub fn explained(&mut self, step: u64) -> String {
        let lr = self.schedule.at(step);
        let batches = self.feed.batches(step);
        self.engine.explained(step, lr, batches)
    }

    /// Adds weights and optimiser to a checkpoint; gives what its manifest is to hold besides.
    pub fn save(&self, to: &mut Snapshot) -> Result<Value> {
        self.engine.save(to)?;
        // The position in the data and all random numbers follow from the seed and the step.
        Ok(json!({ "data": self.data_identity, "seed": self.seed }))
    }

    /// Takes over what [`Stepper::save`] has written, if it is of the same data; `what` says what
    /// the data is not, and `give` what to give instead.
    pub fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        state: &Value,
        [what, give]: [&str; 2],
    ) -> Result<()> {
        if state.get("data").and_then(Value::as_str) != Some(&self.data_identity) {
            return Err(Error::new(
                format!("{what} that `{}` learned from", checkpoint.path().display()),
                format!("give {give}, or start a new run with --init"),
            ));
        }
        self.engine.restore_from(checkpoint)
    }

    /// About how many bytes a checkpoint takes, with a little for configuration and manifest.
    pub fn checkpoint_bytes(&self) -> u64 {
        self.engine.state_bytes() + (1 << 16)
    }
}
