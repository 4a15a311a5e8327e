//! Typed access to the values of a JSON object, with errors that name file, key and value.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::shown;
use crate::{Error, Result};

/// Sizes beyond this are mistakes; it keeps products of a few sizes within range.
const MAX_SIZE: u64 = 1 << 31;

/// The object that is the text of a JSON file; `path` is for messages.
pub(super) fn object(text: &[u8], path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(text)
        .map_err(|e| Error::damaged(path, format!("not a JSON object ({e})")))
}

/// The keys and values of a configuration file. `null` counts as absent.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The error for a value that Ferrata cannot use.
    pub(super) fn unsupported(&self, key: &str, supported: &str) -> Error {
        let value = self.get(key).map_or_else(|| "absent".to_owned(), shown);
        Error::config(self.path, format!("`{key}` = {value} is not supported; use {supported}"))
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> Error {
        let what = format!("`{key}` = {} should be {wanted}; correct the file", shown(value));
        Error::config(self.path, what)
    }

    fn convert<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, value, wanted))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.convert(key, "a string", Value::as_str)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.convert(key, "an object", Value::as_object)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.convert(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.convert(key, "a whole number from 1 to 2147483648", size)
    }

    /// A list of sizes that must be there.
    pub(super) fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let convert = |value: &Value| value.as_array()?.iter().map(size).collect();
        let sizes = self.convert(key, "a list of whole numbers from 1 to 2147483648", convert)?;
        sizes.ok_or_else(|| self.missing(key))
    }

    /// A size that must be there, under the first of several names.
    pub(super) fn size(&self, keys: &[&str]) -> Result<usize> {
        for key in keys {
            if let Some(size) = self.optional_size(key)? {
                return Ok(size);
            }
        }
        Err(self.missing(keys.first().copied().unwrap_or_default()))
    }

    fn missing(&self, key: &str) -> Error {
        Error::config(self.path, format!("`{key}` is missing; complete the file with it"))
    }

    pub(super) fn non_negative(&self, key: &str, default: f64) -> Result<f64> {
        let convert = |value: &Value| value.as_f64().filter(|x| *x >= 0.0 && x.is_finite());
        Ok(self.convert(key, "a number, zero or more", convert)?.unwrap_or(default))
    }

    pub(super) fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let convert = |value: &Value| value.as_f64().filter(|x| *x > 0.0 && x.is_finite());
        Ok(self.convert(key, "a number above zero", convert)?.unwrap_or(default))
    }

    pub(super) fn probability(&self, key: &str, default: f64) -> Result<f64> {
        let convert = |value: &Value| value.as_f64().filter(|x| (0.0..1.0).contains(x));
        Ok(self.convert(key, "a number from 0 to below 1", convert)?.unwrap_or(default))
    }

    /// A positive number that must be there.
    pub(super) fn factor(&self, key: &str) -> Result<f64> {
        if self.get(key).is_none() {
            let what = format!("`{key}` of the rotary scaling is missing; complete the file");
            return Err(Error::config(self.path, what));
        }
        self.positive(key, 1.0)
    }

    /// One id, a list of ids, or none.
    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let convert = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            // Some published files say -1 for "none".
            _ if value.as_i64() == Some(-1) => Some(Vec::new()),
            one => id(one).map(|id| vec![id]),
        };
        Ok(self.convert(key, "a token id or a list of them", convert)?.unwrap_or_default())
    }
}

fn size(value: &Value) -> Option<usize> {
    let size = value.as_u64().filter(|size| (1..=MAX_SIZE).contains(size))?;
    usize::try_from(size).ok()
}
