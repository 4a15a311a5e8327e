//! From TOML values to typed sections, with errors that name the key, the value and the remedy.
//!
//! The deserialiser of the `toml` crate reports a wrong key with a list of all right ones. Here
//! the nearest one is suggested, wrong types are told in a user's words, and every message names
//! the whole key (`train.steps`), wherever the value came from: file or command line.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer as _, IntoDeserializer, Unexpected, Visitor};
use toml::{Table, Value};

use crate::train::Error;

/// Reads a typed value out of a table.
pub(super) fn from_table<T: de::DeserializeOwned>(table: Table) -> Result<T, Error> {
    T::deserialize(Node(Value::Table(table))).map_err(Problem::into_error)
}

/// What is wrong with one key.
#[derive(Debug)]
struct Problem {
    /// Keys from the innermost to the outermost.
    path: Vec<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A value is not what it should be.
    Value {
        found: String,
        expected: String,
    },
    /// The last key of the path is unknown; these are known.
    UnknownKey {
        known: &'static [&'static str],
    },
    /// The last key of the path is missing.
    MissingKey,
    Other(String),
}

impl Problem {
    fn new(what: What) -> Problem {
        Problem { path: Vec::new(), what }
    }

    fn into_error(self) -> Error {
        let key = self.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".");
        match self.what {
            What::Value { found, expected } => Error::new(
                format!("`{key}` is {found}"),
                format!("it has to be {}", in_words(&expected)),
            ),
            What::UnknownKey { known } => {
                let (parent, last) = key.rsplit_once('.').unwrap_or(("", &key));
                let remedy = match nearest(last, known) {
                    Some(name) if parent.is_empty() => format!("did you mean `{name}`?"),
                    Some(name) => format!("did you mean `{parent}.{name}`?"),
                    None => format!("known keys here are {}", known.join(", ")),
                };
                Error::new(format!("unknown key `{key}`"), remedy)
            }
            What::MissingKey => {
                Error::new(format!("the key `{key}` is missing"), "set it in the configuration")
            }
            What::Other(message) => {
                Error::new(format!("`{key}`: {message}"), "correct it in the configuration")
            }
        }
    }

    fn under(mut self, key: &str) -> Problem {
        self.path.push(key.to_owned());
        self
    }
}

/// The known name that `name` is most likely a misspelling of.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let closeness = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    let best = known.iter().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))?;
    (closeness(best) >= 0.5).then_some(*best)
}

/// What serde expects, in a user's words.
fn in_words(expected: &str) -> &str {
    match expected {
        "u64" | "usize" | "u32" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a section with keys",
        other => other,
    }
}

fn describe(value: &Unexpected) -> String {
    match value {
        Unexpected::Bool(x) => format!("{x}"),
        Unexpected::Unsigned(x) => format!("{x}"),
        Unexpected::Signed(x) => format!("{x}"),
        Unexpected::Float(x) => format!("{x:?}"),
        Unexpected::Str(x) => format!("the text {x:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Problem {
        Problem::new(What::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected, expected: &dyn de::Expected) -> Problem {
        Problem::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected, expected: &dyn de::Expected) -> Problem {
        Problem::new(What::Value { found: describe(&found), expected: expected.to_string() })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Problem {
        let choices = match nearest(variant, expected) {
            Some(name) => format!("one of {} (did you mean `{name}`?)", expected.join(", ")),
            None => format!("one of {}", expected.join(", ")),
        };
        let found = describe(&Unexpected::Str(variant));
        Problem::new(What::Value { found, expected: choices })
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Problem {
        Problem::new(What::UnknownKey { known }).under(field)
    }

    fn missing_field(field: &'static str) -> Problem {
        Problem::new(What::MissingKey).under(field)
    }
}

/// A TOML value to be read.
struct Node(Value);

impl<'de> IntoDeserializer<'de, Problem> for Node {
    type Deserializer = Node;
    fn into_deserializer(self) -> Node {
        self
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(x) => visitor.visit_string(x),
            Value::Integer(x) => visitor.visit_i64(x),
            Value::Float(x) => visitor.visit_f64(x),
            Value::Boolean(x) => visitor.visit_bool(x),
            Value::Datetime(x) => visitor.visit_string(x.to_string()),
            Value::Array(items) => {
                visitor.visit_seq(de::value::SeqDeserializer::new(items.into_iter().map(Node)))
            }
            Value::Table(table) => {
                visitor.visit_map(Entries { entries: table.into_iter(), current: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    /// A single value may stand where a list is expected: `text = "book.txt"`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let items = match self.0 {
            Value::Array(items) => items,
            Value::Table(_) => return self.deserialize_any(visitor),
            single => vec![single],
        };
        visitor.visit_seq(de::value::SeqDeserializer::new(items.into_iter().map(Node)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    /// A word, or a section whose key `kind` says which one it is; the first kind by default.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name.into_deserializer()),
            Value::Table(table) => visitor.visit_enum(Tagged { table, variants }),
            other => {
                let found = Node(other).deserialize_any(Found)?;
                let expected = format!("one of {}", variants.join(", "));
                Err(Problem::new(What::Value { found, expected }))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

/// A section of one of several kinds.
struct Tagged {
    table: Table,
    variants: &'static [&'static str],
}

impl<'de> de::EnumAccess<'de> for Tagged {
    type Error = Problem;
    type Variant = Tagged;

    fn variant_seed<S: DeserializeSeed<'de>>(
        mut self,
        seed: S,
    ) -> Result<(S::Value, Tagged), Problem> {
        let usual = || Value::String(self.variants.first().copied().unwrap_or_default().to_owned());
        let kind = self.table.remove("kind").unwrap_or_else(usual);
        let variant = match kind {
            Value::String(_) => seed.deserialize(Node(kind)),
            other => {
                let found = Node(other).deserialize_any(Found)?;
                let expected = format!("one of {}", self.variants.join(", "));
                Err(Problem::new(What::Value { found, expected }))
            }
        };
        Ok((variant.map_err(|problem| problem.under("kind"))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Tagged {
    type Error = Problem;

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Problem> {
        seed.deserialize(Node(Value::Table(self.table)))
    }

    fn unit_variant(self) -> Result<(), Problem> {
        let expected = format!("one of {}", self.variants.join(", "));
        Err(Problem::new(What::Value { found: "a section".to_owned(), expected }))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        Node(Value::Table(self.table)).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        Node(Value::Table(self.table)).deserialize_any(visitor)
    }
}

/// Describes whatever value it is given.
struct Found;

impl<'de> Visitor<'de> for Found {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, x: bool) -> Result<String, E> {
        Ok(describe(&Unexpected::Bool(x)))
    }
    fn visit_i64<E>(self, x: i64) -> Result<String, E> {
        Ok(describe(&Unexpected::Signed(x)))
    }
    fn visit_f64<E>(self, x: f64) -> Result<String, E> {
        Ok(describe(&Unexpected::Float(x)))
    }
    fn visit_str<E>(self, x: &str) -> Result<String, E> {
        Ok(describe(&Unexpected::Str(x)))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok(describe(&Unexpected::Seq))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok(describe(&Unexpected::Map))
    }
}

/// The entries of a table; a problem with a value is told under its key.
struct Entries {
    entries: toml::map::IntoIter<String, Value>,
    current: Option<(String, Value)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Problem> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let name: de::value::StringDeserializer<Problem> = key.clone().into_deserializer();
        self.current = Some((key, value));
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (key, value) = self
            .current
            .take()
            .ok_or_else(|| Problem::new(What::Other("a value without a key".to_owned())))?;
        seed.deserialize(Node(value)).map_err(|problem| problem.under(&key))
    }
}
