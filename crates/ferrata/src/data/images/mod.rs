//! Images: where they come from, how they are decoded, changed at random and put into batches.
//!
//! ```no_run
//! # fn main() -> Result<(), ferrata::data::Error> {
//! use std::sync::Arc;
//! use ferrata::data::images::{
//!     Crop, ImageBatches, ImageData, ImageSplit, Jitter, OnDamaged, Reader, Transforms,
//! };
//! use ferrata::data::{Loader, LoaderState};
//!
//! let split = ImageSplit { validation: 0.1, seed: 0 };
//! let data = ImageData::open("flowers".as_ref(), split)?;
//! let reader = Arc::new(Reader::new(OnDamaged::Skip, 50_000_000));
//! let transforms = Transforms {
//!     size: 32,
//!     crop: Crop::Random { padding: 4 },
//!     eval_crop: 1.0,
//!     flip: 0.5,
//!     jitter: Jitter::default(),
//!     rand_augment: None,
//!     mean: [0.5; 3],
//!     std: [0.5; 3],
//! };
//! let batches = ImageBatches::new(data.train, reader, transforms, 64, 0)?;
//! let mut loader = Loader::parallel(Arc::new(batches), LoaderState::default(), 4, 2);
//! while let Some(batch) = loader.next_batch() {
//!     let batch = batch?; // `images`, f32 [64, 3, 32, 32], and `labels`, i64 [64]
//! }
//! # Ok(()) }
//! ```
//!
//! All that is random about an example depends on the seed, the epoch and the example alone: any
//! number of workers gives the same batches, and training can be resumed at any step.
//!
//! | file | what |
//! |---|---|
//! | `open.rs` | which layout a folder has; splits |
//! | `folders.rs`, `captions.rs`, `binary.rs`, `parquet.rs` | the layouts |
//! | `set.rs` | pictures by number, examples, damaged files |
//! | `text.rs` | captions as tokens |
//! | `picture.rs` | pictures in memory; decoding |
//! | `transform.rs` | crops, flips, jitter, normalisation |
//! | `resample.rs`, `colour.rs`, `augment.rs` | resizing, changes of colour, RandAugment |
//! | `draws.rs` | the random numbers of an example |
//! | `batches.rs` | batches for training and evaluation |
//! | `replay.rs` | recorded batches |

mod augment;
mod batches;
mod binary;
mod captions;
mod colour;
mod draws;
mod folders;
mod open;
mod parquet;
mod picture;
mod replay;
mod resample;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod transform;

pub use augment::RandAugment;
pub use batches::{CAPTIONS, IMAGES, ImageBatches, ImagesInOrder, LABELS, WEIGHTS};
pub(in crate::data) use draws::Draws;
pub(in crate::data) use open::number;
pub use open::{ImageData, ImageSplit};
pub use picture::Picture;
pub use replay::ImageReplay;
pub use resample::Region;
pub use set::{Example, ImageSet, OnDamaged, Pictures, Reader};
pub use text::CaptionEncoder;
pub use transform::{Crop, Jitter, Transforms};
