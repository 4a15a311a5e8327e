//! The error type: one line that says what went wrong, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}; {}", .path.display(), remedy(.source))]
    Io {
        /// What was tried: `read`, `write`, `list`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// The disk (or quota) is full.
    #[error(
        "no space left to write `{}` ({needed} bytes needed); free disk space or choose another \
         folder",
        .path.display()
    )]
    DiskFull {
        /// The file or folder that was being written.
        path: PathBuf,
        /// Its full size in bytes.
        needed: u64,
    },
    /// The content is not what the format demands.
    #[error("`{}` is damaged: {what}; copy or download it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        what: String,
    },
    /// One tensor is missing, of an unknown dtype, of the wrong shape, …
    #[error("tensor {name:?} in `{}` {what}", .path.display())]
    Tensor {
        /// The file or model directory.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The cause and the remedy, as a continuation of "tensor NAME in FILE …".
        what: String,
    },
    /// A configuration holds a value that is wrong or not supported.
    #[error("`{}`: {what}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The cause and the remedy.
        what: String,
    },
    /// A file inside a checkpoint does not match the manifest.
    #[error(
        "checkpoint `{}` is damaged: {what}; remove its folder to go on from the one before it",
        .path.display()
    )]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The cause, naming the file and the tensor.
        what: String,
    },
    /// The checkpoint was written by a later version of Ferrata.
    #[error(
        "checkpoint `{}` has format version {found} and this program reads versions up to \
         {supported}; use Ferrata {written_by} or later",
        .path.display()
    )]
    NewerVersion {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The version of the checkpoint.
        found: u64,
        /// The last version that this program reads.
        supported: u64,
        /// The version of Ferrata that wrote it.
        written_by: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_path_buf(), source }
    }

    /// Classifies a failed write: a full disk is told apart, with the size that was wanted.
    pub(crate) fn write(path: &Path, needed: u64, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { path: path.to_path_buf(), needed }
            }
            _ => Error::io("write", path, source),
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn tensor(path: &Path, name: &str, what: impl Into<String>) -> Error {
        Error::Tensor { path: path.to_path_buf(), name: name.to_owned(), what: what.into() }
    }

    pub(crate) fn config(path: &Path, what: impl Into<String>) -> Error {
        Error::Config { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn checkpoint(path: &Path, what: impl Into<String>) -> Error {
        Error::Checkpoint { path: path.to_path_buf(), what: what.into() }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check the permissions",
        io::ErrorKind::ReadOnlyFilesystem => "choose a folder that can be written",
        io::ErrorKind::IsADirectory => "give a file, not a folder",
        io::ErrorKind::NotADirectory => "give a folder, not a file",
        _ => "check the disk and the path",
    }
}

/// A value from a file for use in a message: one line, at most some 60 characters.
pub(crate) fn shown(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).chain("…".chars()).collect()
}
