//! Operations that move elements.

use crate::tensor::{IntoDims, IntoShape, Tensor, dimension, resolve_shape};
use ferrata_ir::primitive::{Concatenate, Pad, Reshape, Reverse, Transpose};
use ferrata_ir::{Error, Result};

/// What padding is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Padding {
    /// This number. Negative amounts crop.
    Constant(f64),
    /// The mirror image, without the edge itself.
    Reflect,
    /// The element at the edge.
    Replicate,
    /// The opposite side.
    Circular,
}

impl Tensor {
    /// The same elements, row-major, in another shape; one size may be -1.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = Tensor::arange(12);
    /// assert_eq!(x.reshape((2, -1)).shape(), [2, 6]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, shape: impl IntoShape) -> Tensor {
        Tensor::op("reshape", &[self], || {
            let shape = resolve_shape(shape, Some(self.elements()))?;
            if shape == self.shape() {
                return Ok(self.clone());
            }
            Ok(Tensor::record1(Reshape { shape }, &[self]))
        })
    }

    /// Dimension `i` of the result is dimension `dims[i]`.
    #[track_caller]
    pub fn permute(&self, dims: &[i64]) -> Tensor {
        Tensor::op("permute", &[self], || {
            let permutation =
                dims.iter().map(|&d| dimension(d, self.rank())).collect::<Result<Vec<_>>>()?;
            if permutation.iter().enumerate().all(|(i, &d)| i == d)
                && permutation.len() == self.rank()
            {
                return Ok(self.clone());
            }
            Ok(Tensor::record1(Transpose { permutation }, &[self]))
        })
    }

    /// Exchanges two dimensions.
    #[track_caller]
    pub fn transpose(&self, a: i64, b: i64) -> Tensor {
        Tensor::op("transpose", &[self], || {
            let mut permutation: Vec<usize> = (0..self.rank()).collect();
            permutation.swap(dimension(a, self.rank())?, dimension(b, self.rank())?);
            Ok(Tensor::record1(Transpose { permutation }, &[self]))
        })
    }

    /// Exchanges the last two dimensions.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        self.transpose(-2, -1)
    }

    /// Moves dimension `from` to the place `to`, keeping the order of the others.
    #[track_caller]
    pub fn move_dim(&self, from: i64, to: i64) -> Tensor {
        Tensor::op("move_dim", &[self], || {
            let (from, to) = (dimension(from, self.rank())?, dimension(to, self.rank())?);
            let mut order: Vec<i64> =
                (0..self.rank() as i64).filter(|&d| d != from as i64).collect();
            order.insert(to, from as i64);
            Ok(self.permute(&order))
        })
    }

    /// A new dimension of size 1 at `dim`.
    #[track_caller]
    pub fn unsqueeze(&self, dim: i64) -> Tensor {
        Tensor::op("unsqueeze", &[self], || {
            let mut shape = self.shape().to_vec();
            shape.insert(dimension(dim, shape.len() + 1)?, 1);
            Ok(self.reshape(shape))
        })
    }

    /// Drops dimensions of size 1.
    #[track_caller]
    pub fn squeeze(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("squeeze", &[self], || {
            let drop = dims.resolve(self.rank())?;
            if let Some(&d) = drop.iter().find(|&&d| self.shape()[d] != 1) {
                let size = self.shape()[d];
                return Err(Error::new(format!("dimension {d} has size {size}, not 1")));
            }
            let kept = (0..self.rank()).filter(|d| !drop.contains(d));
            Ok(self.reshape(kept.map(|d| self.shape()[d]).collect::<Vec<_>>()))
        })
    }

    /// Merges the dimensions `first` to `last` (included) into one.
    #[track_caller]
    pub fn flatten(&self, first: i64, last: i64) -> Tensor {
        Tensor::op("flatten", &[self], || {
            if self.rank() == 0 {
                return Ok(self.reshape([1]));
            }
            let (first, last) = (dimension(first, self.rank())?, dimension(last, self.rank())?);
            let (first, last) = (first.min(last), first.max(last));
            let mut shape = self.shape()[..first].to_vec();
            shape.push(self.shape()[first..=last].iter().product());
            shape.extend(&self.shape()[last + 1..]);
            Ok(self.reshape(shape))
        })
    }

    /// Splits dimension `dim` into several, one of which may be -1.
    #[track_caller]
    pub fn unflatten(&self, dim: i64, sizes: impl IntoShape) -> Tensor {
        Tensor::op("unflatten", &[self], || {
            let dim = dimension(dim, self.rank())?;
            let sizes = resolve_shape(sizes, Some(self.shape()[dim]))?;
            let mut shape = self.shape()[..dim].to_vec();
            shape.extend(sizes);
            shape.extend(&self.shape()[dim + 1..]);
            Ok(self.reshape(shape))
        })
    }

    /// Repeats dimensions of size 1, and missing leading ones, to reach `shape`; -1 keeps a size.
    #[track_caller]
    pub fn expand(&self, shape: impl IntoShape) -> Tensor {
        Tensor::op("expand", &[self], || {
            let mut sizes = shape.into_shape();
            let new = sizes.len().saturating_sub(self.rank());
            for (i, size) in sizes.iter_mut().enumerate().filter(|(_, s)| **s == -1) {
                let own = i.checked_sub(new).and_then(|i| self.shape().get(i));
                *size = own.map_or(-1, |&n| n as i64);
            }
            Ok(self.broadcast_to(&resolve_shape(sizes, None)?))
        })
    }

    /// The elements in reverse order along dimensions.
    #[track_caller]
    pub fn flip(&self, dims: impl IntoDims) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("flip", &[self], || {
            Ok(Tensor::record1(Reverse { dims: dims.resolve(self.rank())? }, &[self]))
        })
    }

    /// Element `i` of dimension `dim` moves to `i + shift`, around the end.
    #[track_caller]
    pub fn roll(&self, shift: i64, dim: i64) -> Tensor {
        Tensor::op("roll", &[self], || {
            let d = dimension(dim, self.rank())?;
            let size = self.shape()[d];
            let by = shift.rem_euclid(size.max(1) as i64) as usize;
            if by == 0 {
                return Ok(self.clone());
            }
            let tail = self.narrow(dim, size - by, by);
            Ok(Tensor::concat(&[&tail, &self.narrow(dim, 0, size - by)], dim))
        })
    }

    /// The whole tensor repeated `reps[i]` times along dimension `i`, aligned at the end.
    #[track_caller]
    pub fn tile(&self, reps: &[usize]) -> Tensor {
        Tensor::op("tile", &[self], || {
            let rank = self.rank().max(reps.len());
            let mut shape = vec![1; rank - self.rank()];
            shape.extend(self.shape());
            let mut times = vec![1; rank - reps.len()];
            times.extend(reps);
            let paired = |f: fn(usize, usize) -> [usize; 2]| -> Vec<usize> {
                times.iter().zip(&shape).flat_map(|(&n, &s)| f(n, s)).collect()
            };
            let x = self.reshape(paired(|_, s| [1, s])).broadcast_to(&paired(|n, s| [n, s]));
            Ok(x.reshape(times.iter().zip(&shape).map(|(n, s)| n * s).collect::<Vec<_>>()))
        })
    }

    /// Every slice of dimension `dim` repeated `times` times, one after the other.
    #[track_caller]
    pub fn repeat_interleave(&self, times: usize, dim: i64) -> Tensor {
        Tensor::op("repeat_interleave", &[self], || {
            let d = dimension(dim, self.rank())?;
            let mut shape = self.shape().to_vec();
            shape.insert(d + 1, times);
            let x = self.unsqueeze(d as i64 + 1).broadcast_to(&shape);
            Ok(x.flatten(d as i64, d as i64 + 1))
        })
    }

    /// The tensors one after the other along `dim`.
    #[track_caller]
    pub fn concat(tensors: &[&Tensor], dim: i64) -> Tensor {
        Tensor::op("concat", tensors, || {
            let Some(first) = tensors.first() else {
                return Err(Error::new("needs at least one tensor"));
            };
            let dim = dimension(dim, first.rank())?;
            if tensors.len() == 1 {
                return Ok((*first).clone());
            }
            Ok(Tensor::record1(Concatenate { dim }, tensors))
        })
    }

    /// Tensors of one shape along a new dimension `dim`.
    #[track_caller]
    pub fn stack(tensors: &[&Tensor], dim: i64) -> Tensor {
        Tensor::op("stack", tensors, || {
            let each: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(dim)).collect();
            let at = first_rank(&each)
                .map_or(dim, |rank| dimension(dim, rank).map_or(dim, |d| d as i64));
            Ok(Tensor::concat(&each.iter().collect::<Vec<_>>(), at))
        })
    }

    /// Pieces of the given sizes along `dim`, which must add up to its size.
    #[track_caller]
    pub fn split(&self, sizes: &[usize], dim: i64) -> Vec<Tensor> {
        Tensor::op_many("split", &[self], sizes.len(), || {
            let size = self.shape()[dimension(dim, self.rank())?];
            if sizes.iter().sum::<usize>() != size {
                return Err(Error::new(format!("sizes {sizes:?} do not add up to {size}")));
            }
            let mut start = 0;
            let mut piece = |n: &usize| {
                start += n;
                self.narrow(dim, start - n, *n)
            };
            Ok(sizes.iter().map(&mut piece).collect())
        })
    }

    /// `count` equal pieces along `dim`.
    #[track_caller]
    pub fn chunk(&self, count: usize, dim: i64) -> Vec<Tensor> {
        Tensor::op_many("chunk", &[self], count, || {
            let size = self.shape()[dimension(dim, self.rank())?];
            if count == 0 || !size.is_multiple_of(count) {
                return Err(Error::new(format!(
                    "{size} elements do not give {count} equal pieces"
                )));
            }
            Ok(self.split(&vec![size / count; count], dim))
        })
    }

    /// Adds elements before and after the last `amounts.len()` dimensions.
    ///
    /// ```
    /// use ferrata::{Padding, Tensor};
    /// let x = Tensor::from([1i64, 2, 3]);
    /// let y = x.pad(&[(1, 2)], Padding::Reflect);
    /// assert_eq!(y.to_vec::<i64>()?, [2, 1, 2, 3, 2, 1]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn pad(&self, amounts: &[(i64, i64)], mode: Padding) -> Tensor {
        Tensor::op("pad", &[self], || {
            let Some(first) = self.rank().checked_sub(amounts.len()) else {
                let (n, rank) = (amounts.len(), self.rank());
                return Err(Error::new(format!("{n} amounts for {rank} dimensions")));
            };
            if let Padding::Constant(value) = mode {
                let amount = |f: fn(&(i64, i64)) -> i64| -> Vec<i64> {
                    let given = amounts.iter().map(f);
                    std::iter::repeat_n(0, first).chain(given).collect()
                };
                let value = Tensor::full((), value, self.dtype());
                let op = Pad {
                    low: amount(|a| a.0),
                    high: amount(|a| a.1),
                    interior: vec![0; self.rank()],
                };
                return Ok(Tensor::record1(op, &[self, &value]));
            }
            let mut x = self.clone();
            for (i, &(low, high)) in amounts.iter().enumerate() {
                x = x.padded_around((first + i) as i64, low, high, mode)?;
            }
            Ok(x)
        })
    }

    fn padded_around(&self, dim: i64, low: i64, high: i64, mode: Padding) -> Result<Tensor> {
        let size = self.shape()[dim as usize];
        let limit = match mode {
            Padding::Reflect => size.saturating_sub(1),
            Padding::Circular => size,
            _ => usize::MAX,
        };
        let amount = |n: i64| {
            usize::try_from(n).ok().filter(|&n| n <= limit && (n == 0 || size > 0)).ok_or_else(
                || {
                    Error::new(format!("cannot pad dimension {dim} of size {size} by {n}")).help(
                        "only constant padding may crop; reflection is limited to the size less 1, \
                     circular padding to the size",
                    )
                },
            )
        };
        let (low, high) = (amount(low)?, amount(high)?);
        let (before, after) = match mode {
            Padding::Reflect => (
                self.narrow(dim, 1.min(size), low).flip(dim),
                self.narrow(dim, (size - 1).saturating_sub(high), high).flip(dim),
            ),
            Padding::Circular => (self.narrow(dim, size - low, low), self.narrow(dim, 0, high)),
            _ => (
                self.narrow(dim, 0, 1.min(size)).repeat_interleave(low, dim),
                self.narrow(dim, size.saturating_sub(1), 1.min(size)).repeat_interleave(high, dim),
            ),
        };
        let parts = [(low, &before), (1, self), (high, &after)];
        let parts: Vec<&Tensor> = parts.iter().filter(|(n, _)| *n > 0).map(|(_, t)| *t).collect();
        Ok(Tensor::concat(&parts, dim))
    }

    /// `[n, c r², h, w]` to `[n, c, h r, w r]`; channel `c r² + dy r + dx` goes to pixel `(dy, dx)`.
    #[track_caller]
    pub fn pixel_shuffle(&self, r: usize) -> Tensor {
        Tensor::op("pixel_shuffle", &[self], || {
            let [n, c, h, w] = self.images()?;
            if r == 0 || !c.is_multiple_of(r * r) {
                return Err(Error::new(format!("{c} channels do not divide by {r}²")));
            }
            let x = self.reshape([n, c / (r * r), r, r, h, w]).permute(&[0, 1, 4, 2, 5, 3]);
            Ok(x.reshape([n, c / (r * r), h * r, w * r]))
        })
    }

    /// The inverse of [`Tensor::pixel_shuffle`].
    #[track_caller]
    pub fn pixel_unshuffle(&self, r: usize) -> Tensor {
        Tensor::op("pixel_unshuffle", &[self], || {
            let [n, c, h, w] = self.images()?;
            if r == 0 || !h.is_multiple_of(r) || !w.is_multiple_of(r) {
                return Err(Error::new(format!("height {h} and width {w} do not divide by {r}")));
            }
            let x = self.reshape([n, c, h / r, r, w / r, r]).permute(&[0, 1, 3, 5, 2, 4]);
            Ok(x.reshape([n, c * r * r, h / r, w / r]))
        })
    }

    fn images(&self) -> Result<[usize; 4]> {
        <[usize; 4]>::try_from(self.shape()).map_err(|_| {
            let shape = self.shape();
            Error::new(format!("needs [batch, channels, height, width], but got {shape:?}"))
        })
    }
}

fn first_rank(tensors: &[Tensor]) -> Option<usize> {
    tensors.first().map(|t| t.rank())
}
