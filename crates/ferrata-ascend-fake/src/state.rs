//! What the imitation knows: memory of the chip, memory of the host, handles, streams.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::{CString, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What functions return when something is wrong.
pub(crate) const INVALID: i32 = 107_000;
pub(crate) const NO_CONTEXT: i32 = 107_002;
pub(crate) const BAD_HANDLE: i32 = 107_017;
pub(crate) const NO_ROOM: i32 = 207_001;
pub(crate) const BAD_KERNEL: i32 = 507_035;

/// Where the chip's memory begins: no program of the host has an address there.
const BASE: u64 = 1 << 52;
/// Between blocks of the chip's memory, and before the first.
const GUARD: usize = 512;
const GUARDED: u8 = 0x5C;
/// Fresh memory is full of this: negative numbers in floats, bad indices in integers.
const RUBBISH: u8 = 0xA5;
/// How much memory the chip has.
pub(crate) const CAPACITY: usize = 1 << 30;

/// What a function found, or the code that it returns and why.
pub(crate) type Outcome<T = ()> = Result<T, (i32, String)>;

pub(crate) fn wrong<T>(code: i32, why: impl Into<String>) -> Outcome<T> {
    Err((code, why.into()))
}

/// Work of a stream.
pub(crate) type Task = Box<dyn FnOnce(&mut State) -> Outcome + Send>;

enum Entry {
    Task(&'static str, Task),
    /// An event happens: its handle, and how often it was recorded then.
    Record(u64, u64),
    /// The event must have happened: its handle, and how often it was recorded.
    Await(u64, u64),
}

#[derive(Default)]
struct Stream {
    entries: VecDeque<Entry>,
    /// The code of the first work that failed, which every later wait returns.
    failed: Option<(i32, String)>,
}

#[derive(Default)]
struct Event {
    recorded: u64,
    happened: u64,
    stream: u64,
}

/// A kernel's binary.
pub(crate) struct Binary {
    pub text: String,
    pub old: bool,
}

/// A tensor of an operator.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
    pub dtype: i32,
    pub data: u64,
}

/// A prepared call of an operator.
pub(crate) struct Executor {
    pub operator: &'static str,
    pub tensors: [u64; 3],
    pub scratch: u64,
}

/// All of it.
#[derive(Default)]
pub(crate) struct State {
    pub started: bool,
    pub devices: i32,
    /// Blocks of the chip's memory, guards around them, by the address of the first byte.
    memory: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// Memory of the host that the chip reaches: address and bytes.
    pub pinned: BTreeMap<u64, usize>,
    streams: HashMap<u64, Stream>,
    events: HashMap<u64, Event>,
    pub binaries: HashMap<u64, Binary>,
    /// Kernels: which binary, and their name. Those of the older functions by their key.
    pub functions: HashMap<u64, (u64, String)>,
    pub tensors: HashMap<u64, Tensor>,
    pub executors: HashMap<u64, Executor>,
    /// Those that have run, or were given back.
    gone: HashSet<u64>,
    handles: u64,
    /// Calls so far, by function.
    calls: HashMap<String, u64>,
    /// Calls that are to fail: function, which call from now on, code.
    pub faults: Vec<(String, u64, i32)>,
    /// What was found that a chip would let pass.
    pub findings: Vec<String>,
    pub message: CString,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Whether this thread has chosen a chip.
    pub(crate) static CONTEXT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

pub(crate) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the body of a C function: an injected fault or what it returns becomes the code, and what
/// was wrong the text of `aclGetRecentErrMsg`.
pub(crate) fn call(name: &str, body: impl FnOnce(&mut State) -> Outcome) -> i32 {
    let mut state = lock();
    let outcome = state.injected(name).and_then(|()| body(&mut state));
    state.answer(name, outcome)
}

/// As [`call`], for functions that need a chip that this thread has chosen.
pub(crate) fn on_device(name: &str, body: impl FnOnce(&mut State) -> Outcome) -> i32 {
    call(name, |state| {
        if !CONTEXT.get() {
            return wrong(NO_CONTEXT, "this thread has not chosen a device");
        }
        body(state)
    })
}

impl State {
    fn injected(&mut self, name: &str) -> Outcome {
        *self.calls.entry(name.to_owned()).or_default() += 1;
        let mut due = None;
        self.faults.retain_mut(|(function, left, code)| {
            if function != name {
                return true;
            }
            *left -= 1;
            if *left == 0 {
                due = Some(*code);
            }
            *left > 0
        });
        match due {
            Some(code) => wrong(code, "injected"),
            None => Ok(()),
        }
    }

    fn answer(&mut self, name: &str, outcome: Outcome) -> i32 {
        let Err((code, why)) = outcome else { return 0 };
        self.message = CString::new(format!("{name}: {why}")).unwrap_or_default();
        code
    }

    /// Notes something that a chip would let pass.
    pub fn find(&mut self, what: impl Into<String>) {
        self.findings.push(what.into());
    }

    pub fn calls(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// A new handle.
    pub fn handle(&mut self) -> u64 {
        self.handles += 16;
        0x7000_0000 + self.handles
    }

    /// Bytes of the chip's memory that are taken.
    pub fn taken(&self) -> usize {
        self.memory.values().map(|block| block.len() - 2 * GUARD).sum()
    }

    pub fn allocate(&mut self, bytes: usize) -> Outcome<u64> {
        if bytes == 0 {
            return wrong(INVALID, "0 bytes");
        }
        if self.taken() + bytes > CAPACITY {
            return wrong(NO_ROOM, format!("no room for {bytes} bytes"));
        }
        let mut block = vec![GUARDED; bytes + 2 * GUARD];
        block[GUARD..GUARD + bytes].fill(RUBBISH);
        // No address is used twice.
        let at = BASE + self.next + GUARD as u64;
        self.next += (bytes + 2 * GUARD).next_multiple_of(GUARD) as u64;
        self.memory.insert(at, block);
        Ok(at)
    }

    pub fn free(&mut self, at: u64) -> Outcome {
        self.guards();
        match self.memory.remove(&at) {
            Some(_) => Ok(()),
            None => {
                self.find(format!("{at:#x} is freed, but is no block or was freed before"));
                wrong(INVALID, "no block begins there")
            }
        }
    }

    /// Looks at all guards.
    pub fn guards(&mut self) {
        let broken = |block: &Vec<u8>| {
            let end = block.len() - GUARD;
            block[..GUARD].iter().chain(&block[end..]).any(|&b| b != GUARDED)
        };
        let found: Vec<u64> =
            self.memory.iter().filter(|(_, block)| broken(block)).map(|(at, _)| *at).collect();
        for at in found {
            self.find(format!("something was written before or behind the block at {at:#x}"));
            if let Some(block) = self.memory.get_mut(&at) {
                let end = block.len() - GUARD;
                block[..GUARD].fill(GUARDED);
                block[end..].fill(GUARDED);
            }
        }
    }

    /// The block that an address lies in: its first address, and the byte in it, guards counted.
    fn block(&self, at: u64) -> Outcome<(u64, usize)> {
        let found = self.memory.range(..=at).next_back();
        let inside =
            found.filter(|(first, block)| at - **first <= (block.len() - 2 * GUARD) as u64);
        match inside {
            Some((first, _)) => Ok((*first, (at - first) as usize + GUARD)),
            None => wrong(INVALID, format!("{at:#x} is no memory of the chip")),
        }
    }

    /// Some bytes of the chip.
    pub fn bytes(&mut self, at: u64, bytes: usize) -> Outcome<&mut [u8]> {
        let (first, offset) = self.block(at)?;
        let block = self.memory.get_mut(&first).map(|b| &mut b[..]).unwrap_or_default();
        let end = block.len() - GUARD;
        match block.get_mut(offset..offset + bytes).filter(|_| offset + bytes <= end) {
            Some(found) => Ok(found),
            None => wrong(INVALID, format!("{bytes} bytes from {at:#x} on leave their block")),
        }
    }

    /// Takes the blocks that some addresses lie in out, guards and all, for a kernel to run on.
    pub fn take(&mut self, addresses: &[u64]) -> Outcome<Taken> {
        let mut taken = Taken { firsts: Vec::new(), blocks: Vec::new(), places: Vec::new() };
        for &at in addresses {
            let (first, offset) = self.block(at)?;
            let known = taken.firsts.iter().position(|f| *f == first);
            let place = known.unwrap_or_else(|| {
                taken.firsts.push(first);
                taken.blocks.push(Vec::new());
                taken.firsts.len() - 1
            });
            taken.places.push((place, offset));
        }
        for (first, block) in taken.firsts.iter().zip(&mut taken.blocks) {
            if let Some(found) = self.memory.get_mut(first) {
                *block = std::mem::take(found);
            }
        }
        Ok(taken)
    }

    /// Puts blocks back.
    pub fn put(&mut self, taken: Taken) {
        self.memory.extend(taken.firsts.into_iter().zip(taken.blocks));
        self.guards();
    }

    pub fn new_stream(&mut self) -> u64 {
        let handle = self.handle();
        self.streams.insert(handle, Stream::default());
        handle
    }

    pub fn end_stream(&mut self, handle: u64) -> Outcome {
        let Some(stream) = self.streams.remove(&handle) else {
            return wrong(BAD_HANDLE, "no stream");
        };
        if !stream.entries.is_empty() {
            let left = stream.entries.len();
            self.find(format!("a stream was destroyed with {left} pieces of work left"));
        }
        Ok(())
    }

    pub fn new_event(&mut self) -> u64 {
        let handle = self.handle();
        self.events.insert(handle, Event::default());
        handle
    }

    pub fn end_event(&mut self, handle: u64) -> Outcome {
        if self.events.remove(&handle).is_none() {
            return wrong(BAD_HANDLE, "no event");
        }
        let waits = |e: &Entry| matches!(e, Entry::Await(event, _) if *event == handle);
        if self.streams.values().any(|s| s.entries.iter().any(waits)) {
            self.find("an event was destroyed that a stream has yet to wait for");
        }
        Ok(())
    }

    fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        match self.streams.get_mut(&handle) {
            Some(stream) => Ok(stream),
            None => wrong(BAD_HANDLE, "no stream"),
        }
    }

    /// Appends work to a stream.
    pub fn push(&mut self, stream: u64, name: &'static str, task: Task) -> Outcome {
        self.stream(stream)?.entries.push_back(Entry::Task(name, task));
        Ok(())
    }

    pub fn record(&mut self, event: u64, stream: u64) -> Outcome {
        self.stream(stream)?;
        let Some(found) = self.events.get_mut(&event) else {
            return wrong(BAD_HANDLE, "no event");
        };
        found.recorded += 1;
        found.stream = stream;
        let count = found.recorded;
        self.stream(stream)?.entries.push_back(Entry::Record(event, count));
        Ok(())
    }

    pub fn wait_event(&mut self, stream: u64, event: u64) -> Outcome {
        let Some(found) = self.events.get(&event) else {
            return wrong(BAD_HANDLE, "no event");
        };
        let count = found.recorded;
        self.stream(stream)?.entries.push_back(Entry::Await(event, count));
        Ok(())
    }

    /// Runs a stream to its end, or until an event has happened so often.
    fn drain(&mut self, handle: u64, until: Option<(u64, u64)>) -> Outcome {
        loop {
            if let Some((event, count)) = until
                && self.events.get(&event).is_none_or(|e| e.happened >= count)
            {
                break;
            }
            let Some(entry) = self.stream(handle)?.entries.pop_front() else { break };
            match entry {
                // Nothing runs behind work that failed.
                Entry::Task(name, task) if self.stream(handle)?.failed.is_none() => {
                    if let Err((code, why)) = task(self) {
                        self.stream(handle)?.failed = Some((code, format!("{name}: {why}")));
                    }
                }
                Entry::Task(..) => {}
                Entry::Record(event, count) => {
                    if let Some(event) = self.events.get_mut(&event) {
                        event.happened = event.happened.max(count);
                    }
                }
                Entry::Await(event, count) => {
                    if let Some(found) = self.events.get(&event)
                        && found.happened < count
                    {
                        let other = found.stream;
                        self.drain(other, Some((event, count)))?;
                    }
                }
            }
        }
        self.guards();
        self.stream(handle)?.failed.clone().map_or(Ok(()), Err)
    }

    pub fn synchronise(&mut self, stream: u64) -> Outcome {
        self.drain(stream, None)
    }

    pub fn synchronise_event(&mut self, event: u64) -> Outcome {
        let Some(found) = self.events.get(&event) else {
            return wrong(BAD_HANDLE, "no event");
        };
        let (stream, count) = (found.stream, found.recorded);
        if count == 0 {
            return Ok(());
        }
        self.drain(stream, Some((event, count)))
    }

    /// Whether a pointer of the host lies in memory that the chip reaches, with so many bytes.
    pub fn reaches(&self, at: *const c_void, bytes: usize) -> bool {
        let at = at as u64;
        let found = self.pinned.range(..=at).next_back();
        found.is_some_and(|(first, size)| at + bytes as u64 <= first + *size as u64)
    }

    /// Removes something by its handle; what is gone already is told.
    pub fn remove<T>(
        &mut self,
        what: &str,
        handle: u64,
        of: impl FnOnce(&mut State) -> Option<T>,
    ) -> Outcome<T> {
        match of(self) {
            Some(found) => {
                self.gone.insert(handle);
                Ok(found)
            }
            None if self.gone.contains(&handle) => {
                self.find(format!("{what} is used or given back a second time"));
                wrong(BAD_HANDLE, format!("{what} is gone"))
            }
            None => wrong(BAD_HANDLE, format!("no {what}")),
        }
    }

    /// What was never given back.
    pub fn leaks(&self) -> Vec<String> {
        let counts = [
            ("block of the chip's memory", self.memory.len()),
            ("block of the host's memory", self.pinned.len()),
            ("stream", self.streams.len()),
            ("event", self.events.len()),
            ("binary", self.binaries.len()),
            ("tensor", self.tensors.len()),
            ("prepared call", self.executors.len()),
            ("device", self.devices.max(0) as usize),
        ];
        let leak = |(what, n): &(&str, usize)| format!("{n} × {what} never given back");
        counts.iter().filter(|(_, n)| *n > 0).map(leak).collect()
    }
}

/// Blocks that a kernel runs on.
pub(crate) struct Taken {
    firsts: Vec<u64>,
    pub blocks: Vec<Vec<u8>>,
    /// For each address, its block and the byte there.
    pub places: Vec<(usize, usize)>,
}
