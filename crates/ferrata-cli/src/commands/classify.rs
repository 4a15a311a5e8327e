//! `ferrata classify`

use ferrata::train::{Error, Result, TrainedClassifier};

use crate::args::Classify;
use crate::progress::say;

/// Prints the likeliest classes of each picture.
pub fn run(args: Classify) -> Result<()> {
    let Some(trained) = TrainedClassifier::open(&args.model)? else {
        let cause = format!("`{}` is no image classifier", args.model.display());
        return Err(Error::new(cause, "train one with ferrata train --images DIR"));
    };
    for file in &args.images {
        let guesses = trained.classify(file, args.top)?;
        say!("{}", file.display());
        guesses.iter().for_each(|(class, share)| say!("  {:5.1} %  {class}", 100.0 * share));
    }
    Ok(())
}
