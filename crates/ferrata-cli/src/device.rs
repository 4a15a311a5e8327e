//! The devices that programs can run on.

use std::sync::Arc;

use clap::ValueEnum;
use ferrata::Device;
use ferrata::device::Report;
use ferrata::train::Result;
use ferrata_ascend::{AscendSimulator, Compiler, Target};

/// A device, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The processor of this machine
    Cpu,
    /// A simulated Ascend 910B3, slow; needs the vendor's compiler (docs/ascend.md)
    AscendSim,
}

impl Kind {
    /// The device; on the CPU with so many threads, 0 for one per core.
    pub fn open(self, threads: usize) -> Result<Device> {
        Ok(match self {
            Kind::Cpu => Device::cpu_with_threads(threads)?,
            Kind::AscendSim => Device::from_backend(Arc::new(simulator()?)),
        })
    }
}

fn simulator() -> Result<AscendSimulator> {
    Ok(AscendSimulator::new(Target::find("Ascend910B3")?, Compiler::find()?)?)
}

/// What this machine has.
pub fn all() -> Result<Vec<Report>> {
    let mut reports = ferrata::device::all()?;
    // A machine without the compiler has no such device.
    if let Ok(simulator) = simulator() {
        reports.push(Report::of(&simulator, Vec::new(), simulator.paths()));
    }
    Ok(reports)
}
