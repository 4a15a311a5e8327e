//! `config.json` of GPT-2, Llama and Mixtral, read in the layouts of transformers 4 and 5.

use std::fmt;
use std::path::Path;

use ferrata_ir::DType;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::{Error, Result};

/// The configuration of a model that Ferrata knows.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// `model_type` = `gpt2`.
    Gpt2(Gpt2Config),
    /// `model_type` = `llama`, or `mixtral` where there are experts.
    Llama(LlamaConfig),
}

/// GPT-2: pre-norm decoder with learned positions. Field names are those of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest context in tokens.
    pub n_positions: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads; divides `n_embd`.
    pub n_head: usize,
    /// Width inside the MLP (`4 * n_embd` where the file has none).
    pub n_inner: usize,
    /// Activation of the MLP.
    pub activation_function: Activation,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// Dropout after the embedding.
    pub embd_pdrop: f64,
    /// Dropout of attention weights.
    pub attn_pdrop: f64,
    /// Dropout before each residual sum.
    pub resid_pdrop: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether scores are divided by the square root of the head size.
    pub scale_attn_weights: bool,
    /// Whether scores are also divided by the number of the layer, counted from one.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output matrix is the token embedding.
    pub tie_word_embeddings: bool,
    /// The dtype that the weights are stored in.
    pub dtype: DType,
    /// Ids with a meaning of their own.
    pub tokens: SpecialTokens,
}

/// Llama: pre-norm decoder with rotary positions, grouped queries, RMS normalisation and a gated
/// MLP, or, as in Mixtral, a mixture of such MLPs. Field names are those of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads` (equal to it where the file has none).
    pub num_key_value_heads: usize,
    /// Size of one head, even (`hidden_size / num_attention_heads` where the file has none).
    pub head_dim: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMS normalisation.
    pub rms_norm_eps: f64,
    /// Base of the rotary wavelengths.
    pub rope_theta: f64,
    /// Stretching of the rotary wavelengths.
    pub rope_scaling: RopeScaling,
    /// Activation of the MLP's gate.
    pub hidden_act: Activation,
    /// Whether the four projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the three projections of the MLP have a bias.
    pub mlp_bias: bool,
    /// The experts that stand for the MLP, if it is a mixture; there are no biases then.
    pub experts: Option<ExpertsConfig>,
    /// Whether the output matrix is the token embedding.
    pub tie_word_embeddings: bool,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// The dtype that the weights are stored in.
    pub dtype: DType,
    /// Ids with a meaning of their own.
    pub tokens: SpecialTokens,
}

/// Experts of which each token reaches a few. Field names are those of Mixtral's `config.json`, but
/// for the last.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Number of experts in each layer.
    pub num_local_experts: usize,
    /// How many of them each token reaches.
    pub num_experts_per_tok: usize,
    /// Weight of the balance of experts in the training loss.
    pub router_aux_loss_coef: f64,
    /// How many times its even share of the tokens an expert takes in training, at most; the others
    /// pass it by. Without it every token reaches its experts.
    pub capacity_factor: Option<f64>,
}

/// Token ids with a meaning of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Each of these ends a text.
    pub eos: Vec<u32>,
    /// Fills a row of a batch.
    pub pad: Option<u32>,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + erf(x / √2))`: `gelu`.
    Gelu,
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// `x / (1 + exp(−1.702 x))`: `quick_gelu`.
    QuickGelu,
    /// `max(x, 0)`: `relu`.
    Relu,
    /// `x / (1 + exp(−x))`: `silu`, `swish`.
    Silu,
    /// `tanh`.
    Tanh,
}

/// How rotary wavelengths are stretched for contexts longer than those of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all: `default`.
    None,
    /// Every wavelength times `factor`: `linear`.
    Linear {
        /// The factor, at least 1.
        factor: f64,
    },
    /// Long wavelengths times `factor`, short ones kept, a ramp between them: `llama3`.
    Llama3 {
        /// The factor, at least 1.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are short.
        high_freq_factor: f64,
        /// The context of pre-training, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl Activation {
    const NAMES: [(&'static str, Activation); 9] = [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("quick_gelu", Activation::QuickGelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("tanh", Activation::Tanh),
    ];

    /// The activation with this name in `config.json`.
    pub fn from_name(name: &str) -> Option<Activation> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, activation)| activation)
    }

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::QuickGelu => "quick_gelu",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
            Activation::Tanh => "tanh",
        }
    }

    pub(super) fn read(fields: &Fields<'_>, key: &str, default: Activation) -> Result<Activation> {
        let Some(name) = fields.text(key)? else { return Ok(default) };
        Activation::from_name(name).ok_or_else(|| {
            let known = Self::NAMES.map(|(name, _)| name).join(", ");
            fields.unsupported(key, &format!("one of {known}"))
        })
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl SpecialTokens {
    pub(super) fn read(fields: &Fields<'_>) -> Result<SpecialTokens> {
        Ok(SpecialTokens {
            bos: fields.token_ids("bos_token_id")?.first().copied(),
            eos: fields.token_ids("eos_token_id")?,
            pad: fields.token_ids("pad_token_id")?.first().copied(),
        })
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let eos = match self.eos.as_slice() {
            [] => Value::Null,
            [one] => Value::from(*one),
            several => Value::from(several),
        };
        map.insert("bos_token_id".into(), Value::from(self.bos));
        map.insert("eos_token_id".into(), eos);
        map.insert("pad_token_id".into(), Value::from(self.pad));
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not a JSON object; [`Error::Config`] that names the key if a
    /// value is missing, of the wrong type, impossible or not supported.
    pub fn from_json(text: &[u8], path: &Path) -> Result<ModelConfig> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|e| Error::damaged(path, format!("not valid JSON ({e})")))?;
        let Value::Object(map) = value else {
            return Err(Error::damaged(path, "not a JSON object"));
        };
        let fields = Fields { path, map: &map };
        if fields.get("quantization_config").is_some() {
            return Err(fields.unsupported("quantization_config", "weights that are not quantised"));
        }
        let Some(model_type) = fields.text("model_type")? else {
            let what = "`model_type` is missing; it must be one of gpt2, llama, mixtral";
            return Err(Error::config(path, what));
        };
        match model_type {
            "gpt2" => Gpt2Config::read(&fields).map(ModelConfig::Gpt2),
            "llama" => LlamaConfig::read(&fields, None).map(ModelConfig::Llama),
            "mixtral" => {
                let experts = ExpertsConfig::read(&fields)?;
                LlamaConfig::read(&fields, Some(experts)).map(ModelConfig::Llama)
            }
            _ => Err(fields.unsupported("model_type", "one of gpt2, llama, mixtral")),
        }
    }

    /// The text of a `config.json` that transformers reads: all values of transformers 5 and, for
    /// rotary positions, the older keys too.
    pub fn to_json(&self) -> String {
        let mut value = match self {
            ModelConfig::Gpt2(config) => config.to_value(),
            ModelConfig::Llama(config) => config.to_value(),
        };
        if let Value::Object(map) = &mut value {
            self.tokens().write(map);
            map.insert("dtype".into(), Value::from(dtype_name(self.dtype())));
            map.insert("tie_word_embeddings".into(), Value::from(self.tie_word_embeddings()));
            map.insert("model_type".into(), Value::from(self.model_type()));
            map.insert("architectures".into(), json!([self.architecture()]));
            map.insert("use_cache".into(), Value::from(true));
        }
        format!("{value:#}\n")
    }

    /// `gpt2`, `llama` or `mixtral`.
    pub fn model_type(&self) -> &'static str {
        match self {
            ModelConfig::Gpt2(_) => "gpt2",
            ModelConfig::Llama(config) if config.experts.is_some() => "mixtral",
            ModelConfig::Llama(_) => "llama",
        }
    }

    fn architecture(&self) -> &'static str {
        match self {
            ModelConfig::Gpt2(_) => "GPT2LMHeadModel",
            ModelConfig::Llama(config) if config.experts.is_some() => "MixtralForCausalLM",
            ModelConfig::Llama(_) => "LlamaForCausalLM",
        }
    }

    /// Number of token ids.
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelConfig::Gpt2(config) => config.vocab_size,
            ModelConfig::Llama(config) => config.vocab_size,
        }
    }

    /// Longest context in tokens.
    pub fn context(&self) -> usize {
        match self {
            ModelConfig::Gpt2(config) => config.n_positions,
            ModelConfig::Llama(config) => config.max_position_embeddings,
        }
    }

    /// Width of the hidden state.
    pub fn width(&self) -> usize {
        match self {
            ModelConfig::Gpt2(config) => config.n_embd,
            ModelConfig::Llama(config) => config.hidden_size,
        }
    }

    /// Number of repeated blocks.
    pub fn layers(&self) -> usize {
        match self {
            ModelConfig::Gpt2(config) => config.n_layer,
            ModelConfig::Llama(config) => config.num_hidden_layers,
        }
    }

    /// Number of experts in each block; 1 if there are none.
    pub fn experts(&self) -> usize {
        match self {
            ModelConfig::Gpt2(_) => 1,
            ModelConfig::Llama(config) => {
                config.experts.as_ref().map_or(1, |experts| experts.num_local_experts)
            }
        }
    }

    /// Whether the output matrix is the token embedding.
    pub fn tie_word_embeddings(&self) -> bool {
        match self {
            ModelConfig::Gpt2(config) => config.tie_word_embeddings,
            ModelConfig::Llama(config) => config.tie_word_embeddings,
        }
    }

    /// The dtype that the weights are stored in.
    pub fn dtype(&self) -> DType {
        match self {
            ModelConfig::Gpt2(config) => config.dtype,
            ModelConfig::Llama(config) => config.dtype,
        }
    }

    /// Ids with a meaning of their own.
    pub fn tokens(&self) -> &SpecialTokens {
        match self {
            ModelConfig::Gpt2(config) => &config.tokens,
            ModelConfig::Llama(config) => &config.tokens,
        }
    }

    /// Checks that the sizes fit together; `path` is for messages. Configurations that were read
    /// from a file have passed.
    ///
    /// # Errors
    /// [`Error::Config`] that names the keys and their values.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let problem = match self {
            ModelConfig::Gpt2(config) => config.problem(),
            ModelConfig::Llama(config) => config.problem(),
        };
        problem.map_or(Ok(()), |what| Err(Error::config(path, what)))
    }
}

impl Gpt2Config {
    fn read(fields: &Fields<'_>) -> Result<Gpt2Config> {
        if fields.flag("add_cross_attention", false)? {
            return Err(fields.unsupported("add_cross_attention", "false"));
        }
        let n_embd = fields.size(&["n_embd", "hidden_size"])?;
        let config = Gpt2Config {
            vocab_size: fields.size(&["vocab_size"])?,
            n_positions: fields.size(&["n_positions", "max_position_embeddings", "n_ctx"])?,
            n_embd,
            n_layer: fields.size(&["n_layer", "num_hidden_layers"])?,
            n_head: fields.size(&["n_head", "num_attention_heads"])?,
            n_inner: fields.optional_size("n_inner")?.unwrap_or(4 * n_embd),
            activation_function: Activation::read(
                fields,
                "activation_function",
                Activation::GeluTanh,
            )?,
            layer_norm_epsilon: fields.non_negative("layer_norm_epsilon", 1e-5)?,
            embd_pdrop: fields.probability("embd_pdrop", 0.1)?,
            attn_pdrop: fields.probability("attn_pdrop", 0.1)?,
            resid_pdrop: fields.probability("resid_pdrop", 0.1)?,
            initializer_range: fields.non_negative("initializer_range", 0.02)?,
            scale_attn_weights: fields.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: fields
                .flag("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
            dtype: read_dtype(fields)?,
            tokens: SpecialTokens::read(fields)?,
        };
        match config.problem() {
            None => Ok(config),
            Some(what) => Err(Error::config(fields.path, what)),
        }
    }

    fn problem(&self) -> Option<String> {
        let (width, heads) = (self.n_embd, self.n_head);
        indivisible("n_head", heads, "n_embd", width)
    }

    fn to_value(&self) -> Value {
        json!({
            "vocab_size": self.vocab_size,
            "n_positions": self.n_positions,
            "n_embd": self.n_embd,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "activation_function": self.activation_function.name(),
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "embd_pdrop": self.embd_pdrop,
            "attn_pdrop": self.attn_pdrop,
            "resid_pdrop": self.resid_pdrop,
            "initializer_range": self.initializer_range,
            "scale_attn_weights": self.scale_attn_weights,
            "scale_attn_by_inverse_layer_idx": self.scale_attn_by_inverse_layer_idx,
        })
    }
}

/// What transformers takes where a file says nothing.
struct Defaults {
    context: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    key_value_heads: usize,
}

impl ExpertsConfig {
    fn read(fields: &Fields<'_>) -> Result<ExpertsConfig> {
        if fields.non_negative("router_jitter_noise", 0.0)? > 0.0 {
            return Err(fields.unsupported("router_jitter_noise", "0"));
        }
        if fields.get("sliding_window").is_some() {
            return Err(fields.unsupported("sliding_window", "null"));
        }
        let capacity =
            fields.get("capacity_factor").map(|_| fields.positive("capacity_factor", 1.0));
        Ok(ExpertsConfig {
            num_local_experts: fields.optional_size("num_local_experts")?.unwrap_or(8),
            num_experts_per_tok: fields.optional_size("num_experts_per_tok")?.unwrap_or(2),
            router_aux_loss_coef: fields.non_negative("router_aux_loss_coef", 0.001)?,
            capacity_factor: capacity.transpose()?,
        })
    }

    fn problem(&self) -> Option<String> {
        let (experts, chosen) = (self.num_local_experts, self.num_experts_per_tok);
        (chosen == 0 || chosen > experts).then(|| {
            format!(
                "`num_experts_per_tok` = {chosen} is not between 1 and `num_local_experts` = \
                 {experts}; change one of them"
            )
        })
    }

    fn write(&self, map: &mut Map<String, Value>) {
        map.insert("num_local_experts".into(), Value::from(self.num_local_experts));
        map.insert("num_experts_per_tok".into(), Value::from(self.num_experts_per_tok));
        map.insert("router_aux_loss_coef".into(), Value::from(self.router_aux_loss_coef));
        map.insert("capacity_factor".into(), Value::from(self.capacity_factor));
        map.insert("sliding_window".into(), Value::Null);
    }
}

impl LlamaConfig {
    fn read(fields: &Fields<'_>, experts: Option<ExpertsConfig>) -> Result<LlamaConfig> {
        let hidden_size = fields.size(&["hidden_size"])?;
        let heads = fields.size(&["num_attention_heads"])?;
        let defaults = match experts {
            None => Defaults {
                context: 2048,
                rms_norm_eps: 1e-6,
                rope_theta: 1e4,
                key_value_heads: heads,
            },
            Some(_) => Defaults {
                context: 131_072,
                rms_norm_eps: 1e-5,
                rope_theta: 1e6,
                key_value_heads: 8,
            },
        };
        let context = fields.optional_size("max_position_embeddings")?.unwrap_or(defaults.context);
        let (rope_theta, rope_scaling) = read_rope(fields, context, defaults.rope_theta)?;
        let key_value_heads = fields.optional_size("num_key_value_heads")?;
        let config = LlamaConfig {
            vocab_size: fields.size(&["vocab_size"])?,
            hidden_size,
            intermediate_size: fields.size(&["intermediate_size"])?,
            num_hidden_layers: fields.size(&["num_hidden_layers"])?,
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads.unwrap_or(defaults.key_value_heads),
            head_dim: fields.optional_size("head_dim")?.unwrap_or(hidden_size / heads),
            max_position_embeddings: context,
            rms_norm_eps: fields.non_negative("rms_norm_eps", defaults.rms_norm_eps)?,
            rope_theta,
            rope_scaling,
            hidden_act: Activation::read(fields, "hidden_act", Activation::Silu)?,
            attention_bias: fields.flag("attention_bias", false)?,
            mlp_bias: fields.flag("mlp_bias", false)?,
            experts,
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            attention_dropout: fields.probability("attention_dropout", 0.0)?,
            initializer_range: fields.non_negative("initializer_range", 0.02)?,
            dtype: read_dtype(fields)?,
            tokens: SpecialTokens::read(fields)?,
        };
        match config.problem() {
            None => Ok(config),
            Some(what) => Err(Error::config(fields.path, what)),
        }
    }

    fn problem(&self) -> Option<String> {
        let heads = self.num_attention_heads;
        let pair = "num_attention_heads";
        indivisible(pair, heads, "hidden_size", self.hidden_size)
            .or_else(|| indivisible("num_key_value_heads", self.num_key_value_heads, pair, heads))
            .or_else(|| {
                (self.head_dim % 2 == 1).then(|| {
                    let size = self.head_dim;
                    format!("the head size {size} is odd; rotary positions need an even `head_dim`")
                })
            })
            .or_else(|| {
                let biases = self.attention_bias || self.mlp_bias;
                (self.experts.is_some() && biases)
                    .then(|| "a model with experts has no biases; set both flags to false".into())
            })
            .or_else(|| self.experts.as_ref().and_then(ExpertsConfig::problem))
    }

    fn to_value(&self) -> Value {
        let mut rope = match self.rope_scaling {
            RopeScaling::None => json!({"rope_type": "default"}),
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        };
        let scaling =
            if self.rope_scaling == RopeScaling::None { Value::Null } else { rope.clone() };
        if let Value::Object(map) = &mut rope {
            map.insert("rope_theta".into(), Value::from(self.rope_theta));
        }
        let mut value = json!({
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "hidden_act": self.hidden_act.name(),
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "attention_dropout": self.attention_dropout,
            "initializer_range": self.initializer_range,
        });
        if let (Some(experts), Value::Object(map)) = (&self.experts, &mut value) {
            experts.write(map);
        }
        value
    }
}

pub(super) fn indivisible(
    part_key: &str,
    part: usize,
    whole_key: &str,
    whole: usize,
) -> Option<String> {
    (part == 0 || !whole.is_multiple_of(part)).then(|| {
        format!("`{part_key}` = {part} does not divide `{whole_key}` = {whole}; change one of them")
    })
}

/// Base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.
fn read_rope(fields: &Fields<'_>, context: usize, theta: f64) -> Result<(f64, RopeScaling)> {
    let theta = fields.positive("rope_theta", theta)?;
    let key =
        if fields.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let Some(map) = fields.object(key)? else { return Ok((theta, RopeScaling::None)) };
    let inner = Fields { path: fields.path, map };
    let theta = inner.positive("rope_theta", theta)?;
    if inner.positive("partial_rotary_factor", 1.0)? != 1.0 {
        return Err(inner.unsupported("partial_rotary_factor", "1"));
    }
    let type_key = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match inner.text(type_key)?.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: inner.factor("factor")? },
        "llama3" => {
            let original = match inner.optional_size("original_max_position_embeddings")? {
                Some(size) => size,
                None => {
                    fields.optional_size("original_max_position_embeddings")?.unwrap_or(context)
                }
            };
            let low_freq_factor = inner.factor("low_freq_factor")?;
            let high_freq_factor = inner.factor("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                let what =
                    "`high_freq_factor` must be above `low_freq_factor`; correct one of them";
                return Err(Error::config(fields.path, what));
            }
            RopeScaling::Llama3 {
                factor: inner.factor("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            }
        }
        _ => return Err(inner.unsupported(type_key, "default, linear or llama3")),
    };
    Ok((theta, scaling))
}

const DTYPES: [(&str, DType); 4] = [
    ("float64", DType::F64),
    ("float32", DType::F32),
    ("float16", DType::F16),
    ("bfloat16", DType::BF16),
];

pub(super) fn read_dtype(fields: &Fields<'_>) -> Result<DType> {
    let key = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    let Some(name) = fields.text(key)? else { return Ok(DType::F32) };
    let name = name.strip_prefix("torch.").unwrap_or(name);
    DTYPES
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, dtype)| dtype)
        .ok_or_else(|| fields.unsupported(key, "one of float64, float32, float16, bfloat16"))
}

pub(super) fn dtype_name(dtype: DType) -> &'static str {
    // Weights are floats; an integer type here would be a mistake that F32 does not make worse.
    DTYPES.into_iter().find(|(_, known)| *known == dtype).map_or("float32", |(name, _)| name)
}
