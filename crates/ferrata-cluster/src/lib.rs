//! The same program on many machines: what connects their ranks, and what plans and predicts runs.
//!
//! This crate knows no model by name and no device: it gets programs, and numbers that describe a
//! cluster.
//!
//! | file | what |
//! |---|---|
//! | `local` | ranks that are threads of one process |

mod local;

pub use local::local;
