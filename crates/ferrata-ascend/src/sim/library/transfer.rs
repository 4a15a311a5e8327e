//! Moves between global memory and the unified buffer.

use crate::sim::machine::Machine;
use crate::sim::syntax::{Pipe, Slot};
use ferrata_ir::{Error, Result};

/// Runs a move, if that is what the name says.
///
/// # Errors
/// When it asks for padding, or source and target differ in shape.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<bool> {
    let (pipe, padded) = match super::stem(name) {
        "load_gm_to_ubuf" => (Pipe::Mte2, true),
        "store_ubuf_to_gm" => (Pipe::Mte3, true),
        "copy_ubuf_to_ubuf" => (Pipe::Vector, false),
        _ => return Ok(false),
    };
    let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
    // Padding of loads, combination of stores.
    if padded && machine.number(args[2])?.as_i64() != 0 {
        return Err(Error::new(format!("`{name}` is asked to pad or to combine")));
    }
    if source.sizes != target.sizes {
        let (from, to) = (&source.sizes, &target.sizes);
        return Err(Error::new(format!("`{name}` from {from:?} to {to:?}")));
    }
    machine.issue(pipe, name, &[&source], &[&target])?;
    let values = machine.memories.read(&source);
    machine.memories.write(&target, values);
    Ok(true)
}
