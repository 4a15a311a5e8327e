//! Folders of scenes.

use std::fs;
use std::path::{Path, PathBuf};

use ferrata_formats::atomic;
use serde_json::json;

use super::{Colour, Scene, Scenes, Shape};
use crate::data::{Error, Result};

/// What the names of class folders say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// `red-circle`.
    ColourAndShape,
    /// `red`.
    Colour,
    /// `circle`.
    Shape,
}

/// What has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pictures to learn from.
    pub training: u64,
    /// Pictures of the same kind for validation.
    pub validation: u64,
    /// Pictures with combinations that are not in the others.
    pub held_out: u64,
}

/// The file that lists what never occurs in training.
const HELD_OUT: &str = "held_out.txt";
/// Captions of each picture.
pub(super) const CAPTIONS: u64 = 4;

/// One part of ten is for validation.
fn tenth(count: u64) -> u64 {
    (count / 10).max(1)
}

/// Writes captioned scenes: `train` with `count` pictures of `side` pixels, `val` and `held_out`
/// with a tenth as many, each with a `captions.jsonl`; and `held_out.txt` with the pairs of words
/// that occur in `held_out` only.
///
/// # Errors
/// [`Error::Dataset`] for a side of less than 16 pixels; what writing reports.
pub fn write_captioned(folder: &Path, scenes: Scenes, count: u64, side: usize) -> Result<Written> {
    check_side(side)?;
    let written = Written { training: count, validation: tenth(count), held_out: tenth(count) };
    let part = |name: &str, count: u64, scene: &dyn Fn(u64) -> Scene| -> Result<()> {
        let folder = folder.join(name);
        create(&folder)?;
        let mut lines = String::new();
        for index in 0..count {
            let scene = scene(index);
            let file = format!("{index:06}.png");
            write_picture(&folder.join(&file), &scene, side)?;
            let line = json!({ "file_name": file, "text": scene.captions() });
            lines += &format!("{line}\n");
        }
        Ok(atomic::write_bytes(&folder.join("captions.jsonl"), lines.as_bytes())?)
    };
    part("train", written.training, &|index| scenes.training(index))?;
    part("val", written.validation, &|index| scenes.validation(index))?;
    part("held_out", written.held_out, &|index| scenes.held_out(index))?;
    let pairs = Scenes::held_out_pairs().into_iter();
    let pairs: String =
        pairs.map(|(colour, shape)| format!("{} {}\n", colour.word(), shape.word())).collect();
    atomic::write_bytes(&folder.join(HELD_OUT), pairs.as_bytes())?;
    Ok(written)
}

/// Writes scenes with one object into a folder for each class: about `count` below `train`, a
/// tenth of it below `val`, every pair of colour and shape equally often.
///
/// # Errors
/// [`Error::Dataset`] for a side of less than 16 pixels; what writing reports.
pub fn write_classes(
    folder: &Path,
    scenes: Scenes,
    count: u64,
    side: usize,
    classes: Classes,
) -> Result<Written> {
    check_side(side)?;
    let pairs: Vec<(Colour, Shape)> = Colour::ALL
        .iter()
        .flat_map(|colour| Shape::ALL.iter().map(|shape| (*colour, *shape)))
        .collect();
    let each = count.div_ceil(pairs.len() as u64);
    let validation = tenth(each);
    for (number, (colour, shape)) in pairs.iter().enumerate() {
        let class = match classes {
            Classes::ColourAndShape => format!("{}-{}", colour.word(), shape.word()),
            Classes::Colour => colour.word().to_owned(),
            Classes::Shape => shape.word().to_owned(),
        };
        for (part, first, count) in [("train", 0, each), ("val", each, validation)] {
            let folder: PathBuf = folder.join(part).join(&class);
            create(&folder)?;
            for i in first..first + count {
                let index = i * pairs.len() as u64 + number as u64;
                let file = folder.join(format!("{index:06}.png"));
                write_picture(&file, &scenes.single(index, *colour, *shape), side)?;
            }
        }
    }
    let pairs = pairs.len() as u64;
    Ok(Written { training: each * pairs, validation: validation * pairs, held_out: 0 })
}

fn check_side(side: usize) -> Result<()> {
    match side {
        16..=4096 => Ok(()),
        _ => Err(Error::Dataset(format!(
            "scenes cannot be {side} pixels wide; choose between 16 and 4096"
        ))),
    }
}

/// Without waiting for the disk: what is lost can be made again.
fn write_picture(file: &Path, scene: &Scene, side: usize) -> Result<()> {
    let written = fs::write(file, scene.render(side).to_png()?);
    written.map_err(|error| Error::io("write", file, error))
}

fn create(folder: &Path) -> Result<()> {
    Ok(atomic::create_folder(folder)?)
}
