//! Executables: a plan whose kernels are ready, run step by step.

use crate::chip::{Chip, Piece, Place, Prepared};
use crate::device::{Machine, block, first};
use crate::host;
use ferrata_compiler::kernel::View;
use ferrata_compiler::plan::{self, Step};
use ferrata_compiler::watch::{Activity, Event};
use ferrata_compiler::{Argument, Buffer, Executable, Kernel, Plan};
use ferrata_ir::{Error, Literal, Result, Type};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// A compiled program.
pub(crate) struct Planned<C: Chip> {
    machine: Arc<Machine<C>>,
    plan: Plan,
    kernels: Vec<Prepared<C::Work>>,
    constants: Vec<C::Block>,
}

impl<C: Chip> Planned<C> {
    /// Prepares a plan.
    ///
    /// # Errors
    /// A kernel that cannot be compiled, with its scope and user line.
    pub fn new(machine: Arc<Machine<C>>, plan: Plan) -> Result<Planned<C>> {
        let chip = &machine.chip;
        let kernels = plan.prepare(|kernel| chip.prepare(&Arc::new(kernel.clone())))?;
        let lacks = kernels.iter().flat_map(|kernel| kernel.lacks.iter().cloned());
        machine.on_host.lock().unwrap_or_else(PoisonError::into_inner).extend(lacks);
        let constant = |literal: &Arc<Literal>| {
            let block = chip.allocate(literal.ty.bytes())?;
            chip.write((&block, 0), &literal.to_bytes())?;
            Ok(block)
        };
        let constants = plan.constants.iter().map(constant).collect::<Result<_>>()?;
        Ok(Planned { machine, plan, kernels, constants })
    }

    /// A buffer of its own with the same bytes.
    fn copied(&self, buffer: &Buffer) -> Result<Buffer> {
        let chip = &self.machine.chip;
        let own = chip.allocate(buffer.ty.bytes())?;
        chip.copy(first::<C>(buffer)?, (&own, 0), buffer.ty.bytes())?;
        Ok(Buffer { ty: buffer.ty.clone(), memory: Arc::new(own) })
    }

    /// The buffers of the inputs, those that results take over free to be overwritten.
    fn inputs(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        let (want, got) = (self.plan.inputs.len(), arguments.len());
        if want != got {
            return Err(Error::new(format!("the program takes {want} arguments, {got} given")));
        }
        let bind = |(i, (argument, ty)): (usize, (Argument, &Type))| {
            let given = argument.buffer();
            if given.ty != *ty {
                let got = &given.ty;
                return Err(Error::new(format!("argument {i} is {got}, but must be {ty}")));
            }
            block::<C>(given)?;
            let taken = self.plan.takes.contains(&Some(i));
            match argument {
                Argument::Shared(b) if taken => self.copied(&b),
                // Without other owners nobody can see it overwritten.
                Argument::Donated(mut b) if taken => match Arc::get_mut(&mut b.memory) {
                    Some(_) => Ok(b),
                    None => self.copied(&b),
                },
                Argument::Shared(b) | Argument::Donated(b) => Ok(b),
            }
        };
        arguments.into_iter().zip(&self.plan.inputs).enumerate().map(bind).collect()
    }

    fn execute(&self, arguments: Vec<Argument>, finite: bool) -> Result<Vec<Buffer>> {
        let start = Instant::now();
        let chip = &self.machine.chip;
        let inputs = self.inputs(arguments)?;
        let result = |(ty, takes): (&Type, &Option<usize>)| match takes {
            Some(i) => Ok(Buffer { ty: ty.clone(), memory: Arc::clone(&inputs[*i].memory) }),
            None => Ok(Buffer { ty: ty.clone(), memory: Arc::new(chip.allocate(ty.bytes())?) }),
        };
        let results = self.plan.results.iter().zip(&self.plan.takes).map(result);
        let results = results.collect::<Result<Vec<Buffer>>>()?;
        let arena = chip.allocate(self.plan.arena)?;
        let watched = self.machine.watch.read().unwrap_or_else(PoisonError::into_inner).is_some();
        let run = Run { program: self, inputs: &inputs, results: &results, arena, watched, finite };
        // Work that has begun ends before its memory is handed on, also after an error.
        let done = run.steps(&self.plan.steps);
        let waited = chip.wait();
        done.and(waited)?;
        run.tell(start, Activity::Program);
        Ok(results)
    }
}

impl<C: Chip> Executable for Planned<C> {
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
struct Run<'a, C: Chip> {
    program: &'a Planned<C>,
    inputs: &'a [Buffer],
    results: &'a [Buffer],
    arena: C::Block,
    watched: bool,
    finite: bool,
}

impl<C: Chip> Run<'_, C> {
    fn chip(&self) -> &C {
        &self.program.machine.chip
    }

    fn place(&self, place: &plan::Place) -> Result<Place<'_, C>> {
        Ok(match *place {
            plan::Place::Input { index, offset } => (block::<C>(&self.inputs[index])?, offset),
            plan::Place::Result { index, offset } => (block::<C>(&self.results[index])?, offset),
            plan::Place::Arena { offset } => (&self.arena, offset),
            plan::Place::Constant { index } => (&self.program.constants[index], 0),
        })
    }

    fn steps(&self, steps: &[Step]) -> Result<()> {
        for step in steps {
            match step {
                Step::Run { kernel, operands, origin } => {
                    let start = Instant::now();
                    let places = operands.iter().map(|p| self.place(p)).collect::<Result<Vec<_>>>();
                    let done = places.and_then(|places| self.kernel(*kernel, &places));
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
                    let truth = self.chip().read(self.place(condition)?, 1)?;
                    self.steps(&branches[usize::from(truth == [0])])?;
                }
            }
        }
        Ok(())
    }

    fn copy(
        &self,
        from: (&plan::Place, usize),
        to: (&plan::Place, usize),
        bytes: usize,
    ) -> Result<()> {
        let place = |(place, offset): (&plan::Place, usize)| {
            self.place(place).map(|(block, at)| (block, at + offset))
        };
        let (from, to) = (place(from)?, place(to)?);
        self.chip().copy(from, to, bytes)
    }

    /// The elements of a view on its operand.
    fn read(&self, view: &View, operands: &[Place<'_, C>]) -> Result<Literal> {
        let bytes = self.chip().read(operands[view.operand], host::extent(view))?;
        host::read(view, &bytes)
    }

    fn read_all(&self, views: &[View], operands: &[Place<'_, C>]) -> Result<Vec<Literal>> {
        views.iter().map(|view| self.read(view, operands)).collect()
    }

    /// Writes the elements of a view; what lies between them stays.
    fn write(&self, view: &View, operands: &[Place<'_, C>], value: &Literal) -> Result<()> {
        let place = operands[view.operand];
        let mut bytes = self.chip().read(place, host::extent(view))?;
        host::write(view, &mut bytes, value)?;
        self.chip().write(place, &bytes)
    }

    fn kernel(&self, number: usize, operands: &[Place<'_, C>]) -> Result<()> {
        let kernel = &self.program.plan.kernels[number];
        let before = match self.finite {
            true => Some(host::specials(&self.read_all(&kernel.reads(), operands)?)),
            false => None,
        };
        let prepared = &self.program.kernels[number];
        let allocate = |&bytes: &usize| self.chip().allocate(bytes);
        let between = prepared.workspaces.iter().map(allocate).collect::<Result<Vec<_>>>()?;
        let all: Vec<Place<'_, C>> =
            operands.iter().copied().chain(between.iter().map(|block| (block, 0))).collect();
        for piece in &prepared.pieces {
            match piece {
                Piece::Chip(work, of) => {
                    let of: Vec<Place<'_, C>> = of.iter().map(|&operand| all[operand]).collect();
                    self.chip().run(work, &of)?;
                }
                Piece::Host(kernel) => self.host(kernel, &all)?,
            }
        }
        let Some(before) = before else { return Ok(()) };
        before.check(kernel, host::specials(&self.read_all(&kernel.writes(), operands)?))
    }

    fn host(&self, kernel: &Arc<Kernel>, operands: &[Place<'_, C>]) -> Result<()> {
        if let Kernel::Primitive { op, inputs, outputs } = &**kernel {
            let results = host::evaluate(op, &self.read_all(inputs, operands)?, outputs)?;
            let mut written = outputs.iter().zip(&results);
            return written.try_for_each(|(view, value)| self.write(view, operands, value));
        }
        let writes = kernel.writes();
        let mut bytes = vec![0; operands.len()];
        for view in kernel.reads().iter().chain(&writes) {
            bytes[view.operand] = host::extent(view).max(bytes[view.operand]);
        }
        let copy = |(place, bytes): (&Place<'_, C>, &usize)| self.chip().read(*place, *bytes);
        let mut copies = operands.iter().zip(&bytes).map(copy).collect::<Result<Vec<_>>>()?;
        host::interpret(kernel, &mut copies)?;
        writes.iter().try_for_each(|view| {
            self.write(view, operands, &host::read(view, &copies[view.operand])?)
        })
    }

    /// Tells of what began at `start`.
    fn tell(&self, start: Instant, activity: Activity<'_>) {
        if !self.watched {
            return;
        }
        // An error is told by the run itself, which waits at its end.
        let _ = self.chip().wait();
        let watch = &self.program.machine.watch;
        if let Some(watch) = &*watch.read().unwrap_or_else(PoisonError::into_inner) {
            let memory = self.program.plan.bytes();
            watch(&Event { activity, start, end: Instant::now(), memory });
        }
    }
}
