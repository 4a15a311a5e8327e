//! Hugging Face model directories: `config.json`, weights in safetensors, tokenizer files.

mod clip;
mod config;
mod directory;
mod fields;
mod flow;
mod image;
mod layout;
#[cfg(test)]
mod tests;
mod unet;

pub use clip::{ClipConfig, ClipEncoderConfig, ClipTextConfig, ClipVisionConfig};
pub use config::{
    Activation, ExpertsConfig, Gpt2Config, LlamaConfig, ModelConfig, RopeScaling, SpecialTokens,
};
pub use directory::{
    ClipDirectory, DirectoryConfig, FlowDirectory, ImageDirectory, ModelDirectory, WeightDirectory,
    write_directory,
};
pub use flow::{FlowConfig, FlowNetwork, MmditConfig, Prediction};
pub use image::{
    Architecture, ImageConfig, MobileNetV2Config, ResNetConfig, ResNetDepth, Stem, VitConfig,
};
pub use unet::UNetConfig;
