//! From a program to a plan: simplified, fused into kernels, laid out in memory, scheduled.
//!
//! This crate knows no device: it plans for any [`Device`] and asks it only which composites it
//! claims. It knows nothing of models, files or training.
//!
//! | file | what |
//! |---|---|
//! | `kernel` | the kernel language: what a device has to run |
//! | `plan` | a schedule of kernels over statically planned memory |
//! | `device` | the interface of devices: buffers, executables |
//! | `reference` | the device that runs the reference evaluator, the oracle of all others |

pub mod device;
pub mod kernel;
pub mod plan;
pub mod reference;

pub use device::{Argument, Buffer, Device, Executable, Memory};
pub use kernel::Kernel;
pub use plan::Plan;
pub use reference::ReferenceDevice;
