//! The order of work of every stage.

use ferrata_ir::{Error, Result};

use super::Pipeline;
use crate::layout::Schedule;

/// What a stage does with a microbatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Forward pass.
    Forward,
    /// Backward pass; with gradients of weights, unless they are tasks of their own.
    Backward,
    /// Gradients of weights.
    Gradient,
}

/// One entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// What is done.
    pub work: Work,
    /// With which chunk of the stage's layers.
    pub chunk: usize,
    /// For which microbatch.
    pub microbatch: usize,
}

/// For each stage its tasks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Tasks by stage.
    pub stages: Vec<Vec<Task>>,
    /// Whether gradients of weights are tasks of their own.
    pub split: bool,
}

impl Table {
    /// The table of a schedule for a pipeline.
    ///
    /// # Errors
    /// If the schedule does not exist for these numbers of stages, chunks and microbatches.
    pub fn new(schedule: Schedule, pipeline: &Pipeline) -> Result<Table> {
        let (depth, chunks) = (pipeline.depth(), pipeline.interleave());
        let microbatches = pipeline.microbatches;
        if chunks > 1 && schedule != Schedule::OneForwardOneBackward {
            return Err(Error::new(format!("{schedule} has no {chunks} chunks per stage"))
                .help("set interleave to 1 or the schedule to 1f1b"));
        }
        if chunks > 1 && !microbatches.is_multiple_of(depth) {
            return Err(Error::new(format!(
                "{microbatches} microbatches do not go round {depth} interleaved stages"
            ))
            .help("make their number a multiple of that of the stages, or set interleave to 1"));
        }
        Ok(match schedule {
            Schedule::GPipe => Table { stages: vec![gpipe(microbatches); depth], split: false },
            Schedule::OneForwardOneBackward => {
                let stage = |stage| one_by_one(stage, depth, chunks, microbatches);
                Table { stages: (0..depth).map(stage).collect(), split: false }
            }
            Schedule::ZeroBubble => Table { stages: zero_bubble(pipeline), split: true },
        })
    }
}

fn task(work: Work, chunk: usize, microbatch: usize) -> Task {
    Task { work, chunk, microbatch }
}

fn gpipe(microbatches: usize) -> Vec<Task> {
    let all = |work| (0..microbatches).map(move |microbatch| task(work, 0, microbatch));
    all(Work::Forward).chain(all(Work::Backward)).collect()
}

/// One forward, one backward, after enough forward passes to keep the stages behind busy. With
/// several chunks, as many microbatches as there are stages go through one chunk before the next.
fn one_by_one(stage: usize, depth: usize, chunks: usize, microbatches: usize) -> Vec<Task> {
    let turn = if chunks > 1 { depth } else { microbatches };
    let order = |work: Work| -> Vec<Task> {
        let mut tasks = Vec::with_capacity(microbatches * chunks);
        for first in (0..microbatches).step_by(turn) {
            for chunk in 0..chunks {
                let chunk = if work == Work::Forward { chunk } else { chunks - 1 - chunk };
                let turn = first..microbatches.min(first + turn);
                tasks.extend(turn.map(|microbatch| task(work, chunk, microbatch)));
            }
        }
        tasks
    };
    let (forward, backward) = (order(Work::Forward), order(Work::Backward));
    let behind = depth - stage - 1;
    let ahead = if chunks > 1 { 2 * behind + (chunks - 1) * depth } else { behind };
    let ahead = ahead.min(forward.len());
    let mut tasks = forward[..ahead].to_vec();
    for (&forward, &backward) in forward[ahead..].iter().zip(&backward) {
        tasks.extend([forward, backward]);
    }
    tasks.extend(&backward[forward.len() - ahead..]);
    tasks
}

/// Backward passes first, then forward passes while no stage keeps more than the first does with
/// one forward, one backward, and gradients of weights whenever there is nothing else to do.
fn zero_bubble(pipeline: &Pipeline) -> Vec<Vec<Task>> {
    let (depth, microbatches) = (pipeline.depth(), pipeline.microbatches);
    let mut stages: Vec<Progress> = vec![Progress::default(); depth];
    let mut forward_done = vec![vec![f64::INFINITY; microbatches]; depth];
    let mut backward_done = forward_done.clone();
    let mut left = 3 * depth * microbatches;
    while left > 0 {
        // The stage that can begin something first.
        let mut best: Option<(f64, usize, Work)> = None;
        for (stage, progress) in stages.iter().enumerate() {
            let arrives = |done: f64| done + pipeline.transfer;
            let mut consider = |ready: f64, work: Work| {
                let begin = ready.max(progress.free);
                if begin.is_finite() && best.is_none_or(|(time, ..)| begin < time) {
                    best = Some((begin, stage, work));
                }
            };
            let (f, b) = (progress.forward, progress.backward);
            if b < f {
                let ready = match stage + 1 == depth {
                    true => forward_done[stage][b],
                    false => arrives(backward_done[stage + 1][b]),
                };
                consider(ready, Work::Backward);
            }
            if f < microbatches && f - b < depth - stage && f - progress.gradient < depth {
                let ready = if stage == 0 { 0.0 } else { arrives(forward_done[stage - 1][f]) };
                consider(ready, Work::Forward);
            }
            if progress.gradient < b {
                consider(progress.free, Work::Gradient);
            }
        }
        let Some((begin, stage, work)) = best else { break };
        let chunk = pipeline.stages[stage][0];
        let progress = &mut stages[stage];
        let (number, seconds) = match work {
            Work::Forward => (&mut progress.forward, chunk.forward),
            Work::Backward => (&mut progress.backward, chunk.backward),
            Work::Gradient => (&mut progress.gradient, chunk.gradient),
        };
        progress.tasks.push(task(work, 0, *number));
        progress.free = begin + seconds;
        match work {
            Work::Forward => forward_done[stage][*number] = progress.free,
            Work::Backward => backward_done[stage][*number] = progress.free,
            Work::Gradient => {}
        }
        *number += 1;
        left -= 1;
    }
    stages.into_iter().map(|progress| progress.tasks).collect()
}

/// How far a stage is.
#[derive(Clone, Default)]
struct Progress {
    free: f64,
    forward: usize,
    backward: usize,
    gradient: usize,
    tasks: Vec<Task>,
}
