//! Resizing the last dimensions, and reading at places that are given.

use super::{call, dims_attribute, expect_dtype, expect_float, first_of_last, function, widen};
use crate::DType;
use crate::error::{Error, Result};
use crate::literal::{Literal, Scalar};
use crate::primitive::{Attribute, BadIndex, Dense, Gather};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::sync::Arc;

/// How values between elements are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The element at the place rounded down.
    Nearest,
    /// The straight line between the two neighbours.
    Linear {
        /// Whether the first and the last elements of operand and result meet, rather than their
        /// outer edges.
        align_corners: bool,
    },
    /// The cubic through four neighbours (Keys, a = -0.75).
    Cubic {
        /// As for [`Interpolation::Linear`].
        align_corners: bool,
    },
}

impl Interpolation {
    /// Name as an attribute.
    fn name(self) -> &'static str {
        match self {
            Interpolation::Nearest => "nearest",
            Interpolation::Linear { .. } => "linear",
            Interpolation::Cubic { .. } => "cubic",
        }
    }

    fn align_corners(self) -> bool {
        match self {
            Interpolation::Nearest => false,
            Interpolation::Linear { align_corners } | Interpolation::Cubic { align_corners } => {
                align_corners
            }
        }
    }

    /// The weight of element `j` of `n` in element `i` of `m`.
    fn weight(self, i: usize, m: usize, j: usize, n: usize) -> f64 {
        let place = match self.align_corners() {
            true if m == 1 => 0.0,
            true => i as f64 * (n as f64 - 1.0) / (m as f64 - 1.0),
            false => (i as f64 + 0.5) * n as f64 / m as f64 - 0.5,
        };
        let inside = |k: f64| k.clamp(0.0, n as f64 - 1.0) as usize;
        match self {
            Interpolation::Nearest => f64::from(u8::from(i * n / m == j)),
            Interpolation::Linear { .. } => {
                let place = place.max(0.0);
                let (low, part) = (place.floor(), place - place.floor());
                let at = |k: f64, weight: f64| if inside(k) == j { weight } else { 0.0 };
                at(low, 1.0 - part) + at(low + 1.0, part)
            }
            Interpolation::Cubic { .. } => {
                let (low, part) = (place.floor(), place - place.floor());
                let at = |k: i32| {
                    let weight = keys(part - f64::from(k));
                    if inside(low + f64::from(k)) == j { weight } else { 0.0 }
                };
                (-1..=2).map(at).sum()
            }
        }
    }
}

/// The kernel of Keys with a = -0.75.
fn keys(x: f64) -> f64 {
    const A: f64 = -0.75;
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        _ => 0.0,
    }
}

/// Element `i` of the `m` that dimension `dim` of `x` becomes is the sum of its elements `j` times
/// `weight(i, j)`: a product with a constant matrix.
pub(super) fn weighted(
    b: &mut Builder,
    x: Value,
    dim: usize,
    m: usize,
    weight: impl Fn(usize, usize) -> f64,
) -> Value {
    let ty = b.ty(x).clone();
    let n = ty.shape[dim];
    let matrix = (0..m).flat_map(|i| (0..n).map(move |j| (i, j)));
    let matrix = matrix.map(|(i, j)| weight(i, j)).collect();
    let matrix = Literal::float(Type::new(ty.dtype, [m, n]), matrix).rounded();
    let matrix = b.emit1(Dense { value: Arc::new(matrix) }, &[]);
    let last = ty.rank() - 1;
    if dim == last {
        return b.dot(x, matrix, (&[], &[]), (&[dim], &[1]));
    }
    let y = b.dot(matrix, x, (&[], &[]), (&[1], &[dim]));
    b.move_dim(y, 0, dim)
}

/// `interpolate`: resizes the last dimensions of `x` to `sizes`. Linear and cubic interpolation are
/// products with constant matrices, so a NaN or an infinity spreads along its row and column.
/// Attributes: `sizes`, `mode`, `align_corners`.
pub fn interpolate(b: &mut Builder, x: Value, sizes: &[usize], mode: Interpolation) -> Value {
    call(b, "interpolate", &[x], 1, |types| {
        let ty = &types[0];
        expect_float("the operand", ty)?;
        let first = first_of_last(ty, sizes.len())?;
        if sizes.contains(&0) || ty.shape[first..].contains(&0) {
            return Err(Error::new(format!("cannot resize {ty} to {sizes:?}"))
                .help("all sizes must be at least 1"));
        }
        let attributes = vec![
            ("sizes", dims_attribute(sizes)),
            ("mode", Attribute::Text(mode.name().to_string())),
            ("align_corners", Attribute::Bool(mode.align_corners())),
        ];
        function("interpolate", attributes, types, |b, inputs| {
            let resized = |b: &mut Builder, x: Value, d: usize| {
                let (dim, m, n) = (first + d, sizes[d], ty.shape[first + d]);
                match mode {
                    _ if m == n => x,
                    Interpolation::Nearest => nearest(b, x, dim, m),
                    _ => weighted(b, x, dim, m, |i, j| mode.weight(i, m, j, n)),
                }
            };
            let wide = widen(b, inputs[0]);
            // The last dimension first, while the others are small.
            let y = (0..sizes.len()).rev().fold(wide, |x, d| resized(b, x, d));
            vec![b.cast(y, ty.dtype)]
        })
    })[0]
}

/// Element `i` of the `m` that dimension `dim` becomes is element `i n / m` of its `n`.
fn nearest(b: &mut Builder, x: Value, dim: usize, m: usize) -> Value {
    let mut shape = b.ty(x).shape.clone();
    let n = shape[dim];
    if m.is_multiple_of(n) {
        // Repeated elements.
        let mut apart = shape.clone();
        apart.insert(dim + 1, m / n);
        let dims: Vec<usize> = (0..apart.len()).filter(|&d| d != dim + 1).collect();
        let repeated = b.broadcast(x, &apart, &dims);
        shape[dim] = m;
        return b.reshape(repeated, &shape);
    }
    let places = Literal::build(Type::new(DType::I64, [m]), |i| Scalar::Int((i * n / m) as i64));
    let places = b.emit1(Dense { value: Arc::new(places) }, &[]);
    b.take(x, places, dim, BadIndex::Clip)
}

/// What is read outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Zero.
    Zeros,
    /// The nearest pixel of the border.
    Border,
}

/// How [`grid_sample`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridSample {
    /// The nearest pixel, without a gradient for the grid, rather than bilinear interpolation.
    pub nearest: bool,
    /// What is read outside.
    pub outside: Outside,
    /// Whether -1 and 1 are the centres of the outermost pixels, rather than their outer edges.
    pub align_corners: bool,
}

/// `grid_sample`: `x [N, C, H, W]` at the places `(x, y)` of `grid [N, h, w, 2]`, which are -1 to 1
/// over the image: `[N, C, h, w]`. Attributes: `nearest`, `border`, `align_corners`.
pub fn grid_sample(b: &mut Builder, x: Value, grid: Value, how: GridSample) -> Value {
    call(b, "grid_sample", &[x, grid], 1, |types| {
        check_grid(&types[0], &types[1])?;
        let attributes = vec![
            ("nearest", Attribute::Bool(how.nearest)),
            ("border", Attribute::Bool(how.outside == Outside::Border)),
            ("align_corners", Attribute::Bool(how.align_corners)),
        ];
        function("grid_sample", attributes, types, |b, inputs| {
            let dtype = types[0].dtype;
            let (x, grid) = (widen(b, inputs[0]), widen(b, inputs[1]));
            let y = sampled(b, x, grid, how);
            vec![b.cast(y, dtype)]
        })
    })[0]
}

fn check_grid(x: &Type, grid: &Type) -> Result<()> {
    expect_float("the operand", x)?;
    expect_dtype("the grid", grid, x.dtype)?;
    let fits = x.rank() == 4 && grid.rank() == 4 && grid.shape[0] == x.shape[0];
    if !fits || grid.shape[3] != 2 {
        return Err(Error::new(format!("cannot sample {x} at the places {grid}"))
            .help("give images [batch, channels, height, width] and places [batch, .., .., 2]"));
    }
    if x.shape[2..].contains(&0) {
        return Err(Error::new(format!("{x} has no pixels")));
    }
    Ok(())
}

fn sampled(b: &mut Builder, x: Value, grid: Value, how: GridSample) -> Value {
    let [n, c, height, width] = [0, 1, 2, 3].map(|d| b.ty(x).shape[d]);
    let [h, w] = [1, 2].map(|d| b.ty(grid).shape[d]);
    let pixels = b.transpose(x, &[0, 2, 3, 1]);
    let place = |b: &mut Builder, which: usize, size: usize| {
        let g = b.slice_dim(grid, 3, which, which + 1);
        let g = b.reshape(g, &[n, h * w]);
        let g = b.offset(g, 1.0);
        let size = size as f64;
        let at = match how.align_corners {
            true => b.scale(g, (size - 1.0) / 2.0),
            false => {
                let g = b.scale(g, size / 2.0);
                b.offset(g, -0.5)
            }
        };
        match how.outside {
            Outside::Zeros => at,
            Outside::Border => held(b, at, size - 1.0),
        }
    };
    let (across, down) = (place(b, 0, width), place(b, 1, height));
    // Rows of channels at whole places, `[N, h w, C]`.
    let read = |b: &mut Builder, row: Value, column: Value| {
        let index = |b: &mut Builder, v: Value| {
            let v = b.cast(v, DType::I64);
            b.reshape(v, &[n, h * w, 1])
        };
        let places = [index(b, row), index(b, column)];
        let places = b.concatenate(&places, 2);
        b.emit1(Gather { batch: 1, indexed: 2, bad: BadIndex::Drop }, &[pixels, places])
    };
    let y = if how.nearest {
        let (row, column) = (b.round(down), b.round(across));
        read(b, row, column)
    } else {
        let ends = |b: &mut Builder, at: Value| {
            let low = b.floor(at);
            let high = b.offset(low, 1.0);
            let part = b.sub(at, low);
            let rest = b.sub(high, at);
            [(low, rest), (high, part)]
        };
        let (rows, columns) = (ends(b, down), ends(b, across));
        let mut sum = None;
        for (row, of_row) in rows {
            for (column, of_column) in columns {
                let weight = b.mul(of_row, of_column);
                let weight = b.broadcast(weight, &[n, h * w, c], &[0, 1]);
                let corner = read(b, row, column);
                let term = b.mul(corner, weight);
                sum = Some(sum.map_or(term, |sum| b.add(sum, term)));
            }
        }
        sum.unwrap_or(x)
    };
    let y = b.reshape(y, &[n, h, w, c]);
    b.transpose(y, &[0, 3, 1, 2])
}

/// `x` held between 0 and `top`, with a gradient only strictly inside.
fn held(b: &mut Builder, x: Value, top: f64) -> Value {
    let (low, high) = (b.zeros_like(x), b.full_like(x, top));
    let above = b.gt(x, low);
    let below = b.lt(x, high);
    let inside = b.and(above, below);
    let clamped = b.clamp(x, low, high);
    let clamped = b.stop_gradient(clamped);
    b.select(inside, x, clamped)
}
