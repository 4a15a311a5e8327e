//! The simulated chip.

use crate::chip::{Chip, Place, Prepared, compile};
use crate::compiler::{Compiler, Needs};
use crate::device::Ascend;
use crate::emit;
use crate::sim::{Argument, Program};
use crate::target::Target;
use ferrata_compiler::{Kernel, Memory};
use ferrata_ir::{Error, Result};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated Ascend NPU.
pub type AscendSimulator = Ascend<Simulator>;

/// A simulated chip.
pub struct Simulator {
    target: Target,
    compiler: Compiler,
}

/// Global memory of the simulated chip.
pub struct Bytes(Mutex<Vec<u8>>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} simulated bytes", self.lock().len())
    }
}

impl Memory for Bytes {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Bytes {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A compiled program and how many copies of it run.
pub struct Work {
    program: Program,
    grid: usize,
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
        Ok(Ascend::on(Simulator { target, compiler }))
    }
}

fn leaves() -> Error {
    Error::new("a place of the plan leaves its memory")
}

impl Chip for Simulator {
    type Block = Bytes;
    type Work = Work;

    fn name(&self) -> &'static str {
        "ascend-sim"
    }

    fn fingerprint(&self) -> String {
        self.target.name.to_owned()
    }

    fn paths(&self) -> Vec<(&'static str, String)> {
        let cores = |what: &str| format!("{what}, simulated");
        vec![
            ("loop, gather, scatter", cores("vector cores")),
            ("contract", cores("cube cores, then vector cores")),
            ("what the cores lack", "the host, by its meaning".into()),
        ]
    }

    fn allocate(&self, bytes: usize) -> Result<Bytes> {
        Ok(Bytes(Mutex::new(vec![0; bytes])))
    }

    fn clear(&self, block: &Bytes) -> Result<()> {
        block.lock().fill(0);
        Ok(())
    }

    fn write(&self, (to, at): Place<'_, Self>, bytes: &[u8]) -> Result<()> {
        let mut to = to.lock();
        to.get_mut(at..at + bytes.len()).ok_or_else(leaves)?.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, (from, at): Place<'_, Self>, bytes: usize) -> Result<Vec<u8>> {
        Ok(from.lock().get(at..at + bytes).ok_or_else(leaves)?.to_vec())
    }

    fn copy(&self, from: Place<'_, Self>, to: Place<'_, Self>, bytes: usize) -> Result<()> {
        let moved = self.read(from, bytes)?;
        self.write(to, &moved)
    }

    fn prepare(&self, kernel: &Arc<Kernel>) -> Result<Prepared<Work>> {
        if let Err(lack) = emit::lower(kernel, &self.target, 0) {
            return Ok(Prepared::on_host(kernel, lack.message()));
        }
        let compiled = compile(kernel, &self.target, &self.compiler, Needs::Text)?;
        Prepared::on_cores(compiled, |launch, compiled| {
            Ok(Work { program: Program::parse(&compiled.text)?, grid: launch.grid })
        })
    }

    fn run(&self, work: &Work, operands: &[Place<'_, Self>]) -> Result<()> {
        // Each block once, in an order that all runs share: others may want the same ones.
        let mut blocks: Vec<&Bytes> = operands.iter().map(|(block, _)| *block).collect();
        let address = |block: &Bytes| std::ptr::from_ref(block).addr();
        blocks.sort_by_key(|block| address(block));
        blocks.dedup_by_key(|block| address(block));
        let mut held: Vec<_> = blocks.iter().map(|block| block.lock()).collect();
        let mut memory: Vec<Vec<u8>> = held.iter_mut().map(|b| std::mem::take(&mut **b)).collect();
        let place = |(block, at): &Place<'_, Self>| -> Argument {
            (blocks.partition_point(|other| address(other) < address(block)), *at)
        };
        let arguments: Vec<Argument> = operands.iter().map(place).collect();
        let done = work.program.run(&self.target, &mut memory, &arguments, work.grid);
        held.iter_mut().zip(memory).for_each(|(block, bytes)| **block = bytes);
        done
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }
}
