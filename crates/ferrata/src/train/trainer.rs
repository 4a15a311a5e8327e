//! The training loop: steps, metrics, evaluations, samples, checkpoints, interrupts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ferrata_formats::atomic;
use ferrata_formats::checkpoint::{self, Checkpoint, CheckpointWriter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{DataSection, ParallelSection};
use super::folder::{self, CONFIG, FINAL, PROFILE, SAMPLES, TRACE};
use super::learner::{Evaluated, Sample};
use super::metrics::{EvaluationRecord, Metrics, StepRecord};
use super::{Config, Error, Learner, Progress, Result, Snapshot};
use crate::Device;
use crate::mesh::{MeshDevice, Report};
use crate::profile::{self, Profile, Recorder, WARM_UP};

/// What happens during training, told to the caller as it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something the user should know, such as a damaged checkpoint that was passed over.
    Note(String),
    /// The run continues after so many completed steps.
    Resumed {
        /// Completed steps.
        step: u64,
        /// The checkpoint it continues from.
        path: PathBuf,
    },
    /// A step is done; not every step has a line in the metrics.
    Step {
        /// The step as it stands in the metrics; its speed is that of the last second or so.
        record: StepRecord,
        /// The estimated time until the last step.
        remaining: Duration,
    },
    /// The validation part has been evaluated.
    Evaluation {
        /// The result as it stands in the metrics.
        record: EvaluationRecord,
        /// Whether no evaluation has been better.
        best: bool,
        /// More about it, in lines for people.
        report: Vec<String>,
    },
    /// A sample has been made.
    Sample {
        /// Completed steps.
        step: u64,
        /// What came out.
        text: String,
    },
    /// A picture of samples has been written.
    Picture {
        /// Completed steps.
        step: u64,
        /// The PNG file.
        path: PathBuf,
    },
    /// The steps that were to be profiled are done.
    Profile {
        /// Where their time went.
        profile: Box<Profile>,
        /// The file that holds it as JSON, beside its trace.
        path: PathBuf,
    },
    /// A checkpoint is complete.
    Checkpoint {
        /// Completed steps.
        step: u64,
        /// Its folder.
        path: PathBuf,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Completed steps.
    pub steps: u64,
    /// Whether it was interrupted before its last step.
    pub interrupted: bool,
    /// The loss of the last step, unless there was none.
    pub loss: Option<f64>,
    /// The last validation loss, if there is a validation part.
    pub validation_loss: Option<f64>,
    /// The other measures of the last evaluation of this process, by name.
    pub scores: BTreeMap<&'static str, f64>,
    /// The step and the loss of the best evaluation.
    pub best: Option<Best>,
    /// The last checkpoint, if one was written or resumed from.
    pub checkpoint: Option<PathBuf>,
    /// The trained model, if the run came to its end.
    pub model: Option<PathBuf>,
    /// Time spent in this process.
    pub elapsed: Duration,
}

/// The best evaluation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Completed steps.
    pub step: u64,
    /// The mean loss over the validation part.
    pub loss: f64,
}

/// What the loop itself keeps in a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LoopState {
    best: Option<Best>,
    last_evaluation: Option<Best>,
}

/// Trains a [`Learner`] as a configuration says, in the folder of a run.
///
/// The folder gets `config.toml`, `metrics.jsonl`, TensorBoard event files, checkpoints
/// (`step-00001000`) and, at the end, the model (`final`). It is made after the first step, so a
/// run that fails at once leaves nothing.
pub struct Trainer<'a, L: ?Sized> {
    learner: &'a mut L,
    config: &'a Config,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    resume: bool,
    checkpoints: bool,
    profile: u64,
}

/// The state of a run under way.
struct Run<'a, L: ?Sized> {
    learner: &'a mut L,
    config: &'a Config,
    folder: &'a Path,
    stop: &'a AtomicBool,
    checkpoints: bool,
    /// Steps to profile.
    profile: u64,
    recorder: Option<Recorder>,
    report: &'a mut dyn FnMut(&Event),
    /// Completed steps.
    step: u64,
    state: LoopState,
    /// Opened after the first step.
    metrics: Option<Metrics>,
    last_loss: Option<f64>,
    /// Of the last evaluation.
    scores: BTreeMap<&'static str, f64>,
    last_checkpoint: Option<PathBuf>,
    /// The step that was saved last, or is being saved.
    saved_at: Option<u64>,
    /// A checkpoint that is being written.
    saving: Option<Saving>,
    /// Whether all ranks are known to see the folder.
    shared: bool,
}

/// A checkpoint that is being written while training goes on.
struct Saving {
    step: u64,
    thread: JoinHandle<Result<CheckpointWriter>>,
    state: Value,
    /// The best step so far, whose checkpoint is kept.
    best: Option<u64>,
}

impl<'a, L: Learner + ?Sized> Trainer<'a, L> {
    /// A run of `learner` in `folder`.
    pub fn new(learner: &'a mut L, config: &'a Config, folder: impl Into<PathBuf>) -> Self {
        Trainer {
            learner,
            config,
            folder: folder.into(),
            stop: Arc::default(),
            resume: false,
            checkpoints: true,
            profile: 0,
        }
    }

    /// Continues the run in the folder from its latest valid checkpoint; begins one if there is
    /// none.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Whether checkpoints are written; without them a run ends with its model only.
    pub fn checkpoints(mut self, checkpoints: bool) -> Self {
        self.checkpoints = checkpoints;
        self
    }

    /// Profiles so many steps, after [`WARM_UP`] that do not count, and writes `profile.json` and
    /// `trace.json` into the folder. The learner must work on the default device.
    pub fn profile(mut self, steps: u64) -> Self {
        self.profile = steps;
        self
    }

    /// As soon as `stop` is set, the run saves a checkpoint and ends.
    pub fn stop_when(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Checks that the run can begin: the folder is free and can be written. Leaves no trace.
    ///
    /// # Errors
    /// If the folder holds another run, cannot be written or has too little space.
    pub fn check(&self) -> Result<()> {
        if !writes() {
            return Ok(());
        }
        // The checkpoints that are kept, the best one, the one being written, and the model.
        let copies = if self.checkpoints { self.config.train.keep as u64 + 3 } else { 1 };
        let bytes = self.learner.checkpoint_bytes().saturating_mul(copies);
        folder::check_writable(&self.folder, bytes)?;
        if !self.resume && folder::holds_a_run(&self.folder)? {
            return Err(Error::new(
                format!("`{}` already holds a run", self.folder.display()),
                "continue it with --resume or choose another folder with --out",
            ));
        }
        Ok(())
    }

    /// Trains to the end, or until stopped; tells `report` what happens.
    ///
    /// # Errors
    /// Those of [`Trainer::check`]; a checkpoint that does not fit; a loss that is not finite;
    /// what steps and writing report. Checkpoints written before stay.
    pub fn run(self, report: &mut dyn FnMut(&Event)) -> Result<Summary> {
        self.check()?;
        let started = Instant::now();
        let mut run = Run {
            learner: self.learner,
            config: self.config,
            folder: &self.folder,
            stop: &self.stop,
            checkpoints: self.checkpoints,
            profile: self.profile,
            recorder: None,
            report,
            step: 0,
            state: LoopState::default(),
            metrics: None,
            last_loss: None,
            scores: BTreeMap::new(),
            last_checkpoint: None,
            saved_at: None,
            saving: None,
            shared: !self.checkpoints,
        };
        if self.resume {
            run.restore()?;
        }
        tell(Report::Other("start"));
        let interrupted = match run.steps() {
            Ok(interrupted) => interrupted,
            Err(error) => {
                // What was begun is finished; of several ranks others may be elsewhere.
                match Device::default().mesh() {
                    None => drop(run.settle(true)),
                    Some(_) => drop(run.saving.take().map(|saving| saving.thread.join())),
                }
                return Err(error);
            }
        };
        let model = run.finish(interrupted)?;
        tell(Report::Done);
        Ok(Summary {
            steps: run.step,
            interrupted,
            loss: run.last_loss,
            validation_loss: run.state.last_evaluation.map(|last| last.loss),
            scores: run.scores,
            best: run.state.best,
            checkpoint: run.last_checkpoint,
            model,
            elapsed: started.elapsed(),
        })
    }
}

/// Whether this process writes files: of several ranks only the first does.
fn writes() -> bool {
    Device::default().leads()
}

/// Tells whoever watches over the ranks of a job what this one is about to do.
fn tell(what: Report<'_>) {
    Device::default().mesh().into_iter().for_each(|mesh| mesh.report(what));
}

/// Whether any rank says so.
fn any(here: bool) -> Result<bool> {
    Device::default().mesh().map_or(Ok(here), |mesh| Ok(mesh.any(here)?))
}

/// What every rank has to say, unless one has failed: all then say of which rank and why.
fn agreed<T>(mesh: &MeshDevice, here: &std::result::Result<T, String>) -> Result<Vec<T>>
where
    T: Serialize + DeserializeOwned,
{
    let unread = |error: serde_json::Error| {
        Error::new(format!("what a rank says cannot be read: {error}"), "resume the run")
    };
    let all = mesh.gather(&serde_json::to_vec(here).map_err(unread)?)?;
    let all = all.iter().enumerate().map(|(rank, text)| {
        let said = serde_json::from_slice::<std::result::Result<T, String>>(text);
        said.map_err(unread)?.map_err(|error| Error::from_message(format!("rank {rank}: {error}")))
    });
    all.collect()
}

/// Begins a checkpoint, to which every rank adds files.
fn begin_checkpoint(run: &Path, step: u64) -> Result<CheckpointWriter> {
    let device = Device::default();
    let Some(mesh) = device.mesh() else { return Ok(CheckpointWriter::new(run, step)?) };
    let begun = writes().then(|| CheckpointWriter::new(run, step)).transpose();
    let folder = begun.as_ref().map(|w| w.as_ref().map(|w| w.folder().to_path_buf()));
    let folders = agreed(mesh, &folder.map_err(ToString::to_string))?;
    let first = folders.into_iter().next().flatten().unwrap_or_default();
    Ok(begun?.unwrap_or_else(|| CheckpointWriter::joining(first, run, step)))
}

/// Whether something that happens every so many steps (0: never) is due.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

impl<L: Learner + ?Sized> Run<'_, L> {
    fn restore(&mut self) -> Result<()> {
        if writes() {
            atomic::sweep(self.folder)?;
        }
        let latest = checkpoint::latest(self.folder)?;
        for problem in &latest.skipped {
            (self.report)(&Event::Note(problem.to_string()));
        }
        let Some(found) = latest.checkpoint else { return Ok(()) };
        let manifest = found.manifest();
        self.check_config(&found)?;
        let (saved, now) = (&manifest.device, self.learner.device());
        if *saved != now {
            (self.report)(&Event::Note(format!(
                "the checkpoint was written on {saved} and continues on {now}; \
                 results will not be the same to the last bit"
            )));
        }
        let state = |key: &str| manifest.state.get(key).cloned().unwrap_or(Value::Null);
        self.state = serde_json::from_value(state("loop")).map_err(|error| {
            let path = found.path().display();
            Error::new(format!("checkpoint `{path}` is incomplete ({error})"), "start a new run")
        })?;
        self.learner.restore(&found, &state("learner"))?;
        self.step = manifest.step;
        self.saved_at = Some(manifest.step);
        self.last_checkpoint = Some(found.path().to_path_buf());
        if self.step > self.config.train.steps {
            return Err(Error::new(
                format!(
                    "the run in `{}` has {} steps behind it and train.steps is {}",
                    self.folder.display(),
                    self.step,
                    self.config.train.steps
                ),
                "raise train.steps or start a new run",
            ));
        }
        let path = found.path().to_path_buf();
        (self.report)(&Event::Resumed { step: self.step, path });
        Ok(())
    }

    /// A run continues only with the settings that it began with, but for those that leave what
    /// is learned alone and for its length.
    fn check_config(&self, found: &Checkpoint) -> Result<()> {
        let saved = found.manifest().state.get("config").cloned().unwrap_or(Value::Null);
        match saved == learning_settings(self.config) {
            true => Ok(()),
            false => {
                let key = first_difference("", &saved, &learning_settings(self.config));
                Err(Error::new(
                    format!(
                        "`{}` has another value than in the run in `{}`",
                        key.trim_start_matches('.'),
                        self.folder.display()
                    ),
                    "continue with the run's own configuration (its config.toml) or start a new \
                     run",
                ))
            }
        }
    }

    /// Takes the remaining steps; returns whether it was stopped before the last one.
    fn steps(&mut self) -> Result<bool> {
        let settings = &self.config.train;
        let mut clock = Clock::new(settings.steps - self.step);
        let profiled = self.step + WARM_UP;
        if self.profile > 0 && profiled + self.profile > settings.steps {
            let needed = profiled + self.profile;
            return Err(Error::new(
                format!("a profile of {} steps does not fit into the run", self.profile),
                format!("set train.steps to {needed} or more"),
            ));
        }
        while self.step < settings.steps {
            if self.stopping()? {
                return Ok(true);
            }
            if self.profile > 0 && self.step == profiled {
                self.recorder = Some(Recorder::start(&Device::default()));
            }
            tell(Report::Step(self.step));
            let progress = self.learner.step(self.step)?;
            self.check_finite(&progress)?;
            self.step += 1;
            self.last_loss = Some(progress.loss);
            let record = clock.record(self.step, self.learner.unit(), &progress);
            self.tell_news();
            profile::host("metrics", || {
                let due = due(record.step, settings.log_every) || record.step == settings.steps;
                match self.metrics()? {
                    Some(metrics) if due => metrics.step(&record),
                    _ => Ok(()),
                }
            })?;
            if !self.shared {
                self.check_shared()?;
            }
            let remaining = clock.remaining();
            (self.report)(&Event::Step { record, remaining });
            self.between_steps()?;
            self.record_step()?;
            clock.pause_ended();
        }
        Ok(false)
    }

    /// Whether the run is to stop here. A signal reaches each rank at a step of its own, so they
    /// agree on one.
    fn stopping(&self) -> Result<bool> {
        any(self.stop.load(Ordering::Relaxed))
    }

    /// Checks that every rank sees the folder of the run, which the first has made by now: all write
    /// into it, and continue from it.
    fn check_shared(&mut self) -> Result<()> {
        self.shared = true;
        let device = Device::default();
        let Some(mesh) = device.mesh() else { return Ok(()) };
        mesh.any(false)?;
        let seen = match self.folder.is_dir() {
            true => Ok(()),
            false => Err(format!(
                "it does not see the folder `{}` that the first rank has made; put the run on a file \
                 system that all ranks share",
                self.folder.display()
            )),
        };
        agreed(mesh, &seen).map(drop)
    }

    /// Ends a step of the profile, and the profile with its last step.
    fn record_step(&mut self) -> Result<()> {
        let Some(mut recorder) = self.recorder.take() else { return Ok(()) };
        if recorder.step() < self.profile {
            self.recorder = Some(recorder);
            return Ok(());
        }
        let profile = Box::new(recorder.finish());
        if !writes() {
            return Ok(());
        }
        let path = self.folder.join(PROFILE);
        atomic::write_bytes(&path, profile.to_json().as_bytes())?;
        profile.write_trace(&self.folder.join(TRACE))?;
        (self.report)(&Event::Profile { profile, path });
        Ok(())
    }

    fn check_finite(&mut self, progress: &Progress) -> Result<()> {
        if progress.loss.is_finite() && progress.grad_norm.is_finite() {
            return Ok(());
        }
        let (what, value) = match progress.loss.is_finite() {
            true => ("gradient norm", progress.grad_norm),
            false => ("loss", progress.loss),
        };
        self.settle(true)?;
        let step = self.step + 1;
        let mut cause = format!("the {what} is {value} at step {step}");
        if self.config.train.watch_nan
            && let Some(reason) = self.learner.explain_not_finite(self.step)
        {
            cause = format!("{cause}: {reason}");
        }
        let remedy = match self.config.train.watch_nan {
            true => "lower optimizer.lr or set train.clip_norm = 1.0",
            false => {
                "lower optimizer.lr, set train.clip_norm = 1.0, or find where it comes from with \
                 --set train.watch_nan=true"
            }
        };
        Err(Error::new(cause, remedy))
    }

    /// The metrics, if this rank writes them; the first time, after a step has been taken, the
    /// folder of the run is made.
    fn metrics(&mut self) -> Result<Option<&mut Metrics>> {
        if !writes() {
            return Ok(None);
        }
        let metrics = match self.metrics.take() {
            Some(metrics) => metrics,
            None => {
                atomic::create_folder(self.folder)?;
                atomic::write_bytes(&self.folder.join(CONFIG), self.config.to_toml().as_bytes())?;
                // Of the steps before this one the lines are there already.
                Metrics::open(self.folder, self.step.saturating_sub(1))?
            }
        };
        Ok(Some(self.metrics.insert(metrics)))
    }

    /// Evaluation, sample and checkpoint, where they are due.
    fn between_steps(&mut self) -> Result<()> {
        let settings = &self.config.train;
        let last = self.step == settings.steps;
        let mut improved = false;
        if due(self.step, settings.eval_every) || last {
            improved = profile::host("evaluation", || self.evaluate())?;
        }
        if due(self.step, settings.sample_every) {
            profile::host("sample", || self.sample())?;
        }
        let regular = due(self.step, settings.checkpoint_every);
        // A better model is kept even between regular checkpoints.
        if self.checkpoints && (regular || last || (improved && settings.checkpoint_every > 0)) {
            profile::host("checkpoint", || self.save())?;
        }
        self.settle(false)
    }

    fn tell_news(&mut self) {
        for note in self.learner.news() {
            (self.report)(&Event::Note(note));
        }
    }

    fn sample(&mut self) -> Result<()> {
        tell(Report::Other("sample"));
        let step = self.step;
        match self.learner.sample(step)? {
            None => {}
            Some(Sample::Text(text)) => (self.report)(&Event::Sample { step, text }),
            Some(Sample::Picture(_)) if !writes() => {}
            Some(Sample::Picture(picture)) => {
                let png = picture.to_png()?;
                let folder = self.folder.join(SAMPLES);
                atomic::create_folder(&folder)?;
                let path = folder.join(format!("step-{step:08}.png"));
                atomic::write_bytes(&path, &png)?;
                if let Some(metrics) = self.metrics()? {
                    metrics.picture(step, [picture.width, picture.height], &png)?;
                }
                (self.report)(&Event::Picture { step, path });
            }
        }
        Ok(())
    }

    /// Evaluates; returns whether the result is the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        tell(Report::Other("evaluation"));
        let step = self.step;
        // Ranks evaluate together to the end.
        let never = AtomicBool::new(false);
        let stop = if Device::default().mesh().is_some() { &never } else { self.stop };
        let Some(found) = self.learner.evaluate(step, stop)? else { return Ok(false) };
        self.tell_news();
        let Evaluated { loss, scores, report, files } = found;
        let best = self.state.best.is_none_or(|best| loss < best.loss);
        let this = Best { step, loss };
        self.state.last_evaluation = Some(this);
        if best {
            self.state.best = Some(this);
        }
        self.scores = scores.clone();
        let record = EvaluationRecord { step, validation_loss: loss, scores };
        if let Some(metrics) = self.metrics()? {
            metrics.evaluation(&record)?;
        }
        for (name, content) in files.into_iter().filter(|_| writes()) {
            atomic::write_bytes(&self.folder.join(name), &content)?;
        }
        (self.report)(&Event::Evaluation { record, best, report });
        Ok(best)
    }

    /// Begins a checkpoint of what has been learned so far.
    fn save(&mut self) -> Result<()> {
        self.settle(true)?;
        tell(Report::Other("checkpoint"));
        let mut snapshot = Snapshot::default();
        let learner = self.learner.save(&mut snapshot)?;
        let state = json!({
            "config": learning_settings(self.config),
            "loop": self.state,
            "learner": learner,
        });
        let (step, leads) = (self.step, writes());
        let mut writer = begin_checkpoint(self.folder, step)?;
        let thread = thread::spawn(move || snapshot.write(&mut writer, leads).map(|()| writer));
        let best = self.state.best.map(|best| best.step);
        self.saving = Some(Saving { step, thread, state, best });
        self.saved_at = Some(step);
        // What is being written takes memory beside the next step.
        self.settle(self.config.train.memory.is_some())
    }

    /// Finishes the checkpoint that is being written, if all ranks have written their part; with
    /// `wait`, as soon as they have.
    fn settle(&mut self, wait: bool) -> Result<()> {
        let Some(saving) = &self.saving else { return Ok(()) };
        if any(!wait && !saving.thread.is_finished())? {
            return Ok(());
        }
        let Some(saving) = self.saving.take() else { return Ok(()) };
        let Saving { step, thread, state, best } = saving;
        let written = thread.join().unwrap_or_else(|_| {
            let cause = "writing the checkpoint came to an end";
            Err(Error::new(cause, "resume from the checkpoint before it"))
        });
        let path = match Device::default().mesh() {
            Some(mesh) => {
                let own = written.as_ref().map(|w| w.files().to_vec());
                let mut files = agreed(mesh, &own.map_err(ToString::to_string))?.into_iter();
                let mut writer = written?;
                files.next();
                writer.adopt(files.flatten());
                writer.finish(&self.learner.device(), state)?
            }
            None => written?.finish(&self.learner.device(), state)?,
        };
        self.last_checkpoint = Some(path.clone());
        if writes() {
            let best: Vec<u64> = best.into_iter().collect();
            checkpoint::retain(self.folder, self.config.train.keep, &best)?;
        }
        (self.report)(&Event::Checkpoint { step, path });
        Ok(())
    }

    /// Saves what an interrupted run has done, or exports the model.
    fn finish(&mut self, interrupted: bool) -> Result<Option<PathBuf>> {
        if interrupted {
            if self.checkpoints && self.step > 0 && self.saved_at != Some(self.step) {
                self.save()?;
            }
            self.settle(true)?;
            return Ok(None);
        }
        self.settle(true)?;
        let path = self.folder.join(FINAL);
        if writes() {
            self.learner.export(&path)?;
            return Ok(Some(path));
        }
        // All ranks gather the weights; what this one makes of them is thrown away.
        let scratch = std::env::temp_dir().join(format!("ferrata-{}", std::process::id()));
        let exported = self.learner.export(&scratch);
        let _ = std::fs::remove_dir_all(&scratch);
        exported.map(|()| Some(path))
    }
}

/// The settings that must not change when a run continues, as a JSON value.
fn learning_settings(config: &Config) -> Value {
    let mut config = config.clone();
    let train = &mut config.train;
    train.steps = 0;
    train.threads = 0;
    train.log_every = 0;
    train.eval_every = 0;
    train.sample_every = 0;
    train.sample_tokens = 0;
    train.prompt = String::new();
    train.checkpoint_every = 0;
    train.keep = 0;
    train.watch_nan = false;
    // Once begun, a run does not look at the model that it started from.
    train.init = None;
    // A run may continue on other ranks.
    config.parallel = ParallelSection::default();
    // Where the data lies does not matter; whether it is the same data is for the learner to say.
    match &mut config.data {
        DataSection::Text(text) => {
            text.text.clear();
            text.jsonl.clear();
            text.cargo_sources = false;
        }
        DataSection::Images(images) => {
            images.images = None;
            images.max_pixels = 0;
            images.workers = 0;
        }
    }
    serde_json::to_value(&config).unwrap_or(Value::Null)
}

/// The key at which two settings first differ.
fn first_difference(path: &str, a: &Value, b: &Value) -> String {
    if let (Value::Object(a), Value::Object(b)) = (a, b) {
        for key in a.keys().chain(b.keys()) {
            let (x, y) = (a.get(key), b.get(key));
            if x != y {
                let path = format!("{path}.{key}");
                let null = &Value::Null;
                return first_difference(&path, x.unwrap_or(null), y.unwrap_or(null));
            }
        }
    }
    path.to_owned()
}

/// Speed and remaining time. Only time spent in steps counts for the speed.
struct Clock {
    steps_left: u64,
    begun: Instant,
    steps_done: u64,
    step_begun: Instant,
    /// Smoothed tokens or images per second.
    speed: Option<f64>,
    window_time: f64,
    window_seen: f64,
}

impl Clock {
    /// Speed is averaged over about this many seconds.
    const WINDOW: f64 = 1.0;

    fn new(steps_left: u64) -> Clock {
        let now = Instant::now();
        Clock {
            steps_left,
            begun: now,
            steps_done: 0,
            step_begun: now,
            speed: None,
            window_time: 0.0,
            window_seen: 0.0,
        }
    }

    fn record(&mut self, step: u64, unit: &'static str, progress: &Progress) -> StepRecord {
        self.steps_left -= 1;
        self.steps_done += 1;
        let taken = self.step_begun.elapsed().as_secs_f64();
        self.window_time += taken;
        self.window_seen += progress.seen as f64;
        if self.window_time >= Clock::WINDOW || self.speed.is_none() {
            self.speed = Some(self.window_seen / self.window_time.max(1e-9));
            // The first step compiles, so it is left out of the next window.
            (self.window_time, self.window_seen) = (0.0, 0.0);
        }
        StepRecord {
            step,
            loss: progress.loss,
            grad_norm: progress.grad_norm,
            lr: progress.lr,
            unit,
            per_second: self.speed.unwrap_or_default(),
            data_wait: progress.waited,
        }
    }

    /// Evaluations, samples and checkpoints are taken to go on at the same rate.
    fn remaining(&self) -> Duration {
        self.begun.elapsed().mul_f64(self.steps_left as f64 / self.steps_done.max(1) as f64)
    }

    fn pause_ended(&mut self) {
        self.step_begun = Instant::now();
    }
}
