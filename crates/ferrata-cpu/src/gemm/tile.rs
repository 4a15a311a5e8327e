//! The register tile: the innermost loop of the packed matrix product.

use crate::isa::{Kernel, Level};
use crate::simd::Simd;

/// `C[rows, cols] (+)= A·B` over packed panels, `rows ≤ TILE_ROWS`,
/// `cols ≤ TILE_VECTORS · LANES`.
#[derive(Clone, Copy)]
pub(crate) struct Tile<T> {
    /// Steps of the contracted dimension.
    pub depth: usize,
    /// The left operand's first row and step.
    pub a: *const T,
    /// Elements from one step of the left operand to the next (its rows being neighbours), or
    /// from one row to the next (its steps being neighbours).
    pub a_stride: usize,
    /// The packed right panel: `TILE_VECTORS · LANES` elements for every step.
    pub b: *const T,
    /// The tile's first element.
    pub c: *mut T,
    /// Elements from one row of `c` to the next.
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
    /// Whether to add to what `c` holds.
    pub accumulate: bool,
}

impl<T> Tile<T> {
    /// Computes the tile with vectors `V`; rows of the left operand are neighbours, as in packed
    /// panels, and up to the next multiple of 2 they are read, and ignored.
    ///
    /// # Safety
    /// The machine has `L` and `V`; the operands hold `depth` steps; `c` is writable for `rows` ×
    /// `cols` and nobody else touches it.
    #[inline(always)]
    pub unsafe fn compute<L: Level, V: Simd<Elem = T>>(self) {
        // SAFETY: passed on.
        unsafe { self.of_width::<L, V, false>() };
    }

    /// As [`Tile::compute`], but the left operand's steps are neighbours, and only `rows` rows of
    /// it are read.
    ///
    /// # Safety
    /// As [`Tile::compute`].
    #[inline(always)]
    pub unsafe fn compute_rows<L: Level, V: Simd<Elem = T>>(self)
    where
        T: Copy,
    {
        // Odd heights do not exist, and a padded one would read a row too many.
        let even = if self.rows == 1 { 1 } else { self.rows / 2 * 2 };
        // SAFETY: passed on.
        unsafe {
            Tile { rows: even, ..self }.of_width::<L, V, true>();
            if even < self.rows {
                let (a, c) = (self.a.add(even * self.a_stride), self.c.add(even * self.ld));
                Tile { rows: 1, a, c, ..self }.of_width::<L, V, true>();
            }
        }
    }

    #[inline(always)]
    unsafe fn of_width<L: Level, V: Simd<Elem = T>, const ROWS: bool>(self) {
        const { assert!(V::TILE_ROWS <= 12 && V::TILE_VECTORS == 2) };
        // SAFETY: passed on.
        unsafe {
            if self.cols <= V::LANES {
                self.of_height::<L, V, 1, ROWS>();
            } else {
                self.of_height::<L, V, 2, ROWS>();
            }
        }
    }

    #[inline(always)]
    unsafe fn of_height<L: Level, V: Simd<Elem = T>, const N: usize, const ROWS: bool>(self) {
        /// Heights beyond the register file are never needed.
        macro_rules! call {
            ($m:expr) => {
                if $m <= V::TILE_ROWS {
                    L::call(Fixed::<V, $m, N, ROWS>(self))
                }
            };
        }
        // SAFETY: passed on.
        unsafe {
            match self.rows {
                0 | 1 => call!(1),
                2 => call!(2),
                3 | 4 => call!(4),
                5 | 6 => call!(6),
                7 | 8 => call!(8),
                9 | 10 => call!(10),
                _ => call!(12),
            }
        }
    }
}

/// A tile computed as `M` rows of `N` vectors; with `ROWS`, the left operand's steps are
/// neighbours, else its rows are.
struct Fixed<V: Simd, const M: usize, const N: usize, const ROWS: bool>(Tile<V::Elem>);

impl<V: Simd, const M: usize, const N: usize, const ROWS: bool> Kernel for Fixed<V, M, N, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let t = self.0;
        let step = V::TILE_VECTORS * V::LANES;
        let (mut a, mut b) = (t.a, t.b);
        // SAFETY: `compute`'s contract: the machine has V, panels hold `depth` steps.
        let acc = unsafe {
            let mut acc = [[V::splat(V::Elem::default()); N]; M];
            if ROWS {
                for _ in 0..t.depth / 2 {
                    multiply::<V, M, N, 2>(&mut acc, a, t.a_stride, 1, b);
                    a = a.add(2);
                    b = b.add(2 * step);
                }
                if t.depth % 2 == 1 {
                    multiply::<V, M, N, 1>(&mut acc, a, t.a_stride, 1, b);
                }
            } else {
                for _ in 0..t.depth / 4 {
                    for u in 0..4 {
                        let (a, b) = (a.add(u * t.a_stride), b.add(u * step));
                        multiply::<V, M, N, 1>(&mut acc, a, 1, t.a_stride, b);
                    }
                    a = a.add(4 * t.a_stride);
                    b = b.add(4 * step);
                }
                for u in 0..t.depth % 4 {
                    let (a, b) = (a.add(u * t.a_stride), b.add(u * step));
                    multiply::<V, M, N, 1>(&mut acc, a, 1, t.a_stride, b);
                }
            }
            acc
        };
        // Not `take(rows)`: only loops of constant length keep `acc` in registers.
        for (i, row) in acc.iter().enumerate() {
            if i >= t.rows {
                continue;
            }
            for (j, &x) in row.iter().enumerate() {
                let width = t.cols.saturating_sub(j * V::LANES).min(V::LANES);
                // SAFETY: within `rows` × `cols` of `c`.
                unsafe { write(t.c.add(i * t.ld + j * V::LANES), x, width, t.accumulate) };
            }
        }
    }
}

/// `U` steps of the contracted dimension, each row's one after the other.
///
/// # Safety
/// As [`Simd`]'s; `M` rows at `a`, `U` steps of the right panel at `b`.
#[inline(always)]
unsafe fn multiply<V: Simd, const M: usize, const N: usize, const U: usize>(
    acc: &mut [[V; N]; M],
    a: *const V::Elem,
    a_row: usize,
    a_step: usize,
    b: *const V::Elem,
) {
    // SAFETY: passed on.
    unsafe {
        let mut right = [[V::splat(V::Elem::default()); N]; U];
        for (u, right) in right.iter_mut().enumerate() {
            for (j, r) in right.iter_mut().enumerate() {
                *r = V::load(b.add((u * V::TILE_VECTORS + j) * V::LANES));
            }
        }
        let mut row = a;
        for acc in acc.iter_mut() {
            for (u, right) in right.iter().enumerate() {
                let left = V::splat(*row.add(u * a_step));
                for (c, &r) in acc.iter_mut().zip(right) {
                    *c = c.mul_add(left, r);
                }
            }
            row = row.add(a_row);
        }
    }
}

/// Writes or adds the first `width` lanes.
///
/// # Safety
/// As [`Simd`]'s.
#[inline(always)]
unsafe fn write<V: Simd>(to: *mut V::Elem, x: V, width: usize, accumulate: bool) {
    // SAFETY: passed on.
    unsafe {
        if width == V::LANES {
            let x = if accumulate { V::load(to).add(x) } else { x };
            x.store(to);
        } else {
            let x = if accumulate { V::load_first(to, width).add(x) } else { x };
            x.store_first(to, width);
        }
    }
}
