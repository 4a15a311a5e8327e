//! Registers of the kernel language as vectors: for each kind of register and scalar operation
//! the instructions that work on as many lanes as a vector has elements of 32 bits.
//!
//! Elements of 64 bits take two vectors. Narrow integers are kept as 32 bits, in the range of
//! their type; truth values as masks.

use super::math;
use crate::exec::tile::ops::Kind;
use crate::jit::block::{Block, Id, Node, Place};
use crate::jit::encode::{Opcode, Target, opcode};
use ferrata_ir::DType;
use ferrata_ir::primitive::{ReduceKind, ScalarOp};

/// The lanes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    One(Id),
    /// The first and the second half of the lanes.
    Two([Id; 2]),
}

impl Lanes {
    /// The vectors.
    pub fn parts(&self) -> &[Id] {
        match self {
            Lanes::One(x) => std::slice::from_ref(x),
            Lanes::Two(x) => x,
        }
    }

    /// The vector of a value that has one.
    pub fn one(self) -> Id {
        match self {
            Lanes::One(x) | Lanes::Two([x, _]) => x,
        }
    }

    fn zip(self, other: Lanes, mut f: impl FnMut(Id, Id) -> Id) -> Lanes {
        match (self, other) {
            (Lanes::Two([a, b]), Lanes::Two([c, d])) => Lanes::Two([f(a, c), f(b, d)]),
            (a, b) => Lanes::One(f(a.one(), b.one())),
        }
    }

    fn map(self, mut f: impl FnMut(Id) -> Id) -> Lanes {
        match self {
            Lanes::One(a) => Lanes::One(f(a)),
            Lanes::Two([a, b]) => Lanes::Two([f(a), f(b)]),
        }
    }
}

/// Predicates of float comparisons.
pub(super) const EQUAL: u8 = 0x00;
pub(super) const BELOW: u8 = 0x11;
const NOT_ABOVE: u8 = 0x12;
const UNORDERED: u8 = 0x03;
const NOT_EQUAL: u8 = 0x04;
const NOT_BELOW: u8 = 0x1d;
const ABOVE: u8 = 0x1e;

/// Roundings to integers, without exceptions.
const NEAREST: u8 = 0x08;
const DOWN: u8 = 0x09;
const UP: u8 = 0x0a;
const TO_ZERO: u8 = 0x0b;

/// Whether elements take 64 bits.
pub(super) fn is_wide(kind: Kind) -> bool {
    kind.size() == 8
}

/// An opcode that exists for f32 and, with another prefix, for f64.
pub(super) const fn float(code: u8, wide: bool) -> Opcode {
    opcode(1, wide as u8, wide as u8, code)
}

/// An opcode on integers of 32 or 64 bits.
const fn integer(map: u8, code: u8, wide: bool) -> Opcode {
    opcode(map, 1, wide as u8, code)
}

const ADD32: Opcode = integer(1, 0xfe, false);
const SUB32: Opcode = integer(1, 0xfa, false);
const ADD64: Opcode = integer(1, 0xd4, true);
const SUB64: Opcode = integer(1, 0xfb, true);
pub(super) const SHIFT32: Opcode = opcode(1, 1, 0, 0x72);

fn float_bits(kind: Kind, x: f64) -> u64 {
    if kind == Kind::F64 { x.to_bits() } else { u64::from((x as f32).to_bits()) }
}

/// Writes values as nodes of a block.
pub(super) struct Writer<'a> {
    pub block: &'a mut Block,
    /// The lanes that are there, in the last part of a row.
    pub tail: Option<Id>,
    /// Whether what is stored has been rounded to its dtype.
    pub rounded: bool,
    /// Whether whole vectors are stored past the caches.
    pub streams: bool,
}

impl Writer<'_> {
    fn target(&self) -> Target {
        self.block.target
    }

    fn avx512(&self) -> bool {
        self.target() == Target::Avx512
    }

    /// The bits of an element in all lanes.
    pub fn constant(&mut self, kind: Kind, bits: u64) -> Lanes {
        match kind {
            Kind::F64 | Kind::I64 => {
                let x = self.block.constant64(bits);
                Lanes::Two([x, x])
            }
            Kind::Bool => {
                let x = self.block.constant32(u32::from(bits & 1 != 0));
                Lanes::One(self.nonzero(x))
            }
            Kind::I8 => Lanes::One(self.block.constant32(bits as i8 as i32 as u32)),
            Kind::I16 => Lanes::One(self.block.constant32(bits as i16 as i32 as u32)),
            Kind::U8 => Lanes::One(self.block.constant32(u32::from(bits as u8))),
            _ => Lanes::One(self.block.constant32(bits as u32)),
        }
    }

    /// The mask of lanes that are not 0, in vectors of integers that are not negative.
    fn nonzero(&mut self, x: Id) -> Id {
        if self.avx512() {
            let o = integer(2, 0x27, false);
            return self.block.add(Node::Compare { o, a: x, b: x, predicate: None });
        }
        let zero = self.block.constant32(0);
        self.block.binary(integer(1, 0x66, false), x, zero)
    }

    /// The second half of a vector.
    fn high(&mut self, a: Id) -> Id {
        let (o, bytes) =
            if self.avx512() { (opcode(3, 1, 1, 0x3b), 64) } else { (opcode(3, 1, 0, 0x39), 32) };
        self.block.add(Node::Extract { o, a, immediate: Some(1), bytes })
    }

    /// A vector of two halves.
    fn join(&mut self, a: Id, b: Id) -> Id {
        let o = if self.avx512() { opcode(3, 1, 1, 0x3a) } else { opcode(3, 1, 0, 0x38) };
        self.block.add(Node::Binary { o, a, b, commutes: false, immediate: Some(1) })
    }

    /// The masks of the halves of a mask.
    fn split_mask(&mut self, m: Id) -> [Id; 2] {
        if self.avx512() {
            let o = opcode(3, 1, 1, 0x30);
            let high = self.block.add(Node::Masks { o, a: m, b: None, immediate: Some(8) });
            return [m, high];
        }
        let high = self.high(m);
        [m, high].map(|x| self.block.unary(opcode(2, 1, 0, 0x25), x))
    }

    /// The low 32 bits of 64-bit elements.
    fn low32(&mut self, [a, b]: [Id; 2]) -> Id {
        if self.avx512() {
            let o = opcode(2, 2, 0, 0x35);
            let [a, b] =
                [a, b].map(|a| self.block.add(Node::Extract { o, a, immediate: None, bytes: 64 }));
            return self.join(a, b);
        }
        let o = opcode(1, 0, 0, 0xc6);
        let both = Node::Binary { o, a, b, commutes: false, immediate: Some(0x88) };
        let a = self.block.add(both);
        self.block.add(Node::Unary { o: opcode(3, 1, 1, 0x00), a, immediate: Some(0xd8) })
    }

    /// One mask of the masks of two halves.
    fn join_masks(&mut self, [a, b]: [Id; 2]) -> Id {
        if self.avx512() {
            let o = opcode(1, 1, 0, 0x4b);
            return self.block.add(Node::Masks { o, a: b, b: Some(a), immediate: None });
        }
        self.low32([a, b])
    }

    fn joined(&mut self, masks: Lanes) -> Lanes {
        match masks {
            Lanes::Two(parts) => Lanes::One(self.join_masks(parts)),
            one => one,
        }
    }

    /// Elements of a column and those after it.
    pub fn load(&mut self, dtype: DType, operand: usize, lane: usize) -> Lanes {
        let size = dtype.size();
        let scale = Some(size.trailing_zeros() as u8);
        let place =
            |lane: usize| Place::Operand { operand, scale, displacement: (lane * size) as i32 };
        self.load_from(dtype, place, lane)
    }

    /// Elements that a call has left in the frame.
    fn load_frame(&mut self, kind: Kind, at: i32) -> Lanes {
        let size = kind.size();
        let tail = self.tail.take();
        let x = self.load_from(kind.dtype(), |lane| Place::Frame(at + (lane * size) as i32), 0);
        self.tail = tail;
        x
    }

    fn load_from(&mut self, dtype: DType, place: impl Fn(usize) -> Place, lane: usize) -> Lanes {
        let tail = self.tail.filter(|_| self.avx512());
        if dtype.size() == 8 {
            let half = self.target().lanes() / 2;
            let masks = tail.map(|t| self.split_mask(t));
            return Lanes::Two([0, 1].map(|part| {
                let (o, place) = (opcode(1, 1, 1, 0x10), place(lane + part * half));
                self.block.add(Node::Load { o, place, mask: masks.map(|m| m[part]) })
            }));
        }
        let o = match dtype {
            DType::BF16 => opcode(2, 1, 0, 0x33),
            DType::F16 => opcode(2, 1, 0, 0x13),
            DType::I16 => opcode(2, 1, 0, 0x23),
            DType::I8 => opcode(2, 1, 0, 0x21),
            DType::U8 | DType::Bool => opcode(2, 1, 0, 0x31),
            _ => opcode(1, 0, 0, 0x10),
        };
        let x = self.block.add(Node::Load { o, place: place(lane), mask: tail });
        Lanes::One(match dtype {
            DType::BF16 => self.block.shift(SHIFT32, 6, x, 16),
            DType::Bool => self.nonzero(x),
            _ => x,
        })
    }

    /// One element of the current row in all lanes.
    pub fn repeat(&mut self, dtype: DType, operand: usize) -> Lanes {
        let place = Place::Operand { operand, scale: None, displacement: 0 };
        let x = self.block.add(Node::Repeat { place, size: dtype.size() });
        let b = &mut *self.block;
        Lanes::One(match dtype {
            DType::F64 | DType::I64 => return Lanes::Two([x, x]),
            DType::BF16 => b.shift(SHIFT32, 6, x, 16),
            DType::F16 => b.unary(opcode(2, 1, 0, 0x13), x),
            DType::I16 => self.wrap(Kind::I16, x),
            DType::I8 => self.wrap(Kind::I8, x),
            DType::U8 => self.wrap(Kind::U8, x),
            DType::Bool => {
                let x = self.wrap(Kind::U8, x);
                self.nonzero(x)
            }
            _ => x,
        })
    }

    /// Brings an integer back into the range of its type.
    fn wrap(&mut self, kind: Kind, x: Id) -> Id {
        let signed = |b: &mut Block, amount: u8| {
            let x = b.shift(SHIFT32, 6, x, amount);
            b.shift(SHIFT32, 4, x, amount)
        };
        match kind {
            Kind::I8 => signed(self.block, 24),
            Kind::I16 => signed(self.block, 16),
            Kind::U8 => {
                let low = self.block.constant32(0xff);
                self.block.and(x, low)
            }
            _ => x,
        }
    }

    /// f32 as bf16 in the upper half of its bits, the lower half being arbitrary.
    fn round_bf16(&mut self, x: Id) -> Id {
        let nan = self.compare_float(false, UNORDERED, x, x);
        let b = &mut *self.block;
        let [one, half, quiet] = [1, 0x7fff, 0x0040_0000].map(|c| b.constant32(c));
        let low = b.shift(SHIFT32, 2, x, 16);
        let low = b.and(low, one);
        let low = b.symmetric(ADD32, low, half);
        let rounded = b.symmetric(ADD32, x, low);
        let quiet = b.or(x, quiet);
        b.add(Node::Blend { wide: false, mask: nan, a: quiet, b: rounded })
    }

    /// What is stored for a value in elements narrower than 32 bits.
    fn narrow(&mut self, dtype: DType, x: Id) -> Id {
        match dtype {
            DType::BF16 => {
                let x = if self.rounded { x } else { self.round_bf16(x) };
                self.block.shift(SHIFT32, 2, x, 16)
            }
            DType::Bool => self.truth(x),
            _ => x,
        }
    }

    /// 1 where the mask is set, else 0.
    fn truth(&mut self, mask: Id) -> Id {
        let [a, b] = [1, 0].map(|c| self.block.constant32(c));
        self.block.add(Node::Blend { wide: false, mask, a, b })
    }

    /// Writes elements of a column and those after it.
    pub fn store(&mut self, dtype: DType, operand: usize, lane: usize, x: Lanes) {
        let size = dtype.size();
        let scale = Some(size.trailing_zeros() as u8);
        self.store_to(
            dtype,
            |lane| Place::Operand { operand, scale, displacement: (lane * size) as i32 },
            lane,
            x,
        );
    }

    fn store_frame(&mut self, kind: Kind, at: i32, x: Lanes) {
        let size = kind.size();
        let tail = self.tail.take();
        self.store_to(kind.dtype(), |lane| Place::Frame(at + (lane * size) as i32), 0, x);
        self.tail = tail;
    }

    fn store_to(&mut self, dtype: DType, place: impl Fn(usize) -> Place, lane: usize, x: Lanes) {
        let (bytes, half) = (self.target().bytes(), self.target().lanes() / 2);
        let mask = self.tail.filter(|_| self.avx512());
        let store = if self.streams && self.tail.is_none() { 0x2b } else { 0x11 };
        if dtype.size() == 8 {
            let masks = mask.map(|t| self.split_mask(t));
            for (part, &a) in x.parts().iter().enumerate() {
                let (o, place) = (opcode(1, 1, 1, store), place(lane + part * half));
                let mask = masks.map(|m| m[part]);
                self.block.add(Node::Store { o, place, a, mask, immediate: None, bytes });
            }
            return;
        }
        let place = place(lane);
        let a = self.narrow(dtype, x.one());
        let mut write = |o, a, immediate, bytes| {
            self.block.add(Node::Store { o, place, a, mask, immediate, bytes });
        };
        match dtype.size() {
            4 => write(opcode(1, 0, 0, store), a, None, bytes),
            _ if dtype == DType::F16 => write(opcode(3, 1, 0, 0x1d), a, Some(0), bytes),
            2 if bytes == 64 => write(opcode(2, 2, 0, 0x33), a, None, bytes),
            _ if bytes == 64 => write(opcode(2, 2, 0, 0x31), a, None, bytes),
            size => {
                let low = self.block.constant32(if size == 2 { 0xffff } else { 0xff });
                let a = self.block.and(a, low);
                let high = self.high(a);
                let pack = |block: &mut Block, o, a, b| {
                    let node = Node::Binary { o, a, b, commutes: false, immediate: None };
                    block.add(node)
                };
                // On whole vectors, the lower halves of which count.
                let words = pack(self.block, opcode(2, 1, 0, 0x2b), a, high);
                if size == 2 {
                    let o = opcode(1, 0, 0, 0x11);
                    self.block.add(Node::Store {
                        o,
                        place,
                        a: words,
                        mask,
                        immediate: None,
                        bytes: 16,
                    });
                } else {
                    let a = pack(self.block, opcode(1, 1, 0, 0x67), words, words);
                    let o = opcode(1, 1, 0, 0xd6);
                    self.block.add(Node::Store { o, place, a, mask, immediate: None, bytes: 16 });
                }
            }
        }
    }

    /// Writes the first lane as the element of the current row.
    pub fn store_first(&mut self, dtype: DType, operand: usize, x: Lanes) {
        let place = Place::Operand { operand, scale: None, displacement: 0 };
        let mut a = self.narrow(dtype, x.one());
        if dtype == DType::F16 {
            let o = opcode(3, 1, 0, 0x1d);
            a = self.block.add(Node::Extract { o, a, immediate: Some(0), bytes: 16 });
        }
        let (o, immediate) = match dtype.size() {
            8 => (opcode(1, 3, 1, 0x11), None),
            4 => (opcode(1, 2, 0, 0x11), None),
            2 => (opcode(3, 1, 0, 0x15), Some(0)),
            _ => (opcode(3, 1, 0, 0x14), Some(0)),
        };
        self.block.add(Node::Store { o, place, a, mask: None, immediate, bytes: 16 });
    }

    pub fn compare_float(&mut self, wide: bool, predicate: u8, a: Id, b: Id) -> Id {
        let o = float(0xc2, wide);
        if self.avx512() {
            return self.block.add(Node::Compare { o, a, b, predicate: Some(predicate) });
        }
        let immediate = Some(predicate);
        self.block.add(Node::Binary { o, a, b, commutes: false, immediate })
    }

    fn compare_integer(&mut self, kind: Kind, op: ScalarOp, a: Id, b: Id) -> Id {
        let wide = is_wide(kind);
        if self.avx512() {
            let predicate = match op {
                ScalarOp::Eq => 0,
                ScalarOp::Lt => 1,
                ScalarOp::Le => 2,
                ScalarOp::Ne => 4,
                ScalarOp::Ge => 5,
                _ => 6,
            };
            let o = integer(3, if kind == Kind::U32 { 0x1e } else { 0x1f }, wide);
            return self.block.add(Node::Compare { o, a, b, predicate: Some(predicate) });
        }
        let (mut a, mut b) = (a, b);
        if kind == Kind::U32 {
            let sign = self.block.constant32(1 << 31);
            (a, b) = (self.block.xor(a, sign), self.block.xor(b, sign));
        }
        let (equal, above) = match wide {
            true => (integer(2, 0x29, true), integer(2, 0x37, true)),
            false => (integer(1, 0x76, false), integer(1, 0x66, false)),
        };
        let (o, a, b, not) = match op {
            ScalarOp::Eq => (equal, a, b, false),
            ScalarOp::Ne => (equal, a, b, true),
            ScalarOp::Gt => (above, a, b, false),
            ScalarOp::Le => (above, a, b, true),
            ScalarOp::Lt => (above, b, a, false),
            _ => (above, b, a, true),
        };
        let m = self.block.binary(o, a, b);
        if not { self.block.not(m) } else { m }
    }

    fn compare(&mut self, op: ScalarOp, kind: Kind, x: Lanes, y: Lanes) -> Lanes {
        let masks = x.zip(y, |x, y| match kind {
            Kind::F32 | Kind::F64 => {
                let predicate = match op {
                    ScalarOp::Eq => EQUAL,
                    ScalarOp::Ne => NOT_EQUAL,
                    ScalarOp::Lt => BELOW,
                    ScalarOp::Le => NOT_ABOVE,
                    ScalarOp::Gt => ABOVE,
                    _ => NOT_BELOW,
                };
                self.compare_float(kind == Kind::F64, predicate, x, y)
            }
            _ => self.compare_integer(kind, op, x, y),
        });
        self.joined(masks)
    }

    /// `mask ? x : y`
    pub fn select(&mut self, kind: Kind, mask: Id, x: Lanes, y: Lanes) -> Lanes {
        match (x, y) {
            (Lanes::Two(x), Lanes::Two(y)) => {
                let masks = self.split_mask(mask);
                Lanes::Two([0, 1].map(|i| {
                    let node = Node::Blend { wide: true, mask: masks[i], a: x[i], b: y[i] };
                    self.block.add(node)
                }))
            }
            (x, y) if kind == Kind::Bool => {
                let (x, y, b) = (x.one(), y.one(), &mut *self.block);
                let x = b.and(mask, x);
                let not = b.not(mask);
                let y = b.and(not, y);
                Lanes::One(b.or(x, y))
            }
            (x, y) => Lanes::One(self.block.add(Node::Blend {
                wide: false,
                mask,
                a: x.one(),
                b: y.one(),
            })),
        }
    }

    /// An operation on registers of a kind; `None` where it takes a call.
    pub fn apply(&mut self, op: ScalarOp, kind: Kind, args: &[Lanes]) -> Option<Lanes> {
        use ScalarOp::*;
        match (op, args) {
            (Select, &[mask, x, y]) => Some(self.select(kind, mask.one(), x, y)),
            (_, &[x, y]) => match kind {
                Kind::Bool => self.truths(op, x.one(), y.one()).map(Lanes::One),
                _ if matches!(op, Eq | Ne | Lt | Le | Gt | Ge) => {
                    Some(self.compare(op, kind, x, y))
                }
                Kind::F32 | Kind::F64 => self.float_binary(op, kind, x, y),
                _ => self.integer_binary(op, kind, x, y),
            },
            (_, &[x]) => match kind {
                Kind::Bool => (op == Not).then(|| Lanes::One(self.block.not(x.one()))),
                Kind::F32 | Kind::F64 => self.float_unary(op, kind, x),
                _ => self.integer_unary(op, kind, x),
            },
            _ => None,
        }
    }

    fn truths(&mut self, op: ScalarOp, x: Id, y: Id) -> Option<Id> {
        use ScalarOp::*;
        let b = &mut *self.block;
        Some(match op {
            And => b.and(x, y),
            Or => b.or(x, y),
            Xor | Ne => b.xor(x, y),
            Eq => {
                let different = b.xor(x, y);
                b.not(different)
            }
            Lt | Ge => {
                let not = b.not(x);
                let below = b.and(not, y);
                if op == Lt { below } else { b.not(below) }
            }
            Gt | Le | Shr => {
                let not = b.not(y);
                let above = b.and(x, not);
                if op == Le { b.not(above) } else { above }
            }
            Shl => x,
            _ => return None,
        })
    }

    fn float_binary(&mut self, op: ScalarOp, kind: Kind, x: Lanes, y: Lanes) -> Option<Lanes> {
        use ScalarOp::*;
        let wide = is_wide(kind);
        let code = match op {
            Add => 0x58,
            Mul => 0x59,
            Sub => 0x5c,
            Div => 0x5e,
            Max => 0x5f,
            Min => 0x5d,
            _ => return None,
        };
        let o = float(code, wide);
        Some(x.zip(y, |x, y| match op {
            Add | Mul => self.block.symmetric(o, x, y),
            Max | Min => {
                // The instruction gives the second operand if one is NaN.
                let z = self.block.binary(o, x, y);
                let mask = self.compare_float(wide, UNORDERED, x, x);
                self.block.add(Node::Blend { wide, mask, a: x, b: z })
            }
            _ => self.block.binary(o, x, y),
        }))
    }

    fn float_unary(&mut self, op: ScalarOp, kind: Kind, x: Lanes) -> Option<Lanes> {
        use ScalarOp::*;
        let wide = is_wide(kind);
        let sign = self.constant(kind, float_bits(kind, -0.0)).one();
        let number = |w: &mut Self, x: f64| w.constant(kind, float_bits(kind, x)).one();
        let round = match op {
            Floor => Some(DOWN),
            Ceil => Some(UP),
            Round => Some(NEAREST),
            Trunc => Some(TO_ZERO),
            _ => None,
        };
        let root = float(0x51, wide);
        if let Some(immediate) = round {
            let o = integer(3, if wide { 0x09 } else { 0x08 }, wide);
            return Some(
                x.map(|a| self.block.add(Node::Unary { o, a, immediate: Some(immediate) })),
            );
        }
        Some(match op {
            Neg => x.map(|x| self.block.xor(x, sign)),
            Abs => x.map(|x| self.block.and_not(sign, x)),
            Sqrt => x.map(|x| self.block.unary(root, x)),
            Rsqrt => {
                let one = number(self, 1.0);
                x.map(|x| {
                    let root = self.block.unary(root, x);
                    self.block.binary(float(0x5e, wide), one, root)
                })
            }
            Sign => {
                let [zero, one, less] = [0.0, 1.0, -1.0].map(|c| number(self, c));
                x.map(|x| {
                    let above = self.compare_float(wide, ABOVE, x, zero);
                    let below = self.compare_float(wide, BELOW, x, zero);
                    let y = self.block.add(Node::Blend { wide, mask: below, a: less, b: x });
                    self.block.add(Node::Blend { wide, mask: above, a: one, b: y })
                })
            }
            IsFinite => {
                let infinity = number(self, f64::INFINITY);
                let masks = x.map(|x| {
                    let size = self.block.and_not(sign, x);
                    self.compare_float(wide, BELOW, size, infinity)
                });
                self.joined(masks)
            }
            _ if wide => return None,
            _ => Lanes::One(math::unary(self.block, op, x.one())?),
        })
    }

    fn integer_binary(&mut self, op: ScalarOp, kind: Kind, x: Lanes, y: Lanes) -> Option<Lanes> {
        use ScalarOp::*;
        let (wide, unsigned) = (is_wide(kind), kind == Kind::U32);
        let native = !wide || self.avx512();
        let (o, commutes) = match op {
            Add => (if wide { ADD64 } else { ADD32 }, true),
            Sub => (if wide { SUB64 } else { SUB32 }, false),
            Mul if native => (integer(2, 0x40, wide), true),
            And => (integer(1, 0xdb, wide), true),
            Or => (integer(1, 0xeb, wide), true),
            Xor => (integer(1, 0xef, wide), true),
            Max if native => (integer(2, if unsigned { 0x3f } else { 0x3d }, wide), true),
            Min if native => (integer(2, if unsigned { 0x3b } else { 0x39 }, wide), true),
            Shl if matches!(kind, Kind::I32 | Kind::U32) => (integer(2, 0x47, false), false),
            Shr if kind == Kind::I32 => (integer(2, 0x46, false), false),
            Shr if kind == Kind::U32 => (integer(2, 0x45, false), false),
            _ => return None,
        };
        Some(x.zip(y, |a, b| {
            let z = self.block.add(Node::Binary { o, a, b, commutes, immediate: None });
            self.wrap(kind, z)
        }))
    }

    fn integer_unary(&mut self, op: ScalarOp, kind: Kind, x: Lanes) -> Option<Lanes> {
        use ScalarOp::*;
        let unsigned = matches!(kind, Kind::U8 | Kind::U32);
        match op {
            Neg => {
                let zero = self.constant(kind, 0);
                self.integer_binary(Sub, kind, zero, x)
            }
            Abs if unsigned => Some(x),
            Abs => {
                let minus = self.integer_unary(Neg, kind, x)?;
                // The least integer is its own negative.
                self.integer_binary(Max, kind, x, minus)
            }
            Not => {
                let [zero, one] = [0, 1].map(|c| self.constant(kind, c));
                let mask = self.compare(Eq, kind, x, zero).one();
                Some(self.select(kind, mask, one, zero))
            }
            Sign => {
                let one = self.constant(kind, 1);
                let y = self.integer_binary(Min, kind, x, one)?;
                if unsigned {
                    return Some(y);
                }
                let less = self.constant(kind, !0);
                self.integer_binary(Max, kind, y, less)
            }
            _ => None,
        }
    }

    /// A conversion to a dtype; `None` where it takes a call.
    pub fn cast(&mut self, from: Kind, to: DType, x: Lanes) -> Option<Lanes> {
        let small = |k: Kind| matches!(k, Kind::I32 | Kind::I16 | Kind::I8 | Kind::U8);
        let kind = Kind::of(to);
        match (from, to) {
            (Kind::F32, DType::BF16) => {
                let rounded = self.round_bf16(x.one());
                let high = self.block.constant32(0xffff_0000);
                Some(Lanes::One(self.block.and(rounded, high)))
            }
            (Kind::F32, DType::F16) => {
                let (o, bytes) = (opcode(3, 1, 0, 0x1d), self.target().bytes());
                let node = Node::Extract { o, a: x.one(), immediate: Some(0), bytes };
                let half = self.block.add(node);
                Some(Lanes::One(self.block.unary(opcode(2, 1, 0, 0x13), half)))
            }
            (_, DType::BF16 | DType::F16) => None,
            (Kind::Bool, DType::Bool) => Some(x),
            (Kind::Bool, _) => {
                let one = if to.is_float() { float_bits(kind, 1.0) } else { 1 };
                let [zero, one] = [0, one].map(|c| self.constant(kind, c));
                Some(self.select(kind, x.one(), one, zero))
            }
            (_, DType::Bool) => {
                let zero = self.constant(from, 0);
                Some(self.compare(ScalarOp::Ne, from, x, zero))
            }
            _ if from == kind => Some(x),
            (k, DType::F32) if small(k) => {
                Some(Lanes::One(self.block.unary(opcode(1, 0, 0, 0x5b), x.one())))
            }
            (Kind::U32, DType::F32) => Some(Lanes::One(self.unsigned_float(x.one()))),
            (k, DType::F64) if small(k) => Some(self.widened(opcode(1, 2, 0, 0xe6), x)),
            (Kind::F32, DType::F64) => Some(self.widened(opcode(1, 0, 0, 0x5a), x)),
            (Kind::F64, DType::F32) => {
                let Lanes::Two(parts) = x else { return None };
                let o = opcode(1, 1, 1, 0x5a);
                let [a, b] = parts.map(|x| self.block.unary(o, x));
                Some(Lanes::One(self.join(a, b)))
            }
            (Kind::F32, DType::I32) => Some(Lanes::One(self.saturated(x.one()))),
            (k, DType::I64) if small(k) => Some(self.widened(opcode(2, 1, 0, 0x25), x)),
            (Kind::U32, DType::I64) => Some(self.widened(opcode(2, 1, 0, 0x35), x)),
            (Kind::I64, DType::I32 | DType::U32 | DType::I16 | DType::I8 | DType::U8) => {
                let Lanes::Two(parts) = x else { return None };
                let low = self.low32(parts);
                Some(Lanes::One(self.wrap(kind, low)))
            }
            (k, DType::I32 | DType::U32 | DType::I16 | DType::I8 | DType::U8)
                if small(k) || k == Kind::U32 =>
            {
                Some(Lanes::One(self.wrap(kind, x.one())))
            }
            _ => None,
        }
    }

    /// Elements of 32 bits made 64 by an instruction that takes half a vector.
    fn widened(&mut self, o: Opcode, x: Lanes) -> Lanes {
        let halves = [x.one(), self.high(x.one())];
        Lanes::Two(halves.map(|x| self.block.unary(o, x)))
    }

    /// u32 as f32: both halves are exact, their sum rounds once.
    fn unsigned_float(&mut self, x: Id) -> Id {
        if self.avx512() {
            return self.block.unary(opcode(1, 3, 0, 0x7a), x);
        }
        let b = &mut *self.block;
        let (low, scale) = (b.constant32(0xffff), b.constant32(65536f32.to_bits()));
        let low = b.and(x, low);
        let high = b.shift(SHIFT32, 2, x, 16);
        let [low, high] = [low, high].map(|x| b.unary(opcode(1, 0, 0, 0x5b), x));
        b.add(Node::Fma { wide: false, a: high, b: scale, c: low })
    }

    /// f32 as i32, truncated; NaN is 0, and what does not fit the nearest that does.
    fn saturated(&mut self, x: Id) -> Id {
        let [limit, most, zero] =
            [2_147_483_648f32.to_bits(), i32::MAX as u32, 0].map(|c| self.block.constant32(c));
        // The instruction gives the least integer for all that does not fit.
        let y = self.block.unary(opcode(1, 2, 0, 0x5b), x);
        let large = self.compare_float(false, NOT_BELOW, x, limit);
        let y = self.block.add(Node::Blend { wide: false, mask: large, a: most, b: y });
        let nan = self.compare_float(false, UNORDERED, x, x);
        self.block.add(Node::Blend { wide: false, mask: nan, a: zero, b: y })
    }

    /// Combines two elements.
    pub fn combine(&mut self, how: ReduceKind, kind: Kind, x: Lanes, y: Lanes) -> Option<Lanes> {
        let op = match how {
            ReduceKind::Sum => ScalarOp::Add,
            ReduceKind::Product => ScalarOp::Mul,
            ReduceKind::Max => ScalarOp::Max,
            ReduceKind::Min => ScalarOp::Min,
            ReduceKind::And => ScalarOp::And,
            ReduceKind::Or => ScalarOp::Or,
        };
        self.apply(op, kind, &[x, y])
    }

    /// Combines all lanes into each.
    pub fn combine_lanes(&mut self, how: ReduceKind, kind: Kind, x: Lanes) -> Option<Lanes> {
        let mut x = match x {
            Lanes::Two([a, b]) => {
                self.combine(how, kind, Lanes::Two([a, a]), Lanes::Two([b, b]))?
            }
            one => one,
        };
        let wide = is_wide(kind);
        // Distances in units of 32 bits; the halves of what is left are exchanged.
        let mut distance = self.target().lanes() / 2;
        while distance >= if wide { 2 } else { 1 } {
            let a = x.one();
            let turned = self.exchange(a, distance);
            let turned = if wide { Lanes::Two([turned; 2]) } else { Lanes::One(turned) };
            x = self.combine(how, kind, x, turned)?;
            distance /= 2;
        }
        // All lanes are the first, to the sign of a zero.
        let o = if wide { opcode(2, 1, 1, 0x59) } else { opcode(2, 1, 0, 0x18) };
        let o = if wide && !self.avx512() { opcode(2, 1, 0, 0x59) } else { o };
        let first = self.block.unary(o, x.one());
        Some(if wide { Lanes::Two([first; 2]) } else { Lanes::One(first) })
    }

    /// Exchanges groups of 32-bit lanes with their neighbours.
    fn exchange(&mut self, a: Id, distance: usize) -> Id {
        let (o, immediate) = match (distance, self.avx512()) {
            (8, _) => (opcode(3, 1, 1, 0x23), 0x4e),
            (4, true) => (opcode(3, 1, 1, 0x23), 0xb1),
            (4, false) => (opcode(3, 1, 0, 0x06), 0x01),
            (2, _) => (opcode(1, 0, 0, 0xc6), 0x4e),
            _ => (opcode(1, 0, 0, 0xc6), 0xb1),
        };
        self.block.add(Node::Binary { o, a, b: a, commutes: false, immediate: Some(immediate) })
    }

    /// Calls `function` on the lanes of `args`, which stand in the frame from `at` on behind the
    /// result, each with room for the widest elements.
    pub fn call(
        &mut self,
        function: usize,
        data: usize,
        at: i32,
        args: &[(Kind, Lanes)],
        kind: Kind,
    ) -> Lanes {
        let room = 8 * self.target().lanes() as i32;
        for (i, &(kind, x)) in args.iter().enumerate() {
            self.store_frame(kind, at + room * (i as i32 + 1), x);
        }
        self.block.add(Node::Call { function, data, out: at, args: at + room });
        self.load_frame(kind, at)
    }
}
