//! Helpers of this module's tests.

use std::path::PathBuf;

use super::Document;

/// An empty folder for one test, the same for every run of one working tree.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let tree = blake3::hash(env!("CARGO_MANIFEST_DIR").as_bytes()).to_hex();
    let folder = std::env::temp_dir().join(format!("ferrata-tests-{}", &tree[..8])).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn document(text: &str) -> Document {
    Document { source: PathBuf::from("test"), text: text.into() }
}
