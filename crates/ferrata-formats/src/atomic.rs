//! Writing so that a reader, or the next run after a crash, sees the old content or the new.
//!
//! Everything is written under a temporary name in the folder of its target, synced, renamed over
//! the target, and the folder is synced. Temporary names end in `.tmp-<process>` (see
//! [`sweep`]), so leftovers of a killed process can be recognised and removed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Marks names of files and folders that are still being written.
pub(crate) const TEMPORARY: &str = ".tmp-";
/// Marks folders that have been replaced and wait for removal.
pub(crate) const REPLACED: &str = ".old-";

/// Writes the file `path` atomically. `needed` is its size in bytes, for the error about a full
/// disk. On failure nothing is left behind and an existing file is unchanged.
///
/// # Errors
/// [`Error::DiskFull`] and [`Error::Io`], naming `path`.
pub fn write_file(
    path: &Path,
    needed: u64,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let temporary = TemporaryPath(temporary_name(path));
    create_synced(&temporary.0, write)
        .and_then(|()| fs::rename(&temporary.0, path))
        .and_then(|()| sync_folder(&parent(path)))
        .map_err(|e| Error::write(path, needed, e))
}

/// Writes `bytes` as the file `path`, atomically; see [`write_file`].
///
/// # Errors
/// Those of [`write_file`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file(path, bytes.len() as u64, |out| out.write_all(bytes))
}

/// Makes a folder and its parents, if need be.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::write(path, 0, e))
}

/// Removes what killed processes left in `folder`: temporary files and folders, and replaced
/// folders. A replaced folder whose replacement never arrived gets its name back first. Leftovers
/// of other processes that still run are kept. Returns the removed paths; a folder that does not
/// exist has no leftovers.
///
/// Call it before this process starts to write into `folder`.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed or a leftover cannot be removed.
pub fn sweep(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for name in names_in(folder)? {
        let Some((target, mark)) = leftover(&name) else { continue };
        let path = folder.join(&name);
        let target = folder.join(target);
        if mark == REPLACED && !target.exists() {
            fs::rename(&path, &target)
                .and_then(|()| sync_folder(folder))
                .map_err(|e| Error::io("rename", &path, e))?;
            continue;
        }
        remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        removed.push(path);
    }
    Ok(removed)
}

/// The entries of `folder` in the order of their names; none if it does not exist.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", folder, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", folder, e))?;
        // A name that is not Unicode cannot be one of ours.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Splits the name of a dead process's leftover into the name it stood for and its mark.
pub(crate) fn leftover(name: &str) -> Option<(&str, &'static str)> {
    for mark in [TEMPORARY, REPLACED] {
        let Some((target, suffix)) = name.rsplit_once(mark) else { continue };
        let mut numbers = suffix.split('-').map(str::parse::<u32>);
        let Some(Ok(process)) = numbers.next() else { continue };
        if numbers.all(|n| n.is_ok()) && !runs_elsewhere(process) {
            return Some((target, mark));
        }
    }
    None
}

/// Whether `process` is alive and not this one. Where that cannot be told, it is taken as dead: a
/// folder has one writer at a time.
fn runs_elsewhere(process: u32) -> bool {
    cfg!(target_os = "linux")
        && process != std::process::id()
        && Path::new("/proc").join(process.to_string()).exists()
}

/// Writes and syncs one file of a folder that will be `target`.
pub(crate) fn write_staged(
    folder: &Path,
    target: &Path,
    name: &str,
    needed: u64,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    create_synced(&folder.join(name), write)
        .map_err(|e| Error::write(&target.join(name), needed, e))
}

/// A folder that is built under a temporary name and removed again unless it is put in place.
pub(crate) struct StagedFolder {
    path: PathBuf,
    target: PathBuf,
}

impl StagedFolder {
    /// Makes the temporary folder beside `target`.
    pub(crate) fn new(target: &Path) -> Result<StagedFolder> {
        let path = temporary_name(target);
        let staged = StagedFolder { path, target: target.to_path_buf() };
        create_folder(&parent(target))?;
        // A process that was killed earlier may have had the same number.
        remove(&staged.path).map_err(|e| Error::io("remove", &staged.path, e))?;
        fs::create_dir(&staged.path).map_err(|e| Error::write(target, 0, e))?;
        Ok(staged)
    }

    /// Where the files are until the folder is put in place.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and syncs one file of the folder.
    pub(crate) fn write(
        &self,
        name: &str,
        needed: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        write_staged(&self.path, &self.target, name, needed, write)
    }

    /// Copies one file into the folder under its own name and syncs it.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let mut source = File::open(from).map_err(|e| Error::io("read", from, e))?;
        let size = source.metadata().map_or(0, |m| m.len());
        self.write(name, size, |out| io::copy(&mut source, out).map(drop))
    }

    /// Renames the folder to its target. An existing target is set aside first and removed
    /// afterwards; a process killed in between leaves it for [`sweep`] to bring back.
    pub(crate) fn replace_target(self) -> Result<()> {
        let folder = parent(&self.target);
        let place = || -> io::Result<()> {
            sync_folder(&self.path)?;
            if !self.target.exists() {
                fs::rename(&self.path, &self.target)?;
                return sync_folder(&folder);
            }
            let aside = marked_name(&self.target, REPLACED);
            remove(&aside)?;
            fs::rename(&self.target, &aside)?;
            if let Err(e) = fs::rename(&self.path, &self.target) {
                fs::rename(&aside, &self.target)?;
                return Err(e);
            }
            sync_folder(&folder)?;
            remove(&aside)
        };
        place().map_err(|e| Error::write(&self.target, 0, e))
    }

    /// Puts the files in place one by one, in the order given, keeping other files of an existing
    /// target; a target that does not exist appears whole.
    pub(crate) fn merge_into_target(self, order: &[&str]) -> Result<()> {
        if !self.target.exists() {
            return self.replace_target();
        }
        let place = || -> io::Result<()> {
            for name in order {
                fs::rename(self.path.join(name), self.target.join(name))?;
            }
            sync_folder(&self.target)
        };
        place().map_err(|e| Error::write(&self.target, 0, e))
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // Nothing useful can be done about a failure here; the next sweep tries again.
        let _ = remove(&self.path);
    }
}

/// Takes a folder away so that at no instant a half-removed one stands under its name.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    let aside = marked_name(path, TEMPORARY);
    remove(&aside)
        .and_then(|()| fs::rename(path, &aside))
        .and_then(|()| sync_folder(&parent(path)))
        .and_then(|()| remove(&aside))
        .map_err(|e| Error::io("remove", path, e))
}

struct TemporaryPath(PathBuf);

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        // After the rename there is nothing to remove; after a failure the error is on its way.
        let _ = fs::remove_file(&self.0);
    }
}

fn create_synced(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = File::create(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    write(&mut out)?;
    out.flush()?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced; elsewhere renames are journalled.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A name beside `path` that no other thread or process uses.
fn temporary_name(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = marked_name(path, TEMPORARY).into_os_string();
    name.push(format!("-{count}"));
    PathBuf::from(name)
}

fn marked_name(path: &Path, mark: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!("{mark}{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::tests::scratch;

    #[test]
    fn writes_replace_and_leave_nothing_else() {
        let folder = scratch("atomic_replace");
        let path = folder.join("a.txt");
        write_bytes(&path, b"one").unwrap();
        write_bytes(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names_in(&folder).unwrap(), ["a.txt"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = scratch("atomic_failure");
        let path = folder.join("a.txt");
        write_bytes(&path, b"old").unwrap();
        let error = write_file(&path, 12_345, |out| {
            out.write_all(b"new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a.txt") && text.contains("12345 bytes"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(&folder).unwrap(), ["a.txt"]);
    }

    #[test]
    fn sweep_removes_leftovers_of_dead_processes_only() {
        let folder = scratch("atomic_sweep");
        // No process has this number: it is beyond the kernel's limit.
        let dead = 4_194_305;
        for name in ["keep.txt", "a.tmp-notanumber", "x.safetensors"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        fs::write(folder.join(format!("a.txt.tmp-{dead}-3")), "x").unwrap();
        fs::create_dir(folder.join(format!("step-1.tmp-{dead}"))).unwrap();
        fs::create_dir(folder.join("step-2")).unwrap();
        fs::create_dir(folder.join(format!("step-2.old-{dead}"))).unwrap();
        fs::create_dir(folder.join(format!("step-3.old-{dead}"))).unwrap();
        let removed = sweep(&folder).unwrap();
        assert_eq!(removed.len(), 3);
        assert_eq!(
            names_in(&folder).unwrap(),
            ["a.tmp-notanumber", "keep.txt", "step-2", "step-3", "x.safetensors"]
        );
        #[cfg(target_os = "linux")]
        {
            fs::write(folder.join("b.txt.tmp-1-0"), "x").unwrap();
            assert!(sweep(&folder).unwrap().is_empty(), "process 1 always runs");
        }
    }

    #[test]
    fn an_unwritable_target_names_the_path() {
        let folder = scratch("atomic_unwritable");
        let error = write_bytes(&folder.join("no/such/a.txt"), b"x").unwrap_err().to_string();
        assert!(error.contains("no/such/a.txt") && error.contains("check the path"), "{error}");
    }
}
