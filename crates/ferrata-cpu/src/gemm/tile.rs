//! The register tile: the innermost loop of the packed matrix product.

use crate::isa::{Kernel, Level};
use crate::simd::{Dot, Simd};

/// `C[rows, cols] (+)= A·B` over packed panels, `rows ≤ TILE_ROWS`,
/// `cols ≤ TILE_VECTORS · LANES`; `P` and `Q` are the operands' elements.
#[derive(Clone, Copy)]
pub(crate) struct Tile<P, Q, A> {
    /// Groups of steps of the contracted dimension.
    pub depth: usize,
    /// The left operand's first row and step.
    pub a: *const P,
    /// Elements from one group of the left operand to the next (its rows being neighbours), or
    /// from one row to the next (its steps being neighbours).
    pub a_stride: usize,
    /// The packed right panel: `TILE_VECTORS · LANES` groups for every group of steps.
    pub b: *const Q,
    /// The tile's first element.
    pub c: *mut A,
    /// Elements from one row of `c` to the next.
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
    /// Whether to add to what `c` holds.
    pub accumulate: bool,
}

impl<P: Copy, Q: Copy, A: Copy> Tile<P, Q, A> {
    /// Computes the tile with `D`; rows of the left operand are neighbours, as in packed panels, and
    /// up to the next multiple of 2 they are read, and ignored.
    ///
    /// # Safety
    /// The machine has `L` and `D`; the operands hold `depth` groups of steps; `c` is writable for
    /// `rows` × `cols` and nobody else touches it.
    #[inline(always)]
    pub unsafe fn dots<L, D>(self)
    where
        L: Level,
        D: Dot<Left = P, Right = Q, Acc: Simd<Elem = A>>,
    {
        // SAFETY: passed on.
        unsafe { self.of_width::<L, D, false>() };
    }

    /// As [`Tile::dots`], but the left operand's steps are neighbours, and only `rows` rows of it
    /// are read.
    ///
    /// # Safety
    /// As [`Tile::dots`].
    #[inline(always)]
    pub unsafe fn dots_of_rows<L, D>(self)
    where
        L: Level,
        D: Dot<Left = P, Right = Q, Acc: Simd<Elem = A>>,
    {
        // Odd heights do not exist, and a padded one would read a row too many.
        let even = if self.rows == 1 { 1 } else { self.rows / 2 * 2 };
        // SAFETY: passed on.
        unsafe {
            Tile { rows: even, ..self }.of_width::<L, D, true>();
            if even < self.rows {
                let (a, c) = (self.a.add(even * self.a_stride), self.c.add(even * self.ld));
                Tile { rows: 1, a, c, ..self }.of_width::<L, D, true>();
            }
        }
    }

    #[inline(always)]
    unsafe fn of_width<L, D, const ROWS: bool>(self)
    where
        L: Level,
        D: Dot<Left = P, Right = Q, Acc: Simd<Elem = A>>,
    {
        const { assert!(D::Acc::TILE_ROWS <= 12 && D::Acc::TILE_VECTORS == 2) };
        // SAFETY: passed on.
        unsafe {
            if self.cols <= D::Acc::LANES {
                self.of_height::<L, D, 1, ROWS>();
            } else {
                self.of_height::<L, D, 2, ROWS>();
            }
        }
    }

    #[inline(always)]
    unsafe fn of_height<L, D, const N: usize, const ROWS: bool>(self)
    where
        L: Level,
        D: Dot<Left = P, Right = Q, Acc: Simd<Elem = A>>,
    {
        /// Heights beyond the register file are never needed.
        macro_rules! call {
            ($m:expr) => {
                if $m <= D::Acc::TILE_ROWS {
                    L::call(Fixed::<D, $m, N, ROWS>(self))
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

type Accumulator<D> = <<D as Dot>::Acc as Simd>::Elem;

/// A tile computed as `M` rows of `N` vectors; with `ROWS`, the left operand's steps are
/// neighbours, else its rows are.
struct Fixed<D: Dot, const M: usize, const N: usize, const ROWS: bool>(
    Tile<D::Left, D::Right, Accumulator<D>>,
);

impl<D: Dot, const M: usize, const N: usize, const ROWS: bool> Kernel for Fixed<D, M, N, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let t = self.0;
        let lanes = D::Acc::LANES;
        let step = D::Acc::TILE_VECTORS * lanes * D::GROUP;
        let (mut a, mut b) = (t.a, t.b);
        // SAFETY: `dots`' contract: the machine has D, panels hold `depth` groups.
        let acc = unsafe {
            // The output is needed only at the end, and may be far away.
            for i in 0..M.min(t.rows) {
                for j in 0..N {
                    D::Acc::prefetch(t.c.wrapping_add(i * t.ld + j * lanes));
                }
            }
            let mut acc = [[D::Acc::splat(Default::default()); N]; M];
            if ROWS {
                for _ in 0..t.depth / 2 {
                    multiply::<D, M, N, 2>(&mut acc, a, t.a_stride, D::GROUP, b);
                    a = a.add(2 * D::GROUP);
                    b = b.add(2 * step);
                }
                if t.depth % 2 == 1 {
                    multiply::<D, M, N, 1>(&mut acc, a, t.a_stride, D::GROUP, b);
                }
            } else {
                for _ in 0..t.depth / 4 {
                    for u in 0..4 {
                        let (a, b) = (a.add(u * t.a_stride), b.add(u * step));
                        multiply::<D, M, N, 1>(&mut acc, a, D::GROUP, t.a_stride, b);
                    }
                    a = a.add(4 * t.a_stride);
                    b = b.add(4 * step);
                }
                for u in 0..t.depth % 4 {
                    let (a, b) = (a.add(u * t.a_stride), b.add(u * step));
                    multiply::<D, M, N, 1>(&mut acc, a, D::GROUP, t.a_stride, b);
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
                let width = t.cols.saturating_sub(j * lanes).min(lanes);
                // SAFETY: within `rows` × `cols` of `c`.
                unsafe { write(t.c.add(i * t.ld + j * lanes), x, width, t.accumulate) };
            }
        }
    }
}

/// `U` groups of steps, each row's one after the other.
///
/// # Safety
/// As [`Dot`]'s; `M` rows at `a`, `U` groups of the right panel at `b`.
#[inline(always)]
unsafe fn multiply<D: Dot, const M: usize, const N: usize, const U: usize>(
    acc: &mut [[D::Acc; N]; M],
    a: *const D::Left,
    a_row: usize,
    a_step: usize,
    b: *const D::Right,
) {
    // SAFETY: passed on.
    unsafe {
        let vector = |u: usize, j: usize| {
            D::right(b.add((u * D::Acc::TILE_VECTORS + j) * D::Acc::LANES * D::GROUP))
        };
        let right: [[D::Register; N]; U] =
            std::array::from_fn(|u| std::array::from_fn(|j| vector(u, j)));
        let mut row = a;
        for acc in acc.iter_mut() {
            for (u, right) in right.iter().enumerate() {
                let left = D::left(row.add(u * a_step));
                for (c, &r) in acc.iter_mut().zip(right) {
                    *c = D::dot(*c, left, r);
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
