//! `ferrata inspect`

use ferrata::Module;
use ferrata::inspect::Inspection;
use ferrata::train::{Error, Result, Trained, in_bytes};

use crate::args::Inspect;
use crate::progress::{count, say, show_recomputation};

/// Scopes that are listed at the peak of memory.
const PEAK_LINES: usize = 12;

/// Prints what a model consists of and what it costs.
pub fn run(args: Inspect) -> Result<()> {
    let is_config = args.model.extension().is_some_and(|extension| extension == "toml");
    let trained = match is_config {
        true => Trained::from_config(&args.model)?,
        false => Trained::open(&args.model)?,
    };
    let plan = trained.inspect(args.training, args.batch, args.context)?;
    let inspection = &plan.inspection;
    let text = args.pass.as_deref().map(|pass| after(inspection, pass)).transpose()?;
    summary(&trained, &args, inspection, plan.state_bytes, plan.compile_time.as_secs_f64());
    if args.parameters {
        say!("parameters:");
        for (name, parameter) in trained.model.named_parameters() {
            say!("  {name} {}", parameter.ty());
        }
    }
    if let Some(text) = text {
        say!("{text}");
    }
    if args.kernels {
        say!("kernels:");
        for (number, (kernel, uses)) in inspection.kernels().iter().enumerate() {
            say!("  {number}: {kernel}; runs {uses} times");
        }
    }
    if args.schedule {
        say!("schedule:");
        inspection.schedule().iter().for_each(|line| say!("  {line}"));
    }
    Ok(())
}

fn after(inspection: &Inspection, pass: &str) -> Result<String> {
    inspection.after(pass).ok_or_else(|| {
        let known = inspection.passes().join(", ");
        Error::new(format!("there is no pass `{pass}`"), format!("passes are {known}"))
    })
}

fn summary(
    trained: &Trained,
    args: &Inspect,
    inspection: &Inspection,
    state_bytes: u64,
    compile_time: f64,
) {
    let config = trained.model.config();
    let what = if args.training { "training step" } else { "forward pass" };
    let sequence = args.context.unwrap_or(config.context());
    let flops = inspection.flops();
    let tokens = (args.batch * sequence) as f64;
    say!(
        "model: {}, {} parameters, {} layers, vocabulary {}, context {}",
        config.model_type(),
        trained.model.parameter_count(),
        config.layers(),
        config.vocab_size(),
        config.context()
    );
    say!("{what} for {} x {sequence} tokens, compiled in {compile_time:.2} s", args.batch);
    say!("operations: {}FLOP, {}FLOP per token", count(flops), count(flops / tokens));
    say!("program: {} nodes; passes {}", inspection.nodes(), inspection.passes().join(", "));
    let kernels = inspection.kernels();
    let runs: usize = kernels.iter().map(|(_, uses)| uses).sum();
    say!("kernels: {} distinct, {runs} runs", kernels.len());
    let kept = if args.training { "weights and optimiser" } else { "weights" };
    match inspection.memory() {
        Some(memory) => say!(
            "memory: {} at the peak ({} inputs, of which {} {kept}; {} activations; {} results; \
             {} constants)",
            in_bytes(memory.peak()),
            in_bytes(memory.inputs),
            in_bytes(state_bytes),
            in_bytes(memory.arena),
            in_bytes(memory.results),
            in_bytes(memory.constants)
        ),
        None => say!("memory: {} {kept}; this device has no memory plan", in_bytes(state_bytes)),
    }
    show_recomputation(inspection);
    let (shown, rest) = inspection.peak().split_at(inspection.peak().len().min(PEAK_LINES));
    for (scope, bytes) in shown {
        say!("  at the peak of activations {} of {scope}", in_bytes(*bytes));
    }
    if !rest.is_empty() {
        let bytes = rest.iter().map(|(_, bytes)| bytes).sum();
        say!("  at the peak of activations {} of {} others", in_bytes(bytes), rest.len());
    }
}
