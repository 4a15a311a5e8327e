//! `ferrata eval`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata::train::{Error, Result, Trained};

use crate::args::Eval;
use crate::interrupt;
use crate::progress::say;

/// Prints the loss of a model on text.
pub fn run(args: Eval) -> Result<()> {
    if args.batch == 0 {
        return Err(Error::new("--batch is 0", "give at least 1"));
    }
    let trained = Trained::open(&args.model)?;
    let tokens = trained.evaluation_text(&args.text)?;
    let stop = Arc::new(AtomicBool::new(false));
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
