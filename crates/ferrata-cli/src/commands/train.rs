//! `ferrata train`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata::Device;
use ferrata::inspect::Inspection;
use ferrata::mesh::Reshard;
use ferrata::train::config::{Override, Source};
use ferrata::train::{
    self, Config, DataFacts, Facts, Result, StepPlan, Summary, Task, Trainer, in_bytes,
};

use super::plan::plan_file;
use crate::args::{Recipe, Train};
use crate::device::Kind;
use crate::interrupt;
use crate::progress::{Progress, count, duration, say, score, show_recomputation};

/// What `ferrata train` does without a configuration.
const QUICKSTART: &str = include_str!("../../../../recipes/quickstart.toml");
/// What it does with images and without a configuration.
const IMAGES: &str = include_str!("../../../../recipes/images.toml");

/// Places where ranks send, as a dry run shows them.
const EDGES: usize = 20;

/// Checks everything, trains, and says what to do next.
pub fn run(args: Train) -> Result<()> {
    let mut config = load(&args.recipe, args.out.as_deref().filter(|_| args.resume))?;
    if let Some(path) = &args.plan {
        config.follow(&plan_file(path)?)?;
    }
    let out = output_folder(&args)?;
    let resumed = args.resume && args.recipe.mesh.is_none() && args.plan.is_none();
    let device = device(&mut config, args.device, resumed)?;
    ferrata::set_default_device(&device);
    // All ranks do the same; the first one tells of it.
    let first = device.leads();
    let mut learner: Box<dyn Task> = match &args.replay {
        Some(file) => train::replay(&mut config, file)?,
        None => train::open(&config)?,
    };
    let facts = learner.facts().clone();
    let plan = learner.plan()?;
    let bytes = learner.checkpoint_bytes();
    let trainer = Trainer::new(learner.as_mut(), &config, &out)
        .resume(args.resume)
        .checkpoints(args.replay.is_none())
        .profile(args.profile.unwrap_or_default());
    trainer.check()?;
    if first {
        introduce(&facts, config.train.steps);
        device.mesh().iter().for_each(|mesh| say!("ranks: {}", mesh.mesh()));
    }
    if args.dry_run {
        return if first { dry_run(bytes, &plan, &out) } else { Ok(()) };
    }
    if first {
        say!("output: {}", out.display());
    }
    let stop = Arc::new(AtomicBool::new(false));
    interrupt::on_signal(&stop)?;
    if !first {
        return trainer.stop_when(stop).run(&mut |_| ()).map(|_| ());
    }
    let mut progress = Progress::stdout(config.train.steps);
    let summary = trainer.stop_when(stop).run(&mut |event| progress.show(event));
    progress.close();
    conclude(&summary?, &facts, &out);
    Ok(())
}

/// What the run computes on: a device alone, or the CPU as one of the ranks of a job. A run that is
/// `resumed` may continue on fewer or more ranks than its own configuration says.
fn device(config: &mut Config, kind: Kind, resumed: bool) -> Result<Device> {
    config.parallel.check()?;
    let communicator = ferrata_cluster::communicator_from_environment()?;
    let ranks = communicator.as_ref().map_or(1, |communicator| communicator.size());
    if resumed && config.parallel.ranks()? != ranks {
        config.parallel.mesh.clear();
    }
    match communicator {
        Some(_) if kind != Kind::Cpu => Err(train::Error::new(
            "ranks of a job compute on their CPUs, and on nothing else yet",
            "leave `--device` out",
        )),
        Some(communicator) => config.parallel.device(communicator, &config.train),
        None => match config.parallel.ranks()? {
            1 => kind.open(config.train.threads),
            ranks => Err(train::Error::new(
                format!("`parallel.mesh` is {:?}, but this process is alone", config.parallel.mesh),
                format!("start it with `ferrata launch --ranks {ranks} -- train …`"),
            )),
        },
    }
}

/// The configuration that a recipe asks for, or that of the run to continue.
pub fn load(recipe: &Recipe, resumed: Option<&Path>) -> Result<Config> {
    let mut overrides = Vec::new();
    if !recipe.text.is_empty() {
        overrides.push(Override::paths("data", "text", &recipe.text));
        overrides.push(Override::flag("data", "cargo_sources", false));
    }
    if let Some(images) = &recipe.images {
        overrides.push(Override::parse("data.kind=images")?);
        overrides.push(Override::path("data", "images", images));
    }
    if let Some(init) = &recipe.init {
        overrides.push(Override::path("train", "init", init));
    }
    if let Some(mesh) = &recipe.mesh {
        overrides.push(Override::text("parallel", "mesh", mesh));
    }
    for text in &recipe.set {
        overrides.push(Override::parse(text)?);
    }
    let own = resumed.map(|out| out.join(train::CONFIG)).filter(|own| own.is_file());
    let source = match (&recipe.config, &own) {
        (Some(file), _) => Source::File(file),
        (None, Some(own)) => Source::File(own),
        (None, None) if recipe.images.is_some() => {
            Source::Text { name: "images.toml", text: IMAGES }
        }
        (None, None) => Source::Text { name: "quickstart.toml", text: QUICKSTART },
    };
    Config::load(source, &overrides)
}

/// The folder asked for, or `runs/NAME` by the name of the configuration.
fn output_folder(args: &Train) -> Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    let usual = if args.recipe.images.is_some() { "images" } else { "quickstart" };
    let name = args.recipe.config.as_deref().and_then(Path::file_stem).unwrap_or(usual.as_ref());
    let wanted = Path::new("runs").join(name);
    match args.resume {
        true => train::last_used(&wanted),
        false => train::unused(&wanted),
    }
}

fn introduce(facts: &Facts, steps: u64) {
    let (model, parameters) = (&facts.model, count(facts.parameters as f64));
    let (knows, data, batch) = match facts.data {
        DataFacts::Text {
            vocabulary,
            sequence,
            sequences_per_step,
            bytes,
            documents,
            training_tokens,
            validation_tokens,
        } => {
            let data = (bytes > 0).then(|| {
                format!(
                    "text: {} in {documents} documents; {} tokens to learn from, {} for validation",
                    in_bytes(bytes as u64),
                    count(training_tokens as f64),
                    count(validation_tokens as f64)
                )
            });
            let batch = format!("{sequences_per_step} sequences of {sequence} tokens");
            (format!("{vocabulary} tokens in the vocabulary"), data, batch)
        }
        DataFacts::Captions { vocabulary, length, size, images_per_step, training, validation } => {
            let data = format!("images: {training} to learn from, {validation} for validation");
            let batch = format!("{images_per_step} images of {size} x {size} pixels");
            (format!("captions of {length} tokens out of {vocabulary}"), Some(data), batch)
        }
        DataFacts::Images { classes, size, images_per_step, training, validation } => {
            let data = (training > 0)
                .then(|| format!("images: {training} to learn from, {validation} for validation"));
            let batch = format!("{images_per_step} images of {size} x {size} pixels");
            (format!("{classes} classes"), data, batch)
        }
    };
    say!("model: {model}, {parameters} parameters, {knows}");
    data.iter().for_each(|line| say!("{line}"));
    for note in &facts.notes {
        say!("note: {note}");
    }
    say!("{steps} steps of {batch} on {}", facts.device);
}

fn dry_run(checkpoint_bytes: u64, plan: &StepPlan, out: &Path) -> Result<()> {
    say!("compiled the training step in {:.2} s", plan.compile_time.as_secs_f64());
    let memory = plan.inspection.memory().unwrap_or_default();
    say!(
        "memory: {} at the peak ({} for weights and optimiser, {} for gradients and activations); \
         checkpoints take {} each",
        in_bytes(memory.peak()),
        in_bytes(plan.state_bytes),
        in_bytes(memory.arena),
        in_bytes(checkpoint_bytes)
    );
    show_recomputation(&plan.inspection);
    show_reshards(&plan.inspection);
    say!("output: {}", out.display());
    say!("dry run: everything is in order; nothing has been written to the output folder");
    Ok(())
}

/// What ranks send each other, the largest first.
fn show_reshards(inspection: &Inspection) {
    let device = Device::default();
    let Some(mesh) = device.mesh().map(|mesh| mesh.mesh()) else { return };
    let mut edges: Vec<_> = inspection.reshards().iter().filter(|edge| edge.times > 0).collect();
    let bytes = |edge: &&Reshard| edge.bytes * edge.times as f64;
    let total: f64 = edges.iter().map(bytes).sum();
    say!(
        "each rank sends {} a step, in {} places; the largest:",
        in_bytes(total as u64),
        edges.len()
    );
    edges.sort_by(|a, b| bytes(b).total_cmp(&bytes(a)));
    for edge in edges.iter().take(EDGES) {
        say!(
            "  {:>10}  {} from {} to {} for {} in {}",
            in_bytes(bytes(edge) as u64),
            edge.ty,
            edge.from.describe(mesh),
            edge.to.describe(mesh),
            edge.wanted_by,
            edge.origin.scope
        );
    }
}

fn conclude(summary: &Summary, facts: &Facts, out: &Path) {
    let time = duration(summary.elapsed);
    if summary.interrupted {
        say!("stopped after step {} ({time})", summary.steps);
        if let Some(path) = &summary.checkpoint {
            say!("checkpoint: {}", path.display());
        }
        say!("to continue: ferrata train --out {} --resume", quoted(out));
        return;
    }
    say!("done: {} steps in {time}", summary.steps);
    if let Some(loss) = summary.loss {
        say!("training loss: {loss:.4}");
    }
    if let Some(loss) = summary.validation_loss {
        say!("validation loss: {loss:.4}");
    }
    for (name, value) in &summary.scores {
        say!("{}", score(name, *value));
    }
    if let Some(best) = summary.best.filter(|best| best.step != summary.steps) {
        say!("best validation loss: {:.4} after step {}", best.loss, best.step);
    }
    if let Some(path) = &summary.checkpoint {
        say!("checkpoint: {}", path.display());
    }
    if let Some(path) = &summary.model {
        say!("model: {}", path.display());
    }
    let shown = quoted(out);
    say!("next:");
    match facts.data {
        DataFacts::Text { .. } => say!("  ferrata generate {shown} --prompt 'fn main'"),
        DataFacts::Images { .. } => say!("  ferrata classify {shown} PICTURE…"),
        DataFacts::Captions { .. } => say!("  ferrata paint {shown} 'PROMPT' --out painted.png"),
    }
    if summary.validation_loss.is_some() {
        say!("  ferrata eval {shown}");
    }
    say!("  ferrata inspect {shown}");
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.contains(|c: char| !c.is_alphanumeric() && !"/._-+".contains(c)) {
        true => format!("'{}'", text.replace('\'', "'\\''")),
        false => text,
    }
}
