//! Batches of images as a function of the step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draws::Draws;
use super::{CaptionEncoder, Example, ImageSet, Picture, Reader, Transforms};
use crate::data::batches::check_batch_size;
use crate::data::{Batch, BatchSource, Error, HostArray, Permutation, Result};

/// The names of the arrays of a batch.
pub const IMAGES: &str = "images";
/// Classes, or shares of classes.
pub const LABELS: &str = "labels";
/// Token ids of captions.
pub const CAPTIONS: &str = "captions";
/// 0 where a batch is padded or a picture damaged.
pub const WEIGHTS: &str = "weights";

/// After so many damaged pictures in a row the data is taken to be none.
const PATIENCE: u64 = 100;

/// Pictures for training, in a new random order every epoch, randomly changed, without end.
///
/// A batch holds `images`, f32 `[batch, 3, size, size]`, and `labels`: i64 `[batch]`, or
/// with mixup f32 `[batch, classes]`; with an encoder of captions also `captions`, i64 `[batch,
/// length]`, each one of those of its picture. It depends on the seed and the step alone; another
/// example takes the place of one that is damaged.
pub struct ImageBatches {
    set: ImageSet,
    reader: Arc<Reader>,
    transforms: Transforms,
    batch_size: usize,
    seed: u64,
    /// The shape of the beta distribution from which shares are drawn; 0 means no mixup.
    mixup: f64,
    text: Option<CaptionEncoder>,
}

/// Batches draw their mixup here, examples elsewhere.
const BATCH_EPOCH: u64 = (1 << 62) - 1;

impl ImageBatches {
    /// Batches of `batch_size` pictures in the order that belongs to `seed`.
    ///
    /// # Errors
    /// [`Error::Dataset`] if there are no pictures or the batch size is zero.
    pub fn new(
        set: ImageSet,
        reader: Arc<Reader>,
        transforms: Transforms,
        batch_size: usize,
        seed: u64,
    ) -> Result<ImageBatches> {
        check_batch_size(batch_size)?;
        if set.is_empty() {
            return Err(Error::Dataset("there are no pictures to learn from; give some".into()));
        }
        Ok(ImageBatches { set, reader, transforms, batch_size, seed, mixup: 0.0, text: None })
    }

    /// Gives a caption of every picture too.
    #[must_use]
    pub fn with_captions(self, encoder: CaptionEncoder) -> ImageBatches {
        ImageBatches { text: Some(encoder), ..self }
    }

    /// Mixes every picture with another one of its batch, by a share from a beta distribution with
    /// both shapes `alpha` (Zhang et al. 2018); 0 means never.
    #[must_use]
    pub fn with_mixup(self, alpha: f64) -> ImageBatches {
        ImageBatches { mixup: alpha, ..self }
    }

    /// The picture at `place` of the endless sequence of examples, as it is to be seen, and what
    /// belongs to it: its example and one of its captions.
    fn example(&self, place: u64) -> Result<(Picture, Example, &str)> {
        let len = self.set.len() as u64;
        let (epoch, position) = (place / len, place % len);
        let order = Permutation::new(len, self.seed, epoch);
        let mut draws = Draws::new(self.seed, epoch, order.get(position));
        let pictures = &*self.set.pictures;
        for attempt in 0..PATIENCE.min(len) {
            // The neighbours in the order of the epoch stand in for a damaged picture.
            let index = order.get((position + attempt) % len);
            let example = self.set.examples[index as usize];
            if let Some(picture) = self.reader.read(pictures, example.picture as usize)? {
                let texts = self.set.texts(example);
                let text = texts.get(draws.below(texts.len())).map_or("", String::as_str);
                return Ok((self.transforms.augmented(&picture, &mut draws), example, text));
            }
        }
        let example = self.set.examples[order.get(position) as usize];
        Err(Error::Dataset(format!(
            "{} pictures in a row cannot be read, such as `{}`; check the data",
            PATIENCE.min(len),
            pictures.name(example.picture as usize)
        )))
    }
}

impl BatchSource for ImageBatches {
    fn batch(&self, step: u64) -> Result<Batch> {
        let first = step.wrapping_mul(self.batch_size as u64);
        let mut images = Vec::new();
        let mut labels = Vec::with_capacity(self.batch_size);
        let mut captions = Vec::new();
        for row in 0..self.batch_size as u64 {
            let (picture, example, text) = self.example(first.wrapping_add(row))?;
            images.extend(self.transforms.normalised(&picture));
            labels.push(i64::from(example.label));
            if let Some(encoder) = &self.text {
                captions.extend(encoder.encode(text)?);
            }
        }
        let labels = match self.mixup > 0.0 {
            false => HostArray::i64(&[self.batch_size], labels)?,
            true => {
                let share = Draws::new(self.seed, BATCH_EPOCH, step).beta(self.mixup);
                mix(&mut images, self.batch_size, share as f32);
                mixed_labels(&labels, self.set.classes.len(), share as f32)?
            }
        };
        let mut batch = self.transforms.batch(self.batch_size, images, labels)?;
        batch.add_captions(self.text.as_ref(), self.batch_size, captions)?;
        Ok(batch)
    }

    fn steps(&self) -> Option<u64> {
        None
    }
}

/// Every row becomes `share` of itself and the rest of the row as far from the other end.
fn mix(values: &mut [f32], rows: usize, share: f32) {
    let row = values.len() / rows;
    for i in 0..rows / 2 {
        let (head, tail) = values.split_at_mut((rows - 1 - i) * row);
        for (a, b) in head[i * row..(i + 1) * row].iter_mut().zip(&mut tail[..row]) {
            (*a, *b) = (share * *a + (1.0 - share) * *b, share * *b + (1.0 - share) * *a);
        }
    }
}

fn mixed_labels(labels: &[i64], classes: usize, share: f32) -> Result<HostArray> {
    let mut shares = vec![0f32; labels.len() * classes];
    for (row, (own, other)) in labels.iter().zip(labels.iter().rev()).enumerate() {
        shares[row * classes + *own as usize] += share;
        shares[row * classes + *other as usize] += 1.0 - share;
    }
    HostArray::f32(&[labels.len(), classes], shares)
}

impl Transforms {
    fn batch(&self, rows: usize, images: Vec<f32>, labels: HostArray) -> Result<Batch> {
        let shape = [rows, 3, self.size, self.size];
        let arrays = BTreeMap::from([
            (IMAGES.to_owned(), HostArray::f32(&shape, images)?),
            (LABELS.to_owned(), labels),
        ]);
        Ok(Batch { arrays })
    }
}

impl Batch {
    fn add_captions(
        &mut self,
        encoder: Option<&CaptionEncoder>,
        rows: usize,
        ids: Vec<i64>,
    ) -> Result<()> {
        let Some(encoder) = encoder else { return Ok(()) };
        let ids = HostArray::i64(&[rows, encoder.length()], ids)?;
        self.arrays.insert(CAPTIONS.to_owned(), ids);
        Ok(())
    }
}

/// All pictures of a set once, in order, for evaluation.
///
/// Batches hold `images`, f32 `[batch, 3, size, size]`, `labels`, i64 `[batch]`, and
/// `weights`, f32 `[batch]`: 0 for what pads the last batch and for damaged pictures, which are
/// zeros, else 1; with an encoder of captions also `captions`, i64 `[batch, length]`, the first of
/// each picture.
pub struct ImagesInOrder {
    set: ImageSet,
    reader: Arc<Reader>,
    transforms: Transforms,
    batch_size: usize,
    text: Option<CaptionEncoder>,
}

impl ImagesInOrder {
    /// Batches of `batch_size` pictures.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the batch size is zero.
    pub fn new(
        set: ImageSet,
        reader: Arc<Reader>,
        transforms: Transforms,
        batch_size: usize,
    ) -> Result<ImagesInOrder> {
        check_batch_size(batch_size)?;
        Ok(ImagesInOrder { set, reader, transforms, batch_size, text: None })
    }

    /// Gives the first caption of every picture too.
    #[must_use]
    pub fn with_captions(self, encoder: CaptionEncoder) -> ImagesInOrder {
        ImagesInOrder { text: Some(encoder), ..self }
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.set.classes
    }
}

impl BatchSource for ImagesInOrder {
    fn batch(&self, step: u64) -> Result<Batch> {
        let first = step as usize * self.batch_size;
        let end = self.set.len().min(first + self.batch_size);
        if first >= end {
            return Err(Error::Dataset(format!("there is no step {step}; the pictures end")));
        }
        let size = 3 * self.transforms.size * self.transforms.size;
        let mut images = Vec::with_capacity(self.batch_size * size);
        let (mut labels, mut weights, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        for example in &self.set.examples[first..end] {
            let found = self.reader.read(&*self.set.pictures, example.picture as usize)?;
            let seen = found.as_ref().map(|picture| self.transforms.centred(picture));
            match &seen {
                Some(picture) => images.extend(self.transforms.normalised(picture)),
                None => images.resize(images.len() + size, 0.0),
            }
            labels.push(i64::from(example.label));
            weights.push(if seen.is_some() { 1.0 } else { 0.0 });
            if let Some(encoder) = &self.text {
                let text = self.set.texts(*example).first().map_or("", String::as_str);
                captions.extend(encoder.encode(text)?);
            }
        }
        images.resize(self.batch_size * size, 0.0);
        labels.resize(self.batch_size, 0);
        weights.resize(self.batch_size, 0.0);
        if let Some(encoder) = &self.text {
            captions.resize(self.batch_size * encoder.length(), encoder.pad());
        }
        let labels = HostArray::i64(&[self.batch_size], labels)?;
        let mut batch = self.transforms.batch(self.batch_size, images, labels)?;
        let weights = HostArray::f32(&[self.batch_size], weights)?;
        batch.arrays.insert(WEIGHTS.to_owned(), weights);
        batch.add_captions(self.text.as_ref(), self.batch_size, captions)?;
        Ok(batch)
    }

    fn steps(&self) -> Option<u64> {
        Some(self.set.len().div_ceil(self.batch_size) as u64)
    }
}
