//! The code of a body: a loop over rows, and in it for each walk one over columns.

use super::lanes::{Lanes, Writer, is_wide};
use super::{Entry, Row};
use crate::exec::tile::body::{Body, Phase, Register, Store, What, Work};
use crate::exec::tile::ops::{Arg, Call, Kind, Loop};
use crate::isa::Isa;
use crate::jit::Code;
use crate::jit::allocate::{
    self, COLUMN, COLUMNS, ENTRY, Frame, Setting, TABLE, bases, emit, enter, exit, setting,
    tail_mask,
};
use crate::jit::block::{Block, Id, Node, Place};
use crate::jit::encode::{
    Encoder, Gpr, Memory, Operand, Options, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI,
    RSP, Target, When, opcode,
};
use std::collections::HashMap;

/// Compiled code: table, rows, columns.
type Run = unsafe extern "sysv64" fn(*mut Row, usize, usize);

/// Whether this process may run generated code.
pub(super) use crate::jit::allowed;

/// A body as machine code.
#[derive(Debug)]
pub(super) struct Function {
    code: Code,
    pub entries: Vec<Entry>,
    /// What code calls, which refers to it by address.
    #[expect(clippy::vec_box)] // The code holds their addresses.
    _calls: Vec<Box<Outside>>,
}

impl Function {
    /// Works on rows and columns of the operands in the table, which it moves on.
    ///
    /// # Safety
    /// The table has a row for each entry; the operands hold the elements.
    pub unsafe fn run(&self, table: *mut Row, rows: usize, columns: usize) {
        // SAFETY: the code was made to be called so; the rest is passed on.
        unsafe {
            let run = std::mem::transmute::<*const u8, Run>(self.code.start());
            run(table, rows, columns);
        }
    }
}

/// A loop of the interpreter that code calls for a vector's lanes.
#[derive(Debug)]
struct Outside {
    run: Loop,
    lanes: usize,
}

/// # Safety
/// The result and three operands have room for the lanes, 8 bytes each.
unsafe extern "sysv64" fn call(outside: *const Outside, out: *mut u8, args: *const u8) {
    // SAFETY: passed on.
    unsafe {
        let Outside { run, lanes } = *outside;
        let args = [0, 1, 2].map(|i| Arg { data: args.add(8 * lanes * i), row: 0, vector: true });
        run(&Call { rows: 1, columns: lanes, out, out_row: 0, args });
    }
}

/// # Safety
/// Both places have the bytes.
unsafe extern "sysv64" fn copy(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: passed on.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
}

/// Places in the frame that are always there: the columns that main loops cover, in one and two
/// vectors, the columns of the last part, and its mask.
const LIMIT: [i32; 2] = [0, 8];
const REST: i32 = 16;
const MASK: i32 = 64;
const FIXED: i32 = 128;

/// Bodies of so few nodes work on two vectors in a turn, to share the cost of the loop.
const SMALL: usize = 40;

/// The blocks of one walk.
struct Stage {
    /// What precedes the columns.
    before: Block,
    main: Block,
    /// For what main leaves over: one part for each vector of a turn.
    tails: Vec<Block>,
    unroll: usize,
}

/// Builds the blocks of a body.
struct Builder<'a> {
    target: Target,
    body: &'a Body,
    kept: &'a [usize],
    /// Whether stores that may go past the caches do.
    streams: bool,
    /// Whether a walk asks for the next row.
    ahead: bool,
    code: Encoder,
    entries: Vec<Entry>,
    #[expect(clippy::vec_box)] // The code holds their addresses.
    calls: Vec<Box<Outside>>,
    /// End of the frame's part that all blocks share.
    frame: i32,
    /// Where values that are the same in a whole row stand.
    slots: HashMap<usize, i32>,
    /// Where partial results of reductions stand, for each vector of a turn and each part.
    sums: HashMap<(usize, usize, usize), i32>,
}

/// A block in the making, and the values that it has.
struct Scope {
    block: Block,
    values: HashMap<usize, Lanes>,
    tail: Option<Id>,
    /// The vector of a turn that it works on.
    turn: usize,
}

/// Compiles a body. With `only`, for one walk, which finds the results of earlier reductions in
/// the table and leaves its own there; otherwise all walks of each row, then the stores of one
/// element for each row. With `streams`, stores that may go past the caches do, which must be to
/// aligned vectors. With `ahead`, the second walk asks for the next row. `None` if something has no
/// code.
pub(super) fn compile(
    isa: Isa,
    body: &Body,
    phases: &[Phase],
    kept: &[usize],
    only: Option<usize>,
    streams: bool,
    ahead: bool,
) -> Option<Function> {
    let target = match isa {
        Isa::Portable => return None,
        Isa::Avx2 => Target::Avx2,
        _ => Target::Avx512,
    };
    let mut b = Builder {
        target,
        body,
        kept,
        streams,
        ahead,
        code: Encoder::new(target),
        entries: Vec::new(),
        calls: Vec::new(),
        frame: FIXED,
        slots: HashMap::new(),
        sums: HashMap::new(),
    };
    let uniform = |i: usize| {
        let r = &body.registers[i];
        !r.by_row && !r.by_column && r.level == 0 && !matches!(r.work, Work::Reduce { .. })
    };
    let mut first = b.scope();
    for &i in phases.iter().flat_map(|p| &p.once).filter(|&&i| uniform(i)) {
        if !b.slots.contains_key(&i) {
            b.once(&mut first, i)?;
        }
    }
    let mut stages = Vec::new();
    let mut open = b.scope();
    for (p, phase) in phases.iter().enumerate() {
        if only.is_some_and(|only| p > only) {
            break;
        }
        for &i in phase.once.iter().filter(|&&i| !uniform(i)) {
            b.once(&mut open, i)?;
        }
        if only.is_some_and(|only| p < only) {
            for &i in phase.block.iter().filter(|&&i| is_sum(body, i)) {
                let entry = b.entry(Entry::Sum(i));
                let value = open.writer().repeat(body.registers[i].kind.dtype(), entry);
                b.leave(&mut open, i, value);
            }
            continue;
        }
        let last = only.is_none() && p + 1 == phases.len() || only == Some(phases.len() - 1);
        // While the second walk computes, memory has time for the next row.
        let ahead = if b.ahead && p == 1 { &phases[0].block[..] } else { &[] };
        let stage = b.stage(phase, ahead, open, last)?;
        stages.push(stage);
        open = b.scope();
        for &i in phase.block.iter().filter(|&&i| is_sum(body, i)) {
            let value = b.finish(&mut open, i)?;
            if only.is_some() {
                let entry = b.entry(Entry::OwnSum(i));
                open.writer().store_first(body.registers[i].kind.dtype(), entry, value);
            } else {
                b.leave(&mut open, i, value);
            }
        }
    }
    // Of one walk, only what combines rows: the others wait until all columns are done.
    let last = only.is_none_or(|only| only + 1 == phases.len());
    let stored = |s: &Store| s.per_row && last && (only.is_none() || s.combine.is_some());
    for (s, store) in body.stores.iter().enumerate().filter(|s| stored(s.1)) {
        let value = b.value(&mut open, store.register)?;
        let entry = b.entry(Entry::Store(s));
        let kind = body.registers[store.register].kind;
        let dtype = if store.combine.is_some() { kind.dtype() } else { store.reach.dtype };
        open.writer().store_first(dtype, entry, value);
    }
    b.assemble(first.block, stages, open.block)
}

fn is_sum(body: &Body, i: usize) -> bool {
    matches!(body.registers[i].work, Work::Reduce { .. })
}

impl Scope {
    fn writer(&mut self) -> Writer<'_> {
        Writer { block: &mut self.block, tail: self.tail, rounded: false, streams: false }
    }
}

impl Builder<'_> {
    fn scope(&self) -> Scope {
        Scope { block: Block::new(self.target), values: HashMap::new(), tail: None, turn: 0 }
    }

    fn register(&self, i: usize) -> &Register {
        &self.body.registers[i]
    }

    fn entry(&mut self, entry: Entry) -> usize {
        match self.entries.iter().position(|&e| e == entry) {
            Some(at) => at,
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    /// The first column of a block, from the current one.
    fn lane(&self, scope: &Scope) -> usize {
        if scope.tail.is_some() { 0 } else { scope.turn * self.target.lanes() }
    }

    /// Room in the frame for vectors.
    fn room(&mut self, vectors: i32) -> i32 {
        self.frame += 64 * vectors;
        self.frame - 64 * vectors
    }

    /// Leaves a value that is the same in the whole row for other blocks.
    fn leave(&mut self, scope: &mut Scope, i: usize, value: Lanes) {
        let at = match self.slots.get(&i) {
            Some(&at) => at,
            None => self.room(1),
        };
        self.slots.insert(i, at);
        scope.values.insert(i, value);
        scope.block.add(Node::Leave { at, a: value.one() });
    }

    /// The value of a register, in a block.
    fn value(&mut self, scope: &mut Scope, i: usize) -> Option<Lanes> {
        if let Some(&value) = scope.values.get(&i) {
            return Some(value);
        }
        let r = self.register(i);
        let (kind, wide) = (r.kind, is_wide(r.kind));
        let value = if let Work::Constant(bits) = r.work {
            scope.writer().constant(kind, bits)
        } else if let Some(&at) = self.slots.get(&i) {
            let mask = kind == Kind::Bool && self.target == Target::Avx512;
            let x = scope.block.add(Node::Frame { at, mask });
            if wide { Lanes::Two([x; 2]) } else { Lanes::One(x) }
        } else if self.kept.contains(&i) {
            let entry = self.entry(Entry::Kept(i));
            let lane = self.lane(scope);
            scope.writer().load(kind.dtype(), entry, lane)
        } else {
            return None;
        };
        scope.values.insert(i, value);
        Some(value)
    }

    /// Computes a register that is the same in the whole row.
    fn once(&mut self, scope: &mut Scope, i: usize) -> Option<()> {
        let r = self.register(i).clone();
        let value = match &r.work {
            Work::Constant(_) => return Some(()),
            Work::Load(load) => {
                let entry = self.entry(Entry::Load(*load));
                scope.writer().repeat(self.body.loads[*load].reach.dtype, entry)
            }
            Work::Index(..) => {
                let entry = self.entry(Entry::Index(i));
                scope.writer().repeat(r.kind.dtype(), entry)
            }
            Work::Apply { .. } => self.apply(scope, i)?,
            Work::Product | Work::Reduce { .. } => return None,
        };
        self.leave(scope, i, value);
        Some(())
    }

    fn apply(&mut self, scope: &mut Scope, i: usize) -> Option<Lanes> {
        let r = self.register(i).clone();
        let Work::Apply { run, what, args, count } = &r.work else { return None };
        let mut values = Vec::with_capacity(*count);
        for &a in &args[..*count] {
            values.push((self.register(a).kind, self.value(scope, a)?));
        }
        let lanes: Vec<Lanes> = values.iter().map(|v| v.1).collect();
        let native = match *what {
            What::Op(op, kind) => scope.writer().apply(op, kind, &lanes),
            What::Cast(from, to) => scope.writer().cast(from, to, lanes[0]),
            What::Copy => Some(lanes[0]),
        };
        Some(native.unwrap_or_else(|| {
            let lanes = self.target.lanes();
            self.calls.push(Box::new(Outside { run: *run, lanes }));
            let data = std::ptr::from_ref(&*self.calls[self.calls.len() - 1]) as usize;
            let at = self.room(8);
            scope.writer().call(call as *const () as usize, data, at, &values, r.kind)
        }))
    }

    /// The blocks of a walk, which asks for the next row of loads that are `ahead`; `before` already
    /// has what precedes it.
    fn stage(
        &mut self,
        phase: &Phase,
        ahead: &[usize],
        mut before: Scope,
        stores: bool,
    ) -> Option<Stage> {
        let sums: Vec<usize> =
            phase.block.iter().copied().filter(|&i| is_sum(self.body, i)).collect();
        let unroll = if sums.is_empty() && phase.block.len() > SMALL { 1 } else { 2 };
        for &i in &sums {
            let Work::Reduce { reduction, .. } = self.register(i).work else { continue };
            let kind = self.summed(i);
            let bits = if kind == self.register(i).kind {
                reduction.identity
            } else {
                reduction.identity & 1
            };
            let identity = before.writer().constant(kind, bits);
            for turn in 0..unroll {
                for (part, &a) in identity.parts().iter().enumerate() {
                    let at = self.sum(i, turn, part);
                    before.block.add(Node::Leave { at, a });
                }
            }
        }
        for &i in &phase.block {
            let r = self.register(i).clone();
            if let Work::Index(_, column) = &r.work
                && column.single().is_some()
            {
                let entry = self.entry(Entry::First(i));
                let place = Place::Operand { operand: entry, scale: None, displacement: 0 };
                let x = before.block.add(Node::Repeat { place, size: 4 });
                self.leave(&mut before, i, Lanes::One(x));
            }
        }
        let mut main = self.scope();
        for turn in 0..unroll {
            main.turn = turn;
            main.values.clear();
            self.prefetch(&mut main, ahead);
            self.columns(&mut main, phase, stores)?;
        }
        let tails = if sums.is_empty() { 1 } else { unroll };
        let tails = (0..tails).map(|turn| {
            let mut scope = self.scope();
            scope.tail = Some(match self.target {
                Target::Avx512 => scope.block.add(Node::Tail),
                Target::Avx2 => scope.block.add(Node::Frame { at: MASK, mask: false }),
            });
            // The columns have moved on; only the partial results are those of the turn.
            scope.turn = turn;
            self.columns(&mut scope, phase, stores)?;
            Some(scope.block)
        });
        let tails = tails.collect::<Option<Vec<_>>>()?;
        Some(Stage { before: before.block, main: main.block, tails, unroll })
    }

    /// The kind that a reduction is computed in: truth values as integers.
    fn summed(&self, i: usize) -> Kind {
        match self.register(i).kind {
            Kind::Bool => Kind::U32,
            kind => kind,
        }
    }

    fn sum(&mut self, i: usize, turn: usize, part: usize) -> i32 {
        if let Some(&at) = self.sums.get(&(i, turn, part)) {
            return at;
        }
        let at = self.room(1);
        self.sums.insert((i, turn, part), at);
        at
    }

    /// What a walk does with one vector of columns.
    fn columns(&mut self, scope: &mut Scope, phase: &Phase, stores: bool) -> Option<()> {
        let lane = self.lane(scope);
        for &i in &phase.block {
            let r = self.register(i).clone();
            let value = match &r.work {
                Work::Load(load) => {
                    let entry = self.entry(Entry::Load(*load));
                    scope.writer().load(self.body.loads[*load].reach.dtype, entry, lane)
                }
                Work::Product => {
                    let entry = self.entry(Entry::Product);
                    scope.writer().load(r.kind.dtype(), entry, lane)
                }
                Work::Index(_, column) => match column.single() {
                    Some(stride) => self.index(scope, i, r.kind, stride, lane)?,
                    None => {
                        let entry = self.entry(Entry::Index(i));
                        scope.writer().load(r.kind.dtype(), entry, lane)
                    }
                },
                Work::Constant(bits) => scope.writer().constant(r.kind, *bits),
                Work::Apply { .. } => self.apply(scope, i)?,
                Work::Reduce { .. } => {
                    self.reduce(scope, i)?;
                    continue;
                }
            };
            scope.values.insert(i, value);
            if self.kept.contains(&i) {
                let entry = self.entry(Entry::Kept(i));
                scope.writer().store(r.kind.dtype(), entry, lane, value);
            }
        }
        if !stores {
            return Some(());
        }
        let body = self.body;
        for (s, store) in body.stores.iter().enumerate().filter(|(_, s)| !s.per_row) {
            let kind = self.register(store.register).kind;
            let mut value = self.value(scope, store.register)?;
            let (entry, dtype) = match &store.combine {
                None => (self.entry(Entry::Store(s)), store.reach.dtype),
                Some(reduction) => {
                    let entry = self.entry(Entry::Combined(s));
                    let old = scope.writer().load(kind.dtype(), entry, lane);
                    value = scope.writer().combine(reduction.kind, kind, old, value)?;
                    (entry, kind.dtype())
                }
            };
            let rounded = matches!(self.register(store.register).work,
                Work::Apply { what: What::Cast(_, to), .. } if to == dtype);
            let streams = self.streams && store.may_stream();
            Writer { rounded, streams, ..scope.writer() }.store(dtype, entry, lane, value);
        }
        Some(())
    }

    /// Asks for one vector of columns of the next row.
    fn prefetch(&mut self, scope: &mut Scope, ahead: &[usize]) {
        for &i in ahead {
            let Work::Load(load) = self.register(i).work else { continue };
            let reach = &self.body.loads[load].reach;
            if !reach.row.is_still() {
                let size = reach.dtype.size();
                let displacement = (self.lane(scope) * size) as i32;
                let (operand, scale) = (self.entry(Entry::Load(load)), size.trailing_zeros() as u8);
                scope.block.add(Node::Prefetch { operand, scale, displacement });
            }
        }
    }

    /// The index of each column.
    fn index(
        &mut self,
        scope: &mut Scope,
        i: usize,
        kind: Kind,
        stride: isize,
        lane: usize,
    ) -> Option<Lanes> {
        let steps: Vec<u8> = (0..self.target.lanes() as i32)
            .flat_map(|l| ((l + lane as i32) * stride as i32).to_le_bytes())
            .collect();
        let steps = self.code.data(&steps);
        let first = scope.block.add(Node::Frame { at: self.slots[&i], mask: false });
        let steps = scope.block.add(Node::Pool(steps));
        let column = scope.block.add(Node::Column);
        let mut w = scope.writer();
        let stride = w.constant(Kind::I32, stride as u64);
        let mut apply = |op, x, y| w.apply(op, Kind::I32, &[x, y]);
        use ferrata_ir::primitive::ScalarOp::{Add, Mul};
        let x = apply(Mul, Lanes::One(column), stride)?;
        let x = apply(Add, x, Lanes::One(first))?;
        let x = apply(Add, x, Lanes::One(steps))?;
        w.cast(Kind::I32, kind.dtype(), x)
    }

    /// Combines a vector into the partial results of a reduction.
    fn reduce(&mut self, scope: &mut Scope, i: usize) -> Option<()> {
        let Work::Reduce { reduction, arg, .. } = self.register(i).work.clone() else {
            return None;
        };
        let (kind, of) = (self.summed(i), self.register(i).kind);
        let mut value = self.value(scope, arg)?;
        let mut identity = reduction.identity;
        if kind != of {
            value = scope.writer().cast(Kind::Bool, kind.dtype(), value)?;
            identity &= 1;
        }
        if let Some(tail) = scope.tail {
            let mut w = scope.writer();
            let none = w.constant(kind, identity);
            value = w.select(kind, tail, value, none);
        }
        let places: Vec<i32> =
            (0..value.parts().len()).map(|part| self.sum(i, scope.turn, part)).collect();
        let old: Vec<Id> = places.iter().map(|&at| scope.block.add(Node::Carried(at))).collect();
        let old = if old.len() == 2 { Lanes::Two([old[0], old[1]]) } else { Lanes::One(old[0]) };
        let new = scope.writer().combine(reduction.kind, kind, old, value)?;
        for (&at, &a) in places.iter().zip(new.parts()) {
            scope.block.add(Node::Carry { at, a });
        }
        Some(())
    }

    /// The result of a reduction in all lanes.
    fn finish(&mut self, scope: &mut Scope, i: usize) -> Option<Lanes> {
        let Work::Reduce { reduction, .. } = self.register(i).work.clone() else { return None };
        let (kind, of) = (self.summed(i), self.register(i).kind);
        let wide = is_wide(kind);
        let mut part = |this: &mut Self, turn: usize| {
            let mut at = |part: usize| {
                let at = this.sum(i, turn, part);
                scope.block.add(Node::Frame { at, mask: false })
            };
            if wide { Lanes::Two([at(0), at(1)]) } else { Lanes::One(at(0)) }
        };
        let (first, second) = (part(self, 0), part(self, 1));
        let mut w = scope.writer();
        let both = w.combine(reduction.kind, kind, first, second)?;
        let all = w.combine_lanes(reduction.kind, kind, both)?;
        if kind == of { Some(all) } else { w.cast(kind, of.dtype(), all) }
    }

    /// Writes the function.
    fn assemble(mut self, first: Block, stages: Vec<Stage>, last: Block) -> Option<Function> {
        let operands = self.entries.len();
        let scratch = self.frame;
        if self.target == Target::Avx2 {
            self.frame += 64 * operands as i32;
        }
        let mut frame = Frame { fixed: self.frame, size: self.frame, scratch };
        let plain = Setting { bases: vec![None; operands], ..Setting::default() };
        let code = &mut self.code;
        let saved: [Gpr; 6] = [RBP, RBX, R12, R13, R14, R15];
        saved.iter().for_each(|&r| code.push(r));
        code.copy(RBP, RSP);
        code.add(RSP, 0);
        let size = code.position();
        code.and(RSP, -64);
        code.copy(TABLE, RDI);
        code.copy(R15, RSI);
        code.copy(COLUMNS, RDX);
        for (limit, vectors) in LIMIT.into_iter().zip([1, 2]) {
            code.copy(RAX, COLUMNS);
            code.and(RAX, -((vectors * self.target.lanes()) as i32));
            code.store(Memory::at(RSP, limit), RAX);
        }
        let block = |code: &mut Encoder, mut block: Block, setting: &Setting, frame: &mut Frame| {
            block.prune();
            emit(code, &block, setting, frame);
        };
        block(code, first, &plain, &mut frame);
        let top = code.label();
        code.bind(top);
        let mut stages: Vec<Stage> = stages;
        for stage in &mut stages {
            let before = std::mem::replace(&mut stage.before, Block::new(self.target));
            block(code, before, &plain, &mut frame);
            columns(code, stage, operands, &mut frame, self.target);
        }
        block(code, last, &plain, &mut frame);
        for operand in 0..operands {
            let at = ENTRY * operand as i32;
            code.load(RAX, Memory::at(TABLE, at));
            code.add_memory(RAX, Memory::at(TABLE, at + 8));
            code.store(Memory::at(TABLE, at), RAX);
        }
        code.add(R15, -1);
        code.compare_value(R15, 0);
        code.jump(When::NotEqual, top);
        if self.streams {
            code.fence();
        }
        code.clean();
        code.copy(RSP, RBP);
        saved.iter().rev().for_each(|&r| code.pop(r));
        code.ret();
        // Red zone and alignment.
        code.patch(size, -(frame.size + 64));
        let code = Code::new(&self.code.finish())?;
        Some(Function { code, entries: self.entries, _calls: self.calls })
    }
}

/// Writes the loop over the columns of a walk.
fn columns(
    code: &mut Encoder,
    stage: &mut Stage,
    operands: usize,
    frame: &mut Frame,
    target: Target,
) {
    stage.main.prune();
    let main = setting(&stage.main, operands);
    let limit = Memory::at(RSP, LIMIT[stage.unroll - 1]);
    let step = (stage.unroll * target.lanes()) as i32;
    let [top, rest, done] = [(); 3].map(|()| code.label());
    bases(code, &main);
    code.set(COLUMN, 0);
    code.compare_memory(COLUMN, limit);
    code.jump(When::Equal, rest);
    enter(code, &main);
    code.bind(top);
    emit(code, &stage.main, &main, frame);
    code.add(COLUMN, step);
    code.compare_memory(COLUMN, limit);
    code.jump(When::Below, top);
    exit(code, &main);
    code.bind(rest);
    let loops = stage.tails.len() < stage.unroll;
    for tail in &mut stage.tails {
        tail.prune();
        let again = code.label();
        code.bind(again);
        code.compare(COLUMN, COLUMNS);
        code.jump(When::NotBelow, done);
        let setting = Setting { pinned: Vec::new(), bases: main.bases.clone(), copied: false };
        match target {
            Target::Avx512 => {
                tail_mask(code);
                emit(code, tail, &setting, frame);
            }
            Target::Avx2 => copied_tail(code, tail, operands, frame),
        }
        code.add(COLUMN, target.lanes() as i32);
        if loops {
            code.jump(When::Always, again);
        }
    }
    code.bind(done);
}

/// Works on the last part of a row in the frame, since AVX2 cannot leave out lanes of all sizes.
fn copied_tail(code: &mut Encoder, tail: &Block, operands: usize, frame: &mut Frame) {
    let whole = code.label();
    code.copy(RCX, COLUMNS);
    code.subtract(RCX, COLUMN);
    code.compare_value(RCX, 8);
    code.jump(When::Below, whole);
    code.set(RCX, 8);
    code.bind(whole);
    code.store(Memory::at(RSP, REST), RCX);
    let mask: Vec<u8> = [u8::MAX; 32].into_iter().chain([0; 32]).collect();
    let mask = code.data(&mask);
    code.address(RAX, Memory::Pool(mask));
    code.set(RDX, 8);
    code.subtract(RDX, RCX);
    let from = Memory::At { base: RAX, index: Some((RDX, 2)), displacement: 0 };
    code.vector(opcode(1, 0, 0, 0x10), 0, 0, Operand::Memory(from), Options::default());
    let to = Operand::Memory(Memory::at(RSP, MASK));
    code.vector(opcode(1, 0, 0, 0x11), 0, 0, to, Options::default());
    let moves = |read: bool| {
        let mut all: Vec<(usize, u8)> = Vec::new();
        for node in &tail.nodes {
            let place = match node {
                Node::Load { place, .. } if read => place,
                Node::Store { place, .. } if !read => place,
                _ => continue,
            };
            if let Place::Operand { operand, scale: Some(scale), .. } = *place
                && !all.contains(&(operand, scale))
            {
                all.push((operand, scale));
            }
        }
        all
    };
    let copies = |code: &mut Encoder, frame: &Frame, read: bool| {
        for (operand, scale) in moves(read) {
            let here = Memory::at(RSP, frame.scratch + 64 * operand as i32);
            let (inside, outside) = if read { (RDI, RSI) } else { (RSI, RDI) };
            code.address(inside, here);
            code.load(outside, Memory::at(TABLE, ENTRY * operand as i32));
            let column = Some((COLUMN, scale));
            code.address(outside, Memory::At { base: outside, index: column, displacement: 0 });
            code.load(RDX, Memory::at(RSP, REST));
            for _ in 0..scale {
                code.address(RDX, Memory::At { base: RDX, index: Some((RDX, 0)), displacement: 0 });
            }
            code.set(RAX, copy as *const () as u64);
            code.clean();
            code.call(RAX);
        }
    };
    copies(code, frame, true);
    let setting = Setting { bases: vec![None; operands], copied: true, pinned: Vec::new() };
    allocate::emit(code, tail, &setting, frame);
    copies(code, frame, false);
}
