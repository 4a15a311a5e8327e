//! What functions are written in: lanes that are numbers, or values of code in the making.

use crate::isa::{Level, Real};
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Lanes of floats.
pub(crate) trait Float:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// f32 or f64.
    type Number: Copy;

    /// A number in the lanes of `self`.
    fn number(self, x: Self::Number) -> Self;
    /// `self·b + c`, in the path's rounding.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `low` where `self` is below it; NaN stays.
    fn at_least(self, low: Self::Number) -> Self;
    /// `high` where `self` is above it; NaN stays.
    fn at_most(self, high: Self::Number) -> Self;
}

/// Lanes of f32.
pub(crate) trait F32: Float<Number = f32> {
    /// Which lanes something is true of.
    type Mask: Copy;
    /// The bits of each lane.
    type Bits: Bits;

    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn below(self, other: Self) -> Self::Mask;
    fn equals(self, other: Self) -> Self::Mask;
    /// `self` where the mask is set, else `other`.
    fn where_(self, mask: Self::Mask, other: Self) -> Self;
    fn bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    /// The value of integers.
    fn from_integer(x: Self::Bits) -> Self;
    /// `self · 2^n`, rounded once, for results of any exponent; `n` as float and as integer.
    fn scaled(self, n: Self, integer: Self::Bits) -> Self;
}

/// Lanes of 32 bits, as integers that wrap.
pub(crate) trait Bits: Copy {
    fn plus(self, x: u32) -> Self;
    fn minus(self, other: Self) -> Self;
    fn left(self, bits: u8) -> Self;
    /// Keeps the sign.
    fn right(self, bits: u8) -> Self;
}

/// A number, computed on a path.
#[derive(Clone, Copy)]
pub(crate) struct Lane<T, L>(pub T, pub(crate) PhantomData<L>);

impl<T, L> Lane<T, L> {
    #[inline(always)]
    pub fn new(x: T) -> Self {
        Lane(x, PhantomData)
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident) => {
        impl<T: Real, L: Level> $trait for Lane<T, L> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Lane::new(self.0.$name(other.0))
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl<T: Real, L: Level> Neg for Lane<T, L> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Lane::new(-self.0)
    }
}

impl<T: Real, L: Level> Float for Lane<T, L> {
    type Number = T;

    #[inline(always)]
    fn number(self, x: T) -> Self {
        Lane::new(x)
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Lane::new(L::mul_add(self.0, b.0, c.0))
    }
    #[inline(always)]
    fn at_least(self, low: T) -> Self {
        Lane::new(if self.0 < low { low } else { self.0 })
    }
    #[inline(always)]
    fn at_most(self, high: T) -> Self {
        Lane::new(if self.0 > high { high } else { self.0 })
    }
}

/// 2 to the power of `n`, which is the exponent of a normal number.
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

impl<L: Level> F32 for Lane<f32, L> {
    type Mask = bool;
    type Bits = u32;

    #[inline(always)]
    fn abs(self) -> Self {
        Lane::new(self.0.abs())
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Lane::new(self.0.copysign(sign.0))
    }
    #[inline(always)]
    fn below(self, other: Self) -> bool {
        self.0 < other.0
    }
    #[inline(always)]
    fn equals(self, other: Self) -> bool {
        self.0 == other.0
    }
    #[inline(always)]
    fn where_(self, mask: bool, other: Self) -> Self {
        if mask { self } else { other }
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self.0.to_bits()
    }
    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        Lane::new(f32::from_bits(bits))
    }
    #[inline(always)]
    fn from_integer(x: u32) -> Self {
        Lane::new(x as i32 as f32)
    }
    #[inline(always)]
    fn scaled(self, _: Self, integer: u32) -> Self {
        // In two steps, the first of which stays normal.
        let n = integer as i32;
        let half = n >> 1;
        Lane::new(self.0 * power(half) * power(n - half))
    }
}

impl Bits for u32 {
    #[inline(always)]
    fn plus(self, x: u32) -> u32 {
        self.wrapping_add(x)
    }
    #[inline(always)]
    fn minus(self, other: u32) -> u32 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn left(self, bits: u8) -> u32 {
        self << bits
    }
    #[inline(always)]
    fn right(self, bits: u8) -> u32 {
        (self as i32 >> bits) as u32
    }
}
