//! CLIP (Radford et al. 2021): texts and images become features of which those that belong
//! together are alike. The paths of the parameters are the names that transformers gives them.

use super::attention::{attend, attend_both_ways};
use super::files::{failed, raw_weights, with_weights};
use super::vit::Patches;
use crate::module::Module;
use crate::nn::{
    Activation, CacheIndex, Context, Dropout, Embedding, Init, LayerNorm, Linear, Repeat,
    split_heads,
};
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_formats::huggingface::{
    ClipConfig, ClipDirectory, ClipEncoderConfig, ClipTextConfig, ClipVisionConfig, DirectoryConfig,
};
use ferrata_ir::{DType, Error, Result};
use std::path::Path;

/// Encoders of texts and images into the same space.
///
/// ```
/// use ferrata::models::{Clip, ClipConfig, DirectoryConfig};
/// use ferrata::{DType, Key, Tensor, nn::Context};
/// # let config = r#"{"model_type": "clip", "projection_dim": 6,
/// #   "text_config": {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 1,
/// #     "num_attention_heads": 2, "max_position_embeddings": 5, "eos_token_id": 9},
/// #   "vision_config": {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
/// #     "image_size": 8, "patch_size": 4}}"#;
/// # let config = ClipConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
/// # let config = config.unwrap();
/// let model = Clip::new(&config, &Key::new(1))?;
/// let mut cx = Context::eval();
/// let images = model.encode_images(&Tensor::zeros([2, 3, 8, 8], DType::F32), &mut cx);
/// let texts = model.encode_texts(&Tensor::from([[1i64, 4, 9], [3, 9, 0]]), &mut cx);
/// assert_eq!(model.scores(&images, &texts).shape(), [2, 2]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Clip {
    /// Sizes and settings.
    pub config: ClipConfig,
    /// Texts.
    pub text_model: TextModel,
    /// Images.
    pub vision_model: VisionModel,
    /// To the features of a text.
    pub text_projection: Linear,
    /// To the features of an image.
    pub visual_projection: Linear,
    /// Logarithm of the factor of scores, a scalar.
    pub logit_scale: Tensor,
}

/// The encoder of texts.
#[derive(Clone, Debug, Module)]
pub struct TextModel {
    /// `[vocab_size, hidden_size]`.
    #[module(name = "embeddings.token_embedding")]
    pub tokens: Embedding,
    /// `[max_position_embeddings, hidden_size]`.
    #[module(name = "embeddings.position_embedding")]
    pub positions: Embedding,
    /// The layers, causal.
    #[module(name = "encoder.layers")]
    pub layers: Repeat<Layer>,
    /// The final normalisation.
    pub final_layer_norm: LayerNorm,
}

/// The encoder of images.
#[derive(Clone, Debug, Module)]
pub struct VisionModel {
    /// `[hidden_size]`: stands before the patches, and its state becomes the features.
    #[module(name = "embeddings.class_embedding")]
    pub class: Tensor,
    /// From the pixels of a patch.
    #[module(name = "embeddings.patch_embedding")]
    pub patches: Patches,
    /// `[1 + patches, hidden_size]`.
    #[module(name = "embeddings.position_embedding")]
    pub positions: Embedding,
    /// Before the layers; misspelt in published weights.
    #[module(name = "pre_layrnorm")]
    pub pre_layernorm: LayerNorm,
    /// The layers.
    #[module(name = "encoder.layers")]
    pub layers: Repeat<Layer>,
    /// Of the state of the class.
    pub post_layernorm: LayerNorm,
}

/// Attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug, Module)]
pub struct Layer {
    /// Before attention.
    pub layer_norm1: LayerNorm,
    /// Queries.
    #[module(name = "self_attn.q_proj")]
    pub query: Linear,
    /// Keys.
    #[module(name = "self_attn.k_proj")]
    pub key: Linear,
    /// Values.
    #[module(name = "self_attn.v_proj")]
    pub value: Linear,
    /// After attention.
    #[module(name = "self_attn.out_proj")]
    pub output: Linear,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// To the width inside the MLP.
    #[module(name = "mlp.fc1")]
    pub up: Linear,
    /// Back.
    #[module(name = "mlp.fc2")]
    pub down: Linear,
    /// Inside the MLP.
    pub activation: Activation,
    /// Number of heads.
    pub heads: usize,
    /// Whether a position sees only itself and earlier ones.
    pub causal: bool,
    /// Dropout of attention weights.
    pub attention_dropout: Dropout,
}

impl Tree for ClipConfig {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(self);
    }

    fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.clone()
    }
}

impl Clip {
    /// A model with random f32 weights, normal with the standard deviations of the paper.
    ///
    /// # Errors
    /// If the sizes of the configuration do not fit together.
    pub fn new(config: &ClipConfig, key: &Key) -> Result<Clip> {
        config.validate("config.json".as_ref()).map_err(failed)?;
        let (text, vision) = (&config.text, &config.vision);
        let projection = |width: usize, i| {
            let init = Init::Normal((width as f64).powf(-0.5));
            Linear::with_init(width, config.projection_dim, false, init, &key.fold(i))
        };
        Ok(Clip {
            config: config.clone(),
            text_model: TextModel::new(text, &key.fold(0)),
            vision_model: VisionModel::new(vision, &key.fold(1)),
            text_projection: projection(text.encoder.hidden_size, 2),
            visual_projection: projection(vision.encoder.hidden_size, 3),
            logit_scale: Tensor::full((), config.logit_scale_init_value, DType::F32),
        })
    }

    /// Reads a directory with `config.json` and `model.safetensors`, as transformers writes it.
    /// Parameters become f32 whatever dtype they are stored in.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, also if it is no CLIP; lists all names of weights
    /// that are missing, unexpected, or have another shape.
    pub fn load(path: impl AsRef<Path>) -> Result<Clip> {
        let path = path.as_ref();
        let Some(directory) = ClipDirectory::open(path).map_err(failed)? else {
            return Err(Error::new(format!("`{}` is no CLIP", path.display()))
                .help("its config.json must have `model_type` = `clip`"));
        };
        // The random weights are lazy: they are never computed.
        let empty = Clip::new(&directory.config, &Key::new(0))?;
        // Older files also hold the numbers 0, 1, 2, …
        let weights = directory.weights().filter(|(name, _)| !name.ends_with(".position_ids"));
        with_weights(&empty, weights)
    }

    /// Writes a directory that transformers and [`Clip::load`] read, in the dtype of the
    /// parameters.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let config = ClipConfig { dtype: self.logit_scale.dtype(), ..self.config.clone() };
        let weights = raw_weights(self)?;
        let views = weights.iter().map(|(name, weight)| (name.as_str(), weight.view()));
        ClipDirectory::write(path, &config, views).map_err(failed)
    }

    /// Features `[batch, projection_dim]` of token ids `[batch, time]`, of length 1, in f32 for half
    /// precision. A text's features are those of its first token `eos_token_id`.
    #[track_caller]
    pub fn encode_texts(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        let end = self.config.text.eos_token_id;
        let x = cx.scope("text_model", |cx| self.text_model.forward(ids, end, cx));
        normal(&cx.scope("text_projection", |cx| self.text_projection.forward(&x, cx)))
    }

    /// Features `[batch, projection_dim]` of images `[batch, channels, image_size, image_size]`, of
    /// length 1, in f32 for half precision.
    #[track_caller]
    pub fn encode_images(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("vision_model", |cx| self.vision_model.forward(images, cx));
        normal(&cx.scope("visual_projection", |cx| self.visual_projection.forward(&x, cx)))
    }

    /// How alike features are, times the learned factor: `[images, texts]`. Along dimension 1 they
    /// are logits of the texts that may belong to an image.
    #[track_caller]
    pub fn scores(&self, images: &Tensor, texts: &Tensor) -> Tensor {
        images.matmul(&texts.t()) * self.logit_scale.cast(images.dtype()).exp()
    }

    /// The symmetric contrastive loss of images and their texts, in the order of each other: the
    /// mean cross-entropy of finding the text of each image and the image of each text.
    #[track_caller]
    pub fn loss(&self, images: &Tensor, ids: &Tensor, cx: &mut Context) -> Tensor {
        let (images, texts) = (self.encode_images(images, cx), self.encode_texts(ids, cx));
        cx.scope("loss", |_| {
            let scores = self.scores(&images, &texts);
            let own = Tensor::arange(scores.size(0));
            (scores.cross_entropy(&own) + scores.t().cross_entropy(&own)) * 0.5
        })
    }
}

/// Rows of length 1.
#[track_caller]
fn normal(x: &Tensor) -> Tensor {
    x.cast(x.dtype().accumulator()).l2_normalize(-1, 1e-12)
}

impl TextModel {
    fn new(text: &ClipTextConfig, key: &Key) -> TextModel {
        let width = text.encoder.hidden_size;
        let table = |ids, i| Embedding::with_init(ids, width, Init::Normal(0.02), &key.fold(i));
        TextModel {
            tokens: table(text.vocab_size, 0),
            positions: table(text.max_position_embeddings, 1),
            layers: layers(&text.encoder, true, &key.fold(2)),
            final_layer_norm: layer_norm(&text.encoder),
        }
    }

    /// The state of the first token `end` of each row: `[batch, hidden_size]`.
    #[track_caller]
    fn forward(&self, ids: &Tensor, end: u32, cx: &mut Context) -> Tensor {
        Tensor::op("text", &[ids], || {
            let x = embedded(&self.tokens, &self.positions, ids, cx)?;
            let x = cx.scope("encoder.layers", |cx| {
                self.layers.forward(x, cx, |layer, x, cx| layer.forward(&x, cx))
            });
            let x = self.final_layer_norm.forward(&x, cx);
            let end = match end {
                LARGEST => ids.argmax(1),
                end => ids.eq(end).cast(DType::I64).argmax(1),
            };
            Ok(x.index(&[&Tensor::arange(x.size(0)), &end]))
        })
    }
}

/// The rows of ids `[batch, time]`, to which those of their positions are added: `[batch, time,
/// width]`.
#[track_caller]
pub(super) fn embedded(
    tokens: &Embedding,
    positions: &Embedding,
    ids: &Tensor,
    cx: &mut Context,
) -> Result<Tensor> {
    let (time, most) = (ids.size(1), positions.weight.size(0));
    if ids.rank() != 2 || time > most {
        let ty = ids.ty();
        return Err(Error::new(format!("{ty} are no texts of at most {most} tokens"))
            .help("give ids [batch, time]; shorten what is longer"));
    }
    Ok(tokens.forward(ids, cx) + positions.forward(&Tensor::arange(time), cx))
}

/// As the id of the end of a text: the largest id of the text.
const LARGEST: u32 = 2;

impl VisionModel {
    fn new(vision: &ClipVisionConfig, key: &Key) -> VisionModel {
        let (width, patch) = (vision.encoder.hidden_size, vision.patch_size);
        let patches = (vision.image_size / patch.max(1)).pow(2);
        let small = Init::Normal(0.02);
        let weight = [width, vision.num_channels, patch, patch];
        VisionModel {
            class: Init::Normal((width as f64).powf(-0.5)).make(&[width], DType::F32, &key.fold(0)),
            patches: Patches { weight: small.make(&weight, DType::F32, &key.fold(1)), bias: None },
            positions: Embedding::with_init(1 + patches, width, small, &key.fold(2)),
            pre_layernorm: layer_norm(&vision.encoder),
            layers: layers(&vision.encoder, false, &key.fold(3)),
            post_layernorm: layer_norm(&vision.encoder),
        }
    }

    /// The state of the class: `[batch, hidden_size]`.
    #[track_caller]
    fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        let x = Tensor::op("patches", &[images], || {
            self.patches.behind(&self.class, &self.positions.weight, images, cx)
        });
        let x = cx.scope("pre_layrnorm", |cx| self.pre_layernorm.forward(&x, cx));
        let x = cx.scope("encoder.layers", |cx| {
            self.layers.forward(x, cx, |layer, x, cx| layer.forward(&x, cx))
        });
        self.post_layernorm.forward(&x.at((.., 0)), cx)
    }
}

fn layer_norm(encoder: &ClipEncoderConfig) -> LayerNorm {
    LayerNorm { eps: encoder.layer_norm_eps, ..LayerNorm::new(encoder.hidden_size) }
}

fn layers(encoder: &ClipEncoderConfig, causal: bool, key: &Key) -> Repeat<Layer> {
    let count = encoder.num_hidden_layers;
    (0..count as u32).map(|i| Layer::new(encoder, causal, &key.fold(i))).collect()
}

impl Layer {
    fn new(encoder: &ClipEncoderConfig, causal: bool, key: &Key) -> Layer {
        let (width, hidden) = (encoder.hidden_size, encoder.intermediate_size);
        let linear = |inputs, outputs, std, i| {
            Linear::with_init(inputs, outputs, true, Init::Normal(std), &key.fold(i))
        };
        let whole = (width as f64).powf(-0.5);
        let residual = whole / (2.0 * encoder.num_hidden_layers as f64).sqrt();
        Layer {
            layer_norm1: layer_norm(encoder),
            query: linear(width, width, residual, 0),
            key: linear(width, width, residual, 1),
            value: linear(width, width, residual, 2),
            output: linear(width, width, whole, 3),
            layer_norm2: layer_norm(encoder),
            up: linear(width, hidden, whole / 2f64.sqrt(), 4),
            down: linear(hidden, width, residual, 5),
            activation: super::activation(encoder.hidden_act),
            heads: encoder.num_attention_heads,
            causal,
            attention_dropout: Dropout::new(encoder.attention_dropout),
        }
    }

    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let normal = cx.scope("layer_norm1", |cx| self.layer_norm1.forward(x, cx));
        let x = x + cx.scope("self_attn", |cx| self.attend(&normal, cx));
        let normal = cx.scope("layer_norm2", |cx| self.layer_norm2.forward(&x, cx));
        let hidden = cx.scope("mlp.fc1", |cx| self.up.forward(&normal, cx));
        let hidden = self.activation.apply(&hidden);
        x + cx.scope("mlp.fc2", |cx| self.down.forward(&hidden, cx))
    }

    #[track_caller]
    fn attend(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let mut heads = |name, layer: &Linear| {
            cx.scope(name, |cx| split_heads(&layer.forward(x, cx), self.heads))
        };
        let projected = [
            heads("q_proj", &self.query),
            heads("k_proj", &self.key),
            heads("v_proj", &self.value),
        ];
        let dropout = &self.attention_dropout;
        let y = if self.causal {
            let scale = 1.0 / (projected[0].size(3) as f64).sqrt();
            attend(&projected, None, &CacheIndex::first(), scale, dropout, cx).0
        } else {
            attend_both_ways(&projected, dropout, cx)
        };
        cx.scope("out_proj", |cx| self.output.forward(&y, cx))
    }
}
