//! The checkpoints of a run folder: which there are, which is the latest valid one, which to keep.

use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::atomic::{self, REPLACED, names_in};
use crate::{Error, Result};

const PREFIX: &str = "step-";

/// The outcome of [`latest`].
#[derive(Debug)]
pub struct Latest {
    /// The checkpoint with the highest step that passed all checks, if any checkpoint exists.
    pub checkpoint: Option<Checkpoint>,
    /// Why later ones were passed over, latest first; to be shown to the user.
    pub skipped: Vec<Error>,
}

/// Where the checkpoint of a step lies.
pub(super) fn checkpoint_path(run: &Path, step: u64) -> PathBuf {
    run.join(format!("{PREFIX}{step:08}"))
}

/// The checkpoints of a run folder as pairs of step and path, by ascending step; none if the
/// folder does not exist. They have not been checked.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let names = names_in(run)?;
    let mut found = Vec::new();
    for name in &names {
        // A checkpoint that a killed process was about to replace still counts.
        let target = match atomic::leftover(name) {
            Some((target, REPLACED)) if !names.iter().any(|other| other == target) => target,
            _ => name,
        };
        let digits = target.strip_prefix(PREFIX).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        if let Some(step) = digits.and_then(|digits| digits.parse().ok())
            && run.join(name).is_dir()
        {
            found.push((step, run.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

/// The latest checkpoint of a run folder that is complete and undamaged.
///
/// # Errors
/// The reason for refusing the latest checkpoint, if there are checkpoints and none is valid;
/// [`Error::NewerVersion`] if the latest was written by a later version (falling back would lose
/// work); [`Error::Io`] if the folder cannot be listed.
pub fn latest(run: &Path) -> Result<Latest> {
    let mut skipped = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), skipped }),
            Err(error @ Error::NewerVersion { .. }) => return Err(error),
            Err(error) => skipped.push(error),
        }
    }
    match skipped.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Latest { checkpoint: None, skipped: Vec::new() }),
    }
}

/// Removes all checkpoints of a run folder except the `keep_last` latest (at least one) and those
/// of the steps `keep`, such as the best one. Returns the removed folders.
///
/// # Errors
/// [`Error::Io`] naming the folder that could not be listed or removed.
pub fn retain(run: &Path, keep_last: usize, keep: &[u64]) -> Result<Vec<PathBuf>> {
    let mut old = list(run)?;
    old.truncate(old.len().saturating_sub(keep_last.max(1)));
    let mut removed = Vec::new();
    for (step, path) in old {
        if !keep.contains(&step) {
            atomic::remove_folder(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}
