//! Batches made ahead on background threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};

use super::{Batch, BatchSource, Error, Result};

/// Where a [`Loader`] stands; part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// The step of the next batch.
    pub position: u64,
}

/// Gives the batches of a source in order, some of them made ahead on threads of its own.
///
/// Neither the batches nor the state depend on how many are made ahead, or by how many threads.
/// After an error there are no more batches.
pub struct Loader {
    /// In turns: the first has the next batch. Empty once there is nothing more to receive.
    workers: VecDeque<Worker>,
    state: LoaderState,
}

/// A thread and what it makes; without a thread the channel is closed.
struct Worker {
    batches: Receiver<Result<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts at `state` and makes up to `prefetch` batches ahead (at least one).
    pub fn new(source: Arc<dyn BatchSource>, state: LoaderState, prefetch: usize) -> Loader {
        Loader::parallel(source, state, prefetch, 1)
    }

    /// [`Loader::new`] with so many threads (at least one), each of which makes every so many-th
    /// batch.
    pub fn parallel(
        source: Arc<dyn BatchSource>,
        state: LoaderState,
        prefetch: usize,
        threads: usize,
    ) -> Loader {
        let threads = threads.max(1);
        let each = prefetch.div_ceil(threads).max(1);
        let start = |first: u64| {
            let source = source.clone();
            let (sender, batches) = sync_channel(each);
            let work = move || {
                let end = source.steps().unwrap_or(u64::MAX);
                for step in (first..end).step_by(threads) {
                    let batch = source.batch(step);
                    let failed = batch.is_err();
                    // The receiver is gone when the loader is dropped.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new().name("ferrata-data".into()).spawn(work).ok();
            Worker { batches, thread }
        };
        let first = (0..threads as u64).map(|offset| state.position.saturating_add(offset));
        Loader { workers: first.map(start).collect(), state }
    }

    /// The next batch; `None` after the last, and after an error.
    pub fn next_batch(&mut self) -> Option<Result<Batch>> {
        let mut worker = self.workers.pop_front()?;
        let received = worker.batches.recv();
        if let Ok(Ok(batch)) = received {
            self.state.position += 1;
            self.workers.push_back(worker);
            return Some(Ok(batch));
        }
        self.workers.clear();
        let finished = worker.thread.take().map(JoinHandle::join);
        match (received, finished) {
            (Ok(batch), _) => Some(batch),
            (Err(_), Some(Ok(()))) => None,
            (Err(_), Some(Err(_))) => Some(Err(Error::Dataset(
                "the dataset panicked while a batch was made; see its message and correct it"
                    .into(),
            ))),
            (Err(_), None) => Some(Err(Error::Dataset(
                "no thread could be started to make batches; raise the limit of threads".into(),
            ))),
        }
    }

    /// Where the next batch stands: a loader made with this state goes on with it.
    pub fn state(&self) -> LoaderState {
        self.state
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing the channel stops the thread after the batch it is making.
        self.batches = sync_channel(0).1;
        if let Some(thread) = self.thread.take() {
            // A panic of the source no longer matters.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{RandomWindows, SequentialWindows, TokenDataset, Tokens};

    fn tokens() -> Tokens {
        let ids: Vec<u32> = (0..500).map(|i| i * 7 % 50).collect();
        TokenDataset::from_ids(&ids, 50, vec![0]).unwrap().tokens().clone()
    }

    #[test]
    fn depth_and_resuming_change_nothing() {
        let source = Arc::new(RandomWindows::new(tokens(), 8, 3, 1).unwrap());
        let expected: Vec<Batch> = (0..12).map(|step| source.batch(step).unwrap()).collect();
        for (prefetch, threads) in [(0, 0), (1, 1), (2, 1), (8, 1), (1, 2), (4, 3)] {
            let mut state = LoaderState::default();
            let mut all = Vec::new();
            // Stopped and resumed after 1, 2, 3, … batches.
            for count in 1..5 {
                let text = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&text).unwrap();
                let mut loader = Loader::parallel(source.clone(), state, prefetch, threads);
                for _ in 0..count {
                    all.push(loader.next_batch().unwrap().unwrap());
                }
                state = loader.state();
            }
            assert_eq!(state.position, 10);
            assert_eq!(all, expected[..10], "prefetch {prefetch}, {threads} threads");
        }
    }

    #[test]
    fn ends_with_its_source() {
        let source = Arc::new(SequentialWindows::new(tokens(), 100, 2).unwrap());
        for threads in 1..5 {
            let mut loader = Loader::parallel(source.clone(), LoaderState::default(), 2, threads);
            let mut count = 0;
            while let Some(batch) = loader.next_batch() {
                batch.unwrap();
                count += 1;
            }
            assert_eq!((count, loader.state().position), (3, 3));
            assert!(loader.next_batch().is_none());
        }
        let mut beyond = Loader::new(source, LoaderState { position: 9 }, 2);
        assert!(beyond.next_batch().is_none());
    }

    struct Failing(bool);

    impl BatchSource for Failing {
        fn batch(&self, step: u64) -> Result<Batch> {
            match (step, self.0) {
                (0, _) => Ok(Batch::default()),
                (_, false) => Err(Error::Dataset("broken".into())),
                (_, true) => panic!("on purpose"),
            }
        }

        fn steps(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn failures_arrive_and_end_it() {
        for (panics, expected) in [(false, "broken"), (true, "panicked")] {
            let mut loader = Loader::new(Arc::new(Failing(panics)), LoaderState::default(), 4);
            assert!(loader.next_batch().unwrap().is_ok());
            let error = loader.next_batch().unwrap().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(loader.next_batch().is_none());
            assert_eq!(loader.state().position, 1);
        }
    }
}
