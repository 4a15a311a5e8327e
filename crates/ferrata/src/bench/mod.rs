//! How fast this machine is, and how near to it kernels and whole training steps come.
//!
//! A [`Case`] is a piece of work with known operations and bytes: the least that any
//! implementation has to do. Its limit is the roofline: the time of the operations at the measured
//! peak of their dtype, or of the bytes at the measured speed of memory, whichever is longer.
//! What fits into a cache can exceed it.
//!
//! | file | what |
//! |---|---|
//! | `cases` | the kernels and steps of language models that are measured |
//! | `images` | networks of convolutions, training and inference |
//! | `local` | this machine as a cluster of ranks |

mod cases;
mod images;
mod local;

use std::time::{Duration, Instant};

use ferrata_compiler::Cost;
use ferrata_compiler::watch::Level;
use ferrata_ir::DType;
use serde::Serialize;

pub use local::local_cluster;

use crate::Device;
use crate::profile::{Peaks, Speed};
use crate::train::{Error, Result};

/// What this machine can do at best.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Device and instruction-set path.
    pub device: String,
    /// Operations per second and the speed of memory; `None` if the device is no machine.
    pub peaks: Option<Peaks>,
    /// Bandwidths of caches and memory, the fastest first; none if they were not measured.
    pub levels: Vec<LevelSpeed>,
}

/// The speed of a cache, or of memory, for all threads together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelSpeed {
    /// `L1`, `L2` … or `memory`.
    pub name: String,
    /// Bytes that each thread went over.
    pub bytes: usize,
    /// The speed.
    pub speed: Speed,
}

/// The least that a case has to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Scalar operations; a multiplication and an addition count as two.
    pub flops: f64,
    /// Bytes read from memory: every operand once.
    pub read: f64,
    /// Bytes written to memory: every result once.
    pub written: f64,
    /// What the operations are in.
    #[serde(skip)]
    pub dtype: DType,
}

/// What a machine and its cases were measured to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The cases in the order in which they were measured.
    pub cases: Vec<Measured>,
}

impl Report {
    /// The report as JSON with the names of the fields.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// Runs a case once.
pub type Run = Box<dyn FnMut() -> Result<()>>;

/// Something to measure.
pub struct Case {
    /// Its name: words with hyphens, such as `matmul-f32-2048x2048x2048`.
    pub name: String,
    /// The least that it has to do.
    pub work: Work,
    /// Whether it is measured only when it is asked for by name.
    pub long: bool,
    prepare: Box<dyn Fn() -> Result<Run>>,
}

/// A measured case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The case's name.
    pub name: String,
    /// The median time of a run.
    pub seconds: f64,
    /// The range of the middle half of the times, as a share of the median.
    pub spread: f64,
    /// How many times were taken.
    pub samples: usize,
    /// The least that a run has to do.
    #[serde(flatten)]
    pub work: Work,
    /// The least time that the machine could need, as a share of the median.
    pub of_limit: Option<f64>,
    /// What limits it: `compute` or `memory`.
    pub bound: &'static str,
    /// Time from the start of preparations to the end of the first run: tracing, compiling, making
    /// the data.
    pub first: f64,
}

/// The cases whose names hold one of `names`; without names all that are not long.
///
/// # Errors
/// A name that no case holds.
pub fn select(names: &[String]) -> Result<Vec<Case>> {
    let all = cases::all();
    for name in names {
        if !all.iter().any(|case| case.name.contains(name.as_str())) {
            let known: Vec<&str> = all.iter().map(|case| &*case.name).collect();
            let known = known.join(", ");
            return Err(Error::new(
                format!("there is no case `{name}`"),
                format!("cases are {known}"),
            ));
        }
    }
    let wanted = |case: &Case| match names {
        [] => !case.long,
        names => names.iter().any(|name| case.name.contains(name.as_str())),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

impl Machine {
    /// Measures the device: its peaks, and, which takes some seconds, its levels of memory.
    pub fn measure(device: &Device, levels: bool) -> Machine {
        let backend = device.backend();
        let speed = |Level { name, bytes, bandwidth }: Level| LevelSpeed {
            name,
            bytes,
            speed: bandwidth.into(),
        };
        let levels = if levels { backend.levels() } else { Vec::new() };
        Machine {
            device: backend.fingerprint(),
            peaks: backend.limits().map(Peaks::from),
            levels: levels.into_iter().map(speed).collect(),
        }
    }
}

/// Times of a thing that is repeated.
struct Times(Vec<f64>);

impl Times {
    /// Repeats `run` for about `budget`, but at least three times. Runs that are short are timed
    /// several at once.
    fn take(run: &mut Run, budget: Duration) -> Result<Times> {
        const SHORTEST: f64 = 1e-3;
        const MOST: usize = 200;
        let start = Instant::now();
        run()?;
        let once = start.elapsed().as_secs_f64().max(1e-9);
        let group = (SHORTEST / once).ceil() as usize;
        let mut times = Vec::new();
        let begun = Instant::now();
        while times.len() < 3 || (begun.elapsed() < budget && times.len() < MOST) {
            let start = Instant::now();
            (0..group).try_for_each(|_| run())?;
            times.push(start.elapsed().as_secs_f64() / group as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(Times(times))
    }

    fn quantile(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }
}

impl Case {
    /// Prepares the case on the default device, and repeats it for about `budget`.
    ///
    /// # Errors
    /// What its program reports.
    pub fn measure(&self, budget: Duration) -> Result<Measured> {
        let limits = Device::default().backend().limits();
        let start = Instant::now();
        let mut run = (self.prepare)()?;
        run()?;
        let first = start.elapsed().as_secs_f64();
        let times = Times::take(&mut run, budget)?;
        let seconds = times.quantile(0.5);
        let Work { flops, read, written, dtype } = self.work;
        let limit = limits.map(|limits| limits.least_time(Cost { flops, read, written }, dtype));
        Ok(Measured {
            name: self.name.clone(),
            seconds,
            spread: (times.quantile(0.75) - times.quantile(0.25)) / seconds,
            samples: times.0.len(),
            work: self.work,
            of_limit: limit.map(|(time, _)| time / seconds),
            bound: limit.map_or("unknown", |(_, bound)| bound),
            first,
        })
    }
}
