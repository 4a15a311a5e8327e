//! Elements in memory as numbers.

use super::syntax::Kind;
use ferrata_ir::Scalar;
use half::{bf16, f16};

/// The number that these bits are.
pub(crate) fn decode(bits: u64, kind: Kind) -> f64 {
    match kind {
        Kind::F32 => f64::from(f32::from_bits(bits as u32)),
        Kind::BF16 => bf16::from_bits(bits as u16).to_f64(),
        Kind::F16 => f16::from_bits(bits as u16).to_f64(),
        Kind::Int(_) => integer(bits, kind) as f64,
    }
}

/// The bits of the number nearest to `x`.
pub(crate) fn encode(x: f64, kind: Kind) -> u64 {
    match kind {
        Kind::F32 => u64::from((x as f32).to_bits()),
        Kind::BF16 => u64::from(bf16::from_f64(x).to_bits()),
        Kind::F16 => u64::from(f16::from_f64(x).to_bits()),
        Kind::Int(_) => x as i64 as u64,
    }
}

/// The signed integer that these bits are.
pub(crate) fn integer(bits: u64, kind: Kind) -> i64 {
    let n = kind.bits() as u32;
    if n == 1 {
        return (bits & 1) as i64;
    }
    ((bits << (64 - n)) as i64) >> (64 - n)
}

/// `x` as an element of this kind, a float.
pub(crate) fn rounded(x: f64, kind: Kind) -> f64 {
    decode(encode(x, kind), kind)
}

/// The element of these bits.
pub(crate) fn scalar(bits: u64, kind: Kind) -> Scalar {
    if kind.is_float() {
        Scalar::Float(decode(bits, kind))
    } else {
        Scalar::Int(integer(bits, kind))
    }
}

/// The bits of an element.
pub(crate) fn bits(x: Scalar, kind: Kind) -> u64 {
    match x {
        Scalar::Int(x) => x as u64,
        Scalar::Float(x) => encode(x, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives() {
        for bits in 0..=u16::MAX {
            let x = decode(u64::from(bits), Kind::F16);
            let back = encode(x, Kind::F16) as u16;
            assert!(x.is_nan() || back == bits, "{bits:#x} is {x} and becomes {back:#x}");
        }
    }
}
