//! The files of MNIST (IDX) and of CIFAR (binary), which hold pictures as they are.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::open::{Found, number};
use super::{Example, ImageSet, Picture, Pictures};
use crate::data::{Error, Result};

/// Pictures of one size, 8 bits a sample, all in memory.
#[derive(Default)]
struct Raw {
    width: usize,
    height: usize,
    /// 1: grey; 3: a plane each of red, green and blue.
    channels: usize,
    bytes: Vec<u8>,
    /// The number of the first picture of each file, and its path.
    files: Vec<(usize, PathBuf)>,
}

impl Raw {
    fn size(&self) -> usize {
        self.width * self.height * self.channels
    }
}

impl Pictures for Raw {
    fn len(&self) -> usize {
        self.bytes.len().checked_div(self.size()).unwrap_or_default()
    }

    fn key(&self, index: usize) -> String {
        let size = self.size();
        blake3::hash(&self.bytes[index * size..(index + 1) * size]).to_hex().to_string()
    }

    fn name(&self, index: usize) -> String {
        let file = self.files.iter().rev().find(|(first, _)| *first <= index);
        let Some((first, path)) = file else { return format!("picture {index}") };
        format!("picture {} of {}", index - first, path.display())
    }

    fn load(&self, index: usize, _: u64) -> std::result::Result<Picture, String> {
        let planes = &self.bytes[index * self.size()..(index + 1) * self.size()];
        let area = self.width * self.height;
        let pixel =
            |place: usize| [0, 1, 2].map(|c| planes[c.min(self.channels - 1) * area + place]);
        let pixels = (0..area).flat_map(pixel).collect();
        Ok(Picture { width: self.width, height: self.height, pixels })
    }
}

/// Pictures, their labels, and how many of them are to learn from.
struct Loaded {
    raw: Raw,
    labels: Vec<u8>,
    train: usize,
    classes: Vec<String>,
}

/// Opens the files, if the folder holds such.
pub(super) fn open(folder: &Path, entries: &[String]) -> Result<Option<Found>> {
    let loaded = match (mnist(folder, entries)?, cifar(folder, entries)?) {
        (Some(loaded), _) | (None, Some(loaded)) => loaded,
        (None, None) => return Ok(None),
    };
    let Loaded { raw, labels, train, classes } = loaded;
    if train == 0 {
        let place = folder.display();
        return Err(Error::Dataset(format!("the part to learn from is not in `{place}`; add it")));
    }
    let example = |(i, label): (usize, &u8)| match usize::from(*label) < classes.len() {
        true => Ok(Example { picture: number(i)?, label: u32::from(*label) }),
        false => {
            let (name, known) = (raw.name(i), classes.len());
            Err(Error::Dataset(format!("{name} has label {label} and there are {known} classes")))
        }
    };
    let mut learn: Vec<Example> = labels.iter().enumerate().map(example).collect::<Result<_>>()?;
    let check = learn.split_off(train);
    let train = ImageSet {
        pictures: Arc::new(raw),
        examples: learn.into(),
        classes: classes.into(),
        captions: Arc::new([]),
    };
    let validation = (!check.is_empty()).then(|| train.with(check));
    Ok(Some(Found { train, validation, notes: Vec::new() }))
}

fn wrong(path: &Path, what: impl AsRef<str>) -> Error {
    Error::Dataset(format!("`{}` {}; get the file again", path.display(), what.as_ref()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut inflated = Vec::new();
    let done = GzDecoder::new(&bytes[..]).read_to_end(&mut inflated);
    done.map_err(|error| wrong(path, format!("is damaged ({error})")))?;
    Ok(inflated)
}

/// The file `PART-images-idx3-ubyte` or so.
fn idx_file(folder: &Path, entries: &[String], part: &str, kind: &str) -> Option<PathBuf> {
    let fits = |name: &&String| {
        let name = name.to_lowercase();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        stem.starts_with(part) && stem.contains(kind) && stem.ends_with("ubyte")
    };
    entries.iter().find(fits).map(|name| folder.join(name))
}

fn mnist(folder: &Path, entries: &[String]) -> Result<Option<Loaded>> {
    let mut raw = Raw { channels: 1, ..Raw::default() };
    let (mut labels, mut train) = (Vec::new(), 0);
    for part in ["train", "t10k"] {
        let file = |kind| idx_file(folder, entries, part, kind);
        let (Some(images), Some(classes)) = (file("images"), file("labels")) else { continue };
        let (sizes, pixels) = idx(&images, 3)?;
        let (_, new) = idx(&classes, 1)?;
        if !labels.is_empty() && sizes[1..] != [raw.height, raw.width] {
            return Err(wrong(&images, "has pictures of another size than the part before"));
        }
        if sizes[0] != new.len() {
            let what = format!("holds {} labels for {} pictures", new.len(), sizes[0]);
            return Err(wrong(&classes, what));
        }
        (raw.height, raw.width) = (sizes[1], sizes[2]);
        raw.files.push((labels.len(), images));
        raw.bytes.extend(pixels);
        labels.extend(new);
        if part == "train" {
            train = labels.len();
        }
    }
    if labels.is_empty() {
        return Ok(None);
    }
    let count = labels.iter().max().map_or(0, |last| usize::from(*last) + 1);
    let classes = (0..count).map(|class| class.to_string()).collect();
    Ok(Some(Loaded { raw, labels, train, classes }))
}

/// The sizes and the bytes of an IDX file of `rank` dimensions.
fn idx(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut bytes = read(path)?;
    if bytes.get(..4) != Some(&[0, 0, 8, rank as u8]) {
        return Err(wrong(path, format!("is no IDX file of bytes with {rank} dimensions")));
    }
    let header = 4 + 4 * rank;
    let sizes: Vec<usize> = bytes
        .get(4..header)
        .unwrap_or_default()
        .chunks_exact(4)
        .map(|size| {
            usize::try_from(u32::from_be_bytes([size[0], size[1], size[2], size[3]])).unwrap_or(0)
        })
        .collect();
    let product = sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    let rest = bytes.len().saturating_sub(header);
    if sizes.len() != rank || product != Some(rest) || sizes.contains(&0) {
        return Err(wrong(path, format!("holds {rest} bytes for the sizes {sizes:?}")));
    }
    bytes.drain(..header);
    Ok((sizes, bytes))
}

fn cifar(folder: &Path, entries: &[String]) -> Result<Option<Loaded>> {
    let there = |name: &str| entries.iter().any(|entry| entry == name);
    let ten: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
    let (train, test, labels, names): (Vec<String>, _, _, _) = if ten.iter().any(|name| there(name))
    {
        (ten, "test_batch.bin", 1, "batches.meta.txt")
    } else if there("train.bin") {
        (vec!["train.bin".to_owned()], "test.bin", 2, "fine_label_names.txt")
    } else {
        return Ok(None);
    };
    let count = if labels == 1 { 10 } else { 100 };
    let mut raw = Raw { width: 32, height: 32, channels: 3, ..Raw::default() };
    let mut all = Vec::new();
    for name in train.iter().filter(|name| there(name)) {
        records(&folder.join(name), labels, &mut raw, &mut all)?;
    }
    let learn = all.len();
    if there(test) {
        records(&folder.join(test), labels, &mut raw, &mut all)?;
    }
    let names = fs::read_to_string(folder.join(names)).unwrap_or_default();
    let named: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let classes = match named.len() == count {
        true => named,
        false => (0..count).map(|class| class.to_string()).collect(),
    };
    Ok(Some(Loaded { raw, labels: all, train: learn, classes }))
}

/// Adds the pictures of a file; of several labels the last one counts.
fn records(path: &Path, labels: usize, raw: &mut Raw, all: &mut Vec<u8>) -> Result<()> {
    let bytes = read(path)?;
    let record = labels + raw.size();
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let what = format!("has {} bytes, which is no multiple of {record}", bytes.len());
        return Err(wrong(path, what));
    }
    raw.files.push((all.len(), path.to_path_buf()));
    for record in bytes.chunks_exact(record) {
        let (label, pixels) = record.split_at(labels);
        all.push(label[labels - 1]);
        raw.bytes.extend_from_slice(pixels);
    }
    Ok(())
}
