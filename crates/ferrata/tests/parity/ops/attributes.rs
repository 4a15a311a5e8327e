//! Attributes of a case.

use ferrata::{Dims, IntoDims, keep};
use serde_json::Value;

/// The `attrs` of a case.
pub struct Attributes<'a>(pub &'a Value);

impl Attributes<'_> {
    /// A number; "inf" is infinity.
    pub fn f64(&self, key: &str) -> f64 {
        match self.0[key].as_str() {
            Some(word) => word.parse().unwrap(),
            None => self.0[key].as_f64().unwrap_or_else(|| panic!("no number {key}")),
        }
    }

    /// A number that may be null.
    pub fn some_f64(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }

    /// An integer that may be null.
    pub fn some_i64(&self, key: &str) -> Option<i64> {
        self.0[key].as_i64()
    }

    pub fn i64(&self, key: &str) -> i64 {
        self.some_i64(key).unwrap_or_else(|| panic!("no integer {key}"))
    }

    pub fn usize(&self, key: &str) -> usize {
        usize::try_from(self.i64(key)).unwrap()
    }

    pub fn bool(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or_else(|| panic!("no flag {key}"))
    }

    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("no text {key}"))
    }

    /// A list of integers.
    pub fn ints(&self, key: &str) -> Vec<i64> {
        let list = self.0[key].as_array().unwrap_or_else(|| panic!("no list {key}"));
        list.iter().map(|v| v.as_i64().unwrap()).collect()
    }

    /// A list of sizes.
    pub fn sizes(&self, key: &str) -> Vec<usize> {
        self.ints(key).into_iter().map(|i| i as usize).collect()
    }

    /// The attribute `dims` (null: all) or `dim`, with `keepdim`.
    pub fn dims(&self) -> Dims {
        let dims = match (&self.0["dims"], &self.0["dim"]) {
            (Value::Array(_), _) => self.ints("dims").into_dims(),
            (_, Value::Number(_)) => self.i64("dim").into_dims(),
            _ => (..).into_dims(),
        };
        if self.0["keepdim"].as_bool() == Some(true) { keep(dims) } else { dims }
    }
}
