//! The Ascend NPU.
//!
//! Kernels are printed as MLIR, compiled by the vendor's open compiler, and run on a simulator of
//! the cores. A real chip is used through the vendor's runtime, which is opened where it is installed. This crate knows the compiler's plans and the chip; it knows nothing of models, files
//! or other devices. `docs/ascend.md` says what is proven and what is not.
//!
//! | file | what |
//! |---|---|
//! | `device`, `executable` | a chip as a device; plans, run step by step |
//! | `chip` | what a device is made of |
//! | `simulator` | the simulated chip |
//! | `npu`, `product` | a real chip; products by the vendor's operators |
//! | `check` | a report on an NPU |
//! | `emit/` | kernels as programs in MLIR |
//! | `compiler` | the vendor's compiler, run as a program; its results kept by content |
//! | `sim/` | the simulator of the cores |
//! | `runtime/` | the vendor's runtime |
//! | `host` | primitives that have no kernel; the look for NaNs |
//! | `target` | chips and their sizes |

pub mod check;
mod chip;
pub mod compiler;
mod device;
pub mod emit;
mod executable;
mod host;
mod npu;
mod product;
pub mod runtime;
pub mod sim;
mod simulator;
mod target;

pub use chip::{Chip, Launches, Piece, Place, Prepared, compile};
pub use compiler::{Compiled, Compiler, Needs};
pub use device::Ascend;
pub use npu::{AscendNpu, Npu};
pub use simulator::{AscendSimulator, Simulator};
pub use target::Target;
