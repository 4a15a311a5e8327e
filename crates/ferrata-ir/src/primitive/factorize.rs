//! Factorisations of matrices. What they mean is an algorithm: see [`crate::matrix`].

mod derivative;

use super::attribute::{attribute_words, attributes};
use super::{Loops, Operand, Rules, Tangents, expect_inputs, not_linear};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::matrix::{factorize, workspace};
use crate::program::{Builder, Value};
use crate::types::Type;

/// Which factors are wanted of matrices `[.., m, n]`; `k` is the smaller size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factorization {
    /// Lower `L [.., n, n]` with `L Lᵀ` being the symmetric part of a square matrix; rows from the
    /// first that shows the matrix not to be positive definite are NaN.
    Cholesky,
    /// Unit lower and upper factors of a square matrix, in one matrix `[.., n, n]`, and i64
    /// `[.., n]`: the row of the matrix that each row of their product is. A singular matrix gives
    /// a 0 on the diagonal of the upper factor.
    Lu,
    /// `Q [.., m, k]` with orthonormal columns and upper `R [.., k, n]`, with LAPACK's signs.
    Qr,
    /// Ascending eigenvalues `[.., n]` of the symmetric part of a square matrix, and eigenvectors
    /// in the columns of `[.., n, n]`, the largest component of each positive. NaN if the matrix
    /// is not finite.
    Eigh,
    /// `U [.., m, k]`, descending singular values `[.., k]`, `Vᵀ [.., k, n]`; the largest component
    /// of each column of `U` is positive. NaN if the matrix is not finite.
    Svd,
}

attribute_words!(Factorization {
    Cholesky => "cholesky", Lu => "lu", Qr => "qr", Eigh => "eigh", Svd => "svd",
});

impl Factorization {
    /// How many results there are.
    pub fn results(self) -> usize {
        match self {
            Factorization::Cholesky => 1,
            Factorization::Lu | Factorization::Qr | Factorization::Eigh => 2,
            Factorization::Svd => 3,
        }
    }
}

/// The factors of matrices in the last two dimensions, of dtype f32 or f64. All is computed in f64.
///
/// Eigenvectors and singular vectors that belong to equal values are not determined, and have no
/// derivatives: those are infinite or NaN there, and also for the longer singular vectors of
/// matrices that are not square where a singular value is 0. Derivatives of the values are fine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Factorize {
    /// Which factors.
    pub kind: Factorization,
}

attributes!(Factorize { kind });

/// The sizes of the matrices in the last two dimensions of `ty`, which has a dtype that linear
/// algebra is done in.
pub(crate) fn expect_matrices(ty: &Type) -> Result<[usize; 2]> {
    if !matches!(ty.dtype, DType::F32 | DType::F64) {
        return Err(Error::new(format!(
            "linear algebra is done in f32 or f64, not in {}",
            ty.dtype
        ))
        .help("cast the matrices to f32"));
    }
    match ty.shape[..] {
        [.., rows, columns] => Ok([rows, columns]),
        _ => Err(Error::new(format!("{ty} holds no matrices, which have two dimensions"))),
    }
}

/// As [`expect_matrices`], for square ones.
pub(crate) fn expect_square(ty: &Type) -> Result<usize> {
    match expect_matrices(ty)? {
        [n, m] if n == m => Ok(n),
        [m, n] => Err(Error::new(format!("needs square matrices, but they are {m} × {n}"))),
    }
}

impl Rules for Factorize {
    fn name(&self) -> &'static str {
        "factorize"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let x = inputs[0];
        let [m, n] = expect_matrices(x)?;
        let k = m.min(n);
        let of = |sizes: &[usize]| x.with_shape([&x.shape[..x.rank() - 2], sizes].concat());
        Ok(match self.kind {
            Factorization::Qr => vec![of(&[m, k]), of(&[k, n])],
            Factorization::Svd => vec![of(&[m, k]), of(&[k]), of(&[k, n])],
            square => {
                expect_square(x)?;
                match square {
                    Factorization::Lu => vec![x.clone(), of(&[n]).with_dtype(DType::I64)],
                    Factorization::Eigh => vec![of(&[n]), x.clone()],
                    _ => vec![x.clone()],
                }
            }
        })
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let ty = &inputs[0].ty;
        let [m, n] = expect_matrices(ty)?;
        let matrices: usize = ty.shape[..ty.rank() - 2].iter().product();
        let (x, each) = (inputs[0].to_f64(), m * n);
        let mut work = vec![0.0; workspace(self.kind, m, n)];
        let mut all: Vec<Vec<f64>> = outputs.iter().map(|ty| vec![0.0; ty.elements()]).collect();
        for i in 0..matrices {
            let mut results: Vec<&mut [f64]> = all
                .iter_mut()
                .map(|all| {
                    let size = all.len() / matrices;
                    &mut all[size * i..size * (i + 1)]
                })
                .collect();
            let mut x = x[each * i..each * (i + 1)].to_vec();
            factorize(self.kind, [m, n], &mut x, &mut results, &mut work);
        }
        let literals = all.iter().zip(outputs);
        Ok(literals
            .map(|(all, &ty)| Literal::build(ty.clone(), |i| Scalar::Float(all[i])))
            .collect())
    }

    fn jvp(
        &self,
        b: &mut Builder,
        _: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        Ok(match dx[0] {
            Some(dx) => derivative::tangents(self.kind, b, y, dx),
            None => vec![None; y.len()],
        })
    }

    fn transpose(&self, _: &mut Builder, _: &[Operand], _: &[Option<Value>]) -> Result<Tangents> {
        not_linear()
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}
