//! From a program to a plan: simplified, fused into kernels, laid out in memory, scheduled.
//!
//! This crate knows no device: it plans for any [`Device`] and asks it only which composites it
//! claims. It knows nothing of models, files or training.
//!
//! | file | what |
//! |---|---|
//! | `compile` | the passes, in order |
//! | `support` | whether the device can run the program at all |
//! | `inline` | which functions stay functions |
//! | `channels_last/` | convolutions as products of windows, in the order that suits them |
//! | `simplify/` | exact rewriting rules, constants, sharing of equal work |
//! | `prune` | unused results and parameters of functions |
//! | `callees` | replacing the functions that a primitive holds |
//! | `body`, `strided` | views folded into operands: every access is an offset and strides |
//! | `layout` | the order in which claimed composites write their results |
//! | `fuse`, `nest` | which operations share a loop nest or stand behind a product |
//! | `lower/` | loop nests and products become kernels |
//! | `fragment`, `flatten` | functions compiled once; the schedule of the whole program |
//! | `recompute/` | what the backward pass computes again, by a budget of memory |
//! | `memory` | in-place reuse, donated inputs, offsets in the arena |
//! | `testing/` | a slow interpreter of plans; random programs against the evaluator |
//! | `kernel` | the kernel language: what a device has to run |
//! | `display` | plans and kernels as text |
//! | `cost` | operations and bytes of kernels and plans |
//! | `plan` | a schedule of kernels over statically planned memory |
//! | `device` | the interface of devices: buffers, executables |
//! | `watch` | what a watched device tells of its runs; the limits of its machine |
//! | `finite` | the rule by which a kernel makes a NaN or an infinity |
//! | `reference` | the device that runs the reference evaluator, the oracle of all others |

mod body;
mod callees;
mod channels_last;
mod compile;
mod cost;
pub mod device;
mod display;
pub mod finite;
mod flatten;
mod fragment;
mod fuse;
mod inline;
pub mod kernel;
mod layout;
mod lower;
mod memory;
mod nest;
pub mod plan;
mod prune;
mod recompute;
pub mod reference;
mod simplify;
mod strided;
mod support;
pub mod testing;
pub mod watch;

pub use compile::{Trace, compile, trace};
pub use cost::Cost;
pub use device::{Argument, Buffer, Device, Executable, Memory};
pub use kernel::Kernel;
pub use memory::Resident;
pub use plan::Plan;
pub use recompute::{Recomputation, recompute};
pub use reference::ReferenceDevice;
pub use strided::row_major;
