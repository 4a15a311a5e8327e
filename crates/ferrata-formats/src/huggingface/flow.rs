//! `config.json` of models that paint pictures from text by flow matching. The form is ours: no
//! published file describes these networks; sizes have the names that transformers gives them.

use std::path::Path;

use ferrata_ir::DType;
use serde_json::{Map, Value, json};

use super::config::{dtype_name, indivisible, read_dtype};
use super::directory::DirectoryConfig;
use super::fields::Fields;
use crate::{Error, Result};

/// The configuration of a text-to-image model.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// The network.
    pub network: FlowNetwork,
    /// Height and width of a picture in pixels.
    pub image_size: usize,
    /// Channels of a picture.
    pub channels: usize,
    /// Number of token ids of captions.
    pub vocab_size: usize,
    /// Tokens of a caption: shorter ones are padded, longer ones cut.
    pub text_length: usize,
    /// The dtype that the weights are stored in.
    pub dtype: DType,
}

/// The networks that tell the velocity of a flow.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowNetwork {
    /// Transformer of patches and text. `mmdit`
    Mmdit(MmditConfig),
}

/// Sizes of an [MMDiT](https://arxiv.org/abs/2403.03206).
#[derive(Clone, Debug, PartialEq)]
pub struct MmditConfig {
    /// Height and width of a patch in pixels; divides the size of a picture.
    pub patch_size: usize,
    /// Width of the hidden state of both streams.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the MLPs.
    pub intermediate_size: usize,
}

impl DirectoryConfig for FlowConfig {
    fn from_json(text: &[u8], path: &Path) -> Result<Option<FlowConfig>> {
        let map: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|e| Error::damaged(path, format!("not a JSON object ({e})")))?;
        let fields = Fields { path, map: &map };
        let Some(network) = FlowNetwork::read(&fields)? else { return Ok(None) };
        let config = FlowConfig {
            network,
            image_size: fields.size(&["image_size"])?,
            channels: fields.optional_size("num_channels")?.unwrap_or(3),
            vocab_size: fields.size(&["vocab_size"])?,
            text_length: fields.size(&["max_position_embeddings"])?,
            dtype: read_dtype(&fields)?,
        };
        config.validate(path)?;
        Ok(Some(config))
    }

    fn to_json(&self) -> String {
        let FlowNetwork::Mmdit(network) = &self.network;
        let value = json!({
            "model_type": self.kind(),
            "image_size": self.image_size,
            "num_channels": self.channels,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.text_length,
            "patch_size": network.patch_size,
            "hidden_size": network.hidden_size,
            "num_hidden_layers": network.num_hidden_layers,
            "num_attention_heads": network.num_attention_heads,
            "intermediate_size": network.intermediate_size,
            "dtype": dtype_name(self.dtype),
        });
        format!("{value:#}\n")
    }

    fn layers(&self) -> usize {
        let FlowNetwork::Mmdit(network) = &self.network;
        network.num_hidden_layers
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let FlowNetwork::Mmdit(network) = &self.network;
        let heads = network.num_attention_heads;
        let problem = indivisible("num_attention_heads", heads, "hidden_size", network.hidden_size)
            .or_else(|| {
                indivisible("patch_size", network.patch_size, "image_size", self.image_size)
            })
            .or_else(|| {
                // Halves of positions are of rows and of columns, each in sines and cosines.
                let width = network.hidden_size;
                (!width.is_multiple_of(4))
                    .then(|| format!("`hidden_size` = {width} is no multiple of 4; choose one"))
            });
        problem.map_or(Ok(()), |what| Err(Error::config(path, what)))
    }
}

impl FlowConfig {
    /// The name of the network: `mmdit`.
    pub fn kind(&self) -> &'static str {
        match &self.network {
            FlowNetwork::Mmdit(_) => MMDIT,
        }
    }
}

const MMDIT: &str = "mmdit";

impl FlowNetwork {
    /// `None` if it is the configuration of another kind of model.
    fn read(fields: &Fields<'_>) -> Result<Option<FlowNetwork>> {
        if fields.text("model_type")? != Some(MMDIT) {
            return Ok(None);
        }
        Ok(Some(FlowNetwork::Mmdit(MmditConfig {
            patch_size: fields.size(&["patch_size"])?,
            hidden_size: fields.size(&["hidden_size"])?,
            num_hidden_layers: fields.size(&["num_hidden_layers"])?,
            num_attention_heads: fields.size(&["num_attention_heads"])?,
            intermediate_size: fields.size(&["intermediate_size"])?,
        })))
    }
}
