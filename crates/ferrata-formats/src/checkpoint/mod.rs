//! Training checkpoints: the part that does not depend on what is trained.
//!
//! A run folder holds checkpoints named `step-00001000`, each a folder with tensor files, other
//! files and a `manifest.json`. The manifest lists every file with its size and checksums (one
//! per tensor, so that damage can be named) and carries its own checksum.
//!
//! A checkpoint is built under a temporary name, synced, and renamed into place, so one that has
//! its name is complete; a process killed at any instant leaves the earlier ones untouched. What
//! a disk does to the bytes later is found when the checkpoint is opened.
//!
//! ```no_run
//! # fn main() -> ferrata_formats::Result<()> {
//! use std::path::Path;
//! use ferrata_formats::checkpoint::{self, CheckpointWriter};
//! use ferrata_formats::RawTensor;
//!
//! let run = Path::new("runs/first");
//! ferrata_formats::atomic::sweep(run)?;
//! let weight = RawTensor::from_f32(&[2], &[0.5, 0.25]);
//! let mut writer = CheckpointWriter::new(run, 1000)?;
//! writer.tensors("model.safetensors", [("weight", weight.view())], &Default::default())?;
//! writer.finish("cpu avx2", serde_json::json!({"loss": 1.5}))?;
//! checkpoint::retain(run, 3, &[1000])?;
//!
//! let latest = checkpoint::latest(run)?;
//! for problem in &latest.skipped {
//!     eprintln!("{problem}");
//! }
//! if let Some(checkpoint) = latest.checkpoint {
//!     let weights = checkpoint.tensors("model.safetensors")?;
//!     assert_eq!(weights.get("weight")?.to_f32().unwrap(), [0.5, 0.25]);
//! }
//! # Ok(()) }
//! ```

mod manifest;
mod parts;
mod run;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

pub use manifest::{FORMAT_VERSION, FileEntry, Manifest};
pub use parts::Part;
pub use run::{Latest, latest, list, retain};
pub use writer::CheckpointWriter;

use crate::safetensors::TensorFile;
use crate::{Error, MappedFile, Result};

/// The name of the manifest in a checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";

/// A checkpoint whose every byte has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Reads the manifest and compares every file with its checksums.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] that names the damaged or missing file or tensor,
    /// [`Error::NewerVersion`], [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let manifest = Manifest::read(path)?;
        manifest.files.iter().try_for_each(|file| verify(path, file))?;
        Ok(Checkpoint { path: path.to_path_buf(), manifest })
    }

    /// The checkpoint's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Maps one of the tensor files.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the checkpoint has no such file; those of [`TensorFile::open`].
    pub fn tensors(&self, file: &str) -> Result<TensorFile> {
        TensorFile::open(self.file(file)?)
    }

    /// The path of one of the files.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the checkpoint has no such file.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if self.manifest.files.iter().any(|file| file.name == name) {
            return Ok(self.path.join(name));
        }
        Err(Error::checkpoint(&self.path, format!("it has no file `{name}`")))
    }
}

/// Compares one file with its entry in the manifest.
fn verify(folder: &Path, entry: &FileEntry) -> Result<()> {
    let name = &entry.name;
    let damaged = |what: String| Err(Error::checkpoint(folder, what));
    let path = folder.join(name);
    let size = match fs::metadata(&path) {
        Ok(data) => data.len(),
        Err(_) if !path.exists() => return damaged(format!("the file `{name}` is missing")),
        Err(e) => return Err(Error::io("read", &path, e)),
    };
    if size != entry.bytes {
        let wanted = entry.bytes;
        return damaged(format!("the file `{name}` has {size} bytes instead of {wanted}"));
    }
    let Some(tensors) = &entry.tensors else {
        return match checksum(&MappedFile::open(&path)?) == entry.checksum {
            true => Ok(()),
            false => damaged(format!("the file `{name}` has changed")),
        };
    };
    let file = match TensorFile::open(&path) {
        Ok(file) if checksum(file.header()) == entry.checksum => file,
        Err(e @ Error::Io { .. }) => return Err(e),
        Err(Error::Tensor { name: tensor, .. }) => {
            return damaged(format!("the entry of tensor {tensor:?} in `{name}` has changed"));
        }
        _ => return damaged(format!("the header of `{name}` has changed")),
    };
    for (tensor, expected) in tensors {
        if checksum(file.get(tensor)?.bytes) != *expected {
            return damaged(format!("tensor {tensor:?} in `{name}` has changed"));
        }
    }
    Ok(())
}

/// The checksum of some bytes, as it stands in a manifest: 64 hexadecimal digits.
fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
