//! The Ascend NPU.
//!
//! Kernels are printed as MLIR, compiled by the vendor's open compiler, and run on a simulator of
//! the cores. The vendor's runtime is opened where it is installed; no device uses it yet. This crate knows the compiler's plans and the chip; it knows nothing of models, files
//! or other devices. `docs/ascend.md` says what is proven and what is not.
//!
//! | file | what |
//! |---|---|
//! | `device` | the simulated device |
//! | `executable` | plans whose kernels are compiled, run step by step |
//! | `emit/` | kernels as programs in MLIR |
//! | `compiler` | the vendor's compiler, run as a program; its results kept by content |
//! | `sim/` | the simulator of the cores |
//! | `runtime/` | the vendor's runtime |
//! | `host` | primitives that have no kernel; the look for NaNs |
//! | `target` | chips and their sizes |

pub mod compiler;
mod device;
pub mod emit;
mod executable;
mod host;
pub mod runtime;
pub mod sim;
mod target;

pub use compiler::Compiler;
pub use device::AscendSimulator;
pub use executable::compile;
pub use target::Target;
