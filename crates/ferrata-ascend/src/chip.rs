//! What a device is made of: memory, and kernels that run on it. The simulator and the vendor's runtime
//! each are one.

use crate::compiler::{Compiled, Compiler, Needs};
use crate::emit::{self, Launch};
use crate::target::Target;
use ferrata_compiler::{Kernel, Memory};
use ferrata_ir::Result;
use std::sync::Arc;

/// Tiles are halved so often before a kernel is given up.
const HALVINGS: u32 = 10;

/// Something with memory that runs kernels on it, in order.
///
/// Blocks are read and written by it alone. A place is a block and a byte in it.
pub trait Chip: Send + Sync + 'static {
    /// Memory.
    type Block: Memory;
    /// A piece of a kernel.
    type Work: Send + Sync;

    /// Short name of the device: `ascend`.
    fn name(&self) -> &'static str;

    /// What can change bits, beside this program's version.
    fn fingerprint(&self) -> String;

    /// Where each class of kernels runs, as (class, where).
    fn paths(&self) -> Vec<(&'static str, String)>;

    /// Memory with whatever lies in it.
    ///
    /// # Errors
    /// When there is none left.
    fn allocate(&self, bytes: usize) -> Result<Self::Block>;

    /// Fills a block with zeros.
    ///
    /// # Errors
    /// When the chip does not answer.
    fn clear(&self, block: &Self::Block) -> Result<()>;

    /// Writes bytes.
    ///
    /// # Errors
    /// When they leave the block.
    fn write(&self, to: Place<'_, Self>, bytes: &[u8]) -> Result<()>;

    /// Bytes, once all work so far is done.
    ///
    /// # Errors
    /// When they leave the block, or that work failed.
    fn read(&self, from: Place<'_, Self>, bytes: usize) -> Result<Vec<u8>>;

    /// Copies bytes.
    ///
    /// # Errors
    /// When they leave a block.
    fn copy(&self, from: Place<'_, Self>, to: Place<'_, Self>, bytes: usize) -> Result<()>;

    /// Makes a kernel ready to run.
    ///
    /// # Errors
    /// When nothing can run it.
    fn prepare(&self, kernel: &Arc<Kernel>) -> Result<Prepared<Self::Work>>;

    /// Runs a piece of a kernel on its operands.
    ///
    /// # Errors
    /// When the chip does not take it, or it does what it must not.
    fn run(&self, work: &Self::Work, operands: &[Place<'_, Self>]) -> Result<()>;

    /// Waits until all work so far is done.
    ///
    /// # Errors
    /// When it failed.
    fn wait(&self) -> Result<()>;
}

/// A block and a byte in it.
pub type Place<'a, C> = (&'a <C as Chip>::Block, usize);

/// A kernel, ready to run.
pub struct Prepared<W> {
    /// Its pieces, in order.
    pub pieces: Vec<Piece<W>>,
    /// Memory between them: bytes of each block. Their operands come behind those of the kernel.
    pub workspaces: Vec<usize>,
    /// Why pieces are left to the host or to somebody else's kernels.
    pub lacks: Vec<String>,
}

/// A piece of a kernel.
pub enum Piece<W> {
    /// The chip runs it, on these operands.
    Chip(W, Vec<usize>),
    /// The host computes it, by its meaning.
    Host(Arc<Kernel>),
}

impl<W> Prepared<W> {
    /// A kernel that the host computes.
    pub fn on_host(kernel: &Arc<Kernel>, lack: impl Into<String>) -> Prepared<W> {
        let pieces = vec![Piece::Host(Arc::clone(kernel))];
        Prepared { pieces, workspaces: Vec::new(), lacks: vec![lack.into()] }
    }

    /// A kernel that the chip runs by programs of its own.
    ///
    /// # Errors
    /// When a program cannot be loaded.
    pub fn on_cores(
        (launches, workspaces): (Launches, Vec<usize>),
        load: impl Fn(Launch, &Compiled) -> Result<W>,
    ) -> Result<Prepared<W>> {
        let piece = |(launch, compiled): (Launch, Compiled)| {
            let operands = launch.operands.clone();
            Ok(Piece::Chip(load(launch, &compiled)?, operands))
        };
        let pieces = launches.into_iter().map(piece).collect::<Result<_>>()?;
        Ok(Prepared { pieces, workspaces, lacks: Vec::new() })
    }
}

/// Launches with what the compiler makes of them.
pub type Launches = Vec<(Launch, Compiled)>;

/// Compiles a kernel, with tiles that the compiler finds small enough. Returns its launches and the
/// bytes of each block of memory between them.
///
/// # Errors
/// What the cores do not compute with, and what the compiler refuses.
pub fn compile(
    kernel: &Kernel,
    target: &Target,
    compiler: &Compiler,
    needs: Needs,
) -> Result<(Launches, Vec<usize>)> {
    let mut halvings = 0;
    'again: loop {
        let lowered = emit::lower(kernel, target, halvings)?;
        let mut compiled = Vec::new();
        for launch in lowered.launches {
            match compiler.compile(&launch.source, target, needs) {
                Ok(module) => compiled.push((launch, module)),
                Err(refusal) if refusal.too_large && halvings < HALVINGS => {
                    halvings += 1;
                    continue 'again;
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
        return Ok((compiled, lowered.workspaces));
    }
}
