//! The same program on many machines: what connects their ranks, and what plans and predicts runs.
//!
//! This crate knows no model by name and no device: it gets programs, and numbers that describe a
//! cluster.
//!
//! | file | what |
//! |---|---|
//! | `local` | ranks that are threads of one process |
//! | `hardware` | what a cluster is made of, from a TOML file |
//! | `model` | a training step as layers: what each computes, moves and keeps |
//! | `layout` | meshes, and how a step is laid out over one |
//! | `network` | how long collectives take over the levels of a network |
//! | `cost` | time and memory of a layer under a layout |
//! | `pipeline/` | schedules as tables, and their run in time |
//! | `step` | a training step under a layout: stages, time, memory |
//! | `planner/` | the search for a layout, plans as files |
//! | `failures` | long runs: interruptions, checkpoints, spares |
//! | `trace` | runs of pipelines as timelines |
//! | `describe/` | from a program to such layers: cuts by loop factors, fused kernels |
//! | `manifest` | job scripts for Slurm, manifests for Kubernetes |
//! | `mpi` | ranks that MPI connects (feature `mpi`) |
//! | `processes/` | ranks that are processes: sockets between them and how fast these are, beats to their supervisor |
//! | `supervisor/` | starts ranks, watches over them, starts them again after a fault |

pub mod cost;
pub mod describe;
pub mod failures;
pub mod hardware;
pub mod layout;
mod local;
pub mod manifest;
pub mod model;
#[cfg(feature = "mpi")]
mod mpi;
pub mod network;
pub mod pipeline;
pub mod planner;
#[cfg(unix)]
mod processes;
pub mod step;
#[cfg(unix)]
mod supervisor;
pub mod trace;

pub use describe::describe;
pub use hardware::Cluster;
pub use local::local;
pub use model::Model;
#[cfg(unix)]
pub use processes::environment::{Backend, communicator_from_environment};
#[cfg(unix)]
pub use processes::transport::{Transport, measured_together, transport};
#[cfg(unix)]
pub use supervisor::{Failure, Fault, Job, Limits, News, Outcome, Starter, secret, supervise};

/// A short name for what `text` says, the same on every machine.
fn fingerprint(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// Writes a file so that it is there in full or not at all.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write(path: &std::path::Path, text: &str) -> ferrata_ir::Result<()> {
    use std::io::Write;
    let failed = |error: std::io::Error| {
        ferrata_ir::Error::new(format!("`{}` cannot be written: {error}", path.display()))
            .help("check the path and the space on the disk")
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    let mut file = std::fs::File::create(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}
