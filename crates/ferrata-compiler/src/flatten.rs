//! Fragments are laid out one after the other: the schedule of the whole program, over buffers
//! that have no place yet.

use crate::fragment::{Fragment, FragmentStep, Library, Source};
use ferrata_ir::Origin;
use ferrata_ir::primitive::Scan;

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

/// A copy between buffers.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// From.
    pub from: usize,
    /// To.
    pub to: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// One entry of the schedule of the whole program, as [`crate::plan::Step`] with buffers instead
/// of places.
#[derive(Clone, Debug)]
pub enum FlatStep {
    /// Runs a kernel.
    Run {
        /// Kernel of the library.
        kernel: usize,
        /// Buffers by operand number.
        operands: Vec<usize>,
        /// Scope and user line.
        origin: Origin,
    },
    /// Copies a buffer.
    Copy(Move),
    /// Runs a schedule for every index.
    Repeat {
        /// Turns.
        length: usize,
        /// Whether the index falls.
        reverse: bool,
        /// Slices copied in before each turn.
        load: Vec<Move>,
        /// The turn.
        body: Vec<FlatStep>,
        /// Slices copied out after each turn.
        store: Vec<Move>,
    },
    /// Runs one of two schedules.
    Branch {
        /// A bool.
        condition: usize,
        /// Run when it is true, and when it is false.
        branches: [Vec<FlatStep>; 2],
    },
}

/// The whole program: buffers and schedule.
#[derive(Clone, Debug, Default)]
pub struct Flat {
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// The schedule.
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
    let fragment = &library.fragments[main];
    let arguments: Vec<usize> =
        (0..fragment.parameters.len()).map(|i| flat.buffer(Buffer::Input(i))).collect();
    let mut steps = Vec::new();
    flat.results = flat.enter(library, fragment, &arguments, &Origin::default(), &mut steps);
    flat.steps = steps;
    flat
}

impl Flat {
    fn buffer(&mut self, buffer: Buffer) -> usize {
        self.buffers.push(buffer);
        self.buffers.len() - 1
    }

    /// Appends the steps of a fragment and returns the buffers of its results.
    fn enter(
        &mut self,
        library: &Library,
        fragment: &Fragment,
        arguments: &[usize],
        caller: &Origin,
        steps: &mut Vec<FlatStep>,
    ) -> Vec<usize> {
        // What is only a name stands for no buffer until its maker has been entered.
        let mut locals: Vec<usize> = fragment
            .locals
            .iter()
            .map(|local| local.map_or(usize::MAX, |bytes| self.buffer(Buffer::Made { bytes })))
            .collect();
        let one = |locals: &[usize], source: &Source| match *source {
            Source::Parameter(i) => arguments[i],
            Source::Local(i) => locals[i],
            Source::Constant(i) => i,
        };
        let all = |locals: &[usize], sources: &[Source]| -> Vec<usize> {
            sources.iter().map(|s| one(locals, s)).collect()
        };
        for step in &fragment.steps {
            match step {
                FragmentStep::Run { kernel, operands, origin } => steps.push(FlatStep::Run {
                    kernel: *kernel,
                    operands: all(&locals, operands),
                    origin: caller.enter(origin),
                }),
                FragmentStep::Call { fragment, arguments, results, origin } => {
                    let callee = &library.fragments[*fragment];
                    let arguments = all(&locals, arguments);
                    let scope = caller.enter(origin);
                    let made = self.enter(library, callee, &arguments, &scope, steps);
                    results.iter().zip(made).for_each(|(&local, buffer)| locals[local] = buffer);
                }
                FragmentStep::Repeat { fragment, scan, arguments, results, origin } => {
                    let callee = &library.fragments[*fragment];
                    let arguments = all(&locals, arguments);
                    let (names, stacks) = results.split_at(scan.carries);
                    let stacks: Vec<usize> = stacks.iter().map(|&local| locals[local]).collect();
                    let scope = caller.enter(origin);
                    let carries =
                        self.repeat(library, callee, scan, &arguments, &stacks, &scope, steps);
                    names.iter().zip(carries).for_each(|(&local, buffer)| locals[local] = buffer);
                }
                FragmentStep::Branch { condition, fragments, arguments, results, origin } => {
                    let arguments = all(&locals, arguments);
                    let scope = caller.enter(origin);
                    let branches = fragments.map(|f| {
                        let mut branch = Vec::new();
                        let callee = &library.fragments[f];
                        let made = self.enter(library, callee, &arguments, &scope, &mut branch);
                        for (&local, from) in results.iter().zip(made) {
                            branch.extend(self.whole(from, locals[local]));
                        }
                        branch
                    });
                    let condition = one(&locals, condition);
                    steps.push(FlatStep::Branch { condition, branches });
                }
            }
        }
        all(&locals, &fragment.results)
    }

    /// Appends a repeated fragment, which writes into `stacks`, and returns its last carries.
    #[allow(clippy::too_many_arguments)]
    fn repeat(
        &mut self,
        library: &Library,
        callee: &Fragment,
        scan: &Scan,
        arguments: &[usize],
        stacks: &[usize],
        scope: &Origin,
        steps: &mut Vec<FlatStep>,
    ) -> Vec<usize> {
        let mut inner = arguments[..scan.constants].to_vec();
        let (mut load, mut body) = (Vec::new(), Vec::new());
        for (i, ty) in callee.parameters.iter().enumerate().skip(scan.constants) {
            let bytes = ty.bytes();
            let to = self.buffer(Buffer::Made { bytes });
            let from = arguments[i];
            if i < scan.constants + scan.carries {
                steps.push(FlatStep::Copy(Move { from, to, bytes }));
            } else {
                load.push(Move { from, to, bytes });
            }
            inner.push(to);
        }
        let carries = inner[scan.constants..scan.constants + scan.carries].to_vec();
        let made = self.enter(library, callee, &inner, scope, &mut body);
        // A carry that is handed on as something else is saved before it is overwritten.
        let mut saved = Vec::new();
        for (i, &from) in made.iter().enumerate() {
            let stays = carries.get(i) == Some(&from);
            if stays || !carries.contains(&from) {
                saved.push(from);
                continue;
            }
            let to = self.buffer(self.buffers[from]);
            body.extend(self.whole(from, to));
            saved.push(to);
        }
        for (&from, &to) in saved.iter().zip(&carries) {
            body.extend(self.whole(from, to));
        }
        let store = saved[scan.carries..]
            .iter()
            .zip(stacks)
            .filter_map(|(&from, &to)| match self.buffers[to] {
                Buffer::Made { bytes } if scan.length > 0 => {
                    Some(Move { from, to, bytes: bytes / scan.length })
                }
                _ => None,
            })
            .collect();
        let (length, reverse) = (scan.length, scan.reverse);
        steps.push(FlatStep::Repeat { length, reverse, load, body, store });
        carries
    }

    /// A copy of a whole buffer, unless it stays where it is.
    fn whole(&self, from: usize, to: usize) -> Option<FlatStep> {
        match self.buffers[to] {
            Buffer::Made { bytes } if from != to => Some(FlatStep::Copy(Move { from, to, bytes })),
            _ => None,
        }
    }
}
