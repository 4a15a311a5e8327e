//! What a run records: one JSON line per step and per evaluation, and TensorBoard events.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ferrata_formats::atomic;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::tensorboard::EventFile;
use super::{Error, Result};

/// The name of the file of JSON lines in a run folder.
pub const METRICS: &str = "metrics.jsonl";

/// One line of `metrics.jsonl` about a step. Floats are written so that they read back exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// The number of the step, counted from 1: so many steps are done.
    pub step: u64,
    /// The loss before the update of this step, the mean over what it learned from.
    pub loss: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub lr: f64,
    /// What is counted: `tokens` or `images`.
    pub unit: &'static str,
    /// How many of them per second since the last line; as `tokens_per_second` in the file.
    pub per_second: f64,
    /// Seconds that the step waited for its data.
    pub data_wait: f64,
}

impl StepRecord {
    fn values(&self) -> [(String, f64); 5] {
        [
            ("loss".to_owned(), self.loss),
            ("grad_norm".to_owned(), self.grad_norm),
            ("lr".to_owned(), self.lr),
            (format!("{}_per_second", self.unit), self.per_second),
            ("data_wait".to_owned(), self.data_wait),
        ]
    }
}

impl Serialize for StepRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &self.step)?;
        for (name, value) in self.values() {
            map.serialize_entry(&name, &value)?;
        }
        map.end()
    }
}

/// One line of `metrics.jsonl` about an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluationRecord {
    /// The number of completed steps.
    pub step: u64,
    /// The mean loss over the whole validation part.
    pub validation_loss: f64,
    /// Other measures by name, such as `top1`.
    #[serde(flatten)]
    pub scores: BTreeMap<&'static str, f64>,
}

/// The metrics of a run folder, open for appending.
pub(super) struct Metrics {
    path: PathBuf,
    lines: File,
    events: EventFile,
}

impl Metrics {
    /// Opens the metrics of a run that continues after `step` completed steps. Lines of later
    /// steps, and a line that a killed process left unfinished, are dropped.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Metrics> {
        let path = folder.join(METRICS);
        if let Ok(text) = fs::read_to_string(&path) {
            atomic::write_bytes(&path, kept(&text, step).as_bytes())?;
        }
        let lines = OpenOptions::new().create(true).append(true).open(&path);
        let lines = lines.map_err(|error| failed(&path, error))?;
        let events = EventFile::create(folder, step).map_err(|error| failed(folder, error))?;
        Ok(Metrics { path, lines, events })
    }

    pub(super) fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.line(record)?;
        let values = record.values().map(|(name, value)| (format!("train/{name}"), value));
        self.scalars(record.step, &values)
    }

    pub(super) fn evaluation(&mut self, record: &EvaluationRecord) -> Result<()> {
        self.line(record)?;
        let scores =
            record.scores.iter().map(|(name, value)| (format!("validation/{name}"), *value));
        let loss = ("validation/loss".to_owned(), record.validation_loss);
        self.scalars(record.step, &[loss].into_iter().chain(scores).collect::<Vec<_>>())
    }

    /// Adds a picture to the events.
    pub(super) fn picture(&mut self, step: u64, size: [usize; 2], png: &[u8]) -> Result<()> {
        let written = self.events.picture(step, "sample", size, png);
        written.map_err(|error| failed(self.events.path(), error))
    }

    fn line(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(Error::from_message)?;
        line.push(b'\n');
        // One call for one line, so a killed process leaves at most its last line unfinished.
        self.lines.write_all(&line).map_err(|error| failed(&self.path, error))
    }

    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let written = self.events.scalars(step, values);
        written.map_err(|error| failed(self.events.path(), error))
    }
}

/// The complete lines of `text` up to `step`.
fn kept(text: &str, step: u64) -> String {
    let keep = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let at = value.and_then(|value| value.get("step").and_then(Value::as_u64));
        line.ends_with('\n') && at.is_some_and(|at| at <= step)
    };
    text.split_inclusive('\n').filter(keep).collect()
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let path = path.display();
    let cause = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("no space left to write `{path}`")
        }
        _ => format!("cannot write `{path}`: {error}"),
    };
    Error::new(cause, "free disk space or check the permissions, then continue with --resume")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_step_and_torn_lines_are_dropped() {
        let text = "{\"step\":1,\"loss\":2.0}\n{\"step\":2}\n{\"step\":3}\n{\"step\":1";
        assert_eq!(kept(text, 2), "{\"step\":1,\"loss\":2.0}\n{\"step\":2}\n");
        assert_eq!(kept(text, 0), "");
    }

    #[test]
    fn numbers_read_back_exactly() {
        let loss = f64::from(0.1f32) / 3.0;
        let record = StepRecord {
            step: 7,
            loss,
            grad_norm: 1e-17,
            lr: 6e-4,
            unit: "images",
            per_second: 1.5,
            data_wait: 0.25,
        };
        let value: Value = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(value["loss"].as_f64(), Some(loss));
        assert_eq!(value["grad_norm"].as_f64(), Some(1e-17));
        assert_eq!(value["images_per_second"].as_f64(), Some(1.5));
        let scores = BTreeMap::from([("top1", 0.5)]);
        let record = EvaluationRecord { step: 7, validation_loss: 0.1, scores };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(line, "{\"step\":7,\"validation_loss\":0.1,\"top1\":0.5}");
    }
}
