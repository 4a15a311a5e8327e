//! Tangents of factors, from the factors and the tangent of the matrix.

use super::Factorization;
use crate::primitive::elementwise as ops;
use crate::primitive::{BadIndex, Tangents};
use crate::program::{Builder, Value};

/// Tangents of the factors `y`.
pub(super) fn tangents(kind: Factorization, b: &mut Builder, y: &[Value], da: Value) -> Tangents {
    match kind {
        Factorization::Cholesky => vec![Some(cholesky(b, y[0], da))],
        Factorization::Lu => vec![Some(lu(b, [y[0], y[1]], da)), None],
        Factorization::Qr => qr(b, [y[0], y[1]], da).map(Some).to_vec(),
        Factorization::Eigh => eigh(b, [y[0], y[1]], da).map(Some).to_vec(),
        Factorization::Svd => svd(b, [y[0], y[1], y[2]], da).map(Some).to_vec(),
    }
}

/// `dL = L Φ(L⁻¹ dA L⁻ᵀ)`, `Φ` being the lower triangle with half the diagonal (Murray 2016).
fn cholesky(b: &mut Builder, l: Value, da: Value) -> Value {
    let left = b.solve_triangular(l, da, true, false);
    let left = b.matrix_transpose(left);
    let inner = b.solve_triangular(l, left, true, false);
    let outer = b.matrix_transpose(inner);
    let twice = b.add(inner, outer);
    let (lower, below) = (b.lower_triangle(twice, false), b.lower_triangle(twice, true));
    let four = b.add(lower, below);
    let phi = b.scale(four, 0.25);
    b.matmul(l, phi)
}

/// With `F = L⁻¹ P dA U⁻¹`: `dL = L F` below the diagonal of `F`, `dU = F U` on and above it.
fn lu(b: &mut Builder, [lu, order]: [Value; 2], da: Value) -> Value {
    let shape = b.ty(da).shape.clone();
    let dims: Vec<usize> = (0..shape.len() - 1).collect();
    let order = b.broadcast(order, &shape, &dims);
    let moved = b.take_along(da, order, shape.len() - 2, BadIndex::Clip);
    let f = b.solve_triangular(lu, moved, true, true);
    let f = b.divide_triangular(f, lu, false);
    let (below, strictly) = (b.lower_triangle(lu, true), b.lower_triangle(f, true));
    let product = b.matmul(below, strictly);
    let lower = b.add(product, strictly);
    let (upper, rest) = (b.upper_triangle(lu), b.upper_triangle(f));
    let upper = b.matmul(rest, upper);
    b.add(lower, upper)
}

/// With `C = Qᵀ dA R⁻¹` of the leading columns and the skew `Ω` that has its lower triangle:
/// `dQ = dA R⁻¹ - Q (C - Ω)`, `dR = Qᵀ dA - Ω R`.
fn qr(b: &mut Builder, [q, r]: [Value; 2], da: Value) -> [Value; 2] {
    let rank = b.ty(q).rank();
    let k = b.ty(q).shape[rank - 1];
    let leading = b.slice_dim(da, rank - 1, 0, k);
    let square = b.slice_dim(r, rank - 1, 0, k);
    let divided = b.divide_triangular(leading, square, false);
    let qt = b.matrix_transpose(q);
    let c = b.matmul(qt, divided);
    let below = b.lower_triangle(c, true);
    let above = b.matrix_transpose(below);
    let skew = b.sub(below, above);
    let upper = b.sub(c, skew);
    let within = b.matmul(q, upper);
    let dq = b.sub(divided, within);
    let (turned, turning) = (b.matmul(qt, da), b.matmul(skew, r));
    let dr = b.sub(turned, turning);
    [dq, b.upper_triangle(dr)]
}

/// With `P = Vᵀ dA V`: `dw` is its diagonal, `dV = V (F ∘ P)` with `F = 1 / (w_j - w_i)`.
fn eigh(b: &mut Builder, [w, v]: [Value; 2], da: Value) -> [Value; 2] {
    let vt = b.matrix_transpose(v);
    let right = b.matmul(da, v);
    let p = b.matmul(vt, right);
    let pt = b.matrix_transpose(p);
    let twice = b.add(p, pt);
    let p = b.scale(twice, 0.5);
    let shape = b.ty(v).shape.clone();
    let gap = gaps(b, w, &shape, false);
    let f = reciprocal(b, gap);
    let turn = b.mul(f, p);
    [b.matrix_diagonal(p), b.matmul(v, turn)]
}

/// With `P = Uᵀ dA V`: `ds` is its diagonal, `dU = U (F ∘ (P S + S Pᵀ)) + (1 - U Uᵀ) dA V S⁻¹` with
/// `F = 1 / (s_j² - s_i²)`, and likewise `dV` (Townsend 2016).
fn svd(b: &mut Builder, [u, s, vt]: [Value; 3], da: Value) -> [Value; 3] {
    let (ut, v) = (b.matrix_transpose(u), b.matrix_transpose(vt));
    let dat = b.matrix_transpose(da);
    let right = b.matmul(da, v);
    let left = b.matmul(dat, u);
    let p = b.matmul(ut, right);
    let pt = b.matrix_transpose(p);
    let shape = b.ty(p).shape.clone();
    let (difference, sum) = (gaps(b, s, &shape, false), gaps(b, s, &shape, true));
    let product = b.mul(difference, sum);
    let f = reciprocal(b, product);
    let side = |b: &mut Builder, own: Value, p: Value, pt: Value, moved: Value| {
        let rank = shape.len();
        let leading: Vec<usize> = (0..rank - 2).collect();
        let rows = b.broadcast(s, &shape, &[&leading[..], &[rank - 2]].concat());
        let columns = b.broadcast(s, &shape, &[&leading[..], &[rank - 1]].concat());
        let (x, y) = (b.mul(p, columns), b.mul(pt, rows));
        let turn = b.add(x, y);
        let turn = b.mul(f, turn);
        let within = b.matmul(own, turn);
        let size = b.ty(own).shape.clone();
        if size[rank - 2] == size[rank - 1] {
            return within;
        }
        let seen = b.matmul(own, p);
        let outside = b.sub(moved, seen);
        let lengths = b.broadcast(s, &size, &[&leading[..], &[rank - 1]].concat());
        let outside = b.div(outside, lengths);
        b.add(within, outside)
    };
    let du = side(b, u, p, pt, right);
    let dv = side(b, v, pt, p, left);
    [du, b.matrix_diagonal(p), b.matrix_transpose(dv)]
}

/// `x_j - x_i` (or `x_j + x_i`) in row `i` and column `j`.
fn gaps(b: &mut Builder, x: Value, shape: &[usize], sum: bool) -> Value {
    let rank = shape.len();
    let leading: Vec<usize> = (0..rank - 2).collect();
    let rows = b.broadcast(x, shape, &[&leading[..], &[rank - 2]].concat());
    let columns = b.broadcast(x, shape, &[&leading[..], &[rank - 1]].concat());
    if sum { b.add(columns, rows) } else { b.sub(columns, rows) }
}

/// `1 / x` elementwise outside of the diagonals, which are 0.
fn reciprocal(b: &mut Builder, x: Value) -> Value {
    let one = b.full_like(x, 1.0);
    let on = b.part_of_matrix(one, &ops::EQ);
    let x = b.add(x, on);
    let inverse = b.div(one, x);
    b.part_of_matrix(inverse, &ops::NE)
}
