//! The result of compilation: kernels, a schedule, and where everything lies in memory.

use crate::kernel::Kernel;
use ferrata_ir::{Literal, Origin, Result, Type};
use std::sync::Arc;

/// A span of memory that a step reads or writes; offsets count bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a program input.
    Input {
        /// Which.
        index: usize,
        /// First byte.
        offset: usize,
    },
    /// In a program result. A result that takes over a donated input is that input's memory.
    Result {
        /// Which.
        index: usize,
        /// First byte.
        offset: usize,
    },
    /// In the arena.
    Arena {
        /// First byte, a multiple of 64.
        offset: usize,
    },
    /// In a dense constant.
    Constant {
        /// Which.
        index: usize,
    },
}

/// One entry of the schedule.
#[derive(Clone, Debug)]
pub enum Step {
    /// Runs a kernel.
    Run {
        /// Index into [`Plan::kernels`].
        kernel: usize,
        /// Operands by number.
        operands: Vec<Place>,
        /// Scope and user line of the main node, for profiles and errors.
        origin: Origin,
    },
    /// Copies bytes.
    Copy {
        /// From.
        from: Place,
        /// To.
        to: Place,
        /// How many.
        bytes: usize,
    },
    /// Runs `body` for `index` in `0..length`, or downwards. Slices of stacked values are copied
    /// in before and out after each turn, carried values copied back.
    Repeat {
        /// Turns.
        length: usize,
        /// Whether the index falls.
        reverse: bool,
        /// Before each turn: from element block `index` of the first place to the second.
        load: Vec<(Place, Place, usize)>,
        /// The turn.
        body: Vec<Step>,
        /// After each turn: from the first place to element block `index` of the second.
        store: Vec<(Place, Place, usize)>,
    },
    /// Runs one of two schedules, by a bool in memory.
    Branch {
        /// One byte.
        condition: Place,
        /// Run when the byte is 1, and when it is 0.
        branches: [Vec<Step>; 2],
    },
}

/// A compiled program for some device.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Types of the inputs.
    pub inputs: Vec<Type>,
    /// Types of the results.
    pub results: Vec<Type>,
    /// For each result, the donated input whose memory it takes over.
    pub takes: Vec<Option<usize>>,
    /// Distinct kernels.
    pub kernels: Vec<Arc<Kernel>>,
    /// The schedule.
    pub steps: Vec<Step>,
    /// Bytes of the arena.
    pub arena: usize,
    /// Dense constants.
    pub constants: Vec<Arc<Literal>>,
}

impl Plan {
    /// Each kernel, prepared for a device.
    ///
    /// # Errors
    /// That of the first kernel that cannot be, with its scope and user line.
    pub fn prepare<T>(&self, prepare: impl Fn(&Kernel) -> Result<T>) -> Result<Vec<T>> {
        let prepared = |(i, kernel): (usize, &Arc<Kernel>)| {
            prepare(kernel).map_err(|e| match origin(&self.steps, i) {
                Some(origin) => e.at("kernel", &[], origin),
                None => e,
            })
        };
        self.kernels.iter().enumerate().map(prepared).collect()
    }

    /// Bytes that a run occupies at most: inputs, results with memory of their own, the arena and
    /// constants.
    pub fn bytes(&self) -> usize {
        let own = self.results.iter().zip(&self.takes).filter(|(_, takes)| takes.is_none());
        self.inputs.iter().map(Type::bytes).sum::<usize>()
            + own.map(|(ty, _)| ty.bytes()).sum::<usize>()
            + self.constants.iter().map(|literal| literal.ty.bytes()).sum::<usize>()
            + self.arena
    }
}

/// Where the first step that runs a kernel comes from.
fn origin(steps: &[Step], wanted: usize) -> Option<&Origin> {
    steps.iter().find_map(|step| match step {
        Step::Run { kernel, origin, .. } => (*kernel == wanted).then_some(origin),
        Step::Repeat { body, .. } => origin(body, wanted),
        Step::Branch { branches, .. } => branches.iter().find_map(|b| origin(b, wanted)),
        Step::Copy { .. } => None,
    })
}
