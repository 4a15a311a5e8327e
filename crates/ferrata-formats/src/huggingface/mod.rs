//! Hugging Face model directories: `config.json`, weights in safetensors, tokenizer files.

mod config;
mod directory;
mod fields;
mod image;
mod layout;
#[cfg(test)]
mod tests;

pub use config::{Activation, Gpt2Config, LlamaConfig, ModelConfig, RopeScaling, SpecialTokens};
pub use directory::{ImageDirectory, ModelDirectory, write_directory, write_image_directory};
pub use image::{
    Architecture, ImageConfig, MobileNetV2Config, ResNetConfig, ResNetDepth, Stem, VitConfig,
};
