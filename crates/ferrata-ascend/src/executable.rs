//! Executables: a plan whose kernels are compiled, run step by step on the simulator.

use crate::compiler::Compiler;
use crate::device::{Machine, buffer, bytes};
use crate::emit::{self, Launch};
use crate::host;
use crate::sim::Program;
use crate::target::Target;
use ferrata_compiler::kernel::View;
use ferrata_compiler::plan::{Place, Step};
use ferrata_compiler::watch::{Activity, Event};
use ferrata_compiler::{Argument, Buffer, Executable, Kernel, Plan};
use ferrata_ir::{Error, Literal, Result};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Tiles are halved so often before a kernel is given up.
const HALVINGS: u32 = 10;

/// A compiled program.
pub(crate) struct Simulated {
    machine: Arc<Machine>,
    plan: Plan,
    kernels: Vec<Prepared>,
}

/// A kernel, ready to run.
enum Prepared {
    Cores {
        launches: Vec<(Launch, Program)>,
        workspaces: Vec<usize>,
    },
    /// What the cores lack; the host computes it.
    Host,
}

impl Prepared {
    fn new(kernel: &Kernel, machine: &Machine) -> Result<Prepared> {
        let target = &machine.target;
        if let Err(lack) = emit::lower(kernel, target, 0) {
            let mut reasons = machine.on_host.lock().unwrap_or_else(PoisonError::into_inner);
            reasons.insert(lack.message().to_owned());
            return Ok(Prepared::Host);
        }
        let (launches, workspaces) = compile(kernel, target, &machine.compiler)?;
        let read = |(launch, module): (Launch, Arc<str>)| {
            let program = Program::parse(&module)?;
            Ok((launch, program))
        };
        let launches = launches.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Prepared::Cores { launches, workspaces })
    }
}

/// Launches with what the compiler makes of them.
type Compiled = Vec<(Launch, Arc<str>)>;

/// Compiles a kernel, with tiles that the compiler finds small enough. Returns its launches and the
/// bytes of each piece of memory between them.
///
/// # Errors
/// What the cores do not compute with, and what the compiler refuses.
pub fn compile(
    kernel: &Kernel,
    target: &Target,
    compiler: &Compiler,
) -> Result<(Compiled, Vec<usize>)> {
    let mut halvings = 0;
    'again: loop {
        let lowered = emit::lower(kernel, target, halvings)?;
        let mut compiled = Vec::new();
        for launch in lowered.launches {
            match compiler.compile(&launch.source, target) {
                Ok(module) => compiled.push((launch, module)),
                Err(refusal) if refusal.too_large && halvings < HALVINGS => {
                    halvings += 1;
                    continue 'again;
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
        return Ok((compiled, lowered.workspaces));
    }
}

impl Simulated {
    /// Prepares a plan.
    ///
    /// # Errors
    /// A kernel that cannot be compiled, with its scope and user line.
    pub fn new(machine: Arc<Machine>, plan: Plan) -> Result<Simulated> {
        let kernels = plan.prepare(|kernel| Prepared::new(kernel, &machine))?;
        Ok(Simulated { machine, plan, kernels })
    }

    fn execute(&self, arguments: Vec<Argument>, finite: bool) -> Result<Vec<Buffer>> {
        let start = Instant::now();
        let (want, got) = (self.plan.inputs.len(), arguments.len());
        if want != got {
            return Err(Error::new(format!("the program takes {want} arguments, {got} given")));
        }
        let mut memory = Vec::new();
        for (i, (argument, ty)) in arguments.iter().zip(&self.plan.inputs).enumerate() {
            let given = argument.buffer();
            if given.ty != *ty {
                let got = &given.ty;
                return Err(Error::new(format!("argument {i} is {got}, but must be {ty}")));
            }
            memory.push(bytes(given)?);
        }
        memory.extend(self.plan.results.iter().map(|ty| vec![0; ty.bytes()]));
        memory.push(vec![0; self.plan.arena]);
        memory.extend(self.plan.constants.iter().map(|c| c.to_bytes()));
        let mut run = Run { program: self, memory, finite };
        run.steps(&self.plan.steps)?;
        let taken: Vec<usize> = (0..self.plan.results.len()).map(|r| self.result(r)).collect();
        let results = self.plan.results.iter().zip(taken);
        let results = results.map(|(ty, at)| buffer(ty.clone(), run.memory[at].clone())).collect();
        run.tell(start, Activity::Program);
        Ok(results)
    }

    /// Which buffer a result lies in.
    fn result(&self, r: usize) -> usize {
        self.plan.takes[r].unwrap_or(self.plan.inputs.len() + r)
    }

    /// The buffer and the first byte of a place.
    fn at(&self, place: &Place) -> (usize, usize) {
        let arena = self.plan.inputs.len() + self.plan.results.len();
        match *place {
            Place::Input { index, offset } => (index, offset),
            Place::Result { index, offset } => (self.result(index), offset),
            Place::Arena { offset } => (arena, offset),
            Place::Constant { index } => (arena + 1 + index, 0),
        }
    }
}

impl Executable for Simulated {
    fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.execute(arguments, false)
    }

    fn run_watching(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.execute(arguments, true)
    }

    fn plan(&self) -> Option<&Plan> {
        Some(&self.plan)
    }
}

/// A run in progress.
struct Run<'a> {
    program: &'a Simulated,
    /// Inputs, results, the arena, constants; behind them workspaces of the current kernel.
    memory: Vec<Vec<u8>>,
    finite: bool,
}

impl Run<'_> {
    fn steps(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            match step {
                Step::Run { kernel, operands, origin } => {
                    let start = Instant::now();
                    let done = self.kernel(*kernel, operands);
                    done.map_err(|e| e.at("kernel", &[], origin))?;
                    let kernel = &self.program.plan.kernels[*kernel];
                    self.tell(start, Activity::Kernel { kernel, origin, busy: &[] });
                }
                Step::Copy { from, to, bytes } => self.copy((from, 0), (to, 0), *bytes)?,
                Step::Repeat { length, reverse, load, body, store } => {
                    for turn in 0..*length {
                        let index = if *reverse { length - 1 - turn } else { turn };
                        for (from, to, bytes) in load {
                            self.copy((from, index * bytes), (to, 0), *bytes)?;
                        }
                        self.steps(body)?;
                        for (from, to, bytes) in store {
                            self.copy((from, 0), (to, index * bytes), *bytes)?;
                        }
                    }
                }
                Step::Branch { condition, branches } => {
                    let (buffer, at) = self.program.at(condition);
                    let truth = self.memory[buffer].get(at);
                    let yes = *truth.ok_or("a condition of the plan leaves its memory")? != 0;
                    self.steps(&branches[usize::from(!yes)])?;
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: (&Place, usize), to: (&Place, usize), bytes: usize) -> Result<()> {
        let [from, to] = [from, to].map(|(place, offset)| {
            let (buffer, at) = self.program.at(place);
            (buffer, at + offset)
        });
        let leaves = || Error::new("a copy of the plan leaves its memory");
        let moved = self.memory[from.0].get(from.1..from.1 + bytes).ok_or_else(leaves)?.to_vec();
        let place = self.memory[to.0].get_mut(to.1..to.1 + bytes);
        place.ok_or_else(leaves)?.copy_from_slice(&moved);
        Ok(())
    }

    fn read(&self, views: &[View], operands: &[Place]) -> Result<Vec<Literal>> {
        let read = |view: &View| {
            let (buffer, at) = self.program.at(&operands[view.operand]);
            host::read(view, self.memory[buffer].get(at..).unwrap_or_default())
        };
        views.iter().map(read).collect()
    }

    fn kernel(&mut self, number: usize, operands: &[Place]) -> Result<()> {
        let program = self.program;
        let kernel = &program.plan.kernels[number];
        let before = match self.finite {
            true => Some(host::specials(&self.read(&kernel.reads(), operands)?)),
            false => None,
        };
        match &program.kernels[number] {
            Prepared::Cores { launches, workspaces } => {
                self.launch(launches, workspaces, operands)?;
            }
            Prepared::Host => self.host(kernel, operands)?,
        }
        let Some(before) = before else { return Ok(()) };
        before.check(kernel, host::specials(&self.read(&kernel.writes(), operands)?))
    }

    fn launch(
        &mut self,
        launches: &[(Launch, Program)],
        workspaces: &[usize],
        operands: &[Place],
    ) -> Result<()> {
        let first = self.memory.len();
        self.memory.extend(workspaces.iter().map(|&bytes| vec![0; bytes]));
        let program = self.program;
        let argument = |&operand: &usize| match operands.get(operand) {
            Some(place) => program.at(place),
            None => (first + operand - operands.len(), 0),
        };
        let done = launches.iter().try_for_each(|(launch, compiled)| {
            let arguments: Vec<_> = launch.operands.iter().map(argument).collect();
            compiled.run(&program.machine.target, &mut self.memory, &arguments, launch.grid)
        });
        self.memory.truncate(first);
        done
    }

    fn host(&mut self, kernel: &Arc<Kernel>, operands: &[Place]) -> Result<()> {
        let Kernel::Primitive { op, inputs, outputs } = &**kernel else {
            let places: Vec<(usize, usize)> = operands.iter().map(|p| self.program.at(p)).collect();
            let bytes = |&(buffer, at): &(usize, usize)| self.memory[buffer][at..].to_vec();
            let mut copies: Vec<Vec<u8>> = places.iter().map(bytes).collect();
            host::interpret(kernel, &mut copies)?;
            for view in kernel.writes() {
                let (buffer, at) = places[view.operand];
                let value = host::read(&view, &copies[view.operand])?;
                host::write(&view, &mut self.memory[buffer][at..], &value)?;
            }
            return Ok(());
        };
        let results = host::evaluate(op, &self.read(inputs, operands)?, outputs)?;
        for (view, result) in outputs.iter().zip(&results) {
            let (buffer, at) = self.program.at(&operands[view.operand]);
            let bytes = self.memory[buffer].get_mut(at..).unwrap_or_default();
            host::write(view, bytes, result)?;
        }
        Ok(())
    }

    /// Tells of what began at `start`.
    fn tell(&self, start: Instant, activity: Activity<'_>) {
        let watch = &self.program.machine.watch;
        if let Some(watch) = &*watch.read().unwrap_or_else(PoisonError::into_inner) {
            let memory = self.memory.iter().map(Vec::len).sum();
            watch(&Event { activity, start, end: Instant::now(), memory });
        }
    }
}
