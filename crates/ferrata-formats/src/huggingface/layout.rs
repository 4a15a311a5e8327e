//! Names and shapes of the weights that a configuration asks for.

use super::config::{Gpt2Config, LlamaConfig, ModelConfig};

impl ModelConfig {
    /// Name and shape of every weight, as transformers saves them, in the order of the model.
    /// GPT-2 stores its projections `[in, out]`, Llama `[out, in]`; a tied output matrix is not
    /// among them.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            ModelConfig::Gpt2(config) => gpt2(config),
            ModelConfig::Llama(config) => llama(config),
        }
    }

    /// Number of weights, counted without a list of them: a configuration may ask for more layers
    /// than anybody can list.
    pub fn parameters(&self) -> u128 {
        let with = |layers: usize| -> u128 {
            let mut config = self.clone();
            match &mut config {
                ModelConfig::Gpt2(config) => config.n_layer = layers,
                ModelConfig::Llama(config) => config.num_hidden_layers = layers,
            }
            let size = |shape: &[usize]| shape.iter().map(|&n| n as u128).product::<u128>();
            config.tensors().iter().map(|(_, shape)| size(shape)).sum()
        };
        let beside = with(0);
        beside + (with(1) - beside) * self.layers() as u128
    }

    /// The name that [`ModelConfig::tensors`] uses for the tensor `name` of a file: published
    /// files also come without the leading `transformer.` or `model.`. `None` for buffers that
    /// are no weights (causal masks, rotary frequencies) and for a tied output matrix.
    pub fn canonical_name(&self, name: &str) -> Option<String> {
        if name == "lm_head.weight" {
            return (!self.tie_word_embeddings()).then(|| name.to_owned());
        }
        let (prefix, buffers): (&str, &[&str]) = match self {
            ModelConfig::Gpt2(_) => ("transformer.", &[".attn.bias", ".attn.masked_bias"]),
            ModelConfig::Llama(_) => ("model.", &[".rotary_emb.inv_freq"]),
        };
        if buffers.iter().any(|buffer| name.ends_with(buffer)) {
            return None;
        }
        let inner = name.strip_prefix(prefix).unwrap_or(name);
        Some(format!("{prefix}{inner}"))
    }
}

fn gpt2(c: &Gpt2Config) -> Vec<(String, Vec<usize>)> {
    let (width, inner) = (c.n_embd, c.n_inner);
    let mut tensors = vec![
        ("transformer.wte.weight".to_owned(), vec![c.vocab_size, width]),
        ("transformer.wpe.weight".to_owned(), vec![c.n_positions, width]),
    ];
    for layer in 0..c.n_layer {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("transformer.h.{layer}.{name}"), shape.to_vec()));
        };
        add("ln_1.weight", &[width]);
        add("ln_1.bias", &[width]);
        add("attn.c_attn.weight", &[width, 3 * width]);
        add("attn.c_attn.bias", &[3 * width]);
        add("attn.c_proj.weight", &[width, width]);
        add("attn.c_proj.bias", &[width]);
        add("ln_2.weight", &[width]);
        add("ln_2.bias", &[width]);
        add("mlp.c_fc.weight", &[width, inner]);
        add("mlp.c_fc.bias", &[inner]);
        add("mlp.c_proj.weight", &[inner, width]);
        add("mlp.c_proj.bias", &[width]);
    }
    tensors.push(("transformer.ln_f.weight".to_owned(), vec![width]));
    tensors.push(("transformer.ln_f.bias".to_owned(), vec![width]));
    if !c.tie_word_embeddings {
        tensors.push(("lm_head.weight".to_owned(), vec![c.vocab_size, width]));
    }
    tensors
}

fn llama(c: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
    let (width, inner) = (c.hidden_size, c.intermediate_size);
    let queries = c.num_attention_heads * c.head_dim;
    let keys = c.num_key_value_heads * c.head_dim;
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![c.vocab_size, width])];
    for layer in 0..c.num_hidden_layers {
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        let mut project = |name: &str, output: usize, input: usize, bias: bool| {
            add(&format!("{name}.weight"), &[output, input]);
            if bias {
                add(&format!("{name}.bias"), &[output]);
            }
        };
        project("self_attn.q_proj", queries, width, c.attention_bias);
        project("self_attn.k_proj", keys, width, c.attention_bias);
        project("self_attn.v_proj", keys, width, c.attention_bias);
        project("self_attn.o_proj", width, queries, c.attention_bias);
        match &c.experts {
            None => {
                project("mlp.gate_proj", inner, width, c.mlp_bias);
                project("mlp.up_proj", inner, width, c.mlp_bias);
                project("mlp.down_proj", width, inner, c.mlp_bias);
            }
            Some(experts) => {
                project("block_sparse_moe.gate", experts.num_local_experts, width, false);
                for expert in 0..experts.num_local_experts {
                    let name = format!("block_sparse_moe.experts.{expert}");
                    project(&format!("{name}.w1"), inner, width, false);
                    project(&format!("{name}.w2"), width, inner, false);
                    project(&format!("{name}.w3"), inner, width, false);
                }
            }
        }
        add("input_layernorm.weight", &[width]);
        add("post_attention_layernorm.weight", &[width]);
    }
    tensors.push(("model.norm.weight".to_owned(), vec![width]));
    if !c.tie_word_embeddings {
        tensors.push(("lm_head.weight".to_owned(), vec![c.vocab_size, width]));
    }
    tensors
}
