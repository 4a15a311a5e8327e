//! What models do with files, caches, seeds and wrong input; tiny random ones.

use crate::pack::{Deviation, values};
use ferrata::models::{GenerateOptions, Model, ModelConfig, run, run_file};
use ferrata::nn::Context;
use ferrata::{DType, Key, Module, Tensor, grad, tree};
use ferrata_formats::RawTensor;
use ferrata_formats::huggingface::{Activation, RopeScaling};
use ferrata_formats::safetensors::{self, TensorFile};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn config(text: &str) -> ModelConfig {
    ModelConfig::from_json(text.as_bytes(), "config.json".as_ref()).unwrap()
}

fn gpt2() -> ModelConfig {
    config(
        r#"{"model_type": "gpt2", "vocab_size": 13, "n_positions": 24, "n_embd": 12, "n_layer": 2,
        "n_head": 3, "n_inner": 20, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0,
        "initializer_range": 0.3, "activation_function": "gelu"}"#,
    )
}

fn llama() -> ModelConfig {
    config(
        r#"{"model_type": "llama", "vocab_size": 13, "hidden_size": 12, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
        "max_position_embeddings": 40, "initializer_range": 0.3, "attention_bias": true,
        "mlp_bias": true, "tie_word_embeddings": true, "hidden_act": "gelu_new",
        "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}"#,
    )
}

fn mixtral() -> ModelConfig {
    config(
        r#"{"model_type": "mixtral", "vocab_size": 13, "hidden_size": 12, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
        "max_position_embeddings": 40, "initializer_range": 0.3, "num_local_experts": 5,
        "router_aux_loss_coef": 0.02}"#,
    )
}

/// A random model in which no bias and no norm is neutral.
fn model(config: &ModelConfig) -> Model {
    let model = Model::new(config, &Key::new(3)).unwrap();
    let mut number = 100;
    let model = tree::map(&model, |parameter| {
        number += 1;
        match parameter.rank() {
            1 => parameter + Tensor::randn(parameter.shape(), DType::F32, &Key::new(number)) * 0.2,
            _ => parameter.clone(),
        }
    });
    tree::eval(&model).unwrap();
    model
}

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ferrata-models-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn logits(model: &Model, ids: &[i64]) -> Vec<f32> {
    let ids = Tensor::from_slice(ids, &[1, ids.len()]);
    model.forward(&ids, &mut Context::eval()).to_vec::<f32>().unwrap()
}

/// Greedy tokens from passes over the whole sequence.
fn without_cache(model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
    for _ in 0..count {
        let all = logits(model, &ids);
        let last = &all[all.len() - model.vocab_size()..];
        let top = last.iter().fold(f32::MIN, |m, &x| m.max(x));
        ids.push(last.iter().position(|&x| x == top).unwrap() as i64);
    }
    ids[prompt.len()..].iter().map(|&id| id as u32).collect()
}

fn generate(model: &Model, prompt: &[u32], options: &GenerateOptions) -> Vec<u32> {
    model.generate(prompt, options).unwrap().map(|id| id.unwrap()).collect()
}

fn greedy(max_new: usize) -> GenerateOptions {
    GenerateOptions { max_new, temperature: 0.0, ..GenerateOptions::default() }
}

#[test]
fn greedy_tokens_are_those_without_a_cache() {
    for config in [gpt2(), llama(), mixtral()] {
        let model = model(&config);
        // A prompt that fills its shape, and one that does not.
        for length in [16u32, 5] {
            let prompt: Vec<u32> = (0..length).map(|i| i * 7 % 13).collect();
            let count = 8;
            let found = generate(&model, &prompt, &greedy(count));
            assert_eq!(found, without_cache(&model, &prompt, count), "{}", config.model_type());
        }
    }
}

#[test]
fn a_cache_grows_with_the_sequence() {
    let mut config = llama();
    let ModelConfig::Llama(inner) = &mut config else { unreachable!() };
    inner.max_position_embeddings = 512;
    inner.num_hidden_layers = 1;
    let model = model(&config);
    let prompt: Vec<u32> = (0..60).map(|i| i * 5 % 13).collect();
    // Without a limit the first cache has room for few more than the prompt.
    let endless = GenerateOptions { max_new: 8, ..greedy(0) };
    let found = generate(&model, &prompt, &endless);
    assert_eq!(found, without_cache(&model, &prompt, 8));
    let cache = model.cache(1, 4, DType::F32);
    assert_eq!((cache.capacity(), cache.grown(8).capacity()), (4, 8));
}

#[test]
fn a_full_context_slides() {
    let model = model(&gpt2());
    let prompt: Vec<u32> = (0..20).map(|i| i * 7 % 13).collect();
    let mut generation = model.generate(&prompt, &greedy(10)).unwrap();
    let found: Vec<u32> = generation.by_ref().map(|id| id.unwrap()).collect();
    assert_eq!((found.len(), generation.slides()), (10, 1));
    // As long as it fits nothing is dropped; then 12 of 24 are kept and read anew.
    assert_eq!(found[..5], without_cache(&model, &prompt, 5)[..]);
    let all = generation.ids().to_vec();
    assert_eq!(all[25..], without_cache(&model, &all[13..25], 5)[..]);
}

#[test]
fn samples_follow_the_seed() {
    let model = model(&llama());
    let options = |seed| GenerateOptions { max_new: 12, seed, ..GenerateOptions::default() };
    let first = generate(&model, &[1, 2], &options(1));
    assert_eq!(first, generate(&model, &[1, 2], &options(1)));
    assert_ne!(first, generate(&model, &[1, 2], &options(2)));
    let only_best = GenerateOptions { top_k: Some(1), ..options(5) };
    assert_eq!(generate(&model, &[1, 2], &only_best), generate(&model, &[1, 2], &greedy(12)));
}

#[test]
fn generation_stops() {
    let model = model(&gpt2());
    let all = generate(&model, &[1, 2], &greedy(6));
    let stop = GenerateOptions { stop: vec![all[2]], ..greedy(6) };
    let end = all.iter().position(|id| *id == all[2]).unwrap();
    assert_eq!(generate(&model, &[1, 2], &stop), all[..=end]);
    assert!(generate(&model, &[1, 2], &greedy(0)).is_empty());
}

#[test]
fn wrong_prompts_and_options_are_named() {
    let model = model(&gpt2());
    let refused = |prompt: &[u32], options: &GenerateOptions| {
        model.generate(prompt, options).err().unwrap().to_string()
    };
    let id = refused(&[1, 13, 2], &greedy(1));
    assert!(id.contains("id 13 at position 1") && id.contains("the 13 of"), "{id}");
    assert!(refused(&[], &greedy(1)).contains("no tokens"));
    let long = refused(&[1; 25], &greedy(1));
    assert!(long.contains("25 tokens") && long.contains("24"), "{long}");
    for options in [
        GenerateOptions { temperature: -1.0, ..greedy(1) },
        GenerateOptions { temperature: f64::NAN, ..greedy(1) },
        GenerateOptions { top_k: Some(0), ..greedy(1) },
        GenerateOptions { top_p: Some(0.0), ..greedy(1) },
        GenerateOptions { top_p: Some(1.5), ..greedy(1) },
    ] {
        assert!(refused(&[1], &options).contains("; give"));
    }
    let too_long = Tensor::zeros([1, 25], DType::I64);
    let error = model.forward(&too_long, &mut Context::eval()).eval().unwrap_err().to_string();
    assert!(error.contains("25 tokens") && error.contains("24 positions"), "{error}");
    let floats = Tensor::zeros([1, 2], DType::F32);
    let error = model.forward(&floats, &mut Context::eval()).eval().unwrap_err().to_string();
    assert!(error.contains("must be integers"), "{error}");
    let flat = Tensor::zeros([2], DType::I64);
    let error = model.forward(&flat, &mut Context::eval()).eval().unwrap_err().to_string();
    assert!(error.contains("[batch, time]"), "{error}");
}

#[test]
fn models_survive_their_files() {
    for config in [gpt2(), llama(), mixtral()] {
        let folder = scratch(config.model_type());
        let original = model(&config);
        original.save(folder.join("a"), None).unwrap();
        let loaded = Model::load(folder.join("a")).unwrap();
        assert_eq!(loaded.config(), config);
        let ids = [3, 1, 4, 1, 5];
        assert_eq!(logits(&loaded, &ids), logits(&original, &ids));
        let file = TensorFile::open(folder.join("a/model.safetensors")).unwrap();
        let mut names: Vec<(String, Vec<usize>)> =
            file.iter().map(|(name, view)| (name.to_owned(), view.shape.to_vec())).collect();
        let mut expected = config.tensors();
        expected.sort();
        names.sort();
        assert_eq!(names, expected);
        // Half precision on disk; f32 in memory.
        original.cast(DType::BF16).save(folder.join("b"), None).unwrap();
        let file = TensorFile::open(folder.join("b/model.safetensors")).unwrap();
        assert!(file.iter().all(|(_, view)| view.dtype == DType::BF16));
        let half = Model::load(folder.join("b")).unwrap();
        assert!(half.parameters().iter().all(|parameter| parameter.dtype() == DType::F32));
        assert_eq!(half.config().dtype(), DType::BF16);
        std::fs::remove_dir_all(folder).unwrap();
    }
    let missing = Model::load("/no/such/model").unwrap_err().to_string();
    assert!(missing.contains("/no/such/model") && missing.contains("check the path"), "{missing}");
}

#[test]
fn settings_change_what_they_should() {
    let ids = [3, 1, 4, 1, 5, 9, 2];
    let base = model(&gpt2());
    let differs = |changed: &ModelConfig, base: &Model| {
        let skeleton = Model::new(changed, &Key::new(0)).unwrap();
        let parameters = base.named_parameters().into_iter().collect();
        let changed = Module::load(&skeleton, parameters).unwrap();
        logits(&changed, &ids) != logits(base, &ids)
    };
    let with = |change: &dyn Fn(&mut ferrata::models::Gpt2Config)| {
        let mut config = gpt2();
        let ModelConfig::Gpt2(inner) = &mut config else { unreachable!() };
        change(inner);
        differs(&config, &base)
    };
    assert!(!with(&|_| ()));
    assert!(with(&|c| c.activation_function = Activation::Relu));
    assert!(with(&|c| c.activation_function = Activation::GeluTanh));
    assert!(with(&|c| c.activation_function = Activation::Silu));
    assert!(with(&|c| c.activation_function = Activation::Tanh));
    assert!(with(&|c| c.scale_attn_weights = false));
    assert!(with(&|c| c.scale_attn_by_inverse_layer_idx = true));
    assert!(with(&|c| c.layer_norm_epsilon = 0.1));
    let base = model(&llama());
    let with = |change: &dyn Fn(&mut ferrata::models::LlamaConfig)| {
        let mut config = llama();
        let ModelConfig::Llama(inner) = &mut config else { unreachable!() };
        change(inner);
        differs(&config, &base)
    };
    assert!(!with(&|_| ()));
    assert!(with(&|c| c.rope_scaling = RopeScaling::None));
    assert!(with(&|c| c.rope_scaling = RopeScaling::Linear { factor: 2.0 }));
    assert!(with(&|c| c.rope_theta = 500.0));
    assert!(with(&|c| c.hidden_act = Activation::Silu));
    assert!(with(&|c| c.rms_norm_eps = 0.1));
}

#[test]
fn recomputing_blocks_changes_no_gradient() {
    let (ids, targets) = (Tensor::from([[1i64, 2, 3, 4]]), Tensor::from([[2i64, 3, 4, 5]]));
    for config in [gpt2(), llama(), mixtral()] {
        let slopes = |again: &[usize]| {
            let model = model(&config).with_recompute(again.iter().copied());
            let slopes = grad(|m: &Model| m.loss(&ids, &targets, &mut Context::eval()))(&model);
            slopes.parameters().iter().flat_map(values).collect::<Vec<f64>>()
        };
        // Other kernels are fused, so that sums may round in another way.
        for again in [&[0, 1][..], &[1]] {
            let deviation = Deviation::of(&slopes(again), &slopes(&[]));
            deviation.within(config.model_type(), [1e-5, 1e-5, 2e-6]);
        }
    }
}

#[test]
fn dropout_follows_the_key_and_the_mode() {
    for mut config in [gpt2(), llama()] {
        match &mut config {
            ModelConfig::Gpt2(c) => (c.embd_pdrop, c.attn_pdrop, c.resid_pdrop) = (0.1, 0.2, 0.1),
            ModelConfig::Llama(c) => c.attention_dropout = 0.3,
        }
        let model = model(&config);
        let (ids, targets) = (Tensor::from([[1i64, 2, 3, 4]]), Tensor::from([[2i64, 3, 4, 5]]));
        let loss = |mut cx| model.loss(&ids, &targets, &mut cx).item::<f32>().unwrap();
        let plain = loss(Context::eval());
        let first = loss(Context::train(Key::new(1)));
        assert_eq!(first, loss(Context::train(Key::new(1))));
        assert_ne!(first, loss(Context::train(Key::new(2))));
        assert_ne!(first, plain);
        assert!((first - plain).abs() < 1.0, "{first} {plain}");
        let train = || Context::train(Key::new(1));
        let slopes = grad(|m: &Model| m.loss(&ids, &targets, &mut train()))(&model);
        let all: Vec<f64> = slopes.parameters().iter().flat_map(values).collect();
        assert!(all.iter().all(|slope| slope.is_finite()));
    }
}

#[test]
fn a_fresh_model_knows_nothing() {
    let mut config = gpt2();
    let ModelConfig::Gpt2(inner) = &mut config else { unreachable!() };
    inner.initializer_range = 0.02;
    let model = Model::new(&config, &Key::new(5)).unwrap();
    let (ids, targets) = (Tensor::from([[1i64, 2, 3, 4]]), Tensor::from([[2i64, 3, 4, 5]]));
    let loss = model.loss(&ids, &targets, &mut Context::eval()).item::<f32>().unwrap();
    assert!((loss - 13f32.ln()).abs() < 0.1, "{loss}");
    let std = |name: &str| {
        let found = model.named_parameters().into_iter().find(|(n, _)| n == name).unwrap().1;
        found.std(.., 0.0).item::<f32>().unwrap()
    };
    assert!((std("transformer.wte.weight") - 0.02).abs() < 0.004);
    assert!((std("transformer.h.1.mlp.c_proj.weight") - 0.01).abs() < 0.002);
}

#[test]
fn heads_must_divide_the_width() {
    let mut config = gpt2();
    let ModelConfig::Gpt2(inner) = &mut config else { unreachable!() };
    inner.n_head = 5;
    let error = Model::new(&config, &Key::new(0)).unwrap_err().to_string();
    assert!(error.contains("n_head") && error.contains("12"), "{error}");
}

#[test]
fn tensors_of_a_file_run_through_a_model() {
    let folder = scratch("run");
    let model = model(&llama());
    model.save(folder.join("model"), None).unwrap();
    let ids = RawTensor::from_i64(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
    let targets = RawTensor::from_i64(&[2, 1, 3], &[2, 3, 4, 5, 6, 7]);
    let (input, output) = (folder.join("in.safetensors"), folder.join("out.safetensors"));
    let tensors = [("input_ids", ids.view()), ("targets", targets.view())];
    safetensors::write(&input, tensors, &BTreeMap::new()).unwrap();
    run_file(&folder.join("model"), &input, &output).unwrap();
    let results = TensorFile::open(&output).unwrap();
    let found = results.get("logits").unwrap();
    assert_eq!((found.shape, found.dtype), (&[2, 1, 3, 13][..], DType::F32));
    let second = &found.to_f32().unwrap()[3 * 13..];
    for (a, b) in second.iter().zip(logits(&model, &[4, 5, 6])) {
        assert!((a - b).abs() < 1e-5);
    }
    assert!(results.get("loss").unwrap().to_f32().unwrap()[0] > 0.0);
    let refused = |name: &str, tensor: &RawTensor| {
        let inputs = BTreeMap::from([(name.to_owned(), tensor.view())]);
        run(&model, &inputs).err().unwrap().to_string()
    };
    assert!(refused("ids", &ids).contains("no input `ids`"));
    let outside = refused("input_ids", &RawTensor::from_i64(&[1, 2], &[1, 13]));
    assert!(outside.contains("`input_ids`: token id 13 at position 1"), "{outside}");
    assert!(refused("input_ids", &RawTensor::from_f32(&[1], &[1.0])).contains("f32"));
    assert!(refused("input_ids", &RawTensor::from_i64(&[1, 0], &[])).contains("at least one"));
    assert!(refused("targets", &targets).contains("`input_ids` is missing"));
    std::fs::remove_dir_all(folder).unwrap();
}
