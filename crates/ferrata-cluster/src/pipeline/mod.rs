//! Pipelines: which stage works on which microbatch when, as tables, and how long that takes.
//!
//! | file | what |
//! |---|---|
//! | `table` | the order of work of every stage |
//! | `run` | the tables, run event by event |

mod run;
mod table;

use crate::layout::Schedule;

pub use run::{Event, Run, run};
pub use table::{Table, Task, Work};

/// What a chunk of layers costs for one microbatch, in seconds and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chunk {
    /// Forward pass.
    pub forward: f64,
    /// Backward pass, with what is computed again.
    pub backward: f64,
    /// Gradients of weights.
    pub gradient: f64,
    /// Bytes kept from the forward to the backward pass.
    pub kept: f64,
    /// Bytes that the backward pass needs beside them.
    pub working: f64,
}

/// A pipeline: for each stage its chunks of layers. Chunk `c` of stage `s` is followed by chunk `c`
/// of stage `s + 1`, the last stage's by chunk `c + 1` of the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    /// Chunks by stage; all stages have as many.
    pub stages: Vec<Vec<Chunk>>,
    /// Seconds from a stage to the next.
    pub transfer: f64,
    /// Microbatches of a step.
    pub microbatches: usize,
}

impl Pipeline {
    /// Stages.
    pub fn depth(&self) -> usize {
        self.stages.len()
    }

    /// Chunks per stage.
    pub fn interleave(&self) -> usize {
        self.stages.first().map_or(0, Vec::len)
    }

    /// Seconds of work of the busiest stage.
    pub fn busiest(&self) -> f64 {
        self.stages.iter().map(|stage| work(stage)).fold(0.0, f64::max) * self.microbatches as f64
    }

    /// Seconds that the step takes, near what [`run`] gives and much faster.
    pub fn estimate(&self, schedule: Schedule) -> f64 {
        let depth = self.depth() as f64;
        let most = self.stages.iter().map(|stage| work(stage)).fold(0.0, f64::max);
        let mean = self.stages.iter().map(|stage| work(stage)).sum::<f64>() / depth;
        let gradient = |stage: &Vec<Chunk>| stage.iter().map(|chunk| chunk.gradient).sum::<f64>();
        let filled = match schedule {
            Schedule::ZeroBubble => 2.0 * self.stages.iter().map(gradient).sum::<f64>() / depth,
            _ => 0.0,
        };
        let turn = (mean - filled).max(0.0) / self.interleave() as f64;
        most * self.microbatches as f64 + (turn + 2.0 * self.transfer) * (depth - 1.0)
    }
}

fn work(stage: &[Chunk]) -> f64 {
    stage.iter().map(|chunk| chunk.forward + chunk.backward + chunk.gradient).sum()
}
