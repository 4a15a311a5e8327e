//! The CPU as a device.

use crate::exec::{self, Machine, Program};
use crate::isa::Isa;
use crate::limits;
use crate::memory::{Heap, MemoryUse};
use crate::pool::Pool;
use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Buffer, Device, Executable};
use ferrata_ir::{Communicator, Composite, DType, Error, Function, Result, Type};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

pub use crate::exec::Show;

/// Settings of a [`CpuDevice`].
#[derive(Clone, Default)]
pub struct CpuOptions {
    /// How many threads kernels run on; by default as many as the process may use. Results do not
    /// depend on it.
    pub threads: Option<usize>,
    /// Instruction-set path; by default [`Isa::current`].
    pub isa: Option<Isa>,
    /// Receives what `debug_print` shows; without it nothing is shown.
    pub show: Option<Show>,
    /// Connects this device to those of other ranks; without it programs with collectives fail.
    pub communicator: Option<Arc<dyn Communicator>>,
}

impl fmt::Debug for CpuOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuOptions")
            .field("threads", &self.threads)
            .field("isa", &self.isa)
            .field("communicator", &self.communicator)
            .finish_non_exhaustive()
    }
}

/// The processor of this machine.
///
/// ```
/// use ferrata_compiler::{Argument, Device};
/// use ferrata_cpu::{CpuDevice, CpuOptions};
/// use ferrata_ir::{Builder, DType, Type};
///
/// let ty = Type::new(DType::F32, [3]);
/// let mut b = Builder::new("double");
/// let x = b.parameter(ty.clone());
/// let y = b.add(x, x);
/// let f = b.finish(&[y]).unwrap().into();
///
/// let cpu = CpuDevice::new(CpuOptions::default()).unwrap();
/// let program = cpu.compile(&f, &[false]).unwrap();
/// let bytes: Vec<u8> = [1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
/// let x = cpu.upload(ty, &bytes).unwrap();
/// let y = program.run(vec![Argument::Shared(x)]).unwrap();
/// assert_eq!(cpu.download(&y[0]).unwrap()[..4], 2f32.to_le_bytes());
/// ```
pub struct CpuDevice {
    machine: Arc<Machine>,
}

impl CpuDevice {
    /// A device with a pool of threads of its own.
    ///
    /// # Errors
    /// When the environment variable `FERRATA_ISA` names no path of this machine, or the options
    /// ask for a path that it lacks.
    pub fn new(options: CpuOptions) -> Result<CpuDevice> {
        let isa = match options.isa {
            Some(isa) if isa > Isa::detect() => {
                return Err(Error::new(format!("this machine has no {isa}"))
                    .help(format!("the best that it has is {}", Isa::detect())));
            }
            Some(isa) => isa,
            None => Isa::current()?,
        };
        let threads = options.threads.unwrap_or_else(Pool::default_threads);
        let machine = Machine {
            pool: Pool::new(threads),
            isa,
            heap: Arc::new(Heap::default()),
            show: options.show,
            communicator: options.communicator,
            alone: Pool::new(1),
            watch: RwLock::new(None),
            limits: OnceLock::new(),
            arenas: Mutex::default(),
        };
        Ok(CpuDevice { machine: Arc::new(machine) })
    }

    /// The instruction-set path that kernels take.
    pub fn isa(&self) -> Isa {
        self.machine.isa
    }

    /// How many threads kernels run on.
    pub fn threads(&self) -> usize {
        self.machine.pool.threads()
    }

    /// How much memory the device holds.
    pub fn memory(&self) -> MemoryUse {
        self.machine.heap.usage()
    }

    /// Which path each class of kernels takes, as (class, path).
    pub fn paths(&self) -> Vec<(&'static str, String)> {
        let isa = self.isa();
        let vector = |what: &str| format!("{what}, {}", isa.vectors());
        let dots = |dots: bool, other: &str| {
            if dots { format!("packed, dot instructions, {isa}") } else { vector(other) }
        };
        let loops = match (isa.vectors(), exec::generates(isa)) {
            (Isa::Portable, _) => "tile interpreter, portable".into(),
            (isa, true) => format!("generated code, {isa}"),
            (isa, false) => format!("tile interpreter, {isa}: the system allows no generated code"),
        };
        vec![
            ("loop", loops),
            ("contract f32, f64", vector("packed")),
            ("contract bf16", dots(isa >= Isa::Avx512Bf16, "packed in f32")),
            ("contract f16", vector("packed in f32")),
            ("contract i8, u8", dots(isa >= Isa::Avx512Vnni, "packed in i32")),
            ("contract i16, i32, u32, i64", vector("packed, no wider than 256 bits")),
            (
                "contract, 8 rows or columns or fewer",
                vector("in place, in the accumulator's dtype"),
            ),
            ("attention", vector("flash")),
            ("gather, scatter, sort, random bits", "portable".into()),
        ]
    }
}

impl fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuDevice({}, {} threads)", self.isa(), self.threads())
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &str {
        "cpu"
    }

    fn fingerprint(&self) -> String {
        let interpreted = self.isa() > Isa::Portable && !exec::generates(self.isa());
        let how = if interpreted { " interpreted" } else { "" };
        format!("cpu {}{how} {}", self.isa(), env!("CARGO_PKG_VERSION"))
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn claims(&self, composite: &Composite, inputs: &[&Type]) -> bool {
        exec::claims(composite, inputs)
    }

    fn upload(&self, ty: Type, bytes: &[u8]) -> Result<Buffer> {
        if bytes.len() != ty.bytes() {
            let (want, got) = (ty.bytes(), bytes.len());
            return Err(Error::new(format!("{ty} needs {want} bytes, {got} given")));
        }
        let memory = self.machine.heap.allocate(bytes.len())?;
        // SAFETY: the memory is new and has at least as many bytes.
        unsafe {
            memory.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            if ty.dtype == DType::Bool {
                let truths = std::slice::from_raw_parts_mut(memory.as_ptr(), bytes.len());
                truths.iter_mut().for_each(|t| *t = u8::from(*t != 0));
            }
        }
        Ok(Buffer { ty, memory: Arc::new(memory) })
    }

    fn zeros(&self, ty: Type) -> Result<Buffer> {
        let memory = Arc::new(self.machine.heap.allocate_zeroed(ty.bytes())?);
        Ok(Buffer { ty, memory })
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        let memory = exec::host(buffer)?;
        // SAFETY: buffers of this device hold their type's bytes, and whoever holds one sees that
        // nobody writes it.
        Ok(unsafe { std::slice::from_raw_parts(memory.as_ptr(), buffer.ty.bytes()) }.to_vec())
    }

    fn compile(&self, program: &Arc<Function>, donated: &[bool]) -> Result<Arc<dyn Executable>> {
        let plan = ferrata_compiler::compile(program, donated, self)?;
        Ok(Arc::new(Program::new(self.machine.clone(), plan)?))
    }

    fn watch(&self, watch: Option<Watch>) {
        self.machine.pool.watch(watch.is_some());
        *self.machine.watch.write().unwrap_or_else(PoisonError::into_inner) = watch;
    }

    fn limits(&self) -> Option<Limits> {
        let (limits, isa) = (&self.machine.limits, self.isa());
        Some(limits.get_or_init(|| limits::limits(self.threads(), isa)).clone())
    }

    fn levels(&self) -> Vec<Level> {
        limits::levels(self.threads(), self.isa())
    }
}
