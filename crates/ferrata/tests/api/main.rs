//! The public API from outside.

mod bench;
mod compiled;
mod errors;
mod lazy;
mod modules;
mod profile;
mod transforms;

use ferrata::{DType, Key, Tensor};

/// Reproducible normal numbers.
pub fn normal(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, DType::F64, &Key::new(seed))
}

/// Largest distance of elements.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    (a - b).abs().max(..).cast(DType::F64).item().unwrap()
}
