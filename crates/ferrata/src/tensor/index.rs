//! Indexing and slicing with ranges.

use super::{Tensor, dimension};
use ferrata_ir::primitive::{Reshape, Slice};
use ferrata_ir::{Error, Result};
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// How one dimension is indexed.
#[derive(Clone, Debug)]
pub enum Index {
    /// One element; the dimension disappears.
    At(i64),
    /// Elements `start`, `start + step`, … before `end`; negative bounds count from the end.
    Range {
        /// First element; `None`: 0.
        start: Option<i64>,
        /// End, exclusive; `None`: the size.
        end: Option<i64>,
        /// Distance of neighbours, at least 1.
        step: usize,
    },
    /// A new dimension of size 1.
    New,
}

/// A new dimension of size 1: `x.at((.., NewDim))`.
#[derive(Clone, Copy, Debug)]
pub struct NewDim;

/// Every `step`-th element of a range: `x.at(step(.., 2))`.
pub fn step(range: impl Into<Index>, step: usize) -> Index {
    match range.into() {
        Index::Range { start, end, .. } => Index::Range { start, end, step },
        other => other,
    }
}

fn range(start: Option<i64>, end: Option<i64>) -> Index {
    Index::Range { start, end, step: 1 }
}

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Self {
        range(None, None)
    }
}

impl From<NewDim> for Index {
    fn from(_: NewDim) -> Self {
        Index::New
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Index {
            fn from(i: $ty) -> Self {
                Index::At(i as i64)
            }
        }
        impl From<Range<$ty>> for Index {
            fn from(r: Range<$ty>) -> Self {
                range(Some(r.start as i64), Some(r.end as i64))
            }
        }
        impl From<RangeFrom<$ty>> for Index {
            fn from(r: RangeFrom<$ty>) -> Self {
                range(Some(r.start as i64), None)
            }
        }
        impl From<RangeTo<$ty>> for Index {
            fn from(r: RangeTo<$ty>) -> Self {
                range(None, Some(r.end as i64))
            }
        }
        impl From<RangeInclusive<$ty>> for Index {
            fn from(r: RangeInclusive<$ty>) -> Self {
                range(Some(*r.start() as i64), inclusive(*r.end() as i64))
            }
        }
        impl From<RangeToInclusive<$ty>> for Index {
            fn from(r: RangeToInclusive<$ty>) -> Self {
                range(None, inclusive(r.end as i64))
            }
        }
    )*};
}

integers!(i32, i64, usize);

/// The exclusive end after an inclusive one: the element after -1 is the end.
fn inclusive(end: i64) -> Option<i64> {
    if end == -1 { None } else { Some(end + 1) }
}

/// One index, or a tuple of them for the first dimensions.
pub trait IntoIndex {
    /// In order of the dimensions.
    fn into_index(self) -> Vec<Index>;
}

impl<I: Into<Index>> IntoIndex for I {
    fn into_index(self) -> Vec<Index> {
        vec![self.into()]
    }
}

impl IntoIndex for &[Index] {
    fn into_index(self) -> Vec<Index> {
        self.to_vec()
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Into<Index>),*> IntoIndex for ($($name,)*) {
            fn into_index(self) -> Vec<Index> {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                vec![$($name.into()),*]
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);

/// A bound of a range in a dimension of `size`, cut off at both ends as slices in Python are.
fn bound(i: i64, size: usize) -> usize {
    let at = if i < 0 { i + size as i64 } else { i };
    at.clamp(0, size as i64) as usize
}

impl Tensor {
    /// A part of the tensor: an integer picks one element of its dimension and drops it, a range
    /// keeps a part of it, [`NewDim`] adds a dimension of size 1; dimensions that are not named
    /// stay. Negative numbers count from the end; ranges are cut off at the ends.
    ///
    /// ```
    /// use ferrata::{NewDim, Tensor, step};
    /// let x = Tensor::arange(24).reshape([2, 3, 4]);
    /// assert_eq!(x.at((.., 1..3, -1)).to_vec::<i64>()?, [7, 11, 19, 23]);
    /// assert_eq!(x.at(0).shape(), [3, 4]);
    /// assert_eq!(x.at((0, NewDim, 0, step(.., 2))).to_vec::<i64>()?, [0, 2]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn at(&self, index: impl IntoIndex) -> Tensor {
        let index = index.into_index();
        Tensor::op("at", &[self], || self.sliced(&index))
    }

    fn sliced(&self, index: &[Index]) -> Result<Tensor> {
        let named = index.iter().filter(|i| !matches!(i, Index::New)).count();
        if named > self.rank() {
            let rank = self.rank();
            return Err(Error::new(format!("{named} indices for {rank} dimensions")));
        }
        let full = self.shape().to_vec();
        let mut op =
            Slice { start: vec![0; full.len()], limit: full.clone(), stride: vec![1; full.len()] };
        let mut shape = Vec::new();
        let mut d = 0;
        for i in index {
            match *i {
                Index::New => {
                    shape.push(1);
                    continue;
                }
                Index::At(i) => {
                    let at = dimension(i, full[d]).map_err(|_| {
                        Error::new(format!(
                            "index {i} is out of bounds for dimension {d} of size {}",
                            full[d]
                        ))
                    })?;
                    (op.start[d], op.limit[d]) = (at, at + 1);
                }
                Index::Range { start, end, step } => {
                    if step == 0 {
                        return Err(Error::new("the step of a range is 0"));
                    }
                    let from = bound(start.unwrap_or(0), full[d]);
                    let to = end.map_or(full[d], |e| bound(e, full[d])).max(from);
                    (op.start[d], op.limit[d], op.stride[d]) = (from, to, step);
                    shape.push((to - from).div_ceil(step));
                }
            }
            d += 1;
        }
        shape.extend(&full[d..]);
        let whole = op.limit == full && op.stride.iter().all(|&s| s == 1);
        let whole = whole && op.start.iter().all(|&s| s == 0);
        let part = if whole { self.clone() } else { Tensor::record1(op, &[self]) };
        if part.shape() == shape {
            return Ok(part);
        }
        Ok(Tensor::record1(Reshape { shape }, &[&part]))
    }

    /// `length` elements of one dimension, from `start`.
    #[track_caller]
    pub fn narrow(&self, dim: i64, start: usize, length: usize) -> Tensor {
        Tensor::op("narrow", &[self], || {
            let dim = dimension(dim, self.rank())?;
            let size = self.shape()[dim];
            if start.checked_add(length).is_none_or(|end| end > size) {
                return Err(Error::new(format!(
                    "elements {start}..{} do not exist in dimension {dim} of size {size}",
                    start.saturating_add(length)
                )));
            }
            let mut index = vec![range(None, None); dim];
            index.push(range(Some(start as i64), Some((start + length) as i64)));
            self.sliced(&index)
        })
    }
}
