//! Enumerations whose values have words, as configurations, plan files and commands write them.

/// Implements `Display` and `FromStr` of an enumeration without fields by a word for each value.
/// Other words are errors that say what the word is none of, and which there are.
#[macro_export]
macro_rules! words {
    ($ty:ident, $what:literal: $($variant:ident => $word:literal),*) => {
        impl ::std::fmt::Display for $ty {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(match self { $($ty::$variant => $word),* })
            }
        }

        impl ::std::str::FromStr for $ty {
            type Err = $crate::Error;

            fn from_str(word: &str) -> $crate::Result<Self> {
                match word {
                    $($word => Ok($ty::$variant),)*
                    _ => Err($crate::Error::new(format!("`{word}` is no {}", $what))
                        .help(format!("give one of {}", [$($word),*].join(", ")))),
                }
            }
        }
    };
}
