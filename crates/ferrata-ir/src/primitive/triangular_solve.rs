//! Systems of equations with a triangular matrix.

use super::attribute::attributes;
use super::factorize::{expect_matrices, expect_square};
use super::{Loops, Operand, Rules, Tangents, expect_inputs};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::matrix::solve_triangular;
use crate::program::{Builder, Value};
use crate::types::Type;

/// `X [.., n, k]` with `T X = B`, `T` being the lower or upper triangle of `[.., n, n]`; what is
/// outside of it is not read. In f32 or f64, computed in f64. A 0 on the diagonal gives infinities
/// and NaN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TriangularSolve {
    /// Whether the lower triangle is meant, else the upper one.
    pub lower: bool,
    /// Whether the diagonal is taken as ones and not read.
    pub unit: bool,
}

attributes!(TriangularSolve { lower, unit });

impl Rules for TriangularSolve {
    fn name(&self) -> &'static str {
        "triangular_solve"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let (t, x) = (inputs[0], inputs[1]);
        let n = expect_square(t)?;
        let [rows, _] = expect_matrices(x)?;
        if t.dtype != x.dtype || rows != n || t.shape[..t.rank() - 2] != x.shape[..x.rank() - 2] {
            return Err(Error::new(format!("{t} and {x} are not [.., n, n] and [.., n, k]")));
        }
        Ok(vec![x.clone()])
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
        let [n, k] = expect_matrices(outputs[0])?;
        let (t, mut x) = (inputs[0].to_f64(), inputs[1].to_f64());
        if n * k > 0 {
            for (t, x) in t.chunks_exact(n * n).zip(x.chunks_exact_mut(n * k)) {
                solve_triangular(t, x, n, self.lower, self.unit);
            }
        }
        Ok(vec![Literal::build(outputs[0].clone(), |i| Scalar::Float(x[i]))])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let moved = dx[0].map(|dt| {
            let dt = match self.lower {
                true => b.lower_triangle(dt, self.unit),
                false if self.unit => {
                    let dt = b.matrix_transpose(dt);
                    let below = b.lower_triangle(dt, true);
                    b.matrix_transpose(below)
                }
                false => b.upper_triangle(dt),
            };
            let product = b.matmul(dt, y[0]);
            b.neg(product)
        });
        let right = b.add_some(dx[1], moved);
        Ok(vec![right.map(|right| b.emit1(self.clone(), &[x[0], right]))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let t = inputs[0].known()?;
        let dx = dy[0].map(|dy| {
            let t = b.matrix_transpose(t);
            b.solve_triangular(t, dy, !self.lower, self.unit)
        });
        Ok(vec![None, dx])
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(self.clone(), &inputs))
    }
}
