//! The devices that programs can run on.

use std::sync::Arc;

use clap::ValueEnum;
use ferrata::Device;
use ferrata::device::Report;
use ferrata::train::{Result, in_bytes};
use ferrata_ascend::runtime::Search;
use ferrata_ascend::{AscendNpu, AscendSimulator, Compiler, Target};

/// A device, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The processor of this machine
    Cpu,
    /// The first Ascend NPU, by CANN; not yet run on one (docs/ascend.md)
    Ascend,
    /// A simulated Ascend 910B3, slow; needs the vendor's compiler (docs/ascend.md)
    AscendSim,
}

impl Kind {
    /// The device; on the CPU with so many threads, 0 for one per core.
    pub fn open(self, threads: usize) -> Result<Device> {
        Ok(match self {
            Kind::Cpu => Device::cpu_with_threads(threads)?,
            Kind::Ascend => Device::from_backend(Arc::new(npu()?)),
            Kind::AscendSim => Device::from_backend(Arc::new(simulator()?)),
        })
    }
}

fn npu() -> Result<AscendNpu> {
    Ok(AscendNpu::open(&Search::environment(), 0, Compiler::find())?)
}

fn simulator() -> Result<AscendSimulator> {
    Ok(AscendSimulator::new(Target::find("Ascend910B3")?, Compiler::find()?)?)
}

/// Tries the first NPU out.
pub fn check_npu() -> ferrata_ascend::check::Report {
    ferrata_ascend::check::Report::new(&Search::environment(), 0, Compiler::find())
}

/// What this machine has.
pub fn all() -> Result<Vec<Report>> {
    let mut reports = ferrata::device::all()?;
    // A machine without CANN or without the compiler has no such device.
    if Search::environment().is_installed() {
        reports.push(match npu() {
            Ok(npu) => {
                let (free, total) = npu.memory()?;
                let memory =
                    format!("{} of {} free", in_bytes(free as u64), in_bytes(total as u64));
                Report::of(&npu, vec![("memory", memory)], npu.paths())
            }
            Err(error) => Report {
                name: "ascend".to_owned(),
                fingerprint: format!("cannot be used: {error}"),
                facts: Vec::new(),
                dtypes: Vec::new(),
                paths: Vec::new(),
            },
        });
    }
    if let Ok(simulator) = simulator() {
        reports.push(Report::of(&simulator, Vec::new(), simulator.paths()));
    }
    Ok(reports)
}
