//! Llama: pre-norm decoder with rotary positions, grouped queries, RMS normalisation and a gated
//! MLP, or, as in Mixtral, experts.

use super::attention::{BlockState, Pass, attend, residual};
use super::{Input, Output};
use crate::module::Module;
use crate::nn::{
    Activation, Context, Dropout, Embedding, Experts, Init, Linear, Repeat, RmsNorm, Rope, Routing,
};
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_formats::huggingface::{ExpertsConfig, LlamaConfig, RopeScaling};
use ferrata_ir::DType;
use ferrata_ir::composite::rope_frequencies;
use std::f64::consts::TAU;

/// Llama. The paths of the parameters are the names in published weights.
#[derive(Clone, Debug, Module)]
pub struct Llama {
    /// Sizes and settings.
    pub config: LlamaConfig,
    /// Everything but the output matrix.
    pub model: Decoder,
    /// The output matrix, unless it is the token embedding.
    pub lm_head: Option<Linear>,
}

/// Embedding, layers and the final normalisation.
#[derive(Clone, Debug, Module)]
pub struct Decoder {
    /// Token embedding `[vocab_size, hidden_size]`.
    pub embed_tokens: Embedding,
    /// The layers.
    pub layers: Repeat<Layer>,
    /// The final normalisation.
    pub norm: RmsNorm,
}

/// Attention, then the feed-forward part, each added to the residual stream.
#[derive(Clone, Debug, Module)]
pub struct Layer {
    /// Causal attention.
    pub self_attn: SelfAttention,
    /// Feed-forward.
    #[module(name = "")]
    pub feed_forward: FeedForward,
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Before the feed-forward part.
    pub post_attention_layernorm: RmsNorm,
}

/// Causal attention with grouped queries and rotary positions.
#[derive(Clone, Debug, Module)]
pub struct SelfAttention {
    /// `[heads head_dim, hidden_size]`.
    pub q_proj: Linear,
    /// `[groups head_dim, hidden_size]`.
    pub k_proj: Linear,
    /// `[groups head_dim, hidden_size]`.
    pub v_proj: Linear,
    /// `[hidden_size, heads head_dim]`.
    pub o_proj: Linear,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads.
    pub groups: usize,
    /// Dropout of attention weights.
    pub dropout: Dropout,
}

/// The part of a layer that looks at each position alone.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// The same for all positions: `mlp`.
    Mlp(GatedMlp),
    /// Some of many for each position: `block_sparse_moe`.
    Experts(Experts),
}

/// `down(activation(gate(x)) up(x))`.
#[derive(Clone, Debug, Module)]
pub struct GatedMlp {
    /// `[intermediate_size, hidden_size]`, through the activation.
    pub gate_proj: Linear,
    /// `[intermediate_size, hidden_size]`.
    pub up_proj: Linear,
    /// `[hidden_size, intermediate_size]`.
    pub down_proj: Linear,
    /// Of the gate.
    pub activation: Activation,
}

impl Tree for FeedForward {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        match self {
            FeedForward::Mlp(mlp) => visitor.field("mlp", mlp),
            FeedForward::Experts(experts) => visitor.field("block_sparse_moe", experts),
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        match self {
            FeedForward::Mlp(mlp) => FeedForward::Mlp(mlp.rebuild(f)),
            FeedForward::Experts(experts) => FeedForward::Experts(experts.rebuild(f)),
        }
    }
}

impl Module for FeedForward {}

impl Tree for LlamaConfig {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(self);
    }

    fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.clone()
    }
}

/// Rotary frequencies of a head, in radians per position, shortest wavelength first.
pub(super) fn frequencies(config: &LlamaConfig) -> Vec<f64> {
    let plain = rope_frequencies(config.rope_theta, config.head_dim);
    match config.rope_scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain.into_iter().map(|f| f / factor).collect(),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let context = original_max_position_embeddings as f64;
            let scaled = |f: f64| {
                // How many turns the pair makes in the context of pre-training.
                let turns = context * f / TAU;
                let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = kept.clamp(0.0, 1.0);
                kept * f + (1.0 - kept) * f / factor
            };
            plain.into_iter().map(scaled).collect()
        }
    }
}

impl SelfAttention {
    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        rope: &Rope,
        state: &BlockState,
        pass: Pass<'_>,
        cx: &mut Context,
    ) -> (Tensor, BlockState) {
        let project = |name: &str, layer: &Linear, heads: usize, cx: &mut Context| {
            cx.scope(name, |cx| crate::nn::split_heads(&layer.forward(x, cx), heads))
        };
        let q = project("q_proj", &self.q_proj, self.heads, cx);
        let k = project("k_proj", &self.k_proj, self.groups, cx);
        let v = project("v_proj", &self.v_proj, self.groups, cx);
        let scale = 1.0 / (q.size(3) as f64).sqrt();
        let rotated = [rope.apply(&q), rope.apply(&k), v];
        let (y, cache) = attend(&rotated, state.cache.as_ref(), pass.at, scale, &self.dropout, cx);
        let y = cx.scope("o_proj", |cx| self.o_proj.forward(&y, cx));
        (y, BlockState { cache, ..BlockState::default() })
    }
}

impl FeedForward {
    fn zeros(config: &LlamaConfig) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let activation = super::activation(config.hidden_act);
        let linear = |inputs, outputs, bias| {
            Linear::with_init(inputs, outputs, bias, Init::Zeros, &Key::new(0))
        };
        let Some(ExpertsConfig { num_local_experts: count, num_experts_per_tok, .. }) =
            config.experts
        else {
            return FeedForward::Mlp(GatedMlp {
                gate_proj: linear(width, inner, config.mlp_bias),
                up_proj: linear(width, inner, config.mlp_bias),
                down_proj: linear(inner, width, config.mlp_bias),
                activation,
            });
        };
        let matrices = |outputs, inputs| Tensor::zeros([count, outputs, inputs], DType::F32);
        FeedForward::Experts(Experts {
            router: linear(width, count, false),
            gate: matrices(inner, width),
            down: matrices(width, inner),
            up: matrices(inner, width),
            activation,
            per_token: num_experts_per_tok,
            capacity: config.experts.as_ref().and_then(|experts| experts.capacity_factor),
        })
    }

    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> (Tensor, Option<Routing>) {
        match self {
            FeedForward::Mlp(mlp) => (cx.scope("mlp", |cx| mlp.forward(x, cx)), None),
            FeedForward::Experts(experts) => {
                let (y, routing) = cx.scope("block_sparse_moe", |cx| experts.forward(x, cx));
                (y, cx.is_training().then_some(routing))
            }
        }
    }
}

impl GatedMlp {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let gate = cx.scope("gate_proj", |cx| self.gate_proj.forward(x, cx));
        let up = cx.scope("up_proj", |cx| self.up_proj.forward(x, cx));
        let hidden = self.activation.gate(&gate, &up);
        cx.scope("down_proj", |cx| self.down_proj.forward(&hidden, cx))
    }
}

impl Layer {
    fn zeros(config: &LlamaConfig) -> Self {
        let width = config.hidden_size;
        let zero = Key::new(0);
        let linear = |inputs, outputs| {
            Linear::with_init(inputs, outputs, config.attention_bias, Init::Zeros, &zero)
        };
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        Layer {
            self_attn: SelfAttention {
                q_proj: linear(width, queries),
                k_proj: linear(width, keys),
                v_proj: linear(width, keys),
                o_proj: linear(queries, width),
                heads: config.num_attention_heads,
                groups: config.num_key_value_heads,
                dropout: Dropout::new(config.attention_dropout),
            },
            feed_forward: FeedForward::zeros(config),
            input_layernorm: RmsNorm::new(width, config.rms_norm_eps),
            post_attention_layernorm: RmsNorm::new(width, config.rms_norm_eps),
        }
    }

    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        rope: &Rope,
        state: &BlockState,
        pass: Pass<'_>,
        cx: &mut Context,
    ) -> (Tensor, BlockState) {
        let normal = cx.scope("input_layernorm", |cx| self.input_layernorm.forward(x, cx));
        let (y, mut state) =
            cx.scope("self_attn", |cx| self.self_attn.forward(&normal, rope, state, pass, cx));
        let x = residual(x + y);
        let norm = &self.post_attention_layernorm;
        let normal = cx.scope("post_attention_layernorm", |cx| norm.forward(&x, cx));
        let (y, routing) = self.feed_forward.forward(&normal, cx);
        let x = residual(x + y);
        state.routing = routing;
        state.output = pass.hidden.then(|| x.clone());
        (x, state)
    }
}

impl Llama {
    /// A model of this shape with weights of zero and norms of one.
    pub(super) fn zeros(config: &LlamaConfig) -> Self {
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        let zero = Key::new(0);
        Llama {
            model: Decoder {
                embed_tokens: Embedding::with_init(vocab, width, Init::Zeros, &zero),
                layers: (0..config.num_hidden_layers).map(|_| Layer::zeros(config)).collect(),
                norm: RmsNorm::new(width, config.rms_norm_eps),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::with_init(width, vocab, false, Init::Zeros, &zero)),
            config: config.clone(),
        }
    }

    #[track_caller]
    pub(super) fn pass(&self, input: Input<'_>, cx: &mut Context) -> Output {
        cx.scope("model", |cx| self.model.pass(&self.config, input, cx))
    }

    /// Scores of all tokens for hidden states `[.., hidden_size]`.
    #[track_caller]
    pub(super) fn head(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("model.norm", |cx| self.model.norm.forward(x, cx));
        cx.scope("lm_head", |cx| match &self.lm_head {
            Some(head) => head.forward(&x, cx),
            None => self.model.embed_tokens.attend(&x, cx),
        })
    }
}

impl Decoder {
    #[track_caller]
    fn pass(&self, config: &LlamaConfig, input: Input<'_>, cx: &mut Context) -> Output {
        let x = cx.scope("embed_tokens", |cx| self.embed_tokens.forward(input.ids, cx));
        let positions = input.at.positions(input.ids.size(1));
        let rope = cx
            .scope("rope", |_| Rope::with_frequencies(&positions, &frequencies(config), x.dtype()));
        let pass = Pass { at: input.at, hidden: input.hidden };
        let first = x.clone();
        let (x, states) = cx.scope("layers", |cx| {
            self.layers.forward_with(x, input.states(self.layers.len()), cx, {
                |layer, x, state, cx| layer.forward(&x, &rope, &state, pass, cx)
            })
        });
        Output::new(first, x, states)
    }
}
