//! Random numbers of the normal distribution.

use super::{call, expect_dtype, expect_shape, function, number};
use crate::DType;
use crate::error::{Error, Result};
use crate::primitive::Attribute;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::f64::consts::TAU;
use std::sync::Arc;

/// `random_normal`: numbers of the normal distribution with mean 0 and standard deviation `std`,
/// of a float type, from the `key` u32`[2]` (Box and Muller 1958). Elements `2 i` and `2 i + 1`
/// come from words `2 i` and `2 i + 1` of the key's random bits: the cosine and the sine of a
/// random angle at a random radius. Attributes: `type`, `std`.
pub fn random_normal(b: &mut Builder, key: Value, ty: &Type, std: f64) -> Value {
    call(b, "random_normal", &[key], 1, |types| random_normal_function(types, ty, std))[0]
}

fn random_normal_function(types: &[Type], ty: &Type, std: f64) -> Result<Arc<Function>> {
    expect_dtype("the key", &types[0], DType::U32)?;
    expect_shape("the key", &types[0], &[2])?;
    if !ty.dtype.is_float() {
        return Err(Error::new(format!("{} has no normal distribution", ty.dtype))
            .help("use a float dtype"));
    }
    let attributes = vec![("type", Attribute::Type(ty.clone())), ("std", number(std))];
    function("random_normal", attributes, types, |b, x| {
        let n = ty.elements();
        let pairs = n.div_ceil(2);
        let bits = b.random_bits(x[0], &[pairs, 2]);
        let unit = between_0_and_1(b, bits, ty.dtype.accumulator());
        let part = |b: &mut Builder, i| b.slice_dim(unit, 1, i, i + 1);
        let (first, second) = (part(b, 0), part(b, 1));
        let log = b.log(first);
        let square = b.scale(log, -2.0);
        let root = b.sqrt(square);
        let radius = b.scale(root, std);
        let angle = b.scale(second, TAU);
        let (cos, sin) = (b.cos(angle), b.sin(angle));
        let (even, odd) = (b.mul(radius, cos), b.mul(radius, sin));
        let both = b.concatenate(&[even, odd], 1);
        let flat = b.reshape(both, &[2 * pairs]);
        let flat = b.slice_dim(flat, 0, 0, n);
        let all = b.reshape(flat, &ty.shape);
        vec![b.cast(all, ty.dtype)]
    })
}

/// The middles of equal parts of (0, 1): 2³² of them in f64, else the 2²³ that f32 has exactly.
fn between_0_and_1(b: &mut Builder, bits: Value, dtype: DType) -> Value {
    let (bits, parts) = if dtype == DType::F64 {
        (bits, 2f64.powi(-32))
    } else {
        let nine = b.full(b.ty(bits).clone(), 9);
        (b.shr(bits, nine), 2f64.powi(-23))
    };
    let number = b.cast(bits, dtype);
    let middle = b.offset(number, 0.5);
    b.scale(middle, parts)
}
