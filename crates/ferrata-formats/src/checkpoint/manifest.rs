//! `manifest.json`: what a checkpoint consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MANIFEST, checksum};
use crate::{Error, Result};

/// The version of the checkpoint format that this program writes; it reads all versions up to it.
pub const FORMAT_VERSION: u64 = 1;

/// The content of a `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the checkpoint format.
    pub format_version: u64,
    /// The version of Ferrata that wrote the checkpoint.
    pub ferrata_version: String,
    /// The number of completed training steps.
    pub step: u64,
    /// The device and its instruction-set path; bits are reproducible on the same path only.
    pub device: String,
    /// Every other file of the checkpoint, in order of writing.
    pub files: Vec<FileEntry>,
    /// Whatever the trainer needs beyond tensors: configuration, random state, data position.
    pub state: Value,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the checkpoint's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file; of its header if it holds tensors.
    pub checksum: String,
    /// BLAKE3 of every tensor, if it holds tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<BTreeMap<String, String>>,
}

/// The manifest as it stands in the file. The checksum covers the whole text with its own digits
/// replaced by zeros. That and the meaning of `format_version` are the same in all versions.
#[derive(Serialize)]
struct Sealed<'a> {
    checksum: &'a str,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Manifest {
    /// The text of the file.
    pub(super) fn to_text(&self) -> String {
        let sealed = Sealed { checksum: NO_CHECKSUM, manifest: self };
        // The fallback cannot be reached: nothing in a manifest fails to serialise, and an empty
        // text would be refused when it is read.
        let mut text = serde_json::to_string_pretty(&sealed).unwrap_or_default();
        text.push('\n');
        // The seal is the first entry, before any text of the trainer.
        let digits = checksum(text.as_bytes());
        text.replacen(NO_CHECKSUM, &digits, 1)
    }

    /// Reads and checks the manifest in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                return Err(Error::checkpoint(folder, "`manifest.json` is missing"));
            }
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        Manifest::parse(&text, folder)
    }

    /// Parses and checks the text of a manifest; `folder` is for messages.
    pub(super) fn parse(text: &[u8], folder: &Path) -> Result<Manifest> {
        let damaged = || Error::checkpoint(folder, "`manifest.json` has changed");
        let value: Value = serde_json::from_slice(text).map_err(|_| damaged())?;
        let digits = value.get("checksum").and_then(Value::as_str).ok_or_else(damaged)?;
        if unsealed(text, digits).map(|text| checksum(&text)).as_deref() != Some(digits) {
            return Err(damaged());
        }
        let version = value.get("format_version").and_then(Value::as_u64).ok_or_else(damaged)?;
        if version > FORMAT_VERSION {
            let written_by = value.get("ferrata_version").and_then(Value::as_str);
            return Err(Error::NewerVersion {
                path: folder.to_path_buf(),
                found: version,
                supported: FORMAT_VERSION,
                written_by: written_by.unwrap_or("of a later version").escape_debug().to_string(),
            });
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|e| {
            Error::checkpoint(folder, format!("`manifest.json` is not a manifest ({e})"))
        })?;
        manifest.check_names(folder)?;
        Ok(manifest)
    }

    /// Files lie in the folder itself, each listed once.
    fn check_names(&self, folder: &Path) -> Result<()> {
        let mut seen = BTreeSet::new();
        for name in self.files.iter().map(|file| file.name.as_str()) {
            if !is_plain_name(name) || !seen.insert(name) {
                let what = format!("`manifest.json` lists the file {name:?}, which cannot be");
                return Err(Error::checkpoint(folder, what));
            }
        }
        Ok(())
    }
}

/// Whether `name` can be a file of a checkpoint beside the manifest.
pub(super) fn is_plain_name(name: &str) -> bool {
    name != MANIFEST && Path::new(name).file_name().is_some_and(|base| base == name)
}

/// The text with the digits of its checksum, which must occur once, replaced by zeros.
fn unsealed(text: &[u8], digits: &str) -> Option<Vec<u8>> {
    if digits.len() != NO_CHECKSUM.len() {
        return None;
    }
    let mut places =
        text.windows(digits.len()).enumerate().filter(|(_, w)| *w == digits.as_bytes());
    let (at, _) = places.next()?;
    if places.next().is_some() {
        return None;
    }
    let mut text = text.to_vec();
    text[at..at + digits.len()].copy_from_slice(NO_CHECKSUM.as_bytes());
    Some(text)
}
