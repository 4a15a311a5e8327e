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
//! | `describe/` | from a program to such layers: cuts by loop factors, fused kernels |
//! | `manifest` | job scripts for Slurm, manifests for Kubernetes |
//! | `processes/` | ranks that are processes: sockets between them, beats to their supervisor |
//! | `supervisor/` | starts ranks, watches over them, starts them again after a fault |

pub mod cost;
pub mod describe;
pub mod hardware;
pub mod layout;
mod local;
pub mod manifest;
pub mod model;
pub mod network;
pub mod pipeline;
#[cfg(unix)]
mod processes;
pub mod step;
#[cfg(unix)]
mod supervisor;

pub use describe::describe;
pub use hardware::Cluster;
pub use local::local;
pub use model::Model;
#[cfg(unix)]
pub use processes::environment::{Backend, communicator_from_environment};
#[cfg(unix)]
pub use supervisor::{Failure, Fault, Job, Limits, News, Outcome, Starter, secret, supervise};

/// A short name for what `text` says, the same on every machine.
fn fingerprint(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
