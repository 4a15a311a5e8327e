//! Executables: a plan with its kernels prepared, run on arguments.

use super::overlap::{Deadlines, Progress};
use super::primitive::moves;
use super::{Context, Prepared, Show, finite};
use crate::isa::Isa;
use crate::memory::{ALIGNMENT, Heap, HostMemory};
use crate::pool::Pool;
use ferrata_compiler::plan::{Place, Step as PlanStep};
use ferrata_compiler::watch::{Activity, Event, Limits, Watch};
use ferrata_compiler::{Argument, Buffer, Executable, Plan};
use ferrata_ir::communicator::Report;
use ferrata_ir::{Communicator, Error, Origin, Result, Type};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// What a device shares with its programs.
pub(crate) struct Machine {
    pub pool: Pool,
    pub isa: Isa,
    pub heap: Arc<Heap>,
    pub show: Option<Show>,
    pub communicator: Option<Arc<dyn Communicator>>,
    /// What collectives compute with while the pool computes: their own thread.
    pub alone: Pool,
    pub watch: RwLock<Option<Watch>>,
    pub limits: OnceLock<Limits>,
    /// Memory for the time of a run: one for each run that has been in progress at a time.
    pub arenas: Mutex<Vec<HostMemory>>,
}

impl Machine {
    /// Memory of at least `bytes` bytes: of an earlier run if there is enough of it, so that
    /// programs that take turns share it.
    fn arena(&self, bytes: usize) -> Result<HostMemory> {
        let kept = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept.filter(|kept| kept.capacity() >= bytes) {
            Some(kept) => Ok(kept),
            None => self.heap.allocate(bytes),
        }
    }

    /// What kernels on this pool run with.
    fn context<'a>(&'a self, pool: &'a Pool, workspace: *mut u8) -> Context<'a> {
        let (show, communicator) = (self.show.as_ref(), self.communicator.as_ref());
        Context { pool, isa: self.isa, show, communicator, workspace }
    }

    fn keep(&self, arena: HostMemory) {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }
}

/// A compiled program.
pub(crate) struct Program {
    machine: Arc<Machine>,
    plan: Plan,
    kernels: Vec<Prepared>,
    constants: Vec<HostMemory>,
    deadlines: Deadlines,
    /// Where the workspace of a kernel, and that of a collective beside it, begin in the memory of
    /// a run, and where that ends.
    workspaces: [usize; 2],
    memory: usize,
}

/// Where the places of a run begin.
struct Bases {
    inputs: Vec<*mut u8>,
    results: Vec<*mut u8>,
    constants: Vec<*mut u8>,
    arena: *mut u8,
    workspaces: [*mut u8; 2],
}

/// A buffer's memory, if it is of this kind of device.
pub(crate) fn host(buffer: &Buffer) -> Result<&HostMemory> {
    let memory = buffer.memory.as_any().downcast_ref::<HostMemory>();
    memory.ok_or_else(|| {
        Error::new(format!("a buffer of type {} belongs to another device", buffer.ty))
            .help("copy it to this device first")
    })
}

impl Program {
    /// Prepares a plan.
    ///
    /// # Errors
    /// A kernel that the device cannot run, or that reaches beyond its operands.
    pub fn new(machine: Arc<Machine>, plan: Plan) -> Result<Program> {
        let kernels = plan.prepare(|kernel| Prepared::new(machine.isa, kernel))?;
        let mut constants = Vec::new();
        for literal in &plan.constants {
            let memory = machine.heap.allocate(literal.ty.bytes())?;
            let bytes = literal.to_bytes();
            // SAFETY: the memory is new and as long as the literal.
            unsafe { memory.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            constants.push(memory);
        }
        let workspace = plan.arena.next_multiple_of(ALIGNMENT);
        let largest = kernels.iter().map(Prepared::workspace).max().unwrap_or(0);
        let beside = (workspace + largest).next_multiple_of(ALIGNMENT);
        let reaches: Vec<_> = kernels.iter().map(Prepared::reaches).collect();
        let mut program = Program {
            machine,
            plan,
            kernels,
            constants,
            deadlines: Deadlines::default(),
            workspaces: [workspace, beside],
            memory: beside,
        };
        program.check(&program.plan.steps, &reaches)?;
        program.deadlines = Deadlines::new(&program.plan, &program.kernels);
        if !program.deadlines.is_empty() {
            let kernels = program.plan.kernels.iter().zip(&program.kernels);
            let collectives = kernels.filter(|(kernel, _)| kernel.is_collective());
            program.memory += collectives.map(|(_, made)| made.workspace()).max().unwrap_or(0);
        }
        Ok(program)
    }

    /// Checks that steps stay inside of their operands, so that running them cannot go wrong.
    fn check(
        &self,
        steps: &[PlanStep],
        reaches: &[Vec<(usize, isize, isize, bool)>],
    ) -> Result<()> {
        let copies = |from: &Place, to: &Place, bytes: usize, turns: [usize; 2]| {
            let [from_room, to_room] = [self.room(from)?, self.room(to)?];
            if from_room < bytes * turns[0] || to_room < bytes * turns[1] {
                return Err(Error::new("a copy of the plan leaves its memory"));
            }
            Ok(())
        };
        for step in steps {
            match step {
                PlanStep::Run { kernel, operands, origin } => {
                    let reaches = reaches.get(*kernel).ok_or("a step runs no kernel")?;
                    for &(operand, first, end, written) in reaches {
                        let place = operands.get(operand).ok_or("a step lacks an operand")?;
                        let constant = matches!(place, Place::Constant { .. });
                        if first < 0 || end as usize > self.room(place)? || (written && constant) {
                            let error = Error::new("a kernel of the plan leaves its memory");
                            return Err(error.at("kernel", &[], origin));
                        }
                    }
                }
                PlanStep::Copy { from, to, bytes } => copies(from, to, *bytes, [1, 1])?,
                PlanStep::Repeat { length, load, body, store, .. } => {
                    for (from, to, bytes) in load {
                        copies(from, to, *bytes, [*length, 1])?;
                    }
                    for (from, to, bytes) in store {
                        copies(from, to, *bytes, [1, *length])?;
                    }
                    self.check(body, reaches)?;
                }
                PlanStep::Branch { condition, branches } => {
                    if self.room(condition)? == 0 {
                        return Err(Error::new("a condition of the plan leaves its memory"));
                    }
                    for branch in branches {
                        self.check(branch, reaches)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes from a place to the end of its memory.
    fn room(&self, place: &Place) -> Result<usize> {
        let (bytes, offset) = match *place {
            Place::Input { index, offset } => {
                (self.plan.inputs.get(index).map(Type::bytes), offset)
            }
            Place::Result { index, offset } => {
                (self.plan.results.get(index).map(Type::bytes), offset)
            }
            Place::Arena { offset } => (Some(self.plan.arena), offset),
            Place::Constant { index } => (self.plan.constants.get(index).map(|c| c.ty.bytes()), 0),
        };
        let bytes = bytes.ok_or("a step names memory that is not there")?;
        Ok(bytes.saturating_sub(offset))
    }

    /// Checks the arguments and readies the memory that inputs and results begin in.
    fn bind(&self, arguments: Vec<Argument>) -> Result<(Vec<Buffer>, Vec<Buffer>)> {
        let (want, got) = (self.plan.inputs.len(), arguments.len());
        if want != got {
            return Err(Error::new(format!("the program takes {want} arguments, {got} given")));
        }
        let mut inputs: Vec<Buffer> = Vec::with_capacity(want);
        for (i, (argument, ty)) in arguments.into_iter().zip(&self.plan.inputs).enumerate() {
            let buffer = argument.buffer();
            if buffer.ty != *ty {
                let got = &buffer.ty;
                return Err(Error::new(format!("argument {i} is {got}, but must be {ty}")));
            }
            host(buffer)?;
            let taken = self.plan.takes.contains(&Some(i));
            inputs.push(match argument {
                Argument::Shared(b) if taken => self.copied(&b)?,
                Argument::Donated(mut b) if taken => {
                    // Nobody else holds the memory, so nobody can see it overwritten.
                    if Arc::get_mut(&mut b.memory).is_some() { b } else { self.copied(&b)? }
                }
                Argument::Shared(b) | Argument::Donated(b) => b,
            });
        }
        let mut results = Vec::with_capacity(self.plan.results.len());
        for (ty, takes) in self.plan.results.iter().zip(&self.plan.takes) {
            results.push(match takes {
                Some(i) => Buffer { ty: ty.clone(), memory: inputs[*i].memory.clone() },
                None => {
                    let memory = Arc::new(self.machine.heap.allocate(ty.bytes())?);
                    Buffer { ty: ty.clone(), memory }
                }
            });
        }
        Ok((inputs, results))
    }

    fn copied(&self, buffer: &Buffer) -> Result<Buffer> {
        let from = host(buffer)?;
        let to = self.machine.heap.allocate(buffer.ty.bytes())?;
        // SAFETY: both have the type's bytes; the new one has no other owner.
        unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), buffer.ty.bytes()) };
        Ok(Buffer { ty: buffer.ty.clone(), memory: Arc::new(to) })
    }
}

impl Program {
    /// Runs the plan; with `finite`, the first kernel that makes a NaN or an infinity is an error.
    fn execute(&self, arguments: Vec<Argument>, finite: bool) -> Result<Vec<Buffer>> {
        let watch = self.machine.watch.read().unwrap_or_else(PoisonError::into_inner).clone();
        let start = watch.as_ref().map(|_| Instant::now());
        let (inputs, results) = self.bind(arguments)?;
        let arena = self.machine.arena(self.memory)?;
        let base = |b: &Buffer| host(b).map(HostMemory::as_ptr);
        let bases = Bases {
            inputs: inputs.iter().map(base).collect::<Result<_>>()?,
            results: results.iter().map(base).collect::<Result<_>>()?,
            constants: self.constants.iter().map(HostMemory::as_ptr).collect(),
            arena: arena.as_ptr(),
            workspaces: self.workspaces.map(|at| arena.as_ptr().wrapping_add(at)),
        };
        let mut run = Run { program: self, bases, watch, finite, operands: Vec::new() };
        // Who watches sees one thing at a time.
        let overlaps = !finite && run.watch.is_none() && !self.deadlines.is_empty();
        let done = if overlaps { run.overlapping() } else { run.steps(&self.plan.steps) };
        run.tell(start, Activity::Program);
        self.machine.keep(arena);
        done.map(|()| results)
    }
}

impl Executable for Program {
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
    program: &'a Program,
    bases: Bases,
    watch: Option<Watch>,
    /// Whether a kernel that makes a NaN or an infinity ends the run.
    finite: bool,
    /// Operands of the current step.
    operands: Vec<*mut u8>,
}

impl Run<'_> {
    fn at(&self, place: &Place) -> *mut u8 {
        let (base, offset) = match *place {
            Place::Input { index, offset } => (self.bases.inputs[index], offset),
            Place::Result { index, offset } => (self.bases.results[index], offset),
            Place::Arena { offset } => (self.bases.arena, offset),
            Place::Constant { index } => (self.bases.constants[index], 0),
        };
        base.wrapping_add(offset)
    }

    /// Runs all steps, collectives beside the others.
    fn overlapping(&mut self) -> Result<()> {
        let (program, progress) = (self.program, Progress::default());
        let beside = Beside { program, workspace: self.bases.workspaces[1], progress: &progress };
        std::thread::scope(|scope| {
            let (jobs, received) = channel::<Job>();
            scope.spawn(move || beside.run(&received));
            let mut sent = Sent { jobs, progress: &progress, count: 0 };
            self.steps_beside(&program.plan.steps, &program.deadlines, &mut sent)
        })
    }

    /// Runs steps, those that have a deadline on the other thread, and waits for all of these.
    fn steps_beside<'p>(
        &mut self,
        steps: &'p [PlanStep],
        deadlines: &Deadlines,
        sent: &mut Sent<'_, 'p>,
    ) -> Result<()> {
        // Those that are not known to be done: how many are then, and by which step.
        let mut pending = VecDeque::<(usize, usize)>::new();
        for (i, step) in steps.iter().enumerate() {
            let due = pending.iter().rev().find(|(_, deadline)| *deadline <= i);
            if let Some(&(count, _)) = due {
                sent.progress.wait(count)?;
                pending.retain(|(other, _)| *other > count);
            }
            match (step, deadlines.of(i), deadlines.in_turn(i)) {
                (PlanStep::Run { kernel, operands, origin }, Some(deadline), _) => {
                    sent.count += 1;
                    pending.push_back((sent.count, deadline));
                    let operands = operands.iter().map(|place| self.at(place)).collect();
                    // It only fails after an error, which waiting will tell.
                    let _ = sent.jobs.send(Job { kernel: *kernel, operands, origin });
                }
                (PlanStep::Repeat { length, reverse, load, body, store }, _, Some(inner)) => {
                    self.turns((*length, *reverse), (load, store), |run| {
                        run.steps_beside(body, inner, sent)
                    })?;
                }
                _ => self.steps(std::slice::from_ref(step))?,
            }
        }
        sent.progress.wait(sent.count)
    }

    /// Runs the turns of a loop, with slices copied in before each and out behind it.
    fn turns(
        &mut self,
        (length, reverse): (usize, bool),
        (load, store): (&[Slice], &[Slice]),
        mut body: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        for turn in 0..length {
            let index = if reverse { length - 1 - turn } else { turn };
            for (from, to, bytes) in load {
                self.copy((from, index * bytes), (to, 0), *bytes);
            }
            body(self)?;
            for (from, to, bytes) in store {
                self.copy((from, 0), (to, index * bytes), *bytes);
            }
        }
        Ok(())
    }

    fn steps(&mut self, steps: &[PlanStep]) -> Result<()> {
        for step in steps {
            match step {
                PlanStep::Run { kernel, operands, origin } => {
                    self.kernel(*kernel, operands, origin)?;
                }
                PlanStep::Copy { from, to, bytes } => self.copy((from, 0), (to, 0), *bytes),
                PlanStep::Repeat { length, reverse, load, body, store } => {
                    let turn = |run: &mut Self| run.steps(body);
                    self.turns((*length, *reverse), (load, store), turn)?;
                }
                PlanStep::Branch { condition, branches } => {
                    // SAFETY: `check` saw that the place has a byte.
                    let yes = unsafe { *self.at(condition) } != 0;
                    self.steps(&branches[usize::from(!yes)])?;
                }
            }
        }
        Ok(())
    }

    /// The time now, if anybody wants to know.
    fn now(&self) -> Option<Instant> {
        self.watch.as_ref().map(|_| Instant::now())
    }

    /// Tells of what began at `start`.
    fn tell(&self, start: Option<Instant>, activity: Activity<'_>) {
        if let (Some(watch), Some(start)) = (&self.watch, start) {
            let memory = self.program.machine.heap.usage().live;
            watch(&Event { activity, start, end: Instant::now(), memory });
        }
    }

    fn copy(&self, from: (&Place, usize), to: (&Place, usize), bytes: usize) {
        let start = self.now();
        let from = self.at(from.0).wrapping_add(from.1);
        let to = self.at(to.0).wrapping_add(to.1);
        // SAFETY: `check` saw that both places have the bytes; values that live at the same time
        // do not overlap.
        unsafe { moves::bytes(&self.program.machine.pool, from.cast_const(), to, bytes) };
        self.tell(start, Activity::Copy { bytes });
    }

    fn kernel(&mut self, kernel: usize, operands: &[Place], origin: &Origin) -> Result<()> {
        let mut list = std::mem::take(&mut self.operands);
        list.clear();
        list.extend(operands.iter().map(|p| self.at(p)));
        self.operands = list;
        let machine = &self.program.machine;
        let cx = machine.context(&machine.pool, self.bases.workspaces[0]);
        let start = self.now();
        let prepared = &self.program.kernels[kernel];
        let meaning = &self.program.plan.kernels[kernel];
        if meaning.is_collective() {
            cx.report(origin);
        }
        // SAFETY: `check` saw that the kernel stays inside of its operands; the plan orders steps
        // so that nothing else uses what they write.
        let done = unsafe {
            let before = self.finite.then(|| finite::read(meaning, &self.operands));
            let done = prepared.run(&cx, &self.operands);
            let watched =
                before.map(|b| b.check(meaning, finite::written(meaning, &self.operands)));
            done.and(watched.unwrap_or(Ok(())))
        };
        done.map_err(|e| e.at("kernel", &[], origin))?;
        if start.is_some() {
            let busy = &machine.pool.take_busy();
            self.tell(start, Activity::Kernel { kernel: meaning, origin, busy });
        }
        Ok(())
    }
}

/// Bytes copied from a place to another, one of which is a slice of what all turns have.
type Slice = (Place, Place, usize);

/// The way to the thread of collectives.
struct Sent<'a, 'p> {
    jobs: Sender<Job<'p>>,
    progress: &'a Progress,
    /// How many have gone there.
    count: usize,
}

/// A collective that is to run beside other steps.
struct Job<'a> {
    kernel: usize,
    operands: Vec<*mut u8>,
    origin: &'a Origin,
}

// SAFETY: the operands are memory of the run, which lives longer than the thread, and no step that
// runs meanwhile touches what the collective does.
unsafe impl Send for Job<'_> {}

/// What the thread of collectives runs them with.
struct Beside<'a> {
    program: &'a Program,
    workspace: *mut u8,
    progress: &'a Progress,
}

// SAFETY: the workspace is this thread's alone.
unsafe impl Send for Beside<'_> {}

impl Beside<'_> {
    fn run(&self, jobs: &Receiver<Job<'_>>) {
        let machine = &self.program.machine;
        let cx = machine.context(&machine.alone, self.workspace);
        // Whoever waits must not wait for a thread that is gone.
        let _end = Ended(self.progress);
        for job in jobs {
            cx.report(job.origin);
            // SAFETY: `check` saw that the kernel stays inside of its operands; steps that touch
            // them wait for it.
            let done = unsafe { self.program.kernels[job.kernel].run(&cx, &job.operands) };
            if !self.progress.done(done.map_err(|e| e.at("kernel", &[], job.origin))) {
                return;
            }
        }
    }
}

/// Tells whoever waits that no collective follows.
struct Ended<'a>(&'a Progress);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Context<'_> {
    /// Tells whoever watches over the ranks where a collective belongs.
    fn report(&self, origin: &Origin) {
        self.communicator.iter().for_each(|with| with.report(Report::Scope(&origin.scope)));
    }
}
