//! The Rust sources that cargo has put into its registry folder: text that every Rust programmer
//! already has.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::text::{read_text, walk};
use super::{Document, Error, Result};

/// Larger files are mostly generated.
const MAX_FILE: u64 = 200_000;
/// Nobody writes longer lines by hand.
const MAX_LINE: usize = 400;

/// Cargo's home folder: `$CARGO_HOME`, or `.cargo` in the user's home folder.
pub fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(folder) if !folder.is_empty() => Some(PathBuf::from(folder)),
        _ => env::home_dir().map(|home| home.join(".cargo")),
    }
}

/// Reads up to `max_bytes` of the `.rs` files in `registry/src` of cargo's home folder.
///
/// The files come in the order of a hash of their crate and name, so a limited amount, and the
/// part kept for validation, is a mixture of all crates. Generated tables, long lines and copies
/// are left out.
///
/// # Errors
/// [`Error::NoText`] if there are no such files, [`Error::Io`] if a folder cannot be listed.
pub fn registry_sources(cargo_home: &Path, max_bytes: u64) -> Result<Vec<Document>> {
    let sources = cargo_home.join("registry").join("src");
    let mut files = Vec::new();
    for registry in folders_in(&sources) {
        for package in folders_in(&registry) {
            let mut found = Vec::new();
            walk(&package, &|name: &str| name.ends_with(".rs"), &mut found)?;
            for path in found {
                // The registry's own name differs between machines.
                let name = path.strip_prefix(&registry).unwrap_or(&path).to_path_buf();
                files.push((blake3::hash(name.to_string_lossy().as_bytes()), path));
            }
        }
    }
    files.sort_by(|(a, p), (b, q)| a.as_bytes().cmp(b.as_bytes()).then_with(|| p.cmp(q)));
    let documents = read_within(files.into_iter().map(|(_, path)| path), max_bytes);
    if documents.is_empty() {
        return Err(Error::NoText {
            place: format!("`{}`", sources.display()),
            remedy: "build any Rust program with dependencies first, or give files with --text",
        });
    }
    Ok(documents)
}

/// The folders in `folder`, in the order of names; none if it cannot be listed.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn read_within(files: impl Iterator<Item = PathBuf>, max_bytes: u64) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut seen = HashSet::new();
    let mut total = 0;
    for path in files {
        if !fs::metadata(&path).is_ok_and(|data| data.len() <= MAX_FILE) {
            continue;
        }
        // Some crates carry files that are broken on purpose, for their tests.
        let Ok(text) = read_text(&path) else { continue };
        if !is_handwritten(&text) || !seen.insert(blake3::hash(text.as_bytes())) {
            continue;
        }
        total += text.len() as u64;
        if total > max_bytes {
            break;
        }
        documents.push(Document { source: path, text });
    }
    documents
}

/// Whether a file looks like code rather than a table: lines of usual length, mostly letters.
fn is_handwritten(text: &str) -> bool {
    let visible = text.chars().filter(|c| !c.is_whitespace());
    let (letters, others) = visible.fold((0usize, 0usize), |(letters, others), c| {
        if c.is_alphabetic() { (letters + 1, others) } else { (letters, others + 1) }
    });
    letters > others && text.lines().all(|line| line.len() <= MAX_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::scratch;

    #[test]
    fn finds_sources_and_leaves_out_tables_and_copies() {
        let home = scratch("registry");
        let package = home.join("registry/src/index-1/pkg-1.0.0/src");
        fs::create_dir_all(&package).unwrap();
        let table = format!("const T: [u8; 99] = [{}];", "0x12, 0x34,\n".repeat(300));
        for (name, text) in [
            ("lib.rs", "pub fn add(left: u32, right: u32) -> u32 { left + right }\n"),
            ("copy.rs", "pub fn add(left: u32, right: u32) -> u32 { left + right }\n"),
            ("other.rs", "pub mod something;\nuse something::else_entirely;\n"),
            ("table.rs", table.as_str()),
            ("long.rs", &"abcdefgh".repeat(60)),
            ("large.rs", &"let letters = value;\n".repeat(10_001)),
            ("notes.md", "not code"),
        ] {
            fs::write(package.join(name), text).unwrap();
        }
        fs::write(package.join("broken.rs"), b"\xff\xfe").unwrap();
        let documents = registry_sources(&home, 1_000_000).unwrap();
        let total: usize = documents.iter().map(|d| d.text.len()).sum();
        assert_eq!(documents.len(), 2, "{documents:?}");
        assert_eq!(registry_sources(&home, 1_000_000).unwrap(), documents);
        let fewer = registry_sources(&home, total as u64 - 1).unwrap();
        assert_eq!(fewer[..], documents[..1]);
    }

    #[test]
    fn nothing_to_find_is_an_error_with_a_remedy() {
        let error = registry_sources(&scratch("registry_empty"), 1000).unwrap_err().to_string();
        assert!(error.contains("registry") && error.contains("--text"), "{error}");
    }
}
