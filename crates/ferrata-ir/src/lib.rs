//! The program: types, primitives, composites, text form, verifier, reference evaluator, and the
//! transforms from program to program.
//!
//! This crate knows nothing of devices, files or threads, and has no `unsafe`.
//!
//! | file | what |
//! |---|---|
//! | `dtype`, `types`, `literal` | element types, value types, host values |
//! | `program`, `builder` | functions in single-assignment form, and how they are built |
//! | `primitive/` | one file for each family of primitives, all its rules together |
//! | `composite/` | named functions of primitives that a device may claim, by family |
//! | `transform/` | `jvp`, `vjp`, `vmap`, transposition |
//! | `text/` | the text form: printing and parsing |
//! | `verify` | the rules that every finished program keeps |
//! | `evaluate` | the reference evaluator |
//! | `communicator` | the interface by which the ranks of a run exchange data |
//! | `sharding/` | meshes, and the program of each rank |
//! | `matrix/` | algorithms of linear algebra, which the evaluator and devices share |
//! | `testing` | random programs, and checks of derivatives and batching, for tests everywhere |
//! | `error` | errors that name operation, shapes, scope and user line |
//! | `words` | enumerations whose values have words |

mod builder;
pub mod communicator;
pub mod composite;
mod dtype;
mod error;
mod evaluate;
mod literal;
pub mod matrix;
pub mod primitive;
mod program;
pub mod sharding;
pub mod testing;
pub mod text;
pub mod transform;
mod types;
mod verify;
mod words;

pub use communicator::Communicator;
pub use dtype::DType;
pub use error::{Error, Location, Origin, Result};
pub use evaluate::{Evaluator, Precision};
pub use literal::{Elements, Literal, Scalar};
pub use primitive::Primitive;
pub use program::{Builder, Composite, CustomDerivative, Function, Node, Value};
pub use types::{Type, row_major_strides};
pub use verify::verify;
