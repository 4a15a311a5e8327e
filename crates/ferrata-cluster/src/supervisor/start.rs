//! How the processes of a job are started and ended: by ourselves on this machine, by `mpirun`, by
//! `srun`, or by somebody else.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, sleep};
use std::time::Duration;

use ferrata_ir::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Event, Job};
use crate::processes::environment as names;

/// Who starts the ranks of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starter {
    /// The launcher, on this machine.
    #[default]
    Local,
    /// `mpirun`, of Open MPI or MPICH.
    Mpirun,
    /// `srun`, within an allocation of Slurm.
    Srun,
    /// Somebody else, such as Kubernetes: the launcher waits for them to come.
    External,
}

/// `mpirun` and `srun` end their ranks when they are asked to; they get so long.
const ASKED: Duration = Duration::from_secs(2);

/// A process that the supervisor started, with all that it starts, as a process group.
pub(super) struct Process {
    /// The rank that it is; none if it is a launcher of ranks.
    pub rank: Option<usize>,
    group: Pid,
    pub status: Option<ExitStatus>,
}

/// Starts `ranks` ranks; what they print, and that they end, is told.
pub(super) fn start(
    job: &Job,
    ranks: usize,
    arguments: &[OsString],
    environment: &[(&'static str, String)],
    attempt: u32,
    events: &Sender<Event>,
) -> Result<Vec<Process>> {
    let mut program = job.program.clone().into_os_string();
    let commands: Vec<(Option<usize>, Command)> = match job.starter {
        Starter::External => return Ok(Vec::new()),
        Starter::Local => (0..ranks)
            .map(|rank| {
                let mut command = Command::new(&program);
                command.env(names::RANK, rank.to_string());
                command.env(names::PARENT, std::process::id().to_string());
                (Some(rank), command)
            })
            .collect(),
        Starter::Mpirun | Starter::Srun => {
            let mut command = match job.starter {
                Starter::Mpirun => mpirun(ranks, environment)?,
                _ => srun(ranks),
            };
            command.args(&job.pass).arg(std::mem::take(&mut program));
            // Each rank finds its number in what the launcher sets.
            command.env_remove(names::RANK).env_remove(names::PARENT);
            vec![(None, command)]
        }
    };
    let mut processes: Vec<Process> = Vec::with_capacity(commands.len());
    for (index, (rank, mut command)) in commands.into_iter().enumerate() {
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the launcher alone, which asks the ranks to end together.
        command.process_group(0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                end(&mut processes);
                let name = command.get_program().to_string_lossy().into_owned();
                return Err(Error::new(format!("cannot start {name}: {error}")));
            }
        };
        let group = Pid::from_child(&child);
        let pipes = (child.stdout.take(), child.stderr.take());
        let readers = [
            pipes.0.map(|pipe| read(Box::new(pipe), rank, false, attempt, events.clone())),
            pipes.1.map(|pipe| read(Box::new(pipe), rank, true, attempt, events.clone())),
        ];
        let events = events.clone();
        thread::spawn(move || {
            let status = child.wait();
            // What it printed comes before its end, unless something that it started holds on.
            for reader in readers.into_iter().flatten() {
                for _ in 0..20 {
                    if reader.is_finished() {
                        break;
                    }
                    sleep(Duration::from_millis(5));
                }
            }
            // A child that cannot be waited for is as good as gone.
            let status = status.unwrap_or(ExitStatus::from_raw(Signal::KILL.as_raw()));
            let _ = events.send(Event::Exited { attempt, process: index, status });
        });
        processes.push(Process { rank, group, status: None });
    }
    Ok(processes)
}

/// Ends processes with all that they started.
pub(super) fn end(processes: &mut [Process]) {
    let living = || processes.iter().filter(|process| process.status.is_none());
    // Ranks of ours have nothing to clear up; a launcher of ranks has to end those elsewhere.
    for launcher in living().filter(|process| process.rank.is_none()) {
        let _ = kill_process_group(launcher.group, Signal::TERM);
        for _ in 0..ASKED.as_millis() / 20 {
            if rustix::process::test_kill_process_group(launcher.group).is_err() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
    }
    for process in living() {
        // It may be gone meanwhile.
        let _ = kill_process_group(process.group, Signal::KILL);
    }
}

fn mpirun(ranks: usize, environment: &[(&'static str, String)]) -> Result<Command> {
    let version = Command::new("mpirun").arg("--version").stdin(Stdio::null()).output();
    let version = version.map_err(|error| {
        Error::new(format!("cannot start mpirun: {error}")).help("install MPI, or leave out --with")
    })?;
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string()]);
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        // Without binding and with yielding, more ranks than cores get on.
        command.args(["--tag-output", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]);
        for (name, _) in environment {
            command.args(["-x", name]);
        }
    } else {
        command.arg("-prepend-rank");
    }
    Ok(command)
}

fn srun(ranks: usize) -> Command {
    let mut command = Command::new("srun");
    command.args(["--ntasks", &ranks.to_string(), "--label", "--kill-on-bad-exit=1"]);
    command
}

/// Passes on the lines that a process prints.
fn read(
    pipe: Box<dyn Read + Send>,
    rank: Option<usize>,
    error: bool,
    attempt: u32,
    events: Sender<Event>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            let (tagged, text) = match rank {
                Some(_) => (rank, text),
                None => untag(text),
            };
            let text = text.to_owned();
            if events.send(Event::Line { attempt, rank: tagged, error, text }).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// The rank that `srun --label` (`1: text`), Open MPI (`[1,1]<stdout>:text`) or MPICH (`[1] text`)
/// put before a line.
fn untag(line: &str) -> (Option<usize>, &str) {
    let open_mpi = || {
        let (tag, text) = line.strip_prefix('[')?.split_once(">:")?;
        let (_, rank) = tag.split_once(']')?.0.split_once(',')?;
        Some((rank.parse().ok()?, text))
    };
    let mpich = || {
        let (rank, text) = line.strip_prefix('[')?.split_once("] ")?;
        Some((rank.parse().ok()?, text))
    };
    let slurm = || {
        let (rank, text) = line.split_once(':')?;
        Some((rank.trim().parse().ok()?, text.strip_prefix(' ').unwrap_or(text)))
    };
    match open_mpi().or_else(mpich).or_else(slurm) {
        Some((rank, text)) => (Some(rank), text),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::untag;

    #[test]
    fn ranks_are_read_from_the_tags_of_launchers() {
        assert_eq!(untag("[1,3]<stdout>:step 1: saved"), (Some(3), "step 1: saved"));
        assert_eq!(untag("[2] step 1: saved"), (Some(2), "step 1: saved"));
        assert_eq!(untag(" 0: step 1: saved"), (Some(0), "step 1: saved"));
        assert_eq!(untag("srun: error: node"), (None, "srun: error: node"));
    }
}
