//! The interface of devices.

use crate::watch::{Level, Limits, Watch};
use ferrata_ir::sharding::Partition;
use ferrata_ir::{Composite, DType, Function, Result, Type};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Memory of some device; the device that made it knows what it is.
pub trait Memory: Any + Send + Sync + fmt::Debug {
    /// For the device to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A dense, row-major value in a device's memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Dtype and shape.
    pub ty: Type,
    /// Where it lies. Shared: a buffer with one owner may be donated.
    pub memory: Arc<dyn Memory>,
}

/// An input of an executable.
#[derive(Debug)]
pub enum Argument {
    /// Only read.
    Shared(Buffer),
    /// The executable may overwrite it and return its memory as a result. If the memory has other
    /// owners, the device copies it first.
    Donated(Buffer),
}

impl Argument {
    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        match self {
            Argument::Shared(b) | Argument::Donated(b) => b,
        }
    }
}

/// A compiled program.
pub trait Executable: Send + Sync {
    /// Runs to completion and returns the results.
    ///
    /// # Errors
    /// When the arguments do not fit, or a run-time check fails.
    fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>>;

    /// As [`Executable::run`], slower, but the first work that makes a NaN, or an infinity of
    /// finite numbers, is an error.
    ///
    /// # Errors
    /// As [`Executable::run`]; that error, with scope and user line.
    fn run_watching(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>>;

    /// The plan, for devices that have one: kernels, schedule and memory.
    fn plan(&self) -> Option<&crate::Plan>;

    /// The program of this rank, where a device has cut a whole program over a mesh.
    fn partition(&self) -> Option<&Partition> {
        None
    }
}

/// Something that runs programs.
pub trait Device: Send + Sync {
    /// Short name: `cpu`.
    fn name(&self) -> &str;

    /// Everything that can change bits: device, instruction-set path, version.
    fn fingerprint(&self) -> String;

    /// Whether values of this dtype can be computed with.
    fn supports(&self, dtype: DType) -> bool;

    /// Whether the device runs this composite, on inputs of these types, with one kernel.
    fn claims(&self, composite: &Composite, inputs: &[&Type]) -> bool;

    /// A buffer with these little-endian elements.
    ///
    /// # Errors
    /// When the length is not that of the type, or memory runs out.
    fn upload(&self, ty: Type, bytes: &[u8]) -> Result<Buffer>;

    /// A buffer of zeros.
    ///
    /// # Errors
    /// When memory runs out.
    fn zeros(&self, ty: Type) -> Result<Buffer>;

    /// The little-endian elements of a buffer of this device.
    ///
    /// # Errors
    /// When the buffer belongs to another device.
    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>>;

    /// Compiles a program whose inputs marked `donated` may be overwritten.
    ///
    /// # Errors
    /// Names the node that the device cannot run, with its scope and user line.
    fn compile(&self, program: &Arc<Function>, donated: &[bool]) -> Result<Arc<dyn Executable>>;

    /// Has everything that later runs do reported; `None` ends it. A device without kernels
    /// reports whole programs at most.
    fn watch(&self, watch: Option<Watch>);

    /// What the machine can do at best, measured by the first call, which takes a moment; `None`
    /// for devices that are no machine.
    fn limits(&self) -> Option<Limits>;

    /// The speed of each cache and of memory, the fastest first, measured by each call, which takes
    /// some seconds; none for devices that are no machine.
    fn levels(&self) -> Vec<Level>;
}
