//! Operations as methods of [`Tensor`](crate::Tensor).

mod activation;
mod attention;
mod conv;
mod create;
mod einsum;
mod elementwise;
mod fourier;
mod index;
mod linalg;
mod loss;
mod matmul;
mod norm;
mod pool;
mod reduce;
mod segment;
mod shape;
mod sort;

pub use fourier::FftNorm;
pub use linalg::{MatrixNorm, Triangular};
pub use loss::{Classes, Reduction};
pub use shape::Padding;
