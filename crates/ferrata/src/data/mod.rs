//! From files to batches: text, tokenizers, tokens, images, datasets, loaders.
//!
//! ```no_run
//! # fn main() -> Result<(), ferrata::data::Error> {
//! use std::path::Path;
//! use std::sync::Arc;
//! use ferrata::data::{
//!     Loader, LoaderState, RandomWindows, SequentialWindows, Split, TextOptions, TokenDataset,
//!     Tokenizer, collect_text,
//! };
//!
//! let text = collect_text(&["shakespeare.txt"], &TextOptions::default())?;
//! let tokenizer = Tokenizer::characters(&text.documents)?;
//! let tokens = TokenDataset::cached(Path::new("cache"), &text.documents, &tokenizer)?;
//! let (train, validation) = tokens.split(Split::Tokens(0.9))?;
//! let batches = Arc::new(RandomWindows::new(train, 64, 12, 1337)?);
//! let mut loader = Loader::new(batches, LoaderState { position: 0 }, 2);
//! while let Some(batch) = loader.next_batch() {
//!     let batch = batch?; // `input_ids` and `targets`, i64 [12, 64]
//!     let resume_from = loader.state(); // goes into the checkpoint
//! }
//! for batch in SequentialWindows::new(validation, 64, 12)?.iter() {
//!     let batch = batch?; // `weights` too: 0 where the last windows are padded
//! }
//! # Ok(()) }
//! ```
//!
//! Every batch is a function of the seed and the number of the step alone ([`BatchSource`]), so a
//! run can be resumed at any step without replaying what came before, and reading ahead does not
//! change anything. Nothing here knows `Tensor`: batches are plain host arrays.
//!
//! | file | what |
//! |---|---|
//! | `text.rs` | text from files, folders and JSON lines |
//! | `registry.rs` | the Rust sources in cargo's registry folder |
//! | `tokenizer/` | characters, bytes, Hugging Face `tokenizer.json`; training; streaming decoder |
//! | `tokens.rs` | token ids in memory-mapped files, cached under a content hash; splits |
//! | `arrays.rs` | host arrays, samples, batches, the `Dataset` trait, collation |
//! | `random.rs` | counter-based random numbers, random access to a permutation |
//! | `batches.rs` | batch sources: shuffled datasets, random and sequential windows |
//! | `loader.rs` | reading ahead on background threads |
//! | `replay.rs` | recorded batches |
//! | [`images`] | images from folders and files, decoded and changed at random |
//! | [`scenes`] | captioned pictures that are made, and a checker of such pictures |

mod arrays;
mod batches;
mod error;
pub mod images;
mod loader;
mod random;
mod registry;
mod replay;
pub mod scenes;
#[cfg(test)]
mod testing;
mod text;
mod tokenizer;
mod tokens;

pub use arrays::{Batch, Dataset, HostArray, HostData, Sample, collate};
pub use batches::{BatchSource, RandomWindows, SequentialWindows, Shuffled};
pub use error::{Error, Result};
pub use loader::{Loader, LoaderState};
pub use random::Permutation;
pub use registry::{cargo_home, registry_sources};
pub use replay::Replay;
pub use text::{Collected, Document, Text, TextOptions, collect_text};
pub use tokenizer::{StreamDecoder, Tokenizer};
pub(crate) use tokens::hash_texts;
pub use tokens::{Split, TokenDataset, TokenWindows, Tokens};
