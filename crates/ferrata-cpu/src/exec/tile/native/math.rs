//! Elementary functions as nodes of a block: the same text that the interpreter runs.

use super::lanes::{BELOW, EQUAL, SHIFT32, Writer, float};
use crate::jit::block::{Block, Id, Node};
use crate::jit::encode::{Target, opcode};
use crate::math::lanes::{Bits, F32, Float};
use crate::math::{exponential, logarithm, normal};
use ferrata_ir::primitive::ScalarOp;
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A value of a block that a function is written with.
#[derive(Clone, Copy)]
struct Value<'c, 'b> {
    id: Id,
    writer: &'c RefCell<Writer<'b>>,
}

/// A function of f32; `None` where it takes a call.
pub(super) fn unary(block: &mut Block, op: ScalarOp, x: Id) -> Option<Id> {
    let writer = RefCell::new(Writer { block, tail: None, rounded: false, streams: false });
    let x = Value { id: x, writer: &writer };
    let y = match op {
        ScalarOp::Exp => exponential::exp(x),
        ScalarOp::Tanh => exponential::tanh(x),
        ScalarOp::Logistic => exponential::logistic(x),
        ScalarOp::Log => logarithm::log(x),
        ScalarOp::Erf => normal::erf(x),
        _ => return None,
    };
    Some(y.id)
}

impl Value<'_, '_> {
    fn with(self, write: impl FnOnce(&mut Writer<'_>, Id) -> Id) -> Self {
        Value { id: write(&mut self.writer.borrow_mut(), self.id), ..self }
    }

    fn constant(self, bits: u32) -> Self {
        self.with(|w, _| w.block.constant32(bits))
    }

    fn float(self, code: u8, other: Self) -> Self {
        self.with(|w, x| w.block.binary(float(code, false), x, other.id))
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $method:ident, $code:expr) => {
        impl $trait for Value<'_, '_> {
            type Output = Self;
            fn $name(self, other: Self) -> Self {
                self.with(|w, x| w.block.$method(float($code, false), x, other.id))
            }
        }
    };
}
operator!(Add, add, symmetric, 0x58);
operator!(Sub, sub, binary, 0x5c);
operator!(Mul, mul, symmetric, 0x59);
operator!(Div, div, binary, 0x5e);

impl Neg for Value<'_, '_> {
    type Output = Self;
    fn neg(self) -> Self {
        let sign = self.constant(1 << 31);
        self.with(|w, x| w.block.xor(x, sign.id))
    }
}

impl Float for Value<'_, '_> {
    type Number = f32;

    fn number(self, x: f32) -> Self {
        self.constant(x.to_bits())
    }
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.with(|w, a| w.block.add(Node::Fma { wide: false, a, b: b.id, c: c.id }))
    }
    fn at_least(self, low: f32) -> Self {
        // Of a NaN and a number, the instructions give the second.
        self.number(low).float(0x5f, self)
    }
    fn at_most(self, high: f32) -> Self {
        self.number(high).float(0x5d, self)
    }
}

impl F32 for Value<'_, '_> {
    type Mask = Self;
    type Bits = Self;

    fn abs(self) -> Self {
        let sign = self.constant(1 << 31);
        sign.with(|w, sign| w.block.and_not(sign, self.id))
    }
    fn copysign(self, sign: Self) -> Self {
        let bit = self.constant(1 << 31);
        let size = self.abs();
        bit.with(|w, bit| {
            let sign = w.block.and(sign.id, bit);
            w.block.or(size.id, sign)
        })
    }
    fn below(self, other: Self) -> Self {
        self.with(|w, x| w.compare_float(false, BELOW, x, other.id))
    }
    fn equals(self, other: Self) -> Self {
        self.with(|w, x| w.compare_float(false, EQUAL, x, other.id))
    }
    fn where_(self, mask: Self, other: Self) -> Self {
        self.with(|w, a| w.block.add(Node::Blend { wide: false, mask: mask.id, a, b: other.id }))
    }
    fn bits(self) -> Self {
        self
    }
    fn from_bits(bits: Self) -> Self {
        bits
    }
    fn from_integer(x: Self) -> Self {
        x.with(|w, x| w.block.unary(opcode(1, 0, 0, 0x5b), x))
    }
    fn scaled(self, n: Self, integer: Self) -> Self {
        if self.writer.borrow().block.target == Target::Avx512 {
            return self.with(|w, x| w.block.binary(opcode(2, 1, 0, 0x2c), x, n.id));
        }
        let half = integer.right(1);
        let power = |n: Self| n.plus(127).left(23);
        self * power(half) * power(integer.minus(half))
    }
}

impl Bits for Value<'_, '_> {
    fn plus(self, x: u32) -> Self {
        let x = self.constant(x);
        self.with(|w, y| w.block.symmetric(opcode(1, 1, 0, 0xfe), y, x.id))
    }
    fn minus(self, other: Self) -> Self {
        self.with(|w, x| w.block.binary(opcode(1, 1, 0, 0xfa), x, other.id))
    }
    fn left(self, bits: u8) -> Self {
        self.with(|w, x| w.block.shift(SHIFT32, 6, x, bits))
    }
    fn right(self, bits: u8) -> Self {
        self.with(|w, x| w.block.shift(SHIFT32, 4, x, bits))
    }
}
