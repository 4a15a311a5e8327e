//! The CPU device: kernels for x86-64 and arm64, chosen at run time, and the pool they run on.
//!
//! Must not know models or files. Map: `device` and `memory` (what programs and buffers see),
//! `exec` (runs plans), `isa` and `cache` (what the machine has), `peak` (how fast it is), `limits`
//! (that, as the device tells it), `pool` (threads and scratch memory), `gemm` (matrix products),
//! `attention`, `math` (elementary functions), `simd` (vectors that the hand-written kernels are
//! made of), `steps` (where strided elements lie), `jit` (machine code made in process).

pub mod attention;
mod cache;
pub mod device;
mod exec;
pub mod gemm;
pub mod isa;
#[cfg(target_arch = "x86_64")]
mod jit;
mod limits;
pub mod math;
pub mod memory;
pub mod peak;
pub mod pool;
pub mod simd;
mod steps;

#[cfg(test)]
mod testing;

pub use device::{CpuDevice, CpuOptions};
pub use isa::{Isa, Kernel, Level};
pub use pool::Pool;
