//! Linear algebra on matrices in the last two dimensions, f32 or f64; leading dimensions are a
//! batch. Everything is computed in f64, and has derivatives of any order where the values do.

use crate::tensor::{Tensor, broadcast_shape};
use ferrata_ir::composite;
use ferrata_ir::primitive::{Factorization, Factorize};
use ferrata_ir::{Error, Result};

/// The triangular matrix of [`Tensor::solve_triangular`], and where it stands.
///
/// ```
/// use ferrata::{Tensor, Triangular};
/// let t = Tensor::from([[2.0f32, 0.0], [1.0, 4.0]]);
/// let x = t.solve_triangular(&Tensor::from([[2.0f32], [9.0]]), Triangular::LOWER);
/// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0]);
/// let how = Triangular { transposed: true, right: true, ..Triangular::LOWER };
/// let y = t.solve_triangular(&Tensor::from([[2.0f32, 9.0]]), how);
/// assert_eq!(y.to_vec::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triangular {
    /// Whether the lower triangle is read, else the upper one.
    pub lower: bool,
    /// Whether the diagonal is taken as ones.
    pub unit: bool,
    /// Whether the matrix is transposed after that.
    pub transposed: bool,
    /// Whether the matrix stands on the right of the unknown, `X T = B`, else on the left.
    pub right: bool,
}

impl Triangular {
    /// The lower triangle, `T X = B`.
    pub const LOWER: Triangular =
        Triangular { lower: true, unit: false, transposed: false, right: false };
    /// The upper triangle, `T X = B`.
    pub const UPPER: Triangular = Triangular { lower: false, ..Triangular::LOWER };
}

/// Which norm of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixNorm {
    /// Root of the sum of squares.
    Frobenius,
    /// Sum of the singular values.
    Nuclear,
    /// The largest singular value.
    Spectral,
}

impl Tensor {
    /// The lower `L` with `L Lᵀ` being this symmetric matrix (its symmetric part is read). NaN if
    /// it is not positive definite.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let a = Tensor::from([[4.0f32, 2.0], [2.0, 5.0]]);
    /// assert_eq!(a.cholesky().to_vec::<f32>()?, [2.0, 0.0, 1.0, 2.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn cholesky(&self) -> Tensor {
        Tensor::op("cholesky", &[self], || Ok(self.factors(Factorization::Cholesky).swap_remove(0)))
    }

    /// `Q [.., m, k]` with orthonormal columns and upper `R [.., k, n]` of a matrix `[.., m, n]`,
    /// `k` being the smaller size; signs are those of LAPACK.
    #[track_caller]
    pub fn qr(&self) -> (Tensor, Tensor) {
        let [q, r] = self.factored("qr", Factorization::Qr);
        (q, r)
    }

    /// Ascending eigenvalues `[.., n]` of this symmetric matrix (its symmetric part is read), and
    /// its eigenvectors in columns, the largest component of each positive. Derivatives of
    /// eigenvectors of equal eigenvalues are not finite.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let (w, v) = Tensor::from([[2.0f64, 1.0], [1.0, 2.0]]).eigh();
    /// let w = w.to_vec::<f64>()?;
    /// assert!((w[0] - 1.0).abs() < 1e-15 && (w[1] - 3.0).abs() < 1e-15);
    /// assert!((v.to_vec::<f64>()?[1] - 0.5f64.sqrt()).abs() < 1e-15);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn eigh(&self) -> (Tensor, Tensor) {
        let [w, v] = self.factored("eigh", Factorization::Eigh);
        (w, v)
    }

    /// Ascending eigenvalues `[.., n]` of this symmetric matrix.
    #[track_caller]
    pub fn eigvalsh(&self) -> Tensor {
        let [w, _] = self.factored("eigvalsh", Factorization::Eigh);
        w
    }

    /// `U [.., m, k]`, descending singular values `[.., k]` and `Vᵀ [.., k, n]` of a matrix
    /// `[.., m, n]`, `k` being the smaller size; the largest component of each column of `U` is
    /// positive. Derivatives of vectors of equal singular values are not finite.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let a = Tensor::from([[0.0f64, 2.0], [-3.0, 0.0], [0.0, 0.0]]);
    /// let (u, s, vt) = a.svd();
    /// assert_eq!(s.to_vec::<f64>()?, [3.0, 2.0]);
    /// assert_eq!((u * s).matmul(&vt).to_vec::<f64>()?, a.to_vec::<f64>()?);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn svd(&self) -> (Tensor, Tensor, Tensor) {
        let [u, s, vt] = self.factored("svd", Factorization::Svd);
        (u, s, vt)
    }

    /// Descending singular values.
    #[track_caller]
    pub fn svdvals(&self) -> Tensor {
        let [_, s, _] = self.factored("svdvals", Factorization::Svd);
        s
    }

    #[track_caller]
    fn factors(&self, kind: Factorization) -> Vec<Tensor> {
        Tensor::record(Factorize { kind }, &[self])
    }

    #[track_caller]
    fn factored<const N: usize>(&self, name: &str, kind: Factorization) -> [Tensor; N] {
        let mut results = Tensor::op_many(name, &[self], N, || Ok(self.factors(kind)));
        std::array::from_fn(|_| results.remove(0))
    }

    /// `T⁻¹ B`, or `B T⁻¹`, of this triangular matrix; leading dimensions broadcast. Only its
    /// triangle is read.
    #[track_caller]
    pub fn solve_triangular(&self, rhs: &Tensor, how: Triangular) -> Tensor {
        Tensor::op("solve_triangular", &[self, rhs], || {
            let (t, x) = with_one_batch(self, rhs)?;
            Ok(Tensor::built1("solve_triangular", &[&t, &x], |b, x| {
                // X T = B is Tᵀ Xᵀ = Bᵀ.
                let turned = how.transposed != how.right;
                let t = if turned { b.matrix_transpose(x[0]) } else { x[0] };
                let rhs = if how.right { b.matrix_transpose(x[1]) } else { x[1] };
                let y = b.solve_triangular(t, rhs, how.lower != turned, how.unit);
                if how.right { b.matrix_transpose(y) } else { y }
            }))
        })
    }

    /// `A⁻¹ B` of this matrix `A [.., n, n]`; `rhs` is `[.., n, k]`, one vector `[n]`, or a vector
    /// `[.., n]` for each matrix. Leading dimensions broadcast. Infinities or NaN if `A` is singular.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let a = Tensor::from([[0.0f32, 2.0], [4.0, 0.0]]);
    /// let x = a.solve(&Tensor::from([2.0f32, 4.0]));
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 1.0]);
    /// let e = a.solve(&Tensor::from([1.0f32; 3])).to_vec::<f32>().unwrap_err().to_string();
    /// assert!(e.starts_with("solve(f32[2,2], f32[3"), "{e}");
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn solve(&self, rhs: &Tensor) -> Tensor {
        Tensor::op("solve", &[self, rhs], || {
            let rows = &self.shape()[..self.rank().saturating_sub(1)];
            let vectors = rhs.rank() == 1 || rhs.shape() == rows;
            let columns = if vectors { rhs.unsqueeze(-1) } else { rhs.clone() };
            let (a, x) = with_one_batch(self, &columns)?;
            let y = Tensor::built1("solve", &[&a, &x], |b, x| composite::solve(b, x[0], x[1]));
            Ok(if vectors { y.squeeze(-1) } else { y })
        })
    }

    /// The inverse of this matrix. To multiply by it, [`Tensor::solve`] is faster and more exact.
    #[track_caller]
    pub fn inv(&self) -> Tensor {
        Tensor::op("inv", &[self], || {
            let n = self.shape().last().copied().unwrap_or(0);
            let one = Tensor::eye(n, self.dtype()).broadcast_to(self.shape());
            Ok(Tensor::built1("inv", &[self, &one], |b, x| composite::solve(b, x[0], x[1])))
        })
    }

    /// `A⁻¹ B` for this `B [.., n, k]`, from the lower Cholesky factor `l` of `A`.
    #[track_caller]
    pub fn cholesky_solve(&self, l: &Tensor) -> Tensor {
        Tensor::op("cholesky_solve", &[self, l], || {
            let (l, x) = with_one_batch(l, self)?;
            Ok(Tensor::built1("cholesky_solve", &[&l, &x], |b, x| {
                composite::cholesky_solve(b, x[0], x[1])
            }))
        })
    }

    /// Determinant `[..]`. Derivatives at singular matrices are not finite.
    ///
    /// ```
    /// use ferrata::{Tensor, grad};
    /// let a = Tensor::from([[0.0f64, 2.0], [4.0, 1.0]]);
    /// assert_eq!(a.det().item::<f64>()?, -8.0);
    /// assert_eq!(grad(Tensor::det)(&a).to_vec::<f64>()?, [1.0, -4.0, -2.0, 0.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn det(&self) -> Tensor {
        Tensor::built1("det", &[self], |b, x| composite::det(b, x[0]))
    }

    /// Sign of the determinant (0 of a singular matrix) and logarithm of its magnitude, `[..]`.
    #[track_caller]
    pub fn slogdet(&self) -> (Tensor, Tensor) {
        let mut results = Tensor::built("slogdet", &[self], 2, |b, x| {
            let (sign, log) = composite::slogdet(b, x[0]);
            vec![sign, log]
        });
        let log = results.swap_remove(1);
        (results.swap_remove(0), log)
    }

    /// The `X [.., n, k]` of least `|A X - B|` for this `A [.., m, n]` of full rank and
    /// `rhs [.., m, k]`; of many the one of least length.
    #[track_caller]
    pub fn lstsq(&self, rhs: &Tensor) -> Tensor {
        Tensor::op("lstsq", &[self, rhs], || {
            let (a, x) = with_one_batch(self, rhs)?;
            Ok(Tensor::built1("lstsq", &[&a, &x], |b, x| composite::lstsq(b, x[0], x[1])))
        })
    }

    /// The Moore-Penrose inverse `[.., n, m]`. Singular values up to `rtol` times the largest
    /// count as 0; `None`: the larger size times the precision of the dtype.
    #[track_caller]
    pub fn pinv(&self, rtol: impl Into<Option<f64>>) -> Tensor {
        let rtol = rtol.into().unwrap_or_else(|| self.rank_tolerance());
        Tensor::built1("pinv", &[self], |b, x| composite::pinv(b, x[0], rtol))
    }

    /// How many singular values (i64 `[..]`) are above `rtol` times the largest; `None`: as for
    /// [`Tensor::pinv`].
    #[track_caller]
    pub fn matrix_rank(&self, rtol: impl Into<Option<f64>>) -> Tensor {
        let rtol = rtol.into().unwrap_or_else(|| self.rank_tolerance());
        Tensor::built1("matrix_rank", &[self], |b, x| composite::matrix_rank(b, x[0], rtol))
    }

    fn rank_tolerance(&self) -> f64 {
        let largest = self.shape().iter().rev().take(2).fold(0, |m, &n| m.max(n));
        // One unit in the last place of 1.
        largest as f64 * 2.0 * self.dtype().epsilon()
    }

    /// This square matrix times itself, `power` times in all; of a negative power, its inverse.
    #[track_caller]
    pub fn matrix_power(&self, power: i64) -> Tensor {
        Tensor::op("matrix_power", &[self], || {
            let &[.., n, m] = self.shape() else { return Err(not_square(self)) };
            if n != m {
                return Err(not_square(self));
            }
            let mut square = if power < 0 { self.inv() } else { self.clone() };
            let mut product: Option<Tensor> = None;
            let mut rest = power.unsigned_abs();
            while rest > 0 {
                if rest & 1 == 1 {
                    product = Some(product.map_or_else(|| square.clone(), |p| p.matmul(&square)));
                }
                rest >>= 1;
                if rest > 0 {
                    square = square.matmul(&square);
                }
            }
            let one = || Tensor::eye(n, self.dtype()).broadcast_to(self.shape());
            Ok(product.unwrap_or_else(one))
        })
    }

    /// Norm `[..]` of matrices.
    ///
    /// ```
    /// use ferrata::{MatrixNorm, Tensor};
    /// let a = Tensor::from([[3.0f32, 0.0], [0.0, 4.0]]);
    /// assert_eq!(a.matrix_norm(MatrixNorm::Frobenius).item::<f32>()?, 5.0);
    /// assert_eq!(a.matrix_norm(MatrixNorm::Nuclear).item::<f32>()?, 7.0);
    /// assert_eq!(a.matrix_norm(MatrixNorm::Spectral).item::<f32>()?, 4.0);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn matrix_norm(&self, which: MatrixNorm) -> Tensor {
        Tensor::op("matrix_norm", &[self], || {
            Ok(match which {
                MatrixNorm::Frobenius => self.norm(2.0, [-2, -1]),
                MatrixNorm::Nuclear => self.svdvals().sum(-1),
                MatrixNorm::Spectral => self.svdvals().narrow(-1, 0, 1).squeeze(-1),
            })
        })
    }
}

fn not_square(x: &Tensor) -> Error {
    Error::new(format!("{} holds no square matrices", x.ty()))
}

/// Two tensors of matrices with their leading dimensions broadcast together.
fn with_one_batch(x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
    let split = |t: &Tensor| {
        let at = t.rank().checked_sub(2);
        at.ok_or_else(|| Error::new(format!("{} holds no matrices", t.ty())))
    };
    let (l, r) = (split(x)?, split(y)?);
    let batch = broadcast_shape(&[&x.shape()[..l], &y.shape()[..r]])?;
    let full = |t: &Tensor, at: usize| t.broadcast_to(&[&batch[..], &t.shape()[at..]].concat());
    Ok((full(x, l), full(y, r)))
}
