//! Devices as run-time values, the default one, and the process-wide cache of compiled programs.

use crate::mesh::{MeshDevice, Placement};
use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Buffer, Device as Backend, Executable, ReferenceDevice};
use ferrata_cpu::{CpuDevice, Isa};
use ferrata_ir::{Composite, DType, Error, Function, Literal, Result, Type};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

pub use ferrata_cpu::CpuOptions;

/// Something that runs programs. Cloning is cheap and gives the same device.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    /// The same, if it is one of the ranks of a mesh.
    mesh: Option<Arc<MeshDevice>>,
}

impl Device {
    /// The CPU of this machine, with a thread for every core that the process may use. Should the
    /// environment variable `FERRATA_ISA` name no path of this machine, whatever is done on the
    /// device fails and says so.
    pub fn cpu() -> Self {
        static CPU: OnceLock<Device> = OnceLock::new();
        let make = || {
            let cpu = Device::cpu_with(CpuOptions::default());
            cpu.unwrap_or_else(|error| Device::from_backend(Arc::new(Unavailable(error))))
        };
        CPU.get_or_init(make).clone()
    }

    /// The CPU with so many threads; 0 stands for one per core. Results do not depend on it.
    ///
    /// # Errors
    /// If the environment variable `FERRATA_ISA` names no path of this machine.
    pub fn cpu_with_threads(threads: usize) -> Result<Self> {
        let threads = (threads > 0).then_some(threads);
        Device::cpu_with(CpuOptions { threads, ..CpuOptions::default() })
    }

    /// The CPU with settings of one's own. What `debug_print` shows goes to standard error unless
    /// the settings say otherwise.
    ///
    /// # Errors
    /// If the machine lacks the instruction-set path.
    pub fn cpu_with(options: CpuOptions) -> Result<Self> {
        let show = options.show.unwrap_or_else(|| Arc::new(show_on_standard_error));
        let cpu = CpuDevice::new(CpuOptions { show: Some(show), ..options })?;
        Ok(Device::from_backend(Arc::new(cpu)))
    }

    /// The reference evaluator: slow, and the meaning of every program.
    pub fn reference() -> Self {
        static REFERENCE: OnceLock<Device> = OnceLock::new();
        REFERENCE.get_or_init(|| Device::from_backend(Arc::new(ReferenceDevice))).clone()
    }

    /// A device of another crate.
    pub fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Device { backend, mesh: None }
    }

    pub(crate) fn from_mesh(mesh: Arc<MeshDevice>) -> Self {
        Device { backend: mesh.clone(), mesh: Some(mesh) }
    }

    /// The device as one of the ranks of a mesh, if it is one.
    pub fn mesh(&self) -> Option<&MeshDevice> {
        self.mesh.as_deref()
    }

    /// The implementation.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Short name: `cpu`.
    pub fn name(&self) -> &str {
        self.backend.name()
    }

    /// Whether this process speaks for all that compute together: it is alone, or the first rank.
    pub fn leads(&self) -> bool {
        self.mesh().is_none_or(|mesh| mesh.rank() == 0)
    }

    fn address(&self) -> *const () {
        Arc::as_ptr(&self.backend).cast()
    }
}

/// How many threads each of so many processes has that share the cores of this one.
pub fn threads_each(processes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / processes.max(1)).max(1)
}

/// Stands for the CPU where it cannot be used, and says why wherever something may fail.
struct Unavailable(Error);

impl Backend for Unavailable {
    fn name(&self) -> &str {
        "cpu"
    }

    fn fingerprint(&self) -> String {
        format!("cpu, unavailable: {}", self.0)
    }

    fn supports(&self, _: DType) -> bool {
        false
    }

    fn claims(&self, _: &Composite, _: &[&Type]) -> bool {
        false
    }

    fn upload(&self, _: Type, _: &[u8]) -> Result<Buffer> {
        Err(self.0.clone())
    }

    fn zeros(&self, _: Type) -> Result<Buffer> {
        Err(self.0.clone())
    }

    fn download(&self, _: &Buffer) -> Result<Vec<u8>> {
        Err(self.0.clone())
    }

    fn compile(&self, _: &Arc<Function>, _: &[bool]) -> Result<Arc<dyn Executable>> {
        Err(self.0.clone())
    }

    fn watch(&self, _: Option<Watch>) {}

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }
}

/// One line of `debug_print`: label, type, and at most ten elements.
fn show_on_standard_error(label: &str, value: &Literal) {
    let n = value.ty.elements();
    let shown: Vec<String> = (0..n.min(10)).map(|i| value.get(i).to_string()).collect();
    let more = if n > 10 { ", …" } else { "" };
    eprintln!("{label}: {} [{}{more}]", value.ty, shown.join(", "));
}

/// What a device can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Short name: `cpu`.
    pub name: String,
    /// Everything that can change bits.
    pub fingerprint: String,
    /// What the machine has: threads, instruction sets.
    pub facts: Vec<(&'static str, String)>,
    /// Every dtype, and whether it can be computed with; others are compile errors.
    pub dtypes: Vec<(DType, bool)>,
    /// Which path each class of kernels takes.
    pub paths: Vec<(&'static str, String)>,
}

impl Report {
    /// What a device says of itself, with facts and paths that it has beside.
    pub fn of(
        device: &dyn Backend,
        facts: Vec<(&'static str, String)>,
        paths: Vec<(&'static str, String)>,
    ) -> Report {
        Report {
            name: device.name().to_owned(),
            fingerprint: device.fingerprint(),
            facts,
            dtypes: DType::ALL.into_iter().map(|dtype| (dtype, device.supports(dtype))).collect(),
            paths,
        }
    }
}

/// The devices of this machine.
///
/// # Errors
/// If the environment variable `FERRATA_ISA` names no path of this machine.
pub fn all() -> Result<Vec<Report>> {
    let cpu = CpuDevice::new(CpuOptions::default())?;
    let available: Vec<String> = Isa::available().map(|isa| isa.to_string()).collect();
    let facts = vec![
        ("threads", cpu.threads().to_string()),
        ("instruction sets", available.join(", ")),
        ("in use", cpu.isa().to_string()),
    ];
    let paths = cpu.paths();
    let everything = vec![("all", "node by node, for tests".to_owned())];
    Ok(vec![Report::of(&cpu, facts, paths), Report::of(&ReferenceDevice, Vec::new(), everything)])
}

impl PartialEq for Device {
    /// Two handles of one device: compiled programs belong to its pool of threads.
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl Default for Device {
    /// The device that new tensors are made on.
    fn default() -> Self {
        default_device()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.backend.fingerprint())
    }
}

static DEFAULT: RwLock<Option<Device>> = RwLock::new(None);

/// Makes new tensors on `device` from now on, in all threads.
pub fn set_default_device(device: &Device) {
    *DEFAULT.write().unwrap_or_else(PoisonError::into_inner) = Some(device.clone());
}

thread_local! {
    static SCOPED: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Runs `f`, during which new tensors of this thread are made on `device`: so threads can be ranks
/// of one mesh.
pub fn with_default_device<R>(device: &Device, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Device>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPED.set(self.0.take());
        }
    }
    let _restore = Restore(SCOPED.replace(Some(device.clone())));
    f()
}

/// The device that new tensors are made on: the CPU unless changed.
pub(crate) fn default_device() -> Device {
    if let Some(device) = SCOPED.with_borrow(Clone::clone) {
        return device;
    }
    let chosen = DEFAULT.read().unwrap_or_else(PoisonError::into_inner).clone();
    chosen.unwrap_or_else(Device::cpu)
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    program: Arc<Function>,
    donated: Vec<bool>,
    like: Vec<Option<usize>>,
    device: Device,
}

struct Cache {
    entries: HashMap<Key, (Arc<dyn Executable>, u64)>,
    clock: u64,
}

/// More compiled programs than this are not kept; the ones unused for longest go first.
const CAPACITY: usize = 4096;

/// How the inputs and results of a program lie on a mesh.
#[derive(Default)]
pub(crate) struct Lies {
    /// Result `i` will lie as input `like[i]`, if there is one.
    pub like: Vec<Option<usize>>,
    /// How the inputs lie, if that is known.
    pub inputs: Option<Vec<Placement>>,
}

/// The compiled form of `program`, from the cache if it is there.
pub(crate) fn compiled(
    program: &Arc<Function>,
    donated: &[bool],
    lies: Lies,
    device: &Device,
) -> Result<Arc<dyn Executable>> {
    static CACHE: OnceLock<Mutex<Cache>> = OnceLock::new();
    let cache = CACHE.get_or_init(|| Mutex::new(Cache { entries: HashMap::new(), clock: 0 }));
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    let key = Key {
        program: program.clone(),
        donated: donated.to_vec(),
        like: lies.like,
        device: device.clone(),
    };
    {
        let mut cache = lock();
        cache.clock += 1;
        let now = cache.clock;
        if let Some((found, used)) = cache.entries.get_mut(&key) {
            *used = now;
            return Ok(found.clone());
        }
    }
    let executable = match device.mesh() {
        Some(mesh) => mesh.compile_like(program, donated, &key.like, lies.inputs)?,
        None => device.backend().compile(program, donated)?,
    };
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
