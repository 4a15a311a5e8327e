//! Householder reflectors `1 - τ v vᵀ` with `v[0] = 1`, and QR.

use super::{add_scaled, set_identity, take};

pub(super) fn workspace(rows: usize, columns: usize) -> usize {
    rows.min(columns) + rows + columns
}

/// The reflector that brings `v` to a multiple of the first unit vector: `v` becomes the vector of
/// the reflector; gives `τ` and the multiple. What is such a multiple already stays (`τ = 0`).
#[inline(always)]
pub(super) fn reflector(v: &mut [f64]) -> (f64, f64) {
    let first = v[0];
    let scale = v[1..].iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    v[0] = 1.0;
    if scale == 0.0 {
        return (0.0, first);
    }
    let squares = v[1..].iter().fold(0.0, |sum, x| sum + (x / scale) * (x / scale));
    let length = -(squares.sqrt() * scale).hypot(first).copysign(first);
    v[1..].iter_mut().for_each(|x| *x /= first - length);
    ((length - first) / length, length)
}

/// Applies a reflector to the rows from `top` on of `x`, in the columns from `left` on.
#[inline(always)]
pub(super) fn reflect(
    (v, tau): (&[f64], f64),
    x: &mut [f64],
    columns: usize,
    [top, left]: [usize; 2],
    sums: &mut [f64],
) {
    let sums = &mut sums[left..columns];
    sums.fill(0.0);
    for (row, &v) in x[top * columns..].chunks_exact(columns).zip(v) {
        add_scaled(sums, v, &row[left..]);
    }
    for (row, &v) in x[top * columns..].chunks_exact_mut(columns).zip(v) {
        add_scaled(&mut row[left..], -tau * v, sums);
    }
}

/// `x [rows, columns] = q r` with orthonormal columns `q [rows, k]` and upper `r [k, columns]`,
/// `k` being the smaller size. `x` is destroyed.
#[inline(always)]
pub(super) fn qr(
    x: &mut [f64],
    [rows, columns]: [usize; 2],
    q: &mut [f64],
    r: &mut [f64],
    mut work: &mut [f64],
) {
    let k = rows.min(columns);
    if k == 0 {
        return;
    }
    let taus = take(&mut work, k);
    let (v, sums) = work.split_at_mut(rows);
    for j in 0..k {
        let v = &mut v[..rows - j];
        v.iter_mut().enumerate().for_each(|(i, v)| *v = x[(j + i) * columns + j]);
        let (tau, length) = reflector(v);
        taus[j] = tau;
        reflect((v, tau), x, columns, [j, j + 1], sums);
        v[0] = length;
        v.iter().enumerate().for_each(|(i, &v)| x[(j + i) * columns + j] = v);
    }
    for i in 0..k {
        let row = i * columns..(i + 1) * columns;
        r[row.clone()].copy_from_slice(&x[row]);
        r[i * columns..][..i].fill(0.0);
    }
    set_identity(q, k);
    for j in (0..k).rev() {
        let v = &mut v[..rows - j];
        v.iter_mut().enumerate().for_each(|(i, v)| *v = x[(j + i) * columns + j]);
        v[0] = 1.0;
        reflect((v, taus[j]), q, k, [j, j], sums);
    }
}
