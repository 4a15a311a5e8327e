//! GPT-2: pre-norm decoder with learned positions.

use super::attention::{BlockState, Pass, attend, residual};
use super::{Input, Output};
use crate::module::Module;
use crate::nn::{Activation, Context, Dropout, Embedding, Init, LayerNorm, Linear, Repeat};
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_formats::huggingface::Gpt2Config;
use ferrata_ir::{DType, Error};

/// GPT-2. The paths of the parameters are the names in published weights.
#[derive(Clone, Debug, Module)]
pub struct Gpt2 {
    /// Sizes and settings.
    pub config: Gpt2Config,
    /// Everything but the output matrix.
    pub transformer: Transformer,
    /// The output matrix, unless it is the token embedding.
    pub lm_head: Option<Linear>,
}

/// Embeddings, blocks and the final normalisation.
#[derive(Clone, Debug, Module)]
pub struct Transformer {
    /// Token embedding `[vocab_size, n_embd]`.
    pub wte: Embedding,
    /// Position embedding `[n_positions, n_embd]`.
    pub wpe: Embedding,
    /// The blocks.
    pub h: Repeat<Block>,
    /// The final normalisation.
    pub ln_f: LayerNorm,
    /// Dropout after the embedding.
    pub drop: Dropout,
}

/// Attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug, Module)]
pub struct Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// Causal attention.
    pub attn: SelfAttention,
    /// Before the MLP.
    pub ln_2: LayerNorm,
    /// Feed-forward.
    pub mlp: FeedForward,
    /// Dropout before each residual sum.
    pub resid_dropout: Dropout,
}

/// Causal attention with one projection for queries, keys and values.
#[derive(Clone, Debug, Module)]
pub struct SelfAttention {
    /// `[n_embd, 3 n_embd]`.
    pub c_attn: Conv1d,
    /// `[n_embd, n_embd]`.
    pub c_proj: Conv1d,
    /// Number of heads.
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Dropout of attention weights.
    pub attn_dropout: Dropout,
}

/// Two projections with an activation between them.
#[derive(Clone, Debug, Module)]
pub struct FeedForward {
    /// `[n_embd, n_inner]`.
    pub c_fc: Conv1d,
    /// `[n_inner, n_embd]`.
    pub c_proj: Conv1d,
    /// Between them.
    pub activation: Activation,
}

/// `x W + b`: a linear layer whose weight is stored `[inputs, outputs]`.
#[derive(Clone, Debug, Module)]
pub struct Conv1d {
    /// `[inputs, outputs]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Tensor,
}

impl Tree for Gpt2Config {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(self);
    }

    fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.clone()
    }
}

impl Conv1d {
    fn zeros(inputs: usize, outputs: usize) -> Self {
        Conv1d {
            weight: Tensor::zeros([inputs, outputs], DType::F32),
            bias: Tensor::zeros([outputs], DType::F32),
        }
    }

    /// `x [.., inputs]` becomes `[.., outputs]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        cx.cast(x).matmul(&cx.cast(&self.weight)) + cx.cast(&self.bias)
    }
}

impl SelfAttention {
    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        state: &BlockState,
        pass: Pass<'_>,
        cx: &mut Context,
    ) -> (Tensor, BlockState) {
        let all = cx.scope("c_attn", |cx| self.c_attn.forward(x, cx));
        let heads = |i: usize| {
            let width = x.size(2);
            crate::nn::split_heads(&all.narrow(2, i * width, width), self.heads)
        };
        let projected = [heads(0), heads(1), heads(2)];
        let cache = state.cache.as_ref();
        let dropout = &self.attn_dropout;
        let (y, cache) = attend(&projected, cache, pass.at, self.scale, dropout, cx);
        let y = cx.scope("c_proj", |cx| self.c_proj.forward(&y, cx));
        (y, BlockState { cache, ..BlockState::default() })
    }
}

impl FeedForward {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let hidden = cx.scope("c_fc", |cx| self.c_fc.forward(x, cx));
        let hidden = self.activation.apply(&hidden);
        cx.scope("c_proj", |cx| self.c_proj.forward(&hidden, cx))
    }
}

impl Block {
    fn zeros(config: &Gpt2Config, layer: usize) -> Self {
        let width = config.n_embd;
        let norm = || LayerNorm { eps: config.layer_norm_epsilon, ..LayerNorm::new(width) };
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= ((width / config.n_head.max(1)) as f64).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        Block {
            ln_1: norm(),
            attn: SelfAttention {
                c_attn: Conv1d::zeros(width, 3 * width),
                c_proj: Conv1d::zeros(width, width),
                heads: config.n_head,
                scale,
                attn_dropout: Dropout::new(config.attn_pdrop),
            },
            ln_2: norm(),
            mlp: FeedForward {
                c_fc: Conv1d::zeros(width, config.n_inner),
                c_proj: Conv1d::zeros(config.n_inner, width),
                activation: super::activation(config.activation_function),
            },
            resid_dropout: Dropout::new(config.resid_pdrop),
        }
    }

    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        state: &BlockState,
        pass: Pass<'_>,
        cx: &mut Context,
    ) -> (Tensor, BlockState) {
        let normal = cx.scope("ln_1", |cx| self.ln_1.forward(x, cx));
        let (y, mut state) = cx.scope("attn", |cx| self.attn.forward(&normal, state, pass, cx));
        let x = residual(x + self.resid_dropout.forward(&y, cx));
        let normal = cx.scope("ln_2", |cx| self.ln_2.forward(&x, cx));
        let y = cx.scope("mlp", |cx| self.mlp.forward(&normal, cx));
        let x = residual(x + self.resid_dropout.forward(&y, cx));
        state.output = pass.hidden.then(|| x.clone());
        (x, state)
    }
}

impl Gpt2 {
    /// A model of this shape with weights of zero and norms of one.
    pub(super) fn zeros(config: &Gpt2Config) -> Self {
        let zero = Key::new(0);
        let table = |rows| Embedding::with_init(rows, config.n_embd, Init::Zeros, &zero);
        let head =
            || Linear::with_init(config.n_embd, config.vocab_size, false, Init::Zeros, &zero);
        Gpt2 {
            transformer: Transformer {
                wte: table(config.vocab_size),
                wpe: table(config.n_positions),
                h: (0..config.n_layer).map(|layer| Block::zeros(config, layer)).collect(),
                ln_f: LayerNorm { eps: config.layer_norm_epsilon, ..LayerNorm::new(config.n_embd) },
                drop: Dropout::new(config.embd_pdrop),
            },
            lm_head: (!config.tie_word_embeddings).then(head),
            config: config.clone(),
        }
    }

    #[track_caller]
    pub(super) fn pass(&self, input: Input<'_>, cx: &mut Context) -> Output {
        cx.scope("transformer", |cx| self.transformer.pass(&self.config, input, cx))
    }

    /// Scores of all tokens for hidden states `[.., n_embd]`.
    #[track_caller]
    pub(super) fn head(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("transformer.ln_f", |cx| self.transformer.ln_f.forward(x, cx));
        cx.scope("lm_head", |cx| match &self.lm_head {
            Some(head) => head.forward(&x, cx),
            None => self.transformer.wte.attend(&x, cx),
        })
    }
}

impl Transformer {
    #[track_caller]
    fn pass(&self, config: &Gpt2Config, input: Input<'_>, cx: &mut Context) -> Output {
        let time = input.ids.size(1);
        let limit = config.n_positions;
        if time > limit {
            let error = Error::new(format!("{time} tokens, but the model has {limit} positions"))
                .help("give shorter sequences, or a configuration with larger `n_positions`");
            return Output::failed(Tensor::op("positions", &[input.ids], || Err(error)));
        }
        let x = cx.scope("wte", |cx| self.wte.forward(input.ids, cx));
        let positions = cx.scope("wpe", |cx| match &input.at.start {
            None => cx.cast(&self.wpe.weight.narrow(0, 0, time)),
            Some(_) => self.wpe.forward(&input.at.positions(time), cx),
        });
        let x = self.drop.forward(&(x + positions), cx);
        let pass = Pass { at: input.at, hidden: input.hidden };
        let first = x.clone();
        let (x, states) = cx.scope("h", |cx| {
            self.h.forward_with(x, input.states(self.h.len()), cx, |block, x, state, cx| {
                block.forward(&x, &state, pass, cx)
            })
        });
        Output::new(first, x, states)
    }
}
