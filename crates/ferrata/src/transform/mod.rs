//! Transforms of functions on trees: each traces the function into a program, transforms the
//! program, and records one call of the result.

mod checkpoint;
mod compile;
mod control;
mod custom;
mod derivative;
pub(crate) mod trace;
mod vmap;

pub use checkpoint::checkpoint;
pub use compile::{Compiled, Planned, Recompute, compile};
pub use control::{Save, ScanOptions, cond, scan, scan_with};
pub use custom::custom;
pub use derivative::{grad, jvp, value_and_grad, vjp};
pub use vmap::vmap;
