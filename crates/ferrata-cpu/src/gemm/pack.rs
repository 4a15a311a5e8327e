//! Packing: panels of an operand copied so that the register tile reads them in order.
//!
//! A panel is `width` neighbouring lines (rows of the left operand, columns of the right one); for
//! every group of steps of the contracted dimension it holds a group of each line, padded with
//! zeros. Groups have one step, or as many as a dot instruction sums.

use super::element::Pack;
use crate::isa::{Kernel, Level};
use crate::simd::Dot;

/// Lines `first..first + lines` of an operand, steps `0..depth`.
pub(crate) struct Panels<In, P> {
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
    pub to: *mut P,
}

impl<In, P> Panels<In, P>
where
    In: Copy + 'static,
    P: Pack<In>,
{
    /// Packs these steps of every panel in the groups of a dot instruction; panels begin `panel`
    /// elements apart.
    ///
    /// # Safety
    /// The machine has `L`; `from` is readable at every line and step; `to` is writable for
    /// `depth · width` elements per panel begun, `depth` being rounded up to groups.
    pub unsafe fn pack_for<L: Level, D: Dot>(self, panel: usize) {
        // SAFETY: passed on.
        unsafe {
            match D::GROUP {
                1 => L::call(Grouped::<In, P, 1> { panels: self, panel }),
                2 => L::call(Grouped::<In, P, 2> { panels: self, panel }),
                _ => L::call(Grouped::<In, P, 4> { panels: self, panel }),
            }
        }
    }
}

/// Panels in groups of `G` steps.
struct Grouped<In, P, const G: usize> {
    panels: Panels<In, P>,
    /// Elements from one panel to the next.
    panel: usize,
}

impl<In, P, const G: usize> Kernel for Grouped<In, P, G>
where
    In: Copy + 'static,
    P: Pack<In>,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let p = &self.panels;
        let whole = if p.line == 1 { p.lines / p.width } else { 0 };
        // SAFETY: `pack_for`'s contract, for the panels that are full.
        unsafe { self.copy::<L>(whole) };
        for first in (whole * p.width..p.lines).step_by(p.width) {
            let lines = p.width.min(p.lines - first);
            // SAFETY: `pack_for`'s contract, for the panel that starts at line `first`.
            unsafe {
                let from = p.from.offset(first as isize * p.line);
                let to = p.to.add(first / p.width * self.panel);
                if lines < p.width {
                    to.write_bytes(0, p.depth.next_multiple_of(G) * p.width);
                }
                if p.step == 1 {
                    self.transpose::<L>(from, to, lines);
                } else {
                    self.gather(from, to, lines, 0..p.depth);
                }
            }
        }
    }
}

impl<In, P, const G: usize> Grouped<In, P, G>
where
    In: Copy + 'static,
    P: Pack<In>,
{
    /// The first `panels` panels, whose lines are neighbours in memory: group by group, so that
    /// reads are long.
    #[inline(always)]
    unsafe fn copy<L: Level>(&self, panels: usize) {
        let (p, size) = (&self.panels, self.panel);
        // SAFETY: passed on.
        if unsafe { self.interleave::<L>(panels) } {
            return;
        }
        /// Panels of a constant width, so that the compiler moves whole vectors.
        macro_rules! fixed {
            ($n:literal) => {
                for group in 0..p.depth / G {
                    for panel in 0..panels {
                        // SAFETY: `pack_for`'s contract.
                        unsafe {
                            let step = |g: usize| p.step * (group * G + g) as isize;
                            let from = p.from.add(panel * $n);
                            let to = p.to.add(panel * size + group * G * $n);
                            // All reads before all writes: the two might alias, for all the
                            // compiler knows.
                            let mut row = [[P::default(); G]; $n];
                            for g in 0..G {
                                let from = from.offset(step(g));
                                for (line, x) in row.iter_mut().enumerate() {
                                    x[g] = P::pack(from.add(line).read());
                                }
                            }
                            to.cast::<[[P; G]; $n]>().write_unaligned(row);
                        }
                    }
                }
            };
        }
        match p.width {
            4 => fixed!(4),
            6 => fixed!(6),
            8 => fixed!(8),
            12 => fixed!(12),
            16 => fixed!(16),
            _ => fixed!(32),
        }
        // SAFETY: passed on.
        unsafe { self.last_group(panels) };
    }

    /// The group of the first `panels` panels that is not full.
    #[inline(always)]
    unsafe fn last_group(&self, panels: usize) {
        let (p, size) = (&self.panels, self.panel);
        for panel in 0..panels {
            // SAFETY: `pack_for`'s contract.
            unsafe {
                let (from, to) = (p.from.add(panel * p.width), p.to.add(panel * size));
                self.gather(from, to, p.width, p.depth / G * G..p.depth);
            }
        }
    }

    /// As `copy`, in registers, if groups of several steps have 32 bits and the path can; says so.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn interleave<L: Level>(&self, panels: usize) -> bool {
        let Some(flip) = P::FLIP else { return false };
        if L::ISA < crate::Isa::Avx512 || G == 1 || size_of::<P>() * G != size_of::<u32>() {
            return false;
        }
        let p = &self.panels;
        let step = p.step * size_of::<In>() as isize;
        for group in 0..p.depth / G {
            for panel in 0..panels {
                // SAFETY: `pack_for`'s contract; the level has AVX-512.
                unsafe {
                    let from = p.from.offset((group * G) as isize * p.step).add(panel * p.width);
                    let to = p.to.add(panel * self.panel + group * G * p.width);
                    x86::interleave::<G>(from.cast(), step, to.cast(), p.width, flip);
                }
            }
        }
        // SAFETY: passed on.
        unsafe { self.last_group(panels) };
        true
    }

    /// As above, where there are no such instructions.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn interleave<L: Level>(&self, _: usize) -> bool {
        false
    }

    /// Lines whose steps are neighbours in memory.
    #[inline(always)]
    unsafe fn transpose<L: Level>(&self, from: *const In, to: *mut P, lines: usize) {
        // SAFETY: passed on.
        let done = unsafe { self.transpose_in_registers::<L>(from, to, lines) };
        for start in (done..self.panels.depth).step_by(16) {
            let end = (start + 16).min(self.panels.depth);
            // SAFETY: passed on.
            unsafe { self.gather(from, to, lines, start..end) };
        }
    }

    /// As many whole blocks of steps as the path has instructions for; how many steps that was.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn transpose_in_registers<L: Level>(
        &self,
        from: *const In,
        to: *mut P,
        lines: usize,
    ) -> usize {
        use half::{bf16, f16};
        use std::any::TypeId;
        let widened = G == 1 && TypeId::of::<P>() == TypeId::of::<f32>();
        let load: x86::Load = match P::FLIP {
            _ if widened && TypeId::of::<In>() == TypeId::of::<bf16>() => x86::Load::Bf16,
            _ if widened && TypeId::of::<In>() == TypeId::of::<f16>() => x86::Load::F16,
            Some(flip) if size_of::<P>() * G == size_of::<u32>() => x86::Load::Bits(flip),
            _ => return 0,
        };
        if L::ISA < crate::Isa::Avx2 {
            return 0;
        }
        let p = &self.panels;
        let groups = p.depth / G / 8 * 8;
        let line = p.line * size_of::<In>() as isize;
        for first in (0..lines).step_by(8) {
            // SAFETY: `pack_for`'s contract; packed groups have 32 bits; the level has AVX2 and
            // F16C.
            unsafe {
                let from = from.offset(first as isize * p.line).cast::<u8>();
                let to = to.add(first * G).cast::<u32>();
                let count = (lines - first).min(8);
                x86::transpose(from, line, to, p.width, count, groups, load);
            }
        }
        groups * G
    }

    /// As above, where there are no such instructions.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn transpose_in_registers<L: Level>(&self, _: *const In, _: *mut P, _: usize) -> usize {
        0
    }

    /// Any lines, one element at a time; a last group that is not full is padded.
    #[inline(always)]
    unsafe fn gather(
        &self,
        from: *const In,
        to: *mut P,
        lines: usize,
        steps: std::ops::Range<usize>,
    ) {
        let p = &self.panels;
        let padded = steps.end.next_multiple_of(G);
        for line in 0..lines {
            // SAFETY: `pack_for`'s contract.
            unsafe {
                let at = |step: usize| to.add((step / G * p.width + line) * G + step % G);
                for step in steps.clone() {
                    let x = from.offset(line as isize * p.line + step as isize * p.step).read();
                    at(step).write(P::pack(x));
                }
                for step in steps.end..padded {
                    at(step).write(P::default());
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// How elements of 32 bits are loaded.
    #[derive(Clone, Copy)]
    pub enum Load {
        /// As they are, the same bits of every byte flipped.
        Bits(u8),
        /// Widened.
        Bf16,
        F16,
    }

    impl Load {
        /// Bytes of an element in memory.
        #[inline(always)]
        fn bytes(self) -> usize {
            if matches!(self, Load::Bits(_)) { 4 } else { 2 }
        }

        /// Four elements.
        #[inline(always)]
        unsafe fn four(self, from: *const u8) -> __m128 {
            // SAFETY: `transpose`'s contract.
            unsafe {
                match self {
                    Load::Bits(_) => _mm_loadu_ps(from.cast()),
                    Load::Bf16 => {
                        let halves = _mm_cvtepu16_epi32(_mm_loadl_epi64(from.cast()));
                        _mm_castsi128_ps(_mm_slli_epi32::<16>(halves))
                    }
                    Load::F16 => _mm_cvtph_ps(_mm_loadl_epi64(from.cast())),
                }
            }
        }
    }

    /// Transposes `lines ≤ 8` lines, `line` bytes apart, of `steps` (a multiple of 8) elements, in
    /// 8 × 8 blocks.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C; `from` is readable for `steps` elements from each of `lines` lines,
    /// `to` writable for `lines` elements at every step; neither need be aligned.
    #[inline(always)]
    pub unsafe fn transpose(
        from: *const u8,
        line: isize,
        to: *mut u32,
        width: usize,
        lines: usize,
        steps: usize,
        load: Load,
    ) {
        // SAFETY: the caller's contract; lines beyond the last are read from the last one again.
        unsafe {
            let at = |i: usize| from.offset(i.min(lines - 1) as isize * line);
            let source: [*const u8; 8] = std::array::from_fn(at);
            let ones = _mm256_set1_epi32(-1);
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(lines as i32), lane);
            let mask = if lines == 8 { ones } else { mask };
            let flip = if let Load::Bits(flip) = load { flip } else { 0 };
            let flip = _mm256_castsi256_ps(_mm256_set1_epi8(flip as i8));
            for p in (0..steps).step_by(8) {
                let columns = block(source, p, load);
                for (d, column) in columns.into_iter().enumerate() {
                    let to = to.add((p + d) * width).cast::<f32>();
                    let column = _mm256_xor_ps(column, flip);
                    if lines == 8 {
                        _mm256_storeu_ps(to, column);
                    } else {
                        _mm256_maskstore_ps(to, mask, column);
                    }
                }
            }
        }
    }

    /// Writes the group of `G` steps, `step` bytes apart, of each of `lines` lines, which are
    /// neighbours; a group has 32 bits, and the bits of `flip` are flipped in each byte.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VL; lines are readable at every step, `to` is writable
    /// for `lines` groups; neither need be aligned.
    #[inline(always)]
    pub unsafe fn interleave<const G: usize>(
        from: *const u8,
        step: isize,
        to: *mut u32,
        lines: usize,
        flip: u8,
    ) {
        let element = 4 / G;
        for first in (0..lines).step_by(16) {
            let mask = (0xffffu32 >> (16 - (lines - first).min(16))) as u16;
            // SAFETY: the caller's contract; lines beyond the last are masked.
            unsafe {
                let mut groups = _mm512_set1_epi8(flip as i8);
                for g in 0..G {
                    let from = from.offset(g as isize * step).add(first * element);
                    let wide = if element == 2 {
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()))
                    } else {
                        _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from.cast()))
                    };
                    let place = _mm_cvtsi32_si128((8 * element * g) as i32);
                    groups = _mm512_xor_si512(groups, _mm512_sll_epi32(wide, place));
                }
                _mm512_mask_storeu_epi32(to.add(first).cast(), mask, groups);
            }
        }
    }

    /// Elements `p..p + 8` of 8 lines, as 8 columns.
    #[inline(always)]
    unsafe fn block(source: [*const u8; 8], p: usize, load: Load) -> [__m256; 8] {
        // SAFETY: the caller's contract.
        unsafe {
            // Lines i and i + 4 share a register, so that only shuffles within halves remain.
            let pair = |i: usize, offset: usize| {
                let four = |line: usize| load.four(source[line].add((p + offset) * load.bytes()));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(four(i)), four(i + 4))
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
