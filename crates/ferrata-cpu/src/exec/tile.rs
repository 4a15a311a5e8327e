//! Loop kernels, run by an interpreter whose instructions work on whole tiles.
//!
//! Map: `space` (the loops, simplified), `body` (instructions, prepared), `worker` (a body on one
//! tile), `kernel` (tiles and tasks), `ops` (the loops over elements), `steps` (strided moves).

mod body;
pub(crate) mod epilogue;
mod kernel;
pub(crate) mod ops;
mod space;
pub(crate) mod steps;
mod worker;

pub(crate) use body::{Output, Reach, Source};
pub(crate) use kernel::LoopKernel;
pub(crate) use space::split;
