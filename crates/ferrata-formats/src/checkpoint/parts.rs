//! Tensors of which several files hold parts, because several ranks wrote them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, CheckpointWriter};
use crate::safetensors::TensorFile;
use crate::{Error, RawTensor, Result, TensorView};

/// Where a part lies in a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// For each dimension the stretches `[first, end]` of indices that the part has.
    pub stretches: Vec<Vec<[usize; 2]>>,
}

/// The metadata of a file of parts.
const PARTS: &str = "parts";

/// The name of the file of a rank that holds parts: `training-00003.safetensors` for
/// `training.safetensors`.
fn file_of(name: &str, rank: usize) -> String {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    format!("{stem}-{rank:05}.{extension}")
}

/// Whether that is the name of a file of parts of `name`.
fn is_part_of(file: &str, name: &str) -> bool {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let rank = file.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    let rank = rank.and_then(|rest| rest.strip_prefix('-')?.strip_suffix('.'));
    rank.is_some_and(|rank| !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Part {
    /// Calls `copy(whole, part, length)`, in elements, for every run of elements.
    fn runs(&self, mut copy: impl FnMut(usize, usize, usize)) {
        let Some((inner, outer)) = self.stretches.split_last() else {
            return copy(0, 0, 1);
        };
        let mut rows = vec![0];
        for (stretches, size) in outer.iter().zip(&self.shape) {
            let indices = || stretches.iter().flat_map(|&[first, end]| first..end);
            rows = rows.iter().flat_map(|row| indices().map(move |at| row * size + at)).collect();
        }
        let last = self.shape.last().copied().unwrap_or(1);
        let mut at = 0;
        for row in rows {
            for &[first, end] in inner {
                copy(row * last + first, at, end - first);
                at += end - first;
            }
        }
    }

    /// Elements of the part, which is sound.
    fn elements(&self) -> usize {
        let sizes = self.stretches.iter();
        let sizes = sizes.map(|s| s.iter().map(|[first, end]| end - first).sum::<usize>());
        sizes.fold(1, usize::saturating_mul)
    }

    /// Whether the stretches are within the tensor, one behind the other.
    fn is_sound(&self) -> bool {
        let inside = |(stretches, &size): (&Vec<[usize; 2]>, &usize)| {
            stretches.iter().all(|&[first, end]| first <= end && end <= size)
                && stretches.windows(2).all(|pair| pair[0][1] <= pair[1][0])
        };
        self.stretches.len() == self.shape.len()
            && self.stretches.iter().zip(&self.shape).all(inside)
    }
}

impl CheckpointWriter {
    /// Adds the file of rank `rank` with its parts of the tensors of `name`, if it has any. They
    /// come together again in [`Checkpoint::joined`].
    ///
    /// # Errors
    /// Those of [`CheckpointWriter::tensors`].
    pub fn parts<'a>(
        &mut self,
        name: &str,
        rank: usize,
        parts: impl IntoIterator<Item = (String, TensorView<'a>, Part)>,
    ) -> Result<()> {
        let (mut tensors, mut places) = (Vec::new(), BTreeMap::new());
        for (name, view, part) in parts {
            places.insert(name.clone(), part);
            tensors.push((name, view));
        }
        if tensors.is_empty() {
            return Ok(());
        }
        // Nothing in it fails to serialise; an empty text would be refused when it is read.
        let text = serde_json::to_string(&places).unwrap_or_default();
        let metadata = BTreeMap::from([(PARTS.to_owned(), text)]);
        self.tensors(&file_of(name, rank), tensors, &metadata)
    }
}

impl Checkpoint {
    /// The tensors of the file `name`, or of the files that hold parts of its tensors, which are
    /// put together.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there are neither, or parts are missing.
    pub fn joined(&self, name: &str) -> Result<BTreeMap<String, RawTensor>> {
        let names = self.manifest.files.iter().map(|file| &*file.name);
        let files: Vec<&str> = names.filter(|file| is_part_of(file, name)).collect();
        if files.is_empty() {
            let file = self.tensors(name)?;
            return Ok(file
                .iter()
                .map(|(name, view)| (name.to_owned(), view.to_owned()))
                .collect());
        }
        let mut whole: BTreeMap<String, (RawTensor, usize)> = BTreeMap::new();
        for file in files {
            self.join(file, &mut whole)?;
        }
        let complete = |(name, (tensor, found)): (String, (RawTensor, usize))| {
            let elements: usize = tensor.shape.iter().product();
            match found == elements {
                true => Ok((name, tensor)),
                false => Err(Error::checkpoint(
                    &self.path,
                    format!("{found} of the {elements} elements of tensor {name:?} are there"),
                )),
            }
        };
        whole.into_iter().map(complete).collect()
    }

    /// Copies the parts of a file to where they belong; counts their elements.
    fn join(&self, file: &str, whole: &mut BTreeMap<String, (RawTensor, usize)>) -> Result<()> {
        let tensors: TensorFile = self.tensors(file)?;
        let damaged = |what: String| Error::checkpoint(&self.path, what);
        let text = tensors.metadata().get(PARTS).map_or("", String::as_str);
        let parts: BTreeMap<String, Part> = serde_json::from_str(text).map_err(|_| {
            damaged(format!("the file `{file}` does not say what its parts are of"))
        })?;
        for (name, part) in parts {
            let view = tensors.get(&name)?;
            let size = view.dtype.size();
            let misfit =
                || damaged(format!("the part of tensor {name:?} in `{file}` fits nowhere"));
            if !part.is_sound() || part.elements().saturating_mul(size) != view.bytes.len() {
                return Err(misfit());
            }
            let (entry, found) = match whole.entry(name.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let bytes = part.shape.iter().try_fold(size, |n, &dim| n.checked_mul(dim));
                    let mut zeros = Vec::new();
                    let bytes = bytes.filter(|&n| zeros.try_reserve_exact(n).is_ok());
                    zeros.resize(bytes.ok_or_else(misfit)?, 0);
                    let shape = part.shape.clone();
                    entry.insert((RawTensor { dtype: view.dtype, shape, bytes: zeros }, 0))
                }
            };
            if entry.shape != part.shape || entry.dtype != view.dtype {
                return Err(misfit());
            }
            part.runs(|to, from, length| {
                entry.bytes[to * size..][..length * size]
                    .copy_from_slice(&view.bytes[from * size..][..length * size]);
            });
            *found += part.elements();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::tests::scratch;
    use serde_json::Value;

    fn column(first: usize, end: usize) -> Part {
        Part { shape: vec![2, 3], stretches: vec![vec![[0, 2]], vec![[first, end]]] }
    }

    #[test]
    fn parts_of_two_processes_make_a_tensor() {
        let run = &scratch("checkpoint-parts");
        let mut first = CheckpointWriter::new(run, 1).unwrap();
        let mut second = CheckpointWriter::joining(first.folder(), run, 1);
        let left = RawTensor::from_f32(&[2, 1], &[1.0, 4.0]);
        let right = RawTensor::from_f32(&[2, 2], &[2.0, 3.0, 5.0, 6.0]);
        first.parts("x.safetensors", 0, [("w".into(), left.view(), column(0, 1))]).unwrap();
        second.parts("x.safetensors", 1, [("w".into(), right.view(), column(1, 3))]).unwrap();
        first.adopt(second.files().to_vec());
        drop(second);
        let path = first.finish("cpu", Value::Null).unwrap();
        let joined = Checkpoint::open(&path).unwrap().joined("x.safetensors").unwrap();
        assert_eq!(joined["w"].view().to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn a_missing_part_is_named() {
        let run = &scratch("checkpoint-missing-part");
        let mut writer = CheckpointWriter::new(run, 1).unwrap();
        let left = RawTensor::from_f32(&[2, 1], &[1.0, 4.0]);
        writer.parts("x.safetensors", 0, [("w".into(), left.view(), column(0, 1))]).unwrap();
        let path = writer.finish("cpu", Value::Null).unwrap();
        let error = Checkpoint::open(&path).unwrap().joined("x.safetensors").unwrap_err();
        assert!(error.to_string().contains("2 of the 6 elements of tensor \"w\""), "{error}");
    }

    #[test]
    fn files_of_parts_are_told_from_others() {
        assert!(is_part_of("training-00012.safetensors", "training.safetensors"));
        for other in ["training.safetensors", "training-x.safetensors", "model-00001.safetensors"] {
            assert!(!is_part_of(other, "training.safetensors"), "{other}");
        }
    }
}
