//! Vectors of one instruction set: the few operations that the hand-written kernels are made of.
//!
//! Elementwise loops need none of this (the compiler vectorises them); it is for kernels whose
//! register allocation matters.

use std::ops::{Add, Mul};

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2F32, Avx2F64, Avx512F32, Avx512F64};

/// A vector type. Methods are `unsafe` because they may only run inside a kernel that is compiled
/// for the instruction set (see [`crate::Isa::run`]); pointers need no alignment.
///
/// Safety of every method: the machine has the instruction set; `load` and `store` touch `LANES`
/// elements from the pointer, `load_first` and `store_first` only the first `n ≤ LANES`.
#[allow(clippy::missing_safety_doc)] // Stated once, above.
pub trait Simd: Copy + Send + Sync + 'static {
    /// The element type.
    type Elem: Copy + Default + PartialEq + Send + Sync + 'static;
    /// Elements in a vector.
    const LANES: usize;
    /// Rows of a matrix product's register tile: what leaves room for the operands beside
    /// `TILE_ROWS` × `TILE_VECTORS` accumulators.
    const TILE_ROWS: usize;
    /// Vectors in a row of a matrix product's register tile, 1 or 2.
    const TILE_VECTORS: usize = 2;

    /// All lanes `x`.
    unsafe fn splat(x: Self::Elem) -> Self;
    /// `LANES` elements.
    unsafe fn load(from: *const Self::Elem) -> Self;
    /// The first `n` elements, then zeros.
    unsafe fn load_first(from: *const Self::Elem, n: usize) -> Self;
    /// Writes `LANES` elements.
    unsafe fn store(self, to: *mut Self::Elem);
    /// Writes the first `n` elements.
    unsafe fn store_first(self, to: *mut Self::Elem, n: usize);
    /// `a·b + self`, in the path's rounding.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// The sum of all lanes, in a fixed order.
    unsafe fn sum(self) -> Self::Elem;
}

/// An array that the compiler keeps in vector registers; `$mul` and `$add` are its arithmetic.
macro_rules! array {
    ($name:ident, $t:ty, $lanes:expr, $mul:expr, $add:expr, $what:expr) => {
        #[doc = $what]
        #[derive(Clone, Copy, Debug)]
        pub struct $name([$t; $lanes]);

        impl Simd for $name {
            type Elem = $t;
            const LANES: usize = $lanes;
            const TILE_ROWS: usize = 4;

            #[inline(always)]
            unsafe fn splat(x: $t) -> Self {
                Self([x; $lanes])
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller gives `LANES` readable elements.
                Self(unsafe { from.cast::<[$t; $lanes]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn load_first(from: *const $t, n: usize) -> Self {
                let mut out = [<$t>::default(); $lanes];
                for (i, o) in out.iter_mut().enumerate().take(n) {
                    // SAFETY: the caller gives `n` readable elements.
                    *o = unsafe { from.add(i).read() };
                }
                Self(out)
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller gives `LANES` writable elements.
                unsafe { to.cast::<[$t; $lanes]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut $t, n: usize) {
                for (i, &x) in self.0.iter().enumerate().take(n) {
                    // SAFETY: the caller gives `n` writable elements.
                    unsafe { to.add(i).write(x) };
                }
            }
            #[inline(always)]
            unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                Self(std::array::from_fn(|i| $add($mul(a.0[i], b.0[i]), self.0[i])))
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| $add(self.0[i], other.0[i])))
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                self.0.iter().fold(<$t>::default(), |sum, &x| $add(sum, x))
            }
        }
    };
}
array!(PortableF32, f32, 4, f32::mul, f32::add, "Four f32 in whatever the target's baseline has.");
array!(PortableF64, f64, 2, f64::mul, f64::add, "Two f64 in whatever the target's baseline has.");
array!(VectorI32, i32, 8, i32::wrapping_mul, i32::wrapping_add, "Eight i32 that wrap.");
array!(VectorI64, i64, 4, i64::wrapping_mul, i64::wrapping_add, "Four i64 that wrap.");
