//! Host memory of the device: aligned buffers that are kept for reuse when they are dropped.

use ferrata_compiler::Memory;
use ferrata_ir::{Error, Result};
use std::alloc::Layout;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of every buffer: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// How much memory a device holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In buffers that somebody owns.
    pub live: usize,
    /// The most that was ever live.
    pub peak: usize,
    /// In dropped buffers that are kept for reuse.
    pub cached: usize,
}

/// Where buffers come from and go back to. Dropped buffers are kept until what is kept and what is
/// live exceed the most that was ever live.
#[derive(Debug, Default)]
pub struct Heap {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Dropped buffers by capacity.
    free: BTreeMap<usize, Vec<Block>>,
    usage: MemoryUse,
}

#[derive(Debug)]
struct Block(NonNull<u8>);

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}

/// A buffer. Its content is arbitrary until written.
pub struct HostMemory {
    data: NonNull<u8>,
    capacity: usize,
    heap: Arc<Heap>,
}

// SAFETY: plain memory; who may write it when is the business of those who hold the pointer.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).unwrap_or(Layout::new::<u8>())
}

impl Heap {
    /// A buffer of at least `bytes` bytes.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn allocate(self: &Arc<Self>, bytes: usize) -> Result<HostMemory> {
        let capacity =
            bytes.max(1).next_multiple_of(if bytes > 1 << 20 { 4096 } else { ALIGNMENT });
        let mut state = self.lock();
        let kept = state.free.get_mut(&capacity).and_then(Vec::pop);
        let block = match kept {
            Some(block) => {
                state.usage.cached -= capacity;
                block
            }
            None => {
                if capacity > isize::MAX as usize / 2 {
                    return Err(refused(bytes));
                }
                // SAFETY: the layout has a size above 0.
                let data = unsafe { std::alloc::alloc(layout(capacity)) };
                Block(NonNull::new(data).ok_or_else(|| refused(bytes))?)
            }
        };
        state.usage.live += capacity;
        state.usage.peak = state.usage.peak.max(state.usage.live);
        Ok(HostMemory { data: block.0, capacity, heap: self.clone() })
    }

    /// What is held now.
    pub fn usage(&self) -> MemoryUse {
        self.lock().usage
    }

    fn release(&self, block: Block, capacity: usize) {
        let mut state = self.lock();
        state.usage.live -= capacity;
        state.usage.cached += capacity;
        state.free.entry(capacity).or_default().push(block);
        while state.usage.live + state.usage.cached > state.usage.peak {
            let Some(mut entry) = state.free.last_entry() else { break };
            let size = *entry.key();
            let block = entry.get_mut().pop();
            if entry.get().is_empty() {
                entry.remove();
            }
            if let Some(block) = block {
                state.usage.cached -= size;
                block.free(size);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (capacity, blocks) in std::mem::take(&mut state.free) {
            blocks.into_iter().for_each(|b| b.free(capacity));
        }
    }
}

impl Block {
    fn free(self, capacity: usize) {
        // SAFETY: allocated with this layout, and owned.
        unsafe { std::alloc::dealloc(self.0.as_ptr(), layout(capacity)) };
    }
}

fn refused(bytes: usize) -> Error {
    Error::new(format!("the system refused {bytes} bytes of memory"))
        .help("use a smaller batch or a shorter context, or free memory")
}

impl HostMemory {
    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// How many bytes there are, at least those asked for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.heap.release(Block(self.data), self.capacity);
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMemory({} bytes)", self.capacity)
    }
}

impl Memory for HostMemory {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let heap = Arc::new(Heap::default());
        let first = heap.allocate(1000).unwrap();
        let address = first.as_ptr();
        assert_eq!(address as usize % ALIGNMENT, 0);
        drop(first);
        assert_eq!(heap.usage().cached, 1024);
        let again = heap.allocate(990).unwrap();
        assert_eq!(again.as_ptr(), address);
        assert_eq!(heap.usage(), MemoryUse { live: 1024, peak: 1024, cached: 0 });
    }

    #[test]
    fn no_more_is_kept_than_was_ever_live() {
        let heap = Arc::new(Heap::default());
        for size in [64, 1024, 4096, 128, 2048] {
            drop(heap.allocate(size).unwrap());
            let usage = heap.usage();
            assert!(usage.cached <= usage.peak, "{usage:?}");
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let heap = Arc::new(Heap::default());
        assert!(heap.allocate(usize::MAX / 2).unwrap_err().to_string().contains("refused"));
    }
}
