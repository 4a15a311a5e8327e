//! Fourier transforms of real values, by complex ones of half the length. Complex numbers are pairs
//! in the last dimension; no result is scaled.

use super::{call, first_of_last, function};
use crate::error::{Error, Result};
use crate::primitive::{Attribute, Dft, Pad};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::f64::consts::PI;

/// `rfft`: of real `x [.., n]` the first half of the spectrum, `[.., n / 2 + 1, 2]`. The rest is
/// its mirror image, conjugated.
pub fn rfft(b: &mut Builder, x: Value) -> Value {
    call(b, "rfft", &[x], 1, |types| {
        let n = last_size(&types[0], 1)?;
        let lines = &types[0].shape[..types[0].rank() - 1];
        let shape = |sizes: &[usize]| [lines, sizes].concat();
        function("rfft", vec![], types, |b, x| {
            let at = lines.len();
            if n % 2 == 1 {
                let column = b.reshape(x[0], &shape(&[n, 1]));
                let zeros = b.zeros_like(column);
                let pairs = b.concatenate(&[column, zeros], at + 1);
                let y = b.emit1(Dft { inverse: false }, &[pairs]);
                return vec![b.slice_dim(y, at, 0, n / 2 + 1)];
            }
            // Even elements are the real parts, odd ones the imaginary parts.
            let pairs = b.reshape(x[0], &shape(&[n / 2, 2]));
            let z = b.emit1(Dft { inverse: false }, &[pairs]);
            let first = b.slice_dim(z, at, 0, 1);
            let z = b.concatenate(&[z, first], at);
            let (even, odd) = parts(b, z, at);
            let turned = half_turns(b, odd, at, n / 2, false);
            // -i times the odd part.
            let turned = quarter(b, turned, at + 1, false);
            let sum = b.add(even, turned);
            vec![b.scale(sum, 0.5)]
        })
    })[0]
}

/// `irfft`: of half a spectrum `x [.., n / 2 + 1, 2]`, the real `[.., n]`. The imaginary parts of
/// element 0 and, if `n` is even, of the last one are not read. Attribute: `n`.
pub fn irfft(b: &mut Builder, x: Value, n: usize) -> Value {
    call(b, "irfft", &[x], 1, |types| {
        let at = first_of_last(&types[0], 2)?;
        let half = n / 2 + 1;
        if types[0].shape[at..] != [half, 2] || n == 0 {
            let ty = &types[0];
            return Err(Error::new(format!("{ty} is no half of a spectrum, [.., {half}, 2]")));
        }
        let attributes = vec![("n", Attribute::Int(n as i64))];
        let lines = types[0].shape[..at].to_vec();
        function("irfft", attributes, types, |b, x| {
            let x = real_ends(b, x[0], at, n);
            let z = if n % 2 == 1 {
                let rest = b.slice_dim(x, at, 1, half);
                let mirrored = mirrored(b, rest, at);
                b.concatenate(&[x, mirrored], at)
            } else {
                let (even, odd) = parts(b, x, at);
                let turned = half_turns(b, odd, at, n / 2, true);
                let turned = quarter(b, turned, at + 1, true);
                let sum = b.add(even, turned);
                b.slice_dim(sum, at, 0, n / 2)
            };
            let y = b.emit1(Dft { inverse: true }, &[z]);
            let y = if n % 2 == 1 { b.slice_dim(y, at + 1, 0, 1) } else { y };
            vec![b.reshape(y, &[&lines[..], &[n]].concat())]
        })
    })[0]
}

/// Complex `x` and `y [.., 2]` multiplied.
pub fn complex_mul(b: &mut Builder, x: Value, y: Value) -> Value {
    call(b, "complex_mul", &[x, y], 1, |types| {
        super::expect_float("the first operand", &types[0])?;
        super::expect_dtype("the second operand", &types[1], types[0].dtype)?;
        super::expect_shape("the second operand", &types[1], &types[0].shape)?;
        if last_size(&types[0], 1)? != 2 {
            return Err(Error::new(format!("{} holds no complex numbers [.., 2]", types[0])));
        }
        function("complex_mul", vec![], types, |b, x| {
            let at = b.ty(x[0]).rank() - 1;
            let part = |b: &mut Builder, i: usize, k: usize| b.slice_dim(x[i], at, k, k + 1);
            let [a, bi, c, d] = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, k)| part(b, i, k));
            let (ac, bd) = (b.mul(a, c), b.mul(bi, d));
            let (ad, bc) = (b.mul(a, d), b.mul(bi, c));
            let (re, im) = (b.sub(ac, bd), b.add(ad, bc));
            vec![b.concatenate(&[re, im], at)]
        })
    })[0]
}

/// The size of dimension `from_last`, counted from 1 at the end, which must not be 0.
fn last_size(ty: &Type, from_last: usize) -> Result<usize> {
    let at = first_of_last(ty, from_last)?;
    match ty.shape[at] {
        0 => Err(Error::new(format!("{ty} has nothing to transform"))),
        n => Ok(n),
    }
}

/// `x_k + conj(x_(h-k))` and `x_k - conj(x_(h-k))`, for `k` in `0..=h` along `dim`.
fn parts(b: &mut Builder, x: Value, dim: usize) -> (Value, Value) {
    let mirrored = mirrored(b, x, dim);
    (b.add(x, mirrored), b.sub(x, mirrored))
}

/// Conjugated and back to front along `dim`; pairs follow it.
fn mirrored(b: &mut Builder, x: Value, dim: usize) -> Value {
    let flipped = b.flip(x, &[dim]);
    let re = b.slice_dim(flipped, dim + 1, 0, 1);
    let im = b.slice_dim(flipped, dim + 1, 1, 2);
    let im = b.neg(im);
    b.concatenate(&[re, im], dim + 1)
}

/// Element `k` along `dim` times `e^(±πi k/h)`, for `k` in `0..=h`.
fn half_turns(b: &mut Builder, x: Value, dim: usize, h: usize, forward: bool) -> Value {
    let ty = b.ty(x).clone();
    let place = b.iota(ty, dim);
    let steps = b.full_like(x, h as f64);
    let part = b.div(place, steps);
    // Sines of angles near 0 only: exact at quarter turns.
    let rest = b.neg(part);
    let (to_quarter, to_half) = (b.offset(rest, 0.5), b.offset(rest, 1.0));
    let near = b.min(part, to_half);
    let sine = |b: &mut Builder, x| {
        let angle = b.scale(x, PI);
        b.sin(angle)
    };
    let (cos, sin) = (sine(b, to_quarter), sine(b, near));
    let quarter = quarter(b, x, dim + 1, forward);
    let (along, across) = (b.mul(x, cos), b.mul(quarter, sin));
    b.add(along, across)
}

/// `i x`, or `-i x`, of pairs along `dim`.
fn quarter(b: &mut Builder, x: Value, dim: usize, forward: bool) -> Value {
    let re = b.slice_dim(x, dim, 0, 1);
    let im = b.slice_dim(x, dim, 1, 2);
    let parts = if forward { [b.neg(im), re] } else { [im, b.neg(re)] };
    b.concatenate(&parts, dim)
}

/// Half a spectrum with imaginary parts of 0 where those of a real value's are.
fn real_ends(b: &mut Builder, x: Value, dim: usize, n: usize) -> Value {
    let half = n / 2 + 1;
    let end = if n.is_multiple_of(2) { half - 1 } else { half };
    let re = b.slice_dim(x, dim + 1, 0, 1);
    let im = b.slice_dim(x, dim + 1, 1, 2);
    let inner = b.slice_dim(im, dim, 1, end);
    let rank = b.ty(x).rank();
    let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
    (low[dim], high[dim]) = (1, (half - end) as i64);
    let zero = b.full(Type::scalar(b.ty(x).dtype), 0.0);
    let im = b.emit1(Pad { low, high, interior: vec![0; rank] }, &[inner, zero]);
    b.concatenate(&[re, im], dim + 1)
}
