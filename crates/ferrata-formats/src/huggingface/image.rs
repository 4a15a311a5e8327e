//! `config.json` of image classifiers.
//!
//! ViT has the file that transformers writes (`model_type` = `vit`). The models of torchvision have
//! none; theirs is the one that timm puts beside the same weights: `architecture` (`resnet18`,
//! `resnet34`, `resnet50`, `mobilenet_v2`) and `num_classes`, and of our own `stem` and `width`.

use std::collections::BTreeMap;
use std::path::Path;

use ferrata_ir::DType;
use serde_json::{Map, Value, json};

use super::config::{Activation, dtype_name, indivisible, read_dtype};
use super::directory::DirectoryConfig;
use super::fields::{Fields, object};
use crate::{Error, Result};

/// The configuration of an image classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig {
    /// The network.
    pub architecture: Architecture,
    /// Number of classes.
    pub classes: usize,
    /// What the classes are called, one name each; empty if nobody says.
    pub labels: Vec<String>,
    /// Channels of an image.
    pub channels: usize,
    /// The dtype that the weights are stored in.
    pub dtype: DType,
}

/// The networks that classify images.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// Residual network.
    ResNet(ResNetConfig),
    /// Inverted residual blocks of depthwise convolutions.
    MobileNetV2(MobileNetV2Config),
    /// Vision transformer.
    Vit(VitConfig),
}

/// ResNet.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Which one.
    pub depth: ResNetDepth,
    /// Channels behind the first convolution: 64 in published models.
    pub width: usize,
    /// What images it begins for.
    pub stem: Stem,
}

/// MobileNetV2.
#[derive(Clone, Debug, PartialEq)]
pub struct MobileNetV2Config {
    /// What images it begins for.
    pub stem: Stem,
    /// Dropout before the classifier.
    pub dropout: f64,
}

/// The published depths of ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResNetDepth {
    /// `resnet18`
    D18,
    /// `resnet34`
    D34,
    /// `resnet50`
    D50,
}

/// How a network of convolutions begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stem {
    /// For images of some hundred pixels: the size is soon divided by four. `imagenet`
    #[default]
    Imagenet,
    /// For images of some dozen pixels: it stays. `cifar`
    Cifar,
}

impl ResNetDepth {
    const ALL: [ResNetDepth; 3] = [ResNetDepth::D18, ResNetDepth::D34, ResNetDepth::D50];

    /// `resnet18`, `resnet34` or `resnet50`.
    pub fn name(self) -> &'static str {
        match self {
            ResNetDepth::D18 => "resnet18",
            ResNetDepth::D34 => "resnet34",
            ResNetDepth::D50 => "resnet50",
        }
    }

    /// Number of blocks at each of the four sizes.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            ResNetDepth::D18 => [2, 2, 2, 2],
            ResNetDepth::D34 | ResNetDepth::D50 => [3, 4, 6, 3],
        }
    }

    /// Whether a block is narrow inside: three convolutions rather than two.
    pub fn is_bottleneck(self) -> bool {
        self == ResNetDepth::D50
    }
}

impl Stem {
    /// `imagenet` or `cifar`.
    pub fn name(self) -> &'static str {
        match self {
            Stem::Imagenet => "imagenet",
            Stem::Cifar => "cifar",
        }
    }

    fn read(fields: &Fields<'_>) -> Result<Stem> {
        match fields.text("stem")? {
            None | Some("imagenet") => Ok(Stem::Imagenet),
            Some("cifar") => Ok(Stem::Cifar),
            Some(_) => Err(fields.unsupported("stem", "imagenet or cifar")),
        }
    }
}

/// ViT: patches as tokens, pre-norm encoder, classes from the first token. Field names are those of
/// `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Height and width of an image in pixels; divisible by `patch_size`.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Dropout after the embedding and before each residual sum.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

impl DirectoryConfig for ImageConfig {
    fn from_json(text: &[u8], path: &Path) -> Result<Option<ImageConfig>> {
        let map = object(text, path)?;
        let fields = Fields { path, map: &map };
        let Some(architecture) = Architecture::read(&fields)? else { return Ok(None) };
        let names = fields.object("id2label")?;
        let labels = names.map(|names| labels(&fields, names)).transpose()?.unwrap_or_default();
        let classes = match labels.len() {
            0 => fields.size(&["num_labels", "num_classes"])?,
            classes => classes,
        };
        let channels = match fields.optional_size("num_channels")? {
            Some(channels) => channels,
            None => fields.optional_size("in_chans")?.unwrap_or(3),
        };
        let config =
            ImageConfig { architecture, classes, labels, channels, dtype: read_dtype(&fields)? };
        config.validate(path)?;
        Ok(Some(config))
    }

    fn to_json(&self) -> String {
        let mut value = match &self.architecture {
            Architecture::ResNet(config) => json!({
                "architecture": config.depth.name(),
                "width": config.width,
                "stem": config.stem.name(),
            }),
            Architecture::MobileNetV2(config) => json!({
                "architecture": MOBILENET,
                "stem": config.stem.name(),
                "dropout": config.dropout,
            }),
            Architecture::Vit(config) => config.to_value(),
        };
        if let Value::Object(map) = &mut value {
            if self.labels.is_empty() {
                map.insert("num_labels".into(), json!(self.classes));
            } else {
                let names = self.labels.iter().enumerate();
                let by_id: Map<String, Value> =
                    names.clone().map(|(i, name)| (i.to_string(), json!(name))).collect();
                let by_name: Map<String, Value> =
                    names.map(|(i, name)| (name.clone(), json!(i))).collect();
                map.insert("id2label".into(), by_id.into());
                map.insert("label2id".into(), by_name.into());
            }
            map.insert("num_channels".into(), json!(self.channels));
            map.insert("dtype".into(), json!(dtype_name(self.dtype)));
        }
        format!("{value:#}\n")
    }

    fn layers(&self) -> usize {
        match &self.architecture {
            Architecture::ResNet(config) => config.depth.blocks().iter().sum(),
            Architecture::MobileNetV2(_) => 17,
            Architecture::Vit(config) => config.num_hidden_layers,
        }
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let names = self.labels.len();
        let problem = if names > 0 && names != self.classes {
            Some(format!("{names} names of classes for {} classes", self.classes))
        } else {
            match &self.architecture {
                Architecture::ResNet(_) | Architecture::MobileNetV2(_) => None,
                Architecture::Vit(config) => config.problem(),
            }
        };
        problem.map_or(Ok(()), |what| Err(Error::config(path, what)))
    }
}

impl ImageConfig {
    /// The name of the architecture: `resnet18`, `vit` …
    pub fn kind(&self) -> &'static str {
        match &self.architecture {
            Architecture::ResNet(config) => config.depth.name(),
            Architecture::MobileNetV2(_) => MOBILENET,
            Architecture::Vit(_) => "vit",
        }
    }

    /// What class `i` is called: its name, or its number.
    pub fn label(&self, i: usize) -> String {
        self.labels.get(i).cloned().unwrap_or_else(|| i.to_string())
    }
}

const MOBILENET: &str = "mobilenet_v2";

impl Architecture {
    /// `None` if it is not the configuration of an image classifier.
    fn read(fields: &Fields<'_>) -> Result<Option<Architecture>> {
        if fields.text("model_type")? == Some("vit") {
            return Ok(Some(Architecture::Vit(VitConfig::read(fields)?)));
        }
        let Some(name) = fields.text("architecture")? else { return Ok(None) };
        if name == MOBILENET {
            let (stem, dropout) = (Stem::read(fields)?, fields.probability("dropout", 0.2)?);
            return Ok(Some(Architecture::MobileNetV2(MobileNetV2Config { stem, dropout })));
        }
        let Some(depth) = ResNetDepth::ALL.into_iter().find(|depth| depth.name() == name) else {
            let known = "resnet18, resnet34, resnet50 or mobilenet_v2";
            return Err(fields.unsupported("architecture", known));
        };
        let width = fields.optional_size("width")?.unwrap_or(64);
        Ok(Some(Architecture::ResNet(ResNetConfig { depth, width, stem: Stem::read(fields)? })))
    }
}

/// The names of `id2label` in the order of their ids, which must be 0, 1, 2, …
fn labels(fields: &Fields<'_>, names: &Map<String, Value>) -> Result<Vec<String>> {
    let wrong = || fields.unsupported("id2label", "a name for each id from 0 on");
    let mut sorted = BTreeMap::new();
    for (id, name) in names {
        let id: usize = id.parse().map_err(|_| wrong())?;
        sorted.insert(id, name.as_str().ok_or_else(wrong)?.to_owned());
    }
    match sorted.keys().copied().eq(0..names.len()) {
        true => Ok(sorted.into_values().collect()),
        false => Err(wrong()),
    }
}

impl VitConfig {
    fn read(fields: &Fields<'_>) -> Result<VitConfig> {
        Ok(VitConfig {
            image_size: fields.optional_size("image_size")?.unwrap_or(224),
            patch_size: fields.optional_size("patch_size")?.unwrap_or(16),
            hidden_size: fields.size(&["hidden_size"])?,
            num_hidden_layers: fields.size(&["num_hidden_layers"])?,
            num_attention_heads: fields.size(&["num_attention_heads"])?,
            intermediate_size: fields.size(&["intermediate_size"])?,
            hidden_act: Activation::read(fields, "hidden_act", Activation::Gelu)?,
            qkv_bias: fields.flag("qkv_bias", true)?,
            layer_norm_eps: fields.non_negative("layer_norm_eps", 1e-12)?,
            hidden_dropout_prob: fields.probability("hidden_dropout_prob", 0.0)?,
            attention_probs_dropout_prob: fields
                .probability("attention_probs_dropout_prob", 0.0)?,
            initializer_range: fields.non_negative("initializer_range", 0.02)?,
        })
    }

    fn problem(&self) -> Option<String> {
        let heads = self.num_attention_heads;
        indivisible("num_attention_heads", heads, "hidden_size", self.hidden_size)
            .or_else(|| indivisible("patch_size", self.patch_size, "image_size", self.image_size))
    }

    fn to_value(&self) -> Value {
        json!({
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act.name(),
            "qkv_bias": self.qkv_bias,
            "layer_norm_eps": self.layer_norm_eps,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "initializer_range": self.initializer_range,
        })
    }
}
