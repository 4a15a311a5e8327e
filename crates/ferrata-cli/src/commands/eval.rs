//! `ferrata eval`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata::train::{Checked, Error, Result, Trained, TrainedClassifier, TrainedPainter};

use crate::args::Eval;
use crate::commands::paint;
use crate::interrupt;
use crate::progress::say;

/// Prints how good a model is on text or images.
pub fn run(args: Eval) -> Result<()> {
    if args.batch == 0 {
        return Err(Error::new("--batch is 0", "give at least 1"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    if let Some(classifier) = TrainedClassifier::open(&args.model)? {
        interrupt::on_signal(&stop)?;
        return images(&classifier, &args, &stop);
    }
    if let Some(painter) = TrainedPainter::open(&args.model)? {
        interrupt::on_signal(&stop)?;
        return scenes(&painter, &args, &stop);
    }
    let trained = Trained::open(&args.model)?;
    let tokens = trained.evaluation_text(&args.text)?;
    interrupt::on_signal(&stop)?;
    match trained.evaluate(&tokens, args.context, args.batch, &stop)? {
        Some(found) => {
            say!("loss: {:.4} over {} tokens", found.loss, found.tokens);
            say!("perplexity: {:.3}", found.perplexity());
        }
        None => say!("stopped"),
    }
    Ok(())
}

fn scenes(painter: &TrainedPainter, args: &Eval, stop: &AtomicBool) -> Result<()> {
    let section = paint::section(&args.painting)?;
    let Some(all) = painter.held_out(args.prompts, &section, args.painting.seed, stop)? else {
        say!("stopped");
        return Ok(());
    };
    for (checked, name) in all.iter().zip(["one object", "two objects"]) {
        let (count, share) = (checked.painted.len(), 100.0 * checked.share());
        let right = count - checked.refused.len();
        say!("{name}: {share:.1} % as described, {right} of {count}");
        checked.refused.iter().for_each(|(prompt, what)| say!("  {prompt}: {what}"));
    }
    if let Some(out) = &args.out {
        Checked::sheet(&all)?.write_png(out)?;
        say!("{}", out.display());
    }
    Ok(())
}

fn images(classifier: &TrainedClassifier, args: &Eval, stop: &AtomicBool) -> Result<()> {
    if !args.text.is_empty() {
        let cause = format!("`{}` classifies images and reads no text", args.model.display());
        return Err(Error::new(cause, "pass --images DIR"));
    }
    let Some(scores) = classifier.evaluate(args.images.as_deref(), args.batch, stop)? else {
        say!("stopped");
        return Ok(());
    };
    say!("loss: {:.4} over {} images", scores.mean_loss(), scores.count);
    scores.measures().iter().for_each(|(name, share)| say!("{name}: {:.2} %", 100.0 * share));
    scores.lines().iter().for_each(|line| say!("  {line}"));
    Ok(())
}
