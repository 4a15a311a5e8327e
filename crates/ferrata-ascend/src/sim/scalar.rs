//! Arithmetic of the scalar unit.

use super::number;
use super::syntax::Kind;
use ferrata_ir::{Error, Result, Scalar};

/// Applies `arith.NAME`, or a root or a size.
///
/// # Errors
/// For operations that are not known.
pub(crate) fn apply(
    name: &str,
    args: &[Scalar],
    from: Option<Kind>,
    to: Option<Kind>,
) -> Result<Scalar> {
    let unknown = || Error::new(format!("unknown scalar operation `{name}`"));
    let (from, to) = (from.ok_or_else(unknown)?, to.ok_or_else(unknown)?);
    let x = *args.first().ok_or_else(unknown)?;
    let y = args.get(1).copied().unwrap_or(x);
    if let Some(predicate) = name.strip_prefix("cmpi ") {
        return compare_int(predicate, x.as_i64(), y.as_i64(), from).map(|t| Scalar::Int(t.into()));
    }
    if from.is_float() && to.is_float() {
        let (x, y) = (x.as_f64(), y.as_f64());
        let result = match name {
            "addf" => x + y,
            "subf" => x - y,
            "mulf" => x * y,
            "divf" => x / y,
            "negf" => -x,
            "sqrt" => x.sqrt(),
            "absf" => x.abs(),
            "maximumf" if x.is_nan() || y.is_nan() => f64::NAN,
            "minimumf" if x.is_nan() || y.is_nan() => f64::NAN,
            "maximumf" => x.max(y),
            "minimumf" => x.min(y),
            "extf" | "truncf" => x,
            _ => return Err(unknown()),
        };
        return Ok(Scalar::Float(number::rounded(result, to)));
    }
    if name == "bitcast" {
        return Ok(number::scalar(number::bits(x, from), to));
    }
    if to.is_float() {
        return match name {
            "sitofp" => Ok(Scalar::Float(number::rounded(x.as_i64() as f64, to))),
            _ => Err(unknown()),
        };
    }
    if from.is_float() {
        return match name {
            "fptosi" => Ok(wrapped(x.as_f64() as i64, to)),
            _ => Err(unknown()),
        };
    }
    let (a, b) = (x.as_i64(), y.as_i64());
    let (ua, ub) = (unsigned(a, from), unsigned(b, from));
    Ok(wrapped(
        match name {
            "addi" => a.wrapping_add(b),
            "subi" => a.wrapping_sub(b),
            "muli" => a.wrapping_mul(b),
            "divsi" | "divui" | "remsi" | "remui" | "ceildivsi" | "floordivsi" if b == 0 => {
                return Err(Error::new("division by 0"));
            }
            "divsi" => a.wrapping_div(b),
            "remsi" => a.wrapping_rem(b),
            "divui" => (ua / ub) as i64,
            "remui" => (ua % ub) as i64,
            "ceildivsi" => -(-a).div_euclid(b),
            "floordivsi" => a.div_euclid(b),
            "andi" => a & b,
            "ori" => a | b,
            "xori" => a ^ b,
            "shli" => a.checked_shl(b as u32).unwrap_or(0),
            "shrsi" => a >> b.clamp(0, 63),
            "shrui" => ua.checked_shr(b as u32).unwrap_or(0) as i64,
            "maxsi" => a.max(b),
            "minsi" => a.min(b),
            "extui" => ua as i64,
            "extsi" | "trunci" | "index_cast" => a,
            "index_castui" => ua as i64,
            _ => return Err(unknown()),
        },
        to,
    ))
}

/// A truth value is 0 or 1; other integers wrap.
fn wrapped(x: i64, to: Kind) -> Scalar {
    Scalar::Int(number::integer(x as u64, to))
}

/// The bits of an integer of this kind, and no others.
fn unsigned(x: i64, kind: Kind) -> u64 {
    let bits = kind.bits() as u32;
    x as u64 & if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn compare_int(predicate: &str, a: i64, b: i64, kind: Kind) -> Result<bool> {
    let (ua, ub) = (unsigned(a, kind), unsigned(b, kind));
    Ok(match predicate {
        "eq" => a == b,
        "ne" => a != b,
        "slt" => a < b,
        "sle" => a <= b,
        "sgt" => a > b,
        "sge" => a >= b,
        "ult" => ua < ub,
        "ule" => ua <= ub,
        "ugt" => ua > ub,
        "uge" => ua >= ub,
        _ => return Err(Error::new(format!("unknown comparison `{predicate}`"))),
    })
}
