//! Fragments are laid out one after the other: the schedule of the whole program, over buffers
//! that have no place yet.

use crate::fragment::{Fragment, FragmentStep, Library, Source};
use ferrata_ir::Origin;

/// A buffer of the whole program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// A program input.
    Input(usize),
    /// A constant.
    Constant(usize),
    /// Made while running.
    Made {
        /// Its size.
        bytes: usize,
    },
}

/// One kernel run of the whole program.
#[derive(Clone, Debug)]
pub struct FlatStep {
    /// Kernel of the library.
    pub kernel: usize,
    /// Buffers by operand number.
    pub operands: Vec<usize>,
    /// Scope and user line.
    pub origin: Origin,
}

/// The whole program: buffers and kernel runs.
#[derive(Clone, Debug, Default)]
pub struct Flat {
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Kernel runs in order.
    pub steps: Vec<FlatStep>,
    /// The buffer of each result.
    pub results: Vec<usize>,
}

/// The schedule of fragment `main` with everything it calls.
pub fn flatten(library: &Library, main: usize) -> Flat {
    let mut flat = Flat::default();
    for i in 0..library.constants.len() {
        flat.buffers.push(Buffer::Constant(i));
    }
    let arguments: Vec<usize> = (0..library.fragments[main].parameters.len())
        .map(|i| flat.buffer(Buffer::Input(i)))
        .collect();
    flat.results = flat.enter(library, &library.fragments[main], &arguments, &Origin::default());
    flat
}

impl Flat {
    fn buffer(&mut self, buffer: Buffer) -> usize {
        self.buffers.push(buffer);
        self.buffers.len() - 1
    }

    fn enter(
        &mut self,
        library: &Library,
        fragment: &Fragment,
        arguments: &[usize],
        caller: &Origin,
    ) -> Vec<usize> {
        let mut locals: Vec<usize> = fragment
            .locals
            .iter()
            .map(|&bytes| if bytes > 0 { self.buffer(Buffer::Made { bytes }) } else { usize::MAX })
            .collect();
        let at = |locals: &[usize], source: &Source| match *source {
            Source::Parameter(i) => arguments[i],
            Source::Local(i) => locals[i],
            Source::Constant(i) => i,
        };
        for step in &fragment.steps {
            match step {
                FragmentStep::Run { kernel, operands, origin } => {
                    let operands = operands.iter().map(|s| at(&locals, s)).collect();
                    let origin = caller.enter(origin);
                    self.steps.push(FlatStep { kernel: *kernel, operands, origin });
                }
                FragmentStep::Call { fragment, arguments, results, origin } => {
                    let callee = &library.fragments[*fragment];
                    let arguments: Vec<usize> = arguments.iter().map(|s| at(&locals, s)).collect();
                    let made = self.enter(library, callee, &arguments, &caller.enter(origin));
                    results.iter().zip(made).for_each(|(&local, buffer)| locals[local] = buffer);
                }
            }
        }
        fragment.results.iter().map(|s| at(&locals, s)).collect()
    }
}
