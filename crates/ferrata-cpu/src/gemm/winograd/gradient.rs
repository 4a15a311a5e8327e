//! Gradients of convolutions by their weights: the transformed gradients of pixels and the transformed
//! images are multiplied with squares as steps.

use std::ops::Range;

use super::Target;
use super::transform::{Join, Parts, Pixels, Planes, Products, Spread, UNIT, zeros};
use super::window::Window;
use crate::gemm::packed::share;
use crate::isa::Level;
use crate::pool::Pool;
use crate::simd::Simd;

/// Outputs and channels whose gradients are summed up together, at most.
const SIDES: [usize; 2] = [128, 64];
/// Squares that are summed up between two visits to these sums, about.
const VISIT_TILES: usize = 128;
/// Tasks that sum up, at least where there are lines of squares enough.
const TASKS: usize = 16;
/// Tasks that transform the sums of a block back.
const FINISHES: usize = 4;

/// The gradient of a convolution by its weights, as `[output][tap][channel]`.
pub struct Gradient {
    pub window: Window,
    /// Images.
    pub from: *const f32,
    /// The gradient of the result; outputs are neighbours.
    pub gradient: Pixels,
    pub outputs: usize,
}

// SAFETY: operands are only read.
unsafe impl Sync for Gradient {}

impl Gradient {
    /// Sums of some outputs × some channels, over parts of the squares.
    ///
    /// # Safety
    /// As for `forward`.
    pub unsafe fn run<L: Level>(&self, pool: &Pool, target: &Target<'_>) {
        let (outputs, channels) = (0..self.outputs, 0..self.window.channels);
        let [down, across] = [outputs.len().div_ceil(SIDES[0]), channels.len().div_ceil(SIDES[1])];
        let blocks = down * across;
        let parts = TASKS.div_ceil(blocks).min(self.window.lines());
        let sums = Planes::rows(std::ptr::null_mut(), SIDES[0], SIDES[1]);
        let side = |block: usize| {
            let output = share(&outputs, down, UNIT, block / across);
            [output, share(&channels, across, UNIT, block % across)]
        };
        let elements = parts * blocks * sums.elements();
        pool.with_scratch(pool.worker(), elements * size_of::<f32>(), |scratch| {
            let sums = Planes { data: scratch.as_mut_ptr(), ..sums };
            let of = |block: usize| Planes {
                data: sums.data.wrapping_add(block * sums.elements()),
                ..sums
            };
            pool.run(parts * blocks, &|task, worker| {
                let (block, part) = (task % blocks, task / blocks);
                let lines = share(&(0..self.window.lines()), parts, 1, part);
                // SAFETY: passed on; tasks sum up in different places.
                unsafe { self.sum::<L>(pool, worker, side(block), lines, of(task)) };
            });
            pool.run(blocks * FINISHES, &|task, worker| {
                let (block, part) = (task / FINISHES, task % FINISHES);
                let stride = blocks * sums.elements();
                let from = Parts { first: of(block), count: parts, stride };
                // SAFETY: passed on; tasks finish different outputs.
                unsafe { self.finish::<L>(pool, worker, side(block), part, from, target) };
            });
        });
    }

    /// Sums up the products of some lines of squares.
    unsafe fn sum<L: Level>(
        &self,
        pool: &Pool,
        worker: usize,
        [outputs, channels]: [Range<usize>; 2],
        lines: Range<usize>,
        to: Planes,
    ) {
        let (window, across) = (&self.window, self.window.across());
        let visit = (VISIT_TILES / across).max(1).min(lines.len());
        let width = L::F32::TILE_VECTORS * L::F32::LANES;
        let null = std::ptr::null_mut();
        let left = Planes::rows(null, visit * across, outputs.len());
        let right = Planes::panels(null, visit * across, channels.len(), width);
        let most = SIDES[0].max(SIDES[1]);
        let elements = most + left.elements() + right.elements();
        pool.with_scratch(worker, elements * size_of::<f32>(), |scratch| {
            // SAFETY: `run`'s contract; the scratch has room for all parts.
            unsafe {
                let (zeros, data) = zeros(scratch.as_mut_ptr(), most);
                let left = Planes { data, ..left };
                let right = Planes { data: data.add(left.elements()), ..right };
                let images = Pixels {
                    from: self.from.wrapping_add(channels.start),
                    strides: window.strides,
                    size: window.size.map(|n| n + 2),
                    zeros,
                };
                let from = self.gradient.from.wrapping_add(outputs.start);
                let gradient = Pixels { from, zeros, ..self.gradient };
                for first in lines.clone().step_by(visit) {
                    let tiles = visit.min(lines.end - first) * across;
                    let corner = |tile: usize| window.corner(first + tile / across, tile % across);
                    L::call(Spread {
                        squares: |tile| gradient.square::<2>(corner(tile)),
                        rows: tiles,
                        columns: outputs.len(),
                        to: left,
                    });
                    L::call(Spread {
                        squares: |tile| images.square::<4>(corner(tile)),
                        rows: tiles,
                        columns: channels.len(),
                        to: right,
                    });
                    L::call(Products {
                        left,
                        turned: true,
                        right,
                        to,
                        size: [outputs.len(), channels.len(), tiles],
                        accumulate: first > lines.start,
                    });
                }
            }
        });
    }

    /// Transforms the sums of one of [`FINISHES`] parts of some outputs back.
    unsafe fn finish<L: Level>(
        &self,
        pool: &Pool,
        worker: usize,
        [outputs, channels]: [Range<usize>; 2],
        part: usize,
        from: Parts,
        target: &Target<'_>,
    ) {
        let rows = share(&(0..outputs.len()), FINISHES, 1, part);
        if rows.is_empty() {
            return;
        }
        let all = self.window.channels;
        let room = if target.c.is_null() { 9 * rows.len() * channels.len() } else { 0 };
        pool.with_scratch(worker, room * size_of::<f32>(), |scratch| {
            let first = outputs.start + rows.start;
            let (to, row) =
                target.block([first, channels.start], scratch.as_mut_ptr(), 9 * channels.len());
            let tap = if target.c.is_null() { channels.len() } else { all };
            // SAFETY: `run`'s contract; the scratch has room for the rows.
            unsafe {
                L::call(Join::<_, 3> {
                    from,
                    rows: rows.clone(),
                    columns: channels.len(),
                    squares: |output| {
                        std::array::from_fn(|y| {
                            std::array::from_fn(|x| {
                                to.wrapping_add((output - rows.start) * row + (3 * y + x) * tap)
                            })
                        })
                    },
                });
            }
            for i in 0..9 {
                let columns = i * all + channels.start..i * all + channels.end;
                let rows = first..first + rows.len();
                target.finish(rows, columns, to.wrapping_add(i * tap), row);
            }
        });
    }
}
