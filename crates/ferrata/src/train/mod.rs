//! Training: configuration, the loop, metrics, checkpoints.
//!
//! [`Config`] says what to train; a [`Learner`] is what is trained; a [`Trainer`] drives it and
//! tells a callback what happens ([`Event`]). Nothing here prints or exits.
//!
//! | file | what |
//! |---|---|
//! | `config/` | the sections of a TOML file, overrides, checks |
//! | `corpus.rs` | from the `[data]` section to token ids |
//! | `learner.rs` | the traits of what can be trained |
//! | `engine.rs`, `feed.rs`, `stepper.rs` | the compiled programs of a step, its batches, and what all learners do with them |
//! | `language.rs`, `next_token.rs` | language models as learners, and their loss |
//! | `classifier.rs`, `scores.rs` | image classifiers as learners, and how good they are |
//! | `painter.rs`, `painting.rs` | text-to-image models as learners, and how they paint |
//! | `preprocessing.rs`, `trained_classifier.rs` | a trained classifier, opened for use |
//! | `trained_painter.rs` | a trained text-to-image model, opened for use |
//! | `optimizer.rs` | from the configuration to an optimiser and a schedule |
//! | `trained.rs` | a trained model, opened for use; its loss on text; what it costs |
//! | `sketch.rs` | what is trained, as a program that is only planned |
//! | `trainer.rs` | the loop: steps, evaluations, samples, checkpoints, interrupts |
//! | `metrics.rs`, `tensorboard.rs` | JSON lines and TensorBoard event files |
//! | `folder.rs` | the folder of a run: free, writable, where its model is |
//! | `error.rs` | one line: cause and remedy |

mod classifier;
pub mod config;
mod corpus;
mod engine;
mod error;
mod feed;
mod folder;
mod language;
mod learner;
mod memory;
mod metrics;
mod next_token;
mod optimizer;
mod painter;
mod painting;
mod preprocessing;
mod scores;
mod sketch;
mod snapshot;
mod stepper;
mod tensorboard;
#[cfg(test)]
mod tests;
mod trained;
mod trained_classifier;
mod trained_painter;
mod trainer;

pub use classifier::Classifier;
pub use config::Config;
pub use corpus::Corpus;
pub use error::{Error, Result};

pub use folder::{CONFIG, FINAL, check_writable, holds_a_run, last_used, model_directory, unused};
pub use language::Language;
pub use learner::{
    DataFacts, Evaluated, Facts, Learner, Progress, Sample, StepPlan, Task, open, replay,
};
pub(crate) use memory::available_memory;
pub use memory::process_memory;
pub use metrics::{EvaluationRecord, METRICS, StepRecord};
pub use painter::Painter;
pub use painting::Checked;
pub use scores::Scores;
pub use sketch::sketch;
pub use snapshot::Snapshot;
pub use trained::{Evaluation, Trained};
pub use trained_classifier::{Guess, TrainedClassifier};
pub use trained_painter::TrainedPainter;
pub use trainer::{Best, Event, Summary, Trainer};

/// A number of bytes for people: `1.5 GiB`.
pub fn in_bytes(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!(
            "{:.1} {}",
            bytes as f64 / f64::from(1u32 << 10).powi(unit as i32),
            units[unit as usize]
        ),
    }
}
