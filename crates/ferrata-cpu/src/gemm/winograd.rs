//! Convolutions of 3 × 3 taps by Winograd's minimal filtering: F(2×2, 3×3) for results and gradients
//! by the input, F(3×3, 2×2) for gradients by the weights.
//!
//! Squares of 4 × 4 pixels and the taps are brought to 16 positions by sums and differences; there
//! the convolution is 16 products of matrices, with 4 multiplications for each pixel of the result
//! instead of 9. Squares are transformed, multiplied and transformed back block by block, in the
//! second cache. Infinite numbers become NaN in the pixels that share a square with them.
//!
//! Map: `window` (recognising a convolution, its squares and blocks), `transform` (the loops),
//! `gradient` (by weights).

use std::any::TypeId;
use std::ops::Range;

use super::pack::{Panels, Places};
use super::packed::{Product, share};
use super::{Epilogue, EpilogueTile};
use crate::isa::Level;
use crate::pool::Pool;
use crate::simd::{Fma, Simd};
use crate::steps::Steps;

mod gradient;
mod transform;
mod window;

use gradient::Gradient;
use transform::{Join, POSITIONS, Parts, Pixels, Planes, Products, Spread, UNIT, zeros};
use window::{Window, pixel_strides, worthwhile};

/// Elements of transformed squares and their products in one block, wanted.
const BLOCK: usize = 1 << 17;
/// Squares in a block, at least, that the transformed weights are read for.
const BLOCK_TILES: usize = 24;
/// Channels of weights that are transformed by one task.
const TASK_CHANNELS: usize = 64;

impl<In: 'static, Out: 'static, A: 'static> Product<'_, In, Out, A> {
    /// Computes the product if it is a convolution of which that is faster, and says so.
    ///
    /// # Safety
    /// As [`Product::multiply`].
    pub unsafe fn multiply_winograd<L: Level>(&self, pool: &Pool) -> bool {
        let types = [TypeId::of::<In>(), TypeId::of::<Out>(), TypeId::of::<A>()];
        if types != [TypeId::of::<f32>(); 3] || self.accumulate {
            return false;
        }
        let target = Target {
            c: self.c.cast(),
            row: self.c_row,
            batch: self.batch,
            epilogue: self.epilogue,
        };
        let (a, b) = (self.a.cast::<f32>(), self.b.cast::<f32>());
        // SAFETY: passed on.
        unsafe {
            if let Some(window) = Window::of(self.a_rows, self.a_columns)
                && let Some(output) = self.b_columns.single()
                && let Some(weights) =
                    Weights::of(b, self.b_rows, (self.n, output), window.channels)
            {
                forward::<L>(pool, &window, a, &weights, &target);
                return true;
            }
            if let Some(window) = Window::of(self.b_rows, self.b_columns)
                && self.a_rows.single() == Some(1)
                && worthwhile(self.m)
                && let Some(strides) = pixel_strides(self.a_columns, &window)
            {
                let (from, size) = (a, window.size);
                let gradient = Pixels { from, strides, size, zeros: std::ptr::null() };
                let gradient = Gradient { window, from: b, gradient, outputs: self.m };
                gradient.run::<L>(pool, &target);
                return true;
            }
        }
        false
    }
}

/// Where results go.
struct Target<'a> {
    /// Null where only the epilogue wants them.
    c: *mut f32,
    row: usize,
    batch: usize,
    epilogue: Option<&'a Epilogue<'a>>,
}

// SAFETY: tasks write different elements.
unsafe impl Sync for Target<'_> {}

impl Target<'_> {
    /// Where the block at a row and a column is made, and elements between its rows: `room`, with
    /// rows of `columns`, if nowhere else.
    fn block(
        &self,
        [row, column]: [usize; 2],
        room: *mut f32,
        columns: usize,
    ) -> (*mut f32, usize) {
        if self.c.is_null() {
            return (room, columns);
        }
        (self.c.wrapping_add(row * self.row + column), self.row)
    }

    fn finish(&self, rows: Range<usize>, columns: Range<usize>, data: *mut f32, row: usize) {
        if let Some(epilogue) = self.epilogue {
            let (data, batch) = (data.cast(), self.batch);
            epilogue(&EpilogueTile { batch, rows, columns, data, row_stride: row });
        }
    }
}

/// The weights of a convolution: 9 taps of channels × outputs, one of which lies in a row.
struct Weights {
    from: *const f32,
    taps: [[isize; 3]; 3],
    /// Elements from one channel to the next.
    channel: isize,
    output: isize,
    channels: usize,
    outputs: usize,
}

// SAFETY: operands are only read.
unsafe impl Sync for Weights {}

impl Weights {
    fn of(
        from: *const f32,
        sums: &Steps,
        outputs: (usize, isize),
        channels: usize,
    ) -> Option<Self> {
        let (outputs, output) = outputs;
        let channel = sums.stride();
        let whole = (0..9).all(|tap| sums.run(tap * channels) >= channels);
        let taps =
            std::array::from_fn(|y| std::array::from_fn(|x| sums.at((3 * y + x) * channels)));
        let dense = channel == 1 || output == 1;
        (whole && dense && worthwhile(outputs)).then_some(Weights {
            from,
            taps,
            channel,
            output,
            channels,
            outputs,
        })
    }

    /// The taps from an element on.
    fn square(&self, at: isize) -> [[*const f32; 3]; 3] {
        self.taps.map(|row| row.map(|tap| self.from.wrapping_offset(tap + at)))
    }

    /// Transforms all taps, to panels of outputs.
    ///
    /// # Safety
    /// The machine has `L`; weights are readable, `to` has room.
    unsafe fn transform<L: Level>(&self, pool: &Pool, to: &Planes) {
        let width = to.row;
        let parts = self.channels.div_ceil(TASK_CHANNELS);
        let panels = self.outputs.div_ceil(width);
        pool.run(panels * parts, &|task, worker| {
            let channels = share(&(0..self.channels), parts, UNIT, task % parts);
            let first = task / parts * width;
            let outputs = width.min(self.outputs - first);
            let corner = first as isize * self.output + channels.start as isize * self.channel;
            let to = Planes { data: to.at(channels.start, first), ..*to };
            // SAFETY: passed on; the scratch has room for transformed rows of channels.
            unsafe {
                if self.output == 1 {
                    let squares = |i: usize| self.square(corner + i as isize * self.channel);
                    let (rows, columns) = (channels.len(), outputs);
                    return L::call(Spread { squares, rows, columns, to });
                }
                let rows = Planes::rows(std::ptr::null_mut(), outputs, channels.len());
                pool.with_scratch(worker, rows.elements() * size_of::<f32>(), |scratch| {
                    let rows = Planes { data: scratch.as_mut_ptr(), ..rows };
                    let squares = |i: usize| self.square(corner + i as isize * self.output);
                    let columns = channels.len();
                    L::call(Spread { squares, rows: outputs, columns, to: rows });
                    for position in 0..POSITIONS {
                        let panels = Panels {
                            from: rows.data.add(position * rows.plane).cast_const(),
                            line: Places::even(rows.row as isize),
                            step: Places::even(1),
                            lines: outputs,
                            depth: columns,
                            width,
                            to: to.data.add(position * to.plane),
                        };
                        panels.pack_for::<L, Fma<L::F32>>(to.panel);
                    }
                });
            }
        });
    }
}

/// A convolution: every block of squares is transformed, multiplied and transformed back.
///
/// # Safety
/// The machine has `L`; images and weights are readable, the target writable where they say.
unsafe fn forward<L: Level>(
    pool: &Pool,
    window: &Window,
    images: *const f32,
    weights: &Weights,
    target: &Target<'_>,
) {
    let (channels, outputs) = (weights.channels, weights.outputs);
    let width = L::F32::TILE_VECTORS * L::F32::LANES;
    let blocks = window.blocks((BLOCK / (channels + outputs) / POSITIONS).max(BLOCK_TILES));
    let most = blocks.most() * window.across();
    let null = std::ptr::null_mut();
    let taps = Planes::panels(null, channels, outputs, width);
    let (squares, products) =
        (Planes::rows(null, most, channels), Planes::rows(null, most, outputs));
    let room = if target.c.is_null() { 4 * most * outputs } else { 0 };
    let elements = channels + squares.elements() + products.elements() + room;
    let pixels = Pixels {
        from: images,
        strides: window.strides,
        size: window.size.map(|n| n + 2),
        zeros: std::ptr::null(),
    };
    pool.with_scratch(pool.worker(), taps.elements() * size_of::<f32>(), |scratch| {
        let taps = Planes { data: scratch.as_mut_ptr(), ..taps };
        // SAFETY: passed on.
        unsafe { weights.transform::<L>(pool, &taps) };
        pool.run(blocks.blocks, &|block, worker| {
            let lines = blocks.lines(block);
            pool.with_scratch(worker, elements * size_of::<f32>(), |scratch| {
                // SAFETY: passed on; the scratch has room for all parts; blocks are disjoint.
                unsafe {
                    let (zeros, data) = zeros(scratch.as_mut_ptr(), channels);
                    let pixels = pixels.with_zeros(zeros);
                    let squares = Planes { data, ..squares };
                    let products = Planes { data: data.add(squares.elements()), ..products };
                    let room = products.data.add(products.elements());
                    let rows = window.pixels(&lines);
                    let (to, row) = target.block([rows.start, 0], room, outputs);
                    let block = Block { window, lines, pixels, squares, products, taps };
                    block.run::<L>(weights, to, row);
                    target.finish(rows, 0..outputs, to, row);
                }
            });
        });
    });
}

/// Some lines of squares.
struct Block<'a> {
    window: &'a Window,
    lines: Range<usize>,
    pixels: Pixels,
    squares: Planes,
    products: Planes,
    taps: Planes,
}

impl Block<'_> {
    /// Makes the block's pixels, which lie from `to` on.
    unsafe fn run<L: Level>(self, weights: &Weights, to: *mut f32, row: usize) {
        let (window, across) = (self.window, self.window.across());
        let (tiles, first) = (self.lines.len() * across, self.lines.start);
        let corner = |tile: usize| window.corner(first + tile / across, tile % across);
        let start = window.pixels(&self.lines).start;
        // SAFETY: `forward`'s contract.
        unsafe {
            L::call(Spread {
                squares: |tile| self.pixels.square::<4>(corner(tile)),
                rows: tiles,
                columns: weights.channels,
                to: self.squares,
            });
            L::call(Products {
                left: self.squares,
                turned: false,
                right: self.taps,
                to: self.products,
                size: [tiles, weights.outputs, weights.channels],
                accumulate: false,
            });
            L::call(Join::<_, 2> {
                from: Parts { first: self.products, count: 1, stride: 0 },
                rows: 0..tiles,
                columns: weights.outputs,
                squares: |tile| {
                    let [image, y, x] = corner(tile);
                    let [rows, columns] = window.size;
                    std::array::from_fn(|j| {
                        std::array::from_fn(|i| {
                            if y + j >= rows || x + i >= columns {
                                return std::ptr::null_mut();
                            }
                            let pixel = (image * rows + y + j) * columns + x + i;
                            to.wrapping_add((pixel - start) * row)
                        })
                    })
                },
            });
        }
    }
}
