//! `ferrata simulate`

use std::path::Path;

use ferrata::DType;
use ferrata::cluster::failures::{Advice, LongRun};
use ferrata::cluster::planner::{Plan, USABLE};
use ferrata::cluster::step::Step;
use ferrata::cluster::{trace, write};
use ferrata::train::config::Source;
use ferrata::train::{Config, Error, Result, in_bytes};

use super::plan::{cluster, model, plan_file};
use crate::args::Simulate;
use crate::progress::say;

/// Runs a plan and a long training run with it, and says what they take.
pub fn run(args: Simulate) -> Result<()> {
    let file = plan_file(&args.plan)?;
    if let Some(path) = &args.cluster {
        file.check_cluster(&cluster(path)?)?;
    }
    if !(args.days.is_finite() && args.days > 0.0) {
        return Err(Error::new("a run takes more than 0 days", "raise --days"));
    }
    let recipe = args.config.as_deref().unwrap_or(Path::new(&file.recipe));
    let config = Config::load(Source::File(recipe), &[])?;
    let dtype: DType = file
        .dtype
        .parse()
        .map_err(|error: String| Error::new(error, "plan again with this version of ferrata"))?;
    let model = model(&config, dtype, &file.cluster)?;
    file.check_model(&model.fingerprint, model.depth())?;
    let step = Step::new(&file.cluster, &model, file.layout, file.batch)?;
    let choices = file.choices();
    let (prediction, run) = step.run(&choices)?;
    if let Some(out) = &args.trace {
        write(out, &trace::perfetto(&run, &step.kept_bytes(&choices)?).to_string())?;
    }
    let state = prediction.memory.iter().map(|m| m.weights + m.optimizer).fold(0.0, f64::max);
    let long = LongRun::new(&file.cluster, file.devices, prediction.seconds, state);
    let advice = long.advise(args.days, args.seed);
    let fits = prediction.peak() <= file.cluster.accelerator.memory * USABLE;
    let plan =
        Plan { layout: file.layout, choices, chunks: step.chunks().to_vec(), prediction, fits };
    match args.json {
        true => say!("{}", advice.json(plan.json(&model))),
        false => show(&plan, &advice, args.days),
    }
    Ok(())
}

fn show(plan: &Plan, advice: &Advice, days: f64) {
    let prediction = &plan.prediction;
    say!(
        "step: {:.3} s, {:.1} TFLOP/s per device, {:.1} % of the peak; bubbles {:.1} %",
        prediction.seconds,
        prediction.flops / 1e12,
        100.0 * prediction.utilisation,
        100.0 * prediction.bubble
    );
    for (stage, memory) in prediction.memory.iter().enumerate() {
        say!("  stage {stage}: {} at the peak", in_bytes(memory.total() as u64));
    }
    let spent = &advice.spent;
    say!(
        "{days} days: {} interruptions, one every {:.1} h; goodput {:.1} %",
        spent.interruptions,
        advice.hours_between,
        100.0 * spent.goodput()
    );
    say!(
        "  {:.1} h lost, {:.1} h saving, {:.1} h restarting, {:.1} h waiting for repairs",
        spent.lost,
        spent.saving,
        spent.restarting,
        spent.waiting
    );
    say!("best: a checkpoint every {} steps, {} spare nodes", advice.interval, advice.spares);
}
