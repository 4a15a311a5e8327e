//! Operations as methods of [`Tensor`](crate::Tensor).

mod create;
mod elementwise;
mod matmul;
mod reduce;
mod shape;

pub use shape::Padding;
