//! `ferrata plan`

use std::path::Path;

use ferrata::DType;
use ferrata::bench::local_cluster;
use ferrata::cluster::hardware::{Cluster, LOCAL};
use ferrata::cluster::layout::{Axis, Recompute, Schedule};
use ferrata::cluster::planner::{Fixed, Found, PlanFile, plan};
use ferrata::cluster::step::Choice;
use ferrata::cluster::{Model, describe, write};
use ferrata::device::threads_each;
use ferrata::train::config::{Override, Source};
use ferrata::train::{Config, Error, Result, in_bytes, sketch};

use crate::args::Plan;
use crate::progress::{count, say};

/// Finds a layout, says what it takes, and writes it down.
pub fn run(args: Plan) -> Result<()> {
    let overrides =
        args.set.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>>>()?;
    let config = Config::load(Source::File(&args.config), &overrides)?;
    let fixed = fixed(&args)?;
    let given = args.devices.or_else(|| devices(&fixed));
    let named = args.dtype.as_deref().map(str::parse::<DType>).transpose();
    let named = named.map_err(|error| Error::new(error, "give --dtype bf16, f16 or f32"))?;
    let own = config.train.dtype.dtype().unwrap_or(DType::F32);
    let mut cluster = match args.cluster.to_str() {
        Some(LOCAL) => {
            local_cluster(given.unwrap_or_else(|| threads_each(1)), named.unwrap_or(own))?
        }
        _ => cluster(&args.cluster)?,
    };
    if let Some(path) = &args.save_cluster {
        write(path, &cluster.text()?)?;
    }
    fuse_attention(&mut cluster, args.fused_attention);
    let dtype = named.unwrap_or(if cluster.name == LOCAL { own } else { DType::BF16 });
    let model = model(&config, dtype, &cluster)?;
    let batch = args.batch.unwrap_or(config.train.batch * config.train.accumulate);
    let devices = given.unwrap_or(cluster.devices);
    let found = plan(&cluster, &model, batch, devices, &fixed)?;
    if let Some(out) = &args.out {
        let recipe = args.config.display().to_string();
        let file = PlanFile::new(&found.best, &model, &cluster, batch, &recipe);
        write(out, &file.text()?)?;
    }
    match args.json {
        true => say!("{}", found.json(&model)),
        false => show(&found, &model, &cluster, batch),
    }
    Ok(())
}

/// Reads a cluster file.
pub fn cluster(path: &Path) -> Result<Cluster> {
    let text = read(path)?;
    Ok(Cluster::parse(&text)?)
}

/// Reads a plan file.
pub fn plan_file(path: &Path) -> Result<PlanFile> {
    Ok(PlanFile::parse(&read(path)?)?)
}

/// Reads a file of text.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(format!("`{}` cannot be read: {error}", path.display()), "check the path")
    })
}

/// The layers of what a configuration trains.
pub fn model(config: &Config, dtype: DType, cluster: &Cluster) -> Result<Model> {
    Ok(describe(&sketch(config, dtype)?, &cluster.software)?)
}

fn fuse_attention(cluster: &mut Cluster, fused: Option<bool>) {
    let claims = &mut cluster.software.claims;
    match fused {
        Some(true) => claims.clone_from(&Cluster::attention()),
        Some(false) => claims.retain(|name| !name.starts_with("attention")),
        None => {}
    }
}

fn fixed(args: &Plan) -> Result<Fixed> {
    let axis = |text: &String| -> Result<(Axis, usize)> {
        let wrong = || {
            let known = Axis::ALL.map(Axis::name).join(", ");
            let cause = format!("`{text}` is no axis with its size");
            Error::new(cause, format!("write for example tensor=8; axes are {known}"))
        };
        let (name, size) = text.split_once('=').ok_or_else(wrong)?;
        let axis = Axis::ALL.into_iter().find(|axis| axis.name() == name).ok_or_else(wrong)?;
        Ok((axis, size.parse().map_err(|_| wrong())?))
    };
    Ok(Fixed {
        mesh: args.mesh.iter().map(axis).collect::<Result<_>>()?,
        microbatch: args.microbatch,
        interleave: args.interleave,
        recompute: args.recompute.as_deref().map(str::parse::<Recompute>).transpose()?,
        zero: args.zero,
        sequence_parallel: args.sequence_parallel,
        schedule: args.schedule.as_deref().map(str::parse::<Schedule>).transpose()?,
    })
}

/// The devices of a mesh that is given in full.
fn devices(fixed: &Fixed) -> Option<usize> {
    let given = |axis: Axis| fixed.mesh.iter().any(|(a, _)| *a == axis);
    let all = [Axis::Tensor, Axis::Pipeline, Axis::Data].into_iter().all(given);
    let sizes = fixed.mesh.iter().filter(|(axis, _)| *axis != Axis::Expert);
    all.then(|| sizes.map(|(_, size)| size).product())
}

fn show(found: &Found, model: &Model, cluster: &Cluster, batch: usize) {
    let best = &found.best;
    let (layout, prediction) = (&best.layout, &best.prediction);
    let parameters = count(model.parameters());
    let sequence = model.sequence;
    say!("model: {parameters} parameters, {} layers, {sequence} positions", model.depth());
    say!("cluster: {} of {}", layout.mesh.devices(), cluster.name);
    say!("looked at {} layouts in {:.2} s", found.looked_at, found.elapsed.as_secs_f64());
    say!(
        "layout: {}; microbatches of {} ({} per replica); {} with {} chunks per stage; ZeRO {}",
        layout.mesh,
        layout.microbatch,
        batch / layout.mesh.data / layout.microbatch,
        layout.schedule,
        layout.interleave,
        layout.zero
    );
    say!("layers: {}", choices(&best.choices));
    say!(
        "step: {:.3} s, {:.1} TFLOP/s per device, {:.1} % of the peak",
        prediction.seconds,
        prediction.flops / 1e12,
        100.0 * prediction.utilisation
    );
    say!(
        "  bubbles {:.1} % of the pipeline; waiting for communication within layers {:.3} s; \
         computing again {:.3} s; gradients and weights {:.3} s; optimiser {:.3} s",
        100.0 * prediction.bubble,
        prediction.exposed,
        prediction.again,
        prediction.data,
        prediction.optimizer
    );
    let most = prediction.memory.iter().enumerate();
    if let Some((stage, m)) = most.max_by(|a, b| a.1.total().total_cmp(&b.1.total())) {
        let bytes = |value: f64| in_bytes(value as u64);
        say!(
            "memory: {} on stage {stage} ({} weights, {} gradients, {} optimiser, {} activations, \
             {} of embedding or head, {} working){}",
            bytes(m.total()),
            bytes(m.weights),
            bytes(m.gradients),
            bytes(m.optimizer),
            bytes(m.activations),
            bytes(m.end_activations),
            bytes(m.working),
            if best.fits { "" } else { "; THIS DOES NOT FIT" }
        );
    }
    let sent = Axis::ALL.iter().zip(prediction.sent).filter(|(_, bytes)| *bytes > 0.0);
    let sent: Vec<String> =
        sent.map(|(axis, bytes)| format!("{} {}", axis.name(), in_bytes(bytes as u64))).collect();
    if !sent.is_empty() {
        say!("sent per device and step: {}", sent.join(", "));
    }
    for (other, reason) in &found.others {
        let slower = 100.0 * (other.prediction.seconds / prediction.seconds - 1.0);
        say!("not {} ({slower:+.1} %): {reason}", other.layout.mesh);
    }
}

/// Neighbouring layers with the same choice in a few words.
fn choices(all: &[Choice]) -> String {
    let mut words: Vec<(usize, Choice)> = Vec::new();
    for &choice in all {
        match words.last_mut() {
            Some((count, last)) if *last == choice => *count += 1,
            _ => words.push((1, choice)),
        }
    }
    let one = |(count, choice): &(usize, Choice)| {
        let cut = if choice.sequence_parallel { ", positions cut" } else { "" };
        let shared = if choice.sharded { ", weights shared" } else { "" };
        format!("{count} recompute {}{cut}{shared}", choice.recompute)
    };
    words.iter().map(one).collect::<Vec<_>>().join("; ")
}
