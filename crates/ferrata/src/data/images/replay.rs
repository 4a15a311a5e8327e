//! Recorded batches of images, to compare a run step by step with another framework's.

use std::collections::BTreeMap;
use std::path::Path;

use ferrata_formats::TensorView;
use ferrata_formats::safetensors::TensorFile;
use ferrata_ir::DType;

use super::{IMAGES, LABELS};
use crate::data::{Batch, BatchSource, Error, HostArray, Result};

/// The batches of a safetensors file with `images`, F32 `[steps, batch, channels, height, width]`,
/// and `labels`, I64 `[steps, batch]`; step `s` is row `s`. Images are normalised already.
#[derive(Debug)]
pub struct ImageReplay {
    file: TensorFile,
    /// `[steps, batch, channels, height, width]`.
    shape: [usize; 5],
}

impl ImageReplay {
    /// Opens the file and checks shapes and every label.
    ///
    /// # Errors
    /// [`Error::Formats`] if it is no such file, [`Error::Replay`] for wrong shapes or dtypes, and
    /// for a label that is not below `classes` (names step and row).
    pub fn open(path: impl AsRef<Path>, classes: usize) -> Result<ImageReplay> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let wrong = |what: String| Err(Error::Replay { path: path.to_path_buf(), what });
        let (images, labels) = (file.get(IMAGES)?, file.get(LABELS)?);
        let Ok(shape) = <[usize; 5]>::try_from(images.shape) else {
            let have = images.shape;
            return wrong(format!(
                "`images` has shape {have:?}; store [steps, batch, channels, height, width]"
            ));
        };
        if images.is_empty() {
            return wrong(format!("shape {shape:?} holds no image; record some"));
        }
        if labels.shape != &shape[..2] {
            let (have, want) = (labels.shape, &shape[..2]);
            return wrong(format!("`labels` has shape {have:?}; store one per image, {want:?}"));
        }
        for (name, tensor, dtype) in [(IMAGES, images, DType::F32), (LABELS, labels, DType::I64)] {
            if tensor.dtype != dtype {
                return wrong(format!("`{name}` has dtype {}; store {dtype}", tensor.dtype));
            }
        }
        let known = 0..classes as i64;
        let ids = labels.to_i64().unwrap_or_default();
        if let Some(at) = ids.iter().position(|id| !known.contains(id)) {
            let (step, row, id) = (at / shape[1], at % shape[1], ids[at]);
            return wrong(format!(
                "`labels` at step {step}, row {row}: {id} is none of the {classes} classes; record \
                 batches of the model's classes"
            ));
        }
        Ok(ImageReplay { file, shape })
    }

    /// The shape of the images of a batch: `[batch, channels, height, width]`.
    pub fn batch_shape(&self) -> [usize; 4] {
        let [_, batch, channels, height, width] = self.shape;
        [batch, channels, height, width]
    }

    /// The part of a tensor that belongs to a step.
    fn row(&self, name: &str, step: usize) -> Result<TensorView<'_>> {
        let whole = self.file.get(name)?;
        let bytes = whole.bytes.len() / self.shape[0];
        let start = step * bytes;
        let (shape, bytes) = (&whole.shape[1..], &whole.bytes[start..start + bytes]);
        Ok(TensorView { shape, bytes, ..whole })
    }
}

impl BatchSource for ImageReplay {
    fn batch(&self, step: u64) -> Result<Batch> {
        let steps = self.shape[0];
        let Some(step) = usize::try_from(step).ok().filter(|&step| step < steps) else {
            let what = format!("there is no step {step}; the file has {steps} steps");
            return Err(Error::Replay { path: self.file.path().to_path_buf(), what });
        };
        let (images, labels) = (self.row(IMAGES, step)?, self.row(LABELS, step)?);
        let pixels = images.to_f64().unwrap_or_default().into_iter().map(|x| x as f32).collect();
        let classes = labels.to_i64().unwrap_or_default();
        let arrays = [
            (IMAGES, HostArray::f32(images.shape, pixels)?),
            (LABELS, HostArray::i64(labels.shape, classes)?),
        ];
        let arrays = arrays.map(|(name, array)| (name.to_owned(), array));
        Ok(Batch { arrays: BTreeMap::from(arrays) })
    }

    fn steps(&self) -> Option<u64> {
        Some(self.shape[0] as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::scratch;
    use ferrata_formats::{RawTensor, safetensors};

    fn write(path: &Path, images: &RawTensor, labels: &RawTensor) {
        let tensors = [(IMAGES, images.view()), (LABELS, labels.view())];
        safetensors::write(path, tensors, &BTreeMap::new()).unwrap();
    }

    fn numbered(shape: &[usize]) -> RawTensor {
        let count: usize = shape.iter().product();
        RawTensor::from_f32(shape, &(0..count).map(|i| i as f32).collect::<Vec<_>>())
    }

    #[test]
    fn batches_come_in_order() {
        let path = scratch("image_replay").join("batches.safetensors");
        let labels = RawTensor::from_i64(&[3, 2], &[0, 1, 2, 0, 1, 2]);
        write(&path, &numbered(&[3, 2, 1, 2, 2]), &labels);
        let replay = ImageReplay::open(&path, 3).unwrap();
        assert_eq!((replay.steps(), replay.batch_shape()), (Some(3), [2, 1, 2, 2]));
        let batch = replay.batch(1).unwrap();
        assert_eq!(batch.get(IMAGES).unwrap().shape, [2, 1, 2, 2]);
        let pixels: Vec<f32> = (8..16).map(|i| i as f32).collect();
        assert_eq!(batch.get(IMAGES).unwrap().as_f32(), Some(&pixels[..]));
        assert_eq!(batch.integers(LABELS).unwrap(), [2, 0]);
        assert!(replay.batch(3).unwrap_err().to_string().contains("3 steps"));
    }

    #[test]
    fn wrong_files_are_named() {
        let path = scratch("image_replay_wrong").join("batches.safetensors");
        let (images, labels) = (numbered(&[2, 2, 1, 1, 1]), RawTensor::from_i64(&[2, 2], &[0; 4]));
        for (images, labels, expected) in [
            (&numbered(&[2, 2, 1, 1]), &labels, "`images` has shape [2, 2, 1, 1]"),
            (&numbered(&[0, 2, 1, 1, 1]), &labels, "holds no image"),
            (&images, &RawTensor::from_i64(&[4], &[0; 4]), "store one per image, [2, 2]"),
            (&images, &numbered(&[2, 2]), "`labels` has dtype f32; store i64"),
            (&images, &RawTensor::from_i64(&[2, 2], &[0, 1, 2, 5]), "at step 1, row 1: 5 is none"),
        ] {
            write(&path, images, labels);
            let error = ImageReplay::open(&path, 3).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
            assert!(error.contains("batches.safetensors") && !error.contains('\n'), "{error}");
        }
    }
}
