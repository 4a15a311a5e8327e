//! Products.

use crate::tensor::{IntoOperand, Tensor, broadcast_shape};
use ferrata_ir::primitive::Dot;
use ferrata_ir::{Error, Result};

impl Tensor {
    /// Matrix product of the last two dimensions; leading dimensions broadcast, and a vector is
    /// a row on the left and a column on the right.
    ///
    /// ```
    /// use ferrata::{DType, Tensor};
    /// let x = Tensor::ones([5, 2, 3], DType::F32);
    /// let y = Tensor::ones([3, 4], DType::F32);
    /// assert_eq!(x.matmul(&y).shape(), [5, 2, 4]);
    /// let e = y.matmul(&x).to_vec::<f32>().unwrap_err().to_string();
    /// assert!(e.starts_with("matmul(f32[3,4], f32[5,2,3]): "), "{e}");
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        Tensor::op("matmul", &[self, other], || self.product(other))
    }

    fn product(&self, other: &Tensor) -> Result<Tensor> {
        if self.rank() == 0 || other.rank() == 0 {
            return Err(Error::new("a scalar has no dimension to sum over")
                .help("multiply by a scalar with *"));
        }
        let (k, dim) = (self.rank() - 1, other.rank().saturating_sub(2));
        if self.shape()[k] != other.shape()[dim] {
            return Err(Error::new(format!(
                "the left operand has {} columns, but the right one has {} rows",
                self.shape()[k],
                other.shape()[dim]
            ))
            .help("transpose one of them with t(), or check which one comes first"));
        }
        // Without batch dimensions on the right, all leading ones on the left are rows.
        if other.rank() <= 2 {
            return Ok(self.dot(other, (&[], &[]), (&[k], &[dim])));
        }
        let left = if self.rank() == 1 { self.unsqueeze(0) } else { self.clone() };
        let (l, r) = (left.rank() - 2, other.rank() - 2);
        let batch = broadcast_shape(&[&left.shape()[..l], &other.shape()[..r]])?;
        let full = |x: &Tensor| {
            let tail = &x.shape()[x.rank() - 2..];
            x.broadcast_to(&[&batch[..], tail].concat())
        };
        let n = batch.len();
        let dims: Vec<usize> = (0..n).collect();
        let out = full(&left).dot(&full(other), (&dims, &dims), (&[n + 1], &[n]));
        Ok(if self.rank() == 1 { out.squeeze(-2) } else { out })
    }

    /// The general product; see [`Dot`].
    #[track_caller]
    pub(crate) fn dot(
        &self,
        other: &Tensor,
        batch: (&[usize], &[usize]),
        contract: (&[usize], &[usize]),
    ) -> Tensor {
        let op = Dot {
            left_batch: batch.0.to_vec(),
            right_batch: batch.1.to_vec(),
            left_contract: contract.0.to_vec(),
            right_contract: contract.1.to_vec(),
        };
        Tensor::record1(op, &[self, other])
    }

    /// `x Wᵀ + b`, with `weight` of shape `[outputs, inputs]` and `bias` of `[outputs]`.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let mut inputs = vec![self, weight];
        inputs.extend(bias);
        Tensor::op("linear", &inputs, || {
            if weight.rank() != 2 || self.shape().last() != weight.shape().last() {
                return Err(Error::new(format!(
                    "the input's last dimension must be the weight's, [outputs, inputs] = {:?}",
                    weight.shape()
                )));
            }
            let y = self.dot(weight, (&[], &[]), (&[self.rank() - 1], &[1]));
            Ok(bias.map_or_else(|| y.clone(), |b| &y + b))
        })
    }

    /// `beta c + alpha (self other)`; `c` broadcasts.
    #[track_caller]
    pub fn addmm(&self, other: &Tensor, c: &Tensor, beta: f64, alpha: f64) -> Tensor {
        Tensor::op("addmm", &[c, self, other], || Ok(c * beta + self.product(other)? * alpha))
    }

    /// `x + a b`, elementwise.
    #[track_caller]
    pub fn addcmul(&self, a: &Tensor, b: impl IntoOperand) -> Tensor {
        self + a * b
    }

    /// `a_i b_j` of two vectors.
    #[track_caller]
    pub fn outer(&self, other: &Tensor) -> Tensor {
        Tensor::op("outer", &[self, other], || {
            if self.rank() != 1 || other.rank() != 1 {
                return Err(Error::new("needs two vectors"));
            }
            Ok(self.unsqueeze(1) * other.unsqueeze(0))
        })
    }
}
