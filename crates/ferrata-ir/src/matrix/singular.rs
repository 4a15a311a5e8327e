//! Singular values and vectors: QR, then one-sided Jacobi rotations of the rows of the triangular
//! factor, which finds small singular values to full relative accuracy (Drmač & Veselić 2008).

use super::householder::{self, qr};
use super::{dot, largest, leading_sign, rotate, take, two_rows};

pub(super) fn workspace(rows: usize, columns: usize) -> usize {
    let (tall, k) = (rows.max(columns), rows.min(columns));
    2 * tall * k + 2 * k * k + k + householder::workspace(tall, k)
}

/// Passes over all pairs of rows; about ten are usual.
const SWEEPS: usize = 60;

/// `x [rows, columns] = u diag(s) vt` with descending `s [k]`, orthonormal columns `u [rows, k]`,
/// whose largest components are positive, and orthonormal rows `vt [k, columns]`. All are NaN if
/// `x` is not finite. `x` is destroyed.
#[inline(always)]
pub(super) fn svd(
    x: &mut [f64],
    [rows, columns]: [usize; 2],
    [u, s, vt]: [&mut [f64]; 3],
    mut work: &mut [f64],
) {
    let scale = largest(x);
    if scale.is_nan() {
        [u, s, vt].into_iter().for_each(|result| result.fill(f64::NAN));
        return;
    }
    let (tall, k) = (rows.max(columns), rows.min(columns));
    if k == 0 {
        return;
    }
    let scale = if scale == 0.0 { 1.0 } else { scale };
    let wide = columns > rows;
    let (a, q) = (take(&mut work, tall * k), take(&mut work, tall * k));
    let (w, g, squares) = (take(&mut work, k * k), take(&mut work, k * k), take(&mut work, k));
    for i in 0..tall {
        for j in 0..k {
            a[i * k + j] = x[if wide { j * columns + i } else { i * columns + j }] / scale;
        }
    }
    qr(a, [tall, k], q, w, work);
    super::set_identity(g, k);
    orthogonalize(w, g, squares, k);
    sort(w, g, squares, k);
    // The rows of `w` are those of the short factor, times the singular values.
    let known = squares.iter().take_while(|&&square| square >= f64::MIN_POSITIVE).count();
    for (i, row) in w.chunks_exact_mut(k).enumerate() {
        let length = if i < known { squares[i].sqrt() } else { 0.0 };
        s[i] = length * scale;
        row.iter_mut().for_each(|x| *x = if i < known { *x / length } else { 0.0 });
    }
    let long = a;
    for (i, q) in q.chunks_exact(k).enumerate() {
        (0..k).for_each(|j| long[i * k + j] = dot(q, &g[j * k..(j + 1) * k]));
    }
    if known < k {
        complete(w, known, k, [&mut q[..k * k], g, &mut x[..k * k]], work);
    }
    for j in 0..k {
        let sign = match wide {
            true => leading_sign(w[j * k..(j + 1) * k].iter().copied()),
            false => leading_sign((0..tall).map(|i| long[i * k + j])),
        };
        for i in 0..k {
            let place = if wide { &mut u[i * k + j] } else { &mut vt[j * columns + i] };
            *place = sign * w[j * k + i];
        }
        for i in 0..tall {
            let place = if wide { &mut vt[j * columns + i] } else { &mut u[i * k + j] };
            *place = sign * long[i * k + j];
        }
    }
}

/// Turns the rows of `w [k, k]` until they are orthogonal; `g` turns with it. `squares` are the
/// squared lengths of the rows.
#[inline(always)]
fn orthogonalize(w: &mut [f64], g: &mut [f64], squares: &mut [f64], k: usize) {
    let tolerance = 4.0 * f64::EPSILON * (k as f64).sqrt();
    for _ in 0..SWEEPS {
        let mut turned = false;
        measure(w, squares, k);
        for i in 0..k {
            for j in i + 1..k {
                let (x, y) = two_rows(w, i, j, k);
                let product = dot(x, y);
                let (p, q) = (squares[i], squares[j]);
                // The comparison is false for what has vanished, too.
                let oblique = product.abs() > tolerance * p.sqrt() * q.sqrt();
                if !oblique {
                    continue;
                }
                turned = true;
                let cotangent = (p - q) / (2.0 * product);
                let tangent = 1f64.copysign(cotangent) / (cotangent.abs() + cotangent.hypot(1.0));
                let c = 1.0 / tangent.hypot(1.0);
                rotate(x, y, c, c * tangent);
                let (x, y) = two_rows(g, i, j, k);
                rotate(x, y, c, c * tangent);
                squares[i] = p + tangent * product;
                squares[j] = (q - tangent * product).max(0.0);
            }
        }
        if !turned {
            break;
        }
    }
    measure(w, squares, k);
}

#[inline(always)]
fn measure(w: &[f64], squares: &mut [f64], k: usize) {
    for (square, row) in squares.iter_mut().zip(w.chunks_exact(k)) {
        *square = dot(row, row);
    }
}

/// Brings the longest rows to the front.
#[inline(always)]
fn sort(w: &mut [f64], g: &mut [f64], squares: &mut [f64], k: usize) {
    for to in 0..k {
        let longest = (to + 1..k).fold(to, |at, i| if squares[i] > squares[at] { i } else { at });
        if longest != to {
            squares.swap(to, longest);
            for x in [&mut *w, &mut *g] {
                let (x, y) = two_rows(x, to, longest, k);
                x.swap_with_slice(y);
            }
        }
    }
}

/// Completes `known` orthonormal rows of `w [k, k]` to a basis; the others are 0.
#[inline(always)]
fn complete(
    w: &mut [f64],
    known: usize,
    k: usize,
    [columns, basis, r]: [&mut [f64]; 3],
    work: &mut [f64],
) {
    for i in 0..k {
        (0..k).for_each(|j| columns[j * k + i] = w[i * k + j]);
    }
    // Columns of zeros have no reflector: what those before them leave is the complement.
    qr(columns, [k, k], basis, r, work);
    for i in known..k {
        (0..k).for_each(|j| w[i * k + j] = basis[j * k + i]);
    }
}
