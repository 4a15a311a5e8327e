//! The folder of a run: what has to be true of it before the first step.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ferrata_formats::checkpoint;

use super::metrics::METRICS;
use super::{Error, Result};

/// The configuration of a run, in its folder.
pub const CONFIG: &str = "config.toml";
/// The trained model, in the folder of its run.
pub const FINAL: &str = "final";
/// Where the time of profiled steps went, as JSON.
pub const PROFILE: &str = "profile.json";
/// The course of profiled steps as a Chrome trace.
pub const TRACE: &str = "trace.json";
/// The folder of pictures of samples in a run folder.
pub(super) const SAMPLES: &str = "samples";

/// Checks that a run that needs `bytes` can be written to `folder`; leaves nothing behind.
///
/// # Errors
/// If the folder cannot be made or written to, or the disk has too little space.
pub fn check_writable(folder: &Path, bytes: u64) -> Result<()> {
    let existing = nearest_existing(folder);
    let denied = |cause: String| {
        Err(Error::new(
            format!("cannot write to `{}`: {cause}", folder.display()),
            "choose another folder with --out",
        ))
    };
    if !existing.is_dir() {
        return denied(format!("`{}` is a file", existing.display()));
    }
    let probe = existing.join(format!(".ferrata-probe-{}", std::process::id()));
    match OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => {
            // A probe that cannot be removed again is harmless.
            let _ = fs::remove_file(&probe);
        }
        Err(error) => return denied(error.to_string()),
    }
    match free_space(&existing) {
        Some(free) if free < bytes => Err(Error::new(
            format!(
                "no space left for `{}`: {} needed, {} free",
                folder.display(),
                super::in_bytes(bytes),
                super::in_bytes(free)
            ),
            "free disk space or choose another folder with --out",
        )),
        _ => Ok(()),
    }
}

fn nearest_existing(folder: &Path) -> PathBuf {
    let here = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let found = here.ancestors().find(|folder| folder.exists()).map(Path::to_path_buf);
    found.unwrap_or(here)
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

/// Whether a run has been started in `folder`.
///
/// # Errors
/// If the folder cannot be listed.
pub fn holds_a_run(folder: &Path) -> Result<bool> {
    Ok(folder.join(METRICS).exists()
        || folder.join(CONFIG).exists()
        || !checkpoint::list(folder)?.is_empty())
}

/// The folder `wanted`, or the first of `wanted-2`, `wanted-3`, … that holds no run.
///
/// # Errors
/// If a folder cannot be listed.
pub fn unused(wanted: &Path) -> Result<PathBuf> {
    let mut folder = wanted.to_path_buf();
    for number in 2.. {
        if !holds_a_run(&folder)? {
            break;
        }
        let mut name = wanted.file_name().unwrap_or_default().to_os_string();
        name.push(format!("-{number}"));
        folder = wanted.with_file_name(name);
    }
    Ok(folder)
}

/// The latest of `wanted`, `wanted-2`, … that holds a run; `wanted` itself if none does.
///
/// # Errors
/// If a folder cannot be listed.
pub fn last_used(wanted: &Path) -> Result<PathBuf> {
    let mut last = wanted.to_path_buf();
    for number in 2.. {
        let mut name = wanted.file_name().unwrap_or_default().to_os_string();
        name.push(format!("-{number}"));
        let folder = wanted.with_file_name(name);
        if !holds_a_run(&folder)? {
            break;
        }
        last = folder;
    }
    Ok(last)
}

/// The model directory that a user means by `path`: the directory itself, the final model of a
/// run folder, or its latest valid checkpoint.
///
/// # Errors
/// If there is no model, or the checkpoints are damaged.
pub fn model_directory(path: &Path) -> Result<PathBuf> {
    if path.join("manifest.json").exists() {
        return Ok(checkpoint::Checkpoint::open(path)?.path().to_path_buf());
    }
    if path.join("config.json").exists() {
        return Ok(path.to_path_buf());
    }
    let finished = path.join(FINAL);
    if finished.join("config.json").exists() {
        return Ok(finished);
    }
    if let Err(error) = fs::metadata(path)
        && error.kind() == ErrorKind::NotFound
    {
        let cause = format!("there is no model `{}`", path.display());
        return Err(Error::new(cause, "give a model directory or the folder of a run"));
    }
    match checkpoint::latest(path)?.checkpoint {
        Some(checkpoint) => Ok(checkpoint.path().to_path_buf()),
        None => Err(Error::new(
            format!("`{}` holds no model: it has no config.json and no checkpoint", path.display()),
            "give a model directory or the folder of a run",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_checked_without_a_trace() {
        let base = super::super::tests::scratch("folder-check");
        let run = base.join("runs/first");
        check_writable(&run, 1000).unwrap();
        assert!(fs::read_dir(&base).unwrap().next().is_none(), "nothing is left behind");
        let full = check_writable(&run, u64::MAX).unwrap_err().to_string();
        #[cfg(unix)]
        assert!(full.contains("no space left") && full.contains("--out"), "{full}");
        fs::write(base.join("runs"), "a file").unwrap();
        let file = check_writable(&run, 0).unwrap_err().to_string();
        assert!(file.contains("is a file; choose another folder"), "{file}");
    }

    #[test]
    fn a_new_run_gets_a_folder_of_its_own() {
        let base = super::super::tests::scratch("folder-names");
        let wanted = base.join("quickstart");
        assert_eq!(unused(&wanted).unwrap(), wanted);
        assert_eq!(last_used(&wanted).unwrap(), wanted);
        fs::create_dir(&wanted).unwrap();
        fs::write(wanted.join(CONFIG), "").unwrap();
        let second = base.join("quickstart-2");
        assert_eq!(unused(&wanted).unwrap(), second);
        fs::create_dir(&second).unwrap();
        fs::write(second.join(METRICS), "").unwrap();
        assert_eq!(last_used(&wanted).unwrap(), second);
        assert_eq!(unused(&wanted).unwrap(), base.join("quickstart-3"));
    }

    #[test]
    fn what_is_no_model_is_named() {
        let base = super::super::tests::scratch("folder-model");
        let none = model_directory(&base.join("no")).unwrap_err().to_string();
        assert!(none.contains("there is no model"), "{none}");
        let empty = model_directory(&base).unwrap_err().to_string();
        assert!(empty.contains("holds no model"), "{empty}");
    }
}
