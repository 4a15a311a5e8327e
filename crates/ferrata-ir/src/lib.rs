//! The program: types, primitives, composites, text form, verifier, reference evaluator, transforms.

mod dtype;

pub use dtype::DType;
