//! From a folder or a file to sets of images: which layout it has, and what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Example, ImageSet, binary, captions, folders, parquet};
use crate::data::{Error, Permutation, Result};

/// Images to learn from and to validate on.
pub struct ImageData {
    /// The part to learn from.
    pub train: ImageSet,
    /// The part for validation, if any.
    pub validation: Option<ImageSet>,
    /// What the user should know, such as files that were passed over.
    pub notes: Vec<String>,
    /// Equal for the same files with the same labels in the same split.
    pub identity: String,
}

/// How data without parts of its own is split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageSplit {
    /// The share that is kept for validation, 0 to below 1.
    pub validation: f64,
    /// Which examples that are.
    pub seed: u64,
}

/// Everything that was found: examples to learn from, and a part for validation if the data comes
/// with one.
pub(super) struct Found {
    pub(super) train: ImageSet,
    pub(super) validation: Option<ImageSet>,
    pub(super) notes: Vec<String>,
}

impl ImageData {
    /// Opens images in one of these layouts:
    ///
    /// - `DIR/CLASS/….png`, or `DIR/train/CLASS/….png` and `DIR/val`, `DIR/validation` or
    ///   `DIR/test`;
    /// - pictures with captions in `a.txt` beside `a.png`, or in `captions.jsonl` or
    ///   `metadata.jsonl` (`file_name` and `text`), also in parts as above;
    /// - Parquet files as Hugging Face publishes them, here or in `data` (`train-….parquet`,
    ///   `validation-….parquet`), or a single one: a column `image` with the bytes of picture files
    ///   and a column `label` or `text`; they must fit into memory;
    /// - the files of MNIST (IDX, also compressed by gzip) and of CIFAR-10 and CIFAR-100 (binary).
    ///
    /// Pictures are decoded when they are needed. What the data does not split itself, `split`
    /// does, class by class.
    ///
    /// # Errors
    /// [`Error::Io`] if something cannot be read; [`Error::Dataset`] that says what is there
    /// instead of images.
    pub fn open(path: &Path, split: ImageSplit) -> Result<ImageData> {
        // A single Parquet file has no entries.
        let entries = if path.is_file() { Vec::new() } else { list(path)? };
        let found = if let Some(found) = binary::open(path, &entries)? {
            found
        } else if let Some(found) = parquet::open(path, &entries)? {
            found
        } else if let Some((train, validation)) = parts(&entries) {
            let [train, validation] = [train, validation].map(|folder| path.join(folder));
            match captions::is_there(&train)? {
                true => captions::open(path, &train, Some(&validation))?,
                false => folders::open(path, &train, Some(&validation))?,
            }
        } else if captions::is_there(path)? {
            captions::open(path, path, None)?
        } else {
            folders::open(path, path, None)?
        };
        let Found { train, validation, notes } = found;
        let (train, validation) = match validation {
            Some(validation) => (train, Some(validation)),
            None if split.validation > 0.0 => divide(&train, split)?,
            None => (train, None),
        };
        let identity = ImageData::identity_of(&train, validation.as_ref());
        Ok(ImageData { train, validation, notes, identity })
    }
}

/// The names in a folder, in order; hidden ones are left out.
pub(super) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::io("list", folder, error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The folders of parts, if there is `train` and one to validate on.
fn parts(entries: &[String]) -> Option<(&'static str, &'static str)> {
    let there = |name: &str| entries.iter().any(|entry| entry == name);
    let validation = ["val", "validation", "test"].into_iter().find(|name| there(name))?;
    there("train").then_some(("train", validation))
}

/// Whether a name is that of a picture file.
pub(super) fn is_picture(name: &str) -> bool {
    const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "gif", "bmp", "webp"];
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// The number of a picture or a class.
pub(in crate::data) fn number(index: usize) -> Result<u32> {
    let too_many = |_| Error::Dataset("more than 4 billion pictures are too many".into());
    u32::try_from(index).map_err(too_many)
}

/// The path of `file` below `root`.
pub(super) fn below(root: &Path, file: &Path) -> PathBuf {
    file.strip_prefix(root).unwrap_or(file).to_path_buf()
}

/// Keeps a share of every class for validation, at least one example of those that have two.
fn divide(set: &ImageSet, split: ImageSplit) -> Result<(ImageSet, Option<ImageSet>)> {
    let mut by_class: Vec<Vec<Example>> = vec![Vec::new(); set.classes.len().max(1)];
    set.examples.iter().for_each(|example| by_class[example.label as usize].push(*example));
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (class, examples) in by_class.iter().enumerate() {
        let count = (examples.len() as f64 * split.validation).round() as usize;
        let count = count.max(1).min(examples.len().saturating_sub(1));
        let order = Permutation::new(examples.len() as u64, split.seed, class as u64);
        for place in 0..examples.len() {
            let example = examples[order.get(place as u64) as usize];
            if place < count { &mut validation } else { &mut train }.push(example);
        }
    }
    train.sort_by_key(|example| example.picture);
    validation.sort_by_key(|example| example.picture);
    if validation.is_empty() {
        return Err(Error::Dataset(
            "there are too few images to keep some for validation; give more or set \
             data.validation = 0"
                .into(),
        ));
    }
    Ok((set.with(train), Some(set.with(validation))))
}

impl ImageData {
    /// Equal for the same examples, labels and captions in the same split.
    pub(in crate::data) fn identity_of(train: &ImageSet, validation: Option<&ImageSet>) -> String {
        let mut hash = blake3::Hasher::new();
        for (part, set) in [Some(train), validation].into_iter().flatten().enumerate() {
            hash.update(&part.to_le_bytes());
            for example in set.examples.iter() {
                hash.update(&example.picture.to_le_bytes());
                hash.update(&example.label.to_le_bytes());
            }
        }
        for index in 0..train.pictures.len() {
            hash.update(train.pictures.key(index).as_bytes());
            hash.update(&[0]);
        }
        for text in train.classes.iter().chain(train.captions.iter().flatten()) {
            hash.update(text.as_bytes());
            hash.update(&[0]);
        }
        hash.finalize().to_hex().to_string()
    }
}
