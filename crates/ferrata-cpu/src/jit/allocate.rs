//! Gives the values of a block registers, and writes its code.
//!
//! One pass in order: a value gets a register when it is defined and leaves it after its last
//! use; where none is free, the value whose next use is farthest moves to the frame. Constants and
//! values of other blocks stay in memory, where most instructions can use them, unless a loop has
//! registers to spare for them.

use super::block::{Block, Id, Node, Place};
use super::encode::{
    Encoder, Gpr, Memory, Opcode, Operand, Options, R8, R9, R10, R11, R12, R13, R14, RAX, RBX, RCX,
    RDI, RDX, RSI, RSP, Target, opcode,
};

/// The register that holds the current column.
pub const COLUMN: Gpr = R12;
/// The register that holds the number of columns.
pub const COLUMNS: Gpr = R13;
/// The register that holds the table of operands.
pub const TABLE: Gpr = RBX;
/// The mask register of the lanes that are there in the last part of a row.
const TAIL: u8 = 7;
/// Registers that hold the starts of operands.
const BASES: [Gpr; 8] = [RDX, RSI, RDI, R8, R9, R10, R11, R14];
/// Bytes of a table entry: where the operand's current row begins, and the step to the next.
pub const ENTRY: i32 = 16;
/// Where in an entry the step stands.
pub const STEP: i32 = 8;

const MOVE: Opcode = opcode(1, 0, 0, 0x10);
const MOVE_OUT: Opcode = opcode(1, 0, 0, 0x11);
const REPEAT32: Opcode = opcode(2, 1, 0, 0x18);
const MASK_IN: Opcode = opcode(1, 0, 0, 0x90);
const MASK_OUT: Opcode = opcode(1, 0, 0, 0x91);

/// The part of the frame where blocks keep what has no register.
#[derive(Debug)]
pub struct Frame {
    /// Bytes in use by all blocks.
    pub fixed: i32,
    /// Bytes of the whole frame so far.
    pub size: i32,
    /// Where the elements of operands stand in the last part of a row, on AVX2.
    pub scratch: i32,
}

/// Where the code of a block finds its operands.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Registers that hold the start of operands.
    pub bases: Vec<Option<Gpr>>,
    /// Whether operands have been copied to the frame's scratch.
    pub copied: bool,
    /// Values that keep a register, by their nodes.
    pub pinned: Vec<(Node, u8)>,
}

/// The register choice of a loop over a block.
pub fn setting(block: &Block, operands: usize) -> Setting {
    let calls = block.nodes.iter().any(|n| matches!(n, Node::Call { .. }));
    let mut setting = Setting { bases: vec![None; operands], ..Setting::default() };
    if calls {
        return setting;
    }
    let mut free = BASES.iter();
    for node in &block.nodes {
        let (Node::Load { place, .. } | Node::Store { place, .. } | Node::Repeat { place, .. }) =
            node
        else {
            continue;
        };
        if let Place::Operand { operand, .. } = *place
            && setting.bases[operand].is_none()
        {
            setting.bases[operand] = free.next().copied();
        }
    }
    let registers = registers(block.target);
    let uses = |id: Id| block.nodes.iter().flat_map(Node::args).filter(|&a| a == id).count();
    let mut next = registers as u8;
    let mut pin = |node: Node| {
        next -= 1;
        setting.pinned.push((node, next));
    };
    let carried: Vec<Node> =
        block.nodes.iter().filter(|n| matches!(n, Node::Carried(_))).copied().collect();
    // One register more than the values need at once serves moves; what finds none is kept in the
    // frame.
    let spare = registers.saturating_sub(pressure(block) + 2);
    carried.iter().take(spare).for_each(|&n| pin(n));
    let spare = spare.saturating_sub(carried.len());
    let mut standing: Vec<(usize, Node)> = block
        .nodes
        .iter()
        .enumerate()
        .filter(|&(id, n)| n.stands() && !block.is_mask(id))
        .map(|(id, &n)| (uses(id), n))
        .collect();
    standing.sort_by_key(|&(uses, _)| std::cmp::Reverse(uses));
    standing.iter().take(spare).for_each(|&(_, n)| pin(n));
    setting
}

fn registers(target: Target) -> usize {
    match target {
        Target::Avx2 => 16,
        Target::Avx512 => 32,
    }
}

/// How many vectors that a block computes live at the same time.
fn pressure(block: &Block) -> usize {
    let mut last = vec![0; block.nodes.len()];
    for (at, node) in block.nodes.iter().enumerate() {
        node.args().for_each(|a| last[a] = at);
    }
    let mut ends = vec![0; block.nodes.len() + 1];
    let (mut live, mut most) = (0usize, 0);
    for (at, node) in block.nodes.iter().enumerate() {
        if !node.acts() && !node.stands() && !matches!(node, Node::Carried(_)) && last[at] > at {
            live += 1;
            ends[last[at]] += 1;
        }
        most = most.max(live);
        live -= ends[at];
    }
    most
}

/// Loads the starts of operands.
pub fn bases(code: &mut Encoder, setting: &Setting) {
    for (operand, base) in setting.bases.iter().enumerate() {
        if let Some(base) = *base {
            code.load(base, Memory::at(TABLE, ENTRY * operand as i32));
        }
    }
}

/// Loads pinned values before a loop.
pub fn enter(code: &mut Encoder, setting: &Setting) {
    for &(node, register) in &setting.pinned {
        fetch(code, node, register);
    }
}

/// Stores carried values after a loop.
pub fn exit(code: &mut Encoder, setting: &Setting) {
    for &(node, register) in &setting.pinned {
        if let Node::Carried(at) = node {
            let to = Operand::Memory(Memory::at(RSP, at));
            code.vector(MOVE_OUT, register, 0, to, Options::default());
        }
    }
}

/// Loads a value that stands in memory.
fn fetch(code: &mut Encoder, node: Node, register: u8) {
    match node {
        Node::Constant { bits, size } => {
            let from = Operand::Memory(code.constant(bits, size));
            let repeat = if size == 8 { opcode(2, 1, 1, 0x19) } else { REPEAT32 };
            let o = if code.target == Target::Avx512 { repeat } else { MOVE };
            code.vector(o, register, 0, from, Options::default());
        }
        Node::Pool(at) => {
            let from = Operand::Memory(Memory::Pool(at));
            code.vector(MOVE, register, 0, from, Options::default());
        }
        Node::Frame { at, mask: true } => {
            code.vex(MASK_IN, false, register, 0, Operand::Memory(Memory::at(RSP, at)), None);
        }
        Node::Frame { at, .. } | Node::Carried(at) => {
            let from = Operand::Memory(Memory::at(RSP, at));
            code.vector(MOVE, register, 0, from, Options::default());
        }
        _ => {}
    }
}

/// Sets the mask of the lanes that are there, on AVX-512.
pub fn tail_mask(code: &mut Encoder) {
    code.copy(RCX, COLUMNS);
    code.subtract(RCX, COLUMN);
    code.set(RAX, !0);
    code.low_bits(RAX, RAX, RCX);
    code.vex(opcode(1, 0, 0, 0x92), false, TAIL, 0, Operand::Register(RAX), None);
}

/// The state of one class of registers.
struct Bank {
    holds: Vec<Option<Id>>,
    /// Registers that may be given out.
    open: Vec<bool>,
}

struct Allocator<'a> {
    code: &'a mut Encoder,
    block: &'a Block,
    setting: &'a Setting,
    frame: &'a mut Frame,
    vectors: Bank,
    masks: Bank,
    register: Vec<Option<u8>>,
    /// Where a value stands in the frame, if it had to go there.
    spilled: Vec<Option<i32>>,
    uses: Vec<Vec<usize>>,
    /// The end of this block's own part of the frame.
    end: i32,
    at: usize,
}

/// Writes the code of a block.
pub fn emit(code: &mut Encoder, block: &Block, setting: &Setting, frame: &mut Frame) {
    let count = block.nodes.len();
    let mut uses = vec![Vec::new(); count];
    for (at, node) in block.nodes.iter().enumerate() {
        node.args().for_each(|a| uses[a].push(at));
    }
    let registers = registers(block.target);
    let bank = |n: usize| Bank { holds: vec![None; n], open: vec![true; n] };
    let mut a = Allocator {
        end: frame.fixed,
        code,
        block,
        setting,
        frame,
        vectors: bank(registers),
        masks: bank(8),
        register: vec![None; count],
        spilled: vec![None; count],
        uses,
        at: 0,
    };
    // The first cannot be a predicate.
    (a.masks.open[0], a.masks.open[usize::from(TAIL)]) = (false, false);
    for &(node, register) in &setting.pinned {
        a.vectors.open[usize::from(register)] = false;
        if let Some(id) = block.nodes.iter().position(|&n| n == node) {
            a.register[id] = Some(register);
        }
    }
    for at in 0..count {
        a.at = at;
        a.node(at);
        a.release(at);
    }
    let end = a.end;
    frame.size = frame.size.max(end);
}

impl Allocator<'_> {
    fn bank(&mut self, mask: bool) -> &mut Bank {
        if mask { &mut self.masks } else { &mut self.vectors }
    }

    fn pinned(&self, id: Id) -> bool {
        self.setting.pinned.iter().any(|p| p.0 == self.block.nodes[id])
    }

    /// Whether this is the last use of a value that may lose its register.
    fn dies(&self, id: Id) -> bool {
        self.uses[id].last().is_none_or(|&last| last <= self.at) && !self.pinned(id)
    }

    fn next_use(&self, id: Id) -> usize {
        self.uses[id].iter().copied().find(|&u| u > self.at).unwrap_or(usize::MAX)
    }

    /// Frees the registers of operands that are not needed again.
    fn release(&mut self, at: usize) {
        let block = self.block;
        for id in block.nodes[at].args().chain([at]) {
            if self.dies(id) {
                self.drop(id);
            }
        }
    }

    fn drop(&mut self, id: Id) {
        if let Some(r) = self.register[id].take() {
            let mask = self.block.is_mask(id);
            self.bank(mask).holds[usize::from(r)] = None;
        }
    }

    /// A register, none of `locked`.
    fn take(&mut self, mask: bool, locked: &[u8]) -> u8 {
        let bank = self.bank(mask);
        let free = (0..bank.holds.len())
            .find(|&r| bank.open[r] && bank.holds[r].is_none() && !locked.contains(&(r as u8)));
        if let Some(r) = free {
            return r as u8;
        }
        let bank = if mask { &self.masks } else { &self.vectors };
        let held = bank.holds.iter().enumerate().filter(|&(r, _)| !locked.contains(&(r as u8)));
        let farthest = held.filter_map(|(r, id)| id.map(|id| (self.next_use(id), r, id))).max();
        let Some((_, r, id)) = farthest else { return 0 };
        self.evict(id);
        r as u8
    }

    /// Moves a value to the frame, if it does not stand in memory already.
    fn evict(&mut self, id: Id) {
        if let Some(r) = self.register[id]
            && self.spilled[id].is_none()
            && !self.block.nodes[id].stands()
        {
            let at = self.end;
            self.end += 64;
            self.spilled[id] = Some(at);
            self.store(id, r, at);
        }
        self.drop(id);
    }

    fn store(&mut self, id: Id, r: u8, at: i32) {
        let to = Operand::Memory(Memory::at(RSP, at));
        if self.block.is_mask(id) {
            self.code.vex(MASK_OUT, false, r, 0, to, None);
        } else {
            self.code.vector(MOVE_OUT, r, 0, to, Options::default());
        }
    }

    fn hold(&mut self, id: Id, r: u8) {
        let mask = self.block.is_mask(id);
        self.bank(mask).holds[usize::from(r)] = Some(id);
        self.register[id] = Some(r);
    }

    /// The register of a value, loading it if it is not in one.
    fn have(&mut self, id: Id, locked: &[u8]) -> u8 {
        if let Some(r) = self.register[id] {
            return r;
        }
        let node = self.block.nodes[id];
        if let (Node::Tail, Target::Avx512) = (node, self.block.target) {
            return TAIL;
        }
        let r = self.take(self.block.is_mask(id), locked);
        let from = match (self.spilled[id], node) {
            (Some(at), _) => Node::Frame { at, mask: self.block.is_mask(id) },
            (None, node) => node,
        };
        fetch(self.code, from, r);
        self.hold(id, r);
        r
    }

    /// A value as an operand that may be memory, and whether it is repeated for all lanes.
    fn operand(&mut self, id: Id) -> (Operand, bool) {
        if let Some(r) = self.register[id] {
            return (Operand::Register(r), false);
        }
        if let Some(at) = self.spilled[id] {
            return (Operand::Memory(Memory::at(RSP, at)), false);
        }
        match self.block.nodes[id] {
            Node::Constant { bits, size } => {
                let repeats = self.code.target == Target::Avx512;
                (Operand::Memory(self.code.constant(bits, size)), repeats)
            }
            Node::Frame { at, .. } => (Operand::Memory(Memory::at(RSP, at)), false),
            Node::Pool(at) => (Operand::Memory(Memory::Pool(at)), false),
            _ => (Operand::Register(self.have(id, &[])), false),
        }
    }

    /// An operand of an instruction whose elements are `wide` or not: a repeated constant of the
    /// other size needs a register.
    fn matching(&mut self, id: Id, wide: bool, locked: &[u8]) -> (Operand, bool) {
        if let Node::Constant { size, .. } = self.block.nodes[id]
            && (size == 8) != wide
        {
            return (Operand::Register(self.have(id, locked)), false);
        }
        let found = self.operand(id);
        if let (Operand::Register(_), true) = (found.0, self.register[id].is_none()) {
            return (Operand::Register(self.have(id, locked)), false);
        }
        found
    }

    fn memory(&mut self, place: Place) -> Memory {
        match place {
            Place::Frame(at) => Memory::at(RSP, at),
            Place::Operand { operand, displacement, scale } => {
                if self.setting.copied && scale.is_some() {
                    return Memory::at(
                        RSP,
                        self.frame.scratch + 64 * operand as i32 + displacement,
                    );
                }
                let base =
                    self.setting.bases.get(operand).copied().flatten().unwrap_or_else(|| {
                        self.code.load(RAX, Memory::at(TABLE, ENTRY * operand as i32));
                        RAX
                    });
                Memory::At { base, index: scale.map(|s| (COLUMN, s)), displacement }
            }
        }
    }

    /// The register that a node's value goes to: that of the partial result it replaces, if that
    /// is not needed any more.
    fn result(&mut self, id: Id) -> u8 {
        let block = self.block;
        let carry = self.uses[id].iter().find_map(|&u| match block.nodes[u] {
            Node::Carry { at, a } if a == id => Some(Node::Carried(at)),
            _ => None,
        });
        if let Some(carried) = carry
            && let Some(&(_, r)) = self.setting.pinned.iter().find(|p| p.0 == carried)
        {
            let old = block.nodes.iter().position(|&n| n == carried);
            let free = old.is_none_or(|old| self.uses[old].last().is_none_or(|&u| u <= self.at));
            if free && !block.is_mask(id) {
                self.register[id] = Some(r);
                return r;
            }
        }
        // Operands that die here may give their registers.
        self.release_args(id);
        let mask = block.is_mask(id);
        let r = self.take(mask, &[]);
        self.hold(id, r);
        r
    }

    fn release_args(&mut self, id: Id) {
        let block = self.block;
        for a in block.nodes[id].args() {
            if self.dies(a) {
                self.drop(a);
            }
        }
    }

    fn node(&mut self, id: Id) {
        let plain = Options::default();
        match self.block.nodes[id] {
            Node::Constant { .. } | Node::Pool(_) | Node::Frame { .. } | Node::Tail => {}
            Node::Carried(at) => {
                if self.register[id].is_none() {
                    let r = self.result(id);
                    fetch(self.code, Node::Carried(at), r);
                }
            }
            Node::Column => {
                let r = self.result(id);
                if self.block.target == Target::Avx512 {
                    let from = Operand::Register(COLUMN);
                    self.code.vector(opcode(2, 1, 0, 0x7c), r, 0, from, plain);
                } else {
                    let options = Options { bytes: Some(16), ..plain };
                    let from = Operand::Register(COLUMN);
                    self.code.vector(opcode(1, 1, 0, 0x6e), r, 0, from, options);
                    self.code.vector(opcode(2, 1, 0, 0x58), r, 0, Operand::Register(r), plain);
                }
            }
            Node::Load { o, place, mask } => {
                let k = mask.map_or(0, |m| self.have(m, &[]));
                let from = Operand::Memory(self.memory(place));
                let r = self.result(id);
                self.code.vector(o, r, 0, from, Options { mask: k, zero: k != 0, ..plain });
            }
            Node::Repeat { place, size } => {
                let from = Operand::Memory(self.memory(place));
                let wide = size == 8 && self.block.target == Target::Avx512;
                let o = match size {
                    8 => opcode(2, 1, u8::from(wide), 0x19),
                    4 => REPEAT32,
                    2 => opcode(2, 1, 0, 0x79),
                    _ => opcode(2, 1, 0, 0x78),
                };
                let r = self.result(id);
                self.code.vector(o, r, 0, from, plain);
            }
            Node::Unary { o, a, immediate } => {
                let a = Operand::Register(self.have(a, &[]));
                let r = self.result(id);
                self.code.vector(o, r, 0, a, Options { immediate, ..plain });
            }
            Node::Binary { o, a, b, commutes, immediate } => {
                // An operand in memory comes second.
                let turn = commutes && self.register[a].is_none() && self.register[b].is_some();
                let (a, b) = if turn { (b, a) } else { (a, b) };
                let a = self.have(a, &[]);
                let (b, broadcast) = self.matching(b, o.wide, &[a]);
                let r = self.result(id);
                self.code.vector(o, r, a, b, Options { immediate, broadcast, ..plain });
            }
            Node::Shift { o, digit, a, amount } => {
                let a = Operand::Register(self.have(a, &[]));
                let r = self.result(id);
                let options = Options { immediate: Some(amount), ..plain };
                self.code.vector(o, digit, r, a, options);
            }
            Node::Fma { wide, a, b, c } => self.fma(id, wide, a, b, c),
            Node::Compare { o, a, b, predicate } => {
                let a = self.have(a, &[]);
                let (b, broadcast) = self.matching(b, o.wide, &[a]);
                let r = self.result(id);
                let options = Options { immediate: predicate, broadcast, ..plain };
                self.code.vector(o, r, a, b, options);
            }
            Node::Blend { wide, mask, a, b } => {
                if self.block.target == Target::Avx512 {
                    let mask = self.have(mask, &[]);
                    let b = self.have(b, &[]);
                    let (a, broadcast) = self.matching(a, wide, &[b]);
                    let r = self.result(id);
                    let o = opcode(2, 1, u8::from(wide), 0x65);
                    self.code.vector(o, r, b, a, Options { mask, broadcast, ..plain });
                } else {
                    let mask = self.have(mask, &[]);
                    let b = self.have(b, &[mask]);
                    let (a, _) = self.matching(a, wide, &[mask, b]);
                    let r = self.result(id);
                    let o = opcode(3, 1, 0, if wide { 0x4b } else { 0x4a });
                    self.code.vector(o, r, b, a, Options { immediate: Some(mask << 4), ..plain });
                }
            }
            Node::Masks { o, a, b, immediate } => {
                let a = self.have(a, &[]);
                let second = b.map(|b| self.have(b, &[a]));
                let r = self.result(id);
                match second {
                    Some(b) => self.code.vex(o, true, r, a, Operand::Register(b), immediate),
                    None => self.code.vex(o, false, r, 0, Operand::Register(a), immediate),
                }
            }
            Node::Extract { o, a, immediate, bytes } => {
                let a = self.have(a, &[]);
                let r = self.result(id);
                let options = Options { immediate, bytes: Some(bytes), ..plain };
                self.code.vector(o, a, 0, Operand::Register(r), options);
            }
            Node::Store { o, place, a, mask, immediate, bytes } => {
                let a = self.have(a, &[]);
                let mask = mask.map_or(0, |m| self.have(m, &[]));
                let to = Operand::Memory(self.memory(place));
                let options = Options { mask, immediate, bytes: Some(bytes), ..plain };
                self.code.vector(o, a, 0, to, options);
            }
            Node::Prefetch { operand, scale, displacement } => {
                let entry = ENTRY * operand as i32;
                self.code.load(RAX, Memory::at(TABLE, entry));
                self.code.add_memory(RAX, Memory::at(TABLE, entry + STEP));
                let index = Some((COLUMN, scale));
                self.code.prefetch(Memory::At { base: RAX, index, displacement });
            }
            Node::Leave { at, a } => {
                let r = self.have(a, &[]);
                self.store(a, r, at);
            }
            Node::Carry { at, a } => {
                let r = self.have(a, &[]);
                let pinned = self.setting.pinned.iter().find(|p| p.0 == Node::Carried(at));
                match pinned {
                    Some(&(_, to)) if to == r => {}
                    Some(&(_, to)) => self.code.vector(MOVE, to, 0, Operand::Register(r), plain),
                    None => self.store(a, r, at),
                }
            }
            Node::Call { function, data, out, args } => self.call(function, data, out, args),
        }
    }

    fn fma(&mut self, id: Id, wide: bool, a: Id, b: Id, c: Id) {
        let o = |code: u8| opcode(2, 1, u8::from(wide), code);
        let (add_last, multiply_add) = (o(0xb8), o(0xa8));
        let ready = |s: &Self, x: Id| s.register[x].is_some() && s.dies(x);
        if ready(self, c) && c != a && c != b {
            // `c += a·b`
            let (a, b) = if self.register[a].is_none() { (b, a) } else { (a, b) };
            let to = self.have(c, &[]);
            let a = self.have(a, &[to]);
            let (b, broadcast) = self.matching(b, wide, &[a, to]);
            self.code.vector(add_last, to, a, b, Options { broadcast, ..Options::default() });
            return self.inherit(id, c, to);
        }
        let (a, b) = if ready(self, a) && a != b && a != c { (a, b) } else { (b, a) };
        if ready(self, a) && a != b && a != c {
            // `a = b·a + c`
            let to = self.have(a, &[]);
            let b = self.have(b, &[to]);
            let (c, broadcast) = self.matching(c, wide, &[b, to]);
            self.code.vector(multiply_add, to, b, c, Options { broadcast, ..Options::default() });
            return self.inherit(id, a, to);
        }
        let (a, b) = if self.register[b].is_none() { (b, a) } else { (a, b) };
        let second = self.have(b, &[]);
        let (from, repeats) = self.operand(a);
        let (c, broadcast) = self.matching(c, wide, &[second]);
        // Not the register of an operand: all are still needed.
        let mut locked = vec![second];
        locked.extend([from, c].iter().filter_map(|x| match x {
            Operand::Register(r) => Some(*r),
            Operand::Memory(_) => None,
        }));
        let to = self.take(false, &locked);
        match repeats {
            true => fetch(self.code, self.block.nodes[a], to),
            false => self.code.vector(MOVE, to, 0, from, Options::default()),
        }
        self.code.vector(multiply_add, to, second, c, Options { broadcast, ..Options::default() });
        self.hold(id, to);
    }

    /// Makes a register hold the result that has replaced an operand.
    fn inherit(&mut self, id: Id, from: Id, r: u8) {
        self.register[from] = None;
        self.hold(id, r);
    }

    fn call(&mut self, function: usize, data: usize, out: i32, args: i32) {
        let live: Vec<Id> =
            self.vectors.holds.iter().chain(&self.masks.holds).flatten().copied().collect();
        for id in live {
            self.evict(id);
        }
        self.code.set(RDI, data as u64);
        self.code.address(RSI, Memory::at(RSP, out));
        self.code.address(RDX, Memory::at(RSP, args));
        self.code.set(RAX, function as u64);
        self.code.clean();
        self.code.call(RAX);
        if self.block.nodes.contains(&Node::Tail) && self.block.target == Target::Avx512 {
            tail_mask(self.code);
        }
    }
}
