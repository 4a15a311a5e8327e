//! Language models, image classifiers and text-to-image models: against runs of PyTorch in float64, and generation.
//! `data/README.md` says where the recorded values come from.

mod behaviour;
mod image_parity;
mod images;
mod pack;
mod painting;
mod parity;
