//! `ferrata profile`

use ferrata::Device;
use ferrata::profile::{self, KernelUse, Profile, WARM_UP};
use ferrata::train::{self, Result};

use super::train::load;
use crate::args;
use crate::progress::{count, say};

/// Takes some steps and prints where their time went.
pub fn run(args: args::Profile) -> Result<()> {
    let config = load(&args.recipe, None)?;
    ferrata::set_default_device(&Device::cpu_with_threads(config.train.threads)?);
    let mut learner = train::open(&config)?;
    let profile = profile::training(learner.as_mut(), WARM_UP, args.steps)?;
    if let Some(file) = &args.trace {
        profile.write_trace(file)?;
    }
    match args.json {
        true => say!("{}", profile.to_json()),
        false => lines(&profile, args.top).iter().for_each(|line| say!("{line}")),
    }
    Ok(())
}

/// The kernels, what lies outside of them, and the whole against the machine.
pub fn lines(profile: &Profile, top: usize) -> Vec<String> {
    let step = profile.step_seconds();
    let mut lines = vec![format!("{} steps on {}", profile.steps.len(), profile.device)];
    if let Some(limits) = &profile.limits {
        let rates = limits.operations.iter().map(|(d, rate)| format!("{d} {}FLOP/s", count(*rate)));
        let rates: Vec<String> = rates.collect();
        let [read, copy] = [limits.memory.read, limits.memory.copy].map(count);
        let rates = rates.join(", ");
        lines.push(format!("limits: {rates}, memory read {read}B/s, copy {copy}B/s"));
    }
    lines.push(row(["ms/step", "%", "runs", "FLOP/s", "B/s", "of limit", "idle", "kernel"]));
    let (shown, hidden) = profile.kernels.split_at(top.min(profile.kernels.len()));
    lines.extend(shown.iter().map(kernel_line));
    let rest = |seconds: f64, what: &str| {
        row([&millis(seconds), &percent(seconds / step), "", "", "", "", "", what])
    };
    if !hidden.is_empty() {
        let seconds = hidden.iter().map(|kernel| kernel.seconds).sum();
        lines.push(rest(seconds, &format!("{} more kernels", hidden.len())));
    }
    let outside = profile.outside.iter().filter(|(_, seconds)| *seconds > 0.0);
    lines.extend(outside.map(|(what, seconds)| rest(*seconds, what)));
    lines.push(format!(
        "step: {} ms, {}FLOP/s, {}B/s, {}% of the limit; threads idle {}% of the time in kernels",
        millis(step),
        count(profile.flops / step),
        count(profile.bytes / step),
        percent(profile.of_limit),
        percent(profile.idle)
    ));
    lines
}

fn kernel_line(kernel: &KernelUse) -> String {
    let limit = kernel.of_limit.map(|share| format!("{} {}", percent(share), kernel.bound));
    let cells = row([
        &millis(kernel.seconds),
        &percent(kernel.share),
        &format!("{:.0}", kernel.count),
        &count(kernel.flops_per_second()),
        &count(kernel.bytes_per_second()),
        &limit.unwrap_or_default(),
        &percent(kernel.idle),
        kernel.class,
    ]);
    let scope = if kernel.scope.is_empty() { "-" } else { &kernel.scope };
    format!("{cells} {}  in {scope}", kernel.kernel)
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn millis(seconds: f64) -> String {
    format!("{:.2}", 1e3 * seconds)
}

fn row(cells: [&str; 8]) -> String {
    let [time, share, runs, flops, bytes, limit, idle, what] = cells;
    format!("{time:>9} {share:>5} {runs:>5} {flops:>7} {bytes:>7} {limit:>13} {idle:>5}  {what}")
}
