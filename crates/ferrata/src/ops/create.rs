//! Tensors from nothing, and operations that pass values through.

use crate::tensor::{IntoOperand, IntoShape, Tensor, resolve_shape};
use ferrata_ir::primitive::{Annotate, Constant, DebugPrint, Iota, StopGradient};
use ferrata_ir::{DType, Error, Scalar, Type};

impl Tensor {
    /// Zeros.
    #[track_caller]
    pub fn zeros(shape: impl IntoShape, dtype: DType) -> Tensor {
        Tensor::full(shape, 0.0, dtype)
    }

    /// Ones.
    #[track_caller]
    pub fn ones(shape: impl IntoShape, dtype: DType) -> Tensor {
        Tensor::full(shape, 1.0, dtype)
    }

    /// Every element equal to `value`.
    #[track_caller]
    pub fn full(shape: impl IntoShape, value: f64, dtype: DType) -> Tensor {
        Tensor::op("full", &[], || {
            let ty = Type::new(dtype, resolve_shape(shape, None)?);
            Ok(Tensor::record1(Constant { ty, value: Scalar::of(dtype, value) }, &[]))
        })
    }

    /// Zeros with this tensor's shape and dtype.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        Tensor::op("zeros_like", &[self], || Ok(Tensor::zeros(self.shape(), self.dtype())))
    }

    /// Ones with this tensor's shape and dtype.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// Every element equal to `value`, with this tensor's shape and dtype.
    #[track_caller]
    pub fn full_like(&self, value: impl IntoOperand) -> Tensor {
        Tensor::op("full_like", &[self], || Ok(value.into_operand(self).broadcast_to(self.shape())))
    }

    /// `0, 1, … n - 1` as i64.
    #[track_caller]
    pub fn arange(n: usize) -> Tensor {
        Tensor::iota(n, 0, DType::I64)
    }

    /// `start, start + step, …` before `end`, of a float or integer dtype.
    #[track_caller]
    pub fn range(start: f64, end: f64, step: f64, dtype: DType) -> Tensor {
        Tensor::op("range", &[], || {
            let n = ((end - start) / step).ceil();
            if !n.is_finite() || n < 0.0 {
                return Err(Error::new(format!("{start}..{end} has no steps of {step}")));
            }
            Ok(Tensor::iota(n as usize, 0, dtype) * step + start)
        })
    }

    /// `n` numbers from `start` to `end` (included), at equal distances.
    #[track_caller]
    pub fn linspace(start: f64, end: f64, n: usize, dtype: DType) -> Tensor {
        let step = (end - start) / n.saturating_sub(1).max(1) as f64;
        Tensor::iota(n, 0, dtype) * step + start
    }

    /// Each element is its index along dimension `dim`.
    #[track_caller]
    pub fn iota(shape: impl IntoShape, dim: i64, dtype: DType) -> Tensor {
        Tensor::op("iota", &[], || {
            let ty = Type::new(dtype, resolve_shape(shape, None)?);
            let dim = crate::tensor::dimension(dim, ty.rank())?;
            Ok(Tensor::record1(Iota { ty, dim }, &[]))
        })
    }

    /// The unit matrix of size `n`.
    #[track_caller]
    pub fn eye(n: usize, dtype: DType) -> Tensor {
        let (i, j) = (Tensor::iota([n, n], 0, DType::I64), Tensor::iota([n, n], 1, DType::I64));
        i.eq(j).cast(dtype)
    }

    /// The same value, whose dimensions have names: `"batch,position,-"`. On a mesh values with
    /// names lie as these say; elsewhere they change nothing.
    #[track_caller]
    pub fn annotate(&self, names: &str) -> Tensor {
        Tensor::record1(Annotate { names: names.to_owned() }, &[self])
    }

    /// The same value, taken as a constant by derivatives.
    #[track_caller]
    pub fn stop_gradient(&self) -> Tensor {
        Tensor::record1(StopGradient {}, &[self])
    }

    /// The same value, shown with `label` whenever it is computed, also in compiled code.
    #[track_caller]
    pub fn debug_print(&self, label: &str) -> Tensor {
        Tensor::record1(DebugPrint { label: label.to_string() }, &[self])
    }
}
