//! A chip as a device.

use crate::chip::{Chip, Place};
use crate::executable::Planned;
use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Buffer, Device, Executable};
use ferrata_ir::{Composite, DType, Error, Function, Result, Type};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// An Ascend NPU, simulated or real.
pub struct Ascend<C: Chip> {
    machine: Arc<Machine<C>>,
}

/// What a device shares with its programs.
pub(crate) struct Machine<C> {
    pub chip: C,
    pub watch: RwLock<Option<Watch>>,
    /// Why kernels were left to the host.
    pub on_host: Mutex<BTreeSet<String>>,
}

impl<C: Chip> fmt::Debug for Ascend<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// The memory of a buffer.
///
/// # Errors
/// When the buffer belongs to another device.
pub(crate) fn block<C: Chip>(buffer: &Buffer) -> Result<&C::Block> {
    buffer.memory.as_any().downcast_ref().ok_or_else(|| {
        Error::new(format!("a buffer of type {} belongs to another device", buffer.ty))
            .help("copy it to this device first")
    })
}

/// The first byte of a buffer.
pub(crate) fn first<C: Chip>(buffer: &Buffer) -> Result<Place<'_, C>> {
    Ok((block::<C>(buffer)?, 0))
}

impl<C: Chip> Ascend<C> {
    pub(crate) fn on(chip: C) -> Ascend<C> {
        let (watch, on_host) = (RwLock::new(None), Mutex::default());
        Ascend { machine: Arc::new(Machine { chip, watch, on_host }) }
    }

    /// The chip.
    pub(crate) fn chip(&self) -> &C {
        &self.machine.chip
    }

    /// Where each class of kernels runs, as (class, where).
    pub fn paths(&self) -> Vec<(&'static str, String)> {
        self.chip().paths()
    }

    /// Why kernels that were compiled so far run on the host, or by kernels of the vendor's: what the
    /// cores or the compiler lack for them.
    pub fn on_host(&self) -> Vec<String> {
        let lacks = self.machine.on_host.lock().unwrap_or_else(PoisonError::into_inner);
        lacks.iter().cloned().collect()
    }

    fn buffer(&self, ty: Type) -> Result<Buffer> {
        let memory = Arc::new(self.chip().allocate(ty.bytes())?);
        Ok(Buffer { ty, memory })
    }
}

impl<C: Chip> Device for Ascend<C> {
    fn name(&self) -> &str {
        self.chip().name()
    }

    fn fingerprint(&self) -> String {
        let chip = self.chip();
        format!("{} {} {}", chip.name(), chip.fingerprint(), env!("CARGO_PKG_VERSION"))
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
        let buffer = self.buffer(ty)?;
        if buffer.ty.dtype == DType::Bool {
            let bytes: Vec<u8> = bytes.iter().map(|b| u8::from(*b != 0)).collect();
            self.chip().write(first::<C>(&buffer)?, &bytes)?;
        } else {
            self.chip().write(first::<C>(&buffer)?, bytes)?;
        }
        Ok(buffer)
    }

    fn zeros(&self, ty: Type) -> Result<Buffer> {
        let buffer = self.buffer(ty)?;
        self.chip().clear(block::<C>(&buffer)?)?;
        Ok(buffer)
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        self.chip().read(first::<C>(buffer)?, buffer.ty.bytes())
    }

    fn compile(&self, program: &Arc<Function>, donated: &[bool]) -> Result<Arc<dyn Executable>> {
        let plan = ferrata_compiler::compile(program, donated, self)?;
        Ok(Arc::new(Planned::new(Arc::clone(&self.machine), plan)?))
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
