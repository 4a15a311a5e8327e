//! The `ferrata` program.
fn main() {}
