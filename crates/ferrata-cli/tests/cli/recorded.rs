//! Image classifiers against recorded runs of PyTorch in float64: what `ferrata run` computes, and
//! what `ferrata train --replay` learns. The tolerances are about ten times what PyTorch in float32
//! differs from itself.

use std::fs;
use std::path::{Path, PathBuf};

use ferrata_formats::safetensors::TensorFile;

use crate::common::{losses, scratch, succeed};

/// The folder of a pack.
fn pack(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ferrata/tests/models/data").join(name)
}

/// A tensor of a file as numbers.
fn numbers(file: &Path, name: &str) -> Vec<f64> {
    TensorFile::open(file).unwrap().get(name).unwrap().to_f64().unwrap()
}

/// Fails unless the largest difference is within `limit` times the largest number.
#[track_caller]
fn close(what: &str, found: &[f64], wanted: &[f64], limit: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let top = wanted.iter().fold(0f64, |m, x| m.max(x.abs()));
    let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    let off = off.fold(0f64, |m, x| if x.is_nan() { x } else { m.max(x) });
    assert!(off <= limit * top, "{what} is off by {:.1e}, allowed are {limit:.1e}", off / top);
}

/// The scores of the first recorded batch.
fn scores(folder: &Path, model: &Path, pack: &Path) -> Vec<f64> {
    let (model, batches) = (model.to_str().unwrap(), pack.join("batches.safetensors"));
    let input = batches.to_str().unwrap();
    succeed(folder, &["run", model, "--input", input, "--output", "out.safetensors"]);
    let out = folder.join("out.safetensors");
    assert_eq!(numbers(&out, "loss").len(), 1);
    let mut logits = numbers(&out, "logits");
    let first = numbers(&pack.join("golden.safetensors"), "logits").len();
    logits.truncate(first);
    logits
}

fn replayed(name: &str, optimizer: &str, limits: [f64; 4]) {
    let (folder, pack) = (scratch(&format!("recorded-{name}")), pack(name));
    let golden = pack.join("golden.safetensors");
    close("scores", &scores(&folder, &pack, &pack), &numbers(&golden, "logits"), 2e-6);
    let config = format!("[optimizer]\n{optimizer}decay_on = \"all\"\n");
    fs::write(folder.join("recorded.toml"), config).unwrap();
    let (init, batches) = (pack.to_str().unwrap(), pack.join("batches.safetensors"));
    let replay = ["--replay", batches.to_str().unwrap(), "--out", "run"];
    succeed(&folder, &[&["train", "recorded.toml", "--init", init], &replay[..]].concat());
    let run = folder.join("run");
    let (loss, norm): (Vec<f64>, Vec<f64>) = losses(&run)
        .iter()
        .map(|(_, loss, norm)| (loss.parse::<f64>().unwrap(), norm.parse::<f64>().unwrap()))
        .unzip();
    close("loss", &loss, &numbers(&golden, "trajectory/loss"), limits[0]);
    close("norm", &norm, &numbers(&golden, "trajectory/grad_norm"), limits[1]);
    let trained = run.join("final/model.safetensors");
    for tensor in TensorFile::open(&golden).unwrap().names() {
        // Scores do not depend on the bias of keys: its gradient is rounding noise.
        let Some(weight) = tensor.strip_prefix("final/") else { continue };
        if !weight.ends_with("key.bias") {
            close(weight, &numbers(&trained, weight), &numbers(&golden, tensor), limits[2]);
        }
    }
    let wanted = numbers(&golden, "logits_final");
    close("scores after training", &scores(&folder, &run, &pack), &wanted, limits[3]);
}

#[test]
fn training_of_resnet() {
    let sgd = "kind = \"sgd\"\nlr = 0.05\nmomentum = 0.9\nweight_decay = 5e-4\n";
    replayed("resnet-tiny", sgd, [5e-6, 5e-6, 1e-5, 2e-5]);
}

#[test]
fn training_of_vit() {
    let adamw = "kind = \"adamw\"\nlr = 2e-3\nweight_decay = 0.05\n";
    replayed("vit-tiny", adamw, [2e-6, 2e-6, 1e-4, 1e-5]);
}
