//! Packing: panels of an operand copied so that the register tile reads them in order.
//!
//! A panel is `width` neighbouring lines (rows of the left operand, columns of the right one); for
//! every step of the contracted dimension it holds `width` elements, padded with zeros.

use super::element::Stored;
use crate::isa::{Kernel, Level};

/// Lines `first..first + lines` of an operand, steps `0..depth`.
pub(crate) struct Panels<In, A> {
    /// The first line's first step.
    pub from: *const In,
    /// Elements from one line to the next.
    pub line: isize,
    /// Elements from one step to the next.
    pub step: isize,
    pub lines: usize,
    pub depth: usize,
    /// Lines in a panel.
    pub width: usize,
    pub to: *mut A,
}

impl<In, A> Panels<In, A>
where
    In: Stored<A>,
    A: Copy + Default + 'static,
{
    /// Packs every panel.
    ///
    /// # Safety
    /// The machine has `L`; `from` is readable at every line and step; `to` is writable for
    /// `depth · width` elements per panel begun.
    pub unsafe fn pack<L: Level>(self) {
        // SAFETY: passed on.
        unsafe { L::call(self) }
    }
}

impl<In, A> Kernel for Panels<In, A>
where
    In: Stored<A>,
    A: Copy + Default + 'static,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let whole = if self.line == 1 { self.lines / self.width } else { 0 };
        // SAFETY: `pack`'s contract, for the panels that are full.
        unsafe { self.copy(whole) };
        let mut first = whole * self.width;
        while first < self.lines {
            let lines = self.width.min(self.lines - first);
            // SAFETY: `pack`'s contract, for the panel that starts at line `first`.
            unsafe {
                let from = self.from.offset(first as isize * self.line);
                let to = self.to.add(first * self.depth);
                if lines < self.width {
                    to.write_bytes(0, self.width * self.depth);
                }
                if self.step == 1 {
                    self.transpose::<L>(from, to, lines);
                } else {
                    self.gather(from, to, 0..lines, 0..self.depth);
                }
            }
            first += self.width;
        }
    }
}

impl<In, A> Panels<In, A>
where
    In: Stored<A>,
    A: Copy + Default + 'static,
{
    /// The first `panels` panels, whose lines are neighbours in memory: step by step, so that
    /// reads are long.
    #[inline(always)]
    unsafe fn copy(&self, panels: usize) {
        /// Panels of a constant width, so that the compiler moves whole vectors.
        macro_rules! fixed {
            ($n:literal) => {
                for p in 0..self.depth {
                    for panel in 0..panels {
                        // SAFETY: `pack`'s contract.
                        unsafe {
                            let from = self.from.offset(p as isize * self.step).add(panel * $n);
                            let to = self.to.add((panel * self.depth + p) * $n);
                            // All reads before all writes: the two might alias, for all the
                            // compiler knows.
                            let mut row = [A::default(); $n];
                            for (line, x) in row.iter_mut().enumerate() {
                                *x = from.add(line).read().widen();
                            }
                            to.cast::<[A; $n]>().write_unaligned(row);
                        }
                    }
                }
            };
        }
        match self.width {
            4 => fixed!(4),
            6 => fixed!(6),
            8 => fixed!(8),
            12 => fixed!(12),
            16 => fixed!(16),
            _ => fixed!(32),
        }
    }

    /// Lines whose steps are neighbours in memory.
    #[inline(always)]
    unsafe fn transpose<L: Level>(&self, from: *const In, to: *mut A, lines: usize) {
        // SAFETY: passed on.
        let done = unsafe { self.transpose_in_registers::<L>(from, to, lines) };
        let blocks = (done..self.depth).step_by(16);
        for start in blocks {
            let end = (start + 16).min(self.depth);
            // SAFETY: passed on.
            unsafe { self.gather(from, to, 0..lines, start..end) };
        }
    }

    /// As many whole blocks of steps as the path has instructions for; how many steps that was.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn transpose_in_registers<L: Level>(
        &self,
        from: *const In,
        to: *mut A,
        lines: usize,
    ) -> usize {
        use std::any::TypeId;
        let single = TypeId::of::<f32>();
        if L::ISA < crate::Isa::Avx2 || TypeId::of::<In>() != single || TypeId::of::<A>() != single
        {
            return 0;
        }
        let done = self.depth / 8 * 8;
        for group in (0..lines).step_by(8) {
            // SAFETY: `pack`'s contract; both types are f32; the level has AVX2.
            unsafe {
                let from = from.offset(group as isize * self.line).cast::<f32>();
                let to = to.add(group).cast::<f32>();
                let count = (lines - group).min(8);
                x86::transpose(from, self.line, to, self.width, count, done);
            }
        }
        done
    }

    /// As above, where there are no such instructions.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn transpose_in_registers<L: Level>(&self, _: *const In, _: *mut A, _: usize) -> usize {
        0
    }

    /// Any lines, one element at a time.
    #[inline(always)]
    unsafe fn gather(
        &self,
        from: *const In,
        to: *mut A,
        lines: std::ops::Range<usize>,
        steps: std::ops::Range<usize>,
    ) {
        for line in lines {
            for p in steps.clone() {
                // SAFETY: `pack`'s contract.
                unsafe {
                    let x = from.offset(line as isize * self.line + p as isize * self.step).read();
                    to.add(p * self.width + line).write(x.widen());
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Transposes `lines ≤ 8` lines of `steps` (a multiple of 8) elements in 8 × 8 blocks.
    ///
    /// # Safety
    /// The machine has AVX2; `from` is readable for `steps` elements from each of `lines` lines,
    /// `to` writable for `lines` elements at every step.
    #[inline(always)]
    pub unsafe fn transpose(
        from: *const f32,
        line: isize,
        to: *mut f32,
        width: usize,
        lines: usize,
        steps: usize,
    ) {
        // SAFETY: the caller's contract; lines beyond the last are read from the last one again.
        unsafe {
            let at = |i: usize| from.offset(i.min(lines - 1) as isize * line);
            let source: [*const f32; 8] = std::array::from_fn(at);
            let ones = _mm256_set1_epi32(-1);
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(lines as i32), lane);
            let mask = if lines == 8 { ones } else { mask };
            for p in (0..steps).step_by(8) {
                let columns = block(source, p);
                for (d, column) in columns.into_iter().enumerate() {
                    let to = to.add((p + d) * width);
                    if lines == 8 {
                        _mm256_storeu_ps(to, column);
                    } else {
                        _mm256_maskstore_ps(to, mask, column);
                    }
                }
            }
        }
    }

    /// Elements `p..p + 8` of 8 lines, as 8 columns.
    #[inline(always)]
    unsafe fn block(source: [*const f32; 8], p: usize) -> [__m256; 8] {
        // SAFETY: the caller's contract.
        unsafe {
            // Lines i and i + 4 share a register, so that only shuffles within halves remain.
            let pair = |i: usize, offset: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(source[i].add(p + offset)));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(source[i + 4].add(p + offset)))
            };
            let mut out = [_mm256_setzero_ps(); 8];
            for half in 0..2 {
                let r: [__m256; 4] =
                    [pair(0, half * 4), pair(1, half * 4), pair(2, half * 4), pair(3, half * 4)];
                let t0 = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
                let t1 = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
                let t2 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
                let t3 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
                out[half * 4] = _mm256_castpd_ps(_mm256_unpacklo_pd(t0, t2));
                out[half * 4 + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(t0, t2));
                out[half * 4 + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(t1, t3));
                out[half * 4 + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(t1, t3));
            }
            out
        }
    }
}
