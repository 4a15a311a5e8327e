//! `ferrata run`

use ferrata::models;
use ferrata::train::{Result, model_directory};

use crate::args::Run;

/// Evaluates a model on the tensors of a file.
pub fn run(args: Run) -> Result<()> {
    let directory = model_directory(&args.model)?;
    Ok(models::run_file(&directory, &args.input, &args.output)?)
}
