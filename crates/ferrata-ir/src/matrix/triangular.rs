//! Cholesky and LU factors, and triangular systems.

use super::{add_scaled, dot, two_rows};

/// The lower factor `l` of the symmetric part of `x [n, n]`; NaN where a row cannot be computed
/// because the matrix is not positive definite, and in all rows below.
#[inline(always)]
pub(super) fn cholesky(x: &[f64], l: &mut [f64], n: usize) {
    l.fill(0.0);
    for i in 0..n {
        let (above, row) = l.split_at_mut(i * n);
        for j in 0..i {
            let symmetric = (x[i * n + j] + x[j * n + i]) / 2.0;
            let other = &above[j * n..j * n + n];
            row[j] = (symmetric - dot(&row[..j], &other[..j])) / other[j];
        }
        let rest = x[i * n + i] - dot(&row[..i], &row[..i]);
        // The comparison is false for NaN too.
        let definite = rest > 0.0;
        row[i] = if definite { rest.sqrt() } else { f64::NAN };
        if !definite {
            row[..i].fill(f64::NAN);
        }
    }
}

/// Gaussian elimination of `x [n, n]` with exchanges of rows: row `i` of the factors `lu` (unit
/// lower and upper, in one matrix) belongs to row `order[i]` of the matrix.
#[inline(always)]
pub(super) fn lu(x: &[f64], lu: &mut [f64], order: &mut [f64], n: usize) {
    lu.copy_from_slice(x);
    order.iter_mut().enumerate().for_each(|(i, order)| *order = i as f64);
    for k in 0..n {
        let mut pivot = k;
        for i in k + 1..n {
            if lu[i * n + k].abs() > lu[pivot * n + k].abs() {
                pivot = i;
            }
        }
        if pivot != k {
            let (upper, lower) = two_rows(lu, k, pivot, n);
            upper.swap_with_slice(lower);
            order.swap(k, pivot);
        }
        let (above, below) = lu.split_at_mut((k + 1) * n);
        let upper = &above[k * n + k..];
        // A column of zeros is eliminated already.
        if upper[0] == 0.0 {
            continue;
        }
        for row in below.chunks_exact_mut(n) {
            let factor = row[k] / upper[0];
            row[k] = factor;
            add_scaled(&mut row[k + 1..], -factor, &upper[1..]);
        }
    }
}

/// Solves `T X = B` in place of `b [n, columns]`; `T` is the lower or upper triangle of `t [n, n]`,
/// with ones on its diagonal if `unit`.
#[inline(always)]
pub fn solve_triangular(t: &[f64], b: &mut [f64], n: usize, lower: bool, unit: bool) {
    let columns = b.len() / n.max(1);
    for step in 0..n {
        let i = if lower { step } else { n - 1 - step };
        let (above, rest) = b.split_at_mut(i * columns);
        let (row, below) = rest.split_at_mut(columns);
        let (known, solved) = if lower { (0..i, &*above) } else { (i + 1..n, &*below) };
        let factors = &t[i * n..][known];
        if columns == 1 {
            row[0] -= dot(factors, solved);
        } else {
            for (factor, solved) in factors.iter().zip(solved.chunks_exact(columns.max(1))) {
                add_scaled(row, -factor, solved);
            }
        }
        if !unit {
            row.iter_mut().for_each(|x| *x /= t[i * n + i]);
        }
    }
}
