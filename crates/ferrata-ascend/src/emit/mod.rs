//! Kernels as programs in the MLIR form that the vendor's compiler takes from Triton's front end.
//!
//! | file | what |
//! |---|---|
//! | `lower` | a kernel becomes launches of programs, with memory between them |
//! | `plan` | tiles that fit the unified buffer |
//! | `loops` | a loop nest on vector cores |
//! | `columns` | loop nests whose rows are longer than a tile |
//! | `contract` | a matrix product on cube cores |
//! | `index` | gather and scatter |
//! | `memory` | tiles of global memory |
//! | `register`, `arithmetic` | registers as tensors, scalar operations on them |
//! | `mlir` | text |

mod arithmetic;
mod columns;
mod contract;
mod index;
mod loops;
mod lower;
mod memory;
mod mlir;
mod plan;
mod register;

pub(crate) use contract::behind;
pub use lower::{Lowered, lower};

use memory::Arguments;
use mlir::{Affine, Text};

/// Which cores run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Core {
    /// Everything but matrix products.
    Vector,
    /// Matrix products.
    Cube,
}

/// A program and how it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which cores run it.
    pub core: Core,
    /// The program: one function `kernel` that takes pointers, the grid and its place in it.
    pub source: String,
    /// The operands that the pointers point to.
    pub operands: Vec<usize>,
    /// How many copies of the program run, each with its own place in the grid.
    pub grid: usize,
}

/// The name of the function in every program.
pub const ENTRY: &str = "kernel";

impl Launch {
    fn new(core: Core, text: Text, arguments: Arguments, grid: usize) -> Launch {
        let mode = match core {
            Core::Vector => "aiv",
            Core::Cube => "aic",
        };
        let pointer =
            |(i, (_, element)): (usize, &(usize, &str))| format!("%a{i}: memref<?x{element}>, ");
        let pointers: String = arguments.list.iter().enumerate().map(pointer).collect();
        let source = format!(
            "module {{\n  func.func @{ENTRY}({pointers}%gx: i32, %gy: i32, %gz: i32, %px: i32, %py: \
             i32, %pz: i32) attributes {{global_kernel = \"local\", mix_mode = \"{mode}\"}} {{\n{}    \
             return\n  }}\n}}\n",
            text.finish()
        );
        let operands = arguments.list.iter().map(|(operand, _)| *operand).collect();
        Launch { core, source, operands, grid }
    }
}

/// Begins the loop in which each of `grid` programs takes its share of `count` tiles. Returns the
/// number of the tile, and how many regions have to be closed behind it.
fn tile_loop(text: &mut Text, count: usize, grid: usize) -> (String, usize) {
    let first = text.value("arith.index_cast %px : i32 to index");
    if count <= grid {
        return (first, 0);
    }
    let step = text.value("arith.index_cast %gx : i32 to index");
    let end = text.index(count);
    let tile = text.name();
    text.open(format_args!("scf.for {tile} = {first} to {end} step {step}"));
    (tile, 1)
}

/// The steps of nested loops that a number stands for, the last loop the fastest.
fn unravel(text: &mut Text, number: &str, counts: &[usize]) -> Vec<Affine> {
    let mut rest = number.to_owned();
    let mut steps = vec![Affine::default(); counts.len()];
    for (l, &count) in counts.iter().enumerate().rev().filter(|(_, n)| **n > 1) {
        if counts[..l].iter().all(|&n| n == 1) {
            steps[l] = Affine::times(&rest, 1);
            break;
        }
        let n = text.index(count);
        let step = text.value(format_args!("arith.remui {rest}, {n} : index"));
        rest = text.value(format_args!("arith.divui {rest}, {n} : index"));
        steps[l] = Affine::times(&step, 1);
    }
    steps
}
