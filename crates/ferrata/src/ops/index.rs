//! Reading and writing at computed indices. Indices are i64 or i32 and not negative; reading at
//! an index outside gives 0, writing there changes nothing.

use crate::tensor::{Tensor, broadcast_shape, dimension};
use ferrata_ir::primitive::{BadIndex, DynamicSlice, DynamicUpdate, Gather, Scatter, ScatterKind};
use ferrata_ir::{DType, Error, Result};

impl Tensor {
    /// `out[i][j] = x[i][indices[i][j]]` along `dim`. In the other dimensions `indices` may be
    /// smaller.
    #[track_caller]
    pub fn gather(&self, indices: &Tensor, dim: i64) -> Tensor {
        Tensor::op("gather", &[self, indices], || {
            let (dim, x) = self.cropped_to(indices, dim)?;
            Ok(Tensor::built1("gather", &[&x, indices], |b, x| {
                b.take_along(x[0], x[1], dim, BadIndex::Drop)
            }))
        })
    }

    /// The part that `indices` can address in the dimensions other than `dim`.
    fn cropped_to(&self, indices: &Tensor, dim: i64) -> Result<(usize, Tensor)> {
        let dim = dimension(dim, self.rank())?;
        let (n, m) = (self.rank(), indices.rank());
        if n != m {
            return Err(Error::new(format!("indices have {m} dimensions, not {n}")));
        }
        let mut x = self.clone();
        for d in (0..n).filter(|&d| d != dim && indices.shape()[d] != self.shape()[d]) {
            x = x.narrow(d as i64, 0, indices.shape()[d]);
        }
        Ok((dim, x))
    }

    /// Slices at the `indices [P..]` along `dim`, which the dimensions `P` replace.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = Tensor::arange(6).reshape([3, 2]);
    /// let rows = x.take(&Tensor::from([2i64, 0]), 0);
    /// assert_eq!(rows.to_vec::<i64>()?, [4, 5, 0, 1]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn take(&self, indices: &Tensor, dim: i64) -> Tensor {
        Tensor::op("take", &[self, indices], || {
            let dim = dimension(dim, self.rank())?;
            Ok(Tensor::built1("take", &[self, indices], |b, x| {
                b.take(x[0], x[1], dim, BadIndex::Drop)
            }))
        })
    }

    /// `x[i, j, …]` with integer tensors for the first dimensions, broadcast together.
    #[track_caller]
    pub fn index(&self, indices: &[&Tensor]) -> Tensor {
        let inputs: Vec<&Tensor> = [self].into_iter().chain(indices.iter().copied()).collect();
        Tensor::op("index", &inputs, || {
            let places = columns(indices)?;
            let op = Gather { batch: 0, indexed: indices.len(), bad: BadIndex::Drop };
            Ok(Tensor::record1(op, &[self, &places]))
        })
    }

    /// A copy with `values` added at `x[i, j, …]`; duplicates add up.
    #[track_caller]
    pub fn index_put_add(&self, indices: &[&Tensor], values: &Tensor) -> Tensor {
        self.put_at("index_put_add", ScatterKind::Add, indices, values)
    }

    /// A copy with `x[i, j, …]` replaced by `values`; of duplicates the last one wins.
    #[track_caller]
    pub fn index_put(&self, indices: &[&Tensor], values: &Tensor) -> Tensor {
        self.put_at("index_put", ScatterKind::Set, indices, values)
    }

    #[track_caller]
    fn put_at(&self, name: &str, kind: ScatterKind, at: &[&Tensor], values: &Tensor) -> Tensor {
        let inputs: Vec<&Tensor> = [self, values].into_iter().chain(at.iter().copied()).collect();
        Tensor::op(name, &inputs, || {
            let places = columns(at)?;
            let positions = &places.shape()[..places.rank() - 1];
            let rest = self.shape().get(at.len()..).unwrap_or_default();
            let values = values.broadcast_to(&[positions, rest].concat());
            let op = Scatter { batch: 0, indexed: at.len(), kind, bad: BadIndex::Drop };
            Ok(Tensor::record1(op, &[self, &places, &values]))
        })
    }

    /// A copy with `out[.., indices, ..] = values` along `dim`; of duplicates the last one wins.
    #[track_caller]
    pub fn scatter(&self, indices: &Tensor, values: &Tensor, dim: i64) -> Tensor {
        self.put_along("scatter", ScatterKind::Set, indices, values, dim)
    }

    /// A copy with `values` added at `indices` along `dim`; duplicates add up.
    #[track_caller]
    pub fn scatter_add(&self, indices: &Tensor, values: &Tensor, dim: i64) -> Tensor {
        self.put_along("scatter_add", ScatterKind::Add, indices, values, dim)
    }

    /// A copy with the larger one of what is there and `values` at `indices` along `dim`.
    #[track_caller]
    pub fn scatter_max(&self, indices: &Tensor, values: &Tensor, dim: i64) -> Tensor {
        self.put_along("scatter_max", ScatterKind::Max, indices, values, dim)
    }

    /// A copy with the smaller one of what is there and `values` at `indices` along `dim`.
    #[track_caller]
    pub fn scatter_min(&self, indices: &Tensor, values: &Tensor, dim: i64) -> Tensor {
        self.put_along("scatter_min", ScatterKind::Min, indices, values, dim)
    }

    #[track_caller]
    fn put_along(
        &self,
        name: &str,
        kind: ScatterKind,
        indices: &Tensor,
        values: &Tensor,
        dim: i64,
    ) -> Tensor {
        Tensor::op(name, &[self, indices, values], || {
            let (at, part) = self.cropped_to(indices, dim)?;
            if part.shape() == self.shape() {
                return Ok(Tensor::built1(name, &[self, indices, values], |b, x| {
                    b.put_along(kind, x[0], x[1], x[2], at)
                }));
            }
            // Only a corner is addressed: name every dimension of each place.
            let places: Vec<Tensor> = (0..self.rank())
                .map(|d| match d == at {
                    true => indices.cast(DType::I64),
                    false => Tensor::iota(indices.shape(), d as i64, DType::I64),
                })
                .collect();
            Ok(self.put_at(name, kind, &places.iter().collect::<Vec<_>>(), values))
        })
    }

    /// A copy with slice `indices[k]` along `dim` increased by `alpha` times slice `k` of `values`.
    #[track_caller]
    pub fn index_add(&self, indices: &Tensor, values: &Tensor, dim: i64, alpha: f64) -> Tensor {
        let values = if alpha == 1.0 { values.clone() } else { values * alpha };
        self.put_slices("index_add", ScatterKind::Add, indices, &values, dim)
    }

    /// A copy with slice `indices[k]` along `dim` replaced by slice `k` of `values`.
    #[track_caller]
    pub fn index_copy(&self, indices: &Tensor, values: &Tensor, dim: i64) -> Tensor {
        self.put_slices("index_copy", ScatterKind::Set, indices, values, dim)
    }

    #[track_caller]
    fn put_slices(
        &self,
        name: &str,
        kind: ScatterKind,
        indices: &Tensor,
        values: &Tensor,
        dim: i64,
    ) -> Tensor {
        Tensor::op(name, &[self, indices, values], || {
            let dim = dimension(dim, self.rank())? as i64;
            let moved =
                self.move_dim(dim, 0).put_at(name, kind, &[indices], &values.move_dim(dim, 0));
            Ok(moved.move_dim(0, dim))
        })
    }

    /// The window of shape `sizes` that starts at `starts`, i64 or i32 `[rank]`, moved inside.
    #[track_caller]
    pub fn dynamic_slice(&self, starts: &Tensor, sizes: &[usize]) -> Tensor {
        Tensor::op("dynamic_slice", &[self, starts], || {
            Ok(Tensor::record1(DynamicSlice { sizes: sizes.to_vec() }, &[self, starts]))
        })
    }

    /// A copy with the window that starts at `starts`, i64 or i32 `[rank]`, moved inside, replaced
    /// by `update`.
    #[track_caller]
    pub fn dynamic_update(&self, update: &Tensor, starts: &Tensor) -> Tensor {
        Tensor::op("dynamic_update", &[self, update, starts], || {
            Ok(Tensor::record1(DynamicUpdate {}, &[self, update, starts]))
        })
    }

    /// Zero above the `k`-th diagonal of the last two dimensions.
    #[track_caller]
    pub fn tril(&self, k: i64) -> Tensor {
        Tensor::op("tril", &[self], || Ok(self.diagonal_distance()?.le(k).select(self, 0)))
    }

    /// Zero below the `k`-th diagonal of the last two dimensions.
    #[track_caller]
    pub fn triu(&self, k: i64) -> Tensor {
        Tensor::op("triu", &[self], || Ok(self.diagonal_distance()?.ge(k).select(self, 0)))
    }

    /// Column less row, for the last two dimensions.
    fn diagonal_distance(&self) -> Result<Tensor> {
        let Some(&[.., rows, columns]) = self.shape().last_chunk::<2>() else {
            return Err(Error::new("needs at least two dimensions"));
        };
        let place = |dim| Tensor::iota([rows, columns], dim, DType::I64);
        Ok(place(1) - place(0))
    }

    /// The `k`-th diagonal of the last two dimensions.
    #[track_caller]
    pub fn diagonal(&self, k: i64) -> Tensor {
        Tensor::op("diagonal", &[self], || {
            let Some(&[.., rows, columns]) = self.shape().last_chunk::<2>() else {
                return Err(Error::new("needs at least two dimensions"));
            };
            let (down, right) = ((-k).max(0) as usize, k.max(0) as usize);
            let n = rows.saturating_sub(down).min(columns.saturating_sub(right));
            let along = Tensor::arange(n);
            let flat = self.flatten(-2, -1);
            Ok(flat.take(&((&along + down) * columns + along + right), -1))
        })
    }

    /// The entries where `mask` is true, row-major, in one dimension. Their number must be known
    /// when this is called, so it cannot be used in traced functions.
    ///
    /// # Errors
    /// A traced operand gives a failed tensor.
    #[track_caller]
    pub fn masked_select(&self, mask: &Tensor) -> Tensor {
        Tensor::op("masked_select", &[self, mask], || {
            let shape = broadcast_shape(&[self.shape(), mask.shape()])?;
            let places = true_places(&mask.broadcast_to(&shape))?;
            let places = Tensor::from(places);
            Ok(self.broadcast_to(&shape).reshape([-1]).take(&places, 0))
        })
    }

    /// Indices `[n, rank]` of the entries that are not 0, row-major. Their number must be known
    /// when this is called, so it cannot be used in traced functions.
    #[track_caller]
    pub fn nonzero(&self) -> Tensor {
        Tensor::op("nonzero", &[self], || {
            let places = true_places(&self.ne(0))?;
            let strides = ferrata_ir::row_major_strides(self.shape());
            let at = |&i: &i64| {
                let digits = strides.iter().zip(self.shape());
                digits.map(move |(s, n)| i / *s as i64 % *n as i64)
            };
            let indices: Vec<i64> = places.iter().flat_map(at).collect();
            Ok(Tensor::from_slice(&indices, &[places.len(), self.rank()]))
        })
    }
}

/// Row-major places of true entries.
fn true_places(mask: &Tensor) -> Result<Vec<i64>> {
    let bits = mask.to_vec::<bool>()?;
    Ok(bits.iter().enumerate().filter(|(_, b)| **b).map(|(i, _)| i as i64).collect())
}

/// Index tensors, broadcast together, as the columns of one.
fn columns(indices: &[&Tensor]) -> Result<Tensor> {
    let shapes: Vec<&[usize]> = indices.iter().map(|t| t.shape()).collect();
    if shapes.is_empty() {
        return Err(Error::new("needs at least one index tensor"));
    }
    let shape = broadcast_shape(&shapes)?;
    let all: Vec<Tensor> = indices.iter().map(|t| t.broadcast_to(&shape)).collect();
    Ok(Tensor::stack(&all.iter().collect::<Vec<_>>(), -1))
}
