//! Golden data made with PyTorch in float64: operators with their gradients, and optimisers.
//!
//! `data/ops` and `data/optim` are what the tests read; `FERRATA_PARITY` names another folder with
//! the same two to read instead, and `FERRATA_PARITY_DTYPE` restricts the dtype to `f32` or `f64`.
//! `data/numerics` is written by `generate/numerics.py`.

mod ops;
mod optim;
mod pack;
