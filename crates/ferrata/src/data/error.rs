//! The error type: one line that says what went wrong, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file format is to blame.
    #[error(transparent)]
    Formats(#[from] ferrata_formats::Error),
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}; check the path and its permissions", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// A file given as text holds something else.
    #[error(
        "`{}` is not text: {what} at byte {offset}; give UTF-8 text files, or convert it",
        .path.display()
    )]
    NotText {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// Where, counted from zero.
        offset: usize,
    },
    /// A line of a JSON-lines file is wrong.
    #[error("`{}` line {line}: {what}", .path.display())]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The cause and the remedy.
        what: String,
    },
    /// There is no text at all.
    #[error("there is no text in {place}; {remedy}")]
    NoText {
        /// Where it was looked for.
        place: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tokenizer cannot be made, read or applied.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Too few tokens for the context.
    #[error(
        "the text has {tokens} tokens and a context of {context} needs at least {}; give more \
         text or set a shorter context",
        .context + 1
    )]
    TooShort {
        /// The tokens there are.
        tokens: usize,
        /// The context asked for.
        context: usize,
    },
    /// Token ids and a model do not fit together.
    #[error("{place}: token id {id} is outside the vocabulary of {vocab_size}; {remedy}")]
    Vocabulary {
        /// Where the id stands.
        place: String,
        /// The id.
        id: i64,
        /// The number of ids that the model knows.
        vocab_size: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A dataset's samples cannot be put into batches, or settings are impossible.
    #[error("{0}")]
    Dataset(String),
    /// A picture cannot be used.
    #[error(
        "the picture `{name}` cannot be used: {what}; remove it, or pass over such files with data.on_damaged = \"skip\""
    )]
    Image {
        /// Its path, or its place in a file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Recorded batches are not as they must be.
    #[error("`{}`: {what}", .path.display())]
    Replay {
        /// The file.
        path: PathBuf,
        /// The cause and the remedy.
        what: String,
    },
}

/// Shorthand for results of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_path_buf(), source }
    }
}

/// A message of another crate on one line.
pub(super) fn one_line(message: impl ToString) -> String {
    message.to_string().replace(char::is_control, " ")
}
