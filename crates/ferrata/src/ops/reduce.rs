//! Reductions.

use crate::tensor::{Dims, IntoDims, Tensor};
use ferrata_ir::primitive::{Cumulative, Reduce, ReduceKind};
use ferrata_ir::{Builder, Result, Value, composite};

impl Tensor {
    /// Reduces with a primitive; kept dimensions come back with size 1.
    fn reduced(&self, kind: ReduceKind, dims: &Dims) -> Result<Tensor> {
        let over = dims.resolve(self.rank())?;
        if over.is_empty() {
            return Ok(self.clone());
        }
        let x = Tensor::record1(Reduce { kind, dims: over.clone() }, &[self]);
        Ok(if dims.keep { x.reshape(self.ones_at(&over)) } else { x })
    }

    /// The shape with size 1 at the dimensions `dims`.
    fn ones_at(&self, dims: &[usize]) -> Vec<usize> {
        let size = |(d, &n): (usize, &usize)| if dims.contains(&d) { 1 } else { n };
        self.shape().iter().enumerate().map(size).collect()
    }

    /// Sum over dimensions: `x.sum(-1)`, `x.sum([0, 1])`, `x.sum(..)`, `x.sum(keep(-1))`.
    ///
    /// ```
    /// use ferrata::{Tensor, keep};
    /// let x = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert_eq!(x.sum(..).item::<f32>()?, 10.0);
    /// assert_eq!(x.sum(keep(-1)).shape(), [2, 1]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn sum(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("sum", &[self], || self.reduced(ReduceKind::Sum, &dims))
    }

    /// Product over dimensions.
    #[track_caller]
    pub fn prod(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("prod", &[self], || self.reduced(ReduceKind::Product, &dims))
    }

    /// Largest element over dimensions; NaN wins; ties share the gradient equally.
    #[track_caller]
    pub fn max(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("max", &[self], || self.reduced(ReduceKind::Max, &dims))
    }

    /// Smallest element over dimensions; NaN wins; ties share the gradient equally.
    #[track_caller]
    pub fn min(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("min", &[self], || self.reduced(ReduceKind::Min, &dims))
    }

    /// Whether all elements of a bool tensor are true, over dimensions.
    #[track_caller]
    pub fn all(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("all", &[self], || self.reduced(ReduceKind::And, &dims))
    }

    /// Whether any element of a bool tensor is true, over dimensions.
    #[track_caller]
    pub fn any(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("any", &[self], || self.reduced(ReduceKind::Or, &dims))
    }

    /// Reduces with a composite; kept dimensions come back with size 1.
    #[track_caller]
    pub(crate) fn reduced_by(
        &self,
        name: &str,
        dims: impl IntoDims,
        f: impl FnOnce(&mut Builder, Value, &[usize]) -> Value,
    ) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op(name, &[self], || {
            let over = dims.resolve(self.rank())?;
            let y = Tensor::built1(name, &[self], |b, x| f(b, x[0], &over));
            Ok(if dims.keep { y.reshape(self.ones_at(&over)) } else { y })
        })
    }

    /// Mean over dimensions, of a float tensor.
    #[track_caller]
    pub fn mean(&self, dims: impl IntoDims) -> Tensor {
        self.reduced_by("mean", dims, composite::mean)
    }

    /// Variance over dimensions: squared distances from the mean, divided by their number less
    /// `correction` (1: unbiased, 0: of the whole population).
    #[track_caller]
    pub fn var(&self, dims: impl IntoDims, correction: f64) -> Tensor {
        self.reduced_by("var", dims, |b, x, dims| composite::var(b, x, dims, correction))
    }

    /// Square root of [`Tensor::var`]; where it is 0, so is its gradient.
    #[track_caller]
    pub fn std(&self, dims: impl IntoDims, correction: f64) -> Tensor {
        self.reduced_by("std", dims, |b, x, dims| composite::std(b, x, dims, correction))
    }

    /// `(Σ |x|^p)^(1/p)` over dimensions; `p` may be infinite: the largest `|x|`.
    #[track_caller]
    pub fn norm(&self, p: f64, dims: impl IntoDims) -> Tensor {
        self.reduced_by("norm", dims, |b, x, dims| composite::norm(b, x, dims, p))
    }

    /// Inclusive running sum along `dim`.
    #[track_caller]
    pub fn cumsum(&self, dim: i64) -> Tensor {
        self.cumulative("cumsum", ReduceKind::Sum, dim)
    }

    /// Inclusive running product along `dim`.
    #[track_caller]
    pub fn cumprod(&self, dim: i64) -> Tensor {
        self.cumulative("cumprod", ReduceKind::Product, dim)
    }

    #[track_caller]
    fn cumulative(&self, name: &str, kind: ReduceKind, dim: i64) -> Tensor {
        Tensor::op(name, &[self], || {
            let dim = crate::tensor::dimension(dim, self.rank())?;
            Ok(Tensor::record1(Cumulative { kind, dim, reverse: false }, &[self]))
        })
    }
}
