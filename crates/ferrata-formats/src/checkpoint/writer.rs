//! Writing a checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::manifest::is_plain_name;
use super::run::checkpoint_path;
use super::{FORMAT_VERSION, FileEntry, MANIFEST, Manifest, checksum};
use crate::atomic::{StagedFolder, write_staged};
use crate::safetensors::Layout;
use crate::{Error, Result, TensorView};

/// Builds a checkpoint under a temporary name; dropped before [`CheckpointWriter::finish`], it
/// leaves nothing.
pub struct CheckpointWriter {
    path: PathBuf,
    /// Where the files are until then.
    folder: PathBuf,
    /// `None` if another process began the checkpoint and finishes it.
    staged: Option<StagedFolder>,
    step: u64,
    files: Vec<FileEntry>,
}

impl CheckpointWriter {
    /// Begins the checkpoint after `step` completed steps in the folder `run`, which is made if
    /// need be.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`].
    pub fn new(run: &Path, step: u64) -> Result<CheckpointWriter> {
        let path = checkpoint_path(run, step);
        let staged = StagedFolder::new(&path)?;
        let folder = staged.path().to_path_buf();
        Ok(CheckpointWriter { path, folder, staged: Some(staged), step, files: Vec::new() })
    }

    /// Adds files to a checkpoint that another process has begun and whose files are in `folder`
    /// until then. What was written has to get to that process: see [`CheckpointWriter::adopt`].
    pub fn joining(folder: impl Into<PathBuf>, run: &Path, step: u64) -> CheckpointWriter {
        let path = checkpoint_path(run, step);
        CheckpointWriter { path, folder: folder.into(), staged: None, step, files: Vec::new() }
    }

    /// Where the files are until the checkpoint is finished.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What has been written.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Counts files among the checkpoint's that another process has written into its folder.
    pub fn adopt(&mut self, files: impl IntoIterator<Item = FileEntry>) {
        self.files.extend(files);
    }

    /// Adds a safetensors file.
    ///
    /// # Errors
    /// Those of [`crate::safetensors::write`]; [`Error::Checkpoint`] for a name that cannot be.
    pub fn tensors<'a, N: Into<String>>(
        &mut self,
        name: &str,
        tensors: impl IntoIterator<Item = (N, TensorView<'a>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.check_name(name)?;
        let layout = Layout::new(&self.path.join(name), tensors, metadata)?;
        let bytes = layout.file_size();
        write_staged(&self.folder, &self.path, name, bytes, |out| layout.write(out))?;
        let sums = layout.tensors.iter().map(|(name, t)| (name.clone(), checksum(t.bytes)));
        self.files.push(FileEntry {
            name: name.to_owned(),
            bytes,
            checksum: checksum(&layout.header),
            tensors: Some(sums.collect()),
        });
        Ok(())
    }

    /// Adds a file with the content `bytes`.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; [`Error::Checkpoint`] for a name that cannot be.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.check_name(name)?;
        let size = bytes.len() as u64;
        write_staged(&self.folder, &self.path, name, size, |out| out.write_all(bytes))?;
        self.files.push(FileEntry {
            name: name.to_owned(),
            bytes: size,
            checksum: checksum(bytes),
            tensors: None,
        });
        Ok(())
    }

    /// Adds a copy of the file `from` under its own name, for example of a tokenizer.
    ///
    /// # Errors
    /// Those of [`CheckpointWriter::bytes`]; [`Error::Io`] if `from` cannot be read.
    pub fn copy(&mut self, from: &Path) -> Result<()> {
        let content = fs::read(from).map_err(|e| Error::io("read", from, e))?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        self.bytes(&name, &content)
    }

    /// Writes the manifest and gives the checkpoint its name, unless another process began it; a
    /// checkpoint of the same step is replaced. `device` names the device and its instruction-set path.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; nothing is left behind, and what was there is unchanged.
    pub fn finish(self, device: &str, state: Value) -> Result<PathBuf> {
        let Some(staged) = self.staged else { return Ok(self.path) };
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            ferrata_version: env!("CARGO_PKG_VERSION").to_owned(),
            step: self.step,
            device: device.to_owned(),
            files: self.files,
            state,
        };
        let text = manifest.to_text();
        staged.write(MANIFEST, text.len() as u64, |out| out.write_all(text.as_bytes()))?;
        staged.replace_target()?;
        Ok(self.path)
    }

    fn check_name(&self, name: &str) -> Result<()> {
        if is_plain_name(name) && self.files.iter().all(|file| file.name != name) {
            return Ok(());
        }
        let what = format!("a file cannot be named {name:?}, or is written twice");
        Err(Error::checkpoint(&self.path, what))
    }
}
