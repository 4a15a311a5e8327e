//! Files of the outside world, turned into tensors and configurations and back.
//!
//! This crate knows file formats: safetensors, Hugging Face model directories, and the generic
//! part of a training checkpoint (manifest, checksums, atomic replacement, retention). It does
//! not know models, optimisers or training: it hands out named tensors as bytes with a dtype and
//! a shape, and plain configuration structs; `ferrata::models` maps them to modules.
//!
//! It never prints, never exits and never panics on what a file holds. Whatever it writes goes
//! to a temporary name, is synced, then renamed, so a reader sees the old file or the new one.
//!
//! | file | what |
//! |---|---|
//! | `error.rs` | the one error type; one line: what, where, what to do |
//! | `atomic.rs` | temporary name → sync → rename, for files and directories; stale leftovers |
//! | `mapped.rs` | read-only memory maps; the only `unsafe` of the crate |
//! | `tensor.rs` | tensors as bytes: borrowed views and owned ones, conversions to numbers |
//! | `safetensors.rs` | the safetensors format |
//! | `huggingface/` | `config.json` of language models and image classifiers, weights (also sharded), directories |
//! | `checkpoint/` | manifest with checksums, writer, verification, latest valid, retention |

pub mod atomic;
pub mod checkpoint;
mod error;
pub mod huggingface;
mod mapped;
pub mod safetensors;
mod tensor;

pub use error::{Error, Result};
pub use mapped::MappedFile;
pub use tensor::{RawTensor, TensorView};
