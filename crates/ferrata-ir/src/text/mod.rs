//! The text form of programs: `Display` of a [`Function`](crate::Function) prints it with all it
//! calls, callees first; [`parse`] reads it back as an equal program.
//!
//! ```
//! let text = r#"
//! func @square(%0: f32[3]) -> (f32[3]) {
//!   %1 = mul(%0, %0) : f32[3] scope "layers.0" at "model.rs":12
//!   return %1
//! }
//!
//! func @main(%0: f32[3]) -> (f32[]) {
//!   %1 = call(%0) {function = @square, recompute = false} : f32[3]
//!   %2 = reduce(%1) {kind = sum, dims = [0]} : f32[]
//!   return %2
//! }
//! "#;
//! let program = ferrata_ir::text::parse(text).unwrap();
//! assert_eq!(program.to_string().trim(), text.trim());
//! ```
//!
//! A name may be quoted, and may be followed by `#2` where several functions share it. A composite
//! has `composite "name" {attributes}` after its parameters' arrow, and a function with its own
//! derivative `derivative(@forward, @backward)`.

mod lexer;
mod parse;
mod print;

pub use parse::parse;
