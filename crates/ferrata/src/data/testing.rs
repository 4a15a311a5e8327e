//! Helpers of this module's tests.

use std::path::PathBuf;

use super::random::Philox;
use super::{Document, Result};

/// An empty folder for one test, the same for every run of one working tree.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let tree = blake3::hash(env!("CARGO_MANIFEST_DIR").as_bytes()).to_hex();
    let folder = std::env::temp_dir().join(format!("ferrata-tests-{}", &tree[..8])).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn document(text: &str) -> Document {
    Document { source: PathBuf::from("test"), text: text.to_owned() }
}

const PIECES: [&str; 12] = [
    "{",
    "}",
    "[",
    "\"",
    ",",
    "null",
    "-1",
    "1e999",
    "\\ud800",
    "\u{0}",
    "99999999999",
    "\u{fffd}",
];

/// Runs `parse` on seeded mutations of `good`: it must accept the original, refuse some mutations
/// with a message of one line, and never panic.
pub(crate) fn fuzz(good: &[u8], rounds: u64, mut parse: impl FnMut(&[u8]) -> Result<()>) {
    parse(good).unwrap();
    let random = Philox::new(good.len() as u64, 0);
    let mut refused = 0;
    for round in 0..rounds {
        let mut bytes = good.to_vec();
        for change in 0..=(round % 4) {
            let below = |stream: u64, n: usize| {
                random.below(round * 64 + change * 8 + stream, n as u64) as usize
            };
            let at = below(0, bytes.len() + 1);
            let end = (at + below(1, 12)).min(bytes.len());
            match below(2, 5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << below(3, 8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let from = below(4, good.len());
                    let piece = &good[from..(from + below(5, 40)).min(good.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                _ => {
                    let piece = PIECES[below(6, PIECES.len())];
                    bytes.splice(at..end, piece.bytes());
                }
            }
        }
        if let Err(error) = parse(&bytes) {
            assert!(!error.to_string().contains('\n'), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}
