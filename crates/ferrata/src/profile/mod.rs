//! Where the time of steps goes: each kernel's share and how near it comes to what the machine can
//! do, what lies outside of kernels, and the whole course as a trace.
//!
//! A [`Recorder`] watches a device; [`training`] takes steps under one. The limit of a kernel is
//! the roofline: the time that its operations take at the measured peak of its dtype, or that its
//! bytes take at the measured speed of memory, whichever is longer. A kernel whose operands
//! are still in a cache can exceed it.
//!
//! | file | what |
//! |---|---|
//! | `record` | what happened, and when |
//! | `trace` | the course as a Chrome trace |

mod record;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;

use ferrata_compiler::Cost;
use ferrata_compiler::watch::{Bandwidth, Limits};
use ferrata_formats::atomic;
use serde::Serialize;

use crate::train::{Learner, Result};
use record::Timeline;

pub use record::Recorder;
pub(crate) use record::host;

/// Steps that are taken before the first one that counts: they trace, compile and touch memory.
pub const WARM_UP: u64 = 2;

/// Where the time of some steps went. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Device and instruction-set path.
    pub device: String,
    /// How long each step took.
    pub steps: Vec<f64>,
    /// The measured limits of the machine; `None` if the device is no machine.
    pub limits: Option<Peaks>,
    /// The kernels, the longest first.
    pub kernels: Vec<KernelUse>,
    /// What is left of the mean step, as (what, seconds), the longest first.
    pub outside: Vec<(&'static str, f64)>,
    /// Scalar operations of a step.
    pub flops: f64,
    /// Bytes that the kernels of a step have to move.
    pub bytes: f64,
    /// The time that a step's kernels would take at the limit, as a share of the mean step.
    pub of_limit: f64,
    /// The share of the time of kernels in which a thread had nothing to do, over all threads.
    pub idle: f64,
    #[serde(skip)]
    timeline: Timeline,
}

/// What the machine can do at best.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// Scalar operations per second by dtype.
    pub operations: BTreeMap<&'static str, f64>,
    /// The speed of memory.
    pub memory: Speed,
}

/// Bytes per second, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Of reads.
    pub read: f64,
    /// Of copies; bytes read and bytes written both count.
    pub copy: f64,
    /// Of writes.
    pub write: f64,
}

impl From<Bandwidth> for Speed {
    fn from(Bandwidth { read, copy, write }: Bandwidth) -> Speed {
        Speed { read, copy, write }
    }
}

/// All runs of a kernel in one scope; the scopes of a repeated layer are one (`layers.*.mlp`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelUse {
    /// `contract`, `loop`, `composite` or `primitive`.
    pub class: &'static str,
    /// Sizes and dtypes, and the name of a composite or primitive.
    pub kernel: String,
    /// Where in the program it comes from.
    pub scope: String,
    /// Runs in a step.
    pub count: f64,
    /// Time in a step.
    pub seconds: f64,
    /// That time as a share of the mean step.
    pub share: f64,
    /// Scalar operations of one run.
    pub flops: f64,
    /// Bytes that one run has to move.
    pub bytes: f64,
    /// The least time that the machine could need, as a share of the time it took.
    pub of_limit: Option<f64>,
    /// What limits it: `compute` or `memory`.
    pub bound: &'static str,
    /// The share of its time in which a thread had nothing to do, over all threads.
    pub idle: f64,
}

impl From<Limits> for Peaks {
    fn from(limits: Limits) -> Peaks {
        let operations = limits.operations.iter().map(|(d, rate)| (d.name(), *rate)).collect();
        Peaks { operations, memory: limits.memory.into() }
    }
}

impl KernelUse {
    /// Scalar operations per second.
    pub fn flops_per_second(&self) -> f64 {
        self.flops * self.count / self.seconds
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes * self.count / self.seconds
    }
}

/// Takes `warm_up` steps of `learner`, then `steps` more of which it gives the profile. The
/// learner must work on the default device.
///
/// # Errors
/// What the steps report.
pub fn training(
    learner: &mut (impl Learner + ?Sized),
    warm_up: u64,
    steps: u64,
) -> Result<Profile> {
    (0..warm_up).try_for_each(|step| learner.step(step).map(drop))?;
    let mut recorder = Recorder::start(&crate::Device::default());
    for step in warm_up..warm_up + steps {
        learner.step(step)?;
        recorder.step();
    }
    Ok(recorder.finish())
}

impl Profile {
    /// Everything but the course, as JSON with the names of the fields.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The course of the steps as a Chrome trace, which Perfetto opens: a row for each thread,
    /// kernels with their operations, bytes and scopes, memory as a counter.
    pub fn trace(&self) -> String {
        trace::chrome(&self.timeline)
    }

    /// Writes the trace into a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_trace(&self, file: &Path) -> Result<()> {
        Ok(atomic::write_bytes(file, self.trace().as_bytes())?)
    }

    /// The mean time of a step.
    pub fn step_seconds(&self) -> f64 {
        self.steps.iter().sum::<f64>() / self.steps.len().max(1) as f64
    }

    fn new(device: String, limits: Option<Limits>, timeline: Timeline) -> Profile {
        let steps = timeline.step_times();
        let (count, whole) = (steps.len().max(1) as f64, steps.iter().sum::<f64>());
        let threads = timeline.threads();
        let mut kernels: Vec<KernelUse> = Vec::new();
        let (mut total, mut least, mut busy_total) = (Cost::default(), 0.0, 0.0);
        let mut uses = vec![(0usize, 0.0, 0.0); timeline.sources.len()];
        for run in &timeline.runs {
            let (runs, seconds, busy) = &mut uses[run.source];
            (*runs, *seconds) = (*runs + 1, *seconds + run.span.seconds());
            *busy += run.busy.iter().map(|(_, span)| span.seconds()).sum::<f64>();
        }
        for (source, (runs, seconds, busy)) in timeline.sources.iter().zip(uses) {
            let cost = source.cost;
            let least_time = |limits: &Limits| {
                let (time, bound) = limits.least_time(cost, source.kernel.dtype());
                (Some(time), bound)
            };
            let (time, bound) = limits.as_ref().map_or((None, "unknown"), least_time);
            (0..runs).for_each(|_| total += cost);
            least += time.unwrap_or_default() * runs as f64;
            busy_total += busy;
            kernels.push(KernelUse {
                class: source.kernel.class(),
                kernel: source.kernel.shape(),
                scope: source.scope.clone(),
                count: runs as f64 / count,
                seconds: seconds / count,
                share: seconds / whole,
                flops: cost.flops,
                bytes: cost.bytes(),
                of_limit: time.map(|time| time * runs as f64 / seconds),
                bound,
                idle: 1.0 - busy / (seconds * threads as f64),
            });
        }
        kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let in_kernels: f64 = timeline.runs.iter().map(|run| run.span.seconds()).sum();
        let mut outside: Vec<_> =
            timeline.outside().into_iter().map(|(what, time)| (what, time / count)).collect();
        outside.sort_by(|a, b| b.1.total_cmp(&a.1));
        let limits = limits.map(Peaks::from);
        Profile {
            device,
            steps,
            limits,
            kernels,
            outside,
            flops: total.flops / count,
            bytes: total.bytes() / count,
            of_limit: least / whole,
            idle: 1.0 - busy_total / (in_kernels * threads as f64),
            timeline,
        }
    }
}
