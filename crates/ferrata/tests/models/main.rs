//! Language models, image classifiers, text-to-image models and CLIP: against runs of PyTorch in
//! float64, and generation.
//! `data/README.md` says where the recorded values come from.

mod behaviour;
mod clip;
mod experts;
mod image_parity;
mod images;
mod pack;
mod painting;
mod parity;
mod unet;
