//! The simulated NPU as a device: every kernel goes through the vendor's compiler and then runs on
//! the simulator.

use crate::compiler::{Compiler, Statistics};
use crate::executable::Simulated;
use crate::target::Target;
use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Buffer, Device, Executable, Memory};
use ferrata_ir::{Composite, DType, Error, Function, Result, Type};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A simulated Ascend NPU.
#[derive(Debug)]
pub struct AscendSimulator {
    machine: Arc<Machine>,
}

/// What a device shares with its programs.
pub(crate) struct Machine {
    pub target: Target,
    pub compiler: Compiler,
    pub watch: RwLock<Option<Watch>>,
    /// Why kernels were left to the host.
    pub on_host: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.target.name)
    }
}

/// Global memory of the simulated device.
#[derive(Debug)]
pub(crate) struct Bytes(pub Mutex<Vec<u8>>);

impl Memory for Bytes {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A copy of a buffer's bytes.
///
/// # Errors
/// When the buffer belongs to another device.
pub(crate) fn bytes(buffer: &Buffer) -> Result<Vec<u8>> {
    let found = buffer.memory.as_any().downcast_ref::<Bytes>();
    let bytes = found.ok_or_else(|| {
        Error::new(format!("a buffer of type {} belongs to another device", buffer.ty))
            .help("copy it to this device first")
    })?;
    Ok(bytes.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

pub(crate) fn buffer(ty: Type, bytes: Vec<u8>) -> Buffer {
    Buffer { ty, memory: Arc::new(Bytes(Mutex::new(bytes))) }
}

impl AscendSimulator {
    /// A simulated chip whose kernels this compiler makes.
    ///
    /// # Errors
    /// For chips that the simulator does not know.
    pub fn new(target: Target, compiler: Compiler) -> Result<AscendSimulator> {
        if target.a5 {
            let error = Error::new(format!("the simulator does not know {}", target.name));
            return Err(error.help("it knows the cores of the 910B and the 910C"));
        }
        let machine =
            Machine { target, compiler, watch: RwLock::new(None), on_host: Mutex::default() };
        Ok(AscendSimulator { machine: Arc::new(machine) })
    }

    /// What compiling has cost so far.
    pub fn statistics(&self) -> Statistics {
        self.machine.compiler.statistics()
    }

    /// Where each class of kernels runs, as (class, where).
    pub fn paths(&self) -> Vec<(&'static str, String)> {
        let cores = |what: &str| format!("{what}, simulated");
        vec![
            ("loop, gather, scatter", cores("vector cores")),
            ("contract", cores("cube cores, then vector cores")),
            ("what the cores lack", "the host, by its meaning".into()),
        ]
    }

    /// Why kernels that were compiled so far run on the host: what the cores lack for them.
    pub fn on_host(&self) -> Vec<String> {
        self.machine
            .on_host
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

impl Device for AscendSimulator {
    fn name(&self) -> &str {
        "ascend-sim"
    }

    fn fingerprint(&self) -> String {
        format!("ascend-sim {} {}", self.machine.target.name, env!("CARGO_PKG_VERSION"))
    }

    /// What the cores do not compute with is computed by the host. Single numbers of f64 among
    /// others, such as the rates of an optimiser, are rounded to f32 where they are read.
    fn supports(&self, _: DType) -> bool {
        true
    }

    fn claims(&self, _: &Composite, _: &[&Type]) -> bool {
        false
    }

    fn upload(&self, ty: Type, bytes: &[u8]) -> Result<Buffer> {
        if bytes.len() != ty.bytes() {
            let (want, got) = (ty.bytes(), bytes.len());
            return Err(Error::new(format!("{ty} needs {want} bytes, {got} given")));
        }
        let truth = |b: &u8| if ty.dtype == DType::Bool { u8::from(*b != 0) } else { *b };
        let bytes = bytes.iter().map(truth).collect();
        Ok(buffer(ty, bytes))
    }

    fn zeros(&self, ty: Type) -> Result<Buffer> {
        let bytes = vec![0; ty.bytes()];
        Ok(buffer(ty, bytes))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        bytes(buffer)
    }

    fn compile(&self, program: &Arc<Function>, donated: &[bool]) -> Result<Arc<dyn Executable>> {
        let plan = ferrata_compiler::compile(program, donated, self)?;
        Ok(Arc::new(Simulated::new(Arc::clone(&self.machine), plan)?))
    }

    fn watch(&self, watch: Option<Watch>) {
        *self.machine.watch.write().unwrap_or_else(PoisonError::into_inner) = watch;
    }

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }
}
