//! The error of configuration and training: one line that names the cause and the remedy.

use std::fmt;

/// What went wrong and what to do about it, on one line: `cause; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    cause: String,
    remedy: String,
}

/// Shorthand for results of training.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its cause and its remedy; line breaks become spaces.
    pub fn new(cause: impl AsRef<str>, remedy: impl AsRef<str>) -> Error {
        Error { cause: one_line(cause.as_ref()), remedy: one_line(remedy.as_ref()) }
    }

    /// An error of another part of the stack, whose message already holds cause and remedy.
    pub fn from_message(message: impl fmt::Display) -> Error {
        Error::new(message.to_string(), "")
    }

    /// What is wrong.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it; empty where the cause already says it.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remedy.is_empty() {
            true => f.write_str(&self.cause),
            false => write!(f, "{}; {}", self.cause, self.remedy),
        }
    }
}

impl std::error::Error for Error {}

impl From<ferrata_formats::Error> for Error {
    fn from(error: ferrata_formats::Error) -> Error {
        Error::from_message(error)
    }
}

impl From<ferrata_ir::Error> for Error {
    fn from(error: ferrata_ir::Error) -> Error {
        Error::from_message(error)
    }
}

impl From<crate::data::Error> for Error {
    fn from(error: crate::data::Error) -> Error {
        Error::from_message(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let error = Error::new("the file\nis empty", "give\n  another one");
        assert_eq!(error.to_string(), "the file is empty; give another one");
        assert_eq!(Error::from_message("broken; mend it").to_string(), "broken; mend it");
    }
}
