//! Elementwise work of the vector unit.

use crate::sim::machine::Machine;
use crate::sim::memory::View;
use crate::sim::number::{bits, rounded, scalar};
use crate::sim::syntax::{Kind, Pipe, Slot};
use ferrata_ir::{Error, Result, Scalar};
use std::rc::Rc;

/// An operand: an array, or a number for all elements.
enum Operand {
    Array(Rc<View>),
    Number(Scalar),
}

/// Runs an elementwise function, if that is what the name says.
///
/// # Errors
/// When shapes or operands do not fit.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<bool> {
    let stem = super::stem(name);
    if stem.starts_with("vcast_") {
        return cast(machine, name, args).map(|()| true);
    }
    if let Some(forms) = stem.strip_prefix("vsel_") {
        return select(machine, name, forms, args).map(|()| true);
    }
    if let Some(compare) = stem.strip_prefix("vcmps_").or_else(|| stem.strip_prefix("vcmp_")) {
        let ops = [operand(machine, args[0])?, operand(machine, args[1])?];
        let predicate =
            predicate(compare).ok_or_else(|| Error::new(format!("unknown `{name}`")))?;
        let target = machine.view(args[2])?;
        let f = |x: &[Scalar]| Scalar::Int(i64::from(predicate(x[0], x[1])));
        return apply(machine, name, &ops, &target, f).map(|()| true);
    }
    let stem = stem.trim_end_matches("_vs").trim_end_matches("_sv").trim_end_matches("_vv");
    if let Some(f) = unary(stem) {
        let ops = [operand(machine, args[0])?];
        let target = machine.view(args[1])?;
        return apply(machine, name, &ops, &target, |x| f(x[0], target.kind)).map(|()| true);
    }
    if let Some(f) = binary(stem) {
        let ops = [operand(machine, args[0])?, operand(machine, args[1])?];
        let target = machine.view(args[2])?;
        return apply(machine, name, &ops, &target, |x| f(x[0], x[1], target.kind)).map(|()| true);
    }
    Ok(false)
}

fn operand(machine: &Machine<'_>, slot: Slot) -> Result<Operand> {
    match machine.view(slot) {
        Ok(view) => Ok(Operand::Array(view)),
        Err(_) => Ok(Operand::Number(machine.number(slot)?)),
    }
}

/// Writes `f` of the operands' elements, those of size 1 repeated, each rounded.
fn apply(
    machine: &mut Machine<'_>,
    name: &str,
    operands: &[Operand],
    target: &View,
    f: impl Fn(&[Scalar]) -> Scalar,
) -> Result<()> {
    let mut views = Vec::new();
    for operand in operands {
        if let Operand::Array(view) = operand {
            views.push(view.spread(&target.sizes)?);
        }
    }
    machine.issue(Pipe::Vector, name, &views.iter().collect::<Vec<_>>(), &[target])?;
    let elements: Vec<Vec<Scalar>> = views
        .iter()
        .map(|v| machine.memories.read(v).into_iter().map(|b| scalar(b, v.kind)).collect())
        .collect();
    let mut results = Vec::with_capacity(target.elements());
    let mut point = vec![Scalar::Int(0); operands.len()];
    for i in 0..target.elements() {
        let mut arrays = elements.iter();
        for (slot, operand) in point.iter_mut().zip(operands) {
            *slot = match operand {
                Operand::Number(x) => *x,
                Operand::Array(_) => arrays.next().map_or(Scalar::Int(0), |e| e[i]),
            };
        }
        results.push(bits(f(&point), target.kind));
    }
    machine.memories.write(target, results);
    Ok(())
}

fn float(f: impl Fn(f64) -> f64, x: Scalar) -> Scalar {
    Scalar::Float(f(x.as_f64()))
}

type Unary = fn(Scalar, Kind) -> Scalar;
pub(crate) type Binary = fn(Scalar, Scalar, Kind) -> Scalar;

fn unary(stem: &str) -> Option<Unary> {
    Some(match stem {
        "vexp" => |x, _| float(f64::exp, x),
        "vln" => |x, _| float(f64::ln, x),
        "vsqrt" => |x, _| float(f64::sqrt, x),
        "vrsqrt" => |x, _| float(|x| 1.0 / x.sqrt(), x),
        "vrec" => |x, _| float(|x| 1.0 / x, x),
        "vrelu" => |x, _| float(|x| x.max(0.0), x),
        "vabs" => |x, _| match x {
            Scalar::Float(x) => Scalar::Float(x.abs()),
            Scalar::Int(x) => Scalar::Int(x.wrapping_abs()),
        },
        "vnot" => |x, _| Scalar::Int(!x.as_i64()),
        _ => return None,
    })
}

/// The same operation on floats, and on integers, which wrap.
fn both(x: Scalar, y: Scalar, f: fn(f64, f64) -> f64, g: fn(i64, i64) -> i64) -> Scalar {
    match (x, y) {
        (Scalar::Int(x), Scalar::Int(y)) => Scalar::Int(g(x, y)),
        _ => Scalar::Float(f(x.as_f64(), y.as_f64())),
    }
}

/// A function of two operands, by the name of its instruction.
pub(crate) fn binary(stem: &str) -> Option<Binary> {
    Some(match stem {
        "vadd" | "vadds" => |x, y, _| both(x, y, |x, y| x + y, i64::wrapping_add),
        "vsub" | "vsubs" => |x, y, _| both(x, y, |x, y| x - y, i64::wrapping_sub),
        "vmul" | "vmuls" => |x, y, _| both(x, y, |x, y| x * y, i64::wrapping_mul),
        "vdiv" | "vdivs" => |x, y, _| Scalar::Float(x.as_f64() / y.as_f64()),
        "vmax" | "vmaxs" => |x, y, _| both(x, y, largest, i64::max),
        "vmin" | "vmins" => |x, y, _| both(x, y, |x, y| -largest(-x, -y), i64::min),
        "vand" | "vands" => |x, y, _| Scalar::Int(x.as_i64() & y.as_i64()),
        "vor" | "vors" => |x, y, _| Scalar::Int(x.as_i64() | y.as_i64()),
        "vxor" | "vxors" => |x, y, _| Scalar::Int(x.as_i64() ^ y.as_i64()),
        "vshls" => |x, y, _| Scalar::Int(x.as_i64().checked_shl(y.as_i64() as u32).unwrap_or(0)),
        "vshrs" => |x, y, _| Scalar::Int(x.as_i64() >> y.as_i64().clamp(0, 63)),
        _ => return None,
    })
}

/// The larger number; NaN wins.
fn largest(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) }
}

fn predicate(name: &str) -> Option<fn(Scalar, Scalar) -> bool> {
    fn order(x: Scalar, y: Scalar) -> Option<std::cmp::Ordering> {
        match (x, y) {
            (Scalar::Int(x), Scalar::Int(y)) => Some(x.cmp(&y)),
            _ => x.as_f64().partial_cmp(&y.as_f64()),
        }
    }
    Some(match name {
        "eq" => |x, y| order(x, y).is_some_and(|o| o.is_eq()),
        "ne" => |x, y| order(x, y).is_none_or(|o| o.is_ne()),
        "lt" => |x, y| order(x, y).is_some_and(|o| o.is_lt()),
        "le" => |x, y| order(x, y).is_some_and(|o| o.is_le()),
        "gt" => |x, y| order(x, y).is_some_and(|o| o.is_gt()),
        "ge" => |x, y| order(x, y).is_some_and(|o| o.is_ge()),
        _ => return None,
    })
}

/// `vsel_vs`: condition, first and second choice, target; each choice an array or a number.
fn select(machine: &mut Machine<'_>, name: &str, forms: &str, args: &[Slot]) -> Result<()> {
    if !matches!(forms, "vv" | "vs" | "sv" | "ss") {
        return Err(Error::new(format!("unknown library function `{name}`")));
    }
    let ops = [operand(machine, args[0])?, operand(machine, args[1])?, operand(machine, args[2])?];
    let target = machine.view(args[3])?;
    apply(machine, name, &ops, &target, |x| if x[0].as_i64() != 0 { x[1] } else { x[2] })
}

/// Source, target, perhaps memory for a moment, and how to round.
fn cast(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<()> {
    let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
    let mode = machine.number(args[args.len() - 1])?.as_i64();
    let overflows = name.contains("overflow");
    let (from, to) = (source.kind, target.kind);
    let whole = |x: f64| match mode {
        0 => Some(x.round_ties_even()),
        1 => Some(x.round()),
        2 => Some(x.floor()),
        3 => Some(x.ceil()),
        4 => Some(x.trunc()),
        _ => None,
    };
    if whole(0.0).is_none() && !(overflows && mode == 6) {
        return Err(Error::new(format!("`{name}` with the unknown mode {mode}")));
    }
    let convert = |x: &[Scalar]| match x[0] {
        Scalar::Int(x) if to.is_float() => Scalar::Float(rounded(x as f64, to)),
        Scalar::Int(x) if overflows => Scalar::Int(x),
        Scalar::Int(x) => Scalar::Int(saturated(x, to)),
        Scalar::Float(x) if to == from => Scalar::Float(whole(x).unwrap_or(x)),
        Scalar::Float(x) if to.is_float() => Scalar::Float(x),
        Scalar::Float(x) => Scalar::Int(saturated(whole(x).unwrap_or(x) as i64, to)),
    };
    apply(machine, name, &[Operand::Array(source)], &target, convert)
}

fn saturated(x: i64, kind: Kind) -> i64 {
    let bits = kind.bits() as u32;
    if bits >= 64 || bits == 1 {
        return x;
    }
    x.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
}
