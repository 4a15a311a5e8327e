//! Hugging Face model directories: `config.json`, weights in safetensors, tokenizer files.

mod config;
mod directory;
mod fields;
mod layout;
#[cfg(test)]
mod tests;

pub use config::{Activation, Gpt2Config, LlamaConfig, ModelConfig, RopeScaling, SpecialTokens};
pub use directory::{ModelDirectory, write_directory};
