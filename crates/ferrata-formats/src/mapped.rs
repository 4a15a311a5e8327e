//! Read-only memory maps.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// A whole file, mapped into memory for reading; pages are loaded when they are touched.
///
/// Dereferences to its bytes.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or is not a regular file.
    pub fn open(path: &Path) -> Result<MappedFile> {
        let open = || -> io::Result<MappedFile> {
            let file = File::open(path)?;
            let data = file.metadata()?;
            if data.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            if !data.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            if data.len() == 0 {
                return Ok(MappedFile { map: None });
            }
            Ok(MappedFile { map: Some(map(&file)?) })
        };
        open().map_err(|e| Error::io("read", path, e))
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is private to this process and only read. Its bytes could change under us
    // only if another program wrote into the same file in place; everything in this crate
    // replaces files by renaming, which leaves a mapped one untouched, and the bytes are never
    // used as anything but plain numbers, for which every bit pattern is valid.
    unsafe { Mmap::map(file) }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
