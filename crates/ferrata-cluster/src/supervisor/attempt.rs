//! One start of a job: its ranks come together, run, and end or are ended.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ferrata_ir::{Error, Result};
use rustix::process::Signal;
use serde_json::Value;

use super::start::{self, Process};
use super::watch::{Failure, Fault, Watch, label};
use super::{Event, Job, News, Starter};
use crate::processes::control::{self, Hello, Member, Order};
use crate::processes::stream::Stream;

/// The supervisor looks around at least this often.
const LOOK: Duration = Duration::from_millis(50);
/// If it did not for so long, it stood still itself.
const GAP: Duration = Duration::from_secs(1);
/// One rank that dies takes others with it; it takes so long until it is clear which was the first.
const AFTERMATH: Duration = Duration::from_millis(200);
/// `mpirun` and `srun` take so long to say how a rank ended.
const SLOW_AFTERMATH: Duration = Duration::from_secs(2);
/// Processes that were killed are waited for so long.
const BURIAL: Duration = Duration::from_secs(10);

/// How a start ended.
pub(super) enum End {
    Finished,
    Stopped,
    Failed(Fault),
}

/// A rank that has joined.
struct Joined {
    connection: u64,
    line: Stream,
    hello: Hello,
}

pub(super) struct Attempt<'a> {
    job: &'a Job,
    number: u32,
    secret: String,
    processes: Vec<Process>,
    /// By rank.
    joined: Vec<Option<Joined>>,
    ranks_of: HashMap<u64, usize>,
    /// From when on all ranks are there.
    watch: Option<Watch>,
    /// Ranks that have done what they were started for.
    done: BTreeSet<usize>,
    /// The first sign that something is wrong, and the ranks that ended, as far as is known how.
    trouble: Option<Instant>,
    ended: Vec<(usize, Option<ExitStatus>)>,
    stopping: bool,
}

impl<'a> Attempt<'a> {
    pub fn new(
        job: &'a Job,
        number: u32,
        ranks: usize,
        secret: String,
        processes: Vec<Process>,
    ) -> Self {
        Attempt {
            job,
            number,
            secret,
            processes,
            joined: (0..ranks).map(|_| None).collect(),
            ranks_of: HashMap::new(),
            watch: None,
            done: BTreeSet::new(),
            trouble: None,
            ended: Vec::new(),
            stopping: false,
        }
    }

    /// The farthest step that was begun, if it is not the first one of this start.
    pub fn step(&self) -> u64 {
        self.watch.as_ref().filter(|watch| watch.has_progressed()).map_or(0, Watch::step)
    }

    /// Watches until the ranks have ended or one is at fault.
    pub fn run(
        &mut self,
        events: &Receiver<Event>,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(News),
    ) -> Result<End> {
        let start = Instant::now();
        let mut looked = start;
        loop {
            match events.recv_timeout(LOOK) {
                Ok(event) => self.handle(event, tell)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("the launcher lost its door"));
                }
            }
            let now = Instant::now();
            if let Some(watch) = self.watch.as_mut().filter(|_| now - looked > GAP) {
                watch.forgive(now - looked);
            }
            looked = now;
            if stop.load(Ordering::Relaxed) && !self.stopping {
                self.stopping = true;
                tell(News::Stopping);
                for joined in self.joined.iter().flatten() {
                    // A rank that is gone is noticed elsewhere.
                    let _ = control::send(&joined.line, &Order::Stop);
                }
                if self.watch.is_none() {
                    return Ok(End::Stopped);
                }
            }
            if self.is_over() {
                return Ok(if self.stopping { End::Stopped } else { End::Finished });
            }
            if let Some(fault) = self.fault(now, start) {
                return Ok(End::Failed(fault));
            }
        }
    }

    fn handle(&mut self, event: Event, tell: &mut dyn FnMut(News)) -> Result<()> {
        let now = Instant::now();
        match event {
            Event::Hello { connection, line, hello } => {
                self.admit(connection, line, &hello)?;
                self.begin(now, tell);
            }
            Event::Beat { connection, beat } => {
                let Some(&rank) = self.ranks_of.get(&connection) else { return Ok(()) };
                let Some(watch) = &mut self.watch else { return Ok(()) };
                if beat.done {
                    self.done.insert(rank);
                    watch.end(rank);
                }
                if beat.failed.is_some() {
                    self.trouble.get_or_insert(now);
                }
                watch.beat(rank, beat, now);
            }
            Event::Closed { connection } => {
                if let Some(&rank) = self.ranks_of.get(&connection) {
                    self.left(rank, None, now);
                }
            }
            Event::Exited { attempt, process, status } if attempt == self.number => {
                self.processes[process].status = Some(status);
                match self.processes[process].rank {
                    Some(rank) if status.success() && self.joined[rank].is_none() => {
                        return Err(Error::new(format!(
                            "rank {rank} ended without joining the others"
                        ))
                        .help("the program has to ask for them: communicator_from_environment"));
                    }
                    Some(rank) if status.success() => drop(self.done.insert(rank)),
                    Some(rank) => self.left(rank, Some(status), now),
                    None => drop((!status.success()).then(|| self.trouble.get_or_insert(now))),
                }
            }
            Event::Line { attempt, rank, error, text } if attempt == self.number => {
                let hello = rank.and_then(|rank| self.joined.get(rank)?.as_ref());
                let label = rank.map(|rank| label(rank, hello.map(|joined| &joined.hello)));
                tell(News::Line { label: label.unwrap_or_default(), error, text });
            }
            Event::Exited { .. } | Event::Line { .. } => {}
        }
        Ok(())
    }

    /// Lets a rank in, or says why not.
    fn admit(&mut self, connection: u64, line: Stream, hello: &Value) -> Result<()> {
        let refuse = |line: &Stream, reason: String| {
            // Whether it still hears that changes nothing here.
            let _ = control::send(line, &Order::Refuse(reason.clone()));
            Error::new(reason)
        };
        // Strangers and ranks of earlier starts are not worth an end of this one.
        if hello.get("job").and_then(Value::as_str) != Some(&self.secret) {
            let _ = refuse(&line, "this start of the job is over".to_owned());
            return Ok(());
        }
        let hello = Hello::understand(hello).map_err(|reason| refuse(&line, reason))?;
        let (rank, ranks) = (hello.rank, self.joined.len());
        let host = &hello.host;
        if hello.ranks != ranks || rank >= ranks {
            let reason = format!(
                "rank {rank} on {host} was started as one of {} ranks, the launcher has {ranks}",
                hello.ranks
            );
            return Err(refuse(&line, reason));
        }
        if let Some(other) = &self.joined[rank] {
            let reason =
                format!("rank {rank} is there twice, on {} and on {host}", other.hello.host);
            return Err(refuse(&line, reason));
        }
        self.ranks_of.insert(connection, rank);
        self.joined[rank] = Some(Joined { connection, line, hello });
        Ok(())
    }

    /// Lets the ranks begin, once all are there.
    fn begin(&mut self, now: Instant, tell: &mut dyn FnMut(News)) {
        if self.watch.is_some() || self.joined.iter().any(Option::is_none) {
            return;
        }
        let hellos: Vec<Hello> =
            self.joined.iter().flatten().map(|joined| joined.hello.clone()).collect();
        let members = hellos
            .iter()
            .map(|hello| Member { host: hello.host.clone(), listens: hello.listens.clone() });
        let order = Order::Begin(members.collect());
        for joined in self.joined.iter().flatten() {
            // A rank that is gone is noticed elsewhere.
            let _ = control::send(&joined.line, &order);
        }
        let hosts: BTreeSet<&str> = hellos.iter().map(|hello| hello.host.as_str()).collect();
        tell(News::Began { ranks: hellos.len(), hosts: hosts.len() });
        self.watch = Some(Watch::new(self.job.limits, hellos, now));
    }

    /// A rank's connection or process ended.
    fn left(&mut self, rank: usize, status: Option<ExitStatus>, now: Instant) {
        if self.done.contains(&rank) {
            return;
        }
        match self.ended.iter_mut().find(|(ended, _)| *ended == rank) {
            Some((_, known)) => *known = known.or(status),
            None => self.ended.push((rank, status)),
        }
        if let Some(watch) = &mut self.watch {
            watch.end(rank);
        }
        self.trouble.get_or_insert(now);
    }

    /// Whether a process may end so. One that does not care for being asked to stop is ended by it.
    fn is_well(&self, status: ExitStatus) -> bool {
        status.success() || self.stopping && status.signal() == Some(Signal::TERM.as_raw())
    }

    /// Whether all has come to a good end.
    fn is_over(&self) -> bool {
        let by_themselves = self.processes.is_empty();
        let ended = self.processes.iter().all(|p| p.status.is_some_and(|s| self.is_well(s)));
        match by_themselves {
            true => self.done.len() == self.joined.len(),
            false => ended,
        }
    }

    /// The rank to blame, once that is clear.
    fn fault(&mut self, now: Instant, start: Instant) -> Option<Fault> {
        let Some(trouble) = self.trouble else { return self.unasked(now, start) };
        let by_signal = |status: &Option<ExitStatus>| status.is_some_and(|s| s.signal().is_some());
        let clear = !self.stopping && self.ended.iter().any(|(_, status)| by_signal(status));
        let slow = self.job.starter != Starter::Local;
        let told = self.processes.iter().any(|p| p.rank.is_none() && p.status.is_some());
        let patience = if slow && !told { SLOW_AFTERMATH } else { AFTERMATH };
        if !clear && now - trouble < patience {
            return None;
        }
        let failed = |rank: usize| {
            self.watch.as_ref().is_some_and(|watch| watch.beat_of(rank).failed.is_some())
        };
        // A stop is over when all have ended; that one of them was the first is no fault.
        let ended = self
            .ended
            .iter()
            .filter(|(_, status)| !status.map_or(self.stopping, |s| self.is_well(s)));
        // Who died by a signal, or without a word, was before those whose collectives failed.
        let first = ended.min_by_key(|(rank, status)| (failed(*rank), !by_signal(status)));
        let launcher = self.processes.iter().find(|process| process.rank.is_none());
        let code = launcher.and_then(|process| process.status).and_then(|status| status.code());
        match first {
            Some(&(rank, status)) if !failed(rank) => Some(self.blame(
                rank,
                match status {
                    Some(status) => ended_by(status),
                    // Its launcher says how; a signal it may have sent itself.
                    None => match code {
                        Some(code @ 1..=128) => Failure::Exited(code),
                        _ => Failure::Gone,
                    },
                },
            )),
            _ if self.stopping => None,
            _ => self.first_report().or_else(|| {
                // Ranks that never joined: all that is known is how their launcher ended.
                let code = code?;
                Some(self.blame(0, Failure::Exited(code)))
            }),
        }
    }

    /// A collective failed without a rank that did: the network, or programs that differ.
    fn first_report(&self) -> Option<Fault> {
        let watch = self.watch.as_ref()?;
        (0..self.joined.len()).find_map(|rank| {
            let error = watch.beat_of(rank).failed.clone()?;
            Some(watch.fault(rank, Failure::Collective(error)))
        })
    }

    /// A rank that is at fault though nothing ended.
    fn unasked(&mut self, now: Instant, start: Instant) -> Option<Fault> {
        if let Some(watch) = &self.watch {
            return watch.verdict(now);
        }
        let waited = now - start;
        let missing = self.joined.iter().position(Option::is_none)?;
        (waited > self.job.limits.start).then(|| self.blame(missing, Failure::Missing(waited)))
    }

    fn blame(&self, rank: usize, failure: Failure) -> Fault {
        match &self.watch {
            Some(watch) => watch.fault(rank, failure),
            None => Fault {
                rank,
                label: label(rank, self.joined[rank].as_ref().map(|joined| &joined.hello)),
                failure,
                activity: "before all ranks had joined".to_owned(),
                collective: None,
            },
        }
    }

    /// Ends what is left, and passes on what was printed before.
    pub fn tear_down(&mut self, events: &Receiver<Event>, tell: &mut dyn FnMut(News)) {
        // A rank whose line ends ends itself, wherever it is.
        for joined in self.joined.iter().flatten() {
            joined.line.shut();
            self.ranks_of.remove(&joined.connection);
        }
        start::end(&mut self.processes);
        let start = Instant::now();
        while self.processes.iter().any(|p| p.status.is_none()) && start.elapsed() < BURIAL {
            if let Ok(event) = events.recv_timeout(LOOK) {
                // Versions were told before.
                let _ = self.handle(event, tell);
            }
        }
    }
}

fn ended_by(status: ExitStatus) -> Failure {
    match (status.signal(), status.code()) {
        (Some(signal), _) => Failure::Killed(signal),
        (None, code) => Failure::Exited(code.unwrap_or_default()),
    }
}
