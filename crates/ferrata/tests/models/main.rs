//! Language models against runs of PyTorch in float64, and generation. `data/README.md` says where
//! the recorded values come from.

mod behaviour;
mod pack;
mod parity;
