//! Errors that name the operation, its shapes, its scope and the user's line.

use crate::Type;
use std::fmt;
use std::sync::Arc;

/// A line of user code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Source file as the compiler recorded it.
    pub file: Arc<str>,
    /// Line number, counted from 1.
    pub line: u32,
}

impl From<&std::panic::Location<'_>> for Location {
    fn from(l: &std::panic::Location<'_>) -> Self {
        Location { file: l.file().into(), line: l.line() }
    }
}

/// Where a node comes from: its scope (`layers.3.attention.query`) and the line of user code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Dotted scope path; empty at the top.
    pub scope: Arc<str>,
    /// The user's line, when known.
    pub location: Option<Location>,
}

impl Origin {
    /// The origin of a callee's node, seen from this call: its scope gains our prefix.
    pub fn enter(&self, inner: &Origin) -> Origin {
        let scope = match (self.scope.is_empty(), inner.scope.is_empty()) {
            (true, _) => inner.scope.clone(),
            (_, true) => self.scope.clone(),
            _ => format!("{}.{}", self.scope, inner.scope).into(),
        };
        let location = inner.location.clone().or_else(|| self.location.clone());
        Origin { scope, location }
    }
}

/// Why a program could not be built, transformed, compiled or evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<Details>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Details {
    message: String,
    operation: Option<String>,
    operands: Vec<Type>,
    origin: Origin,
    help: Option<String>,
}

impl Error {
    /// An error with a one-line cause.
    pub fn new(message: impl Into<String>) -> Self {
        Error(Box::new(Details { message: message.into(), ..Details::default() }))
    }

    /// Names the operation and its operand types, unless an inner operation was named already.
    pub fn at(mut self, operation: &str, operands: &[&Type], origin: &Origin) -> Self {
        if self.0.operation.is_none() {
            self.0.operation = Some(operation.to_string());
            self.0.operands = operands.iter().map(|t| (*t).clone()).collect();
        }
        if self.0.origin == Origin::default() {
            self.0.origin = origin.clone();
        }
        self
    }

    /// Adds what would fix it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// The one-line cause without operation, place or remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, if one did.
    pub fn operation(&self) -> Option<&str> {
        self.0.operation.as_deref()
    }

    /// Scope and user line.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.0;
        if let Some(op) = &d.operation {
            let operands: Vec<String> = d.operands.iter().map(Type::to_string).collect();
            match operands.is_empty() {
                true => write!(f, "{op}: ")?,
                false => write!(f, "{op}({}): ", operands.join(", "))?,
            }
        }
        f.write_str(&d.message)?;
        if !d.origin.scope.is_empty() {
            write!(f, ", in scope {}", d.origin.scope)?;
        }
        if let Some(l) = &d.origin.location {
            write!(f, ", at {}:{}", l.file, l.line)?;
        }
        if let Some(help) = &d.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Error::new(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Error::new(message)
    }
}

/// Result of this crate's fallible operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
