//! Seeded mutations of good files: every parser must answer with a value or an error, never with a
//! panic, and never take long.

use std::fs;
use std::path::{Path, PathBuf};

use ferrata_formats::RawTensor;
use ferrata_formats::checkpoint::{self, CheckpointWriter, MANIFEST};
use ferrata_formats::huggingface::{ModelConfig, ModelDirectory, write_directory};
use ferrata_formats::safetensors::{self, TensorFile};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Pieces that parsers stumble over.
const PIECES: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "-1",
    "0",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "\\ud800",
    "\u{0}",
    "\u{fffd}",
    "true",
    "\"F64\"",
    "\"\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "1.5",
];

fn mutate(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let from = random.below(good.len());
                let piece = &good[from..(from + random.below(40)).min(good.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..end, piece.bytes());
            }
        }
    }
    bytes
}

/// Runs `parse` on mutations; counts how many were accepted.
fn fuzz(good: &[u8], rounds: usize, mut parse: impl FnMut(&[u8]) -> bool) {
    let mut random = Random(good.len() as u64);
    assert!(parse(good), "the original is fine");
    let accepted = (0..rounds).filter(|_| parse(&mutate(good, &mut random))).count();
    assert!(accepted < rounds, "some mutations must be refused");
}

fn one_line<T>(result: ferrata_formats::Result<T>) -> bool {
    if let Err(error) = &result {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    result.is_ok()
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutation").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn safetensors_files() {
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
        one_line(file)
    });
}

#[test]
fn model_configurations() {
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
            one_line(config)
        });
    }
}

#[test]
fn weight_indices() {
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
        one_line(ModelDirectory::open(&path))
    });
}

#[test]
fn checkpoint_manifests() {
    let run = folder("manifest");
    let weight = RawTensor::from_f32(&[2], &[0.5, 0.25]);
    let mut writer = CheckpointWriter::new(&run, 1).unwrap();
    writer.tensors("model.safetensors", [("w", weight.view())], &Default::default()).unwrap();
    let path = writer.finish("cpu", serde_json::json!({"loss": 1.5})).unwrap().join(MANIFEST);
    let good = fs::read(&path).unwrap();
    fuzz(&good, 3000, |bytes| {
        fs::write(&path, bytes).unwrap();
        let opened = one_line(checkpoint::latest(&run));
        assert_eq!(opened, bytes == good, "only the original is valid");
        opened
    });
}
