//! One file for each command.

pub mod bench;
pub mod classify;
pub mod devices;
pub mod eval;
pub mod generate;
pub mod inspect;
#[cfg(unix)]
pub mod launch;
pub mod paint;
pub mod plan;
pub mod profile;
pub mod run;
pub mod scenes;
pub mod simulate;
pub mod train;
