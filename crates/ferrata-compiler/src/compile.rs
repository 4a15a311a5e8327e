//! The passes, in order.

use crate::body::fold_windows;
use crate::channels_last::channels_last;
use crate::device::Device;
use crate::flatten::{FlatStep, Move, flatten};
use crate::fragment::Library;
use crate::fuse::fuse;
use crate::inline::inline;
use crate::layout::choose_layouts;
use crate::lower::lower;
use crate::memory::{self, Resident};
use crate::plan::{Place, Plan, Step};
use crate::prune::prune_calls;
use crate::simplify::simplify;
use crate::support::check_dtypes;
use ferrata_ir::{Error, Function, Primitive, Result, Type, verify};
use std::collections::HashSet;
use std::sync::Arc;

/// A program while it is being compiled: what each pass has made of it.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The program after each pass over it, by the pass's name; the first is the original.
    pub programs: Vec<(&'static str, Arc<Function>)>,
    /// What a device runs.
    pub plan: Plan,
    /// What lies in the arena, and when.
    pub residents: Vec<Resident>,
}

impl Trace {
    /// What lies in the arena when most of it is in use, the largest first.
    pub fn peak(&self) -> Vec<&Resident> {
        memory::at_peak(&self.residents)
    }
}

type Pass = fn(&Arc<Function>, &dyn Device) -> Result<Arc<Function>>;

/// The passes from program to program, in order.
const PROGRAM_PASSES: [(&str, Pass); 5] = [
    ("support", |program, device| check_dtypes(program, device).map(|()| program.clone())),
    ("inline", |program, device| inline(program, &|c, inputs| device.claims(c, inputs))),
    ("channels_last", |program, _| channels_last(program)),
    ("simplify", |program, _| simplify(program)),
    ("prune", |program, _| prune_calls(program)),
];

/// Compiles a program for a device. Inputs marked `donated` may be overwritten.
///
/// # Errors
/// Names the node that can't be compiled, with its scope and user line.
pub fn compile(program: &Arc<Function>, donated: &[bool], device: &dyn Device) -> Result<Plan> {
    Ok(trace(program, donated, device)?.plan)
}

/// Compiles a program and keeps it as it was after every pass.
///
/// # Errors
/// As [`compile`].
pub fn trace(program: &Arc<Function>, donated: &[bool], device: &dyn Device) -> Result<Trace> {
    if donated.len() != program.parameters().len() {
        let (n, m) = (program.parameters().len(), donated.len());
        return Err(Error::new(format!("{n} inputs, but {m} marks of donated ones")));
    }
    let mut programs = vec![("program", program.clone())];
    let mut program = program.clone();
    for (name, pass) in PROGRAM_PASSES {
        program = pass(&program, device)?;
        if cfg!(debug_assertions) {
            verify(&program)?;
        }
        programs.push((name, program.clone()));
    }
    let (plan, residents) = plan(&program, donated)?;
    Ok(Trace { plan, residents, programs })
}

/// A program after all passes over it.
pub(crate) fn optimized(program: &Arc<Function>, device: &dyn Device) -> Result<Arc<Function>> {
    PROGRAM_PASSES.iter().try_fold(program.clone(), |program, (_, pass)| pass(&program, device))
}

/// The plan of a program after all passes.
pub(crate) fn plan_of(program: &Arc<Function>, donated: &[bool]) -> Result<Plan> {
    Ok(plan(program, donated)?.0)
}

/// Kernels, schedule and memory of a simplified program.
fn plan(program: &Arc<Function>, donated: &[bool]) -> Result<(Plan, Vec<Resident>)> {
    let mut library = Library::default();
    let mut functions = Vec::new();
    callees_first(program, &mut HashSet::new(), &mut functions);
    let mut main = 0;
    for function in &functions {
        let mut body = fold_windows(function)?;
        choose_layouts(&mut body);
        let groups = fuse(&body);
        let fragment = lower(&body, &groups, &mut library)?;
        main = library.add(function, fragment);
    }
    let flat = flatten(&library, main);
    let inputs: Vec<Type> = program.parameter_types().into_iter().cloned().collect();
    let results: Vec<Type> = program.result_types().into_iter().cloned().collect();
    let memory = memory::place(&flat, &library.kernels, &inputs, &results, donated);
    let mut steps = placed(&flat.steps, &memory.places);
    steps.extend(memory.copies);
    let plan = Plan {
        inputs,
        results,
        takes: memory.takes,
        kernels: library.kernels,
        steps,
        arena: memory.arena,
        constants: library.constants,
    };
    Ok((plan, memory.residents))
}

/// The schedule with places for buffers.
fn placed(steps: &[FlatStep], places: &[Place]) -> Vec<Step> {
    let at = |b: usize| places[b];
    let moves = |all: &[Move]| all.iter().map(|m| (at(m.from), at(m.to), m.bytes)).collect();
    let one = |step: &FlatStep| match step {
        FlatStep::Run { kernel, operands, origin } => Step::Run {
            kernel: *kernel,
            operands: operands.iter().map(|&b| at(b)).collect(),
            origin: origin.clone(),
        },
        FlatStep::Copy(m) => Step::Copy { from: at(m.from), to: at(m.to), bytes: m.bytes },
        FlatStep::Repeat { length, reverse, load, body, store } => Step::Repeat {
            length: *length,
            reverse: *reverse,
            load: moves(load),
            body: placed(body, places),
            store: moves(store),
        },
        FlatStep::Branch { condition, branches: [yes, no] } => Step::Branch {
            condition: at(*condition),
            branches: [placed(yes, places), placed(no, places)],
        },
    };
    let moves_nothing =
        |step: &&FlatStep| matches!(step, FlatStep::Copy(m) if at(m.from) == at(m.to));
    steps.iter().filter(|step| !moves_nothing(step)).map(one).collect()
}

/// The functions that are compiled by themselves.
fn callees_first<'a>(
    function: &'a Arc<Function>,
    seen: &mut HashSet<*const Function>,
    out: &mut Vec<&'a Arc<Function>>,
) {
    if !seen.insert(Arc::as_ptr(function)) {
        return;
    }
    for node in function.nodes() {
        let claimed = matches!(&node.op, Primitive::Call(c) if c.function.composite.is_some());
        for callee in node.op.functions().into_iter().filter(|_| !claimed) {
            callees_first(callee, seen, out);
        }
    }
    out.push(function);
}
