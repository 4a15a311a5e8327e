//! The register tile: the innermost loop of the packed matrix product.

use crate::isa::{Kernel, Level};
use crate::simd::Simd;

/// Heights of register tile that exist; a panel with other rows is padded to the next one.
pub(super) const HEIGHTS: [usize; 7] = [1, 2, 4, 6, 8, 10, 12];

/// Steps of the contracted dimension in one turn of the loop.
const UNROLLED: usize = 4;

/// `C[rows, cols] (+)= A·B` over packed panels, `rows ≤ TILE_ROWS`,
/// `cols ≤ TILE_VECTORS · LANES`.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    /// Steps of the contracted dimension.
    pub depth: usize,
    /// Packed left panel: `TILE_ROWS` elements for every step.
    pub a: *const T,
    /// Packed right panel: `TILE_VECTORS · LANES` elements for every step.
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
    /// Computes the tile with vectors `V`.
    ///
    /// # Safety
    /// The machine has `L` and `V`; the panels hold `depth` steps, padded with readable elements;
    /// `c` is writable for `rows` × `cols` and nobody else touches it.
    #[inline(always)]
    pub unsafe fn compute<L: Level, V: Simd<Elem = T>>(self) {
        const { assert!(V::TILE_ROWS <= 12 && V::TILE_VECTORS == 2) };
        let height = HEIGHTS.into_iter().position(|h| h >= self.rows).unwrap_or(HEIGHTS.len() - 1);
        // SAFETY: passed on; a height above TILE_ROWS is never needed.
        unsafe {
            if self.cols <= V::LANES {
                self.at_height::<L, V, 1>(height);
            } else {
                self.at_height::<L, V, 2>(height);
            }
        }
    }

    #[inline(always)]
    unsafe fn at_height<L: Level, V: Simd<Elem = T>, const N: usize>(self, height: usize) {
        /// Heights beyond the register file become one that is never called.
        macro_rules! call {
            ($m:expr) => {
                if $m <= V::TILE_ROWS {
                    L::call(Fixed::<V, $m, N>(self))
                }
            };
        }
        // SAFETY: passed on.
        unsafe {
            match height {
                0 => call!(1),
                1 => call!(2),
                2 => call!(4),
                3 => call!(6),
                4 => call!(8),
                5 => call!(10),
                _ => call!(12),
            }
        }
    }
}

/// A tile computed as `M` rows of `N` vectors.
struct Fixed<V: Simd, const M: usize, const N: usize>(Tile<V::Elem>);

impl<V: Simd, const M: usize, const N: usize> Kernel for Fixed<V, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let t = self.0;
        let step = V::TILE_VECTORS * V::LANES;
        let (mut a, mut b) = (t.a, t.b);
        // SAFETY: `compute`'s contract: the machine has V, panels hold `depth` steps.
        let acc = unsafe {
            let mut acc = [[V::splat(V::Elem::default()); N]; M];
            for _ in 0..t.depth / UNROLLED {
                for u in 0..UNROLLED {
                    multiply(&mut acc, a.add(u * V::TILE_ROWS), b.add(u * step));
                }
                a = a.add(UNROLLED * V::TILE_ROWS);
                b = b.add(UNROLLED * step);
            }
            for u in 0..t.depth % UNROLLED {
                multiply(&mut acc, a.add(u * V::TILE_ROWS), b.add(u * step));
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

/// One step of the contracted dimension.
///
/// # Safety
/// As [`Simd`]'s; `M` elements at `a`, `N` vectors at `b`.
#[inline(always)]
unsafe fn multiply<V: Simd, const M: usize, const N: usize>(
    acc: &mut [[V; N]; M],
    a: *const V::Elem,
    b: *const V::Elem,
) {
    // SAFETY: passed on.
    unsafe {
        let mut right = [V::splat(V::Elem::default()); N];
        for (j, r) in right.iter_mut().enumerate() {
            *r = V::load(b.add(j * V::LANES));
        }
        for (i, row) in acc.iter_mut().enumerate() {
            let left = V::splat(*a.add(i));
            for (c, &r) in row.iter_mut().zip(&right) {
                *c = c.mul_add(left, r);
            }
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
