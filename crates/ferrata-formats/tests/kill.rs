//! A process that writes checkpoints is killed at random instants; what it had finished must be
//! found by the next one.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ferrata_formats::RawTensor;
use ferrata_formats::atomic::sweep;
use ferrata_formats::checkpoint::{self, CheckpointWriter};

const RUN: &str = "FERRATA_TEST_KILL_RUN";
const FIRST: &str = "FERRATA_TEST_KILL_FIRST";
const WRITTEN: &str = "written ";

fn save(run: &Path, step: u64) {
    let weight = RawTensor::from_f32(&[4000], &[step as f32; 4000]);
    let mut writer = CheckpointWriter::new(run, step).unwrap();
    writer.tensors("model.safetensors", [("w", weight.view())], &Default::default()).unwrap();
    writer.bytes("note.txt", step.to_string().as_bytes()).unwrap();
    writer.finish("cpu", serde_json::json!(step)).unwrap();
}

/// The process that is killed: only does something when it is started by the test below.
#[test]
fn child() {
    let Ok(run) = env::var(RUN) else { return };
    let first: u64 = env::var(FIRST).unwrap().parse().unwrap();
    let run = PathBuf::from(run);
    sweep(&run).unwrap();
    for step in first.. {
        // Each step twice, to be killed while replacing too.
        for _ in 0..2 {
            save(&run, step);
            println!("{WRITTEN}{step}");
        }
        checkpoint::retain(&run, 2, &[]).unwrap();
    }
}

#[test]
fn a_killed_writer_never_loses_a_finished_checkpoint() {
    let run = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kill");
    let _ = std::fs::remove_dir_all(&run);
    let mut last = 0;
    let mut random: u64 = 1;
    for _ in 0..25 {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(RUN, &run)
            .env(FIRST, (last + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let step_of = |line: &str| line.split_once(WRITTEN).and_then(|(_, s)| s.parse().ok());
        // The delay starts when the process is at work.
        let first: Option<u64> = lines.by_ref().find_map(|line| step_of(&line.unwrap()));
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 60_000));
        process.kill().unwrap();
        process.wait().unwrap();
        let written = lines.filter_map(|line| step_of(&line.unwrap())).last().or(first).unwrap();
        let found = checkpoint::latest(&run).unwrap();
        assert!(found.skipped.is_empty(), "{:?}", found.skipped);
        let found = found.checkpoint.unwrap();
        let step = found.manifest().step;
        assert!(step >= written, "step {written} was written, {step} was found");
        let weights = found.tensors("model.safetensors").unwrap();
        assert_eq!(weights.get("w").unwrap().to_f32().unwrap(), [step as f32; 4000]);
        last = step;
    }
    sweep(&run).unwrap();
    checkpoint::retain(&run, 2, &[]).unwrap();
    assert!(std::fs::read_dir(&run).unwrap().count() <= 2, "leftovers remain");
}
