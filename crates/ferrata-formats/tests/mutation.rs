//! Seeded mutations of good files: every parser must answer with a value or an error, never with a
//! panic, and never take long.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use ferrata_formats::RawTensor;
use ferrata_formats::checkpoint::{self, CheckpointWriter, MANIFEST};
use ferrata_formats::huggingface::{
    ClipConfig, DirectoryConfig, FlowConfig, ImageConfig, ModelConfig, ModelDirectory,
    write_directory,
};
use ferrata_formats::safetensors::{self, TensorFile};
use ferrata_ir::testing::fuzz;

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutation").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn mutated_safetensors_files() {
    let path = folder("safetensors").join("a.safetensors");
    let (a, b) = (RawTensor::from_f32(&[2, 3], &[1.0; 6]), RawTensor::from_i64(&[1], &[7]));
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::write(&path, [("a.weight", a.view()), ("b", b.view())], &metadata).unwrap();
    let good = fs::read(&path).unwrap();
    fuzz(&good, 3000, |bytes| {
        fs::write(&path, bytes).unwrap();
        let file = TensorFile::open(&path);
        if let Ok(file) = &file {
            for (_, tensor) in file.iter() {
                let floats = tensor.to_f64().map(|v| v.len());
                assert_eq!(floats.or(tensor.to_i64().map(|v| v.len())), Some(tensor.len()));
            }
        }
        file.map(drop)
    });
}

#[test]
fn mutated_model_configurations() {
    for text in [
        &include_bytes!("data/gpt2.config.json")[..],
        include_bytes!("data/llama.v4.config.json"),
        include_bytes!("data/llama.v5.config.json"),
    ] {
        fuzz(text, 20_000, |bytes| {
            let config = ModelConfig::from_json(bytes, Path::new("config.json"));
            if let Ok(config) = &config {
                let again = ModelConfig::from_json(config.to_json().as_bytes(), Path::new("b"));
                assert_eq!(&again.unwrap(), config);
            }
            config.map(drop)
        });
    }
}

/// What is read from a mutated file is written so that it reads back.
fn mutated_configuration<C: DirectoryConfig + PartialEq + Debug>(text: &[u8]) {
    fuzz(text, 20_000, |bytes| {
        let config = C::from_json(bytes, Path::new("config.json"));
        if let Ok(Some(config)) = &config {
            let again = C::from_json(config.to_json().as_bytes(), Path::new("b"));
            assert_eq!(&again.unwrap().unwrap(), config);
        }
        config.map(drop)
    });
}

#[test]
fn mutated_configurations_of_other_models() {
    mutated_configuration::<ImageConfig>(include_bytes!("data/vit.config.json"));
    mutated_configuration::<ClipConfig>(include_bytes!("data/clip.config.json"));
    mutated_configuration::<FlowConfig>(include_bytes!("data/mmdit.config.json"));
    mutated_configuration::<FlowConfig>(include_bytes!("data/unet.config.json"));
}

#[test]
fn mutated_weight_indices() {
    let path = folder("index").join("model");
    let text = include_bytes!("data/gpt2.config.json");
    let config = ModelConfig::from_json(text, Path::new("config.json")).unwrap();
    let weights: Vec<(String, RawTensor)> = config
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            let zeros = vec![0.0; shape.iter().product()];
            (name, RawTensor::from_f32(&shape, &zeros))
        })
        .collect();
    let views = weights.iter().map(|(name, t)| (name.as_str(), t.view()));
    write_directory(&path, &config, views, None).unwrap();
    fs::rename(path.join("model.safetensors"), path.join("m.safetensors")).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        weights.iter().map(|(name, _)| (name.clone(), "m.safetensors".into())).collect();
    let index = serde_json::json!({"metadata": {"total_size": 5}, "weight_map": map});
    fuzz(index.to_string().as_bytes(), 2000, |bytes| {
        fs::write(path.join("model.safetensors.index.json"), bytes).unwrap();
        ModelDirectory::open(&path).map(drop)
    });
}

#[test]
fn mutated_checkpoint_manifests() {
    let run = folder("manifest");
    let weight = RawTensor::from_f32(&[2], &[0.5, 0.25]);
    let mut writer = CheckpointWriter::new(&run, 1).unwrap();
    writer.tensors("model.safetensors", [("w", weight.view())], &Default::default()).unwrap();
    let path = writer.finish("cpu", serde_json::json!({"loss": 1.5})).unwrap().join(MANIFEST);
    let good = fs::read(&path).unwrap();
    fuzz(&good, 3000, |bytes| {
        fs::write(&path, bytes).unwrap();
        let opened = checkpoint::latest(&run).map(drop);
        assert_eq!(opened.is_ok(), bytes == good, "only the original is valid");
        opened
    });
}
