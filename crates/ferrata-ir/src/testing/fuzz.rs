//! Seeded mutations of good input, for the parsers of outside data.

use super::Random;
use std::fmt::Display;

/// Pieces that parsers stumble over.
const PIECES: [&str; 26] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'''",
    ":",
    ",",
    "=",
    "#",
    "null",
    "-1",
    "0",
    "1.5",
    "1e999",
    "nan",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "\\ud800",
    "\u{0}",
    "\u{fffd}",
    "true",
    "\"F64\"",
    "\"\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// `good` with one to four changes: bits, bytes, cuts, repetitions, and what parsers stumble over.
fn mutate(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.between(1, 4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.bits() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let from = random.below(good.len());
                let piece = &good[from..(from + random.below(40)).min(good.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => drop(bytes.splice(at..end, random.pick(&PIECES).bytes())),
        }
    }
    bytes
}

/// Runs `parse` on `rounds` seeded mutations of `good`, times `FERRATA_FUZZ` if that is set: it
/// must accept the original, refuse some mutations, each with a message of one line, and never
/// panic.
///
/// # Panics
/// If it does otherwise.
pub fn fuzz<E: Display>(good: &[u8], rounds: usize, mut parse: impl FnMut(&[u8]) -> Result<(), E>) {
    let times = std::env::var("FERRATA_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    if let Err(error) = parse(good) {
        panic!("the original is refused: {error}");
    }
    let mut refuses = |bytes: &[u8]| match parse(bytes) {
        Ok(()) => false,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n'), "{message:?} has several lines");
            true
        }
    };
    let random = &mut Random::new(good.len() as u64);
    let refused = (0..rounds * times).filter(|_| refuses(&mutate(good, random))).count();
    assert!(refused > 0, "every mutation is accepted");
}
