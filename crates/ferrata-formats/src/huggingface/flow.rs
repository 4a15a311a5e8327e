//! `config.json` of models that paint pictures from text by flow matching. The form is ours: no
//! published file describes these networks; sizes have the names that transformers gives them.

use std::path::Path;

use ferrata_ir::DType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{dtype_name, indivisible, read_dtype};
use super::directory::DirectoryConfig;
use super::fields::{Fields, object};
use super::unet::UNetConfig;
use crate::{Error, Result};

/// The configuration of a text-to-image model.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// The network.
    pub network: FlowNetwork,
    /// What the network tells.
    pub prediction: Prediction,
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

/// What a network tells of a point on the way from noise to a picture. `prediction_type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prediction {
    /// The velocity there, noise and all. `velocity`
    #[default]
    Velocity,
    /// The picture where the way ends, from which the velocity follows. `picture`
    Picture,
}

/// The networks of text-to-image models.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowNetwork {
    /// Transformer of patches and text. `mmdit`
    Mmdit(MmditConfig),
    /// Convolutions with attention to the text. `unet`
    UNet(UNetConfig),
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
        let map = object(text, path)?;
        let fields = Fields { path, map: &map };
        let Some(network) = FlowNetwork::read(&fields)? else { return Ok(None) };
        let config = FlowConfig {
            network,
            prediction: Prediction::read(&fields)?,
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
        let mut map = match &self.network {
            FlowNetwork::Mmdit(network) => network.to_map(),
            FlowNetwork::UNet(network) => network.to_map(),
        };
        let beside = [
            ("model_type", json!(self.kind())),
            ("prediction_type", json!(self.prediction)),
            ("image_size", json!(self.image_size)),
            ("num_channels", json!(self.channels)),
            ("vocab_size", json!(self.vocab_size)),
            ("max_position_embeddings", json!(self.text_length)),
            ("dtype", json!(dtype_name(self.dtype))),
        ];
        map.extend(beside.map(|(key, value)| (key.to_owned(), value)));
        format!("{:#}\n", Value::Object(map))
    }

    fn layers(&self) -> usize {
        match &self.network {
            FlowNetwork::Mmdit(network) => network.num_hidden_layers,
            FlowNetwork::UNet(network) => network.layers(),
        }
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let problem = match &self.network {
            FlowNetwork::Mmdit(network) => network.problem(self.image_size),
            FlowNetwork::UNet(network) => network.problem(self.image_size),
        };
        problem.map_or(Ok(()), |what| Err(Error::config(path, what)))
    }
}

impl FlowConfig {
    /// The name of the network: `mmdit` or `unet`.
    pub fn kind(&self) -> &'static str {
        match &self.network {
            FlowNetwork::Mmdit(_) => MMDIT,
            FlowNetwork::UNet(_) => UNET,
        }
    }
}

const MMDIT: &str = "mmdit";
const UNET: &str = "unet";

impl Prediction {
    /// The velocity if nothing is said.
    fn read(fields: &Fields<'_>) -> Result<Prediction> {
        const KEY: &str = "prediction_type";
        let Some(value) = fields.get(KEY) else { return Ok(Prediction::default()) };
        Prediction::deserialize(value).map_err(|_| fields.unsupported(KEY, "velocity or picture"))
    }
}

impl FlowNetwork {
    /// `None` if it is the configuration of another kind of model.
    fn read(fields: &Fields<'_>) -> Result<Option<FlowNetwork>> {
        Ok(match fields.text("model_type")? {
            Some(MMDIT) => Some(FlowNetwork::Mmdit(MmditConfig::read(fields)?)),
            Some(UNET) => Some(FlowNetwork::UNet(UNetConfig::read(fields)?)),
            _ => None,
        })
    }
}

impl MmditConfig {
    fn read(fields: &Fields<'_>) -> Result<MmditConfig> {
        Ok(MmditConfig {
            patch_size: fields.size(&["patch_size"])?,
            hidden_size: fields.size(&["hidden_size"])?,
            num_hidden_layers: fields.size(&["num_hidden_layers"])?,
            num_attention_heads: fields.size(&["num_attention_heads"])?,
            intermediate_size: fields.size(&["intermediate_size"])?,
        })
    }

    fn to_map(&self) -> Map<String, Value> {
        let values = [
            ("patch_size", self.patch_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
        ];
        values.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
    }

    /// What does not fit together, for pictures of this height and width.
    fn problem(&self, image_size: usize) -> Option<String> {
        let (heads, width) = (self.num_attention_heads, self.hidden_size);
        indivisible("num_attention_heads", heads, "hidden_size", width)
            .or_else(|| indivisible("patch_size", self.patch_size, "image_size", image_size))
            .or_else(|| {
                // Halves of positions are of rows and of columns, each in sines and cosines.
                (!width.is_multiple_of(4))
                    .then(|| format!("`hidden_size` = {width} is no multiple of 4; choose one"))
            })
    }
}
