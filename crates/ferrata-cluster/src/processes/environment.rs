//! How a process learns that it is a rank of a job.

use std::env;
use std::sync::Arc;

use ferrata_ir::Communicator;
use ferrata_ir::{Error, Result};

use super::join::join;
use super::stream::Address;

/// Where the launcher listens: `unix:PATH` or `HOST:PORT`.
pub(crate) const SUPERVISOR: &str = "FERRATA_SUPERVISOR";
/// The secret of one start of a job.
pub(crate) const JOB: &str = "FERRATA_JOB";
/// How many ranks there are.
pub(crate) const RANKS: &str = "FERRATA_RANKS";
/// The rank of this process.
pub(crate) const RANK: &str = "FERRATA_RANK";
/// What carries data between ranks: `sockets` or `mpi`.
pub(crate) const BACKEND: &str = "FERRATA_BACKEND";
/// What this rank computes on.
pub(crate) const DEVICE: &str = "FERRATA_DEVICE";
/// The process that started this one on the same machine, and whose death it does not survive.
pub(crate) const PARENT: &str = "FERRATA_PARENT";

/// Where other launchers say which rank a process is: Open MPI, PMIx, MPICH, Slurm, Kubernetes.
const RANK_ELSEWHERE: [&str; 5] =
    ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "JOB_COMPLETION_INDEX"];
/// Where other launchers say how many ranks a job has, each set in its ranks only.
const RANKS_ELSEWHERE: [(&str, &str); 3] =
    [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpirun"), ("SLURM_STEP_NUM_TASKS", "srun")];

/// What carries data between the ranks of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Unix domain sockets on one machine, TCP between machines.
    #[default]
    Sockets,
    /// The MPI that the program was built with.
    Mpi,
}

impl Backend {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Sockets => "sockets",
            Backend::Mpi => "mpi",
        }
    }

    fn parse(name: &str) -> Result<Backend> {
        [Backend::Sockets, Backend::Mpi]
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or(Error::new(format!("{BACKEND} is {name:?}")).help("it has to be sockets or mpi"))
    }
}

/// The place of this process in a job.
#[derive(Debug)]
pub(super) struct Place {
    pub supervisor: Address,
    pub job: String,
    pub rank: usize,
    pub ranks: usize,
    pub device: String,
    pub backend: Backend,
    /// Ranks that share the cores of this process: all, if the launcher started them itself.
    pub neighbours: usize,
}

impl Place {
    /// Reads it from variables, of the environment or of a test; none where there is no supervisor.
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>> {
        let Some(supervisor) = variable(SUPERVISOR) else { return Ok(None) };
        let needed = |name: &str| {
            variable(name).ok_or_else(|| {
                Error::new(format!("{SUPERVISOR} is set, but {name} is not"))
                    .help("start ranks with `ferrata launch`")
            })
        };
        let number = |name: &str, text: &str| {
            text.parse().map_err(|_| Error::new(format!("{name} is {text:?}, not a number")))
        };
        let elsewhere = RANK_ELSEWHERE.into_iter().find(|name| variable(name).is_some());
        let rank = if variable(RANK).is_some() { RANK } else { elsewhere.unwrap_or(RANK) };
        let ranks = number(RANKS, &needed(RANKS)?)?;
        Ok(Some(Place {
            supervisor: Address::parse(&supervisor),
            job: needed(JOB)?,
            rank: number(rank, &needed(rank)?)?,
            ranks,
            neighbours: if variable(PARENT).is_some() { ranks } else { 1 },
            device: variable(DEVICE).unwrap_or_else(|| "cpu".to_owned()),
            backend: variable(BACKEND)
                .map_or(Ok(Backend::default()), |name| Backend::parse(&name))?,
        }))
    }
}

/// The communicator of this process, if it was started as one of several ranks: by `ferrata launch`,
/// or, in a build with the feature `mpi`, by `mpirun` or `srun` alone.
///
/// A rank that `ferrata launch` started reports to it from here on, and does not survive it.
///
/// # Errors
/// When the launcher or another rank cannot be reached, is of another version, or fewer ranks take
/// part than the launcher says; and when the build lacks what the job needs.
pub fn communicator_from_environment() -> Result<Option<Arc<dyn Communicator>>> {
    let variable = |name: &str| env::var(name).ok();
    if let Some(place) = Place::read(&variable)? {
        die_with_parent(variable(PARENT).as_deref());
        return join(&place).map(Some);
    }
    match started_elsewhere(&variable) {
        Some((1, _)) | None => Ok(None),
        Some((ranks, by)) if cfg!(feature = "mpi") => {
            mpi(ranks).map(Arc::from).map(Some).map_err(|error| {
                error.help(format!("{by} started {ranks} ranks; try `ferrata launch --with {by}`"))
            })
        }
        Some((ranks, by)) => Err(Error::new(format!(
            "{by} started this program as one of {ranks} ranks, but it was built without MPI"
        ))
        .help(format!(
            "use `ferrata launch --with {by} --ranks {ranks} -- …`, or build with --features mpi"
        ))),
    }
}

/// How many ranks another launcher started this process among, and its name.
fn started_elsewhere(variable: &dyn Fn(&str) -> Option<String>) -> Option<(usize, &'static str)> {
    RANKS_ELSEWHERE.into_iter().find_map(|(name, by)| {
        let ranks = variable(name)?.parse().ok()?;
        Some((ranks, by))
    })
}

/// The ranks that MPI connects.
#[cfg(feature = "mpi")]
pub(super) fn mpi(ranks: usize) -> Result<Box<dyn Communicator>> {
    crate::mpi::world(ranks)
}

/// The ranks that MPI connects.
#[cfg(not(feature = "mpi"))]
pub(super) fn mpi(_ranks: usize) -> Result<Box<dyn Communicator>> {
    Err(Error::new("this program was built without MPI").help("build it with --features mpi"))
}

/// Lets the system kill this process when the one that started it dies, even if this one stands
/// still.
fn die_with_parent(parent: Option<&str>) {
    #[cfg(target_os = "linux")]
    if let Some(parent) = parent.and_then(|parent| parent.parse::<i32>().ok()) {
        use rustix::process::{
            Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
        };
        // Where it cannot be had, ends of lines are noticed all the same.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
}
