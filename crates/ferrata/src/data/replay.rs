//! Recorded batches, to compare a run step by step with another framework's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferrata_formats::TensorView;
use ferrata_formats::safetensors::TensorFile;
use ferrata_ir::DType;

use super::{Batch, BatchSource, Error, HostArray, Result};

const NAMES: [&str; 2] = ["input_ids", "targets"];

/// The batches of a safetensors file with `input_ids` and `targets`, I64 `[steps, batch, sequence]`
/// each; step `s` is row `s`. Targets are shifted already.
#[derive(Debug)]
pub struct Replay {
    file: TensorFile,
    steps: usize,
    batch_size: usize,
    sequence: usize,
}

impl Replay {
    /// Opens the file and checks shapes and every id.
    ///
    /// # Errors
    /// [`Error::Formats`] if it is no such file, [`Error::Replay`] for wrong shapes or dtypes,
    /// [`Error::Vocabulary`] that names tensor, step, row and position of an id that is not below
    /// `vocab_size`.
    pub fn open(path: impl AsRef<Path>, vocab_size: usize) -> Result<Replay> {
        let path = path.as_ref();
        let file = TensorFile::open(path)?;
        let wrong = |what: String| Error::Replay { path: path.to_path_buf(), what };
        let [inputs, targets] = NAMES.map(|name| file.get(name));
        let (inputs, targets) = (inputs?, targets?);
        let &[steps, batch_size, sequence] = inputs.shape else {
            let shape = inputs.shape;
            let what = format!("`input_ids` has shape {shape:?}; store [steps, batch, sequence]");
            return Err(wrong(what));
        };
        if targets.shape != inputs.shape {
            let (a, b) = (targets.shape, inputs.shape);
            let what = format!("`targets` has shape {a:?} and `input_ids` {b:?}; make them equal");
            return Err(wrong(what));
        }
        if inputs.is_empty() {
            return Err(wrong(format!("shape {:?} holds no batch; record some", inputs.shape)));
        }
        for (name, tensor) in NAMES.into_iter().zip([inputs, targets]) {
            if tensor.dtype != DType::I64 {
                return Err(wrong(format!("`{name}` has dtype {}; store I64", tensor.dtype)));
            }
            check_ids(path, name, tensor, vocab_size)?;
        }
        Ok(Replay { steps, batch_size, sequence, file })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Rows of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Tokens of a row.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// All batches in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Batch>> {
        (0..self.steps as u64).map(|step| self.batch(step))
    }
}

impl BatchSource for Replay {
    fn batch(&self, step: u64) -> Result<Batch> {
        if step >= self.steps as u64 {
            let what = format!("there is no step {step}; the file has {} steps", self.steps);
            return Err(Error::Replay { path: PathBuf::from(self.path()), what });
        }
        let shape = [self.batch_size, self.sequence];
        let bytes = DType::I64.size() * self.batch_size * self.sequence;
        let start = step as usize * bytes;
        let mut arrays = BTreeMap::new();
        for name in NAMES {
            let whole = self.file.get(name)?;
            let row =
                TensorView { shape: &shape, bytes: &whole.bytes[start..start + bytes], ..whole };
            let ids = row.to_i64().unwrap_or_default();
            arrays.insert(name.to_owned(), HostArray::i64(&shape, ids)?);
        }
        Ok(Batch { arrays })
    }

    fn steps(&self) -> Option<u64> {
        Some(self.steps as u64)
    }
}

fn check_ids(path: &Path, name: &str, tensor: TensorView<'_>, vocab_size: usize) -> Result<()> {
    let ids = tensor.to_i64().unwrap_or_default();
    let known = 0..vocab_size as i64;
    let Some(at) = ids.iter().position(|id| !known.contains(id)) else { return Ok(()) };
    let (rows, sequence) = (tensor.shape[1], tensor.shape[2]);
    let (step, row, position) = (at / (rows * sequence), at / sequence % rows, at % sequence);
    Err(Error::Vocabulary {
        place: format!(
            "`{}`, `{name}` at step {step}, row {row}, position {position}",
            path.display()
        ),
        id: ids[at],
        vocab_size,
        remedy: "record batches of the model's vocabulary",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::scratch;
    use ferrata_formats::{RawTensor, safetensors};

    fn write(path: &Path, inputs: &RawTensor, targets: &RawTensor) {
        let tensors = [("input_ids", inputs.view()), ("targets", targets.view())];
        safetensors::write(path, tensors, &BTreeMap::new()).unwrap();
    }

    fn ids(shape: &[usize], first: i64) -> RawTensor {
        let count: usize = shape.iter().product();
        RawTensor::from_i64(shape, &(first..first + count as i64).collect::<Vec<_>>())
    }

    #[test]
    fn batches_come_in_order() {
        let path = scratch("replay").join("batches.safetensors");
        write(&path, &ids(&[3, 2, 4], 0), &ids(&[3, 2, 4], 1));
        let replay = Replay::open(&path, 25).unwrap();
        assert_eq!((replay.steps(), replay.batch_size(), replay.sequence()), (Some(3), 2, 4));
        let batches: Vec<Batch> = replay.iter().map(|batch| batch.unwrap()).collect();
        assert_eq!(batches.len(), 3);
        assert_eq!(batches[1].get("input_ids").unwrap().shape, [2, 4]);
        assert_eq!(batches[1].integers("input_ids").unwrap(), (8..16).collect::<Vec<_>>());
        assert_eq!(batches[2].integers("targets").unwrap(), (17..25).collect::<Vec<_>>());
        assert!(replay.batch(3).unwrap_err().to_string().contains("3 steps"));
    }

    #[test]
    fn wrong_files_are_named() {
        let path = scratch("replay_wrong").join("batches.safetensors");
        let good = ids(&[3, 2, 4], 0);
        for (inputs, targets, expected) in [
            (&good, &ids(&[3, 2, 5], 0), "`targets` has shape [3, 2, 5]"),
            (&ids(&[6, 4], 0), &ids(&[6, 4], 0), "`input_ids` has shape [6, 4]"),
            (&ids(&[0, 2, 4], 0), &ids(&[0, 2, 4], 0), "holds no batch"),
            (&good, &RawTensor::from_f32(&[3, 2, 4], &[0.0; 24]), "`targets` has dtype f32"),
            (&good, &ids(&[3, 2, 4], 1), "`targets` at step 2, row 1, position 3: token id 24"),
            (&ids(&[3, 2, 4], -1), &good, "`input_ids` at step 0, row 0, position 0: token id -1"),
        ] {
            write(&path, inputs, targets);
            let error = Replay::open(&path, 24).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
            assert!(error.contains("batches.safetensors") && !error.contains('\n'), "{error}");
        }
        safetensors::write(&path, [("input_ids", good.view())], &BTreeMap::new()).unwrap();
        let error = Replay::open(&path, 24).unwrap_err().to_string();
        assert!(error.contains("\"targets\""), "{error}");
    }
}
