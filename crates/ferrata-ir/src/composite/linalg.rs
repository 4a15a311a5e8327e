//! Linear algebra on matrices in the last two dimensions, in f32 or f64.

use super::{AttributeList, Keep, Own, call, function, number, with_own};
use crate::DType;
use crate::error::{Error, Result};
use crate::primitive::elementwise as ops;
use crate::primitive::factorize::{expect_matrices, expect_square};
use crate::primitive::{BadIndex, Factorization, Factorize, ReduceKind, ScatterKind};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

fn factors(b: &mut Builder, kind: Factorization, x: Value) -> Vec<Value> {
    b.emit(Factorize { kind }, &[x])
}

/// `solve`: `A⁻¹ B` for square `a [.., n, n]` and `rhs [.., n, k]`, by LU factors with exchanges of
/// rows; infinities or NaN if a matrix is singular.
///
/// Backward: `solve_backward(X, factors, order, dX) -> (dA, dB)`.
pub fn solve(b: &mut Builder, a: Value, rhs: Value) -> Value {
    call(b, "solve", &[a, rhs], 1, |types| {
        expect_pair(types)?;
        expect_square(&types[0])?;
        let own = Own {
            names: ("solve", "solve_backward"),
            forward: function("solve_forward", vec![], types, |b, x| {
                let lu = factors(b, Factorization::Lu, x[0]);
                let moved = exchanged(b, x[1], lu[1]);
                let y = b.solve_triangular(lu[0], moved, true, true);
                vec![b.solve_triangular(lu[0], y, false, false), lu[0], lu[1]]
            })?,
            results: 1,
            keep: &[Keep::Result(0), Keep::Result(1), Keep::Result(2)],
        };
        with_own(own, |b, kept, dy| {
            let (x, lu) = (kept[0], b.matrix_transpose(kept[1]));
            let y = b.solve_triangular(lu, dy[0], true, false);
            let y = b.solve_triangular(lu, y, false, true);
            let place = column_index(b, kept[2], y);
            let (zeros, rows) = (b.zeros_like(y), b.ty(y).rank() - 2);
            let drhs = b.put_along(ScatterKind::Add, zeros, place, y, rows);
            let xt = b.matrix_transpose(x);
            let da = b.matmul(drhs, xt);
            vec![b.neg(da), drhs]
        })
    })[0]
}

/// Rows of `x` in the order of an LU factorisation.
fn exchanged(b: &mut Builder, x: Value, order: Value) -> Value {
    let place = column_index(b, order, x);
    let rows = b.ty(x).rank() - 2;
    b.take_along(x, place, rows, BadIndex::Clip)
}

/// Indices of rows for every column of `x`.
fn column_index(b: &mut Builder, order: Value, x: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let dims: Vec<usize> = (0..shape.len() - 1).collect();
    b.broadcast(order, &shape, &dims)
}

/// `cholesky_solve`: `A⁻¹ B` from the lower Cholesky factor `l [.., n, n]` of `A`, and
/// `rhs [.., n, k]`.
pub fn cholesky_solve(b: &mut Builder, l: Value, rhs: Value) -> Value {
    call(b, "cholesky_solve", &[l, rhs], 1, |types| {
        expect_pair(types)?;
        expect_square(&types[0])?;
        function("cholesky_solve", vec![], types, |b, x| {
            let y = b.solve_triangular(x[0], x[1], true, false);
            let upper = b.matrix_transpose(x[0]);
            vec![b.solve_triangular(upper, y, false, false)]
        })
    })[0]
}

/// `det`: determinants of `a [.., n, n]`. Derivatives at singular matrices are not finite.
pub fn det(b: &mut Builder, a: Value) -> Value {
    call(b, "det", &[a], 1, |types| {
        expect_square(&types[0])?;
        function("det", vec![], types, |b, x| {
            let (sign, diagonal) = eliminated(b, x[0]);
            let last = b.ty(diagonal).rank() - 1;
            let product = b.reduce(ReduceKind::Product, diagonal, &[last]);
            vec![b.mul(sign, product)]
        })
    })[0]
}

/// `slogdet`: signs (0 for singular matrices) and logarithms of the magnitudes of the determinants
/// of `a [.., n, n]`.
pub fn slogdet(b: &mut Builder, a: Value) -> (Value, Value) {
    let results = call(b, "slogdet", &[a], 2, |types| {
        expect_square(&types[0])?;
        function("slogdet", vec![], types, |b, x| {
            let (sign, diagonal) = eliminated(b, x[0]);
            let last = b.ty(diagonal).rank() - 1;
            let signs = b.sign(diagonal);
            let signs = b.reduce(ReduceKind::Product, signs, &[last]);
            let magnitudes = b.abs(diagonal);
            let logs = b.log(magnitudes);
            vec![b.mul(sign, signs), b.sum(logs, &[last])]
        })
    });
    (results[0], results[1])
}

/// The sign of the exchanges of rows, and the diagonal of the upper factor.
fn eliminated(b: &mut Builder, a: Value) -> (Value, Value) {
    let lu = factors(b, Factorization::Lu, a);
    let shape = b.ty(a).shape.clone();
    let rank = shape.len();
    let leading: Vec<usize> = (0..rank - 2).collect();
    let rows = b.broadcast(lu[1], &shape, &[&leading[..], &[rank - 2]].concat());
    let columns = b.broadcast(lu[1], &shape, &[&leading[..], &[rank - 1]].concat());
    // A permutation is odd if it has an odd number of pairs in the wrong order.
    let wrong = b.apply(&ops::GT, &[rows, columns]);
    let wrong = b.cast(wrong, DType::I64);
    let wrong = b.upper_triangle(wrong);
    let count = b.sum(wrong, &[rank - 2, rank - 1]);
    let two = b.full(b.ty(count).clone(), 2i64);
    let odd = b.rem(count, two);
    let odd = b.cast(odd, b.ty(a).dtype);
    let sign = b.scale(odd, -2.0);
    (b.offset(sign, 1.0), b.matrix_diagonal(lu[0]))
}

/// `lstsq`: the `X [.., n, k]` of least `|A X - B|` for `a [.., m, n]` of full rank and
/// `rhs [.., m, k]`; if there are many (`m < n`), the one of least length. By QR factors.
pub fn lstsq(b: &mut Builder, a: Value, rhs: Value) -> Value {
    call(b, "lstsq", &[a, rhs], 1, |types| {
        expect_pair(types)?;
        let [m, n] = expect_matrices(&types[0])?;
        function("lstsq", vec![], types, |b, x| {
            if m >= n {
                let qr = factors(b, Factorization::Qr, x[0]);
                let qt = b.matrix_transpose(qr[0]);
                let y = b.matmul(qt, x[1]);
                return vec![b.solve_triangular(qr[1], y, false, false)];
            }
            let at = b.matrix_transpose(x[0]);
            let qr = factors(b, Factorization::Qr, at);
            let lower = b.matrix_transpose(qr[1]);
            let y = b.solve_triangular(lower, x[1], true, false);
            vec![b.matmul(qr[0], y)]
        })
    })[0]
}

/// `pinv`: the Moore-Penrose inverse `[.., n, m]` of `a [.., m, n]`, in which singular values up to
/// `rtol` times the largest count as 0.
///
/// Backward (Golub & Pereyra 1973), also where singular values are equal:
/// `pinv_backward(A, P, dP) -> dA`. Attribute: `rtol`.
pub fn pinv(b: &mut Builder, a: Value, rtol: f64) -> Value {
    call(b, "pinv", &[a], 1, |types| {
        expect_matrices(&types[0])?;
        let own = Own {
            names: ("pinv", "pinv_backward"),
            forward: inverted("pinv", vec![("rtol", number(rtol))], types, rtol)?,
            results: 1,
            keep: &[Keep::Input(0), Keep::Result(0)],
        };
        with_own(own, |b, kept, dy| {
            let (a, p) = (kept[0], kept[1]);
            let (pt, dt) = (b.matrix_transpose(p), b.matrix_transpose(dy[0]));
            let left = b.matmul(pt, dy[0]);
            let left = b.matmul(left, pt);
            // (1 - A P) dPᵀ P Pᵀ and Pᵀ P dPᵀ (1 - P A)
            let (ppt, ptp) = (b.matmul(p, pt), b.matmul(pt, p));
            let right = b.matmul(dt, ppt);
            let seen = b.matmul(p, right);
            let seen = b.matmul(a, seen);
            let outside = b.sub(right, seen);
            let upper = b.matmul(ptp, dt);
            let seen = b.matmul(upper, p);
            let seen = b.matmul(seen, a);
            let above = b.sub(upper, seen);
            let sum = b.add(outside, above);
            vec![b.sub(sum, left)]
        })
    })[0]
}

/// `V S⁻¹ Uᵀ` without what counts as 0.
fn inverted(
    name: &'static str,
    attributes: AttributeList,
    types: &[Type],
    rtol: f64,
) -> Result<Arc<Function>> {
    function(name, attributes, types, |b, x| {
        let [u, s, vt] = factors(b, Factorization::Svd, x[0])[..] else { return vec![x[0]] };
        let counts = above(b, s, rtol);
        let (zero, one) = (b.zeros_like(s), b.full_like(s, 1.0));
        let safe = b.select(counts, s, one);
        let inverse = b.div(one, safe);
        let inverse = b.select(counts, inverse, zero);
        let shape = b.ty(vt).shape.clone();
        let dims: Vec<usize> = (0..shape.len() - 1).collect();
        let inverse = b.broadcast(inverse, &shape, &dims);
        let scaled = b.mul(vt, inverse);
        let (v, ut) = (b.matrix_transpose(scaled), b.matrix_transpose(u));
        vec![b.matmul(v, ut)]
    })
}

/// Which descending singular values are above `rtol` times the first.
fn above(b: &mut Builder, s: Value, rtol: f64) -> Value {
    let shape = b.ty(s).shape.clone();
    let last = shape.len() - 1;
    let first = b.slice_dim(s, last, 0, shape[last].min(1));
    let bound = b.scale(first, rtol);
    let bound = match shape[last] {
        0 => bound,
        _ => b.broadcast(bound, &shape, &(0..=last).collect::<Vec<_>>()),
    };
    b.gt(s, bound)
}

/// `matrix_rank`: how many singular values (i64) of `a [.., m, n]` are above `rtol` times the
/// largest.
pub fn matrix_rank(b: &mut Builder, a: Value, rtol: f64) -> Value {
    call(b, "matrix_rank", &[a], 1, |types| {
        expect_matrices(&types[0])?;
        function("matrix_rank", vec![("rtol", number(rtol))], types, |b, x| {
            let s = factors(b, Factorization::Svd, x[0])[1];
            let counts = above(b, s, rtol);
            let counts = b.cast(counts, DType::I64);
            let last = b.ty(counts).rank() - 1;
            vec![b.sum(counts, &[last])]
        })
    })[0]
}

/// Checks for matrices of one dtype with equal leading dimensions and as many rows.
fn expect_pair(types: &[Type]) -> Result<()> {
    let ([m, _], [rows, _]) = (expect_matrices(&types[0])?, expect_matrices(&types[1])?);
    let leading = |ty: &Type| ty.shape[..ty.rank() - 2].to_vec();
    if types[0].dtype == types[1].dtype && m == rows && leading(&types[0]) == leading(&types[1]) {
        return Ok(());
    }
    Err(Error::new(format!("{} and {} are not [.., m, n] and [.., m, k]", types[0], types[1])))
}
