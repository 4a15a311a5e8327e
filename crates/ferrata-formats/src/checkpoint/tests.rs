use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferrata_ir::DType;
use serde_json::json;

use super::*;
use crate::RawTensor;
use crate::atomic::sweep;
use crate::tensor::tests::scratch;

fn tensors(step: u64) -> Vec<(String, RawTensor)> {
    let base = step as f32;
    vec![
        ("embedding.weight".into(), RawTensor::from_f32(&[4, 3], &[base; 12])),
        ("norm.weight".into(), RawTensor::from_f32(&[3], &[base, 1.0, 2.0])),
        ("mask".into(), RawTensor { dtype: DType::Bool, shape: vec![2], bytes: vec![0, 1] }),
    ]
}

fn save(run: &Path, step: u64) -> PathBuf {
    let mut writer = CheckpointWriter::new(run, step).unwrap();
    let tensors = tensors(step);
    let views = tensors.iter().map(|(name, t)| (name.as_str(), t.view()));
    writer.tensors("model.safetensors", views, &BTreeMap::new()).unwrap();
    writer.bytes("vocab.json", b"{\"chars\":[\"a\"]}").unwrap();
    writer.finish("cpu avx2", json!({"best": 1.0 / 3.0, "position": [step, 7]})).unwrap()
}

fn latest_step(run: &Path) -> Option<u64> {
    latest(run).unwrap().checkpoint.map(|c| c.manifest().step)
}

#[test]
fn a_checkpoint_survives() {
    let run = scratch("checkpoint_round_trip").join("run");
    let path = save(&run, 12);
    assert!(path.ends_with("step-00000012"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let manifest = checkpoint.manifest();
    assert_eq!((manifest.step, manifest.device.as_str()), (12, "cpu avx2"));
    assert_eq!(manifest.state, json!({"best": 1.0 / 3.0, "position": [12, 7]}));
    assert_eq!(manifest.format_version, FORMAT_VERSION);
    let file = checkpoint.tensors("model.safetensors").unwrap();
    for (name, tensor) in tensors(12) {
        assert_eq!(file.get(&name).unwrap().to_owned(), tensor);
    }
    assert!(checkpoint.file("vocab.json").unwrap().is_file());
    assert!(checkpoint.file("other").is_err());
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
}

#[test]
fn every_bit_flip_is_found_and_named() {
    let run = scratch("checkpoint_flips");
    let path = save(&run, 1);
    for name in ["model.safetensors", "vocab.json", MANIFEST] {
        let file = path.join(name);
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).unwrap();
            let error =
                Checkpoint::open(&path).expect_err(&format!("{name} byte {at}")).to_string();
            assert!(error.contains(name) && error.contains("is damaged"), "{at}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        fs::write(&file, &good).unwrap();
    }
    let file = path.join("model.safetensors");
    let good = fs::read(&file).unwrap();
    let header = crate::safetensors::TensorFile::open(&file).unwrap().header().len();
    // The order in the file: widest elements first, then by name.
    for (at, name) in [
        (0, "embedding.weight"),
        (47, "embedding.weight"),
        (48, "norm.weight"),
        (60, "mask"),
        (61, "mask"),
    ] {
        let mut bad = good.clone();
        bad[header + at] ^= 1;
        fs::write(&file, &bad).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("tensor {name:?} in `model.safetensors`")), "{error}");
    }
    fs::write(&file, &good).unwrap();
    Checkpoint::open(&path).unwrap();
}

#[test]
fn truncated_and_missing_files_are_named_and_the_previous_one_is_used() {
    let run = scratch("checkpoint_fallback");
    save(&run, 1);
    for name in ["model.safetensors", "vocab.json", MANIFEST] {
        let path = save(&run, 2);
        let file = path.join(name);
        let good = fs::read(&file).unwrap();
        for length in [0, 7, good.len() / 2, good.len() - 1] {
            fs::write(&file, &good[..length]).unwrap();
            let found = latest(&run).unwrap();
            assert_eq!(found.checkpoint.unwrap().manifest().step, 1);
            let error = found.skipped[0].to_string();
            assert!(error.contains("step-00000002") && error.contains(name), "{error}");
        }
        fs::remove_file(&file).unwrap();
        let error = latest(&run).unwrap().skipped[0].to_string();
        assert!(error.contains(&format!("`{name}` is missing")), "{error}");
    }
    fs::remove_file(run.join("step-00000001/manifest.json")).unwrap();
    let error = latest(&run).unwrap_err().to_string();
    assert!(error.contains("step-00000002"), "the latest is blamed: {error}");
}

#[test]
fn newer_formats_are_refused() {
    let run = scratch("checkpoint_newer");
    save(&run, 1);
    let path = save(&run, 2);
    let mut manifest = Manifest::read(&path).unwrap();
    manifest.format_version = 9;
    manifest.ferrata_version = "7.3.0".into();
    fs::write(path.join(MANIFEST), manifest.to_text()).unwrap();
    let error = latest(&run).unwrap_err();
    assert!(matches!(error, Error::NewerVersion { found: 9, .. }));
    assert!(error.to_string().contains("use Ferrata 7.3.0 or later"), "{error}");
}

#[test]
fn file_names_stay_in_the_folder() {
    let run = scratch("checkpoint_names");
    let mut writer = CheckpointWriter::new(&run, 1).unwrap();
    for name in ["../a", "a/b", "/a", "", "..", MANIFEST] {
        assert!(writer.bytes(name, b"x").is_err(), "{name}");
    }
    writer.bytes("a", b"x").unwrap();
    assert!(writer.bytes("a", b"x").is_err());
    let path = writer.finish("cpu", json!(null)).unwrap();
    let mut manifest = Manifest::read(&path).unwrap();
    manifest.files[0].name = "../a".into();
    fs::write(path.join(MANIFEST), manifest.to_text()).unwrap();
    assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("../a"));
}

#[test]
fn an_unfinished_checkpoint_leaves_nothing() {
    let run = scratch("checkpoint_unfinished");
    save(&run, 1);
    let mut writer = CheckpointWriter::new(&run, 2).unwrap();
    writer.bytes("a", b"x").unwrap();
    assert_eq!(latest_step(&run), Some(1));
    drop(writer);
    assert_eq!(list(&run).unwrap().len(), 1);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
}

#[test]
fn leftovers_of_killed_processes_do_no_harm() {
    // No process has this number: it is beyond the kernel's limit.
    let dead = 4_194_305;
    let run = scratch("checkpoint_leftovers");
    save(&run, 1);
    // Killed while building step 2.
    let half = run.join(format!("step-00000002.tmp-{dead}-0"));
    fs::create_dir(&half).unwrap();
    fs::write(half.join("model.safetensors"), "half").unwrap();
    assert_eq!(latest_step(&run), Some(1));
    // Killed between setting step 3 aside and putting its replacement in place.
    let third = save(&run, 3);
    fs::rename(&third, run.join(format!("step-00000003.old-{dead}"))).unwrap();
    assert_eq!(latest_step(&run), Some(3));
    assert_eq!(sweep(&run).unwrap(), [half]);
    assert_eq!(latest_step(&run), Some(3));
    assert!(third.is_dir());
    // Killed before removing what was replaced.
    fs::create_dir(run.join(format!("step-00000003.old-{dead}"))).unwrap();
    assert_eq!(latest_step(&run), Some(3));
    assert_eq!(sweep(&run).unwrap().len(), 1);
}

#[test]
fn the_same_step_can_be_saved_again() {
    let run = scratch("checkpoint_again");
    save(&run, 5);
    let mut writer = CheckpointWriter::new(&run, 5).unwrap();
    writer.bytes("a", b"x").unwrap();
    writer.finish("cpu", json!("second")).unwrap();
    let checkpoint = latest(&run).unwrap().checkpoint.unwrap();
    assert_eq!(checkpoint.manifest().state, json!("second"));
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
}

#[test]
fn retention_keeps_the_last_and_the_best() {
    let run = scratch("checkpoint_retain");
    assert!(retain(&run, 2, &[]).unwrap().is_empty());
    assert_eq!(latest_step(&run.join("none")), None);
    for step in [1, 2, 3, 10, 200_000_000, 1_000_000_000] {
        save(&run, step);
    }
    fs::create_dir(run.join("step-x")).unwrap();
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    let removed = retain(&run, 2, &[2]).unwrap();
    assert_eq!(removed.len(), 3);
    let steps: Vec<u64> = list(&run).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [2, 200_000_000, 1_000_000_000]);
    retain(&run, 0, &[]).unwrap();
    assert_eq!(latest_step(&run), Some(1_000_000_000));
    assert!(run.join("metrics.jsonl").exists() && run.join("step-x").exists());
}

#[test]
fn checkpoints_of_every_format_version_are_read() {
    // Written once and never again: a new version adds a folder.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for version in 1..=FORMAT_VERSION {
        let checkpoint = Checkpoint::open(folder.join(format!("checkpoint-v{version}"))).unwrap();
        let manifest = checkpoint.manifest();
        assert_eq!((manifest.format_version, manifest.step), (version, 1000));
        assert_eq!(manifest.state["loss"], json!(1.625));
        let file = checkpoint.tensors("model.safetensors").unwrap();
        assert_eq!(file.get("weight").unwrap().to_f32().unwrap(), [0.5, -0.25]);
        let note = fs::read(checkpoint.file("vocab.json").unwrap()).unwrap();
        assert_eq!(note, b"{\"chars\":[\"a\"]}\n");
    }
}
