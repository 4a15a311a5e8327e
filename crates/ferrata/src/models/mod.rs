//! Language models: GPT-2, Llama and Mixtral, from their files to generated tokens; image classifiers;
//! models that paint pictures.
//!
//! A [`Model`], an [`ImageModel`] or a [`FlowModel`] is a module whose parameter paths are the names in published weights, so that
//! loading and saving need no table of names.
//!
//! ```
//! use ferrata::models::{GenerateOptions, Gpt2Config, Model, ModelConfig};
//! use ferrata::{Key, Tensor, nn::Context};
//! # let config = r#"{"model_type": "gpt2", "vocab_size": 11, "n_positions": 8, "n_embd": 4,
//! #   "n_layer": 1, "n_head": 2}"#;
//! # let config = ModelConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
//! let model = Model::new(&config, &Key::new(1))?;
//! let ids = Tensor::from([[3i64, 1, 4]]);
//! assert_eq!(model.forward(&ids, &mut Context::eval()).shape(), [1, 3, 11]);
//! let options = GenerateOptions { max_new: 4, temperature: 0.0, ..GenerateOptions::default() };
//! let new: Vec<u32> = model.generate(&[3, 1, 4], &options)?.collect::<Result<_, _>>()?;
//! assert_eq!(new.len(), 4);
//! # Ok::<(), ferrata::Error>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `model.rs` | [`Model`]: forward, hidden states, loss, one step with a cache |
//! | `gpt2.rs`, `llama.rs` (and Mixtral) | the architectures |
//! | `image.rs` | [`ImageModel`]: scores of classes; its directory |
//! | `flow.rs` | [`FlowModel`]: velocities of pictures; its directory |
//! | `mmdit.rs`, `unet.rs` | the architectures |
//! | `resnet.rs`, `mobilenet.rs`, `vit.rs` | the architectures |
//! | `clip.rs` | [`Clip`]: texts and images as features that can be compared; its directory |
//! | `attention.rs` | attention with cache and dropout, which both have |
//! | `files.rs` | initial weights; Hugging Face directories |
//! | `generate.rs` | tokens one by one, with a key/value cache |
//! | `sample.rs` | the choice of a token from its scores |
//! | `run.rs` | a model evaluated on tensors of a file |

mod attention;
pub mod clip;
mod files;
mod flow;
mod generate;
pub mod gpt2;
mod image;
pub mod llama;
pub mod mmdit;
pub mod mobilenet;
mod model;
pub mod resnet;
mod run;
mod sample;
pub mod unet;
pub mod vit;

pub use clip::Clip;
pub use ferrata_formats::huggingface::{
    Architecture, ClipConfig, ClipEncoderConfig, ClipTextConfig, ClipVisionConfig, DirectoryConfig,
    ExpertsConfig, FlowConfig, FlowNetwork, Gpt2Config, ImageConfig, LlamaConfig, MmditConfig,
    MobileNetV2Config, ModelConfig, Prediction, ResNetConfig, ResNetDepth, RopeScaling,
    SpecialTokens, Stem, UNetConfig, VitConfig,
};
pub(crate) use files::{on_host, published, raw_weights};
pub use flow::{FlowModel, VelocityNetwork};
pub use generate::{GenerateOptions, Generation};
pub use gpt2::Gpt2;
pub use image::{ImageModel, Network};
pub use llama::Llama;
pub use mmdit::Mmdit;
pub use mobilenet::MobileNetV2;
pub use model::{Cache, Model, check_ids};
pub use resnet::ResNet;
pub use run::{run, run_file, run_images};
pub use unet::UNet;
pub use vit::Vit;

use crate::mesh::Rule;
use crate::nn::{Activation, CacheIndex, Routing};
use crate::tensor::Tensor;
use attention::BlockState;
use ferrata_formats::huggingface;

/// How the weights of these models are cut over the mesh axis `tensor`: a layer's first product by
/// what it makes, its last by what it takes (Shoeybi et al. 2019), vocabularies by their tokens; and
/// over the axis `expert`.
pub fn tensor_rules() -> Vec<Rule> {
    let rules: [(&str, &[&str]); 21] = [
        // GPT-2: weights are [inputs, outputs].
        ("*.c_attn.weight", &["", "tensor*3"]),
        ("*.c_attn.bias", &["tensor*3"]),
        ("*.c_fc.weight", &["", "tensor"]),
        ("*.c_fc.bias", &["tensor"]),
        ("*.c_proj.weight", &["tensor", ""]),
        ("*.wte.weight", &["tensor", ""]),
        // Llama: weights are [outputs, inputs].
        ("*.q_proj.*", &["tensor", ""]),
        ("*.k_proj.*", &["tensor", ""]),
        ("*.v_proj.*", &["tensor", ""]),
        ("*.o_proj.weight", &["", "tensor"]),
        ("*.gate_proj.weight", &["tensor", ""]),
        ("*.up_proj.weight", &["tensor", ""]),
        ("*.down_proj.weight", &["", "tensor"]),
        ("*.embed_tokens.weight", &["tensor", ""]),
        ("lm_head.weight", &["tensor", ""]),
        // Mixtral.
        ("*.experts.*.w1.weight", &["expert", "tensor", ""]),
        ("*.experts.*.w2.weight", &["expert", "", "tensor"]),
        ("*.experts.*.w3.weight", &["expert", "tensor", ""]),
        // MMDiT.
        ("*.qkv.*", &["tensor*3", ""]),
        ("*.up.*", &["tensor", ""]),
        ("*.down.weight", &["", "tensor"]),
    ];
    rules.iter().map(|(name, dims)| Rule::new(name, dims)).collect()
}

/// What a pass through the blocks starts from.
#[derive(Clone, Copy)]
struct Input<'a> {
    /// i64 `[B, T]`.
    ids: &'a Tensor,
    cache: Option<&'a Cache>,
    at: &'a CacheIndex,
    /// Whether hidden states are wanted.
    hidden: bool,
}

/// What a pass through the blocks gives.
struct Output {
    /// After the last block, before the final normalisation: `[B, T, width]`.
    last: Tensor,
    cache: Option<Cache>,
    /// After the embedding and after each block, if asked for.
    hidden: Vec<Tensor>,
    /// Of each block with experts, in training.
    routing: Vec<Routing>,
}

impl Input<'_> {
    /// One state for each of `layers` blocks.
    fn states(&self, layers: usize) -> Vec<BlockState> {
        let cached = |i: usize| self.cache.and_then(|cache| cache.layers.get(i).cloned());
        (0..layers).map(|i| BlockState { cache: cached(i), ..BlockState::default() }).collect()
    }
}

impl Output {
    fn new(first: Tensor, last: Tensor, states: Vec<BlockState>) -> Self {
        let mut hidden = vec![first];
        let (mut layers, mut routing) = (Vec::new(), Vec::new());
        for state in states {
            hidden.extend(state.output);
            layers.extend(state.cache);
            routing.extend(state.routing);
        }
        let cache = (!layers.is_empty()).then_some(Cache { layers });
        Output { last, cache, hidden, routing }
    }

    fn failed(error: Tensor) -> Self {
        Output { last: error, cache: None, hidden: Vec::new(), routing: Vec::new() }
    }
}

fn activation(name: huggingface::Activation) -> Activation {
    match name {
        huggingface::Activation::Gelu => Activation::Gelu,
        huggingface::Activation::GeluTanh => Activation::GeluTanh,
        huggingface::Activation::QuickGelu => Activation::QuickGelu,
        huggingface::Activation::Relu => Activation::Relu,
        huggingface::Activation::Silu => Activation::Silu,
        huggingface::Activation::Tanh => Activation::Tanh,
    }
}
