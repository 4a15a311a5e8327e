//! Reading a configuration: file, overrides, paths.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;
use super::value::from_table;
use crate::train::{Error, Result};

/// The keys that hold paths; relative ones in a file are relative to its folder.
const PATHS: [(&str, &str); 5] = [
    ("data", "text"),
    ("data", "jsonl"),
    ("data", "tokenizer"),
    ("data", "images"),
    ("train", "init"),
];
/// Values of `data.tokenizer` that are no path.
pub(super) const TOKENIZERS: [&str; 3] = ["char", "byte", "bpe"];

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// A TOML file.
    File(&'a Path),
    /// The text of a TOML file with a name for messages; relative paths are taken from the
    /// current folder.
    Text {
        /// What messages call it.
        name: &'a str,
        /// The TOML text.
        text: &'a str,
    },
}

/// A value given beside the file: `train.steps=100`.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    keys: Vec<String>,
    value: Value,
}

impl Override {
    /// Parses `a.b=value`. The value is read as TOML; what is no TOML value is a text, so quotes
    /// can be left out. Relative paths are taken from the current folder.
    ///
    /// # Errors
    /// If there is no `=` or no key.
    pub fn parse(text: &str) -> Result<Override> {
        let wrong = || {
            Error::new(
                format!("`{text}` is not of the form section.key=value"),
                "write for example train.steps=100",
            )
        };
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let keys: Vec<String> = path.split('.').map(|key| key.trim().to_owned()).collect();
        if keys.len() < 2 || keys.iter().any(String::is_empty) {
            return Err(wrong());
        }
        let value = value.trim();
        let parsed = format!("value = {value}").parse::<Table>().ok();
        let value = parsed
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        Ok(Override { keys, value })
    }

    /// Sets a key to a list of paths, relative ones taken from the current folder.
    pub fn paths(section: &str, key: &str, paths: &[PathBuf]) -> Override {
        let text = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
        let value = Value::Array(paths.iter().map(text).collect());
        Override { keys: vec![section.to_owned(), key.to_owned()], value }
    }

    /// Sets a key to a path, a relative one taken from the current folder.
    pub fn path(section: &str, key: &str, path: &Path) -> Override {
        Override::text(section, key, &path.to_string_lossy())
    }

    /// Sets a key to a text.
    pub fn text(section: &str, key: &str, text: &str) -> Override {
        let value = Value::String(text.to_owned());
        Override { keys: vec![section.to_owned(), key.to_owned()], value }
    }

    /// Sets a key to a truth value.
    pub fn flag(section: &str, key: &str, on: bool) -> Override {
        Override { keys: vec![section.to_owned(), key.to_owned()], value: Value::Boolean(on) }
    }

    fn apply(self, table: &mut Table) -> Result<()> {
        let name = self.keys.join(".");
        let mut keys = self.keys;
        let Some(last) = keys.pop() else { return Ok(()) };
        let mut place = table;
        for key in keys {
            let entry = place.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                return Err(Error::new(
                    format!("`{name}` cannot be set: `{key}` is no section"),
                    "give section.key=value",
                ));
            };
            place = inner;
        }
        place.insert(last, self.value);
        Ok(())
    }
}

impl Config {
    /// Reads a configuration, applies the overrides in order and makes paths absolute. The
    /// values have their types but have not been checked against each other: see
    /// [`Config::check`].
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML (with the line), an unknown key (with the nearest
    /// known one), a value of the wrong type.
    pub fn load(source: Source, overrides: &[Override]) -> Result<Config> {
        let here = std::env::current_dir().unwrap_or_default();
        let (mut table, folder) = match source {
            Source::File(path) => {
                let text = read(path)?;
                let folder = path.parent().map(|folder| here.join(folder)).unwrap_or_default();
                (parse(&text, &path.display().to_string())?, folder)
            }
            Source::Text { name, text } => (parse(text, name)?, here.clone()),
        };
        resolve(&mut table, &folder);
        for change in overrides {
            change.clone().apply(&mut table)?;
        }
        resolve(&mut table, &here);
        from_table(table)
    }

    /// The configuration as TOML, all defaults written out.
    pub fn to_toml(&self) -> String {
        // Nothing in a configuration fails to serialise; an empty text would be noticed.
        toml::to_string_pretty(self).unwrap_or_default()
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| {
        Error::new(
            format!("cannot read the configuration `{}`: {error}", path.display()),
            "check the path",
        )
    })?;
    String::from_utf8(bytes).map_err(|_| {
        Error::new(
            format!("the configuration `{}` is not text", path.display()),
            "give a TOML file such as recipes/shakespeare.toml",
        )
    })
}

fn parse(text: &str, name: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
        let line = before.matches('\n').count() + 1;
        Error::new(
            format!("`{name}` line {line} is not TOML ({})", error.message()),
            "correct that line",
        )
    })
}

/// Puts `folder` before all relative paths.
fn resolve(table: &mut Table, folder: &Path) {
    for (section, key) in PATHS {
        let value = table.get_mut(section).and_then(|section| section.get_mut(key));
        match value {
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| join(item, folder)),
            Some(Value::String(name)) if TOKENIZERS.contains(&name.as_str()) => {}
            Some(value) => join(value, folder),
            None => {}
        }
    }
}

fn join(value: &mut Value, folder: &Path) {
    if let Value::String(path) = value {
        *path = folder.join(&*path).to_string_lossy().into_owned();
    }
}
