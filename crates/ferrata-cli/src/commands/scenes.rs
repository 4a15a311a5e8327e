//! `ferrata data scenes`

use std::fs;
use std::path::Path;

use ferrata::data::images::Picture;
use ferrata::data::scenes::{self, Classes, Description, look};
use ferrata::train::{Error, Result};

use crate::args::{SceneClasses, Scenes};
use crate::progress::say;

/// Larger pictures are no scenes.
const MAX_PIXELS: u64 = 1 << 24;

/// Writes scenes, or checks a picture; returns whether picture and caption agree.
pub fn run(args: Scenes) -> Result<bool> {
    if let Some([image, caption]) = args.check.as_deref() {
        return check(Path::new(image), caption);
    }
    let Some(out) = &args.out else { return Err(Error::new("no folder", "pass --out DIR")) };
    let made = scenes::Scenes::new(args.seed);
    let written = match args.classes {
        None => scenes::write_captioned(out, made, args.count, args.size)?,
        Some(classes) => {
            let classes = match classes {
                SceneClasses::ShapeColour => Classes::ColourAndShape,
                SceneClasses::Shape => Classes::Shape,
                SceneClasses::Colour => Classes::Colour,
            };
            scenes::write_classes(out, made, args.count, args.size, classes)?
        }
    };
    say!(
        "{}: {} pictures to learn from, {} for validation, {} with held-out combinations",
        out.display(),
        written.training,
        written.validation,
        written.held_out
    );
    Ok(true)
}

fn check(image: &Path, caption: &str) -> Result<bool> {
    let description = Description::parse(caption)?;
    let wrong = |what: &str| {
        Error::new(format!("`{}`: {what}", image.display()), "give a picture of a scene")
    };
    let bytes = fs::read(image).map_err(|error| wrong(&error.to_string()))?;
    let picture = Picture::decode(&bytes, MAX_PIXELS).map_err(|what| wrong(&what))?;
    let verdict = description.check(&look(&picture));
    match &verdict {
        Ok(()) => say!("they agree"),
        Err(mismatch) => say!("they do not agree: {mismatch}"),
    }
    Ok(verdict.is_ok())
}
