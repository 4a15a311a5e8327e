//! Aligned memory with arbitrary content.

use std::mem::MaybeUninit;

/// A growing buffer whose content is arbitrary and whose start is aligned to 64 bytes.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<MaybeUninit<Line>>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
// The field only gives the type its size.
struct Line(#[allow(dead_code)] [u8; 64]);

impl Scratch {
    /// Makes the buffer hold at least `bytes` bytes. Growing loses the content.
    pub fn reserve(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if lines > self.lines.len() {
            // Dropped first, so that old and new do not exist together.
            self.lines = Vec::new();
            self.lines = Vec::with_capacity(lines);
            // SAFETY: there is room for them, and what is never read needs no content.
            unsafe { self.lines.set_len(lines) };
        }
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.lines.len() * 64
    }

    /// Whether nothing has been reserved.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The start of the buffer.
    pub fn as_mut_ptr<T>(&mut self) -> *mut T {
        self.lines.as_mut_ptr().cast()
    }
}
