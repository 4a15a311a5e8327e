//! The vendor's runtime: libraries that come with CANN, opened at run time, by C symbols only.
//!
//! Nothing of this has run on a chip. Tests run it against a strict imitation of the libraries, and
//! `scripts/test-ascend` compares what is declared here with the vendor's headers.
//!
//! | file | what |
//! |---|---|
//! | `functions`, `abi` | every C function, constant and struct that is used |
//! | `libraries`, `cann` | finding, opening, starting |
//! | `fault` | what error codes mean |
//! | `stream` | chips, streams, events |
//! | `memory` | the chip's memory, copies |
//! | `kernel` | own kernels |
//! | `operator` | the vendor's operators |
#![allow(unsafe_code)]

pub mod abi;
mod cann;
mod fault;
mod functions;
mod kernel;
mod libraries;
mod memory;
mod operator;
mod stream;

pub use cann::Cann;
pub use functions::{DECLARATIONS, Declaration, Library};
pub use kernel::{Kernel, launches};
pub use libraries::{Search, VARIABLE};
pub use memory::{Block, Heap, Stage, Usage};
pub use operator::{Matmul, Matrix, operators};
pub use stream::{Event, Npu, Stream};
