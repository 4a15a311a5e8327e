//! `[model]`: which architecture, of which sizes.

use std::path::Path;

use ferrata_formats::huggingface::{
    Activation, Architecture, DirectoryConfig, ExpertsConfig, FlowConfig, FlowNetwork, Gpt2Config,
    ImageConfig, LlamaConfig, MmditConfig, MobileNetV2Config, ModelConfig, Prediction,
    ResNetConfig, ResNetDepth, RopeScaling, SpecialTokens, Stem, UNetConfig, VitConfig,
};
use ferrata_ir::DType;
use serde::{Deserialize, Serialize};

use super::check::{LARGEST, in_range, size};
use crate::train::{Error, Result};

/// The kinds of model that can be trained from scratch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Pre-norm decoder with learned positions.
    #[default]
    Gpt2,
    /// Decoder with rotary positions, RMS normalisation and a gated MLP, or with experts as Mixtral.
    Llama,
    /// Image classifier: residual blocks of convolutions.
    Resnet18,
    /// The same, deeper.
    Resnet34,
    /// The same with bottlenecks.
    Resnet50,
    /// Image classifier: inverted residual blocks of depthwise convolutions.
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
    /// Image classifier: an encoder of patches.
    Vit,
    /// Text-to-image model: a transformer of patches and text.
    Mmdit,
    /// Text-to-image model: convolutions with attention to the text.
    Unet,
}

/// How a network of convolutions begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemKind {
    /// For images of some hundred pixels: the size is soon divided by four.
    Imagenet,
    /// For images of some dozen pixels: it stays.
    Cifar,
}

/// `[model]`. Keys that the kind has no use for are errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The architecture.
    pub kind: ModelKind,
    /// Number of blocks; 4 by default. Residual blocks at each resolution (U-Net); 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Attention heads per block; divides `dim`. 4 by default. Those of a U-Net's pictures are as
    /// wide as those of its captions, so their number grows with the channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Key and value heads (Llama); divides `heads`. All heads by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of the hidden state; 128 by default. That of the captions (U-Net).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Width inside the MLP: `4 dim` by default (GPT-2, ViT, MMDiT), `8/3 dim` rounded up to a multiple
    /// of 32 (Llama).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// Longest sequence in tokens; also the length of a training sequence. 64 by default (language
    /// models). Tokens of a caption (MMDiT, U-Net); those of the longest by default, at most 77.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Dropout probability after the embedding, in attention and before each residual sum (GPT-2,
    /// ViT); none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Whether the output matrix is the token embedding (GPT-2: yes, Llama: no by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tie: Option<bool>,
    /// Base of the rotary wavelengths (Llama only; 10000 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Experts that stand for the MLP of each block (Llama only); none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<usize>,
    /// How many of the experts a token reaches; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts_per_token: Option<usize>,
    /// How many times its even share of the tokens an expert takes in training, at most; by default
    /// it takes all that choose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Weight of the balance of experts in the training loss; 0.01 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<f64>,
    /// Number of token ids, at least that of the tokenizer, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab: Option<usize>,
    /// Number of classes (image classifiers); that of the data by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Height and width of a patch in pixels (ViT, MMDiT); 4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// How it begins (ResNet, MobileNetV2): by default `cifar` for images of up to 64 pixels, else
    /// `imagenet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemKind>,
    /// Channels behind the first convolution (ResNet); 64 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Channels at each resolution, of which each is half of the one before (U-Net); 64, 128 and
    /// 192 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<usize>>,
    /// Heights in pixels at which pictures attend to themselves and to the text (U-Net); by default
    /// those of up to 16 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<Vec<usize>>,
}

/// As [`LARGEST`], for layers, of which each takes some memory before anything is computed.
const MOST_LAYERS: usize = 1 << 10;
/// As [`LARGEST`], for experts, of which each has weights of its own.
const MOST_EXPERTS: usize = 1 << 12;
/// Models beyond this are mistakes, for any number of machines.
const MOST_PARAMETERS: u128 = 1 << 50;
/// As [`LARGEST`], for the widths of image classifiers.
const WIDEST: usize = 1 << 16;
/// Height and width in pixels up to which images are small.
const SMALL: usize = 64;

impl ModelKind {
    const ALL: [ModelKind; 9] = [
        ModelKind::Gpt2,
        ModelKind::Llama,
        ModelKind::Resnet18,
        ModelKind::Resnet34,
        ModelKind::Resnet50,
        ModelKind::MobileNetV2,
        ModelKind::Vit,
        ModelKind::Mmdit,
        ModelKind::Unet,
    ];

    /// The name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Gpt2 => "gpt2",
            ModelKind::Llama => "llama",
            ModelKind::Resnet18 => "resnet18",
            ModelKind::Resnet34 => "resnet34",
            ModelKind::Resnet50 => "resnet50",
            ModelKind::MobileNetV2 => "mobilenet_v2",
            ModelKind::Vit => "vit",
            ModelKind::Mmdit => "mmdit",
            ModelKind::Unet => "unet",
        }
    }

    /// Whether it paints images of text.
    pub fn paints(self) -> bool {
        matches!(self, ModelKind::Mmdit | ModelKind::Unet)
    }

    /// Whether it classifies or paints images; else it is a language model.
    pub fn is_image(self) -> bool {
        !matches!(self, ModelKind::Gpt2 | ModelKind::Llama)
    }

    /// The keys that have a meaning for it.
    fn keys(self) -> &'static [&'static str] {
        match self {
            ModelKind::Gpt2 => {
                &["layers", "heads", "dim", "hidden", "context", "dropout", "tie", "vocab"]
            }
            ModelKind::Llama => &[
                "layers",
                "heads",
                "kv_heads",
                "dim",
                "hidden",
                "context",
                "tie",
                "rope_theta",
                "experts",
                "experts_per_token",
                "capacity",
                "balance",
                "vocab",
            ],
            ModelKind::Resnet18 | ModelKind::Resnet34 | ModelKind::Resnet50 => {
                &["classes", "stem", "width"]
            }
            ModelKind::MobileNetV2 => &["classes", "stem"],
            ModelKind::Vit => &["layers", "heads", "dim", "hidden", "dropout", "classes", "patch"],
            ModelKind::Mmdit => &["layers", "heads", "dim", "hidden", "context", "patch"],
            ModelKind::Unet => &["layers", "heads", "dim", "context", "channels", "attention"],
        }
    }
}

impl ModelSection {
    fn layers(&self) -> usize {
        self.layers.unwrap_or(4)
    }

    fn heads(&self) -> usize {
        self.heads.unwrap_or(4)
    }

    fn dim(&self) -> usize {
        self.dim.unwrap_or(128)
    }

    fn dropout(&self) -> f64 {
        self.dropout.unwrap_or_default()
    }

    /// Length of a training sequence in tokens.
    pub fn context(&self) -> usize {
        self.context.unwrap_or(64)
    }

    /// The keys that are given, beside the kind.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("layers", self.layers.is_some()),
            ("heads", self.heads.is_some()),
            ("kv_heads", self.kv_heads.is_some()),
            ("dim", self.dim.is_some()),
            ("hidden", self.hidden.is_some()),
            ("context", self.context.is_some()),
            ("dropout", self.dropout.is_some()),
            ("tie", self.tie.is_some()),
            ("rope_theta", self.rope_theta.is_some()),
            ("experts", self.experts.is_some()),
            ("experts_per_token", self.experts_per_token.is_some()),
            ("capacity", self.capacity.is_some()),
            ("balance", self.balance.is_some()),
            ("vocab", self.vocab.is_some()),
            ("classes", self.classes.is_some()),
            ("patch", self.patch.is_some()),
            ("stem", self.stem.is_some()),
            ("width", self.width.is_some()),
            ("channels", self.channels.is_some()),
            ("attention", self.attention.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key)
    }

    pub(super) fn check(&self) -> Result<()> {
        if let Some(key) = self.given().find(|key| !self.kind.keys().contains(key)) {
            let kind = self.kind.name();
            let cause = format!("`model.{key}` has no meaning for model.kind = \"{kind}\"");
            let other = ModelKind::ALL.into_iter().find(|kind| kind.keys().contains(&key));
            let other = other.unwrap_or_default().name();
            let remedy = format!("remove it or set model.kind = \"{other}\"");
            return Err(Error::new(cause, remedy));
        }
        let widest = if self.kind.is_image() { WIDEST } else { LARGEST };
        for (key, value, largest) in [
            ("model.layers", self.layers, MOST_LAYERS),
            ("model.heads", self.heads, widest),
            ("model.dim", self.dim, widest),
            ("model.context", self.context, LARGEST),
            ("model.hidden", self.hidden, widest),
            ("model.kv_heads", self.kv_heads, LARGEST),
            ("model.experts", self.experts, MOST_EXPERTS),
            ("model.experts_per_token", self.experts_per_token, MOST_EXPERTS),
            ("model.vocab", self.vocab, LARGEST),
            ("model.classes", self.classes, WIDEST),
            ("model.patch", self.patch, WIDEST),
            ("model.width", self.width, WIDEST),
        ] {
            value.map_or(Ok(()), |value| size(key, value, largest))?;
        }
        for (key, values) in
            [("model.channels", &self.channels), ("model.attention", &self.attention)]
        {
            values.iter().flatten().try_for_each(|value| size(key, *value, WIDEST))?;
        }
        let (heads, dim) = (self.heads(), self.dim());
        if !dim.is_multiple_of(heads) {
            let remedy = match (1..=dim.min(heads)).rev().find(|&n| dim.is_multiple_of(n)) {
                Some(fitting) => format!("set model.heads to {fitting} or change model.dim"),
                None => "change one of them".to_owned(),
            };
            return Err(Error::new(
                format!("`model.heads` = {heads} does not divide `model.dim` = {dim}"),
                remedy,
            ));
        }
        in_range("model.dropout", self.dropout(), 0.0, 1.0)?;
        match self.kind {
            ModelKind::Llama => self.check_llama(),
            _ => Ok(()),
        }
    }

    fn check_llama(&self) -> Result<()> {
        let heads = self.heads();
        let kv_heads = self.kv_heads.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::new(
                format!("`model.kv_heads` = {kv_heads} does not divide `model.heads` = {heads}"),
                "choose a divisor of model.heads",
            ));
        }
        let size = self.dim() / heads;
        if !size.is_multiple_of(2) {
            return Err(Error::new(
                format!("heads of size {size} (model.dim / model.heads) cannot turn in pairs"),
                "choose model.dim and model.heads so that their quotient is even",
            ));
        }
        in_range("model.rope_theta", self.rope_theta.unwrap_or(1e4), 1.0, f64::INFINITY)?;
        self.check_experts()
    }

    fn check_experts(&self) -> Result<()> {
        let Some(experts) = self.experts else {
            let needs = |key: &&str| ["experts_per_token", "capacity", "balance"].contains(key);
            return match self.given().find(needs) {
                None => Ok(()),
                Some(key) => Err(Error::new(
                    format!("`model.{key}` has no meaning without `model.experts`"),
                    "remove it or set model.experts to their number",
                )),
            };
        };
        let per_token = self.experts_per_token();
        if per_token > experts {
            return Err(Error::new(
                format!(
                    "`model.experts_per_token` = {per_token} is more than `model.experts` = {experts}"
                ),
                "lower it or raise model.experts",
            ));
        }
        let capacity = self.capacity.unwrap_or(1.0);
        if !(capacity > 0.0 && capacity.is_finite()) {
            return Err(Error::new(
                format!("`model.capacity` is {capacity}"),
                "it has to be above 0, such as 1.25; without it no token is passed over",
            ));
        }
        in_range("model.balance", self.balance.unwrap_or_default(), 0.0, f64::INFINITY)
    }

    fn experts_per_token(&self) -> usize {
        let usual = self.experts.map_or(2, |experts| experts.min(2));
        self.experts_per_token.unwrap_or(usual)
    }

    /// The configuration of a language model as it stands in a `config.json`, for a tokenizer with
    /// `vocab` ids.
    ///
    /// # Errors
    /// If it is no language model, `model.vocab` is smaller than `vocab`, or the sizes do not fit
    /// together.
    pub fn to_model_config(&self, vocab: usize) -> Result<ModelConfig> {
        self.check()?;
        let vocab_size = self.vocab.unwrap_or(vocab);
        if vocab_size < vocab {
            return Err(Error::new(
                format!("`model.vocab` = {vocab_size} is less than the tokenizer's {vocab} tokens"),
                "remove model.vocab or raise it",
            ));
        }
        let config = match self.kind {
            ModelKind::Gpt2 => ModelConfig::Gpt2(self.gpt2(vocab_size)),
            ModelKind::Llama => ModelConfig::Llama(self.llama(vocab_size)),
            _ => {
                return Err(Error::new(
                    format!("model.kind = \"{}\" does not read text", self.kind.name()),
                    "give it images, or set model.kind to gpt2 or llama",
                ));
            }
        };
        config.validate(Path::new("[model]"))?;
        let parameters = config.parameters();
        if parameters > MOST_PARAMETERS {
            return Err(Error::new(
                format!("the model would have {parameters} parameters"),
                "make model.dim, model.layers or model.hidden smaller",
            ));
        }
        Ok(config)
    }

    /// The configuration of an image classifier as it stands in a `config.json`, for square images
    /// of `side` pixels with three channels and classes of these names.
    ///
    /// # Errors
    /// If it is no image classifier, `model.classes` is not their number, or the sizes do not fit
    /// together.
    pub fn to_image_config(&self, labels: &[String], side: usize) -> Result<ImageConfig> {
        self.check()?;
        let stem = match self.stem {
            Some(StemKind::Cifar) => Stem::Cifar,
            Some(StemKind::Imagenet) => Stem::Imagenet,
            None if side <= SMALL => Stem::Cifar,
            None => Stem::Imagenet,
        };
        let resnet = |depth| {
            let width = self.width.unwrap_or(64);
            Architecture::ResNet(ResNetConfig { depth, width, stem })
        };
        let architecture = match self.kind {
            ModelKind::Resnet18 => resnet(ResNetDepth::D18),
            ModelKind::Resnet34 => resnet(ResNetDepth::D34),
            ModelKind::Resnet50 => resnet(ResNetDepth::D50),
            ModelKind::MobileNetV2 => {
                Architecture::MobileNetV2(MobileNetV2Config { stem, dropout: 0.2 })
            }
            ModelKind::Vit => Architecture::Vit(self.vit(side)),
            ModelKind::Gpt2 | ModelKind::Llama | ModelKind::Mmdit | ModelKind::Unet => {
                return Err(Error::new(
                    format!("model.kind = \"{}\" does not classify images", self.kind.name()),
                    "set model.kind to that of an image classifier, such as vit",
                ));
            }
        };
        let classes = self.classes.unwrap_or(labels.len());
        if classes != labels.len() {
            return Err(Error::new(
                format!("`model.classes` = {classes} and the data has {} classes", labels.len()),
                "remove model.classes or correct it",
            ));
        }
        let labels = labels.to_vec();
        let config = ImageConfig { architecture, classes, labels, channels: 3, dtype: DType::F32 };
        config.validate(Path::new("[model]"))?;
        Ok(config)
    }

    /// The configuration of a text-to-image model as it stands in a `config.json`, for square
    /// pictures of `side` pixels and captions of `length` tokens.
    ///
    /// # Errors
    /// If it is no such model or the sizes do not fit together.
    pub fn to_flow_config(&self, vocab: usize, length: usize, side: usize) -> Result<FlowConfig> {
        self.check()?;
        let network = match self.kind {
            ModelKind::Mmdit => FlowNetwork::Mmdit(MmditConfig {
                patch_size: self.patch.unwrap_or(4),
                hidden_size: self.dim(),
                num_hidden_layers: self.layers(),
                num_attention_heads: self.heads(),
                intermediate_size: self.hidden.unwrap_or(4 * self.dim()),
            }),
            ModelKind::Unet => FlowNetwork::UNet(self.unet(side)),
            _ => {
                return Err(Error::new(
                    format!("model.kind = \"{}\" does not paint", self.kind.name()),
                    "set model.kind to mmdit or unet",
                ));
            }
        };
        let config = FlowConfig {
            network,
            prediction: Prediction::default(),
            image_size: side,
            channels: 3,
            vocab_size: vocab,
            text_length: length,
            dtype: DType::F32,
        };
        config.validate(Path::new("[model]"))?;
        Ok(config)
    }

    /// Channels are normalised in at most 32 groups.
    fn unet(&self, side: usize) -> UNetConfig {
        let channels = self.channels.clone().unwrap_or_else(|| vec![64, 128, 192]);
        let sizes = (0..channels.len()).map(|i| side.checked_shr(i as u32).unwrap_or(0));
        let attention = || sizes.filter(|size| (1..=16).contains(size)).collect();
        let divides = |groups: &usize| channels.iter().all(|c| c.is_multiple_of(*groups));
        UNetConfig {
            layers_per_block: self.layers.unwrap_or(2),
            attention_resolutions: self.attention.clone().unwrap_or_else(attention),
            attention_head_dim: self.dim() / self.heads(),
            norm_num_groups: (1..=32).rev().find(divides).unwrap_or(1),
            cross_attention_dim: self.dim(),
            text_layers: 2,
            block_out_channels: channels,
        }
    }

    fn gpt2(&self, vocab_size: usize) -> Gpt2Config {
        Gpt2Config {
            vocab_size,
            n_positions: self.context(),
            n_embd: self.dim(),
            n_layer: self.layers(),
            n_head: self.heads(),
            n_inner: self.hidden.unwrap_or(4 * self.dim()),
            activation_function: Activation::GeluTanh,
            layer_norm_epsilon: 1e-5,
            embd_pdrop: self.dropout(),
            attn_pdrop: self.dropout(),
            resid_pdrop: self.dropout(),
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: self.tie.unwrap_or(true),
            dtype: DType::F32,
            tokens: SpecialTokens::default(),
        }
    }

    fn llama(&self, vocab_size: usize) -> LlamaConfig {
        let (dim, heads) = (self.dim(), self.heads());
        LlamaConfig {
            vocab_size,
            hidden_size: dim,
            intermediate_size: self.hidden.unwrap_or((8 * dim).div_ceil(3).next_multiple_of(32)),
            num_hidden_layers: self.layers(),
            num_attention_heads: heads,
            num_key_value_heads: self.kv_heads.unwrap_or(heads),
            head_dim: dim / heads,
            max_position_embeddings: self.context(),
            rms_norm_eps: 1e-5,
            rope_theta: self.rope_theta.unwrap_or(1e4),
            rope_scaling: RopeScaling::None,
            hidden_act: Activation::Silu,
            attention_bias: false,
            mlp_bias: false,
            experts: self.experts.map(|experts| ExpertsConfig {
                num_local_experts: experts,
                num_experts_per_tok: self.experts_per_token(),
                router_aux_loss_coef: self.balance.unwrap_or(0.01),
                capacity_factor: self.capacity,
            }),
            tie_word_embeddings: self.tie.unwrap_or(false),
            attention_dropout: 0.0,
            initializer_range: 0.02,
            dtype: DType::F32,
            tokens: SpecialTokens::default(),
        }
    }

    fn vit(&self, side: usize) -> VitConfig {
        VitConfig {
            image_size: side,
            patch_size: self.patch.unwrap_or(4),
            hidden_size: self.dim(),
            num_hidden_layers: self.layers(),
            num_attention_heads: self.heads(),
            intermediate_size: self.hidden.unwrap_or(4 * self.dim()),
            hidden_act: Activation::Gelu,
            qkv_bias: true,
            layer_norm_eps: 1e-6,
            hidden_dropout_prob: self.dropout(),
            attention_probs_dropout_prob: self.dropout(),
            initializer_range: 0.02,
        }
    }
}
