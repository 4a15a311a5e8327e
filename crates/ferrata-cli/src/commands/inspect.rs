//! `ferrata inspect`

use ferrata::Module;
use ferrata::inspect::Inspection;
use ferrata::models::DirectoryConfig;
use ferrata::train::{
    Error, Result, StepPlan, Trained, TrainedClassifier, TrainedPainter, in_bytes,
};

use crate::args::Inspect;
use crate::progress::{count, say, show_recomputation};

/// Scopes that are listed at the peak of memory.
const PEAK_LINES: usize = 12;

/// What is looked into.
struct Subject {
    /// The model in a line.
    about: String,
    /// Names and types of the parameters.
    parameters: Vec<(String, String)>,
    /// What goes in at once: `2 x 64 tokens`.
    batch: String,
    /// How many tokens or images that is, and what one is called.
    count: f64,
    unit: &'static str,
    plan: StepPlan,
}

/// Prints what a model consists of and what it costs.
pub fn run(args: Inspect) -> Result<()> {
    let is_config = args.model.extension().is_some_and(|extension| extension == "toml");
    let subject = match is_config {
        true => language(&Trained::from_config(&args.model)?, &args)?,
        false => match TrainedClassifier::open(&args.model)? {
            Some(trained) => classifier(&trained, &args)?,
            None => match TrainedPainter::open(&args.model)? {
                Some(trained) => painter(&trained, &args)?,
                None => language(&Trained::open(&args.model)?, &args)?,
            },
        },
    };
    let inspection = &subject.plan.inspection;
    let text = args.pass.as_deref().map(|pass| after(inspection, pass)).transpose()?;
    summary(&subject, args.training);
    if args.parameters {
        say!("parameters:");
        for (name, ty) in &subject.parameters {
            say!("  {name} {ty}");
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

fn language(trained: &Trained, args: &Inspect) -> Result<Subject> {
    let config = trained.model.config();
    let sequence = args.context.unwrap_or(config.context());
    Ok(Subject {
        about: format!(
            "{}, {} parameters, {} layers, vocabulary {}, context {}",
            config.model_type(),
            trained.model.parameter_count(),
            config.layers(),
            config.vocab_size(),
            config.context()
        ),
        parameters: parameters(&trained.model),
        batch: format!("{} x {sequence} tokens", args.batch),
        count: (args.batch * sequence) as f64,
        unit: "token",
        plan: trained.inspect(args.training, args.batch, args.context)?,
    })
}

fn classifier(trained: &TrainedClassifier, args: &Inspect) -> Result<Subject> {
    let (config, size) = (&trained.model.config, trained.transforms.size);
    Ok(Subject {
        about: format!(
            "{}, {} parameters, {} layers, {} classes",
            config.kind(),
            trained.model.parameter_count(),
            config.layers(),
            config.classes
        ),
        parameters: parameters(&trained.model),
        batch: format!("{} images of {size} x {size} pixels", args.batch),
        count: args.batch as f64,
        unit: "image",
        plan: trained.inspect(args.training, args.batch)?,
    })
}

fn painter(trained: &TrainedPainter, args: &Inspect) -> Result<Subject> {
    let config = &trained.model.config;
    let size = config.image_size;
    Ok(Subject {
        about: format!(
            "{}, {} parameters, {} layers, vocabulary {}, captions of {} tokens",
            config.kind(),
            trained.model.parameter_count(),
            config.layers(),
            config.vocab_size,
            config.text_length
        ),
        parameters: parameters(&trained.model),
        batch: format!("{} pictures of {size} x {size} pixels", args.batch),
        count: args.batch as f64,
        unit: "picture",
        plan: trained.inspect(args.training, args.batch)?,
    })
}

fn parameters(model: &impl Module) -> Vec<(String, String)> {
    let named = model.named_parameters().into_iter();
    named.map(|(name, parameter)| (name, parameter.ty().to_string())).collect()
}

fn after(inspection: &Inspection, pass: &str) -> Result<String> {
    inspection.after(pass).ok_or_else(|| {
        let known = inspection.passes().join(", ");
        Error::new(format!("there is no pass `{pass}`"), format!("passes are {known}"))
    })
}

fn summary(subject: &Subject, training: bool) {
    let Subject { about, batch, unit, plan, .. } = subject;
    let (inspection, state_bytes) = (&plan.inspection, plan.state_bytes);
    let what = if training { "training step" } else { "forward pass" };
    let flops = inspection.flops();
    say!("model: {about}");
    say!("{what} for {batch}, compiled in {:.2} s", plan.compile_time.as_secs_f64());
    say!("operations: {}FLOP, {}FLOP per {unit}", count(flops), count(flops / subject.count));
    say!("program: {} nodes; passes {}", inspection.nodes(), inspection.passes().join(", "));
    let kernels = inspection.kernels();
    let runs: usize = kernels.iter().map(|(_, uses)| uses).sum();
    say!("kernels: {} distinct, {runs} runs", kernels.len());
    let kept = if training { "weights and optimiser" } else { "weights" };
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
