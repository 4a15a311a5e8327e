//! Squares of pixels and taps, brought to 16 positions and back, and the products there.

use std::ops::Range;

use crate::gemm::tile::Tile;
use crate::isa::{Kernel, Level};
use crate::simd::{Fma, Simd};

/// Positions of a transformed square.
pub const POSITIONS: usize = 16;
/// What channels and outputs are multiples of: the lanes of the widest vector.
pub const UNIT: usize = 16;

/// Pixels of channels-last images.
#[derive(Clone, Copy)]
pub struct Pixels {
    pub from: *const f32,
    pub strides: [isize; 3],
    /// Rows and columns that there are.
    pub size: [usize; 2],
    /// As many zeros as channels, for pixels that there are not.
    pub zeros: *const f32,
}

impl Pixels {
    pub fn with_zeros(self, zeros: *const f32) -> Pixels {
        Pixels { zeros, ..self }
    }

    /// The square of `N` × `N` pixels from one on.
    pub fn square<const N: usize>(&self, [image, row, column]: [usize; 3]) -> [[*const f32; N]; N] {
        let corner = [image, row, column].into_iter().zip(self.strides);
        let corner: isize = corner.map(|(i, stride)| i as isize * stride).sum();
        std::array::from_fn(|y| {
            std::array::from_fn(|x| {
                if row + y >= self.size[0] || column + x >= self.size[1] {
                    return self.zeros;
                }
                let at = corner + y as isize * self.strides[1] + x as isize * self.strides[2];
                self.from.wrapping_offset(at)
            })
        })
    }
}

/// Matrices of all positions. Their columns lie in a row, or in panels.
#[derive(Clone, Copy)]
pub struct Planes {
    pub data: *mut f32,
    /// Elements from one position to the next.
    pub plane: usize,
    /// Elements from one row to the next.
    pub row: usize,
    /// The logarithm of the columns of a panel.
    pub width: u32,
    /// Elements from one panel to the next.
    pub panel: usize,
}

impl Planes {
    /// Of rows in a row, which do not push each other out of the first cache.
    pub fn rows(data: *mut f32, rows: usize, columns: usize) -> Planes {
        let row = columns + UNIT;
        Planes { data, plane: apart(rows * row), row, width: usize::BITS - 1, panel: 0 }
    }

    pub fn panels(data: *mut f32, rows: usize, columns: usize, width: usize) -> Planes {
        let (panel, panels) = (rows * width, columns.div_ceil(width));
        let plane = apart(panels * panel);
        Planes { data, plane, row: width, width: width.ilog2(), panel }
    }

    /// Elements of all positions.
    pub fn elements(&self) -> usize {
        POSITIONS * self.plane
    }

    pub fn at(&self, row: usize, column: usize) -> *mut f32 {
        let (panel, column) = (column >> self.width, column & ((1 << self.width) - 1));
        self.data.wrapping_add(panel * self.panel + row * self.row + column)
    }
}

/// At least so many elements, so that neighbouring positions fall on different lines of the first
/// cache.
pub fn apart(elements: usize) -> usize {
    elements.next_multiple_of(1024) + UNIT
}

// SAFETY: whoever makes these gives different tasks different parts of what is written.
unsafe impl Sync for Planes {}
// SAFETY: as above.
unsafe impl Sync for Pixels {}

/// A transform along one dimension, of pixels (`N` = 4) or taps (`N` = 3, or 2 that are pixels of
/// a gradient), for which the machine has the vectors.
#[inline(always)]
pub unsafe fn spread<V: Simd<Elem = f32>, const N: usize>(x: [V; N]) -> [V; 4] {
    // SAFETY: passed on.
    unsafe {
        if N == 4 {
            return [x[0].sub(x[2]), x[1].add(x[2]), x[2].sub(x[1]), x[1].sub(x[N - 1])];
        }
        let (half, zero) = (V::splat(0.5), V::splat(0.0));
        let even = if N == 3 { x[0].add(x[N - 1]) } else { x[0] };
        let (even, odd) = (zero.mul_add(even, half), zero.mul_add(x[1], half));
        [x[0], even.add(odd), even.sub(odd), x[N - 1]]
    }
}

/// The transform back along one dimension, to 2 pixels or 3 taps.
#[inline(always)]
pub unsafe fn join<V: Simd<Elem = f32>, const N: usize>(x: [V; 4]) -> [V; N] {
    // SAFETY: passed on.
    unsafe {
        let (sum, difference) = (x[1].add(x[2]), x[1].sub(x[2]));
        let mut out = [x[0].add(sum); N];
        out[1] = if N == 2 { difference.sub(x[3]) } else { difference };
        if N == 3 {
            out[N - 1] = sum.sub(x[3]);
        }
        out
    }
}

/// Transforms squares to rows of all positions.
pub struct Spread<F, const N: usize> {
    /// Where the elements of a square lie.
    pub squares: F,
    pub rows: usize,
    /// A multiple of [`UNIT`].
    pub columns: usize,
    pub to: Planes,
}

impl<F: Fn(usize) -> [[*const f32; N]; N], const N: usize> Kernel for Spread<F, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for row in 0..self.rows {
            let square = (self.squares)(row);
            for column in (0..self.columns).step_by(L::F32::LANES) {
                let to = self.to.at(row, column);
                // SAFETY: whoever makes this gives squares of so many columns, and room for the
                // rows; the level has the vectors.
                unsafe {
                    let mut down = [[L::F32::splat(0.0); 4]; N];
                    for (x, down) in down.iter_mut().enumerate() {
                        let mut pixels = [L::F32::splat(0.0); N];
                        for (y, pixel) in pixels.iter_mut().enumerate() {
                            *pixel = L::F32::load(square[y][x].add(column));
                        }
                        *down = spread(pixels);
                    }
                    let lines: [[L::F32; N]; 4] =
                        std::array::from_fn(|y| std::array::from_fn(|x| down[x][y]));
                    for (y, line) in lines.into_iter().enumerate() {
                        for (x, value) in spread(line).into_iter().enumerate() {
                            value.store(to.add((4 * y + x) * self.to.plane));
                        }
                    }
                }
            }
        }
    }
}

/// What is summed up before it is transformed back.
#[derive(Clone, Copy)]
pub struct Parts {
    pub first: Planes,
    pub count: usize,
    /// Elements from one to the next.
    pub stride: usize,
}

/// Transforms rows of all positions back.
pub struct Join<F, const N: usize> {
    pub from: Parts,
    pub rows: Range<usize>,
    /// A multiple of [`UNIT`].
    pub columns: usize,
    /// Where the elements of a row's square go; null for those that are not wanted.
    pub squares: F,
}

impl<F: Fn(usize) -> [[*mut f32; N]; N], const N: usize> Kernel for Join<F, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for row in self.rows.clone() {
            let square = (self.squares)(row);
            for column in (0..self.columns).step_by(L::F32::LANES) {
                let from = self.from.first.at(row, column).cast_const();
                // SAFETY: whoever makes this gives rows of all positions, and room for so many
                // columns in squares; the level has the vectors.
                unsafe {
                    let mut down = [[L::F32::splat(0.0); N]; 4];
                    for (x, down) in down.iter_mut().enumerate() {
                        let mut values = [L::F32::splat(0.0); 4];
                        for (y, value) in values.iter_mut().enumerate() {
                            let at = from.add((4 * y + x) * self.from.first.plane);
                            *value = L::F32::load(at);
                            for part in 1..self.from.count {
                                let at = at.add(part * self.from.stride);
                                *value = value.add(L::F32::load(at));
                            }
                        }
                        *down = join(values);
                    }
                    for (y, to) in square.iter().enumerate() {
                        let line = [down[0][y], down[1][y], down[2][y], down[3][y]];
                        for (value, to) in join::<L::F32, N>(line).into_iter().zip(to) {
                            if !to.is_null() {
                                value.store(to.add(column));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The products of all positions. The left operand's steps lie in its rows, or, if `turned`, are
/// its rows; the right one is in panels of the register tile.
pub struct Products {
    pub left: Planes,
    pub turned: bool,
    pub right: Planes,
    pub to: Planes,
    /// Rows, columns and length of the sums.
    pub size: [usize; 3],
    pub accumulate: bool,
}

impl Kernel for Products {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (height, width) = (L::F32::TILE_ROWS, L::F32::TILE_VECTORS * L::F32::LANES);
        let [rows, columns, depth] = self.size;
        for position in 0..POSITIONS {
            for j in (0..columns).step_by(width) {
                for i in (0..rows).step_by(height) {
                    let left = if self.turned { self.left.at(0, i) } else { self.left.at(i, 0) };
                    let plane = |planes: &Planes| position * planes.plane;
                    let tile = Tile {
                        depth,
                        a: left.wrapping_add(plane(&self.left)).cast_const(),
                        a_stride: self.left.row,
                        b: self.right.at(0, j).wrapping_add(plane(&self.right)).cast_const(),
                        c: self.to.at(i, j).wrapping_add(plane(&self.to)),
                        ld: self.to.row,
                        rows: (rows - i).min(height),
                        cols: (columns - j).min(width),
                        accumulate: self.accumulate,
                    };
                    // SAFETY: whoever makes this gives operands and room of these sizes, rows of
                    // turned operands in multiples of `UNIT`; the level has the vectors.
                    unsafe {
                        if self.turned {
                            tile.dots::<L, Fma<L::F32>>();
                        } else {
                            tile.dots_of_rows::<L, Fma<L::F32>>();
                        }
                    }
                }
            }
        }
    }
}

/// Zeros at the start of a buffer, and what follows.
pub unsafe fn zeros(data: *mut f32, count: usize) -> (*const f32, *mut f32) {
    // SAFETY: the caller gives room for them.
    unsafe {
        data.write_bytes(0, count);
        (data.cast_const(), data.add(count))
    }
}
