//! `config.json` of CLIP (`model_type` = `clip`), as transformers writes it. What is missing has
//! the value that transformers takes.

use std::path::Path;

use ferrata_ir::DType;
use serde_json::{Map, Value, json};

use super::config::{Activation, dtype_name, indivisible, read_dtype};
use super::directory::DirectoryConfig;
use super::fields::{Fields, object};
use crate::{Error, Result};

/// The configuration of CLIP. Field names are those of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// `text_config`
    pub text: ClipTextConfig,
    /// `vision_config`
    pub vision: ClipVisionConfig,
    /// Width of the features of texts and images.
    pub projection_dim: usize,
    /// Logarithm of the initial factor of scores.
    pub logit_scale_init_value: f64,
    /// The dtype that the weights are stored in.
    pub dtype: DType,
}

/// The encoder of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// The layers.
    pub encoder: ClipEncoderConfig,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// The token that ends a text, whose state becomes the features. 2 stands for the token with
    /// the largest id of a text, as it does in files from before 2023.
    pub eos_token_id: u32,
}

/// The encoder of images.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// The layers.
    pub encoder: ClipEncoderConfig,
    /// Channels of an image.
    pub num_channels: usize,
    /// Height and width of an image in pixels; divisible by `patch_size`.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
}

/// The layers of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipEncoderConfig {
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
}

impl DirectoryConfig for ClipConfig {
    fn from_json(text: &[u8], path: &Path) -> Result<Option<ClipConfig>> {
        let map = object(text, path)?;
        let fields = Fields { path, map: &map };
        if fields.text("model_type")? != Some("clip") {
            return Ok(None);
        }
        let empty = Map::new();
        let part = |key| -> Result<Fields<'_>> {
            Ok(Fields { path, map: fields.object(key)?.unwrap_or(&empty) })
        };
        let config = ClipConfig {
            text: ClipTextConfig::read(&part("text_config")?)?,
            vision: ClipVisionConfig::read(&part("vision_config")?)?,
            projection_dim: fields.optional_size("projection_dim")?.unwrap_or(512),
            logit_scale_init_value: fields.non_negative("logit_scale_init_value", 2.6592)?,
            dtype: read_dtype(&fields)?,
        };
        config.validate(path)?;
        Ok(Some(config))
    }

    fn to_json(&self) -> String {
        let value = json!({
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "text_config": self.text.to_value(),
            "vision_config": self.vision.to_value(),
            "projection_dim": self.projection_dim,
            "logit_scale_init_value": self.logit_scale_init_value,
            "dtype": dtype_name(self.dtype),
        });
        format!("{value:#}\n")
    }

    fn layers(&self) -> usize {
        let of = |encoder: &ClipEncoderConfig| encoder.num_hidden_layers;
        of(&self.text.encoder).max(of(&self.vision.encoder))
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let vision = &self.vision;
        let problem =
            (self.text.encoder.problem()).or_else(|| vision.encoder.problem()).or_else(|| {
                indivisible("patch_size", vision.patch_size, "image_size", vision.image_size)
            });
        problem.map_or(Ok(()), |what| Err(Error::config(path, what)))
    }
}

impl ClipTextConfig {
    fn read(fields: &Fields<'_>) -> Result<ClipTextConfig> {
        Ok(ClipTextConfig {
            encoder: ClipEncoderConfig::read(fields, [512, 2048, 12, 8])?,
            vocab_size: fields.optional_size("vocab_size")?.unwrap_or(49_408),
            max_position_embeddings: fields.optional_size("max_position_embeddings")?.unwrap_or(77),
            eos_token_id: fields.token_ids("eos_token_id")?.first().copied().unwrap_or(49_407),
        })
    }

    fn to_value(&self) -> Value {
        let mut map = self.encoder.to_map();
        map.insert("model_type".into(), json!("clip_text_model"));
        map.insert("vocab_size".into(), json!(self.vocab_size));
        map.insert("max_position_embeddings".into(), json!(self.max_position_embeddings));
        map.insert("eos_token_id".into(), json!(self.eos_token_id));
        map.into()
    }
}

impl ClipVisionConfig {
    fn read(fields: &Fields<'_>) -> Result<ClipVisionConfig> {
        Ok(ClipVisionConfig {
            encoder: ClipEncoderConfig::read(fields, [768, 3072, 12, 12])?,
            num_channels: fields.optional_size("num_channels")?.unwrap_or(3),
            image_size: fields.optional_size("image_size")?.unwrap_or(224),
            patch_size: fields.optional_size("patch_size")?.unwrap_or(32),
        })
    }

    fn to_value(&self) -> Value {
        let mut map = self.encoder.to_map();
        map.insert("model_type".into(), json!("clip_vision_model"));
        map.insert("num_channels".into(), json!(self.num_channels));
        map.insert("image_size".into(), json!(self.image_size));
        map.insert("patch_size".into(), json!(self.patch_size));
        map.into()
    }
}

impl ClipEncoderConfig {
    /// `defaults`: both widths, layers, heads.
    fn read(fields: &Fields<'_>, defaults: [usize; 4]) -> Result<ClipEncoderConfig> {
        let size = |key, i: usize| Ok(fields.optional_size(key)?.unwrap_or(defaults[i]));
        Ok(ClipEncoderConfig {
            hidden_size: size("hidden_size", 0)?,
            intermediate_size: size("intermediate_size", 1)?,
            num_hidden_layers: size("num_hidden_layers", 2)?,
            num_attention_heads: size("num_attention_heads", 3)?,
            hidden_act: Activation::read(fields, "hidden_act", Activation::QuickGelu)?,
            layer_norm_eps: fields.non_negative("layer_norm_eps", 1e-5)?,
            attention_dropout: fields.probability("attention_dropout", 0.0)?,
        })
    }

    fn to_map(&self) -> Map<String, Value> {
        let value = [
            ("hidden_size", json!(self.hidden_size)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("hidden_act", json!(self.hidden_act.name())),
            ("layer_norm_eps", json!(self.layer_norm_eps)),
            ("attention_dropout", json!(self.attention_dropout)),
        ];
        value.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn problem(&self) -> Option<String> {
        let heads = self.num_attention_heads;
        indivisible("num_attention_heads", heads, "hidden_size", self.hidden_size)
    }
}
