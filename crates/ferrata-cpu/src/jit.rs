//! Generates machine code in process, on x86-64.
//!
//! Map: `block` (vector code before it has registers), `allocate` (registers, and the code of a
//! block), `encode` (instructions as bytes).

pub(crate) mod allocate;
pub(crate) mod block;
pub(crate) mod encode;

use memmap2::{Mmap, MmapMut};
use std::sync::OnceLock;

/// Machine code that can be run.
#[derive(Debug)]
pub(crate) struct Code(Mmap);

impl Code {
    /// Makes code executable; `None` where the system refuses.
    pub fn new(bytes: &[u8]) -> Option<Code> {
        let mut memory = MmapMut::map_anon(bytes.len()).ok()?;
        memory.copy_from_slice(bytes);
        Some(Code(memory.make_exec().ok()?))
    }

    /// Where it begins.
    pub fn start(&self) -> *const u8 {
        self.0.as_ptr()
    }
}

/// Whether this process may make memory executable.
pub(crate) fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    // A return.
    *ALLOWED.get_or_init(|| Code::new(&[0xc3]).is_some())
}
