//! Starts the ranks of a job, watches over them, and starts them again after a fault.
//!
//! The supervisor stands outside of all collectives: ranks tell it where they are over connections
//! of their own, so that it can name the one that keeps all others waiting.

mod attempt;
mod door;
mod start;
mod watch;

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use ferrata_ir::{Error, Result};
use serde_json::Value;

use crate::processes::control::Beat;
use crate::processes::environment::{self as names, Backend};
use crate::processes::join;
use crate::processes::stream::{Listener, Stream};
use attempt::{Attempt, End};
use door::{Door, Folder};

pub use start::Starter;
pub use watch::{Failure, Fault, Limits};

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program that each rank runs. It asks [`communicator_from_environment`] for the others.
    ///
    /// [`communicator_from_environment`]: crate::communicator_from_environment
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Added to them, unless it is there, when the job is started again: it makes the program
    /// continue from its last checkpoint, or begin.
    pub resume: OsString,
    /// How many ranks there are, at first.
    pub ranks: usize,
    /// With how many the job may go on when others fail again and again.
    pub min_ranks: usize,
    /// Who starts them.
    pub starter: Starter,
    /// What carries their data.
    pub backend: Backend,
    /// Where ranks find the launcher, `HOST:PORT` (port 0: any free one); without it, a Unix socket
    /// for ranks on this machine, else this host's name.
    pub listen: Option<String>,
    /// Arguments for `mpirun` or `srun`.
    pub pass: Vec<OsString>,
    /// After so many starts in a row that get no step further the job is given up.
    pub restarts: u32,
    /// What is taken for a fault.
    pub limits: Limits,
}

impl Job {
    /// This program on `ranks` ranks of this machine, without arguments.
    pub fn local(ranks: usize) -> Job {
        Job {
            program: std::env::current_exe().unwrap_or_default(),
            arguments: Vec::new(),
            resume: "--resume".into(),
            ranks,
            min_ranks: ranks,
            starter: Starter::Local,
            backend: Backend::Sockets,
            listen: None,
            pass: Vec::new(),
            restarts: 3,
            limits: Limits::default(),
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All ranks have done what they were started for.
    Finished,
    /// They were asked to stop, and did.
    Stopped,
}

/// What the user of a launcher wants to see.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A line that a rank printed.
    Line {
        /// Its rank, device and host; empty for what `mpirun` and `srun` say.
        label: String,
        /// Whether it stood on the standard error.
        error: bool,
        /// Without the line break.
        text: String,
    },
    /// All ranks have joined.
    Began {
        /// How many.
        ranks: usize,
        /// On so many hosts.
        hosts: usize,
    },
    /// A rank failed, and so the others were ended.
    Failed(Fault),
    /// The job is started again, with so many ranks.
    Again {
        /// How many.
        ranks: usize,
    },
    /// The ranks have been asked to save and end.
    Stopping,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Line { label, text, .. } if label.is_empty() => f.write_str(text),
            News::Line { label, text, .. } => write!(f, "[{label}] {text}"),
            News::Began { ranks, hosts } => write!(f, "launch: {ranks} ranks on {hosts} hosts"),
            News::Failed(fault) => write!(f, "launch: {fault}"),
            News::Again { ranks } => {
                write!(f, "launch: starting {ranks} ranks again from the last checkpoint")
            }
            News::Stopping => f.write_str("launch: the ranks are asked to save and end"),
        }
    }
}

/// What happens to a job.
#[derive(Debug)]
enum Event {
    Hello { connection: u64, line: Stream, hello: Value },
    Beat { connection: u64, beat: Beat },
    Closed { connection: u64 },
    Line { attempt: u32, rank: Option<usize>, error: bool, text: String },
    Exited { attempt: u32, process: usize, status: ExitStatus },
}

/// Runs a job to its end. `stop` asks it to save and end; `tell` is called for all that happens.
///
/// # Errors
/// When the ranks cannot be started, one of them ends with an error of its own, versions are mixed,
/// or faults follow each other without a step between them.
pub fn supervise(job: &Job, stop: &AtomicBool, tell: &mut dyn FnMut(News)) -> Result<Outcome> {
    let given = std::env::var(names::JOB).ok();
    let secret = given.clone().map_or_else(secret, Ok)?;
    let (listener, address, _folder) = listen(job, &secret)?;
    let (sender, events) = channel();
    let _door = Door::open(listener, sender.clone());
    let mut ranks = job.ranks;
    let (mut best, mut fruitless, mut suspect) = (0, 0, None);
    for number in 0.. {
        // Ranks of an earlier start that are still about must not get in.
        let secret = if given.is_some() { secret.clone() } else { format!("{secret}-{number}") };
        let mut arguments = job.arguments.clone();
        if number > 0 && !arguments.contains(&job.resume) {
            arguments.push(job.resume.clone());
        }
        let environment = [
            (names::SUPERVISOR, address.clone()),
            (names::JOB, secret.clone()),
            (names::RANKS, ranks.to_string()),
            (names::BACKEND, job.backend.name().to_owned()),
        ];
        let processes = start::start(job, ranks, &arguments, &environment, number, &sender)?;
        let mut attempt = Attempt::new(job, number, ranks, secret, processes);
        let end = attempt.run(&events, stop, tell);
        attempt.tear_down(&events, tell);
        let fault = match end? {
            End::Finished => return Ok(Outcome::Finished),
            End::Stopped => return Ok(Outcome::Stopped),
            End::Failed(fault) => fault,
        };
        tell(News::Failed(fault.clone()));
        if let Failure::Exited(code) = fault.failure {
            return Err(Error::new(format!("{} ended with exit code {code}", fault.label))
                .help("its own error says why"));
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(format!("while it was to stop, {fault}")));
        }
        fruitless = if attempt.step() > best { 0 } else { fruitless + 1 };
        best = best.max(attempt.step());
        if fruitless > job.restarts {
            return Err(Error::new(format!("{fault}; so did {fruitless} starts in a row"))
                .help("see what is wrong with this host, or allow fewer ranks with --min-ranks"));
        }
        // The same rank twice without a step between: the others go on alone.
        if fruitless > 1 && suspect == Some(fault.rank) && ranks > job.min_ranks {
            ranks -= 1;
        }
        suspect = Some(fault.rank);
        tell(News::Again { ranks });
    }
    unreachable!("the loop above has no end of its own")
}

/// What nobody else can know: it keeps others out of a job.
///
/// # Errors
/// When the system gives no random numbers.
pub fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| Error::new(format!("there are no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Listens for ranks; gives the address that they are told.
fn listen(job: &Job, secret: &str) -> Result<(Listener, String, Option<Folder>)> {
    let failed = |error: std::io::Error| {
        Error::new(format!("cannot listen for ranks: {error}"))
            .help("choose another address with --listen HOST:PORT")
    };
    let (listener, address, folder) = match &job.listen {
        Some(listen) => {
            let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "0"));
            let port: u16 = port.parse().map_err(|_| {
                Error::new(format!("{listen:?} is no address")).help("it is HOST:PORT")
            })?;
            let (listener, address) = match host.parse::<IpAddr>() {
                Ok(ip) if ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                    Listener::on_interface(ip, port)
                }
                Ok(_) => Listener::on_all_interfaces(&join::host(), port),
                Err(_) => Listener::on_all_interfaces(host, port),
            }
            .map_err(failed)?;
            (listener, address, None)
        }
        None if job.starter == Starter::Local => {
            let folder = Folder::new(secret).map_err(failed)?;
            let path = folder.path().join("launch");
            let (listener, address) = Listener::at_path(path).map_err(failed)?;
            (listener, address, Some(folder))
        }
        None => {
            let (listener, address) =
                Listener::on_all_interfaces(&join::host(), 0).map_err(failed)?;
            (listener, address, None)
        }
    };
    Ok((listener, address.to_string(), folder))
}
