//! Collectives that run while the rank computes: each goes to a thread of its own, which runs them
//! one after the other, and the first step that touches their memory waits for them.

use super::Prepared;
use ferrata_compiler::Plan;
use ferrata_compiler::plan::{Place, Step};
use ferrata_ir::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// When the collectives of a list of steps have to be done.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// For each step, if it is a collective that runs beside others: the first later step that has
    /// to wait for it; the number of steps if none does.
    by: Vec<Option<usize>>,
    /// The turns of loops that have such collectives; the loops' places.
    turns: BTreeMap<usize, Deadlines>,
}

impl Deadlines {
    /// Those of a plan.
    pub fn new(plan: &Plan, kernels: &[Prepared]) -> Deadlines {
        Touched { plan, kernels }.deadlines(&plan.steps)
    }

    /// Whether no collective has a step beside it.
    pub fn is_empty(&self) -> bool {
        self.by.iter().all(Option::is_none) && self.turns.is_empty()
    }

    /// The first later step that has to wait for this one.
    pub fn of(&self, step: usize) -> Option<usize> {
        self.by[step]
    }

    /// Those in a turn of this loop.
    pub fn in_turn(&self, step: usize) -> Option<&Deadlines> {
        self.turns.get(&step)
    }
}

/// Bytes that a step reads or writes.
struct Span {
    memory: Memory,
    first: usize,
    end: usize,
    written: bool,
}

/// Memory that no other overlaps.
#[derive(PartialEq, Eq)]
enum Memory {
    Input(usize),
    Result(usize),
    Arena,
    Constant(usize),
}

impl Span {
    fn conflicts(&self, other: &Span) -> bool {
        (self.written || other.written)
            && self.memory == other.memory
            && self.first < other.end
            && other.first < self.end
    }
}

struct Touched<'a> {
    plan: &'a Plan,
    kernels: &'a [Prepared],
}

impl Touched<'_> {
    fn deadlines(&self, steps: &[Step]) -> Deadlines {
        let turns = steps.iter().enumerate().filter_map(|(at, step)| {
            let Step::Repeat { body, .. } = step else { return None };
            Some((at, self.deadlines(body))).filter(|(_, inner)| !inner.is_empty())
        });
        Deadlines { by: self.by(steps), turns: turns.collect() }
    }

    fn by(&self, steps: &[Step]) -> Vec<Option<usize>> {
        let is_collective: Vec<bool> = steps.iter().map(|step| self.is_collective(step)).collect();
        if !is_collective.contains(&true) {
            return vec![None; steps.len()];
        }
        let spans: Vec<Vec<Span>> = steps.iter().map(|step| self.spans(step)).collect();
        let deadline = |at: usize| {
            let conflicts = |other: &usize| {
                let others = || spans[*other].iter();
                let pairs = spans[at].iter().flat_map(|a| others().map(move |b| (a, b)));
                // Collectives follow each other anyway.
                self.holds_collectives(&steps[*other])
                    || (!is_collective[*other] && pairs.into_iter().any(|(a, b)| a.conflicts(b)))
            };
            (at + 1..spans.len()).find(conflicts).unwrap_or(spans.len())
        };
        let all: Vec<Option<usize>> =
            (0..spans.len()).map(|at| is_collective[at].then(|| deadline(at))).collect();
        let beside = |(at, by): (usize, &Option<usize>)| {
            by.is_some_and(|by| is_collective[at + 1..by].contains(&false))
        };
        match all.iter().enumerate().any(beside) {
            true => all,
            false => vec![None; all.len()],
        }
    }

    fn is_collective(&self, step: &Step) -> bool {
        matches!(step, Step::Run { kernel, .. } if self.plan.kernels[*kernel].is_collective())
    }

    /// Whether collectives are in the steps within a step.
    fn holds_collectives(&self, step: &Step) -> bool {
        let any = |steps: &[Step]| {
            steps.iter().any(|step| self.is_collective(step) || self.holds_collectives(step))
        };
        match step {
            Step::Repeat { body, .. } => any(body),
            Step::Branch { branches, .. } => branches.iter().any(|branch| any(branch)),
            Step::Run { .. } | Step::Copy { .. } => false,
        }
    }

    fn spans(&self, step: &Step) -> Vec<Span> {
        let mut spans = Vec::new();
        self.add(step, &mut spans);
        spans
    }

    fn add(&self, step: &Step, spans: &mut Vec<Span>) {
        match step {
            Step::Run { kernel, operands, .. } => {
                for (operand, first, end, written) in self.kernels[*kernel].reaches() {
                    let first = first.max(0) as usize;
                    let bytes = (end as usize).saturating_sub(first);
                    spans.push(self.span(&operands[operand], first, bytes, written));
                }
            }
            Step::Copy { from, to, bytes } => self.add_copy((from, *bytes), (to, *bytes), spans),
            Step::Repeat { length, load, body, store, .. } => {
                for (from, to, bytes) in load {
                    self.add_copy((from, bytes * length), (to, *bytes), spans);
                }
                for (from, to, bytes) in store {
                    self.add_copy((from, *bytes), (to, bytes * length), spans);
                }
                body.iter().for_each(|step| self.add(step, spans));
            }
            Step::Branch { condition, branches } => {
                spans.push(self.span(condition, 0, 1, false));
                branches.iter().flatten().for_each(|step| self.add(step, spans));
            }
        }
    }

    fn add_copy(&self, from: (&Place, usize), to: (&Place, usize), spans: &mut Vec<Span>) {
        spans.push(self.span(from.0, 0, from.1, false));
        spans.push(self.span(to.0, 0, to.1, true));
    }

    fn span(&self, place: &Place, first: usize, bytes: usize, written: bool) -> Span {
        let (memory, offset) = match *place {
            Place::Input { index, offset } => (Memory::Input(index), offset),
            // A result that takes over an input is that input's memory.
            Place::Result { index, offset } => match self.plan.takes[index] {
                Some(input) => (Memory::Input(input), offset),
                None => (Memory::Result(index), offset),
            },
            Place::Arena { offset } => (Memory::Arena, offset),
            Place::Constant { index } => (Memory::Constant(index), 0),
        };
        let first = offset + first;
        Span { memory, first, end: first + bytes, written }
    }
}

/// How many collectives are done, and whether one has failed.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<(usize, Option<Error>)>,
    changed: Condvar,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, (usize, Option<Error>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one that is done. Says whether others may follow.
    pub fn done(&self, result: Result<()>) -> bool {
        let mut state = self.state();
        let goes_on = result.is_ok();
        match result {
            Ok(()) => state.0 += 1,
            Err(error) => state.1 = Some(error),
        }
        self.changed.notify_all();
        goes_on
    }

    /// No further one will be done.
    pub fn end(&self) {
        let mut state = self.state();
        let ended = || Error::new("the thread of collectives came to an end");
        state.1.get_or_insert_with(ended);
        self.changed.notify_all();
    }

    /// Waits until so many are done.
    ///
    /// # Errors
    /// That of the first that failed.
    pub fn wait(&self, count: usize) -> Result<()> {
        let mut state = self.state();
        while state.0 < count && state.1.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.0 >= count {
            true => Ok(()),
            false => state.1.clone().map_or(Ok(()), Err),
        }
    }
}
