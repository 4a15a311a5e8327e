//! Broadcasts, reductions and transposition in the vector unit.

use super::vector::{Binary, binary};
use crate::sim::machine::{Machine, dense};
use crate::sim::memory::View;
use crate::sim::number::{self, rounded};
use crate::sim::syntax::{Kind, Pipe, Slot};
use ferrata_ir::{Error, Result, Scalar};

/// Lanes of the vector unit, in elements of 32 bits: partial sums of a reduction.
const LANES: usize = 64;

/// Runs such a function, if that is what the name says.
///
/// # Errors
/// When shapes do not fit.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<bool> {
    if name.starts_with("broadcast_scalar_") {
        let value = machine.number(args[0])?;
        let target = machine.view(args[1])?;
        machine.issue(Pipe::Vector, name, &[], &[&target])?;
        let bits = number::bits(value, target.kind);
        machine.memories.write(&target, std::iter::repeat_n(bits, target.elements()));
    } else if name.starts_with("broadcast_") {
        let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
        let source = source.spread(&target.sizes)?;
        copy(machine, name, &source, &target)?;
    } else if name.starts_with("arange_") {
        let target = machine.view(args[0])?;
        let (offset, strides) = (machine.number(args[1])?.as_i64(), &args[2..]);
        let strides = strides.iter().map(|&s| Ok(machine.number(s)?.as_i64()));
        let strides = strides.collect::<Result<Vec<i64>>>()?;
        machine.issue(Pipe::Vector, name, &[], &[&target])?;
        let index = View { offset, strides, ..(*target).clone() };
        let kind = target.kind;
        let bits = |i: i64| number::bits(Scalar::Int(i), kind);
        machine.memories.write(&target, index.positions().into_iter().map(bits));
    } else if name.starts_with("deinterleave_channel_0_from_n_channels") {
        let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
        copy(machine, name, &source, &target)?;
    } else if name.starts_with("transpose_2d") {
        let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
        let mut turned = (*source).clone();
        turned.sizes.reverse();
        turned.strides.reverse();
        copy(machine, name, &turned, &target)?;
    } else if let Some((_, what)) = name.split_once("reduce_") {
        reduce(machine, name, what, args)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn copy(machine: &mut Machine<'_>, name: &str, source: &View, target: &View) -> Result<()> {
    if source.sizes != target.sizes {
        return Err(Error::new(format!("`{name}` from {:?} to {:?}", source.sizes, target.sizes)));
    }
    machine.issue(Pipe::Vector, name, &[source], &[target])?;
    let values = machine.memories.read(source);
    machine.memories.write(target, values);
    Ok(())
}

/// `sum_ar_float`: what, along which dimension (the letter `r`), of what.
fn reduce(machine: &mut Machine<'_>, name: &str, what: &str, args: &[Slot]) -> Result<()> {
    let unknown = || Error::new(format!("unknown library function `{name}`"));
    let mut words = what.split('_');
    let (operation, shape) = words.next().zip(words.next()).ok_or_else(unknown)?;
    let instruction = match operation {
        "sum" => "vadd",
        "prod" => "vmul",
        "max" => "vmax",
        "min" => "vmin",
        _ => return Err(unknown()),
    };
    let f = binary(instruction).ok_or_else(unknown)?;
    let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
    let axis = shape.find('r').filter(|_| shape.chars().all(|c| "ar".contains(c)));
    let axis = axis.filter(|&a| a < source.sizes.len());
    let axis = axis.ok_or_else(unknown)?;
    let n = source.sizes[axis];
    let mut lines = (*source).clone();
    let step = lines.strides.remove(axis);
    lines.sizes.remove(axis);
    let memory = args.get(2).and_then(|&t| machine.view(t).ok());
    let writes: Vec<&View> = std::iter::once(&*target).chain(memory.as_deref()).collect();
    if lines.elements() != target.elements() {
        return Err(Error::new(format!("`{name}` from {:?} to {:?}", source.sizes, target.sizes)));
    }
    machine.issue(Pipe::Vector, name, &[&source], &writes)?;
    let kind = source.kind;
    let mut results = Vec::with_capacity(lines.elements());
    for first in lines.positions() {
        let line = (0..n as i64).map(|i| machine.memories.get(&source, first + i * step));
        let line: Vec<Scalar> = line.map(|bits| number::scalar(bits, kind)).collect();
        results.push(number::bits(combine(&line, kind, f), kind));
    }
    machine.memories.write(&target, results);
    Ok(())
}

/// Lane by lane, then the lanes in pairs, each step rounded.
fn combine(line: &[Scalar], kind: Kind, f: Binary) -> Scalar {
    let pair = |x: Scalar, y: Scalar| match f(x, y, kind) {
        Scalar::Float(z) => Scalar::Float(rounded(z, kind)),
        z => z,
    };
    let mut lanes: Vec<Scalar> = line.iter().take(LANES).copied().collect();
    for (i, &x) in line.iter().enumerate().skip(LANES) {
        lanes[i % LANES] = pair(lanes[i % LANES], x);
    }
    while lanes.len() > 1 {
        lanes = lanes.chunks(2).map(|c| if let [x, y] = c { pair(*x, *y) } else { c[0] }).collect();
    }
    lanes.first().copied().unwrap_or(Scalar::Int(0))
}

/// An array without gaps.
pub(crate) fn whole(view: &View, base: usize, sizes: Vec<usize>) -> View {
    let strides = dense(&sizes);
    View { base, offset: 0, sizes, strides, ..view.clone() }
}
