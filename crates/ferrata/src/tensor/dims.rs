//! How users write dimensions and shapes.

use ferrata_ir::{Error, Result};
use std::ops::RangeFull;

/// Dimension `dim` of a value of rank `rank`; negative ones count from the end.
pub(crate) fn dimension(dim: i64, rank: usize) -> Result<usize> {
    let n = rank as i64;
    if (-n..n).contains(&dim) {
        return Ok(dim.rem_euclid(n) as usize);
    }
    let error = Error::new(format!("dimension {dim} does not exist"));
    Err(match rank {
        0 => error.help("a scalar has no dimensions"),
        _ => error.help(format!("use one of {}..={}", -n, n - 1)),
    })
}

/// A choice of dimensions.
#[derive(Clone, Debug)]
pub struct Dims {
    /// `None`: all.
    dims: Option<Vec<i64>>,
    pub(crate) keep: bool,
}

impl Dims {
    /// The chosen dimensions of a value of this rank, rising.
    pub(crate) fn resolve(&self, rank: usize) -> Result<Vec<usize>> {
        let Some(dims) = &self.dims else { return Ok((0..rank).collect()) };
        let mut out = dims.iter().map(|&d| dimension(d, rank)).collect::<Result<Vec<_>>>()?;
        out.sort_unstable();
        if out.windows(2).any(|w| w[0] == w[1]) {
            return Err(Error::new(format!("a dimension is named twice in {dims:?}")));
        }
        Ok(out)
    }
}

/// Reduced dimensions stay, with size 1: `x.sum(keep(-1))`.
pub fn keep(dims: impl IntoDims) -> Dims {
    Dims { keep: true, ..dims.into_dims() }
}

/// What can name dimensions: `-1`, `[0, 1]`, a slice, `..` for all of them.
pub trait IntoDims {
    /// The choice.
    fn into_dims(self) -> Dims;
}

impl IntoDims for Dims {
    fn into_dims(self) -> Dims {
        self
    }
}

impl IntoDims for RangeFull {
    fn into_dims(self) -> Dims {
        Dims { dims: None, keep: false }
    }
}

fn some(dims: Vec<i64>) -> Dims {
    Dims { dims: Some(dims), keep: false }
}

/// What can be the size of a dimension: an integer, or -1 for "whatever is left".
pub trait IntoSize: Copy {
    /// As a signed number.
    fn into_size(self) -> i64;
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl IntoSize for $ty {
            fn into_size(self) -> i64 {
                self as i64
            }
        }

        impl IntoDims for $ty {
            fn into_dims(self) -> Dims {
                some(vec![self as i64])
            }
        }
    )*};
}

integers!(i32, i64, usize);

impl<T: IntoSize, const N: usize> IntoDims for [T; N] {
    fn into_dims(self) -> Dims {
        some(self.iter().map(|d| d.into_size()).collect())
    }
}

impl<T: IntoSize> IntoDims for &[T] {
    fn into_dims(self) -> Dims {
        some(self.iter().map(|d| d.into_size()).collect())
    }
}

impl<T: IntoSize> IntoDims for Vec<T> {
    fn into_dims(self) -> Dims {
        self[..].into_dims()
    }
}

impl<T: IntoSize> IntoDims for &Vec<T> {
    fn into_dims(self) -> Dims {
        self[..].into_dims()
    }
}

/// What can be a shape: `[2, 3]`, `(batch, -1)`, a slice, one size, `()` for a scalar.
pub trait IntoShape {
    /// Sizes; -1 stands for the one that follows from the number of elements.
    fn into_shape(self) -> Vec<i64>;
}

macro_rules! single {
    ($($ty:ty),*) => {$(
        impl IntoShape for $ty {
            fn into_shape(self) -> Vec<i64> {
                vec![self.into_size()]
            }
        }
    )*};
}

single!(i32, i64, usize);

impl IntoShape for () {
    fn into_shape(self) -> Vec<i64> {
        Vec::new()
    }
}

impl<T: IntoSize, const N: usize> IntoShape for [T; N] {
    fn into_shape(self) -> Vec<i64> {
        self.iter().map(|s| s.into_size()).collect()
    }
}

impl<T: IntoSize, const N: usize> IntoShape for &[T; N] {
    fn into_shape(self) -> Vec<i64> {
        (*self).into_shape()
    }
}

impl<T: IntoSize> IntoShape for &[T] {
    fn into_shape(self) -> Vec<i64> {
        self.iter().map(|s| s.into_size()).collect()
    }
}

impl<T: IntoSize> IntoShape for Vec<T> {
    fn into_shape(self) -> Vec<i64> {
        self[..].into_shape()
    }
}

impl<T: IntoSize> IntoShape for &Vec<T> {
    fn into_shape(self) -> Vec<i64> {
        self[..].into_shape()
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: IntoSize),*> IntoShape for ($($name,)*) {
            fn into_shape(self) -> Vec<i64> {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                vec![$($name.into_size()),*]
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

/// A shape without -1, which stands for what is left of `elements`, if they are given.
pub(crate) fn resolve_shape(shape: impl IntoShape, elements: Option<usize>) -> Result<Vec<usize>> {
    let sizes = shape.into_shape();
    let known: usize = sizes.iter().filter(|&&s| s >= 0).map(|&s| s as usize).product();
    let holes = sizes.iter().filter(|&&s| s == -1).count();
    if sizes.iter().any(|&s| s < -1) || holes > usize::from(elements.is_some()) {
        let help = match elements {
            Some(_) => "use sizes that are not negative, and at most one -1",
            None => "use sizes that are not negative",
        };
        return Err(Error::new(format!("{sizes:?} is no shape")).help(help));
    }
    let rest = match elements {
        Some(n) if holes == 1 => {
            if known == 0 || n % known != 0 {
                return Err(Error::new(format!(
                    "{n} elements do not fill the shape {sizes:?} for any size in place of -1"
                )));
            }
            n / known
        }
        _ => 0,
    };
    Ok(sizes.iter().map(|&s| if s < 0 { rest } else { s as usize }).collect())
}
