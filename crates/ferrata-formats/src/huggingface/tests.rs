use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferrata_ir::DType;
use serde_json::{Value, json};

use super::*;
use crate::tensor::tests::scratch;
use crate::{RawTensor, safetensors};

const GPT2: &[u8] = include_bytes!("../../tests/data/gpt2.config.json");
const LLAMA_V5: &[u8] = include_bytes!("../../tests/data/llama.v5.config.json");
const LLAMA_V4: &[u8] = include_bytes!("../../tests/data/llama.v4.config.json");

fn parse(text: &[u8]) -> crate::Result<ModelConfig> {
    ModelConfig::from_json(text, Path::new("dir/config.json"))
}

/// A sample configuration with some keys replaced; `null` removes a key.
fn changed(base: &[u8], changes: Value) -> crate::Result<ModelConfig> {
    let mut value: Value = serde_json::from_slice(base).unwrap();
    for (key, new) in changes.as_object().unwrap() {
        value[key] = new.clone();
    }
    parse(value.to_string().as_bytes())
}

fn llama(config: ModelConfig) -> LlamaConfig {
    let ModelConfig::Llama(config) = config else { panic!("not a llama") };
    config
}

fn gpt2(config: ModelConfig) -> Gpt2Config {
    let ModelConfig::Gpt2(config) = config else { panic!("not a gpt2") };
    config
}

/// Distinct values for every weight of `config`.
fn weights(config: &ModelConfig) -> Vec<(String, RawTensor)> {
    let tensors = config.tensors().into_iter().enumerate();
    tensors
        .map(|(i, (name, shape))| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|j| (i * 31 + j) as f32 * 1e-3).collect();
            (name, RawTensor::from_f32(&shape, &values))
        })
        .collect()
}

fn write_weights(path: &Path, tensors: &[(String, RawTensor)]) {
    let views = tensors.iter().map(|(name, t)| (name.as_str(), t.view()));
    safetensors::write(path, views, &BTreeMap::new()).unwrap();
}

fn written(name: &str, base: &[u8]) -> (PathBuf, ModelConfig, Vec<(String, RawTensor)>) {
    let config = parse(base).unwrap();
    let tensors = weights(&config);
    let folder = scratch(name).join("model");
    let views = tensors.iter().map(|(name, t)| (name.as_str(), t.view()));
    write_directory(&folder, &config, views, None).unwrap();
    (folder, config, tensors)
}

#[test]
fn reads_the_sample_configurations() {
    let config = gpt2(parse(GPT2).unwrap());
    assert_eq!((config.n_layer, config.n_embd, config.n_head, config.n_inner), (3, 64, 4, 256));
    assert_eq!((config.n_positions, config.vocab_size, config.dtype), (64, 65, DType::F32));
    assert_eq!(config.activation_function, Activation::GeluTanh);
    assert!(config.tie_word_embeddings && config.tokens == SpecialTokens::default());

    let new = llama(parse(LLAMA_V5).unwrap());
    assert_eq!((new.num_attention_heads, new.num_key_value_heads, new.head_dim), (8, 2, 8));
    assert_eq!((new.rope_theta, new.rope_scaling), (10_000.0, RopeScaling::None));
    assert!(!new.tie_word_embeddings);
    assert_eq!(llama(parse(LLAMA_V4).unwrap()), new, "both layouts say the same");
}

#[test]
fn absent_values_have_the_defaults_of_transformers() {
    let minimal = json!({
        "model_type": "llama", "vocab_size": 10, "hidden_size": 24, "intermediate_size": 5,
        "num_hidden_layers": 2, "num_attention_heads": 6,
    });
    let config = llama(parse(minimal.to_string().as_bytes()).unwrap());
    assert_eq!((config.head_dim, config.num_key_value_heads), (4, 6));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10_000.0));
    assert_eq!(config.max_position_embeddings, 2048);
    assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    assert_eq!((config.dtype, config.hidden_act), (DType::F32, Activation::Silu));

    let minimal = json!({
        "model_type": "gpt2", "vocab_size": 10, "n_ctx": 7, "n_embd": 8, "n_layer": 1, "n_head": 2,
    });
    let config = gpt2(parse(minimal.to_string().as_bytes()).unwrap());
    assert!(config.tie_word_embeddings && config.scale_attn_weights);
    assert_eq!((config.n_positions, config.n_inner, config.resid_pdrop), (7, 32, 0.1));
}

#[test]
fn mixtral_is_a_llama_with_experts() {
    let minimal = json!({
        "model_type": "mixtral", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 5,
        "num_hidden_layers": 2, "num_attention_heads": 8,
    });
    let minimal = minimal.to_string();
    let config = parse(minimal.as_bytes()).unwrap();
    assert_eq!((config.model_type(), config.experts()), ("mixtral", 8));
    let names: Vec<String> = config.tensors().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 1 + 2 * (4 + 1 + 8 * 3 + 2) + 2);
    assert!(names.contains(&"model.layers.1.block_sparse_moe.experts.7.w3.weight".to_owned()));
    let json: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(json["architectures"], json!(["MixtralForCausalLM"]));
    assert_eq!(parse(config.to_json().as_bytes()).unwrap(), config);
    let config = llama(config);
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-5, 1e6));
    assert_eq!((config.max_position_embeddings, config.num_key_value_heads), (131_072, 8));
    let experts = config.experts.unwrap();
    assert_eq!((experts.num_experts_per_tok, experts.router_aux_loss_coef), (2, 0.001));
    assert_eq!(experts.capacity_factor, None);
    for (change, expected) in [
        (json!({"num_experts_per_tok": 9}), "`num_experts_per_tok` = 9 is not between 1 and"),
        (json!({"num_local_experts": 0}), "`num_local_experts` = 0 should be"),
        (json!({"capacity_factor": 0}), "`capacity_factor` = 0 should be a number above zero"),
        (json!({"sliding_window": 4096}), "`sliding_window` = 4096 is not supported; use null"),
        (json!({"router_jitter_noise": 0.1}), "`router_jitter_noise` = 0.1 is not supported"),
        (json!({"mlp_bias": true}), "no biases"),
    ] {
        let error = changed(minimal.as_bytes(), change).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn reads_rotary_scaling_of_both_layouts() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let old = json!({"rope_theta": 500000.0, "rope_scaling": llama3});
    let old = llama(changed(LLAMA_V4, old).unwrap());
    assert_eq!((old.rope_theta, old.rope_scaling), (500_000.0, expected));
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(500000);
    let new = llama(changed(LLAMA_V5, json!({"rope_parameters": parameters})).unwrap());
    assert_eq!((new.rope_theta, new.rope_scaling), (500_000.0, expected));

    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2}});
    let linear = llama(changed(LLAMA_V4, linear).unwrap());
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn token_ids_and_dtypes() {
    let ids = json!({"eos_token_id": [7, 9], "bos_token_id": 3, "pad_token_id": -1});
    let tokens = llama(changed(LLAMA_V5, ids).unwrap()).tokens;
    assert_eq!(tokens, SpecialTokens { bos: Some(3), eos: vec![7, 9], pad: None });
    let dtype = json!({"dtype": null, "torch_dtype": "torch.bfloat16"});
    assert_eq!(llama(changed(LLAMA_V5, dtype).unwrap()).dtype, DType::BF16);
}

#[test]
fn wrong_values_are_named() {
    for (base, change, expected) in [
        (GPT2, json!({"n_head": 5}), "`n_head` = 5 does not divide `n_embd` = 64"),
        (GPT2, json!({"n_embd": "64"}), "`n_embd` = \"64\" should be a whole number"),
        (GPT2, json!({"n_embd": 0}), "`n_embd` = 0 should be"),
        (GPT2, json!({"n_embd": 1e300}), "`n_embd` = 1e+300 should be"),
        (GPT2, json!({"n_layer": null}), "`n_layer` is missing"),
        (GPT2, json!({"activation_function": "mish"}), "\"mish\" is not supported"),
        (GPT2, json!({"resid_pdrop": 1.5}), "`resid_pdrop` = 1.5"),
        (GPT2, json!({"add_cross_attention": true}), "`add_cross_attention` = true is not"),
        (GPT2, json!({"model_type": "bert"}), "`model_type` = \"bert\" is not supported"),
        (GPT2, json!({"model_type": null}), "`model_type` is missing"),
        (GPT2, json!({"dtype": "float8"}), "`dtype` = \"float8\""),
        (LLAMA_V5, json!({"num_attention_heads": 7}), "`num_attention_heads` = 7 does not divide"),
        (LLAMA_V5, json!({"num_key_value_heads": 3}), "`num_key_value_heads` = 3 does not divide"),
        (LLAMA_V5, json!({"head_dim": 7}), "head size 7 is odd"),
        (LLAMA_V5, json!({"rms_norm_eps": -1}), "`rms_norm_eps` = -1"),
        (LLAMA_V5, json!({"attention_bias": 1}), "`attention_bias` = 1 should be true or false"),
        (LLAMA_V5, json!({"rope_parameters": {"rope_type": "yarn"}}), "\"yarn\" is not supported"),
        (LLAMA_V5, json!({"rope_parameters": {"rope_type": "linear"}}), "`factor` of the rotary"),
        (LLAMA_V5, json!({"rope_parameters": 3}), "`rope_parameters` = 3 should be an object"),
        (LLAMA_V5, json!({"quantization_config": {}}), "`quantization_config` = {}"),
        (LLAMA_V5, json!({"eos_token_id": "x"}), "`eos_token_id` = \"x\""),
    ] {
        let error = changed(base, change).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
        assert!(error.contains("dir/config.json") && !error.contains('\n'), "{error}");
    }
    assert!(parse(b"[1]").unwrap_err().to_string().contains("not a JSON object"));
    assert!(parse(b"{\"a\"").unwrap_err().to_string().contains("not valid JSON"));
}

#[test]
fn configurations_survive_writing() {
    let scaled = json!({"rope_parameters": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 1e6,
    }, "attention_bias": true, "mlp_bias": true, "eos_token_id": [1, 2], "dtype": "bfloat16"});
    for config in [
        parse(GPT2).unwrap(),
        parse(LLAMA_V5).unwrap(),
        changed(LLAMA_V5, scaled).unwrap(),
        changed(GPT2, json!({"n_inner": 100, "activation_function": "relu"})).unwrap(),
    ] {
        let text = config.to_json();
        assert_eq!(parse(text.as_bytes()).unwrap(), config);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["architectures"][0].is_string() && value["dtype"].is_string());
    }
}

#[test]
fn directories_survive_writing() {
    for (name, base) in [("hf_gpt2", GPT2), ("hf_llama", LLAMA_V5)] {
        let (folder, config, tensors) = written(name, base);
        let model = ModelDirectory::open(&folder).unwrap();
        assert_eq!(model.config, config);
        assert!(model.unexpected.is_empty());
        assert_eq!(model.weights().count(), tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!(&model.get(name).unwrap().to_owned(), tensor);
        }
        let file = safetensors::TensorFile::open(folder.join("model.safetensors")).unwrap();
        assert_eq!(file.metadata()["format"], "pt");
        assert!(folder.join("generation_config.json").is_file());
        let siblings = fs::read_dir(folder.parent().unwrap()).unwrap().count();
        assert_eq!(siblings, 1, "no temporary folder is left");
    }
}

#[test]
fn names_without_prefix_and_buffers_are_understood() {
    let config = parse(GPT2).unwrap();
    let mut tensors = weights(&config);
    for (name, _) in &mut tensors {
        *name = name.trim_start_matches("transformer.").to_owned();
    }
    let mask = RawTensor::from_f32(&[1, 1, 2, 2], &[1.0; 4]);
    tensors.push(("h.0.attn.bias".into(), mask.clone()));
    tensors.push(("h.0.attn.masked_bias".into(), mask.clone()));
    tensors.push(("lm_head.weight".into(), mask.clone()));
    tensors.push(("score.weight".into(), mask));
    let folder = scratch("hf_prefix");
    fs::write(folder.join("config.json"), GPT2).unwrap();
    write_weights(&folder.join("model.safetensors"), &tensors);
    let model = ModelDirectory::open(&folder).unwrap();
    assert_eq!(model.get("transformer.wte.weight").unwrap().shape, [65, 64]);
    assert_eq!(model.unexpected, ["score.weight"]);
}

fn write_shards(folder: &Path, split: usize) {
    let tensors = weights(&parse(LLAMA_V5).unwrap());
    let (first, second) = tensors.split_at(split);
    write_weights(&folder.join("model-00001-of-00002.safetensors"), first);
    write_weights(&folder.join("model-00002-of-00002.safetensors"), second);
    let map: serde_json::Map<String, Value> = tensors
        .iter()
        .enumerate()
        .map(|(i, (name, _))| {
            let number = 1 + usize::from(i >= 5);
            (name.clone(), json!(format!("model-0000{number}-of-00002.safetensors")))
        })
        .collect();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::write(folder.join("config.json"), LLAMA_V4).unwrap();
}

#[test]
fn sharded_weights_are_joined() {
    let folder = scratch("hf_shards");
    write_shards(&folder, 5);
    let model = ModelDirectory::open(&folder).unwrap();
    for (name, tensor) in weights(&model.config) {
        assert_eq!(model.get(&name).unwrap().to_owned(), tensor);
    }
    // The index says 5 in the first file, which has 4.
    write_shards(&folder, 4);
    let error = ModelDirectory::open(&folder).unwrap_err().to_string();
    assert!(error.contains("where the index puts it"), "{error}");
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let error = ModelDirectory::open(&folder).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn an_index_stays_in_its_directory() {
    for name in [json!("../a.safetensors"), json!("/etc/passwd"), json!(".."), json!(3), json!("")]
    {
        let text = json!({"weight_map": {"a": name}}).to_string();
        let error = directory::shards(text.as_bytes(), Path::new("i.json")).unwrap_err();
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
}

#[test]
fn incomplete_and_mismatched_directories_are_refused() {
    let (folder, config, tensors) = written("hf_mismatch", GPT2);
    let error_of = |tensors: &[(String, RawTensor)]| {
        write_weights(&folder.join("model.safetensors"), tensors);
        ModelDirectory::open(&folder).unwrap_err().to_string()
    };
    let error = error_of(&tensors[1..]);
    assert!(error.contains("\"transformer.wte.weight\"") && error.contains("missing"), "{error}");
    let mut other = tensors.clone();
    other[0].1 = RawTensor::from_f32(&[66, 64], &[0.0; 66 * 64]);
    let error = error_of(&other);
    assert!(error.contains("[66, 64]") && error.contains("[65, 64]"), "{error}");
    other[0].1 = RawTensor::from_i64(&[65, 64], &[0; 65 * 64]);
    assert!(error_of(&other).contains("must be floats"));
    let deep = String::from_utf8_lossy(GPT2).replace("\"n_layer\": 3", "\"n_layer\": 2000000000");
    fs::write(folder.join("config.json"), deep).unwrap();
    let error = ModelDirectory::open(&folder).unwrap_err().to_string();
    assert!(error.contains("asks for 2000000000 layers"), "{error}");
    fs::write(folder.join("config.json"), GPT2).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let error = ModelDirectory::open(&folder).unwrap_err().to_string();
    assert!(error.contains("there are no weights"), "{error}");
    fs::write(folder.join("pytorch_model.bin"), "x").unwrap();
    let error = ModelDirectory::open(&folder).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
    let views = tensors.iter().skip(1).map(|(name, t)| (name.as_str(), t.view()));
    let error = write_directory(folder.join("new"), &config, views, None).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    assert!(!folder.join("new").exists());
}

#[test]
fn writing_into_a_directory_replaces_files_and_copies_the_tokenizer() {
    let (folder, config, mut tensors) = written("hf_replace", GPT2);
    let source = scratch("hf_replace_tokenizer");
    fs::write(source.join("vocab.json"), "{\"chars\":[]}").unwrap();
    fs::write(source.join("notes.txt"), "private").unwrap();
    fs::write(folder.join("README.md"), "mine").unwrap();
    tensors[0].1 = RawTensor::from_f32(&[65, 64], &[0.5; 65 * 64]);
    let views = || tensors.iter().map(|(name, t)| (name.as_str(), t.view()));
    write_directory(&folder, &config, views(), Some(&source)).unwrap();
    let model = ModelDirectory::open(&folder).unwrap();
    assert_eq!(model.get("transformer.wte.weight").unwrap().to_f32().unwrap()[0], 0.5);
    assert_eq!(model.tokenizer_files(), [folder.join("vocab.json")]);
    assert_eq!(fs::read_to_string(folder.join("README.md")).unwrap(), "mine");
    assert!(!folder.join("notes.txt").exists());
    // From itself: the tokenizer stays.
    write_directory(&folder, &config, views(), Some(&folder)).unwrap();
    assert!(folder.join("vocab.json").is_file());
}

#[test]
fn generation_config_overrides_token_ids() {
    let (folder, _, _) = written("hf_generation", GPT2);
    fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": [4, 5]}"#).unwrap();
    assert_eq!(ModelDirectory::open(&folder).unwrap().tokens.eos, [4, 5]);
    fs::write(folder.join("generation_config.json"), "[]").unwrap();
    assert!(ModelDirectory::open(&folder).is_err());
}

#[test]
fn reads_the_configuration_of_an_image_classifier() {
    const VIT: &[u8] = include_bytes!("../../tests/data/vit.config.json");
    let path = Path::new("dir/config.json");
    let config = ImageConfig::from_json(VIT, path).unwrap().unwrap();
    assert_eq!((config.kind(), config.classes, config.channels), ("vit", 3, 3));
    assert_eq!((config.label(2), config.layers()), ("owl".to_owned(), 3));
    assert_eq!(ImageConfig::from_json(GPT2, path).unwrap(), None);
    let replaced = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(VIT).replace(from, to);
        ImageConfig::from_json(text.as_bytes(), path).unwrap_err().to_string()
    };
    for (from, to, part) in [
        ("\"2\": \"owl\"", "\"3\": \"owl\"", "a name for each id from 0 on"),
        ("\"patch_size\": 8", "\"patch_size\": 7", "does not divide `image_size` = 32"),
        ("\"id2label\"", "\"labels\"", "`num_labels` is missing"),
        ("\"hidden_size\": 64", "\"hidden_size\": 0", "`hidden_size` = 0"),
    ] {
        let message = replaced(from, to);
        assert!(message.contains(part) && message.contains("dir/config.json"), "{message}");
    }
}

#[test]
fn directories_of_image_classifiers_read_back() {
    let config = include_bytes!("../../tests/data/vit.config.json");
    let config = ImageConfig::from_json(config, Path::new("config.json")).unwrap().unwrap();
    let folder = scratch("image").join("model");
    let weights = [
        ("a.weight", RawTensor::from_f32(&[2, 3], &[1.0; 6])),
        ("b", RawTensor::from_f32(&[1], &[2.0])),
        ("c", RawTensor::from_f32(&[1], &[2.0])),
    ];
    let views = weights.iter().map(|(name, tensor)| (*name, tensor.view()));
    ImageDirectory::write(&folder, &config, views).unwrap();
    let opened = ImageDirectory::open(&folder).unwrap().unwrap();
    assert_eq!(opened.config, config);
    let names: Vec<&str> = opened.weights().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.weight", "b", "c"]);
    let mut config = config;
    let Architecture::Vit(vit) = &mut config.architecture else { panic!("no vit") };
    vit.num_hidden_layers = 4;
    fs::write(folder.join("config.json"), config.to_json()).unwrap();
    let message = ImageDirectory::open(&folder).unwrap_err().to_string();
    assert!(message.contains("4 layers and the weights are 3 tensors"), "{message}");
}

#[test]
fn reads_the_configurations_of_convolutional_networks() {
    let path = Path::new("dir/config.json");
    let read = |text: &str| ImageConfig::from_json(text.as_bytes(), path);
    // As timm writes it.
    let text = r#"{"architecture": "resnet50", "num_classes": 1000, "num_features": 2048}"#;
    let config = read(text).unwrap().unwrap();
    assert_eq!((config.kind(), config.classes, config.layers()), ("resnet50", 1000, 16));
    let Architecture::ResNet(resnet) = &config.architecture else { panic!("no resnet") };
    assert_eq!((resnet.width, resnet.stem), (64, Stem::Imagenet));
    for text in [
        text,
        r#"{"architecture": "resnet18", "num_classes": 10, "stem": "cifar", "width": 8}"#,
        r#"{"architecture": "mobilenet_v2", "id2label": {"0": "a"}, "stem": "cifar"}"#,
    ] {
        let config = read(text).unwrap().unwrap();
        assert_eq!(read(&config.to_json()).unwrap().unwrap(), config);
    }
    for (text, part) in [
        (r#"{"architecture": "resnet19"}"#, "use resnet18, resnet34"),
        (r#"{"architecture": "resnet18"}"#, "`num_labels` is missing"),
        (r#"{"architecture": "resnet18", "stem": "oak"}"#, "use imagenet or cifar"),
    ] {
        let message = read(text).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn reads_the_configuration_of_a_text_to_image_model() {
    const MMDIT: &[u8] = include_bytes!("../../tests/data/mmdit.config.json");
    let path = Path::new("dir/config.json");
    let config = FlowConfig::from_json(MMDIT, path).unwrap().unwrap();
    assert_eq!((config.kind(), config.layers(), config.text_length), ("mmdit", 8, 19));
    assert_eq!(FlowConfig::from_json(config.to_json().as_bytes(), path).unwrap().unwrap(), config);
    assert_eq!(FlowConfig::from_json(GPT2, path).unwrap(), None);
    // Files that do not say what the network tells are of networks of velocities.
    assert_eq!(config.prediction, Prediction::Velocity);
    let config = FlowConfig { prediction: Prediction::Picture, ..config };
    assert_eq!(FlowConfig::from_json(config.to_json().as_bytes(), path).unwrap().unwrap(), config);
    refused::<FlowConfig>(
        MMDIT,
        &[
            ("\"vocab_size\"", "\"prediction_type\": \"oak\", \"vocab_size\"", "use velocity or"),
            ("\"patch_size\": 4", "\"patch_size\": 5", "does not divide `image_size` = 32"),
            ("\"hidden_size\": 192", "\"hidden_size\": 6", "no multiple of 4"),
            ("\"num_attention_heads\": 3", "\"num_attention_heads\": 5", "does not divide"),
            ("\"vocab_size\"", "\"words\"", "`vocab_size` is missing"),
        ],
    );
}

/// Messages of a configuration in which one text is replaced by another.
fn refused<C: DirectoryConfig>(good: &[u8], replacements: &[(&str, &str, &str)]) {
    for (from, to, part) in replacements {
        let text = String::from_utf8_lossy(good);
        assert!(text.contains(from), "{from}");
        let text = text.replace(from, to);
        let message = match C::from_json(text.as_bytes(), Path::new("dir/config.json")) {
            Ok(_) => panic!("{to} was taken"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part) && message.contains("dir/config.json"), "{message}");
    }
}

#[test]
fn reads_the_configuration_of_clip() {
    const CLIP: &[u8] = include_bytes!("../../tests/data/clip.config.json");
    let path = Path::new("config.json");
    let config = ClipConfig::from_json(CLIP, path).unwrap().unwrap();
    let (text, vision) = (&config.text, &config.vision);
    // Given, and by default.
    assert_eq!((text.encoder.hidden_size, vision.encoder.hidden_size), (64, 128));
    assert_eq!((text.vocab_size, text.max_position_embeddings, text.eos_token_id), (49408, 77, 2));
    assert_eq!((vision.encoder.intermediate_size, vision.num_channels), (3072, 3));
    assert_eq!(text.encoder.hidden_act, Activation::Gelu);
    assert_eq!(vision.encoder.hidden_act, Activation::QuickGelu);
    assert_eq!((config.dtype, config.layers()), (DType::F16, 12));
    let again = ClipConfig::from_json(config.to_json().as_bytes(), path).unwrap().unwrap();
    assert_eq!(again, config);
    assert_eq!(ClipConfig::from_json(GPT2, path).unwrap(), None);
    refused::<ClipConfig>(
        CLIP,
        &[
            ("\"patch_size\": 16", "\"patch_size\": 7", "does not divide `image_size` = 64"),
            ("\"num_attention_heads\": 8", "\"num_attention_heads\": 7", "`hidden_size` = 128"),
            ("\"hidden_size\": 64", "\"hidden_size\": 0", "`hidden_size` = 0"),
            ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"oak\"", "quick_gelu"),
        ],
    );
}

#[test]
fn reads_the_configuration_of_a_unet() {
    const UNET: &[u8] = include_bytes!("../../tests/data/unet.config.json");
    let path = Path::new("config.json");
    let config = FlowConfig::from_json(UNET, path).unwrap().unwrap();
    let FlowNetwork::UNet(unet) = &config.network else { panic!("no unet") };
    assert_eq!((config.kind(), config.image_size, config.text_length), ("unet", 8, 5));
    assert_eq!((&unet.block_out_channels[..], unet.layers_per_block), (&[8, 12][..], 2));
    let again = FlowConfig::from_json(config.to_json().as_bytes(), path).unwrap().unwrap();
    assert_eq!(again, config);
    refused::<FlowConfig>(
        UNET,
        &[
            ("\"image_size\": 8", "\"image_size\": 7", "cannot be halved 1 times"),
            ("\"norm_num_groups\": 4", "\"norm_num_groups\": 8", "`block_out_channels` = 12"),
            ("\"cross_attention_dim\": 8", "\"cross_attention_dim\": 6", "`cross_attention_dim`"),
            ("\"attention_resolutions\"", "\"resolutions\"", "`attention_resolutions` is missing"),
            ("    4\n", "    5\n", "the heights are [8, 4]"),
            ("    8,\n    12\n", "\n", "`block_out_channels` is empty"),
            ("    12\n", "    0\n", "a list of whole numbers"),
        ],
    );
}
