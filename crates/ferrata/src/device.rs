//! Devices as run-time values, the default one, and the process-wide cache of compiled programs.

use ferrata_compiler::{Device as Backend, Executable, ReferenceDevice};
use ferrata_ir::{Function, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Something that runs programs. Cloning is cheap; two handles of one device are equal.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// The CPU of this machine.
    pub fn cpu() -> Self {
        Device::reference()
    }

    /// The reference evaluator: slow, and the meaning of every program.
    pub fn reference() -> Self {
        static REFERENCE: OnceLock<Device> = OnceLock::new();
        REFERENCE.get_or_init(|| Device(Arc::new(ReferenceDevice))).clone()
    }

    /// A device of another crate.
    pub fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Device(backend)
    }

    /// The implementation.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0
    }

    /// Short name: `cpu`.
    pub fn name(&self) -> &str {
        self.0.name()
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
            || self.0.fingerprint() == other.0.fingerprint()
    }
}

impl Eq for Device {}

impl Default for Device {
    /// The device that new tensors are made on.
    fn default() -> Self {
        default_device()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.0.fingerprint())
    }
}

static DEFAULT: RwLock<Option<Device>> = RwLock::new(None);

/// Makes new tensors on `device` from now on, in all threads.
pub fn set_default_device(device: &Device) {
    *DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = Some(device.clone());
}

/// The device that new tensors are made on: the CPU unless changed.
pub(crate) fn default_device() -> Device {
    let chosen = DEFAULT.read().unwrap_or_else(PoisonError::into_inner).clone();
    chosen.unwrap_or_else(Device::cpu)
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    program: Arc<Function>,
    donated: Vec<bool>,
    device: String,
}

struct Cache {
    entries: HashMap<Key, (Arc<dyn Executable>, u64)>,
    clock: u64,
}

/// More compiled programs than this are not kept; the ones unused for longest go first.
const CAPACITY: usize = 4096;

/// The compiled form of `program`, from the cache if it is there.
pub(crate) fn compiled(
    program: &Arc<Function>,
    donated: &[bool],
    device: &Device,
) -> Result<Arc<dyn Executable>> {
    static CACHE: OnceLock<Mutex<Cache>> = OnceLock::new();
    let cache = CACHE.get_or_init(|| Mutex::new(Cache { entries: HashMap::new(), clock: 0 }));
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    let device_name = device.backend().fingerprint();
    let key = Key { program: program.clone(), donated: donated.to_vec(), device: device_name };
    {
        let mut cache = lock();
        cache.clock += 1;
        let now = cache.clock;
        if let Some((found, used)) = cache.entries.get_mut(&key) {
            *used = now;
            return Ok(found.clone());
        }
    }
    let executable = device.backend().compile(program, donated)?;
    let mut cache = lock();
    if cache.entries.len() >= CAPACITY {
        let mut ages: Vec<u64> = cache.entries.values().map(|(_, used)| *used).collect();
        let (_, &mut middle, _) = ages.select_nth_unstable(CAPACITY / 2);
        cache.entries.retain(|_, (_, used)| *used > middle);
    }
    let now = cache.clock;
    cache.entries.insert(key, (executable.clone(), now));
    Ok(executable)
}
