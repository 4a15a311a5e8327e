//! Compiled functions before memory is planned: kernels over buffers that have no place yet.

use crate::kernel::Kernel;
use ferrata_ir::primitive::Scan;
use ferrata_ir::{Error, Function, Literal, Origin, Result, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// A buffer, seen from inside a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An argument.
    Parameter(usize),
    /// A buffer of this fragment, or one that a called fragment hands back.
    Local(usize),
    /// A constant of the library.
    Constant(usize),
}

/// One entry of a fragment's schedule.
#[derive(Clone, Debug)]
pub enum FragmentStep {
    /// Runs a kernel of the library.
    Run {
        /// Which.
        kernel: usize,
        /// Operands by number.
        operands: Vec<Source>,
        /// Scope and user line.
        origin: Origin,
    },
    /// Runs another fragment.
    Call {
        /// Which fragment of the library.
        fragment: usize,
        /// Its arguments, dense.
        arguments: Vec<Source>,
        /// Local names for its results.
        results: Vec<usize>,
        /// Scope that its steps are put in.
        origin: Origin,
    },
    /// Runs a fragment once for every index.
    Repeat {
        /// Which fragment of the library.
        fragment: usize,
        /// How often, and which of its arguments are carried or stacked.
        scan: Scan,
        /// Constants, initial carries, stacked inputs, dense.
        arguments: Vec<Source>,
        /// Local names for the carries, local buffers for the stacked results.
        results: Vec<usize>,
        /// Scope that its steps are put in.
        origin: Origin,
    },
    /// Runs one of two fragments.
    Branch {
        /// A bool.
        condition: Source,
        /// Which fragment if it is true, and if it is false.
        fragments: [usize; 2],
        /// Their arguments, dense.
        arguments: Vec<Source>,
        /// Local buffers for the results.
        results: Vec<usize>,
        /// Scope that its steps are put in.
        origin: Origin,
    },
}

/// A compiled function.
#[derive(Clone, Debug, Default)]
pub struct Fragment {
    /// Types of the arguments.
    pub parameters: Vec<Type>,
    /// Bytes of each local buffer; `None` for names of what a called fragment makes.
    pub locals: Vec<Option<usize>>,
    /// What to run.
    pub steps: Vec<FragmentStep>,
    /// Where each result lies, dense.
    pub results: Vec<Source>,
}

impl Fragment {
    /// A new local buffer.
    pub fn local(&mut self, bytes: usize) -> Source {
        self.locals.push(Some(bytes));
        Source::Local(self.locals.len() - 1)
    }
}

/// Everything that fragments share.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Distinct kernels.
    pub kernels: Vec<Arc<Kernel>>,
    /// Distinct constants.
    pub constants: Vec<Arc<Literal>>,
    /// Compiled functions.
    pub fragments: Vec<Fragment>,
    known_kernels: HashMap<Arc<Kernel>, usize>,
    known_constants: HashMap<Arc<Literal>, usize>,
    known_fragments: HashMap<*const Function, usize>,
}

impl Library {
    /// The number of a kernel.
    pub fn kernel(&mut self, kernel: Kernel) -> usize {
        if let Some(&known) = self.known_kernels.get(&kernel) {
            return known;
        }
        let kernel = Arc::new(kernel);
        self.kernels.push(kernel.clone());
        self.known_kernels.insert(kernel, self.kernels.len() - 1);
        self.kernels.len() - 1
    }

    /// The place of a constant.
    pub fn constant(&mut self, literal: Arc<Literal>) -> Source {
        if let Some(&known) = self.known_constants.get(&literal) {
            return Source::Constant(known);
        }
        self.constants.push(literal.clone());
        self.known_constants.insert(literal, self.constants.len() - 1);
        Source::Constant(self.constants.len() - 1)
    }

    /// Adds a compiled function.
    pub fn add(&mut self, function: &Arc<Function>, fragment: Fragment) -> usize {
        self.fragments.push(fragment);
        self.known_fragments.insert(Arc::as_ptr(function), self.fragments.len() - 1);
        self.fragments.len() - 1
    }

    /// The number of a compiled function.
    ///
    /// # Errors
    /// When a caller is compiled before its callee.
    pub fn fragment_of(&self, function: &Arc<Function>) -> Result<usize> {
        self.known_fragments
            .get(&Arc::as_ptr(function))
            .copied()
            .ok_or_else(|| Error::new(format!("`{}` has not been compiled", function.name)))
    }
}
