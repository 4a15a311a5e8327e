//! Algorithms of dense linear algebra, in f64, on row-major matrices.
//!
//! Factorisations have no meaning but an algorithm, so the reference evaluator and devices run the
//! same code. Every function is inlined into its caller, which may have wider vectors; the order of
//! operations is fixed, so results do not depend on them. Nothing here allocates: callers bring
//! room of [`workspace`] numbers.
//!
//! | file | what |
//! |---|---|
//! | `triangular` | Cholesky, LU with row exchanges, solution of triangular systems |
//! | `householder` | reflectors, QR |
//! | `eigen` | eigenvalues of symmetric matrices: tridiagonalisation, implicit QR steps |
//! | `singular` | singular values: QR, then one-sided Jacobi rotations |

mod eigen;
mod householder;
mod singular;
mod triangular;

pub use triangular::solve_triangular;

use crate::primitive::Factorization;

/// How many numbers [`factorize`] needs beside the matrix and its results.
pub fn workspace(kind: Factorization, rows: usize, columns: usize) -> usize {
    match kind {
        Factorization::Cholesky | Factorization::Lu => 0,
        Factorization::Qr => householder::workspace(rows, columns),
        Factorization::Eigh => eigen::workspace(rows),
        Factorization::Svd => singular::workspace(rows, columns),
    }
}

/// Factorises `x [rows, columns]`, which is destroyed, into `results`, whose shapes are those of
/// the primitive.
#[inline(always)]
pub fn factorize(
    kind: Factorization,
    [rows, columns]: [usize; 2],
    x: &mut [f64],
    results: &mut [&mut [f64]],
    work: &mut [f64],
) {
    match (kind, results) {
        (Factorization::Cholesky, [l]) => triangular::cholesky(x, l, rows),
        (Factorization::Lu, [lu, order]) => triangular::lu(x, lu, order, rows),
        (Factorization::Qr, [q, r]) => householder::qr(x, [rows, columns], q, r, work),
        (Factorization::Eigh, [w, v]) => eigen::eigh(x, rows, w, v, work),
        (Factorization::Svd, [u, s, vt]) => {
            singular::svd(x, [rows, columns], [u, s, vt], work);
        }
        _ => debug_assert!(false, "a factorisation with other results"),
    }
}

/// Sums that a product keeps side by side.
const LANES: usize = 16;

/// `Σ x y`, in an order that depends on the length alone.
#[inline(always)]
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let mut sum = 0.0;
    for (x, y) in x.remainder().iter().zip(y.remainder()) {
        sum += x * y;
    }
    for (x, y) in x.zip(y) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    for lane in lanes {
        sum += lane;
    }
    sum
}

/// `y += factor x`.
#[inline(always)]
fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// Turns two vectors in their plane: `x' = c x + s y`, `y' = c y - s x`.
#[inline(always)]
fn rotate(x: &mut [f64], y: &mut [f64], c: f64, s: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (c * *x + s * *y, c * *y - s * *x);
    }
}

/// Rows `i < j` of a matrix with `columns` columns.
#[inline(always)]
fn two_rows(x: &mut [f64], i: usize, j: usize, columns: usize) -> (&mut [f64], &mut [f64]) {
    let (before, after) = x.split_at_mut(j * columns);
    (&mut before[i * columns..(i + 1) * columns], &mut after[..columns])
}

/// The first columns of the identity.
#[inline(always)]
fn set_identity(x: &mut [f64], columns: usize) {
    x.fill(0.0);
    x.iter_mut().step_by(columns + 1).take(columns).for_each(|x| *x = 1.0);
}

/// The largest magnitude of all numbers; NaN if one is not finite.
#[inline(always)]
fn largest(x: &[f64]) -> f64 {
    let largest = x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    if x.iter().all(|x| x.is_finite()) { largest } else { f64::NAN }
}

/// The sign of the number of largest magnitude, the first among equals.
#[inline(always)]
fn leading_sign(x: impl Iterator<Item = f64>) -> f64 {
    let mut leading = 0.0f64;
    for x in x {
        if x.abs() > leading.abs() {
            leading = x;
        }
    }
    1f64.copysign(leading)
}

/// Splits the first `count` numbers off a workspace.
#[inline(always)]
fn take<'a>(work: &mut &'a mut [f64], count: usize) -> &'a mut [f64] {
    let (taken, rest) = std::mem::take(work).split_at_mut(count);
    *work = rest;
    taken
}

#[cfg(test)]
mod tests;
