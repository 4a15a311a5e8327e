//! What a user imports: tensors, functions of them and their derivatives, layers, training.
//!
//! This crate does not know how a device works.
//!
//! | file | what |
//! |---|---|
//! | `tensor/` | the lazy [`Tensor`], its evaluation, operators, indexing |
//! | `ops/` | operations as methods of `Tensor` |
//! | `random` | random numbers with explicit keys |
//! | `tree` | values made of tensors: what functions take and give |
//! | `module` | trees of named parameters |
//! | `transform/` | derivatives, batching, compilation of functions |
//! | `optim/` | optimisers, learning-rate schedules, clipping |
//! | `data/` | text, tokens, batches |
//! | `train/` | configuration, the training loop, run folders |
//! | `flow/` | flow matching: paths, samplers, likelihood |
//! | `nn/` | layers, their context, initial values, repeated blocks |
//! | `models/` | GPT-2 and Llama: forward, loss, generation, files |
//! | `inspect` | what a compiled program costs and how it runs |
//! | `bench` | how near kernels and steps come to what this machine can do |
//! | `profile` | where the time of steps goes, against what the machine can do |
//! | `device` | devices as run-time values, the cache of compiled programs |

// Derived code names this crate.
extern crate self as ferrata;

pub mod bench;
pub mod data;
pub mod device;
pub mod flow;
pub mod inspect;
pub mod mesh;
pub mod models;
pub mod module;
pub mod nn;
mod ops;
pub mod optim;
pub mod profile;
mod random;
mod tensor;
pub mod train;
mod transform;
pub mod tree;

pub use device::{Device, set_default_device};
pub use ferrata_cluster as cluster;
pub use ferrata_ir::composite::{
    Attention, Conv, GridSample, Interpolation, Outside, Pairing, Pool, rope_frequencies,
};
pub use ferrata_ir::{DType, Error, Result, Type};
pub use module::Module;
pub use ops::{Classes, FftNorm, MatrixNorm, Padding, Reduction, Triangular};
pub use random::Key;
pub use tensor::evaluate as eval;
pub use tensor::{
    Dims, Element, Index, IntoDims, IntoIndex, IntoOperand, IntoShape, IntoSize, IntoTensor,
    NewDim, Tensor, keep, scope, step,
};
pub use transform::{
    Compiled, Planned, Recompute, Save, ScanOptions, checkpoint, compile, cond, custom, grad, jvp,
    scan, scan_with, value_and_grad, vjp, vmap,
};
pub use tree::Tree;
