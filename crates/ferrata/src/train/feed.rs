//! The microbatches of a step, made ahead on other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Error, Result};
use crate::data::{Batch, BatchSource, Loader, LoaderState};

/// Batches that each thread makes ahead while a step runs.
const PREFETCH: usize = 2;

/// Gives the microbatches of any step; in order they are ready when they are asked for.
pub(super) struct Feed {
    pub source: Arc<dyn BatchSource>,
    loader: Option<Loader>,
    /// Microbatches of a step.
    accumulate: usize,
    threads: usize,
}

impl Feed {
    /// Steps of `accumulate` batches, made by so many threads.
    pub fn new(source: Arc<dyn BatchSource>, accumulate: usize, threads: usize) -> Feed {
        Feed { source, loader: None, accumulate, threads }
    }

    /// The microbatches of `step`, and the seconds that had to be waited for them.
    pub fn batches(&mut self, step: u64) -> Result<(Vec<Batch>, f64)> {
        let start = Instant::now();
        let count = self.accumulate as u64;
        let first = step * count;
        let loader = match self.loader.take() {
            Some(loader) if loader.state().position == first => loader,
            _ => {
                let state = LoaderState { position: first };
                let prefetch = PREFETCH * self.threads;
                Loader::parallel(self.source.clone(), state, prefetch, self.threads)
            }
        };
        let loader = self.loader.insert(loader);
        let ended = || Error::new(format!("the data ends before step {}", step + 1), "give more");
        let batches = (0..count).map(|_| Ok(loader.next_batch().ok_or_else(ended)??));
        let batches = batches.collect::<Result<_>>()?;
        Ok((batches, start.elapsed().as_secs_f64()))
    }
}

/// Hands every batch of a validation part with its number to `f`, made ahead by so many threads;
/// false once `stop` is set.
pub(super) fn each_batch(
    source: Arc<dyn BatchSource>,
    threads: usize,
    stop: &AtomicBool,
    mut f: impl FnMut(u32, &Batch) -> Result<()>,
) -> Result<bool> {
    let state = LoaderState::default();
    let mut loader = Loader::parallel(source, state, PREFETCH * threads, threads);
    for number in 0.. {
        let Some(batch) = loader.next_batch() else { break };
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        f(number, &batch?)?;
    }
    Ok(true)
}

/// The error for a validation part of which nothing counts.
pub(super) fn nothing_readable() -> Error {
    Error::new("no picture of the validation part can be read", "check the data")
}
