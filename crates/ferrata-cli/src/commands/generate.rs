//! `ferrata generate`

use std::io::{self, Write};

use ferrata::models::GenerateOptions;
use ferrata::train::{Error, Result, Trained};

use crate::args::Generate;

/// Streams what the model adds to the prompt.
pub fn run(args: Generate) -> Result<()> {
    let trained = Trained::open(&args.model)?;
    let prompt = match &args.tokens {
        Some(ids) => ids.clone(),
        None => trained.prompt(&args.prompt)?,
    };
    let options = GenerateOptions {
        max_new: args.max_new,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
        stop: trained.model.config().tokens().eos.clone(),
        compute: None,
    };
    let new = trained.model.generate(&prompt, &options)?;
    let mut out = io::stdout();
    match &trained.tokenizer {
        Some(tokenizer) if !args.print_tokens => {
            let mut decoder = tokenizer.stream();
            write(&mut out, &args.prompt)?;
            for id in new {
                write(&mut out, &decoder.push(id?)?)?;
            }
            write(&mut out, &decoder.finish()?)?;
        }
        None if !args.print_tokens => {
            return Err(Error::new(
                format!("`{}` has no tokenizer", args.model.display()),
                "print token ids with --print-tokens",
            ));
        }
        _ => {
            for (i, id) in new.enumerate() {
                let comma = if i > 0 { "," } else { "" };
                write(&mut out, &format!("{comma}{}", id?))?;
            }
        }
    }
    write(&mut out, "\n")
}

/// Writes at once, so that a reader sees every token as it comes.
fn write(out: &mut impl Write, text: &str) -> Result<()> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| {
        Error::new(format!("cannot write the text: {error}"), "keep the output open")
    })
}
