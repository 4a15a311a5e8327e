//! Sorting, the best few, and places of extremes.

use crate::tensor::{Tensor, dimension};
use ferrata_ir::composite;
use ferrata_ir::primitive::{ArgReduce, Extremum, Sort, TopK};

/// The two tensors of an operation that gives values and indices.
fn pair(mut results: Vec<Tensor>) -> (Tensor, Tensor) {
    let second = results.swap_remove(1);
    (results.swap_remove(0), second)
}

impl Tensor {
    /// Sorted values along `dim` and their former indices (i64). Stable; NaN counts as the
    /// largest.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let (values, indices) = Tensor::from([3.0f32, 1.0, 2.0]).sort(0, false);
    /// assert_eq!(values.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
    /// assert_eq!(indices.to_vec::<i64>()?, [1, 2, 0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn sort(&self, dim: i64, descending: bool) -> (Tensor, Tensor) {
        pair(Tensor::op_many("sort", &[self], 2, || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::record(Sort { dim, descending }, &[self]))
        }))
    }

    /// Indices (i64) of the sorted elements along `dim`.
    #[track_caller]
    pub fn argsort(&self, dim: i64, descending: bool) -> Tensor {
        self.sort(dim, descending).1
    }

    /// The `k` largest (or smallest) elements along `dim`, most extreme first, and their indices
    /// (i64).
    #[track_caller]
    pub fn topk(&self, k: usize, dim: i64, largest: bool) -> (Tensor, Tensor) {
        pair(Tensor::op_many("topk", &[self], 2, || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::record(TopK { k, dim, largest }, &[self]))
        }))
    }

    /// Index (i64) of the largest element along `dim`, the first one among equals; `None`: in the
    /// flattened tensor.
    #[track_caller]
    pub fn argmax(&self, dim: impl Into<Option<i64>>) -> Tensor {
        self.arg_extreme("argmax", Extremum::Max, dim.into())
    }

    /// Index (i64) of the smallest element along `dim`, the first one among equals; `None`: in
    /// the flattened tensor.
    #[track_caller]
    pub fn argmin(&self, dim: impl Into<Option<i64>>) -> Tensor {
        self.arg_extreme("argmin", Extremum::Min, dim.into())
    }

    #[track_caller]
    fn arg_extreme(&self, name: &str, kind: Extremum, dim: Option<i64>) -> Tensor {
        Tensor::op(name, &[self], || {
            let Some(dim) = dim else {
                return Ok(Tensor::record1(ArgReduce { kind, dim: 0 }, &[&self.reshape([-1])]));
            };
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::record1(ArgReduce { kind, dim }, &[self]))
        })
    }

    /// The largest element along `dim` and its index (i64); the gradient goes to that element.
    #[track_caller]
    pub fn max_with_index(&self, dim: i64) -> (Tensor, Tensor) {
        self.extreme_with_index("max_with_index", Extremum::Max, dim)
    }

    /// The smallest element along `dim` and its index (i64); the gradient goes to that element.
    #[track_caller]
    pub fn min_with_index(&self, dim: i64) -> (Tensor, Tensor) {
        self.extreme_with_index("min_with_index", Extremum::Min, dim)
    }

    #[track_caller]
    fn extreme_with_index(&self, name: &str, kind: Extremum, dim: i64) -> (Tensor, Tensor) {
        pair(Tensor::op_many(name, &[self], 2, || {
            let index = self.arg_extreme(name, kind, Some(dim));
            let kept = index.unsqueeze(dimension(dim, self.rank())? as i64);
            Ok(vec![self.gather(&kept, dim).squeeze(dim), index])
        }))
    }

    /// The running maximum along `dim` and the index (i64) of its last occurrence so far.
    #[track_caller]
    pub fn cummax(&self, dim: i64) -> (Tensor, Tensor) {
        self.cumulative_extreme("cummax", dim, true)
    }

    /// The running minimum along `dim` and the index (i64) of its last occurrence so far.
    #[track_caller]
    pub fn cummin(&self, dim: i64) -> (Tensor, Tensor) {
        self.cumulative_extreme("cummin", dim, false)
    }

    #[track_caller]
    fn cumulative_extreme(&self, name: &str, dim: i64, maximum: bool) -> (Tensor, Tensor) {
        pair(Tensor::op_many(name, &[self], 2, || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built(name, &[self], 2, |b, x| {
                let (value, index) = composite::cumulative_extreme(b, x[0], dim, maximum);
                vec![value, index]
            }))
        }))
    }

    /// Logarithm of the inclusive running sum of `e^x` along `dim`, without overflow.
    #[track_caller]
    pub fn logcumsumexp(&self, dim: i64) -> Tensor {
        Tensor::op("logcumsumexp", &[self], || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built1("logcumsumexp", &[self], |b, x| {
                composite::logcumsumexp(b, x[0], dim)
            }))
        })
    }
}
