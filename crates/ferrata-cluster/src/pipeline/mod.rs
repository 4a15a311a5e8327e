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

    /// Seconds of work of the average stage.
    pub fn average(&self) -> f64 {
        let all: f64 = self.stages.iter().map(|stage| work(stage)).sum();
        all / self.depth() as f64 * self.microbatches as f64
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

/// Contiguous chunks of `costs` with at least one each, the first and last of which also have
/// `first` and `last`, so that the largest sum is least.
pub fn balanced(costs: &[f64], first: f64, last: f64, count: usize) -> Vec<usize> {
    let cut = |limit: f64| -> Option<Vec<usize>> {
        let mut chunks = Vec::with_capacity(count);
        let mut at = 0;
        for chunk in 0..count {
            let left = count - chunk - 1;
            let mut sum = if chunk == 0 { first } else { 0.0 };
            if left == 0 {
                let rest = costs[at..].iter().sum::<f64>() + sum + last;
                chunks.push(costs.len() - at);
                return (rest <= limit).then_some(chunks);
            }
            let start = at;
            while at < costs.len() - left && (at == start || sum + costs[at] <= limit) {
                sum += costs[at];
                at += 1;
            }
            if sum > limit {
                return None;
            }
            chunks.push(at - start);
        }
        None
    };
    let all = costs.iter().sum::<f64>() + first + last;
    let (mut low, mut high) = (all / count as f64, all);
    // The last limit that works is within a billionth of the least.
    for _ in 0..60 {
        if high - low <= 1e-9 * all {
            break;
        }
        let middle = (low + high) / 2.0;
        if cut(middle).is_some() { high = middle } else { low = middle }
    }
    // Where even chunks are as good, they are taken.
    let even = costs.len() / count;
    if costs.len().is_multiple_of(count) {
        let sums = costs.chunks(even).enumerate().map(|(i, chunk)| {
            let ends = if i == 0 { first } else { 0.0 } + if i + 1 == count { last } else { 0.0 };
            chunk.iter().sum::<f64>() + ends
        });
        if sums.fold(0.0, f64::max) <= high * (1.0 + 1e-6) {
            return vec![even; count];
        }
    }
    cut(high).unwrap_or_else(|| vec![even.max(1); count])
}
