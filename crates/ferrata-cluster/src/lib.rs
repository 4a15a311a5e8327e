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

pub mod cost;
pub mod describe;
pub mod hardware;
pub mod layout;
mod local;
pub mod model;
pub mod network;
pub mod pipeline;
pub mod step;

pub use describe::describe;
pub use hardware::Cluster;
pub use local::local;
pub use model::Model;

/// A short name for what `text` says, the same on every machine.
fn fingerprint(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
