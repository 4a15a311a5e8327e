//! Loop kernels, run by an interpreter whose instructions work on whole tiles.
//!
//! Map: `space` (the loops, simplified), `body` (instructions, prepared), `worker` (a body on one
//! tile), `native` (a body as machine code), `kernel` (tiles and tasks), `ops` (the loops over
//! elements).

mod body;
pub(crate) mod epilogue;
mod kernel;
mod native;
pub(crate) mod ops;
mod space;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use body::{Output, Reach, Source};
pub(crate) use kernel::LoopKernel;
pub(crate) use native::generates;
pub(crate) use space::{split, turned};
