//! Eigenvalues and eigenvectors of symmetric matrices.

use super::householder::{reflect, reflector};
use super::{add_scaled, dot, largest, leading_sign, rotate, set_identity, take, two_rows};

pub(super) fn workspace(n: usize) -> usize {
    n * n + 6 * n
}

/// Steps that an eigenvalue may take; two or three are usual.
const STEPS: usize = 50;

/// Ascending eigenvalues `w [n]` of the symmetric part of `x [n, n]`, and eigenvectors in the
/// columns of `v [n, n]`, their largest components positive. All are NaN if `x` is not finite.
#[inline(always)]
pub(super) fn eigh(x: &mut [f64], n: usize, w: &mut [f64], v: &mut [f64], mut work: &mut [f64]) {
    let scale = largest(x);
    if scale.is_nan() {
        w.fill(f64::NAN);
        v.fill(f64::NAN);
        return;
    }
    let scale = if scale == 0.0 { 1.0 } else { scale };
    for i in 0..n {
        for j in 0..=i {
            let symmetric = (x[i * n + j] / scale + x[j * n + i] / scale) / 2.0;
            (x[i * n + j], x[j * n + i]) = (symmetric, symmetric);
        }
    }
    let (vectors, off) = (take(&mut work, n * n), take(&mut work, n));
    let diagonal = take(&mut work, n);
    tridiagonalize(x, n, [diagonal, off], v, work);
    for i in 0..n {
        (0..n).for_each(|j| vectors[j * n + i] = v[i * n + j]);
    }
    if !diagonalize(diagonal, off, vectors, n) {
        w.fill(f64::NAN);
        v.fill(f64::NAN);
        return;
    }
    // Selection sort: of rows, which are long, as few as possible are moved.
    for to in 0..n {
        let least = (to + 1..n).fold(to, |at, i| if diagonal[i] < diagonal[at] { i } else { at });
        if least != to {
            diagonal.swap(to, least);
            let (x, y) = two_rows(vectors, to, least, n);
            x.swap_with_slice(y);
        }
        w[to] = diagonal[to] * scale;
        let vector = &vectors[to * n..][..n];
        let sign = leading_sign(vector.iter().copied());
        vector.iter().enumerate().for_each(|(i, &x)| v[i * n + to] = sign * x);
    }
}

/// `x = Q T Qᵀ` with tridiagonal `T` of this diagonal and this off-diagonal. `x` is destroyed.
#[inline(always)]
fn tridiagonalize(
    x: &mut [f64],
    n: usize,
    [diagonal, off]: [&mut [f64]; 2],
    q: &mut [f64],
    mut work: &mut [f64],
) {
    let (taus, sums) = (take(&mut work, n), take(&mut work, n));
    let v = take(&mut work, n);
    for k in 0..n {
        let (row, rest) = x[k * n..].split_at_mut(n);
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        // By symmetry, the row is the column that the reflector clears.
        let (v, p) = (&mut row[k + 1..], &mut sums[k + 1..]);
        let (tau, length) = reflector(v);
        (taus[k], off[k]) = (tau, length);
        for (p, row) in p.iter_mut().zip(rest.chunks_exact(n)) {
            *p = tau * dot(&row[k + 1..], v);
        }
        let along = -tau / 2.0 * dot(p, v);
        add_scaled(p, along, v);
        for (i, row) in rest.chunks_exact_mut(n).enumerate() {
            let row = &mut row[k + 1..];
            add_scaled(row, -v[i], p);
            add_scaled(row, -p[i], v);
        }
    }
    set_identity(q, n);
    for k in (0..n.saturating_sub(1)).rev() {
        let v = &mut v[..n - k - 1];
        v.copy_from_slice(&x[k * n + k + 1..(k + 1) * n]);
        reflect((v, taus[k]), q, n, [k + 1, k + 1], sums);
    }
}

/// Turns a tridiagonal matrix into a diagonal one by QR steps with implicit shifts; `vectors` (in
/// rows) turn with it. Whether it was done in time.
#[inline(always)]
fn diagonalize(d: &mut [f64], e: &mut [f64], vectors: &mut [f64], n: usize) -> bool {
    let mut steps = STEPS * n;
    let mut last = n.saturating_sub(1);
    while last > 0 {
        let negligible = |i: usize| e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs());
        if negligible(last - 1) {
            last -= 1;
            continue;
        }
        let first = (0..last - 1).rev().find(|&i| negligible(i)).map_or(0, |i| i + 1);
        if steps == 0 {
            return false;
        }
        steps -= 1;
        step(d, e, vectors, n, [first, last]);
    }
    true
}

/// One QR step on rows `first..=last`, with the shift of Wilkinson.
#[inline(always)]
fn step(d: &mut [f64], e: &mut [f64], vectors: &mut [f64], n: usize, [first, last]: [usize; 2]) {
    let (half, corner) = ((d[last - 1] - d[last]) / 2.0, e[last - 1]);
    let shift = d[last] - corner * (corner / (half + half.hypot(corner).copysign(half)));
    let (mut x, mut bulge) = (d[first] - shift, e[first]);
    for k in first..last {
        let length = x.hypot(bulge);
        let (c, s) = if length == 0.0 { (1.0, 0.0) } else { (x / length, bulge / length) };
        if k > first {
            e[k - 1] = length;
        }
        let (above, off, below) = (d[k], e[k], d[k + 1]);
        d[k] = c * c * above + 2.0 * c * s * off + s * s * below;
        d[k + 1] = s * s * above - 2.0 * c * s * off + c * c * below;
        e[k] = c * s * (below - above) + (c * c - s * s) * off;
        if k + 1 < last {
            (x, bulge) = (e[k], s * e[k + 1]);
            e[k + 1] *= c;
        }
        let (upper, lower) = two_rows(vectors, k, k + 1, n);
        rotate(upper, lower, c, s);
    }
}
