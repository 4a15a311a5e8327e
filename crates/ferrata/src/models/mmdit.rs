//! MMDiT ([Esser et al. 2024](https://arxiv.org/abs/2403.03206)): patches of a noisy picture and
//! tokens of its caption, each with weights of its own, attend to each other in one sequence. Time
//! and caption also scale and shift every layer; how is computed once for all layers, which add
//! a learned table of their own ([Chen et al. 2023](https://arxiv.org/abs/2310.00426)).

use super::attention::attend_both_ways;
use super::vit::Patches;
use crate::module::Module;
use crate::nn::{Context, Dropout, Embedding, Init, Linear, Repeat, RmsNorm, split_heads};
use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_formats::huggingface::{FlowConfig, MmditConfig};
use ferrata_ir::{DType, Error, Result};

/// The network.
#[derive(Clone, Debug, Module)]
pub struct Mmdit {
    /// From the pixels of a patch.
    pub patches: Patches,
    /// `[1, patches, hidden_size]`; begins as sines and cosines of row and column.
    pub positions: Tensor,
    /// From token ids.
    pub tokens: Embedding,
    /// `[1, text_length, hidden_size]`; begins as sines and cosines of the place.
    pub token_positions: Tensor,
    /// From time and caption.
    pub condition: Condition,
    /// The layers.
    pub layers: Repeat<Layer>,
    /// `[2, hidden_size]`: what shifts and scales the last hidden state.
    pub output_table: Tensor,
    /// To the velocity of the pixels of a patch.
    pub output: Linear,
}

/// From time and caption to what shifts, scales and gates the layers.
#[derive(Clone, Debug, Module)]
pub struct Condition {
    /// From waves of the time.
    pub time_in: Linear,
    /// To the hidden state.
    pub time_out: Linear,
    /// From the mean embedding of the caption.
    pub text: Linear,
    /// To [`CHANGES`] vectors for all layers.
    pub changes: Linear,
    /// To the two of the output.
    pub output: Linear,
}

/// Attention over both streams, then an MLP in each.
#[derive(Clone, Debug, Module)]
pub struct Layer {
    /// `[12, hidden_size]`: what this layer adds to the changes of all.
    pub table: Tensor,
    /// The patches.
    pub image: Stream,
    /// The caption.
    pub text: Stream,
    /// Number of heads.
    pub heads: usize,
}

/// The weights of one stream.
#[derive(Clone, Debug, Module)]
pub struct Stream {
    /// Queries, keys and values.
    pub qkv: Linear,
    /// Of the queries of a head.
    pub query_norm: RmsNorm,
    /// Of the keys of a head.
    pub key_norm: RmsNorm,
    /// After attention.
    pub attended: Linear,
    /// To the width inside the MLP.
    pub up: Linear,
    /// Back.
    pub down: Linear,
}

/// Shift, scale and gate of attention and of the MLP, for both streams.
const CHANGES: usize = 12;
/// Waves of a time, half sines and half cosines.
const WAVES: usize = 256;
/// Times from 0 to 1 are spread over this many units before they become waves.
pub(super) const TIME_SCALE: f64 = 1000.0;
/// The longest wave as a multiple of the shortest.
const LONGEST: f64 = 10_000.0;
/// Added to variances and mean squares.
const EPS: f64 = 1e-6;

impl Mmdit {
    /// A model with random f32 weights, whose velocity is zero and whose layers change nothing
    /// until they have learned.
    pub(super) fn new(config: &FlowConfig, net: &MmditConfig, key: &Key) -> Mmdit {
        let (width, patch) = (net.hidden_size, net.patch_size);
        let pixels = config.channels * patch * patch;
        let side = config.image_size / patch.max(1);
        let weight = Init::XavierUniform.make(&[width, pixels], DType::F32, &key.fold(0));
        let places = Tensor::iota([config.text_length], 0, DType::F32);
        Mmdit {
            patches: Patches {
                weight: weight.reshape([width, config.channels, patch, patch]),
                bias: Some(Tensor::zeros([width], DType::F32)),
            },
            positions: grid_waves(side, width),
            tokens: Embedding::with_init(config.vocab_size, width, Init::Normal(1.0), &key.fold(1)),
            token_positions: waves(&places, width).unsqueeze(0),
            condition: Condition::new(width, &key.fold(3)),
            layers: (0..net.num_hidden_layers)
                .map(|i| Layer::new(net, &key.fold(4).fold(i as u32)))
                .collect(),
            output_table: Tensor::zeros([2, width], DType::F32),
            output: Linear::with_init(width, pixels, true, Init::Zeros, key),
        }
    }

    /// The velocity of `x [batch, channels, height, width]` at times `t [batch]`, for captions
    /// `text`, i64 `[batch, text_length]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, t: &Tensor, text: &Tensor, cx: &mut Context) -> Tensor {
        Tensor::op("mmdit", &[x, t, text], || {
            let image = cx.scope("patches", |cx| self.patches.forward(x, cx))?;
            let places = fitting(&self.positions, image.size(1), "patches")?;
            let image = image + cx.cast(&places);
            let tokens = cx.scope("tokens", |cx| self.tokens.forward(text, cx));
            let words = fitting(&self.token_positions, tokens.size(1), "tokens")?;
            let condition = &self.condition;
            let (changes, last) =
                cx.scope("condition", |cx| condition.forward(t, &tokens.mean(1), cx));
            let last = last + cx.cast(&self.output_table);
            let words = tokens + cx.cast(&words);
            let (image, _, _) = cx.scope("layers", |cx| {
                self.layers.forward((image, words, changes), cx, |layer, streams, cx| {
                    layer.forward(streams, cx)
                })
            });
            let image = changed(&image, &last, 0);
            let y = cx.scope("output", |cx| self.output.forward(&image, cx));
            Ok(self.pixels(&y, x.shape()))
        })
    }

    /// Patches `[batch, patches, pixels]` as a picture of this shape.
    #[track_caller]
    fn pixels(&self, patches: &Tensor, shape: &[usize]) -> Tensor {
        let size = self.patches.weight.size(2);
        let [batch, channels, height, width] = [0, 1, 2, 3].map(|d| shape[d]);
        let (rows, columns) = (height / size, width / size);
        patches
            .reshape([batch, rows, columns, channels, size, size])
            .permute(&[0, 3, 1, 4, 2, 5])
            .reshape([batch, channels, height, width])
    }
}

/// A table of positions, if it has so many.
fn fitting(table: &Tensor, count: usize, what: &str) -> Result<Tensor> {
    match table.size(1) {
        positions if positions == count => Ok(table.clone()),
        positions => Err(Error::new(format!(
            "there are {count} {what}, but the model has positions for {positions}"
        ))
        .help("give pictures of the model's `image_size` and captions of its text length")),
    }
}

/// Sines and cosines `[1, side², width]` of rows, then of columns.
fn grid_waves(side: usize, width: usize) -> Tensor {
    let of = |dim| {
        let places = Tensor::iota([side, side], dim, DType::F32).reshape([side * side]);
        waves(&places, width / 2)
    };
    Tensor::concat(&[&of(0), &of(1)], 1).unsqueeze(0)
}

/// Cosines and sines `[count, width]` of numbers `[count]`, of wavelengths in a geometric series.
#[track_caller]
pub(super) fn waves(x: &Tensor, width: usize) -> Tensor {
    let (half, dtype) = ((width / 2).max(1), x.dtype().accumulator());
    let rates = (Tensor::iota([half], 0, dtype) * (-LONGEST.ln() / half as f64)).exp();
    let angles = x.cast(dtype).unsqueeze(1) * rates;
    Tensor::concat(&[&angles.cos(), &angles.sin()], 1)
}

/// `x [batch, tokens, width]`, normalised, then scaled and shifted by the vectors `at` and
/// `at + 1` of `changes [batch, vectors, width]`.
#[track_caller]
fn changed(x: &Tensor, changes: &Tensor, at: usize) -> Tensor {
    let (shift, scale) = (changes.narrow(1, at, 1), changes.narrow(1, at + 1, 1));
    x.layer_norm(None, None, 1, EPS) * (scale + 1.0) + shift
}

impl Condition {
    fn new(width: usize, key: &Key) -> Condition {
        let linear =
            |inputs, outputs, init, i| Linear::with_init(inputs, outputs, true, init, &key.fold(i));
        Condition {
            time_in: linear(WAVES, width, Init::Normal(0.02), 0),
            time_out: linear(width, width, Init::Normal(0.02), 1),
            text: linear(width, width, Init::Normal(0.02), 2),
            changes: linear(width, CHANGES * width, Init::Zeros, 3),
            output: linear(width, 2 * width, Init::Zeros, 4),
        }
    }

    /// What changes the layers, `[batch, 12, width]`, and the output, `[batch, 2, width]`.
    #[track_caller]
    fn forward(&self, t: &Tensor, text: &Tensor, cx: &mut Context) -> (Tensor, Tensor) {
        let time = waves(&(t * TIME_SCALE), WAVES).cast(self.time_in.weight.dtype());
        let time = cx.scope("time_in", |cx| self.time_in.forward(&time, cx)).silu();
        let time = cx.scope("time_out", |cx| self.time_out.forward(&time, cx));
        let both = (time + cx.scope("text", |cx| self.text.forward(text, cx))).silu();
        let width = both.size(1);
        let mut vectors = |name, layer: &Linear, count: usize| {
            let y = cx.scope(name, |cx| layer.forward(&both, cx));
            y.reshape([both.size(0), count, width])
        };
        (vectors("changes", &self.changes, CHANGES), vectors("output", &self.output, 2))
    }
}

impl Layer {
    fn new(net: &MmditConfig, key: &Key) -> Layer {
        Layer {
            table: Tensor::zeros([CHANGES, net.hidden_size], DType::F32),
            image: Stream::new(net, &key.fold(0)),
            text: Stream::new(net, &key.fold(1)),
            heads: net.num_attention_heads,
        }
    }

    /// Both streams `[batch, tokens, width]` after this layer, and the changes of all layers.
    #[track_caller]
    fn forward(
        &self,
        (image, text, all): (Tensor, Tensor, Tensor),
        cx: &mut Context,
    ) -> (Tensor, Tensor, Tensor) {
        let changes = &all + cx.cast(&self.table);
        let half = CHANGES / 2;
        let seen =
            cx.scope("image", |cx| self.image.heads(&changed(&image, &changes, 0), self, cx));
        let read =
            cx.scope("text", |cx| self.text.heads(&changed(&text, &changes, half), self, cx));
        let [q, k, v] = [0, 1, 2].map(|i| Tensor::concat(&[&seen[i], &read[i]], 2));
        let y = attend_both_ways(&[q, k, v], &Dropout::new(0.0), cx);
        let parts = y.split(&[image.size(1), text.size(1)], 1);
        let image = cx.scope("image", |cx| self.image.after(&image, &parts[0], &changes, 0, cx));
        let text = cx.scope("text", |cx| self.text.after(&text, &parts[1], &changes, half, cx));
        (image, text, all)
    }
}

impl Stream {
    fn new(net: &MmditConfig, key: &Key) -> Stream {
        let (width, hidden) = (net.hidden_size, net.intermediate_size);
        let size = width / net.num_attention_heads.max(1);
        let linear = |inputs, outputs, i| {
            Linear::with_init(inputs, outputs, true, Init::XavierUniform, &key.fold(i))
        };
        Stream {
            qkv: linear(width, 3 * width, 0),
            query_norm: RmsNorm::new(size, EPS),
            key_norm: RmsNorm::new(size, EPS),
            attended: linear(width, width, 1),
            up: linear(width, hidden, 2),
            down: linear(hidden, width, 3),
        }
    }

    /// Queries, keys and values `[batch, heads, tokens, size]` of `x [batch, tokens, width]`.
    #[track_caller]
    fn heads(&self, x: &Tensor, layer: &Layer, cx: &mut Context) -> [Tensor; 3] {
        let parts = cx.scope("qkv", |cx| self.qkv.forward(x, cx)).chunk(3, 2);
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(&parts[i], layer.heads));
        let q = cx.scope("query_norm", |cx| self.query_norm.forward(&q, cx));
        let k = cx.scope("key_norm", |cx| self.key_norm.forward(&k, cx));
        [q, k, v]
    }

    /// The stream after attention and MLP, changed by the six vectors from `at` on.
    #[track_caller]
    fn after(
        &self,
        x: &Tensor,
        attended: &Tensor,
        changes: &Tensor,
        at: usize,
        cx: &mut Context,
    ) -> Tensor {
        let gate = |i: usize| changes.narrow(1, at + i, 1);
        let y = cx.scope("attended", |cx| self.attended.forward(attended, cx));
        let x = x + gate(2) * y;
        let hidden = changed(&x, changes, at + 3);
        let hidden = cx.scope("up", |cx| self.up.forward(&hidden, cx)).gelu_tanh();
        let y = cx.scope("down", |cx| self.down.forward(&hidden, cx));
        x + gate(5) * y
    }
}
