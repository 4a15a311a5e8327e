//! A chip, its streams, and events.

use super::abi::{self, MemoryKind};
use super::cann::{Cann, call};
use ferrata_ir::Result;
use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An open chip.
pub struct Npu {
    cann: Arc<Cann>,
    number: i32,
    context: *mut c_void,
}

// SAFETY: the context is a handle that any thread may make its own.
unsafe impl Send for Npu {}
// SAFETY: as above; the runtime's functions may be called by any number of threads.
unsafe impl Sync for Npu {}

impl fmt::Debug for Npu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NPU {}", self.number)
    }
}

impl Npu {
    /// Opens a chip by its number.
    ///
    /// # Errors
    /// When there is no such chip, or it cannot be used.
    pub fn open(cann: &Arc<Cann>, number: i32) -> Result<Arc<Npu>> {
        // SAFETY: it takes a number; undone by the drop below.
        unsafe { call!(cann, aclrtSetDevice(number)) }?;
        let mut npu = Npu { cann: Arc::clone(cann), number, context: ptr::null_mut() };
        // SAFETY: it writes one pointer.
        unsafe { call!(cann, aclrtGetCurrentContext(&mut npu.context)) }?;
        Ok(Arc::new(npu))
    }

    /// The runtime.
    pub fn cann(&self) -> &Arc<Cann> {
        &self.cann
    }

    /// Makes this chip that of the calling thread: others may have used another one since.
    ///
    /// # Errors
    /// When the chip has been reset meanwhile.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as the chip is open.
        unsafe { call!(self.cann, aclrtSetCurrentContext(self.context)) }
    }

    /// Free and total bytes of its memory.
    ///
    /// # Errors
    /// When the chip does not answer.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        unsafe { call!(self.cann, aclrtGetMemInfo(MemoryKind::Hbm, &mut free, &mut total)) }?;
        Ok((free, total))
    }
}

impl Drop for Npu {
    fn drop(&mut self) {
        // SAFETY: whatever was made on the chip holds an owner of this, so nothing is left.
        unsafe { (self.cann.functions().aclrtResetDevice)(self.number) };
    }
}

/// Work that a chip does in order.
pub struct Stream {
    npu: Arc<Npu>,
    raw: *mut c_void,
    /// Distinguishes streams, also from those that are gone.
    pub(crate) id: u64,
    /// What its work needs until the host has waited for it.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
}

// SAFETY: the stream is a handle that any thread of the chip may use.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of {:?}", self.id, self.npu)
    }
}

impl Stream {
    /// A new stream.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(npu: &Arc<Npu>) -> Result<Arc<Stream>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        npu.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one pointer; undone by the drop below.
        unsafe { call!(npu.cann, aclrtCreateStream(&mut raw)) }?;
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Stream { npu: Arc::clone(npu), raw, id, kept: Mutex::default() }))
    }

    /// The chip.
    pub fn npu(&self) -> &Arc<Npu> {
        &self.npu
    }

    pub(crate) fn raw(&self) -> *mut c_void {
        self.raw
    }

    /// Keeps something until the host has waited for all work so far. It must not own the stream.
    pub(crate) fn keep(&self, what: impl Any + Send) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(what));
    }

    /// Waits until all work so far is done.
    ///
    /// # Errors
    /// That of the first work that failed.
    pub fn wait(&self) -> Result<()> {
        self.npu.bind()?;
        // What comes from here on may belong to later work.
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the stream is alive.
        let done = unsafe { call!(self.npu.cann, aclrtSynchronizeStream(self.raw)) };
        match done {
            Ok(()) => drop(kept),
            // Nobody knows what still runs.
            Err(_) => self.keep(kept),
        }
        done
    }

    /// Lets this stream wait for all work so far of another one.
    ///
    /// # Errors
    /// When there are too many events.
    pub fn wait_for(&self, other: &Stream) -> Result<()> {
        let event = Event::new(&self.npu)?;
        event.record(other)?;
        // SAFETY: stream and event are alive; the event is kept until the stream has passed it.
        unsafe { call!(self.npu.cann, aclrtStreamWaitEvent(self.raw, event.raw)) }?;
        self.keep(event);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // That work failed has been told where it was waited for, or interests nobody.
        let _ = self.wait();
        // SAFETY: the stream is alive and has nothing left to do.
        unsafe { (self.npu.cann.functions().aclrtDestroyStream)(self.raw) };
    }
}

/// A moment of a stream.
pub struct Event {
    npu: Arc<Npu>,
    raw: *mut c_void,
}

// SAFETY: the event is a handle that any thread of the chip may use.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// A new event.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(npu: &Arc<Npu>) -> Result<Event> {
        npu.bind()?;
        let mut raw = ptr::null_mut();
        // SAFETY: it writes one pointer; undone by the drop below.
        unsafe { call!(npu.cann, aclrtCreateEventWithFlag(&mut raw, abi::EVENT_SYNC)) }?;
        Ok(Event { npu: Arc::clone(npu), raw })
    }

    /// Has it happen when all work so far of a stream is done.
    ///
    /// # Errors
    /// When the chip does not answer.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.npu.bind()?;
        // SAFETY: stream and event are alive.
        unsafe { call!(self.npu.cann, aclrtRecordEvent(self.raw, stream.raw)) }
    }

    /// Waits until it has happened.
    ///
    /// # Errors
    /// When the work before it failed.
    pub fn wait(&self) -> Result<()> {
        self.npu.bind()?;
        // SAFETY: the event is alive.
        unsafe { call!(self.npu.cann, aclrtSynchronizeEvent(self.raw)) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.npu.bind().is_ok() {
            // SAFETY: the event is alive, and no stream will come to it.
            unsafe { (self.npu.cann.functions().aclrtDestroyEvent)(self.raw) };
        }
    }
}
