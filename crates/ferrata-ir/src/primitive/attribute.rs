//! Attributes of primitives, as the text form writes and reads them.

use crate::error::{Error, Result};
use crate::literal::{Literal, Scalar};
use crate::program::Function;
use crate::{DType, Type};
use std::hash::Hash;
use std::sync::Arc;

/// One attribute value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Integer: `3`.
    Int(i64),
    /// List of integers: `[1, 2]`.
    Ints(Vec<i64>),
    /// A float: `0.5`, `-inf`. A scalar that is an integer is an `Int`.
    Scalar(Scalar),
    /// `true` or `false`.
    Bool(bool),
    /// A bare word: an element type or an enumeration value.
    Word(String),
    /// Quoted text.
    Text(String),
    /// A type: `f32[2,3]`.
    Type(Type),
    /// Several types: `(f32[2], i64[])`.
    Types(Vec<Type>),
    /// A function: `@name`.
    Function(Arc<Function>),
    /// Several functions: `(@then, @else)`.
    Functions(Vec<Arc<Function>>),
    /// A dense value, written as hexadecimal bytes.
    Literal(Arc<Literal>),
}

/// Named attributes being consumed by a primitive's constructor.
#[derive(Debug, Default)]
pub struct AttributeReader(pub Vec<(String, Attribute)>);

impl AttributeReader {
    /// Takes the attribute `name`.
    ///
    /// # Errors
    /// When it is absent or of another kind.
    pub fn take<T: AttributeValue>(&mut self, name: &str) -> Result<T> {
        let at = self.0.iter().position(|(n, _)| n == name);
        let Some(at) = at else { return Err(Error::new(format!("attribute `{name}` is missing"))) };
        let (_, value) = self.0.remove(at);
        T::from_attribute(value)
            .ok_or_else(|| Error::new(format!("attribute `{name}` has a value of the wrong kind")))
    }
}

/// A Rust type that can be an attribute.
pub trait AttributeValue: Sized {
    /// As an attribute.
    fn to_attribute(&self) -> Attribute;
    /// From an attribute of the right kind.
    fn from_attribute(a: Attribute) -> Option<Self>;
}

/// Writing and reading of all attributes of a primitive; implemented by the `attributes!` macro.
pub trait Attributes {
    /// Attributes in order.
    fn write(&self) -> Vec<(&'static str, Attribute)>;
    /// Rebuilds the primitive.
    ///
    /// # Errors
    /// When an attribute is missing or of the wrong kind.
    fn read(a: &mut AttributeReader) -> Result<Self>
    where
        Self: Sized;
}

/// Implements [`Attributes`] for a struct field by field.
macro_rules! attributes {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::primitive::Attributes for $name {
            fn write(&self) -> Vec<(&'static str, $crate::primitive::Attribute)> {
                #[allow(unused_imports)]
                use $crate::primitive::AttributeValue as _;
                vec![$((stringify!($field), self.$field.to_attribute())),*]
            }
            #[allow(unused_variables)]
            fn read(a: &mut $crate::primitive::AttributeReader) -> $crate::error::Result<Self> {
                Ok($name { $($field: a.take(stringify!($field))?),* })
            }
        }
    };
}
pub(crate) use attributes;

/// Implements [`AttributeValue`] for a field-less enum, by words.
macro_rules! attribute_words {
    ($name:ident { $($variant:ident => $word:literal),* $(,)? }) => {
        impl $name {
            /// The word in the text form.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }
        impl $crate::primitive::AttributeValue for $name {
            fn to_attribute(&self) -> $crate::primitive::Attribute {
                $crate::primitive::Attribute::Word(self.word().to_string())
            }
            fn from_attribute(a: $crate::primitive::Attribute) -> Option<Self> {
                match a {
                    $crate::primitive::Attribute::Word(w) => match w.as_str() {
                        $($word => Some($name::$variant),)*
                        _ => None,
                    },
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use attribute_words;

macro_rules! attribute_value {
    ($ty:ty, $variant:ident) => {
        impl AttributeValue for $ty {
            fn to_attribute(&self) -> Attribute {
                Attribute::$variant(self.clone())
            }
            fn from_attribute(a: Attribute) -> Option<Self> {
                match a {
                    Attribute::$variant(v) => Some(v),
                    _ => None,
                }
            }
        }
    };
}
attribute_value!(bool, Bool);
attribute_value!(Type, Type);
attribute_value!(Vec<Type>, Types);
attribute_value!(Arc<Function>, Function);
attribute_value!(Arc<Literal>, Literal);
attribute_value!(Vec<i64>, Ints);
attribute_value!(String, Text);

impl AttributeValue for Scalar {
    fn to_attribute(&self) -> Attribute {
        match self {
            Scalar::Float(_) => Attribute::Scalar(*self),
            Scalar::Int(i) => Attribute::Int(*i),
        }
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Scalar(s) => Some(s),
            Attribute::Int(i) => Some(Scalar::Int(i)),
            _ => None,
        }
    }
}

impl AttributeValue for usize {
    fn to_attribute(&self) -> Attribute {
        Attribute::Int(*self as i64)
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Int(i) => usize::try_from(i).ok(),
            _ => None,
        }
    }
}

impl AttributeValue for Vec<usize> {
    fn to_attribute(&self) -> Attribute {
        Attribute::Ints(self.iter().map(|&i| i as i64).collect())
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Ints(v) => v.into_iter().map(|i| usize::try_from(i).ok()).collect(),
            _ => None,
        }
    }
}

impl AttributeValue for Option<usize> {
    fn to_attribute(&self) -> Attribute {
        self.iter().copied().collect::<Vec<usize>>().to_attribute()
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match Vec::from_attribute(a)?[..] {
            [] => Some(None),
            [i] => Some(Some(i)),
            _ => None,
        }
    }
}

impl AttributeValue for DType {
    fn to_attribute(&self) -> Attribute {
        Attribute::Word(self.name().to_string())
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Word(w) => w.parse().ok(),
            _ => None,
        }
    }
}

impl AttributeValue for [Arc<Function>; 2] {
    fn to_attribute(&self) -> Attribute {
        Attribute::Functions(self.to_vec())
    }
    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Functions(v) => v.try_into().ok(),
            _ => None,
        }
    }
}
