//! Runs plans: kernels prepared once, then walked through step by step.
//!
//! Map: `tile` (loop kernels), `contract` (matrix products), `primitive` (what is no loop nest),
//! `composite` (attention, which the device claims), `normal` (random numbers, which it claims
//! too), `run` (arguments, memory and the schedule), `finite` (which kernel makes a NaN).

mod composite;
mod contract;
mod finite;
mod normal;
mod overlap;
mod primitive;
mod run;
mod tile;

pub(crate) use composite::claims;
pub(crate) use run::{Machine, Program, host};
pub(crate) use tile::generates;

use crate::isa::Isa;
use crate::pool::Pool;
use ferrata_compiler::Kernel;
use ferrata_compiler::kernel::View;
use ferrata_ir::{Communicator, Literal, Result};
use std::sync::Arc;

/// Receives what `debug_print` shows: the label and the value.
pub type Show = Arc<dyn Fn(&str, &Literal) + Send + Sync>;

/// What a running kernel may use.
pub(crate) struct Context<'a> {
    pub pool: &'a Pool,
    pub isa: Isa,
    pub show: Option<&'a Show>,
    pub communicator: Option<&'a Arc<dyn Communicator>>,
    /// Memory for the time of one kernel.
    pub workspace: *mut u8,
}

/// A kernel, ready to run.
pub(crate) enum Prepared {
    Loop(Vec<tile::LoopKernel>),
    Contract(Box<contract::ContractKernel>),
    Primitive(primitive::PrimitiveKernel),
    Composite(composite::CompositeKernel),
    Normal(normal::NormalKernel),
}

impl Prepared {
    /// Prepares a kernel: all decisions that do not depend on data.
    ///
    /// # Errors
    /// What the device cannot run.
    pub fn new(isa: Isa, kernel: &Kernel) -> Result<Prepared> {
        Ok(match kernel {
            Kernel::Loop(k) => {
                let turned = tile::turned(k);
                let parts = tile::split(turned.as_ref().unwrap_or(k));
                let parts = parts.iter().map(|k| tile::LoopKernel::new(isa, k));
                Prepared::Loop(parts.collect::<Result<_>>()?)
            }
            Kernel::Contract(k) => {
                Prepared::Contract(Box::new(contract::ContractKernel::new(isa, k)?))
            }
            Kernel::Primitive { op, inputs, outputs } => {
                Prepared::Primitive(primitive::PrimitiveKernel::new(op, inputs, outputs)?)
            }
            Kernel::Composite { composite, inputs, outputs } if composite.name == normal::NAME => {
                Prepared::Normal(normal::NormalKernel::new(composite, inputs, outputs)?)
            }
            Kernel::Composite { composite, inputs, outputs } => Prepared::Composite(
                composite::CompositeKernel::new(isa, composite, inputs, outputs)?,
            ),
        })
    }

    /// Bytes of workspace that a run needs.
    pub fn workspace(&self) -> usize {
        match self {
            Prepared::Loop(parts) => parts.iter().map(|k| k.workspace()).max().unwrap_or(0),
            Prepared::Contract(_) | Prepared::Normal(_) => 0,
            Prepared::Primitive(k) => k.workspace(),
            Prepared::Composite(k) => k.workspace(),
        }
    }

    /// Everything that the kernel reaches: operand, first byte, end, and whether it is written.
    pub fn reaches(&self) -> Vec<(usize, isize, isize, bool)> {
        let views = |inputs: &[View], outputs: &[View]| {
            let inputs = inputs.iter().map(|v| (v, false));
            let all = inputs.chain(outputs.iter().map(|v| (v, true)));
            let all = all.filter(|(v, _)| !v.shape.contains(&0));
            all.map(|(v, written)| {
                let (first, end) = view_bytes(v);
                (v.operand, first, end, written)
            })
            .collect()
        };
        match self {
            Prepared::Loop(parts) => parts.iter().flat_map(|k| k.reaches()).collect(),
            Prepared::Contract(k) => k.reaches().collect(),
            Prepared::Primitive(k) => views(&k.inputs, &k.outputs),
            Prepared::Composite(k) => views(&k.inputs, &k.outputs),
            Prepared::Normal(k) => views(&k.inputs, &k.outputs),
        }
    }

    /// Runs the kernel.
    ///
    /// # Safety
    /// Operands hold all that [`Prepared::reaches`] says, aligned for their dtypes, and nobody
    /// else writes them; the workspace has [`Prepared::workspace`] bytes, aligned to 64.
    pub unsafe fn run(&self, cx: &Context<'_>, operands: &[*mut u8]) -> Result<()> {
        // SAFETY: passed on.
        unsafe {
            match self {
                Prepared::Loop(parts) => {
                    parts.iter().for_each(|k| k.run(cx.pool, operands, cx.workspace));
                    Ok(())
                }
                Prepared::Contract(k) => k.run(cx.pool, operands),
                Prepared::Primitive(k) => k.run(cx, operands),
                Prepared::Composite(k) => k.run(cx, operands),
                Prepared::Normal(k) => {
                    k.run(cx, operands);
                    Ok(())
                }
            }
        }
    }
}

/// First byte and end of what a view reaches.
fn view_bytes(view: &View) -> (isize, isize) {
    let (low, high) = crate::steps::Steps::new(&view.shape, &view.strides).bounds();
    let (at, size) = (view.offset as isize, view.dtype.size() as isize);
    ((at + low) * size, (at + high + 1) * size)
}
