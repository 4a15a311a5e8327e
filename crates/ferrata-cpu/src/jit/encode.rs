//! Encodes the instructions of x86-64 that generated kernels are made of.
//!
//! Displacements always take four bytes, so that the length of an instruction is known before its
//! operands are placed.

use std::collections::HashMap;

/// A general-purpose register, by number.
pub type Gpr = u8;
pub const RAX: Gpr = 0;
pub const RCX: Gpr = 1;
pub const RDX: Gpr = 2;
pub const RBX: Gpr = 3;
pub const RSP: Gpr = 4;
pub const RBP: Gpr = 5;
pub const RSI: Gpr = 6;
pub const RDI: Gpr = 7;
pub const R8: Gpr = 8;
pub const R9: Gpr = 9;
pub const R10: Gpr = 10;
pub const R11: Gpr = 11;
pub const R12: Gpr = 12;
pub const R13: Gpr = 13;
pub const R14: Gpr = 14;
pub const R15: Gpr = 15;

/// Vectors of which extension, and so of which size, code is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Avx2,
    Avx512,
}

impl Target {
    /// Bytes of a vector.
    pub fn bytes(self) -> usize {
        match self {
            Target::Avx2 => 32,
            Target::Avx512 => 64,
        }
    }

    /// Elements of 32 bits in a vector.
    pub fn lanes(self) -> usize {
        self.bytes() / 4
    }
}

/// A vector instruction: opcode map, mandatory prefix, W bit, opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode {
    pub map: u8,
    pub prefix: u8,
    pub wide: bool,
    pub code: u8,
}

/// An opcode from its map (1 is 0F, 2 is 0F38, 3 is 0F3A), prefix (1 is 66, 2 is F3, 3 is F2), W
/// and code.
pub const fn opcode(map: u8, prefix: u8, w: u8, code: u8) -> Opcode {
    Opcode { map, prefix, wide: w == 1, code }
}

/// A place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// `base + index · 2^scale + displacement`.
    At { base: Gpr, index: Option<(Gpr, u8)>, displacement: i32 },
    /// In the constants that follow the code.
    Pool(usize),
}

impl Memory {
    /// `base + displacement`.
    pub fn at(base: Gpr, displacement: i32) -> Memory {
        Memory::At { base, index: None, displacement }
    }
}

/// The operand that may be memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Register(u8),
    Memory(Memory),
}

/// What an instruction does beside its opcode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Lanes that are written; 0 is all.
    pub mask: u8,
    /// Whether lanes that are not written become 0.
    pub zero: bool,
    /// Whether memory holds one element for all lanes.
    pub broadcast: bool,
    pub immediate: Option<u8>,
    /// Bytes of a vector, if not the target's.
    pub bytes: Option<usize>,
}

/// When a jump is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Equal,
    Below,
    NotBelow,
    NotEqual,
}

/// A place in the code that jumps go to.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// Code being written.
#[derive(Debug)]
pub struct Encoder {
    pub target: Target,
    code: Vec<u8>,
    labels: Vec<Option<usize>>,
    /// Where a jump's distance stands, and its label.
    jumps: Vec<(usize, usize)>,
    pool: Vec<u8>,
    /// Where the distance of a constant stands, where its instruction ends, and which it is.
    constants: Vec<(usize, usize, usize)>,
    known: HashMap<(u64, usize), usize>,
}

impl Encoder {
    pub fn new(target: Target) -> Encoder {
        Encoder {
            target,
            code: Vec::new(),
            labels: Vec::new(),
            jumps: Vec::new(),
            pool: Vec::new(),
            constants: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// A constant of 4 or 8 bytes in the pool: one element where instructions can repeat it, else
    /// a whole vector.
    pub fn constant(&mut self, bits: u64, size: usize) -> Memory {
        if let Some(&at) = self.known.get(&(bits, size)) {
            return Memory::Pool(at);
        }
        let repeats = if self.target == Target::Avx512 { 1 } else { self.target.bytes() / size };
        let at = self.data(&bits.to_le_bytes()[..size].repeat(repeats));
        self.known.insert((bits, size), at);
        Memory::Pool(at)
    }

    /// Places bytes in the pool.
    pub fn data(&mut self, bytes: &[u8]) -> usize {
        let align = bytes.len().next_power_of_two().min(64);
        self.pool.resize(self.pool.len().next_multiple_of(align), 0);
        self.pool.extend_from_slice(bytes);
        self.pool.len() - bytes.len()
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Where the next instruction will stand.
    pub fn position(&self) -> usize {
        self.code.len()
    }

    /// Replaces the four bytes before a position.
    pub fn patch(&mut self, end: usize, value: i32) {
        self.code[end - 4..end].copy_from_slice(&value.to_le_bytes());
    }

    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// The code, its jumps resolved and its constants behind it.
    pub fn finish(mut self) -> Vec<u8> {
        for &(at, label) in &self.jumps {
            let to = self.labels[label].unwrap_or(at);
            let distance = to as i32 - (at as i32 + 4);
            self.code[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        self.code.resize(self.code.len().next_multiple_of(64), 0xcc);
        let pool = self.code.len();
        for &(at, end, constant) in &self.constants {
            let distance = (pool + constant) as i32 - end as i32;
            self.code[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        self.code.extend_from_slice(&self.pool);
        self.code
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// ModRM, SIB and displacement, then the immediate.
    fn operands(&mut self, register: u8, operand: Operand, immediate: Option<u8>) {
        let reg = (register & 7) << 3;
        match operand {
            Operand::Register(r) => self.bytes(&[0xc0 | reg | r & 7]),
            Operand::Memory(Memory::Pool(constant)) => {
                self.bytes(&[reg | 5]);
                let at = self.code.len();
                self.bytes(&[0; 4]);
                self.constants.push((at, at + 4 + usize::from(immediate.is_some()), constant));
            }
            Operand::Memory(Memory::At { base, index, displacement }) => {
                match index {
                    Some((index, scale)) => {
                        self.bytes(&[0x80 | reg | 4, scale << 6 | (index & 7) << 3 | base & 7]);
                    }
                    None if base & 7 == RSP => self.bytes(&[0x80 | reg | 4, 0x24]),
                    None => self.bytes(&[0x80 | reg | base & 7]),
                }
                self.bytes(&displacement.to_le_bytes());
            }
        }
        self.code.extend(immediate);
    }

    /// The high bits of index and base, or of a register that stands where memory may.
    fn high(operand: Operand) -> (u8, u8) {
        match operand {
            Operand::Register(r) => (r >> 4 & 1, r >> 3 & 1),
            Operand::Memory(Memory::Pool(_)) => (0, 0),
            Operand::Memory(Memory::At { base, index, .. }) => {
                (index.map_or(0, |(i, _)| i >> 3 & 1), base >> 3 & 1)
            }
        }
    }

    /// A vector instruction, in the encoding of the target.
    pub fn vector(&mut self, o: Opcode, reg: u8, second: u8, operand: Operand, options: Options) {
        match self.target {
            Target::Avx2 => {
                let long = options.bytes.unwrap_or(32) == 32;
                self.vex(o, long, reg, second, operand, options.immediate);
            }
            Target::Avx512 => self.evex(o, reg, second, operand, options),
        }
    }

    fn evex(&mut self, o: Opcode, reg: u8, second: u8, operand: Operand, options: Options) {
        let (x, b) = Self::high(operand);
        let length = match options.bytes.unwrap_or(64) {
            64 => 2,
            32 => 1,
            _ => 0,
        };
        self.bytes(&[
            0x62,
            (!reg >> 3 & 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | (!reg >> 4 & 1) << 4 | o.map,
            u8::from(o.wide) << 7 | (!second & 15) << 3 | 4 | o.prefix,
            u8::from(options.zero) << 7
                | length << 5
                | u8::from(options.broadcast) << 4
                | (!second >> 4 & 1) << 3
                | options.mask,
            o.code,
        ]);
        self.operands(reg, operand, options.immediate);
    }

    /// An instruction in the older encoding: of AVX2, of masks, and some of general registers.
    pub fn vex(
        &mut self,
        o: Opcode,
        long: bool,
        reg: u8,
        second: u8,
        operand: Operand,
        immediate: Option<u8>,
    ) {
        let (x, b) = Self::high(operand);
        // A register has no bit in place of the index.
        let x = if matches!(operand, Operand::Register(_)) { 0 } else { x };
        self.bytes(&[
            0xc4,
            (!reg >> 3 & 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | o.map,
            u8::from(o.wide) << 7 | (!second & 15) << 3 | u8::from(long) << 2 | o.prefix,
            o.code,
        ]);
        self.operands(reg, operand, immediate);
    }

    /// A 64-bit instruction on general registers.
    fn general(&mut self, code: u8, reg: Gpr, operand: Operand) {
        let (x, b) = Self::high(operand);
        let x = if matches!(operand, Operand::Register(_)) { 0 } else { x };
        self.bytes(&[0x48 | (reg >> 3 & 1) << 2 | x << 1 | b, code]);
        self.operands(reg, operand, None);
    }

    /// `to = [from]`
    pub fn load(&mut self, to: Gpr, from: Memory) {
        self.general(0x8b, to, Operand::Memory(from));
    }

    /// `[to] = from`
    pub fn store(&mut self, to: Memory, from: Gpr) {
        self.general(0x89, from, Operand::Memory(to));
    }

    /// `to += [from]`
    pub fn add_memory(&mut self, to: Gpr, from: Memory) {
        self.general(0x03, to, Operand::Memory(from));
    }

    /// `to = from`
    pub fn copy(&mut self, to: Gpr, from: Gpr) {
        self.general(0x8b, to, Operand::Register(from));
    }

    /// `to -= from`
    pub fn subtract(&mut self, to: Gpr, from: Gpr) {
        self.general(0x2b, to, Operand::Register(from));
    }

    /// `to = ` the address of `from`
    pub fn address(&mut self, to: Gpr, from: Memory) {
        self.general(0x8d, to, Operand::Memory(from));
    }

    /// Brings a line of memory to the second-level cache.
    pub fn prefetch(&mut self, from: Memory) {
        let (x, b) = Self::high(Operand::Memory(from));
        self.bytes(&[0x40 | x << 1 | b, 0x0f, 0x18]);
        self.operands(2, Operand::Memory(from), None);
    }

    /// Ends the streaming stores before it ahead of all stores behind it.
    pub fn fence(&mut self) {
        self.bytes(&[0x0f, 0xae, 0xf8]);
    }

    /// `to += value`
    pub fn add(&mut self, to: Gpr, value: i32) {
        self.general(0x81, 0, Operand::Register(to));
        self.bytes(&value.to_le_bytes());
    }

    /// `to &= value`
    pub fn and(&mut self, to: Gpr, value: i32) {
        self.general(0x81, 4, Operand::Register(to));
        self.bytes(&value.to_le_bytes());
    }

    /// Compares for the next jump.
    pub fn compare(&mut self, left: Gpr, right: Gpr) {
        self.general(0x3b, left, Operand::Register(right));
    }

    /// Compares for the next jump.
    pub fn compare_memory(&mut self, left: Gpr, right: Memory) {
        self.general(0x3b, left, Operand::Memory(right));
    }

    /// Compares for the next jump.
    pub fn compare_value(&mut self, left: Gpr, right: i32) {
        self.general(0x81, 7, Operand::Register(left));
        self.bytes(&right.to_le_bytes());
    }

    /// `to = value`
    pub fn set(&mut self, to: Gpr, value: u64) {
        self.bytes(&[0x48 | to >> 3, 0xb8 | to & 7]);
        self.bytes(&value.to_le_bytes());
    }

    /// `to = ` the lowest `count` bits of `from`
    pub fn low_bits(&mut self, to: Gpr, from: Gpr, count: Gpr) {
        self.vex(opcode(2, 0, 1, 0xf5), false, to, count, Operand::Register(from), None);
    }

    pub fn call(&mut self, to: Gpr) {
        self.bytes(&[0x40 | to >> 3, 0xff, 0xd0 | to & 7]);
    }

    pub fn push(&mut self, r: Gpr) {
        self.bytes(&[0x40 | r >> 3, 0x50 | r & 7]);
    }

    pub fn pop(&mut self, r: Gpr) {
        self.bytes(&[0x40 | r >> 3, 0x58 | r & 7]);
    }

    /// Leaves the upper parts of vector registers clean, as other code expects.
    pub fn clean(&mut self) {
        self.bytes(&[0xc5, 0xf8, 0x77]);
    }

    pub fn ret(&mut self) {
        self.bytes(&[0xc3]);
    }

    pub fn jump(&mut self, when: When, to: Label) {
        match when {
            When::Always => self.bytes(&[0xe9]),
            When::Equal => self.bytes(&[0x0f, 0x84]),
            When::NotEqual => self.bytes(&[0x0f, 0x85]),
            When::Below => self.bytes(&[0x0f, 0x82]),
            When::NotBelow => self.bytes(&[0x0f, 0x83]),
        }
        self.jumps.push((self.code.len(), to.0));
        self.bytes(&[0; 4]);
    }
}
