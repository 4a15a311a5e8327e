//! The discrete Fourier transform.

use super::attribute::attributes;
use super::{Loops, Operand, Rules, Tangents, expect_inputs, linear};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::f64::consts::FRAC_PI_2;

/// `y_k = Σ_j x_j e^(-2πi jk/n)` of complex numbers `[.., n, 2]`, whose last dimension holds the
/// real and the imaginary part; with `+` in the exponent if `inverse`, and no factor either way. In
/// f32 or f64, computed in f64.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dft {
    /// Whether the exponent is positive.
    pub inverse: bool,
}

attributes!(Dft { inverse });

/// Cosine and sine of `2π k/n`, for `k < n`; exact at quarter turns.
pub fn root_of_unity(k: usize, n: usize) -> [f64; 2] {
    let (turns, rest) = (4 * k / n, 4 * k % n);
    // The nearer end of the quarter, where the angle is small.
    let near = rest.min(n - rest) as f64 / n as f64 * FRAC_PI_2;
    let (sin, cos) = near.sin_cos();
    let [cos, sin] = if 2 * rest > n { [sin, cos] } else { [cos, sin] };
    match turns {
        0 => [cos, sin],
        1 => [-sin, cos],
        2 => [-cos, -sin],
        _ => [sin, -cos],
    }
}

impl Rules for Dft {
    fn name(&self) -> &'static str {
        "dft"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let x = inputs[0];
        if !matches!(x.dtype, DType::F32 | DType::F64) {
            let dtype = x.dtype;
            return Err(Error::new(format!("transforms f32 or f64, not {dtype}"))
                .help("cast the operand to f32"));
        }
        match x.shape[..] {
            [.., _, 2] => Ok(vec![x.clone()]),
            _ => Err(Error::new(format!("{x} holds no complex numbers [.., n, 2]"))
                .help("a real value becomes complex by a last dimension with zeros")),
        }
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
        let (x, ty) = (inputs[0].to_f64(), outputs[0]);
        let n = ty.shape[ty.rank() - 2];
        let roots: Vec<[f64; 2]> = (0..n).map(|k| root_of_unity(k, n)).collect();
        let turn = if self.inverse { 1.0 } else { -1.0 };
        let mut y = Vec::with_capacity(x.len());
        for line in x.chunks_exact((2 * n).max(1)) {
            for k in 0..n {
                let (mut re, mut im) = (0.0, 0.0);
                for (j, x) in line.chunks_exact(2).enumerate() {
                    let [cos, sin] = roots[j * k % n];
                    re += x[0] * cos - turn * x[1] * sin;
                    im += x[1] * cos + turn * x[0] * sin;
                }
                y.extend([re, im]);
            }
        }
        Ok(vec![Literal::build(ty.clone(), |i| Scalar::Float(y[i]))])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        _: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        linear(dx, |d| b.emit1(self.clone(), &[d]))
    }

    fn transpose(&self, b: &mut Builder, _: &[Operand], dy: &[Option<Value>]) -> Result<Tangents> {
        // The matrix is symmetric, and transposing the pairs conjugates it.
        linear(dy, |d| b.emit1(Dft { inverse: !self.inverse }, &[d]))
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}
