//! Tables, run event by event.

use ferrata_ir::{Error, Result};

use super::Pipeline;
use super::table::{Table, Task, Work};

/// A task in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Which stage.
    pub stage: usize,
    /// What it does.
    pub task: Task,
    /// Seconds from the beginning of the step.
    pub begin: f64,
    /// The same for its end.
    pub end: f64,
}

/// A table that has been run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// All tasks, by stage and in order.
    pub events: Vec<Event>,
    /// Seconds until the last one ends.
    pub end: f64,
    /// Share of the time in which stages do nothing, on average.
    pub bubble: f64,
    /// For each stage, the most bytes that are kept for backward passes.
    pub kept: Vec<f64>,
    /// For each stage and chunk, when its last gradient is there.
    pub last: Vec<Vec<f64>>,
}

/// When things are there.
struct State {
    forward: Vec<f64>,
    backward: Vec<f64>,
    /// When the link from a stage to the next is free, and that in the other direction.
    links: Vec<[f64; 2]>,
}

/// Runs a table. A stage begins a task when the one before is done and its input has arrived; links
/// carry one value at a time in each direction.
///
/// # Errors
/// If stages wait for each other.
pub fn run(pipeline: &Pipeline, table: &Table) -> Result<Run> {
    let (depth, chunks) = (pipeline.depth(), pipeline.interleave());
    let count = depth * chunks * pipeline.microbatches;
    let mut state = State {
        forward: vec![f64::INFINITY; count],
        backward: vec![f64::INFINITY; count],
        links: vec![[0.0; 2]; depth],
    };
    let mut next = vec![0; depth];
    let mut free = vec![0.0f64; depth];
    let mut events: Vec<Vec<Event>> = vec![Vec::new(); depth];
    let mut waiting: Vec<usize> = (0..depth).collect();
    while let Some(stage) = waiting.pop() {
        while let Some(&task) = table.stages[stage].get(next[stage]) {
            let Some(ready) = state.ready(pipeline, stage, task) else { break };
            let chunk = &pipeline.stages[stage][task.chunk];
            let seconds = match task.work {
                Work::Forward => chunk.forward,
                Work::Backward if table.split => chunk.backward,
                Work::Backward => chunk.backward + chunk.gradient,
                Work::Gradient => chunk.gradient,
            };
            let begin = ready.max(free[stage]);
            let end = begin + seconds;
            free[stage] = end;
            events[stage].push(Event { stage, task, begin, end });
            next[stage] += 1;
            if let Some(other) = state.done(pipeline, stage, task, end)
                && other != stage
            {
                waiting.push(other);
            }
        }
    }
    if let Some(stage) = (0..depth).find(|&stage| next[stage] < table.stages[stage].len()) {
        return Err(Error::new(format!("stage {stage} of the pipeline waits for ever")));
    }
    Ok(summary(pipeline, table, events))
}

impl State {
    fn at(pipeline: &Pipeline, place: usize, microbatch: usize) -> usize {
        place * pipeline.microbatches + microbatch
    }

    /// When the input of a task is at its stage; `None` if it has not been made.
    fn ready(&self, pipeline: &Pipeline, stage: usize, task: Task) -> Option<f64> {
        let depth = pipeline.depth();
        let place = task.chunk * depth + stage;
        let last = pipeline.interleave() * depth - 1;
        let at = |times: &[f64], place: usize| times[State::at(pipeline, place, task.microbatch)];
        let time = match task.work {
            Work::Forward if place == 0 => 0.0,
            Work::Forward => at(&self.forward, place - 1),
            Work::Backward if place == last => at(&self.forward, place),
            Work::Backward => at(&self.backward, place + 1),
            Work::Gradient => 0.0,
        };
        time.is_finite().then_some(time)
    }

    /// Notes when the result of a task is at the stage that needs it, which is returned.
    fn done(&mut self, pipeline: &Pipeline, stage: usize, task: Task, end: f64) -> Option<usize> {
        let depth = pipeline.depth();
        let place = task.chunk * depth + stage;
        let at = State::at(pipeline, place, task.microbatch);
        let last = pipeline.interleave() * depth - 1;
        match task.work {
            Work::Gradient => None,
            Work::Forward if place == last => {
                self.forward[at] = end;
                None
            }
            Work::Forward => {
                self.forward[at] = self.arrives(pipeline, stage, 0, end);
                Some((stage + 1) % depth)
            }
            Work::Backward => {
                self.backward[at] = self.arrives(pipeline, stage, 1, end);
                (place > 0).then(|| (stage + depth - 1) % depth)
            }
        }
    }

    fn arrives(&mut self, pipeline: &Pipeline, stage: usize, direction: usize, end: f64) -> f64 {
        if pipeline.depth() == 1 {
            return end;
        }
        let link = &mut self.links[stage][direction];
        *link = link.max(end) + pipeline.transfer;
        *link
    }
}

fn summary(pipeline: &Pipeline, table: &Table, events: Vec<Vec<Event>>) -> Run {
    let all = || events.iter().flatten();
    let end = all().map(|event| event.end).fold(0.0, f64::max);
    let busy: f64 = all().map(|event| event.end - event.begin).sum();
    let total = end * pipeline.depth() as f64;
    let bubble = if total > 0.0 { 1.0 - busy / total } else { 0.0 };
    let mut last = vec![vec![0.0; pipeline.interleave()]; pipeline.depth()];
    let mut kept = vec![0.0; pipeline.depth()];
    let gradients = if table.split { Work::Gradient } else { Work::Backward };
    for (stage, events) in events.iter().enumerate() {
        let mut now = 0.0;
        for event in events {
            let chunk = &pipeline.stages[stage][event.task.chunk];
            if event.task.work == Work::Forward {
                now += chunk.kept;
                kept[stage] = f64::max(kept[stage], now);
            } else if event.task.work == Work::Backward {
                kept[stage] = f64::max(kept[stage], now + chunk.working);
            }
            if event.task.work == gradients {
                now -= chunk.kept;
                last[stage][event.task.chunk] = event.end;
            }
        }
    }
    Run { events: events.into_iter().flatten().collect(), end, bubble, kept, last }
}
