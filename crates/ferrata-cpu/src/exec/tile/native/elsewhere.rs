//! Machines that no code is generated for.

use super::{Entry, Row};
use crate::exec::tile::body::{Body, Phase};
use crate::isa::Isa;

/// A body as machine code; there is none.
#[derive(Debug)]
pub(super) struct Function {
    pub entries: Vec<Entry>,
}

impl Function {
    /// Works on rows and columns of the operands in the table.
    ///
    /// # Safety
    /// None are needed.
    pub unsafe fn run(&self, _: *mut Row, _: usize, _: usize) {}
}

/// Whether this process may run generated code.
pub(super) fn allowed() -> bool {
    false
}

/// Compiles nothing.
pub(super) fn compile(
    _: Isa,
    _: &Body,
    _: &[Phase],
    _: &[usize],
    _: Option<usize>,
    _: bool,
    _: bool,
) -> Option<Function> {
    None
}
