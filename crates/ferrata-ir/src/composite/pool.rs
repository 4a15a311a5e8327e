//! Pooling: the largest element or the mean of sliding windows, and of as many windows as the
//! result has elements.

use super::{
    AttributeList, call, dims_attribute, expect_float, first_of_last, function, interpolate, widen,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::literal::{Literal, Scalar};
use crate::primitive::{Attribute, BadIndex, Dense, Pad, Slice, Windows, window_count};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::sync::Arc;

/// Sliding windows over the last dimensions of a value `[.., spatial..]`.
///
/// ```
/// use ferrata_ir::composite::Pool;
/// let pool = Pool::new([3, 3]).stride([2, 2]).padding([1, 1]);
/// assert_eq!(pool.kernel.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Size of a window, for each spatial dimension.
    pub kernel: Vec<usize>,
    /// Step from one window to the next.
    pub stride: Vec<usize>,
    /// Elements added at both ends, at most half of the kernel.
    pub padding: Vec<usize>,
    /// Step from one element of a window to the next.
    pub dilation: Vec<usize>,
    /// Whether a last window that reaches beyond the padding counts, if it begins inside.
    pub ceil: bool,
}

impl Pool {
    /// Windows of this size side by side, without padding.
    pub fn new(kernel: impl Into<Vec<usize>>) -> Self {
        let kernel = kernel.into();
        let n = kernel.len();
        let (stride, padding, dilation) = (kernel.clone(), vec![0; n], vec![1; n]);
        Pool { kernel, stride, padding, dilation, ceil: false }
    }

    /// The same with another step.
    #[must_use]
    pub fn stride(self, stride: impl Into<Vec<usize>>) -> Self {
        Pool { stride: stride.into(), ..self }
    }

    /// The same with padding.
    #[must_use]
    pub fn padding(self, padding: impl Into<Vec<usize>>) -> Self {
        Pool { padding: padding.into(), ..self }
    }

    /// The same with dilated windows.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Vec<usize>>) -> Self {
        Pool { dilation: dilation.into(), ..self }
    }

    /// The same with a last window that reaches beyond the end.
    #[must_use]
    pub fn ceil(self) -> Self {
        Pool { ceil: true, ..self }
    }

    /// Number of spatial dimensions.
    fn spatial(&self) -> usize {
        self.kernel.len()
    }

    fn check(&self, ty: &Type) -> Result<()> {
        let n = self.spatial();
        if [self.stride.len(), self.padding.len(), self.dilation.len()].iter().any(|&l| l != n) {
            return Err(Error::new("kernel, stride, padding and dilation differ in length")
                .help("give one number for each spatial dimension"));
        }
        if ty.rank() < n || n == 0 {
            return Err(Error::new(format!("{ty} has no {n} spatial dimensions")));
        }
        for d in 0..n {
            let (kernel, padding) = (self.kernel[d], self.padding[d]);
            if kernel == 0 || self.stride[d] == 0 || self.dilation[d] == 0 {
                return Err(Error::new("kernel, stride and dilation must be at least 1"));
            }
            if padding > kernel / 2 {
                return Err(Error::new(format!(
                    "padding {padding} is more than half of the kernel {kernel}"
                )));
            }
            let size = ty.shape[ty.rank() - n + d];
            if self.count(d, size) == 0 {
                return Err(Error::new(format!(
                    "windows of {kernel} elements, {} apart, do not fit into {size} with padding \
                     {padding}",
                    self.dilation[d]
                )));
            }
        }
        Ok(())
    }

    /// Number of windows over `size` elements of spatial dimension `d`.
    fn count(&self, d: usize, size: usize) -> usize {
        let (kernel, stride, dilation) = (self.kernel[d], self.stride[d], self.dilation[d]);
        let padded = size + 2 * self.padding[d];
        let inside = window_count(padded, kernel, stride, dilation);
        let span = (kernel - 1).saturating_mul(dilation).saturating_add(1);
        if !self.ceil || padded < span || (padded - span).is_multiple_of(stride) {
            return inside;
        }
        // One more, unless it begins in the padding at the end.
        inside + usize::from(inside * stride < size + self.padding[d])
    }

    /// Elements beyond the padding that the last window of spatial dimension `d` reads.
    fn beyond(&self, d: usize, size: usize) -> i64 {
        let (kernel, stride, dilation) = (self.kernel[d], self.stride[d], self.dilation[d]);
        let end = (self.count(d, size) - 1) * stride + (kernel - 1) * dilation + 1;
        end as i64 - (size + 2 * self.padding[d]) as i64
    }

    fn attributes(&self) -> AttributeList {
        vec![
            ("kernel", dims_attribute(&self.kernel)),
            ("stride", dims_attribute(&self.stride)),
            ("padding", dims_attribute(&self.padding)),
            ("dilation", dims_attribute(&self.dilation)),
            ("ceil", Attribute::Bool(self.ceil)),
        ]
    }

    /// `x` with `value` around its dimension `dim`, spatial dimension `d`, so that it ends where
    /// the last window does.
    fn padded(&self, b: &mut Builder, x: Value, (dim, d): (usize, usize), value: Scalar) -> Value {
        let ty = b.ty(x).clone();
        let low = self.padding[d] as i64;
        let high = low + self.beyond(d, ty.shape[dim]);
        if (low, high) == (0, 0) {
            return x;
        }
        let mut op =
            Pad { low: vec![0; ty.rank()], high: vec![0; ty.rank()], interior: vec![0; ty.rank()] };
        (op.low[dim], op.high[dim]) = (low, high);
        let value = b.full(Type::scalar(ty.dtype), value);
        b.emit1(op, &[x, value])
    }

    /// Dimension `dim`, spatial dimension `d`, which is padded, as (windows, elements).
    fn windows(&self, b: &mut Builder, x: Value, (dim, d): (usize, usize)) -> Value {
        let (size, stride, dilation) = (self.kernel[d], self.stride[d], self.dilation[d]);
        b.emit1(Windows { dim, size, stride, dilation }, &[x])
    }
}

/// `max_pool`: the largest element of every window, `[.., windows..]`; padding never is one. NaN
/// wins. The gradient goes to the first of equal elements. Attributes: those of [`Pool`].
pub fn max_pool(b: &mut Builder, x: Value, pool: &Pool) -> Value {
    call(b, "max_pool", &[x], 1, |types| {
        expect_float("the operand", &types[0])?;
        pool.check(&types[0])?;
        function("max_pool", pool.attributes(), types, |b, x| {
            let first = types[0].rank() - pool.spatial();
            // The first one of rows of firsts is the first of all.
            let y = (0..pool.spatial()).rev().fold(x[0], |x, d| {
                let dim = first + d;
                let x = pool.padded(b, x, (dim, d), Scalar::Float(f64::NEG_INFINITY));
                let shape = b.ty(x).shape.clone();
                let reach = (pool.kernel[d] - 1) * pool.dilation[d];
                let element = |b: &mut Builder, j: usize| {
                    let mut op = Slice {
                        start: vec![0; shape.len()],
                        limit: shape.clone(),
                        stride: vec![1; shape.len()],
                    };
                    op.start[dim] = j * pool.dilation[d];
                    op.limit[dim] = shape[dim] - reach + op.start[dim];
                    op.stride[dim] = pool.stride[d];
                    b.emit1(op, &[x])
                };
                largest(b, pool.kernel[d], element)
            });
            vec![y]
        })
    })[0]
}

/// The largest of `count` values, element by element: the first one of equals; NaN wins.
fn largest(
    b: &mut Builder,
    count: usize,
    mut element: impl FnMut(&mut Builder, usize) -> Value,
) -> Value {
    let first = element(b, 0);
    (1..count).fold(first, |best, j| {
        let x = element(b, j);
        let above = b.gt(x, best);
        let is_nan = b.ne(x, x);
        let wins = b.or(above, is_nan);
        b.select(wins, x, best)
    })
}

/// `avg_pool`: the mean of every window, `[.., windows..]`: its sum divided by its size, padding
/// included or not; what a last window has beyond the padding never counts. Attributes: those of
/// [`Pool`], without `dilation`, and `include_padding`.
pub fn avg_pool(b: &mut Builder, x: Value, pool: &Pool, include_padding: bool) -> Value {
    call(b, "avg_pool", &[x], 1, |types| {
        expect_float("the operand", &types[0])?;
        pool.check(&types[0])?;
        if pool.dilation.iter().any(|&d| d != 1) {
            return Err(Error::new("means of dilated windows are not supported"));
        }
        let mut attributes = pool.attributes();
        attributes.retain(|(name, _)| *name != "dilation");
        attributes.push(("include_padding", Attribute::Bool(include_padding)));
        function("avg_pool", attributes, types, |b, inputs| {
            let first = types[0].rank() - pool.spatial();
            let wide = widen(b, inputs[0]);
            let mut sizes = vec![1.0];
            let y = (0..pool.spatial()).rev().fold(wide, |x, d| {
                let counts = pool.counts(d, types[0].shape[first + d], include_padding);
                sizes = outer(&counts, &sizes);
                let x = pool.padded(b, x, (first + d, d), Scalar::Float(0.0));
                let windows = pool.windows(b, x, (first + d, d));
                b.sum(windows, &[first + d + 1])
            });
            let shape = b.ty(y).shape.clone();
            let y = match sizes.iter().all(|&n| n == sizes[0]) {
                true => b.scale(y, 1.0 / sizes[0]),
                false => {
                    let ty = Type::new(b.ty(y).dtype, &shape[first..]);
                    let inverse = sizes.iter().map(|n| 1.0 / n).collect();
                    let value = Arc::new(Literal::float(ty, inverse).rounded());
                    let inverse = b.emit1(Dense { value }, &[]);
                    let inverse = b.broadcast_trailing(inverse, &shape);
                    b.mul(y, inverse)
                }
            };
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

impl Pool {
    /// How many elements of each window along spatial dimension `d` count.
    fn counts(&self, d: usize, size: usize, include_padding: bool) -> Vec<f64> {
        let padding = self.padding[d] as i64;
        let (low, high) = match include_padding {
            true => (-padding, size as i64 + padding),
            false => (0, size as i64),
        };
        let count = |i: usize| {
            let start = (i * self.stride[d]) as i64 - padding;
            let end = start + self.kernel[d] as i64;
            (end.min(high) - start.max(low)) as f64
        };
        (0..self.count(d, size)).map(count).collect()
    }
}

fn outer(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().flat_map(|a| y.iter().map(move |b| a * b)).collect()
}

/// The elements `start..end` of `n` that cell `i` of `cells` covers.
fn cell(i: usize, n: usize, cells: usize) -> (usize, usize) {
    (i * n / cells, ((i + 1) * n).div_ceil(cells))
}

/// `adaptive_avg_pool`: the mean of cells that cover the last dimensions, `sizes` of them: cell `i`
/// of `m` along `n` elements covers `i n / m` to `(i + 1) n / m`, the first rounded down, the
/// second up. Attribute: `sizes`.
pub fn adaptive_avg_pool(b: &mut Builder, x: Value, sizes: &[usize]) -> Value {
    call(b, "adaptive_avg_pool", &[x], 1, |types| {
        let first = check_cells(&types[0], sizes)?;
        let attributes = vec![("sizes", dims_attribute(sizes))];
        function("adaptive_avg_pool", attributes, types, |b, inputs| {
            let shape = &types[0].shape[first..];
            if let Some(pool) = even_windows(shape, sizes) {
                return vec![avg_pool(b, inputs[0], &pool, true)];
            }
            let wide = widen(b, inputs[0]);
            let y = sizes.iter().enumerate().fold(wide, |x, (d, &cells)| {
                let n = shape[d];
                interpolate::weighted(b, x, first + d, cells, |i, j| {
                    let (start, end) = cell(i, n, cells);
                    if (start..end).contains(&j) { 1.0 / (end - start) as f64 } else { 0.0 }
                })
            });
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

/// `adaptive_max_pool`: the largest element of the cells of [`adaptive_avg_pool`], the first one of
/// equals; NaN wins. Attribute: `sizes`.
pub fn adaptive_max_pool(b: &mut Builder, x: Value, sizes: &[usize]) -> Value {
    call(b, "adaptive_max_pool", &[x], 1, |types| {
        let first = check_cells(&types[0], sizes)?;
        let attributes = vec![("sizes", dims_attribute(sizes))];
        function("adaptive_max_pool", attributes, types, |b, inputs| {
            let shape = &types[0].shape[first..];
            if let Some(pool) = even_windows(shape, sizes) {
                return vec![max_pool(b, inputs[0], &pool)];
            }
            let y = (0..sizes.len()).rev().fold(inputs[0], |x, d| {
                let (n, cells) = (shape[d], sizes[d]);
                let ends = (0..cells).map(|i| cell(i, n, cells));
                let most = ends.map(|(start, end)| end - start).max().unwrap_or(0);
                // Shorter cells repeat their last element, which changes nothing.
                let element = |b: &mut Builder, j: usize| {
                    let ty = Type::new(DType::I64, [cells]);
                    let places = Literal::build(ty, |i| {
                        let (start, end) = cell(i, n, cells);
                        Scalar::Int((start + j).min(end - 1) as i64)
                    });
                    let places = b.emit1(Dense { value: Arc::new(places) }, &[]);
                    b.take(x, places, first + d, BadIndex::Clip)
                };
                largest(b, most, element)
            });
            vec![y]
        })
    })[0]
}

/// Checks the cells of the last dimensions; gives the first of these.
fn check_cells(ty: &Type, sizes: &[usize]) -> Result<usize> {
    expect_float("the operand", ty)?;
    let first = first_of_last(ty, sizes.len())?;
    if sizes.contains(&0) || ty.shape[first..].contains(&0) {
        return Err(Error::new(format!("{sizes:?} cells do not cover {ty}"))
            .help("numbers of cells and sizes must be at least 1"));
    }
    Ok(first)
}

/// The windows side by side that the cells are, if all have one size.
fn even_windows(shape: &[usize], cells: &[usize]) -> Option<Pool> {
    let even = shape.iter().zip(cells).all(|(n, m)| n.is_multiple_of(*m));
    even.then(|| Pool::new(shape.iter().zip(cells).map(|(n, m)| n / m).collect::<Vec<_>>()))
}
