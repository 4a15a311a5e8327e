//! Host memory of the device: aligned buffers that are kept for reuse when they are dropped.

use ferrata_compiler::Memory;
use ferrata_ir::{Error, Result};
use memmap2::MmapMut;
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

/// Larger buffers are pages of their own, which the system hands over full of zeros and only when
/// they are first touched.
const PAGES_FROM: usize = 1 << 20;
const PAGE: usize = 4096;

/// Memory with one owner.
#[derive(Debug)]
struct Block {
    data: NonNull<u8>,
    capacity: usize,
    pages: Option<MmapMut>,
}

// SAFETY: a block is plain memory with one owner.
unsafe impl Send for Block {}

impl Block {
    /// New memory, all zeros.
    fn zeroed(bytes: usize) -> Option<Block> {
        let capacity = rounded(bytes)?;
        if capacity > PAGES_FROM {
            let mut pages = MmapMut::map_anon(capacity).ok()?;
            let data = NonNull::new(pages.as_mut_ptr())?;
            return Some(Block { data, capacity, pages: Some(pages) });
        }
        // SAFETY: the layout has a size above 0.
        let data = unsafe { std::alloc::alloc_zeroed(layout(capacity)) };
        Some(Block { data: NonNull::new(data)?, capacity, pages: None })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.pages.is_none() {
            // SAFETY: allocated with this layout, and owned.
            unsafe { std::alloc::dealloc(self.data.as_ptr(), layout(self.capacity)) };
        }
    }
}

/// The capacity of a buffer of so many bytes.
fn rounded(bytes: usize) -> Option<usize> {
    let step = if bytes > PAGES_FROM { PAGE } else { ALIGNMENT };
    bytes.max(1).checked_next_multiple_of(step).filter(|&c| c <= isize::MAX as usize / 2)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).unwrap_or(Layout::new::<u8>())
}

/// A buffer. Its content is arbitrary until written.
pub struct HostMemory {
    /// `None` only while it is dropped.
    block: Option<Block>,
    heap: Arc<Heap>,
}

// SAFETY: plain memory; who may write it when is the business of those who hold the pointer.
unsafe impl Sync for HostMemory {}

impl Heap {
    /// A buffer of at least `bytes` bytes.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn allocate(self: &Arc<Self>, bytes: usize) -> Result<HostMemory> {
        let kept = rounded(bytes).and_then(|capacity| self.lock().take(capacity));
        self.own(kept.or_else(|| Block::zeroed(bytes)), bytes)
    }

    /// A buffer of at least `bytes` bytes, all zero. A large one takes no memory before it is
    /// written.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn allocate_zeroed(self: &Arc<Self>, bytes: usize) -> Result<HostMemory> {
        self.own(Block::zeroed(bytes), bytes)
    }

    fn own(self: &Arc<Self>, block: Option<Block>, bytes: usize) -> Result<HostMemory> {
        let block = block.ok_or_else(|| refused(bytes))?;
        let mut state = self.lock();
        state.usage.live += block.capacity;
        state.usage.peak = state.usage.peak.max(state.usage.live);
        state.trim();
        drop(state);
        Ok(HostMemory { block: Some(block), heap: self.clone() })
    }

    /// What is held now.
    pub fn usage(&self) -> MemoryUse {
        self.lock().usage
    }

    fn release(&self, block: Block) {
        let mut state = self.lock();
        state.usage.live -= block.capacity;
        state.usage.cached += block.capacity;
        state.free.entry(block.capacity).or_default().push(block);
        state.trim();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A kept buffer of this capacity.
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let block = self.free.get_mut(&capacity)?.pop()?;
        self.usage.cached -= capacity;
        Some(block)
    }

    /// Gives kept buffers back to the system, the largest first, while there are too many.
    fn trim(&mut self) {
        while self.usage.live + self.usage.cached > self.usage.peak {
            let Some(mut entry) = self.free.last_entry() else { break };
            match entry.get_mut().pop() {
                Some(block) => self.usage.cached -= block.capacity,
                None => drop(entry.remove()),
            }
        }
    }
}

fn refused(bytes: usize) -> Error {
    Error::new(format!("the system refused {bytes} bytes of memory"))
        .help("use a smaller batch or a shorter context, or free memory")
}

impl HostMemory {
    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.block.as_ref().map_or(std::ptr::dangling_mut(), |block| block.data.as_ptr())
    }

    /// How many bytes there are, at least those asked for.
    pub fn capacity(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.capacity)
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.heap.release(block);
        }
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMemory({} bytes)", self.capacity())
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
    fn what_is_kept_goes_before_more_is_taken() {
        let heap = Arc::new(Heap::default());
        drop(heap.allocate(8 << 20).unwrap());
        let _other = heap.allocate(4 << 20).unwrap();
        let _third = heap.allocate(6 << 20).unwrap();
        assert_eq!(heap.usage(), MemoryUse { live: 10 << 20, peak: 10 << 20, cached: 0 });
    }

    #[test]
    fn zeros_are_zero_whatever_was_there() {
        let heap = Arc::new(Heap::default());
        for bytes in [100, 3 << 20] {
            let dirty = heap.allocate(bytes).unwrap();
            // SAFETY: the buffer is ours and has that many bytes.
            unsafe { dirty.as_ptr().write_bytes(7, bytes) };
            drop(dirty);
            let zeros = heap.allocate_zeroed(bytes).unwrap();
            // SAFETY: as above.
            let all = unsafe { std::slice::from_raw_parts(zeros.as_ptr(), bytes) };
            assert!(all.iter().all(|&x| x == 0));
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let heap = Arc::new(Heap::default());
        assert!(heap.allocate(usize::MAX / 2).unwrap_err().to_string().contains("refused"));
    }
}
