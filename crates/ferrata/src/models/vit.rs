//! ViT: patches as tokens of a pre-norm encoder, classes from the first token. The paths of the
//! parameters are the names that transformers gives them.

use super::attention::attend_both_ways;
use crate::module::Module;
use crate::nn::{Activation, Context, Dropout, Init, LayerNorm, Linear, Repeat, split_heads};
use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_formats::huggingface::{ImageConfig, VitConfig};
use ferrata_ir::{DType, Error, Result};

/// A vision transformer that classifies images.
#[derive(Clone, Debug, Module)]
pub struct Vit {
    /// Patches and positions.
    #[module(name = "vit.embeddings")]
    pub embeddings: Embeddings,
    /// The blocks.
    #[module(name = "vit.encoder.layer")]
    pub layers: Repeat<Layer>,
    /// The final normalisation.
    #[module(name = "vit.layernorm")]
    pub norm: LayerNorm,
    /// Scores of the classes, from the first token.
    pub classifier: Linear,
}

/// Patches as tokens behind a token for the class, with learned positions.
#[derive(Clone, Debug, Module)]
pub struct Embeddings {
    /// `[1, 1, hidden_size]`.
    pub cls_token: Tensor,
    /// `[1, 1 + patches, hidden_size]`.
    pub position_embeddings: Tensor,
    /// From the pixels of a patch.
    #[module(name = "patch_embeddings.projection")]
    pub projection: Patches,
    /// After the positions are added.
    pub dropout: Dropout,
}

/// A product with the pixels of every patch.
#[derive(Clone, Debug, Module)]
pub struct Patches {
    /// `[hidden_size, channels, patch_size, patch_size]`.
    pub weight: Tensor,
    /// `[hidden_size]`.
    pub bias: Option<Tensor>,
}

/// Attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug, Module)]
pub struct Layer {
    /// Queries.
    #[module(name = "attention.attention.query")]
    pub query: Linear,
    /// Keys.
    #[module(name = "attention.attention.key")]
    pub key: Linear,
    /// Values.
    #[module(name = "attention.attention.value")]
    pub value: Linear,
    /// After attention.
    #[module(name = "attention.output.dense")]
    pub output: Linear,
    /// To the width inside the MLP.
    #[module(name = "intermediate.dense")]
    pub up: Linear,
    /// Back.
    #[module(name = "output.dense")]
    pub down: Linear,
    /// Before attention.
    #[module(name = "layernorm_before")]
    pub before_attention: LayerNorm,
    /// Before the MLP.
    #[module(name = "layernorm_after")]
    pub before_mlp: LayerNorm,
    /// Inside the MLP.
    pub activation: Activation,
    /// Number of heads.
    pub heads: usize,
    /// Dropout of attention weights.
    pub attention_dropout: Dropout,
    /// Dropout before each residual sum.
    pub dropout: Dropout,
}

impl Vit {
    /// A model with random f32 weights: tables and matrices are truncated normal with the standard
    /// deviation `initializer_range`, biases are zero and norms one.
    pub(super) fn new(config: &ImageConfig, vit: &VitConfig, key: &Key) -> Vit {
        let init = Init::TruncatedNormal(vit.initializer_range);
        let (width, patch) = (vit.hidden_size, vit.patch_size);
        let patches = (vit.image_size / patch.max(1)).pow(2);
        let table = |shape: &[usize], i| init.make(shape, DType::F32, &key.fold(i));
        let norm = || LayerNorm { eps: vit.layer_norm_eps, ..LayerNorm::new(width) };
        Vit {
            embeddings: Embeddings {
                cls_token: table(&[1, 1, width], 0),
                position_embeddings: table(&[1, 1 + patches, width], 1),
                projection: Patches {
                    weight: table(&[width, config.channels, patch, patch], 2),
                    bias: Some(Tensor::zeros([width], DType::F32)),
                },
                dropout: Dropout::new(vit.hidden_dropout_prob),
            },
            layers: (0..vit.num_hidden_layers)
                .map(|i| Layer::new(vit, &key.fold(5).fold(i as u32)))
                .collect(),
            norm: norm(),
            classifier: Linear::with_init(width, config.classes, true, init, &key.fold(3)),
        }
    }

    /// Scores `[batch, classes]` of images `[batch, channels, image_size, image_size]`.
    #[track_caller]
    pub fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("vit.embeddings", |cx| self.embeddings.forward(images, cx));
        let x = cx.scope("vit.encoder.layer", |cx| {
            self.layers.forward(x, cx, |layer, x, cx| layer.forward(&x, cx))
        });
        let x = cx.scope("vit.layernorm", |cx| self.norm.forward(&x.at((.., 0)), cx));
        cx.scope("classifier", |cx| self.classifier.forward(&x, cx))
    }
}

impl Embeddings {
    #[track_caller]
    fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        Tensor::op("patches", &[images], || {
            let x = self.projection.behind(&self.cls_token, &self.position_embeddings, images, cx);
            Ok(self.dropout.forward(&x?, cx))
        })
    }
}

impl Patches {
    /// The token `class [.., hidden_size]` and behind it those of the patches, each with its
    /// position `[.., 1 + patches, hidden_size]` added: `[batch, 1 + patches, hidden_size]`.
    #[track_caller]
    pub(super) fn behind(
        &self,
        class: &Tensor,
        positions: &Tensor,
        images: &Tensor,
        cx: &mut Context,
    ) -> Result<Tensor> {
        let x = self.forward(images, cx)?;
        let (batch, width, tokens) = (x.size(0), x.size(2), x.size(1) + 1);
        if positions.size(-2) != tokens {
            let (patches, shape) = (positions.size(-2).saturating_sub(1), images.shape());
            return Err(Error::new(format!(
                "images {shape:?} have {} patches, but the model has positions for {patches}",
                tokens - 1
            ))
            .help("resize the images to the model's `image_size`"));
        }
        let class = cx.cast(class).expand([batch, 1, width]);
        Ok(Tensor::concat(&[&class, &x], 1) + cx.cast(positions))
    }

    /// `[batch, channels, height, width]` to `[batch, patches, hidden_size]`.
    #[track_caller]
    pub(super) fn forward(&self, images: &Tensor, cx: &mut Context) -> Result<Tensor> {
        let [hidden, channels, size, _] = *self.weight.shape() else {
            return Err(Error::new("the weight of the patches has not four dimensions"));
        };
        let [batch, c, height, width] = *images.shape() else {
            let shape = images.shape();
            return Err(Error::new(format!("images have shape {shape:?}"))
                .help("give [batch, channels, height, width]"));
        };
        if c != channels || height % size != 0 || width % size != 0 {
            let shape = images.shape();
            return Err(Error::new(format!(
                "images {shape:?} do not fall into patches of {channels} channels and {size} × \
                 {size} pixels"
            ))
            .help("resize the images to the model's `image_size`"));
        }
        let (rows, columns) = (height / size, width / size);
        let x = cx.cast(images).reshape([batch, channels, rows, size, columns, size]);
        let x = x.permute(&[0, 2, 4, 1, 3, 5]);
        let x = x.reshape([batch, rows * columns, channels * size * size]);
        let weight = cx.cast(&self.weight).reshape((hidden, -1));
        let bias = self.bias.as_ref().map(|bias| cx.cast(bias));
        Ok(x.linear(&weight, bias.as_ref()))
    }
}

impl Layer {
    fn new(vit: &VitConfig, key: &Key) -> Layer {
        let init = Init::TruncatedNormal(vit.initializer_range);
        let (width, hidden) = (vit.hidden_size, vit.intermediate_size);
        let linear =
            |inputs, outputs, bias, i| Linear::with_init(inputs, outputs, bias, init, &key.fold(i));
        let norm = || LayerNorm { eps: vit.layer_norm_eps, ..LayerNorm::new(width) };
        Layer {
            query: linear(width, width, vit.qkv_bias, 0),
            key: linear(width, width, vit.qkv_bias, 1),
            value: linear(width, width, vit.qkv_bias, 2),
            output: linear(width, width, true, 3),
            up: linear(width, hidden, true, 4),
            down: linear(hidden, width, true, 5),
            before_attention: norm(),
            before_mlp: norm(),
            activation: super::activation(vit.hidden_act),
            heads: vit.num_attention_heads,
            attention_dropout: Dropout::new(vit.attention_probs_dropout_prob),
            dropout: Dropout::new(vit.hidden_dropout_prob),
        }
    }

    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let normal = cx.scope("layernorm_before", |cx| self.before_attention.forward(x, cx));
        let x = x + cx.scope("attention", |cx| self.attend(&normal, cx));
        let normal = cx.scope("layernorm_after", |cx| self.before_mlp.forward(&x, cx));
        let hidden = cx.scope("intermediate", |cx| self.up.forward(&normal, cx));
        let hidden = self.activation.apply(&hidden);
        let y = cx.scope("output", |cx| self.down.forward(&hidden, cx));
        x + self.dropout.forward(&y, cx)
    }

    #[track_caller]
    fn attend(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let mut heads = |name, layer: &Linear| {
            cx.scope(name, |cx| split_heads(&layer.forward(x, cx), self.heads))
        };
        let projected =
            [heads("query", &self.query), heads("key", &self.key), heads("value", &self.value)];
        let y = attend_both_ways(&projected, &self.attention_dropout, cx);
        let y = cx.scope("output", |cx| self.output.forward(&y, cx));
        self.dropout.forward(&y, cx)
    }
}
