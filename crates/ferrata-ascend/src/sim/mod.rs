//! A simulator of the cores: runs what the vendor's compiler leaves for its last step.
//!
//! It finds accesses that nothing orders, flags that do not pair, addresses that do not fit. It
//! says nothing of speed, and what it knows of the hardware is what is public of it.
//!
//! | file | what |
//! |---|---|
//! | `syntax`, `affine` | the compiled text, read into operations |
//! | `machine`, `scalar` | control flow, addresses, arithmetic of the scalar unit |
//! | `library/` | the functions that compiled programs call |
//! | `memory`, `number` | memories, arrays in them, elements |
//! | `order` | which instructions are ordered |

mod affine;
mod library;
mod machine;
mod memory;
mod number;
mod order;
mod scalar;
mod syntax;

pub use order::{Access, Event, Place};
pub use syntax::{Parameter, Pipe, Space, parameters};

use crate::target::Target;
use ferrata_ir::{Error, Result};
use machine::Machine;
use order::merged;
use std::collections::BTreeMap;

/// A compiled program, ready to run.
#[derive(Debug)]
pub struct Program {
    module: syntax::Module,
    maps: Vec<affine::Map>,
}

/// Where a pointer of a program points: a buffer, and the first byte in it.
pub type Argument = (usize, usize);

/// Bytes written in a buffer, and by which program of the grid.
type Written = BTreeMap<Place, Vec<(usize, usize, usize)>>;

impl Program {
    /// Reads the text that the compiler leaves for its last step.
    ///
    /// # Errors
    /// Names the line and the operation that is not known.
    pub fn parse(text: &str) -> Result<Program> {
        let (module, maps) = syntax::parse(text)?;
        Ok(Program { module, maps })
    }

    /// Runs `grid` copies of the program on buffers in global memory.
    ///
    /// # Errors
    /// Names the operation that does what the hardware must not.
    pub fn run(
        &self,
        target: &Target,
        buffers: &mut [Vec<u8>],
        arguments: &[Argument],
        grid: usize,
    ) -> Result<()> {
        let (mut written, mut read) = (Written::new(), Written::new());
        for block in 0..grid {
            let mut machine = self.machine(target, buffers, arguments, (block, grid))?;
            machine.run(&self.module.body)?;
            let touched = std::mem::take(&mut machine.touched);
            note(&mut written, block, touched.iter().filter(|a| a.write));
            note(&mut read, block, touched.iter().filter(|a| !a.write));
        }
        if grid > 1 {
            apart(&written, &read)?;
        }
        Ok(())
    }

    /// Runs one program of the grid alone: what its core was told to do up to its end, or up to
    /// what the hardware must not do.
    pub fn record(
        &self,
        target: &Target,
        buffers: &mut [Vec<u8>],
        arguments: &[Argument],
        place: (usize, usize),
    ) -> (Vec<Event>, Result<()>) {
        let mut machine = match self.machine(target, buffers, arguments, place) {
            Ok(machine) => machine,
            Err(error) => return (Vec::new(), Err(error)),
        };
        machine.order.log = Some(Vec::new());
        let done = machine.run(&self.module.body);
        (machine.order.log.unwrap_or_default(), done)
    }

    fn machine<'a>(
        &'a self,
        target: &Target,
        buffers: &'a mut [Vec<u8>],
        arguments: &[Argument],
        place: (usize, usize),
    ) -> Result<Machine<'a>> {
        Machine::new(&self.module, &self.maps, target, buffers, arguments, place)
    }
}

fn note<'a>(list: &mut Written, block: usize, accesses: impl Iterator<Item = &'a Access>) {
    let mut ranges: BTreeMap<Place, Vec<(usize, usize)>> = BTreeMap::new();
    for access in accesses {
        ranges.entry(access.place).or_default().extend(&access.ranges);
    }
    for (place, ranges) in ranges {
        let ranges = merged(ranges).into_iter().map(|(from, end)| (from, end, block));
        list.entry(place).or_default().extend(ranges);
    }
}

/// Programs of a grid run side by side: what one writes no other may use.
fn apart(written: &Written, read: &Written) -> Result<()> {
    for (place, writes) in written {
        let none = Vec::new();
        let reads = read.get(place).unwrap_or(&none).iter().map(|&(a, b, c)| (a, b, c, false));
        let mut all: Vec<(usize, usize, usize, bool)> =
            writes.iter().map(|&(a, b, c)| (a, b, c, true)).chain(reads).collect();
        all.sort_unstable();
        // For readers and for writers: the farthest end so far, whose it is, and the farthest of
        // anybody else.
        let mut ends = [[(0, usize::MAX); 2]; 2];
        for (from, end, block, write) in all {
            let others = if write { &ends[..] } else { &ends[1..] };
            let beyond = others.iter().flatten().find(|(e, b)| *b != block && *e > from);
            if let Some((_, other)) = beyond.filter(|(_, b)| *b != usize::MAX) {
                return Err(Error::new(format!(
                    "programs {other} and {block} of the grid use the same bytes from {from} on of \
                     buffer {}, and one of them writes",
                    place.1
                )));
            }
            let [first, second] = &mut ends[usize::from(write)];
            if first.1 == block {
                first.0 = first.0.max(end);
            } else if end > first.0 {
                (*second, *first) = (*first, (end, block));
            } else if end > second.0 {
                *second = (end, block);
            }
        }
    }
    Ok(())
}
