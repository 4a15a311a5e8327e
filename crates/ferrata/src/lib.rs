//! See ARCHITECTURE.md.

pub mod data;
pub mod train;
