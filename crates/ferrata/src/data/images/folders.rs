//! Folders with the names of classes.

use std::path::Path;
use std::sync::Arc;

use super::open::{Found, below, is_picture, list, number};
use super::set::Files;
use super::{Example, ImageSet};
use crate::data::{Error, Result};

/// Finds `TRAIN/CLASS/…`, and the same classes in the folder `validation`. Names are relative to
/// `root`.
pub(super) fn open(root: &Path, train: &Path, validation: Option<&Path>) -> Result<Found> {
    let classes = classes(train)?;
    let mut files = Files { root: root.to_path_buf(), paths: Vec::new() };
    let mut notes = Vec::new();
    let learn = examples(&mut files, train, &classes, &mut notes)?;
    let check = match validation {
        Some(folder) => {
            unknown_classes(folder, &classes)?;
            Some(examples(&mut files, folder, &classes, &mut notes)?)
        }
        None => None,
    };
    if learn.is_empty() || check.as_ref().is_some_and(Vec::is_empty) {
        let empty = if learn.is_empty() { train } else { validation.unwrap_or(train) };
        return Err(nothing(empty));
    }
    let train = ImageSet {
        pictures: Arc::new(files),
        examples: learn.into(),
        classes: classes.into(),
        captions: Arc::new([]),
    };
    let validation = check.map(|examples| train.with(examples));
    Ok(Found { train, validation, notes })
}

/// The folders in `folder`, which are the classes.
fn classes(folder: &Path) -> Result<Vec<String>> {
    let mut names = list(folder)?;
    names.retain(|name| folder.join(name).is_dir());
    match names.is_empty() {
        true => Err(nothing(folder)),
        false => Ok(names),
    }
}

fn nothing(folder: &Path) -> Error {
    Error::Dataset(format!(
        "there are no images in `{}`; give a folder with a folder of pictures for each class, \
         pictures with captions (a.png and a.txt), or the files of MNIST or CIFAR",
        folder.display()
    ))
}

fn unknown_classes(folder: &Path, known: &[String]) -> Result<()> {
    match classes(folder)?.into_iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Dataset(format!(
            "the class `{name}` of `{}` is not in the part to learn from; remove it or add \
             examples to learn",
            folder.display()
        ))),
    }
}

fn examples(
    files: &mut Files,
    folder: &Path,
    classes: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let mut others = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let before = examples.len();
        let mut folders = vec![folder.join(class)];
        while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
            for name in list(&folder)? {
                let path = folder.join(&name);
                if path.is_dir() {
                    folders.push(path);
                } else if is_picture(&name) {
                    let picture = number(files.paths.len())?;
                    files.paths.push(below(&files.root, &path));
                    examples.push(Example { picture, label: number(label)? });
                } else {
                    others.push(path.display().to_string());
                }
            }
        }
        if examples.len() == before {
            notes.push(format!("the class `{class}` has no pictures in `{}`", folder.display()));
        }
    }
    if let Some(first) = others.first() {
        let count = others.len();
        notes.push(format!("{count} files that are no pictures are left out, such as `{first}`"));
    }
    Ok(examples)
}
