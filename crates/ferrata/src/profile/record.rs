//! What happened while a device was watched, and when.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ferrata_compiler::watch::{Activity, Event};
use ferrata_compiler::{Cost, Kernel};

use super::Profile;
use crate::Device;

/// A time, in seconds since the recording began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub start: f64,
    pub end: f64,
}

impl Span {
    pub fn seconds(self) -> f64 {
        self.end - self.start
    }

    fn contains(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Where runs of a kernel come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub kernel: Arc<Kernel>,
    pub cost: Cost,
    /// Scope, those of repeated layers merged.
    pub scope: String,
}

/// A run of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// Index in [`Timeline::sources`].
    pub source: usize,
    pub span: Span,
    /// The scope as it is.
    pub scope: Arc<str>,
    /// When which thread was busy.
    pub busy: Vec<(usize, Span)>,
    /// Bytes that the device held.
    pub memory: usize,
}

/// Everything that happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Timeline {
    pub sources: Vec<Source>,
    pub runs: Vec<Run>,
    /// Whole programs.
    pub programs: Vec<Span>,
    pub copies: Vec<(Span, usize)>,
    /// What the thread that records did between programs.
    pub host: Vec<(&'static str, Span)>,
    pub steps: Vec<Span>,
    /// Sources by the kernel's address and the scope.
    known: HashMap<(usize, String), usize>,
}

impl Timeline {
    /// The threads that were seen busy, at least 1.
    pub fn threads(&self) -> usize {
        let last = self.runs.iter().flat_map(|run| run.busy.iter().map(|(thread, _)| *thread));
        last.max().map_or(1, |last| last + 1)
    }

    pub fn step_times(&self) -> Vec<f64> {
        self.steps.iter().map(|step| step.seconds()).collect()
    }

    /// The time of the steps that no kernel accounts for, as (what, seconds).
    pub fn outside(&self) -> Vec<(&'static str, f64)> {
        let sum = |spans: &mut dyn Iterator<Item = Span>| spans.map(Span::seconds).sum::<f64>();
        let kernels = sum(&mut self.runs.iter().map(|run| run.span));
        let copies = sum(&mut self.copies.iter().map(|(span, _)| *span));
        let programs = sum(&mut self.programs.iter().copied());
        let mut parts = vec![("copies", copies), ("between kernels", programs - kernels - copies)];
        for &(what, span) in &self.host {
            let inside = sum(&mut self.programs.iter().copied().filter(|p| span.contains(*p)));
            let own = span.seconds() - inside;
            match parts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, time)) => *time += own,
                None => parts.push((what, own)),
            }
        }
        let known = kernels + parts.iter().map(|(_, time)| time).sum::<f64>();
        parts.push(("rest of the loop", sum(&mut self.steps.iter().copied()) - known));
        parts
    }

    fn add(&mut self, begun: Instant, event: &Event<'_>) {
        let span = |start: Instant, end: Instant| Span {
            start: start.saturating_duration_since(begun).as_secs_f64(),
            end: end.saturating_duration_since(begun).as_secs_f64(),
        };
        let whole = span(event.start, event.end);
        match &event.activity {
            Activity::Program => self.programs.push(whole),
            Activity::Copy { bytes } => self.copies.push((whole, *bytes)),
            Activity::Kernel { kernel, origin, busy } => {
                let source = self.source(kernel, &origin.scope);
                let busy = busy.iter().map(|b| (b.thread, span(b.start, b.end))).collect();
                let (scope, memory) = (origin.scope.clone(), event.memory);
                self.runs.push(Run { source, span: whole, scope, busy, memory });
            }
        }
    }

    fn source(&mut self, kernel: &Arc<Kernel>, scope: &str) -> usize {
        let merged = merged(scope);
        let next = self.sources.len();
        *self.known.entry((Arc::as_ptr(kernel) as usize, merged)).or_insert_with_key(
            |(_, scope)| {
                let (kernel, cost) = (kernel.clone(), kernel.cost());
                self.sources.push(Source { kernel, cost, scope: scope.clone() });
                next
            },
        )
    }
}

/// A scope in which the numbers of layers are `*`.
fn merged(scope: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> =
        scope.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
    parts.join(".")
}

/// What a thread did, from when to when.
type HostSpan = (&'static str, Instant, Instant);

thread_local! {
    /// What this thread does between programs, while it records.
    static HOST: RefCell<Option<Vec<HostSpan>>> = const { RefCell::new(None) };
}

/// Does `work`, which a profile of this thread shows as `what`.
pub(crate) fn host<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if HOST.with_borrow(Option::is_none) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    HOST.with_borrow_mut(|spans| {
        if let Some(spans) = spans {
            spans.push((what, start, Instant::now()));
        }
    });
    result
}

/// Watches a device, and the thread that made it, until it is finished or dropped. One at a time
/// for each device.
///
/// ```
/// use ferrata::{DType, Device, Tensor};
/// use ferrata::profile::Recorder;
/// let x = Tensor::ones([64, 64], DType::F32);
/// x.eval()?;
/// let mut recorder = Recorder::start(&Device::default());
/// (&x.matmul(&x) + 1.0).eval()?;
/// recorder.step();
/// let profile = recorder.finish();
/// assert_eq!(profile.kernels[0].class, "contract");
/// # Ok::<(), ferrata::Error>(())
/// ```
pub struct Recorder {
    device: Device,
    timeline: Arc<Mutex<Timeline>>,
    begun: Instant,
    /// When each step ended.
    ends: Vec<Instant>,
}

impl Recorder {
    /// Begins to watch `device`; the first step begins now.
    pub fn start(device: &Device) -> Recorder {
        // Measured before anything is, so that it disturbs no step.
        device.backend().limits();
        let timeline = Arc::new(Mutex::new(Timeline::default()));
        let begun = Instant::now();
        let log = timeline.clone();
        device.backend().watch(Some(Arc::new(move |event| lock(&log).add(begun, event))));
        HOST.set(Some(Vec::new()));
        Recorder { device: device.clone(), timeline, begun, ends: Vec::new() }
    }

    /// Ends a step; the next one begins. Gives the number of steps so far.
    pub fn step(&mut self) -> u64 {
        self.ends.push(Instant::now());
        self.ends.len() as u64
    }

    /// Ends watching; what came after the last step does not count.
    pub fn finish(self) -> Profile {
        let since = |time: Instant| (time - self.begun).as_secs_f64();
        let mut timeline = std::mem::take(&mut *lock(&self.timeline));
        let mut start = 0.0;
        for end in self.ends.iter().map(|&end| since(end)) {
            timeline.steps.push(Span { start, end });
            start = end;
        }
        let spans = HOST.take().unwrap_or_default();
        let spans = spans
            .into_iter()
            .map(|(what, start, end)| (what, Span { start: since(start), end: since(end) }));
        timeline.host = spans.collect();
        let last = start;
        timeline.runs.retain(|run| run.span.end <= last);
        timeline.programs.retain(|span| span.end <= last);
        timeline.copies.retain(|(span, _)| span.end <= last);
        timeline.host.retain(|(_, span)| span.end <= last);
        let backend = self.device.backend();
        Profile::new(backend.fingerprint(), backend.limits(), timeline)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.device.backend().watch(None);
        HOST.set(None);
    }
}

fn lock(timeline: &Mutex<Timeline>) -> MutexGuard<'_, Timeline> {
    timeline.lock().unwrap_or_else(PoisonError::into_inner)
}
