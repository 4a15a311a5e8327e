//! Conversions between register types, and between registers and memory of half precision.

use super::unary::lane1;
use super::{Kind, Loop};
use ferrata_ir::DType;
use half::{bf16, f16};

/// The nearest bf16, as its upper half of an f32; a NaN stays one.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    (bits >> 16) as u16
}

#[inline(always)]
fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Exponent and mantissa moved into place; the multiplication corrects the exponent's bias and
/// normalises what is subnormal.
#[inline(always)]
fn f16_value(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let infinite = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | infinite | ((bits & 0x8000) << 16))
}

/// The nearest f16. Normal results round by adding half a unit in the integer bits; results below
/// the normal range by adding a float whose last place is the smallest f16.
#[inline(always)]
fn f16_bits(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) & 0x8000;
    let bits = x.to_bits() & 0x7fff_ffff;
    let normal = bits.wrapping_add(0xc800_0fff + ((bits >> 13) & 1)) >> 13;
    let tiny = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let special = if bits > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let magnitude = if bits >= 0x477f_f000 {
        special
    } else if bits < 0x3880_0000 {
        tiny
    } else {
        normal
    };
    (sign | magnitude) as u16
}

/// Reads f16 or bf16 from memory into f32 registers.
pub(crate) fn widen(from: DType) -> Loop {
    match from {
        DType::F16 => lane1!(u16 => f32, |x| f16_value(x)),
        _ => lane1!(u16 => f32, |x| bf16_value(x)),
    }
}

/// Writes f32 registers to memory as f16 or bf16.
pub(crate) fn narrow(to: DType) -> Loop {
    match to {
        DType::F16 => lane1!(f32 => u16, |x| f16_bits(x)),
        _ => lane1!(f32 => u16, |x| bf16_bits(x)),
    }
}

/// Rounding to half precision.
fn round(from: Kind, to: DType) -> Loop {
    macro_rules! by_f64 {
        ($t:ty) => {
            match to {
                DType::F16 => lane1!($t => f32, |x| f16::from_f64(x as f64).to_f32()),
                _ => lane1!($t => f32, |x| bf16::from_f64(x as f64).to_f32()),
            }
        };
    }
    match (from, to) {
        (Kind::F32, DType::F16) => lane1!(f32 => f32, |x| f16_value(f16_bits(x))),
        (Kind::F32, _) => lane1!(f32 => f32, |x| bf16_value(bf16_bits(x))),
        (Kind::F64, _) => by_f64!(f64),
        (Kind::I64, _) => by_f64!(i64),
        (Kind::I32, _) => by_f64!(i32),
        (Kind::I16, _) => by_f64!(i16),
        (Kind::I8, _) => by_f64!(i8),
        (Kind::U32, _) => by_f64!(u32),
        (Kind::U8 | Kind::Bool, _) => by_f64!(u8),
    }
}

/// Conversions of one register type to all others.
macro_rules! casts {
    ($to:expr, $t:ty, $zero:expr) => {
        match $to {
            Kind::F64 => lane1!($t => f64, |x| x as f64),
            // Integers go through f64, as the program says.
            Kind::F32 => lane1!($t => f32, |x| x as f64 as f32),
            Kind::I64 => lane1!($t => i64, |x| x as i64),
            Kind::I32 => lane1!($t => i32, |x| x as i32),
            Kind::I16 => lane1!($t => i16, |x| x as i16),
            Kind::I8 => lane1!($t => i8, |x| x as i8),
            Kind::U8 => lane1!($t => u8, |x| x as u8),
            Kind::U32 => lane1!($t => u32, |x| x as u32),
            Kind::Bool => lane1!($t => u8, |x| u8::from(x != $zero)),
        }
    };
}

/// The loop that converts registers of a kind to values of a dtype. Float to integer truncates and
/// saturates, integers wrap, anything non-zero is true.
#[allow(clippy::unnecessary_cast)] // One macro for all types.
pub(crate) fn cast(from: Kind, to: DType) -> Loop {
    if matches!(to, DType::F16 | DType::BF16) {
        return round(from, to);
    }
    let to = Kind::of(to);
    match from {
        Kind::F32 => casts!(to, f32, 0.0),
        Kind::F64 => casts!(to, f64, 0.0),
        Kind::I32 => casts!(to, i32, 0),
        Kind::I64 => casts!(to, i64, 0),
        Kind::I16 => casts!(to, i16, 0),
        Kind::I8 => casts!(to, i8, 0),
        Kind::U8 => casts!(to, u8, 0),
        Kind::U32 => casts!(to, u32, 0),
        Kind::Bool => casts!(to, u8, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_like_the_half_crate() {
        for bits in 0..=u16::MAX {
            let value = f16_value(bits);
            if !f16::from_bits(bits).is_nan() {
                assert_eq!(value.to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:04x}");
                assert_eq!(f16_bits(value), bits);
            }
            // Neighbours of every bf16 and of every half step of f16.
            for low in [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001] {
                let x = f32::from_bits(u32::from(bits) << 16 | low);
                if !x.is_nan() {
                    assert_eq!(f16_bits(x), f16::from_f32(x).to_bits(), "{x:e}");
                    assert_eq!(bf16_bits(x), bf16::from_f32(x).to_bits(), "{x:e}");
                }
            }
        }
        assert!(f16_value(f16_bits(f32::NAN)).is_nan() && bf16_value(bf16_bits(f32::NAN)).is_nan());
    }
}
