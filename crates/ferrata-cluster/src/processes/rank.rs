//! A rank under supervision: it tells its supervisor where it is, and ends with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ferrata_ir::Communicator;
use ferrata_ir::communicator::Report;
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::{DType, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

use super::control::{self, Beat, Order};
use super::stream::Stream;

/// A rank says where it is so often.
pub(crate) const PULSE: Duration = Duration::from_millis(250);

/// The line to the supervisor, and what goes over it.
struct Pulse {
    line: Stream,
    state: Mutex<State>,
}

struct State {
    beat: Beat,
    /// When the last collective was left, or entered.
    since: Instant,
    /// The communicator is gone: the line ends, and this process may go on.
    ended: bool,
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, collective: &str) {
        let mut state = self.state();
        let busy = state.since.elapsed().as_secs_f64();
        state.since = Instant::now();
        let beat = &mut state.beat;
        beat.busy += busy;
        beat.entered += 1;
        beat.inside = true;
        let name = beat.collective.get_or_insert_default();
        name.clear();
        name.push_str(collective);
    }

    fn leave(&self, error: Option<&Error>) {
        let mut state = self.state();
        state.since = Instant::now();
        state.beat.inside = false;
        let Some(error) = error else { return };
        state.beat.failed = Some(error.to_string());
        drop(state);
        // At once: this process may be gone before the next beat. That the supervisor is gone is
        // noticed by the thread that beats.
        let _ = self.send();
    }

    fn report(&self, what: Report<'_>) {
        let mut state = self.state();
        let beat = &mut state.beat;
        match what {
            Report::Step(step) => (beat.step, beat.other) = (Some(step), None),
            Report::Other(what) => (beat.step, beat.other) = (None, Some(what.to_owned())),
            Report::Scope(scope) => scope.clone_into(&mut beat.scope),
            Report::Done => beat.done = true,
        }
        let urgent = beat.done;
        drop(state);
        if urgent {
            let _ = self.send();
        }
    }

    /// Lines of two threads must not mix: they are sent under the lock.
    fn send(&self) -> std::io::Result<()> {
        let state = self.state();
        let mut beat = state.beat.clone();
        if !beat.inside {
            beat.busy += state.since.elapsed().as_secs_f64();
        }
        control::send(&self.line, &beat)
    }

    /// Sends beats and takes orders until the communicator is gone.
    fn run(&self) {
        let pause = Timespec::try_from(PULSE).unwrap_or_default();
        loop {
            let connected = self.send().is_ok();
            let mut line = [PollFd::new(&self.line, PollFlags::IN)];
            let orders = connected && poll(&mut line, Some(&pause)).is_ok_and(|ready| ready > 0);
            let order = match orders {
                true => control::receive::<Order>(&self.line).ok().flatten(),
                false => None,
            };
            if self.state().ended {
                return;
            }
            match order {
                // As if somebody had asked this process: it saves and ends.
                Some(Order::Stop) => drop(kill_process(getpid(), Signal::TERM)),
                Some(_) => {}
                None if connected && !orders => {}
                // The job is complete, and nobody starts it again.
                None if self.state().beat.done => return,
                // The supervisor is gone, and a new one may start the job again any time: two of
                // them must not write into one folder. A process that waits for another rank, or
                // computes, cannot be asked to end.
                None => drop(kill_process(getpid(), Signal::KILL)),
            }
        }
    }
}

/// Beats from now on until it is dropped.
pub(super) struct Heart {
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Beats on the line to the supervisor.
    pub fn new(line: Stream) -> Heart {
        let state = State { beat: Beat::default(), since: Instant::now(), ended: false };
        let pulse = Arc::new(Pulse { line, state: Mutex::new(state) });
        let thread = pulse.clone();
        Heart { pulse, thread: Some(thread::spawn(move || thread.run())) }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.pulse.state().ended = true;
        self.pulse.line.shut();
        if let Some(thread) = self.thread.take() {
            // All that it could panic about ends with it.
            let _ = thread.join();
        }
    }
}

/// A communicator that tells a supervisor about its collectives.
pub(super) struct Supervised {
    inner: Box<dyn Communicator>,
    heart: Heart,
    neighbours: usize,
}

impl Supervised {
    pub fn new(inner: Box<dyn Communicator>, heart: Heart, neighbours: usize) -> Supervised {
        Supervised { inner, heart, neighbours }
    }

    fn within(&self, name: &str, collective: impl FnOnce() -> Result<()>) -> Result<()> {
        self.heart.pulse.enter(name);
        let result = collective();
        self.heart.pulse.leave(result.as_ref().err());
        result
    }
}

impl fmt::Debug for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Communicator for Supervised {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn neighbours(&self) -> usize {
        self.neighbours
    }

    fn report(&self, what: Report<'_>) {
        self.heart.pulse.report(what);
        self.inner.report(what);
    }

    fn exchange(&self, group: &[usize], send: &[&[u8]], receive: &mut [&mut [u8]]) -> Result<()> {
        self.within("exchange", || self.inner.exchange(group, send, receive))
    }

    fn post(&self, to: usize, data: &[u8]) -> Result<()> {
        // It waits for nobody.
        self.inner.post(to, data)
    }

    fn receive(&self, from: usize, data: &mut [u8]) -> Result<()> {
        self.within("receive", || self.inner.receive(from, data))
    }

    fn all_gather(
        &self,
        group: &[usize],
        part: &[u8],
        sizes: &[usize],
        whole: &mut [u8],
    ) -> Result<()> {
        self.within("all_gather", || self.inner.all_gather(group, part, sizes, whole))
    }

    fn reduce_scatter(
        &self,
        group: &[usize],
        kind: ReduceKind,
        dtype: DType,
        whole: &[u8],
        sizes: &[usize],
        part: &mut [u8],
    ) -> Result<()> {
        self.within("reduce_scatter", || {
            self.inner.reduce_scatter(group, kind, dtype, whole, sizes, part)
        })
    }

    fn all_reduce(
        &self,
        group: &[usize],
        kind: ReduceKind,
        dtype: DType,
        data: &mut [u8],
    ) -> Result<()> {
        self.within("all_reduce", || self.inner.all_reduce(group, kind, dtype, data))
    }
}
