//! A device that only plans.

use std::sync::Arc;

use ferrata_compiler::watch::{Level, Limits, Watch};
use ferrata_compiler::{Buffer, Device, Executable};
use ferrata_ir::{Composite, DType, Error, Function, Result, Type};

/// Stands for the accelerator of a cluster while programs are compiled for it.
pub(super) struct Planned<'a> {
    /// The composites that it runs as one kernel.
    pub claims: &'a [String],
}

fn never<T>() -> Result<T> {
    Err(Error::new("the device of a planned cluster runs nothing"))
}

impl Device for Planned<'_> {
    fn name(&self) -> &str {
        "planned"
    }

    fn fingerprint(&self) -> String {
        format!("planned, claims {}", self.claims.join(" "))
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn claims(&self, composite: &Composite, _: &[&Type]) -> bool {
        self.claims.iter().any(|name| name == composite.name)
    }

    fn upload(&self, _: Type, _: &[u8]) -> Result<Buffer> {
        never()
    }

    fn zeros(&self, _: Type) -> Result<Buffer> {
        never()
    }

    fn download(&self, _: &Buffer) -> Result<Vec<u8>> {
        never()
    }

    fn compile(&self, _: &Arc<Function>, _: &[bool]) -> Result<Arc<dyn Executable>> {
        never()
    }

    fn watch(&self, _: Option<Watch>) {}

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }
}
