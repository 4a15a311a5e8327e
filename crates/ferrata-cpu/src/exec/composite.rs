//! Composites that the device runs with kernels of its own.

use super::Context;
use ferrata_compiler::kernel::View;
use ferrata_ir::{Composite, Error, Result, Type};

/// Whether there is a kernel for this composite on operands of these types.
pub(crate) fn claims(_: &Composite, _: &[&Type]) -> bool {
    false
}

/// A claimed composite, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompositeKernel {
    pub inputs: Vec<View>,
    pub outputs: Vec<View>,
}

impl CompositeKernel {
    /// Prepares a composite.
    ///
    /// # Errors
    /// One that the device does not claim.
    pub fn new(composite: &Composite, _: &[View], _: &[View]) -> Result<CompositeKernel> {
        Err(Error::new(format!("this device has no kernel for `{}`", composite.name)))
    }

    /// Bytes of workspace that a run needs.
    pub fn workspace(&self) -> usize {
        0
    }

    /// Runs the composite.
    ///
    /// # Safety
    /// As for [`super::Prepared::run`].
    pub unsafe fn run(&self, _: &Context<'_>, _: &[*mut u8]) -> Result<()> {
        Ok(())
    }
}
