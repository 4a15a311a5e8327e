//! Conversions between stored elements and the type they are accumulated in.

use half::{bf16, f16};

use crate::isa::Level;

/// A stored element that widens exactly to the accumulation type or, packed, to the operand type
/// `A` of a dot instruction.
pub trait Stored<A>: Copy + Send + Sync + 'static {
    /// The bits of every byte that widening flips, where it does nothing else.
    const FLIP: Option<u8> = None;
    /// What widening adds to a number.
    const SHIFT: i32 = 0;

    /// The same number (but for `SHIFT`) as an `A`.
    fn widen(self) -> A;
    /// Rounds (floats) or wraps (integers).
    fn narrow(x: A) -> Self;
    /// [`Stored::narrow`] of `count` neighbours; where the path has an instruction for it, one that
    /// takes subnormals for zeros, as its dot instructions do.
    ///
    /// # Safety
    /// The machine has `L`; so many are readable and writable.
    #[inline(always)]
    unsafe fn narrow_row<L: Level>(from: *const A, to: *mut Self, count: usize) {
        // SAFETY: passed on.
        (0..count).for_each(|i| unsafe { to.add(i).write(Self::narrow(from.add(i).read())) });
    }
    /// A widened number, for the sums that correct products of shifted ones.
    fn count(_: A) -> i32 {
        0
    }
}

/// An operand type of a dot instruction that numbers of type `In` are packed into: [`Stored`] seen
/// from the other side.
pub trait Pack<In>: Copy + Default + Send + Sync + 'static {
    /// [`Stored::FLIP`].
    const FLIP: Option<u8>;
    /// [`Stored::SHIFT`].
    const SHIFT: i32;

    /// [`Stored::widen`].
    fn pack(x: In) -> Self;
    /// [`Stored::count`].
    fn count(self) -> i32;
}

impl<In: Stored<P>, P: Copy + Default + Send + Sync + 'static> Pack<In> for P {
    const FLIP: Option<u8> = In::FLIP;
    const SHIFT: i32 = In::SHIFT;

    #[inline(always)]
    fn pack(x: In) -> P {
        x.widen()
    }
    #[inline(always)]
    fn count(self) -> i32 {
        In::count(self)
    }
}

macro_rules! same {
    ($($t:ty),*) => {$(
        impl Stored<$t> for $t {
            const FLIP: Option<u8> = Some(0);

            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(x: $t) -> $t {
                x
            }
        }
    )*};
}
same!(f64, f32, i64, i32, bf16);

/// 8-bit integers as the operands of dot instructions, whose signs are given.
macro_rules! byte {
    ($($from:ty => $to:ty, $flip:literal, $shift:literal);*) => {$(
        impl Stored<$to> for $from {
            const FLIP: Option<u8> = Some($flip);
            const SHIFT: i32 = $shift;

            #[inline(always)]
            fn widen(self) -> $to {
                self as $to ^ $flip as u8 as $to
            }
            #[inline(always)]
            fn narrow(x: $to) -> $from {
                x as $from ^ $flip as u8 as $from
            }
            #[inline(always)]
            fn count(x: $to) -> i32 {
                i32::from(x)
            }
        }
    )*};
}
byte!(i8 => i8, 0, 0; u8 => u8, 0, 0; i8 => u8, 0x80, 128; u8 => i8, 0x80, -128);

macro_rules! integer {
    ($($t:ty),*) => {$(
        impl Stored<i32> for $t {
            #[inline(always)]
            fn widen(self) -> i32 {
                self as i32
            }
            #[inline(always)]
            fn narrow(x: i32) -> $t {
                x as $t
            }
        }
    )*};
}
// A u32 product wraps to the same bits as the i32 one.
integer!(i16, i8, u8, u32);

impl Stored<f32> for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // A NaN keeps its sign and stays one, quiet.
        let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
        bf16::from_bits((bits >> 16) as u16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn narrow_row<L: Level>(from: *const f32, to: *mut bf16, count: usize) {
        use std::arch::x86_64::*;
        // SAFETY: passed on; the level has the instructions where they are used, and masked
        // elements are not touched.
        unsafe {
            if L::ISA < crate::Isa::Avx512Bf16 {
                return (0..count).for_each(|i| to.add(i).write(Self::narrow(from.add(i).read())));
            }
            for i in (0..count).step_by(16) {
                let mask = (0xffffu32 >> (16 - (count - i).min(16))) as u16;
                let x = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.add(i)));
                let x = std::mem::transmute::<__m256bh, __m256i>(x);
                _mm256_mask_storeu_epi16(to.add(i).cast(), mask, x);
            }
        }
    }
}

impl Stored<f32> for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // Exponent and mantissa moved into place; the multiplication corrects the exponent's bias
        // and normalises what is subnormal.
        let bits = u32::from(self.to_bits());
        let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let infinite = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled.to_bits() | infinite | ((bits & 0x8000) << 16))
    }
    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly_and_narrows_back() {
        for bits in 0..=u16::MAX {
            let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            let (wide_h, wide_b): (f32, f32) = (h.widen(), b.widen());
            if h.is_nan() {
                assert!(wide_h.is_nan() && f16::narrow(wide_h).is_nan());
            } else {
                assert_eq!(wide_h.to_bits(), h.to_f32().to_bits(), "{bits:04x}");
                assert_eq!(f16::narrow(wide_h), h);
            }
            if b.is_nan() {
                assert!(wide_b.is_nan() && bf16::narrow(wide_b).is_nan());
            } else {
                assert_eq!(wide_b.to_bits(), b.to_f32().to_bits());
                assert_eq!(bf16::narrow(wide_b), b);
            }
        }
    }

    #[test]
    fn bytes_are_shifted_by_what_is_said() {
        for bits in 0..=u8::MAX {
            let signed: u8 = (bits as i8).widen();
            assert_eq!(i32::from(signed), i32::from(bits as i8) + <i8 as Stored<u8>>::SHIFT);
            assert_eq!(i8::narrow(signed), bits as i8);
            let unsigned: i8 = bits.widen();
            assert_eq!(i32::from(unsigned), i32::from(bits) + <u8 as Stored<i8>>::SHIFT);
            assert_eq!(u8::narrow(unsigned), bits);
        }
    }

    struct Narrow<'a>(&'a [f32], &'a mut [bf16]);

    impl crate::Kernel for Narrow<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Level>(self) {
            // SAFETY: as many on both sides; the path runs at `L`.
            unsafe { bf16::narrow_row::<L>(self.0.as_ptr(), self.1.as_mut_ptr(), self.0.len()) };
        }
    }

    #[test]
    fn rows_narrow_as_numbers_do() {
        let special = [0.0, -0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-37];
        let ties = (0..40u32).map(|i| f32::from_bits(0x3f80_0000 + i * 0x2000));
        let numbers: Vec<f32> = special.into_iter().chain(ties).collect();
        for isa in crate::Isa::available() {
            for count in 0..numbers.len() {
                let mut got = vec![bf16::from_bits(7); count + 1];
                isa.run_dots(Narrow(&numbers[..count], &mut got[..count]));
                for (x, got) in numbers[..count].iter().zip(&got) {
                    let same = got.to_bits() == bf16::narrow(*x).to_bits();
                    assert!(same || x.is_nan() && got.is_nan(), "{isa}: {x} gives {got}");
                }
                assert_eq!(got[count].to_bits(), 7, "{isa}: one too many");
            }
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for x in [1.0f32, 1.003_906_3, 1.011_718_8, 1.005_860_2, f32::MAX, 1e-40, -2.7] {
            assert_eq!(bf16::narrow(x), bf16::from_f32(x), "{x}");
        }
    }
}
