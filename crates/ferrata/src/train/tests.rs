//! The loop, with a learner small enough to see through.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrata_formats::checkpoint::{self, Checkpoint};
use serde_json::{Value, json};

use super::*;
use crate::Tensor;
use crate::data::images::Picture;

/// An empty folder for one test.
pub(super) fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ferrata-train-{}-{name}", std::process::id()));
    // It may not exist.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Moves one number towards another; the data of a step is its number.
struct Toy {
    weight: f64,
    diverges_at: Option<u64>,
    stop_at: Option<(u64, Arc<AtomicBool>)>,
    news: Option<String>,
}

impl Toy {
    fn new() -> Toy {
        Toy { weight: 1.0, diverges_at: None, stop_at: None, news: None }
    }
}

impl Learner for Toy {
    fn step(&mut self, step: u64) -> Result<Progress> {
        if let Some((at, stop)) = &self.stop_at {
            stop.store(step + 1 >= *at, Ordering::Relaxed);
        }
        let target = (step as f64).sin();
        let error = self.weight - target;
        self.weight -= 0.1 * error;
        let loss = if self.diverges_at == Some(step) { f64::NAN } else { error * error / 2.0 };
        Ok(Progress { loss, grad_norm: error.abs(), lr: 0.1, seen: 1, waited: 0.0 })
    }

    fn evaluate(&mut self, step: u64, _: &AtomicBool) -> Result<Option<Evaluated>> {
        Ok(Some(Evaluated {
            loss: self.weight.abs(),
            scores: [("sign", self.weight.signum())].into(),
            report: vec![format!("weight {}", self.weight)],
            files: vec![("weight.txt", step.to_string().into_bytes())],
        }))
    }

    fn sample(&mut self, step: u64) -> Result<Option<Sample>> {
        let picture = Picture::filled(3, 2, [step as u8; 3]);
        Ok(Some(match step {
            5 => Sample::Text(format!("{} after {step}", self.weight)),
            _ => Sample::Picture(picture),
        }))
    }

    fn news(&mut self) -> Vec<String> {
        self.news.take().into_iter().collect()
    }

    fn unit(&self) -> &'static str {
        "numbers"
    }

    fn save(&self, to: &mut Snapshot) -> Result<Value> {
        let weight = vec![("weight".to_owned(), Tensor::from(self.weight))];
        to.tensors("toy.safetensors", weight, Default::default());
        Ok(json!({"kind": "toy"}))
    }

    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()> {
        assert_eq!(state["kind"], "toy");
        let tensors = checkpoint.tensors("toy.safetensors")?;
        self.weight = tensors.get("weight")?.to_f64().unwrap()[0];
        Ok(())
    }

    fn export(&self, path: &Path) -> Result<()> {
        fs::write(path, self.weight.to_le_bytes()).unwrap();
        Ok(())
    }

    fn explain_not_finite(&mut self, step: u64) -> Option<String> {
        Some(format!("made on purpose in step {}", step + 1))
    }

    fn device(&self) -> String {
        "toy".to_owned()
    }

    fn checkpoint_bytes(&self) -> u64 {
        8
    }
}

fn config(steps: u64) -> Config {
    let mut config = Config::default();
    config.train.steps = steps;
    config.train.eval_every = 4;
    config.train.sample_every = 5;
    config.train.checkpoint_every = 3;
    config
}

fn losses(run: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line.get("loss").is_some());
    steps
        .map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap().to_bits()))
        .collect()
}

#[test]
fn a_run_leaves_metrics_checkpoints_and_a_model() {
    let run = scratch("whole").join("run");
    let config = config(11);
    let mut events = Vec::new();
    let mut toy = Toy { news: Some("it begins".to_owned()), ..Toy::new() };
    let summary =
        Trainer::new(&mut toy, &config, &run).run(&mut |event| events.push(event.clone())).unwrap();
    assert_eq!((summary.steps, summary.interrupted), (11, false));
    assert_eq!(losses(&run).len(), 11);
    let kept: Vec<u64> =
        checkpoint::list(&run).unwrap().into_iter().map(|(step, _)| step).collect();
    let best = summary.best.unwrap().step;
    assert!(kept.ends_with(&[9, 11]) && kept.contains(&best), "{kept:?}, best {best}");
    assert!(run.join("final").exists() && run.join("config.toml").exists());
    let samples = events.iter().filter(|event| matches!(event, Event::Sample { .. })).count();
    let evaluations = events.iter().filter(|e| matches!(e, Event::Evaluation { .. })).count();
    assert_eq!((samples, evaluations), (1, 3));
    let picture = run.join("samples/step-00000010.png");
    assert!(events.contains(&Event::Picture { step: 10, path: picture.clone() }));
    let picture = Picture::decode(&fs::read(picture).unwrap(), 6).unwrap();
    assert_eq!(picture, Picture::filled(3, 2, [10; 3]));
    assert_eq!(fs::read_to_string(run.join("weight.txt")).unwrap(), "11");
    assert!(events.contains(&Event::Note("it begins".to_owned())));
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"sign\":") && metrics.contains("\"numbers_per_second\":"));
    assert_eq!(summary.scores.keys().collect::<Vec<_>>(), [&"sign"]);
    let names = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().contains("tfevents")));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let base = scratch("resume");
    let (whole, parts) = (base.join("whole"), base.join("parts"));
    let config = config(20);
    Trainer::new(&mut Toy::new(), &config, &whole).run(&mut |_| {}).unwrap();
    for stop_at in [2, 9, 13] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut toy = Toy::new();
        toy.stop_at = Some((stop_at, stop.clone()));
        let trainer = Trainer::new(&mut toy, &config, &parts).resume(true).stop_when(stop);
        let summary = trainer.run(&mut |_| {}).unwrap();
        assert_eq!((summary.steps, summary.interrupted), (stop_at, true));
    }
    // As if killed after the checkpoint: lines of later steps, and half a line.
    let metrics = parts.join("metrics.jsonl");
    let torn = fs::read_to_string(&metrics).unwrap() + "{\"step\":14,\"loss\":9.0}\n{\"st";
    fs::write(&metrics, torn).unwrap();
    let mut resumed = None;
    let mut toy = Toy::new();
    Trainer::new(&mut toy, &config, &parts)
        .resume(true)
        .run(&mut |event| {
            if let Event::Resumed { step, .. } = event {
                resumed = Some(*step);
            }
        })
        .unwrap();
    assert_eq!(resumed, Some(13));
    assert_eq!(losses(&whole), losses(&parts));
    assert_eq!(fs::read(whole.join("final")).unwrap(), fs::read(parts.join("final")).unwrap());
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_names_the_step() {
    let base = scratch("nan");
    let mut config = config(20);
    let fail = |config: &Config, at: u64, run: &Path| {
        let mut toy = Toy::new();
        toy.diverges_at = Some(at);
        Trainer::new(&mut toy, config, run).run(&mut |_| {}).unwrap_err().to_string()
    };
    let message = fail(&config, 0, &base.join("first"));
    assert!(message.contains("loss is NaN at step 1;") && message.contains("lr"), "{message}");
    assert!(!base.join("first").exists(), "nothing is written");
    config.train.watch_nan = true;
    let message = fail(&config, 7, &base.join("later"));
    assert!(message.contains("at step 8: made on purpose in step 8; lower"), "{message}");
    let latest = checkpoint::latest(&base.join("later")).unwrap().checkpoint.unwrap();
    assert_eq!(latest.manifest().step, 6, "the checkpoints before stay");
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let run = scratch("refused").join("run");
    let mut config = config(6);
    Trainer::new(&mut Toy::new(), &config, &run).run(&mut |_| {}).unwrap();
    let again = Trainer::new(&mut Toy::new(), &config, &run).run(&mut |_| {}).unwrap_err();
    assert!(again.to_string().contains("already holds a run; continue it with --resume"));
    let resume = |config: &Config| {
        let mut toy = Toy::new();
        let result = Trainer::new(&mut toy, config, &run).resume(true).run(&mut |_| {});
        result.map(|summary| summary.steps).map_err(|error| error.to_string())
    };
    config.train.threads = 2;
    config.train.eval_every = 1;
    assert_eq!(resume(&config), Ok(6), "settings that leave the result alone may change");
    config.train.steps = 8;
    assert_eq!(resume(&config), Ok(8), "a run can be made longer");
    config.train.steps = 3;
    assert!(resume(&config).unwrap_err().contains("has 8 steps behind it"));
    config.train.steps = 8;
    config.optimizer.lr = 0.5;
    assert!(resume(&config).unwrap_err().contains("`optimizer.lr` has another value"));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let run = scratch("damaged").join("run");
    let config = config(6);
    Trainer::new(&mut Toy::new(), &config, &run).run(&mut |_| {}).unwrap();
    let file = run.join("step-00000006/toy.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut notes = Vec::new();
    let mut toy = Toy::new();
    Trainer::new(&mut toy, &config, &run)
        .resume(true)
        .run(&mut |event| {
            if let Event::Note(note) = event {
                notes.push(note.clone());
            }
        })
        .unwrap();
    assert!(notes.len() == 1 && notes[0].contains("\"weight\""), "{notes:?}");
}
