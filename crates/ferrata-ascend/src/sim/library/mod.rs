//! What the functions mean that compiled programs call: the library of AscendNPU-IR.
//!
//! | file | what |
//! |---|---|
//! | `transfer` | between global memory and the unified buffer |
//! | `vector` | elementwise work, comparisons, selections, conversions |
//! | `shuffle` | broadcasts, reductions, transposition |
//! | `cube` | fractals, products, and results of products |

mod cube;
mod shuffle;
mod transfer;
mod vector;

use super::machine::Machine;
use super::syntax::Slot;
use ferrata_ir::{Error, Result};

/// Runs a function of the library.
///
/// # Errors
/// Names a function that is not known, or what it does wrong.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<()> {
    let known = transfer::call(machine, name, args)?
        || vector::call(machine, name, args)?
        || shuffle::call(machine, name, args)?
        || cube::call(machine, name, args)?;
    if known { Ok(()) } else { Err(Error::new(format!("unknown library function `{name}`"))) }
}

/// A function's name in its parts: `vadd` of `vadd_1d_float`.
fn stem(name: &str) -> &str {
    let dims = ["_1d", "_2d", "_3d", "_4d", "_5d"];
    dims.iter().find_map(|d| name.find(d)).map_or(name, |at| &name[..at])
}
