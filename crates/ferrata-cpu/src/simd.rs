//! Vectors of one instruction set: the few operations that the hand-written kernels are made of.
//!
//! Elementwise loops need none of this (the compiler vectorises them); it is for kernels whose
//! register allocation matters.

use std::marker::PhantomData;
use std::ops::{Add, Mul, Sub};

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2F32, Avx2F64, Avx512F32, Avx512F64, DotBf16, VnniInt8};

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
    /// `LANES` elements of 32 bits whose upper halves lie in memory and whose lower halves are 0:
    /// f32 from bf16.
    #[inline(always)]
    unsafe fn load_high(from: *const u16) -> Self {
        const { assert!(size_of::<Self::Elem>() != 4 || Self::LANES <= 16) };
        let mut wide = [0u32; 16];
        for (i, x) in wide.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller gives `LANES` halves.
            *x = u32::from(unsafe { from.add(i).read() }) << 16;
        }
        // SAFETY: as many elements; every number of 32 bits is one.
        unsafe { Self::load(wide.as_ptr().cast()) }
    }
    /// The first `n` elements, then zeros.
    unsafe fn load_first(from: *const Self::Elem, n: usize) -> Self;
    /// Writes `LANES` elements.
    unsafe fn store(self, to: *mut Self::Elem);
    /// Writes the first `n` elements.
    unsafe fn store_first(self, to: *mut Self::Elem, n: usize);
    /// Writes `LANES` elements past the caches where the path can; `to` is aligned to the vector.
    /// Before another thread may read them comes a [`Simd::fence`].
    #[inline(always)]
    unsafe fn stream(self, to: *mut Self::Elem) {
        // SAFETY: passed on.
        unsafe { self.store(to) }
    }
    /// Asks for the cache line of an address that will be needed, and may be any.
    #[inline(always)]
    unsafe fn prefetch(_: *const Self::Elem) {}
    /// Orders streamed writes before what follows.
    #[inline(always)]
    unsafe fn fence() {}
    /// `a·b + self`, in the path's rounding.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// The sum of all lanes, in a fixed order.
    unsafe fn sum(self) -> Self::Elem;
}

/// What a matrix product's register tile multiplies with: every lane of the accumulators adds the
/// products of a group of neighbouring steps of the contracted dimension.
///
/// Safety of every method: as for [`Simd`]; `left` reads `GROUP` elements, `right` `GROUP` for
/// every lane of the accumulators.
#[allow(clippy::missing_safety_doc)] // Stated once, above.
pub trait Dot: Copy + Send + Sync + 'static {
    /// Accumulators.
    type Acc: Simd;
    /// An element of the left operand.
    type Left: Copy + Default + Send + Sync + 'static;
    /// An element of the right operand.
    type Right: Copy + Default + Send + Sync + 'static;
    /// Operands in a register.
    type Register: Copy;
    /// Steps in a group.
    const GROUP: usize;

    /// A group of the left operand, for all lanes.
    unsafe fn left(from: *const Self::Left) -> Self::Register;
    /// A group of the right operand for each lane.
    unsafe fn right(from: *const Self::Right) -> Self::Register;
    /// `acc` plus the products of the groups.
    unsafe fn dot(acc: Self::Acc, left: Self::Register, right: Self::Register) -> Self::Acc;
}

/// Plain vectors as a [`Dot`] with groups of one step.
#[derive(Clone, Copy, Debug)]
pub struct Fma<V>(PhantomData<V>);

impl<V: Simd> Dot for Fma<V> {
    type Acc = V;
    type Left = V::Elem;
    type Right = V::Elem;
    type Register = V;
    const GROUP: usize = 1;

    #[inline(always)]
    unsafe fn left(from: *const V::Elem) -> V {
        // SAFETY: passed on.
        unsafe { V::splat(*from) }
    }
    #[inline(always)]
    unsafe fn right(from: *const V::Elem) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn dot(acc: V, left: V, right: V) -> V {
        // SAFETY: passed on.
        unsafe { acc.mul_add(left, right) }
    }
}

/// An array that the compiler keeps in vector registers; `$mul` and `$add` are its arithmetic.
macro_rules! array {
    ($name:ident, $t:ty, $lanes:expr, $mul:expr, $add:expr, $sub:expr, $what:expr) => {
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
            unsafe fn sub(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| $sub(self.0[i], other.0[i])))
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                self.0.iter().fold(<$t>::default(), |sum, &x| $add(sum, x))
            }
        }
    };
}
array!(
    PortableF32,
    f32,
    4,
    f32::mul,
    f32::add,
    f32::sub,
    "Four f32 in whatever the target's baseline has."
);
array!(
    PortableF64,
    f64,
    2,
    f64::mul,
    f64::add,
    f64::sub,
    "Two f64 in whatever the target's baseline has."
);
array!(
    VectorI32,
    i32,
    8,
    i32::wrapping_mul,
    i32::wrapping_add,
    i32::wrapping_sub,
    "Eight i32 that wrap."
);
array!(
    VectorI64,
    i64,
    4,
    i64::wrapping_mul,
    i64::wrapping_add,
    i64::wrapping_sub,
    "Four i64 that wrap."
);
