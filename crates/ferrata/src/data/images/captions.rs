//! Pictures with captions in files beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::open::{Found, below, is_picture, list, number};
use super::set::Files;
use super::{Example, ImageSet};
use crate::data::{Error, Result};

/// Files of captions: each line names a file and has one or several captions.
const LISTS: [&str; 2] = ["captions.jsonl", "metadata.jsonl"];

/// Whether the folder holds pictures with captions.
pub(super) fn is_there(folder: &Path) -> Result<bool> {
    let names = list(folder)?;
    let listed = names.iter().any(|name| LISTS.contains(&name.as_str()));
    let beside =
        |name: &String| is_picture(name) && folder.join(name).with_extension("txt").is_file();
    Ok(listed || names.iter().any(beside))
}

/// Finds the pictures of the folder `train` with their captions, and those of `validation`. Names
/// are relative to `root`.
pub(super) fn open(root: &Path, train: &Path, validation: Option<&Path>) -> Result<Found> {
    let mut files = Files { root: root.to_path_buf(), paths: Vec::new() };
    let mut captions = Vec::new();
    let mut notes = Vec::new();
    let mut read = |folder: &Path| -> Result<Vec<Example>> {
        let first = files.paths.len();
        for (name, texts) in captioned(folder, &mut notes)? {
            files.paths.push(below(root, &folder.join(name)));
            captions.push(texts);
        }
        let pictures = first..files.paths.len();
        pictures.map(|i| Ok(Example { picture: number(i)?, label: 0 })).collect()
    };
    let learn = read(train)?;
    let check = validation.map(&mut read).transpose()?;
    let train = ImageSet {
        pictures: Arc::new(files),
        examples: learn.into(),
        classes: Arc::new([]),
        captions: captions.into(),
    };
    let validation = check.map(|examples| train.with(examples));
    Ok(Found { train, validation, notes })
}

/// The pictures of a folder with their captions, in the order of names.
fn captioned(folder: &Path, notes: &mut Vec<String>) -> Result<BTreeMap<String, Vec<String>>> {
    let names = list(folder)?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let lists = names.iter().filter(|name| LISTS.contains(&name.as_str()));
    for list in lists {
        listed(&folder.join(list), &mut found)?;
    }
    let mut bare = Vec::new();
    for name in names.iter().filter(|name| is_picture(name)) {
        let beside = folder.join(name).with_extension("txt");
        if beside.is_file() {
            let text = text(&beside)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            found.entry(name.clone()).or_default().extend(lines.map(str::to_owned));
        }
        if found.get(name).is_none_or(Vec::is_empty) {
            found.remove(name);
            bare.push(name);
        }
    }
    if let Some(first) = bare.first() {
        let count = bare.len();
        notes.push(format!("{count} pictures without caption are left out, such as `{first}`"));
    }
    if found.is_empty() {
        let place = folder.display();
        return Err(Error::Dataset(format!("no picture in `{place}` has a caption; add captions")));
    }
    Ok(found)
}

/// Reads lines such as `{"file_name": "a.png", "text": "a red circle"}`; `text` may be a list.
fn listed(file: &Path, found: &mut BTreeMap<String, Vec<String>>) -> Result<()> {
    for (number, line) in text(file)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: &str| Error::JsonLine {
            path: file.to_path_buf(),
            line: number + 1,
            what: format!("{what}; write {{\"file_name\": \"a.png\", \"text\": \"…\"}}"),
        };
        let value: Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
        let name = ["file_name", "image", "file"].iter().find_map(|key| value.get(key)?.as_str());
        let name = name.ok_or_else(|| wrong("there is no \"file_name\""))?;
        let texts = ["text", "caption", "captions"].iter().find_map(|key| value.get(key));
        let texts: Vec<String> = match texts {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(all)) => {
                all.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
            }
            _ => return Err(wrong("there is no \"text\"")),
        };
        found.entry(name.to_owned()).or_default().extend(texts);
    }
    Ok(())
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| Error::io("read", file, error))
}
