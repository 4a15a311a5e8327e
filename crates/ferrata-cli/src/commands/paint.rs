//! `ferrata paint`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata::data::images::Picture;
use ferrata::train::config::FlowSection;
use ferrata::train::{Error, Result, TrainedPainter};

use crate::args::{Paint, Painting};
use crate::interrupt;
use crate::progress::say;

/// Pictures that are side by side in the file.
const COLUMNS: usize = 8;

/// How the options say to paint.
pub fn section(options: &Painting) -> Result<FlowSection> {
    let usual = FlowSection::default();
    let section = FlowSection {
        solver: options.solver.map_or(usual.solver, Into::into),
        steps: options.steps.unwrap_or(usual.steps),
        guidance: options.guidance.unwrap_or(usual.guidance),
        ..usual
    };
    section.check()?;
    Ok(section)
}

/// Paints a picture for each prompt, all in one file.
pub fn run(args: Paint) -> Result<()> {
    let section = section(&args.painting)?;
    if args.count == 0 {
        return Err(Error::new("--count is 0", "give at least 1"));
    }
    let Some(trained) = TrainedPainter::open(&args.model)? else {
        let cause = format!("`{}` paints no pictures", args.model.display());
        let remedy = "train such a model with ferrata train recipes/scenes.toml";
        return Err(Error::new(cause, remedy));
    };
    let copies = |prompt: &String| vec![prompt.clone(); args.count];
    let prompts: Vec<String> = args.prompts.iter().flat_map(copies).collect();
    let stop = Arc::new(AtomicBool::new(false));
    interrupt::on_signal(&stop)?;
    let Some(pictures) = trained.paint(&prompts, &section, args.painting.seed, &stop)? else {
        say!("stopped");
        return Ok(());
    };
    let picture = match &pictures[..] {
        [one] => one.clone(),
        all => Picture::grid(all, COLUMNS.min(all.len()))?,
    };
    picture.write_png(&args.out)?;
    say!("{}", args.out.display());
    Ok(())
}
