//! The memory plan: who takes over whose memory, and where everything else lies in the arena.

use crate::flatten::{Buffer, Flat, FlatStep, Move};
use crate::kernel::{Access, Kernel};
use crate::plan::{Place, Step};
use ferrata_ir::{Origin, Type};
use std::sync::Arc;

/// Everything in the arena starts at a multiple of this.
const ALIGNMENT: usize = 64;

/// Where the buffers of a program lie.
#[derive(Clone, Debug)]
pub struct MemoryPlan {
    /// For each buffer.
    pub places: Vec<Place>,
    /// For each result, the donated input whose memory it takes over.
    pub takes: Vec<Option<usize>>,
    /// Copies to be made at the end, for results that are no buffers of their own.
    pub copies: Vec<Step>,
    /// Bytes of the arena.
    pub arena: usize,
    /// What lies in the arena, by rising offset.
    pub residents: Vec<Resident>,
}

/// A span of the arena and when it is in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    /// First byte.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
    /// First and last time of use; every kernel run and copy of the schedule is one time.
    pub during: (usize, usize),
    /// Scope and user line of what first writes it.
    pub origin: Origin,
}

/// What lies in the arena when most of it is in use, the largest first.
pub fn at_peak(residents: &[Resident]) -> Vec<&Resident> {
    let mut changes: Vec<(usize, isize)> = Vec::new();
    for r in residents {
        changes.push((r.during.0, r.bytes as isize));
        changes.push((r.during.1 + 1, -(r.bytes as isize)));
    }
    changes.sort_unstable();
    let (mut used, mut most, mut when) = (0, 0, 0);
    for (time, change) in changes {
        used += change;
        if used > most {
            (most, when) = (used, time);
        }
    }
    let live = |r: &&Resident| r.during.0 <= when && when <= r.during.1;
    let mut peak: Vec<&Resident> = residents.iter().filter(live).collect();
    peak.sort_by_key(|r| std::cmp::Reverse(r.bytes));
    peak
}

/// When a buffer is used, in steps.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
}

/// Places all buffers of a program.
pub fn place(
    flat: &Flat,
    kernels: &[Arc<Kernel>],
    inputs: &[Type],
    results: &[Type],
    donated: &[bool],
) -> MemoryPlan {
    let Timeline { lives, uses, runs, moves, .. } = Timeline::new(flat);
    let pairs: Vec<Vec<(usize, usize)>> = kernels.iter().map(|k| in_place(k)).collect();
    let mut planner = Planner {
        flat,
        inputs,
        results,
        donated,
        pairs: &pairs,
        runs,
        moves,
        lives,
        uses,
        joined: (0..flat.buffers.len()).collect(),
        places: vec![None; flat.buffers.len()],
        takes: vec![None; results.len()],
        taken: vec![false; inputs.len()],
        copies: Vec::new(),
    };
    planner.place_results();
    planner.join_carries();
    planner.join_in_place();
    let (arena, residents) = planner.pack();
    let places = (0..flat.buffers.len()).map(|b| planner.place_of(b)).collect();
    MemoryPlan { places, takes: planner.takes, copies: planner.copies, arena, residents }
}

/// A kernel run.
#[derive(Clone, Copy)]
struct Run<'a> {
    kernel: usize,
    operands: &'a [usize],
    origin: &'a Origin,
}

/// The schedule with a time for every step.
struct Timeline<'a> {
    flat: &'a Flat,
    lives: Vec<Life>,
    /// For each buffer the times at which it is used.
    uses: Vec<Vec<usize>>,
    /// The run at each time.
    runs: Vec<Option<Run<'a>>>,
    /// Copies of whole buffers, and when.
    moves: Vec<(usize, Move)>,
}

impl<'a> Timeline<'a> {
    fn new(flat: &'a Flat) -> Self {
        let unused = Life { first: usize::MAX, last: 0 };
        let buffers = flat.buffers.len();
        let mut timeline = Timeline {
            flat,
            lives: vec![unused; buffers],
            uses: vec![Vec::new(); buffers],
            runs: Vec::new(),
            moves: Vec::new(),
        };
        timeline.steps(&flat.steps);
        timeline
    }

    fn tick(&mut self, run: Option<Run<'a>>) -> usize {
        self.runs.push(run);
        self.runs.len() - 1
    }

    fn touch(&mut self, b: usize, at: usize) {
        let life = &mut self.lives[b];
        (life.first, life.last) = (life.first.min(at), life.last.max(at));
        self.uses[b].push(at);
    }

    fn steps(&mut self, steps: &'a [FlatStep]) {
        for step in steps {
            match step {
                FlatStep::Run { kernel, operands, origin } => {
                    let at = self.tick(Some(Run { kernel: *kernel, operands, origin }));
                    operands.iter().for_each(|&b| self.touch(b, at));
                }
                FlatStep::Copy(m) => {
                    let at = self.tick(None);
                    [m.from, m.to].into_iter().for_each(|b| self.touch(b, at));
                    self.moves.push((at, *m));
                }
                FlatStep::Repeat { load, body, store, .. } => self.repeat(load, body, store),
                FlatStep::Branch { condition, branches } => {
                    let at = self.tick(None);
                    self.touch(*condition, at);
                    branches.iter().for_each(|b| self.steps(b));
                }
            }
        }
    }

    /// What a turn uses of the world outside has to stay for all turns.
    fn repeat(&mut self, load: &[Move], body: &'a [FlatStep], store: &[Move]) {
        let before = self.tick(None);
        for m in load.iter() {
            self.touch(m.from, before);
            self.touch(m.to, before);
        }
        for m in store {
            self.touch(m.to, before);
        }
        self.steps(body);
        let after = self.tick(None);
        for m in store {
            self.touch(m.from, after);
            self.touch(m.to, after);
        }
        for m in load {
            self.touch(m.from, after);
        }
        for (life, buffer) in self.lives.iter_mut().zip(&self.flat.buffers) {
            let outer = life.first < before || matches!(buffer, Buffer::Input(_));
            if outer && life.last > before {
                life.last = life.last.max(after);
            }
        }
    }
}

/// Pairs of a stored and a loaded operand that may share memory (see [`crate::kernel`]).
fn in_place(kernel: &Kernel) -> Vec<(usize, usize)> {
    let Kernel::Loop(kernel) = kernel else { return Vec::new() };
    let same = |a: &Access, b: &Access| {
        a.offset == b.offset && a.strides == b.strides && a.dtype.size() == b.dtype.size()
    };
    // What is stored once for several turns is read again by those that come later.
    let counts = || kernel.rows.iter().chain(&kernel.columns);
    let moves = |a: &Access| counts().zip(&a.strides).all(|(&n, &stride)| n <= 1 || stride != 0);
    let mut pairs = Vec::new();
    for store in kernel.stores.iter().filter(|s| moves(&s.access)) {
        for load in &kernel.loads {
            let pair = (store.access.operand, load.operand);
            let mut all = kernel.loads.iter().filter(|l| l.operand == load.operand);
            if !pairs.contains(&pair) && all.all(|l| same(l, &store.access)) {
                pairs.push(pair);
            }
        }
    }
    pairs
}

struct Planner<'a> {
    flat: &'a Flat,
    inputs: &'a [Type],
    results: &'a [Type],
    donated: &'a [bool],
    /// For each kernel, operands that may share memory.
    pairs: &'a [Vec<(usize, usize)>],
    runs: Vec<Option<Run<'a>>>,
    moves: Vec<(usize, Move)>,
    lives: Vec<Life>,
    uses: Vec<Vec<usize>>,
    /// The buffer whose memory each buffer is in, by which it is known.
    joined: Vec<usize>,
    places: Vec<Option<Place>>,
    takes: Vec<Option<usize>>,
    taken: Vec<bool>,
    copies: Vec<Step>,
}

impl Planner<'_> {
    fn root(&self, mut b: usize) -> usize {
        while self.joined[b] != b {
            b = self.joined[b];
        }
        b
    }

    fn place_of(&self, b: usize) -> Place {
        match self.flat.buffers[b] {
            Buffer::Input(index) => Place::Input { index, offset: 0 },
            Buffer::Constant(index) => Place::Constant { index },
            Buffer::Made { .. } => self.places[self.root(b)].unwrap_or(Place::Arena { offset: 0 }),
        }
    }

    /// Gives every result a place: its buffer's, a donated input's, or a copy.
    fn place_results(&mut self) {
        let end = self.runs.len();
        for &b in &self.flat.results {
            self.lives[b].last = end;
        }
        for (r, &b) in self.flat.results.iter().enumerate() {
            let own = Place::Result { index: r, offset: 0 };
            match self.flat.buffers[b] {
                Buffer::Made { .. } if self.places[b].is_none() => {
                    self.take(r, self.donor(r, b));
                    self.places[b] = Some(own);
                }
                Buffer::Input(i) if self.may_take(r, i) => self.take(r, Some(i)),
                _ => {
                    let from = self.place_of(b);
                    let bytes = self.results[r].bytes();
                    self.copies.push(Step::Copy { from, to: own, bytes });
                }
            }
        }
    }

    fn take(&mut self, r: usize, input: Option<usize>) {
        self.takes[r] = input;
        input.into_iter().for_each(|i| self.taken[i] = true);
    }

    /// Whether result `r` fits into input `i`, which is donated and still free.
    fn may_take(&self, r: usize, i: usize) -> bool {
        self.donated[i] && !self.taken[i] && self.inputs[i] == self.results[r]
    }

    /// A donated input that result `r` in buffer `b` may overwrite.
    fn donor(&self, r: usize, b: usize) -> Option<usize> {
        let made = self.lives[b].first;
        let run = self.runs.get(made).copied().flatten();
        let pairs = run.map_or(&[][..], |run| &self.pairs[run.kernel]);
        let operands = run.map_or(&[][..], |run| run.operands);
        let over = pairs.iter().filter(|(to, _)| operands.get(*to) == Some(&b)).filter_map(
            |&(_, from)| match self.flat.buffers[operands[from]] {
                Buffer::Input(i) if self.ends_at(operands[from], made) => Some(i),
                _ => None,
            },
        );
        // One that no step uses may still be a result, which it is until the end.
        let unused = |life: Life| life.first == usize::MAX && life.last == 0;
        let is_dead = |life: Life| life.last < made || unused(life);
        let dead = self.flat.buffers.iter().enumerate().filter_map(|(b, buffer)| match buffer {
            Buffer::Input(i) if is_dead(self.lives[b]) => Some(*i),
            _ => None,
        });
        over.chain(dead).find(|&i| self.may_take(r, i))
    }

    /// Whether a buffer is used for the last time in step `at`, and only once there.
    fn ends_at(&self, b: usize, at: usize) -> bool {
        let uses = |run: Run| run.operands.iter().filter(|o| **o == b).count();
        self.lives[b].last == at && self.runs[at].map(uses) == Some(1)
    }

    /// Whether a buffer lies where an input does, so that it must not be written before its time.
    fn takes_input(&self, b: usize) -> bool {
        let place = self.places[b];
        matches!(place, Some(Place::Result { index, .. }) if self.takes[index].is_some())
    }

    /// Lets what a loop copies into its carry at the end of a turn be made there at once, if nobody
    /// looks at the old value any more; the value before the first turn as well.
    fn join_carries(&mut self) {
        for at in 0..self.moves.len() {
            let (time, Move { from, to, bytes }) = self.moves[at];
            let made = |b: usize| match self.flat.buffers[b] {
                Buffer::Made { bytes: all } => all == bytes,
                Buffer::Input(_) | Buffer::Constant(_) => false,
            };
            let is_free = |b: usize| self.joined[b] == b && self.places[b].is_none();
            if !made(from) || !made(to) || !is_free(from) || self.lives[from].last != time {
                continue;
            }
            let (to, first) = (self.root(to), self.lives[from].first);
            let between = |at: &usize| (first + 1..time).contains(at);
            let is_new = self.lives[to].first == time && !self.takes_input(to);
            let is_over = self.lives[to].first < first
                && !self.uses[to].iter().any(between)
                && self.may_overwrite(from, to, first);
            if is_new || is_over {
                self.joined[from] = to;
                self.lives[to].first = self.lives[to].first.min(first);
                let uses = std::mem::take(&mut self.uses[from]);
                self.uses[to].extend(uses);
            }
        }
    }

    /// Whether what first writes `b` at time `at` may do so over `old`, which it may read.
    fn may_overwrite(&self, b: usize, old: usize, at: usize) -> bool {
        let Some(Run { kernel, operands, .. }) = self.runs[at] else {
            let copied = self.moves.binary_search_by_key(&at, |(time, _)| *time);
            let itself = copied.is_ok_and(|i| self.root(self.moves[i].1.from) == old);
            return itself || !self.uses[old].contains(&at);
        };
        let mut reads = (0..operands.len()).filter(|&i| self.root(operands[i]) == old);
        let mut writes = (0..operands.len()).filter(|&i| operands[i] == b);
        let (Some(to), None) = (writes.next(), writes.next()) else { return false };
        reads.all(|from| self.pairs[kernel].contains(&(to, from)))
    }

    /// Lets results of loops take over the memory of operands that die there.
    fn join_in_place(&mut self) {
        for at in 0..self.runs.len() {
            let Some(Run { kernel, operands, .. }) = self.runs[at] else { continue };
            let mut used = Vec::new();
            for &(to, from) in &self.pairs[kernel] {
                let (b, a) = (operands[to], operands[from]);
                let (Buffer::Made { bytes: want }, Buffer::Made { bytes: have }) =
                    (self.flat.buffers[b], self.flat.buffers[a])
                else {
                    continue;
                };
                // A value that has parts already lives beside what dies here, and one that lies in
                // a carry beside the carry.
                let is_new = self.lives[b].first == at && self.joined[b] == b;
                let unused = !used.contains(&a) && !used.contains(&b);
                let free = is_new && unused && !self.takes_input(b);
                if !free
                    || want != have
                    || !self.ends_at(a, at)
                    || self.places[self.root(a)].is_some()
                {
                    continue;
                }
                used.extend([a, b]);
                let root = self.root(a);
                let first = self.lives[root].first;
                self.joined[root] = b;
                self.lives[b].first = first;
            }
        }
    }

    /// Assigns offsets in the arena, largest buffers first, each at the lowest free place.
    fn pack(&mut self) -> (usize, Vec<Resident>) {
        let mut order: Vec<(usize, usize)> = (0..self.flat.buffers.len())
            .filter(|&b| self.joined[b] == b && self.places[b].is_none())
            .filter_map(|b| match self.flat.buffers[b] {
                Buffer::Made { bytes } if self.lives[b].first != usize::MAX => Some((bytes, b)),
                _ => None,
            })
            .collect();
        order.sort_by_key(|&(bytes, b)| (std::cmp::Reverse(bytes), self.lives[b].first));
        // What has a place, by rising offset.
        let mut placed: Vec<(usize, usize, Life)> = Vec::new();
        let mut residents = Vec::new();
        let mut arena = 0;
        for (bytes, b) in order {
            let life = self.lives[b];
            let size = bytes.next_multiple_of(ALIGNMENT);
            let mut offset = 0;
            for (from, to, other) in &placed {
                if other.first > life.last || life.first > other.last {
                    continue;
                }
                if *from >= offset + size {
                    break;
                }
                offset = offset.max(*to);
            }
            self.places[b] = Some(Place::Arena { offset });
            let at = placed.partition_point(|(from, ..)| *from < offset);
            placed.insert(at, (offset, offset + size, life));
            let maker = self.runs[life.first].map(|run| run.origin.clone());
            let origin = maker.unwrap_or_default();
            let during = (life.first, life.last);
            residents.push(Resident { offset, bytes: size, during, origin });
            arena = arena.max(offset + size);
        }
        residents.sort_by_key(|r| r.offset);
        (arena, residents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Instruction, Loop, Store};
    use ferrata_ir::DType;

    /// Turns of a loop come in any order: a number for a whole row is read in all of them.
    #[test]
    fn what_all_turns_read_is_not_overwritten() {
        let access = |operand, strides: &[isize]| Access {
            operand,
            dtype: DType::F32,
            offset: 0,
            strides: strides.to_vec(),
        };
        let pairs = |columns: usize, strides: &[isize]| {
            in_place(&Kernel::Loop(Loop {
                rows: vec![8],
                columns: vec![columns],
                loads: vec![access(0, strides)],
                body: vec![Instruction::Load(0)],
                stores: vec![Store { register: 0, access: access(1, strides), combine: None }],
            }))
        };
        assert_eq!(pairs(5, &[5, 1]), [(1, 0)]);
        assert_eq!(pairs(1, &[1, 0]), [(1, 0)]);
        assert_eq!(pairs(5, &[1, 0]), []);
    }
}
