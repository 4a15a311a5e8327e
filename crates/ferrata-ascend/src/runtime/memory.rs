//! Memory of the chip, and copies.

use super::abi::{self, CopyKind, MallocPolicy};
use super::cann::call;
use super::stream::{Event, Npu, Stream};
use ferrata_ir::{Error, Result};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks up to this size are cut from slabs.
const SMALL: usize = 256 << 10;
/// A slab, and the unit of large blocks: a huge page.
const SLAB: usize = 2 << 20;
/// Every block begins at a multiple of this and is a multiple of it: what the chip moves at once.
const UNIT: usize = 512;
/// Each half of the memory that copies from and to the host pass through.
const STAGE: usize = 4 << 20;

/// The size that a block of so many bytes gets: at most an eighth larger, or a unit.
fn class(bytes: usize) -> usize {
    let step = (bytes.max(1).next_power_of_two() / 8).max(UNIT);
    let step = if bytes > SMALL { step.max(SLAB) } else { step };
    bytes.max(1).next_multiple_of(step)
}

/// Memory that the chip gave; dropping gives it back.
struct Grant {
    npu: Arc<Npu>,
    at: *mut c_void,
    bytes: usize,
}

// SAFETY: it is an address on the chip; only the runtime uses it.
unsafe impl Send for Grant {}

impl Grant {
    fn new(npu: &Arc<Npu>, bytes: usize) -> Result<Option<Grant>> {
        npu.bind()?;
        let mut at = ptr::null_mut();
        let functions = npu.cann().functions();
        // SAFETY: it writes one pointer; undone by the drop below.
        let code = unsafe { (functions.aclrtMalloc)(&mut at, bytes, MallocPolicy::HugeFirst) };
        if code == abi::OUT_OF_MEMORY {
            return Ok(None);
        }
        npu.cann().check("aclrtMalloc", code)?;
        Ok(Some(Grant { npu: Arc::clone(npu), at, bytes }))
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.npu.bind().is_ok() {
            // SAFETY: it was given by aclrtMalloc, and streams that use it have been waited for.
            unsafe { (self.npu.cann().functions().aclrtFree)(self.at) };
        }
    }
}

/// A free block, and the stream that used it last.
struct Free {
    at: u64,
    stream: Arc<Stream>,
}

/// What a heap has.
#[derive(Default)]
struct Pool {
    /// Free blocks by their size.
    free: HashMap<usize, Vec<Free>>,
    /// Large blocks by their address.
    large: HashMap<u64, Grant>,
    /// Where small blocks are cut from; the last one has room from `cut` on.
    slabs: Vec<Grant>,
    cut: usize,
    used: usize,
}

/// Memory of a chip, kept from one use to the next.
///
/// A block that was dropped is handed out again to work of the same stream at once, since that runs
/// after its last use; another stream waits for that use first. Memory is never given back while
/// anything may use it.
pub struct Heap {
    npu: Arc<Npu>,
    pool: Mutex<Pool>,
}

/// How the chip's memory is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In blocks that are alive.
    pub used: usize,
    /// Taken from the chip.
    pub taken: usize,
}

impl Heap {
    /// A heap that has nothing yet.
    pub fn new(npu: &Arc<Npu>) -> Arc<Heap> {
        Arc::new(Heap { npu: Arc::clone(npu), pool: Mutex::default() })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is in use.
    pub fn usage(&self) -> Usage {
        let pool = self.pool();
        Usage { used: pool.used, taken: pool.taken() }
    }

    /// A block for work of a stream, with whatever lies in it.
    ///
    /// # Errors
    /// When the chip has no memory left, also after all that is free has been given back.
    pub fn allocate(self: &Arc<Heap>, bytes: usize, stream: &Arc<Stream>) -> Result<Block> {
        let size = class(bytes);
        let block =
            |at| Block { heap: Arc::clone(self), stream: Arc::clone(stream), at, bytes, size };
        let mut pool = self.pool();
        let mut free = pool.free.entry(size).or_default();
        // The last one of this stream, else the first of another, which has waited the longest.
        let own = free.iter().rposition(|f| f.stream.id == stream.id);
        if let Some(i) = own.or((!free.is_empty()).then_some(0)) {
            let found = free.remove(i);
            if own.is_none() {
                stream.wait_for(&found.stream)?;
            }
            pool.used += size;
            return Ok(block(found.at));
        }
        let mut at = pool.take(&self.npu, size)?;
        if at.is_none() {
            // What is free in other sizes is given back; nothing may use it any more then.
            drop(pool);
            self.trim()?;
            pool = self.pool();
            free = pool.free.entry(size).or_default();
            at = match free.iter().rposition(|f| f.stream.id == stream.id) {
                Some(i) => Some(free.remove(i).at),
                None => pool.take(&self.npu, size)?,
            };
        }
        let Some(at) = at else {
            let (used, taken) = (pool.used, pool.taken());
            drop(pool);
            let (free, total) = self.npu.memory()?;
            return Err(Error::new(format!(
                "the chip has no room for {bytes} bytes: {used} are in use, {} are kept for small \
                 blocks, {free} of {total} are free",
                taken.saturating_sub(used)
            ))
            .help("make the batch smaller, or recompute more (`train.memory`)"));
        };
        pool.used += size;
        Ok(block(at))
    }

    /// Gives large free blocks back to the chip.
    ///
    /// # Errors
    /// When work that used them failed.
    pub fn trim(&self) -> Result<()> {
        let mut pool = self.pool();
        let pool = &mut *pool;
        let mut given = Vec::new();
        for (_, free) in pool.free.iter_mut().filter(|(size, _)| **size > SMALL) {
            for Free { at, stream } in free.drain(..) {
                given.extend(pool.large.remove(&at).map(|grant| (grant, stream)));
            }
        }
        wait(given.iter().map(|(_, stream)| stream))
    }

    fn free(&self, block: &Block) {
        let mut pool = self.pool();
        pool.used -= block.size;
        let free = Free { at: block.at, stream: Arc::clone(&block.stream) };
        pool.free.entry(block.size).or_default().push(free);
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        // All blocks are free; that work failed has been told where it was waited for.
        let _ = wait(pool.free.values().flatten().map(|free| &free.stream));
    }
}

/// Waits for each of some streams.
fn wait<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>) -> Result<()> {
    let (mut waited, mut done) = (Vec::new(), Ok(()));
    for stream in streams {
        if !waited.contains(&stream.id) {
            waited.push(stream.id);
            done = done.and(stream.wait());
        }
    }
    done
}

impl Pool {
    fn taken(&self) -> usize {
        self.large.values().chain(&self.slabs).map(|grant| grant.bytes).sum()
    }

    /// A block that was never used, or nothing if the chip has no room.
    fn take(&mut self, npu: &Arc<Npu>, size: usize) -> Result<Option<u64>> {
        if size > SMALL {
            let Some(grant) = Grant::new(npu, size)? else { return Ok(None) };
            let at = grant.at as u64;
            self.large.insert(at, grant);
            return Ok(Some(at));
        }
        if self.slabs.is_empty() || self.cut + size > SLAB {
            let Some(grant) = Grant::new(npu, SLAB)? else { return Ok(None) };
            self.slabs.push(grant);
            self.cut = 0;
        }
        let at = self.slabs.last().map(|slab| slab.at as u64 + self.cut as u64);
        self.cut += size;
        Ok(at)
    }
}

/// Memory of the chip.
pub struct Block {
    heap: Arc<Heap>,
    /// The stream whose work uses it.
    stream: Arc<Stream>,
    at: u64,
    bytes: usize,
    size: usize,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.bytes, self.heap.npu)
    }
}

impl Block {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of a byte on the chip.
    ///
    /// # Errors
    /// When `bytes` from there on leave the block.
    pub fn address(&self, offset: usize, bytes: usize) -> Result<*mut c_void> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if !inside {
            let own = self.bytes;
            return Err(Error::new(format!("{bytes} bytes from {offset} on leave {own} bytes")));
        }
        Ok((self.at + offset as u64) as *mut c_void)
    }

    /// Fills it with zeros.
    ///
    /// # Errors
    /// When the chip does not answer.
    pub fn clear(&self) -> Result<()> {
        let (at, stream) = (self.address(0, self.bytes)?, &self.stream);
        if self.bytes == 0 {
            return Ok(());
        }
        stream.npu().bind()?;
        // SAFETY: the block has this room, and is used by this stream only.
        unsafe {
            call!(
                stream.npu().cann(),
                aclrtMemsetAsync(at, self.bytes, 0, self.bytes, stream.raw())
            )
        }
    }

    /// Copies bytes of another block, in the stream of this one, to `offset`.
    ///
    /// # Errors
    /// When they leave a block.
    pub fn copy(&self, offset: usize, from: &Block, start: usize, bytes: usize) -> Result<()> {
        let (to, from) = (self.address(offset, bytes)?, from.address(start, bytes)?);
        // SAFETY: both blocks are on the chip and have these bytes.
        unsafe { copy(&self.stream, to, from, bytes, CopyKind::OnDevice) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.heap.free(self);
    }
}

/// Copies in a stream.
///
/// # Safety
/// Both ends have these bytes, until the stream has passed the copy.
unsafe fn copy(
    stream: &Stream,
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    kind: CopyKind,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    stream.npu().bind()?;
    // SAFETY: what the caller promises.
    unsafe {
        call!(stream.npu().cann(), aclrtMemcpyAsync(to, bytes, from, bytes, kind, stream.raw()))
    }
}

/// Memory of the host that the chip reaches by itself; copies from any other memory may read it
/// after they have returned, or fail.
struct Pinned {
    npu: Arc<Npu>,
    at: *mut u8,
}

// SAFETY: it has one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(npu: &Arc<Npu>, bytes: usize) -> Result<Pinned> {
        npu.bind()?;
        let mut at = ptr::null_mut();
        // SAFETY: it writes one pointer; undone by the drop below.
        unsafe { call!(npu.cann(), aclrtMallocHost(&mut at, bytes)) }?;
        // SAFETY: it has these bytes, and nobody else has them yet.
        unsafe { ptr::write_bytes(at.cast::<u8>(), 0, bytes) };
        Ok(Pinned { npu: Arc::clone(npu), at: at.cast() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.npu.bind().is_ok() {
            // SAFETY: it was given by aclrtMallocHost, and no copy uses it any more.
            unsafe { (self.npu.cann().functions().aclrtFreeHost)(self.at.cast()) };
        }
    }
}

/// One half of what copies pass through.
struct Half {
    memory: Pinned,
    /// Happens when the copy that uses it is done.
    done: Event,
    busy: bool,
}

/// Copies between a chip and any memory of the host, in two halves that take turns.
pub struct Stage {
    stream: Arc<Stream>,
    halves: Mutex<[Half; 2]>,
}

impl Stage {
    /// For copies in a stream.
    ///
    /// # Errors
    /// When the host has no memory that the chip reaches.
    pub fn new(stream: &Arc<Stream>) -> Result<Stage> {
        let half = || -> Result<Half> {
            let memory = Pinned::new(stream.npu(), STAGE)?;
            Ok(Half { memory, done: Event::new(stream.npu())?, busy: false })
        };
        Ok(Stage { stream: Arc::clone(stream), halves: Mutex::new([half()?, half()?]) })
    }

    fn halves(&self) -> MutexGuard<'_, [Half; 2]> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies bytes to the chip, in the order of the stream. `data` has been read when it returns.
    ///
    /// # Errors
    /// When they leave the block.
    pub fn upload(&self, to: &Block, offset: usize, data: &[u8]) -> Result<()> {
        to.address(offset, data.len())?;
        let mut halves = self.halves();
        for (i, piece) in data.chunks(STAGE).enumerate() {
            let half = &mut halves[i % 2];
            half.free(&self.stream)?;
            let at = to.address(offset + i * STAGE, piece.len())?;
            // SAFETY: the half has this room and no copy uses it; it is not written before its
            // event has happened.
            unsafe {
                ptr::copy_nonoverlapping(piece.as_ptr(), half.memory.at, piece.len());
                let from = half.memory.at.cast();
                copy(&self.stream, at, from, piece.len(), CopyKind::ToDevice)?;
            }
            half.used(&self.stream)?;
        }
        Ok(())
    }

    /// Bytes of the chip, once all work so far of the stream is done.
    ///
    /// # Errors
    /// When they leave the block, or that work failed.
    pub fn download(&self, from: &Block, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        from.address(offset, bytes)?;
        let mut halves = self.halves();
        let mut data = vec![0; bytes];
        // The next piece is on its way while one is taken out.
        let pieces = bytes.div_ceil(STAGE);
        for i in 0..pieces + usize::from(pieces > 0) {
            if i < pieces {
                let half = &mut halves[i % 2];
                half.free(&self.stream)?;
                let length = STAGE.min(bytes - i * STAGE);
                let at = from.address(offset + i * STAGE, length)?;
                let to = half.memory.at.cast();
                // SAFETY: the half has this room, no copy uses it, and it is not read before its
                // event has happened.
                unsafe { copy(&self.stream, to, at, length, CopyKind::ToHost) }?;
                half.used(&self.stream)?;
            }
            if i > 0 {
                let half = &mut halves[(i - 1) % 2];
                half.free(&self.stream)?;
                let end = bytes.min(i * STAGE);
                let piece = &mut data[(i - 1) * STAGE..end];
                // SAFETY: the copy has filled so many bytes of the half.
                unsafe {
                    ptr::copy_nonoverlapping(half.memory.at, piece.as_mut_ptr(), piece.len());
                }
            }
        }
        Ok(data)
    }
}

impl Half {
    /// A copy of the stream uses it from here on.
    fn used(&mut self, stream: &Stream) -> Result<()> {
        self.busy = true;
        self.done.record(stream).inspect_err(|_| drop(stream.wait()))
    }

    /// Waits until no copy uses it. Where its event does not tell, the end of all work does.
    fn free(&mut self, stream: &Stream) -> Result<()> {
        match std::mem::take(&mut self.busy) {
            true => self.done.wait().inspect_err(|_| drop(stream.wait())),
            false => Ok(()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let halves = self.halves.get_mut().unwrap_or_else(PoisonError::into_inner);
        // That work failed has been told where it was waited for, or interests nobody.
        halves.iter_mut().for_each(|half| drop(half.free(&self.stream)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_an_eighth_at_most() {
        for bytes in (1..5_000_000).step_by(997) {
            let size = class(bytes);
            assert!(size >= bytes && size.is_multiple_of(UNIT));
            let unit = if bytes > SMALL { SLAB } else { UNIT };
            assert!(size - bytes < unit.max(bytes.next_power_of_two() / 8), "{bytes}: {size}");
            assert_eq!(class(size), size);
        }
    }
}
