//! Elements in memory as numbers.

use super::syntax::Kind;
use ferrata_ir::DType;

/// The number that these bits are.
pub(crate) fn decode(bits: u64, kind: Kind) -> f64 {
    match kind {
        Kind::F32 => f64::from(f32::from_bits(bits as u32)),
        Kind::BF16 => f64::from(f32::from_bits((bits as u32) << 16)),
        Kind::F16 => half(bits as u16),
        Kind::Int(_) => integer(bits, kind) as f64,
    }
}

/// The bits of the number nearest to `x`.
pub(crate) fn encode(x: f64, kind: Kind) -> u64 {
    match kind {
        Kind::F32 => u64::from((x as f32).to_bits()),
        Kind::BF16 => u64::from((DType::BF16.round_float(x) as f32).to_bits() >> 16),
        Kind::F16 => u64::from(half_bits(DType::F16.round_float(x))),
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

fn half(bits: u16) -> f64 {
    let (sign, exponent) = (if bits >> 15 == 0 { 1.0 } else { -1.0 }, i32::from(bits >> 10 & 31));
    let fraction = f64::from(bits & 1023);
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    }
}

/// The bits of a number that is a half exactly.
fn half_bits(x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 1 << 15 } else { 0 };
    let size = x.abs();
    if x.is_nan() {
        return 0x7E00;
    }
    if size.is_infinite() {
        return sign | 0x7C00;
    }
    if size < 2f64.powi(-14) {
        return sign | (size * 2f64.powi(24)) as u16;
    }
    let exponent = (size.to_bits() >> 52) as i32 - 1023;
    let fraction = (size * 2f64.powi(10 - exponent)) as u16 & 1023;
    sign | ((exponent + 15) as u16) << 10 | fraction
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
