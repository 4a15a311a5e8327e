//! Packing: panels of an operand copied so that the register tile reads them in order.
//!
//! A panel is `width` neighbouring lines (rows of the left operand, columns of the right one); for
//! every group of steps of the contracted dimension it holds a group of each line, padded with
//! zeros. Groups have one step, or as many as a dot instruction sums.

use std::ops::Range;

use super::element::Pack;
use crate::isa::{Kernel, Level};
use crate::simd::Dot;
use crate::steps::Steps;

/// Where the lines or the steps of an operand lie, from one of them on, in elements.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    first: usize,
    /// Of neighbours within a run.
    stride: isize,
    /// Where they lie, if one stride does not say it.
    uneven: Option<&'a Steps>,
}

impl<'a> Places<'a> {
    /// At one stride.
    pub fn even(stride: isize) -> Places<'a> {
        Places { first: 0, stride, uneven: None }
    }

    pub fn of(steps: &'a Steps) -> Places<'a> {
        let uneven = steps.single().is_none().then_some(steps);
        Places { first: 0, stride: steps.stride(), uneven }
    }

    pub fn from(self, first: usize) -> Places<'a> {
        Places { first: self.first + first, ..self }
    }

    pub fn at(self, index: usize) -> isize {
        let index = self.first + index;
        self.uneven.map_or(index as isize * self.stride, |steps| steps.at(index))
    }

    /// Elements from one to the next within a run.
    pub fn stride(self) -> isize {
        self.stride
    }

    /// How many from this one on follow each other at the stride.
    pub fn run(self, index: usize) -> usize {
        self.uneven.map_or(usize::MAX, |steps| steps.run(self.first + index))
    }

    /// The ranges of `range` that lie at the stride.
    fn runs(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let run = at..at + self.run(at).min(range.end - at);
            at = run.end;
            (!run.is_empty()).then_some(run)
        })
    }

    /// Where those of `range` lie.
    fn tabulate(self, range: Range<usize>, table: &mut [isize]) {
        let start = range.start;
        for run in self.runs(range) {
            let first = self.at(run.start);
            for (i, place) in table[run.start - start..run.end - start].iter_mut().enumerate() {
                *place = first + i as isize * self.stride;
            }
        }
    }
}

/// Lines and steps of an operand that are to be packed.
pub(crate) struct Panels<'a, In, P> {
    /// Where lines and steps count from.
    pub from: *const In,
    pub line: Places<'a>,
    pub step: Places<'a>,
    pub lines: usize,
    pub depth: usize,
    /// Lines in a panel.
    pub width: usize,
    pub to: *mut P,
}

/// Lines of the widest panel.
const WIDEST: usize = 32;
/// Steps that are packed at a time, so that lines which lie across memory stay in the first cache.
const STEPS: usize = 256;

impl<In, P> Panels<'_, In, P>
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
struct Grouped<'a, In, P, const G: usize> {
    panels: Panels<'a, In, P>,
    /// Elements from one panel to the next.
    panel: usize,
}

impl<In, P, const G: usize> Kernel for Grouped<'_, In, P, G>
where
    In: Copy + 'static,
    P: Pack<In>,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let p = &self.panels;
        debug_assert!(p.width <= WIDEST && STEPS.is_multiple_of(8 * G));
        for start in (0..p.depth).step_by(STEPS) {
            let depth = STEPS.min(p.depth - start);
            let mut table = [0; STEPS];
            p.step.tabulate(start..start + depth, &mut table);
            let block = Block {
                steps: &table[..depth],
                step: p.step.from(start),
                // SAFETY: within the panels: blocks begin with a group.
                to: unsafe { p.to.add(start * p.width) },
            };
            let mut line = 0;
            while line < p.lines {
                let run = if p.line.stride == 1 { p.line.run(line).min(p.lines - line) } else { 0 };
                let whole = run / p.width;
                // SAFETY: `pack_for`'s contract, for these steps of these lines.
                unsafe {
                    if whole > 0 {
                        self.copy::<L>(&block, line, whole);
                    } else {
                        self.panel_of::<L>(&block, line);
                    }
                }
                line += whole.max(1) * p.width;
            }
        }
    }
}

/// Some steps of all lines.
struct Block<'a, P> {
    /// Where they lie.
    steps: &'a [isize],
    step: Places<'a>,
    /// Their place in the first panel.
    to: *mut P,
}

impl<In, P, const G: usize> Grouped<'_, In, P, G>
where
    In: Copy + 'static,
    P: Pack<In>,
{
    /// `panels` panels from a line on, whose lines are neighbours in memory: group by group, so that
    /// reads are long.
    #[inline(always)]
    unsafe fn copy<L: Level>(&self, block: &Block<'_, P>, line: usize, panels: usize) {
        let (p, size, steps) = (&self.panels, self.panel, block.steps);
        let first = p.from.wrapping_offset(p.line.at(line));
        // SAFETY: within the panels.
        let to = unsafe { block.to.add(line / p.width * size) };
        /// Panels of a constant width, so that the compiler moves whole vectors.
        macro_rules! fixed {
            ($n:literal) => {
                for group in 0..steps.len() / G {
                    for panel in 0..panels {
                        // SAFETY: `pack_for`'s contract.
                        unsafe {
                            let from = first.add(panel * $n);
                            let to = to.add(panel * size + group * G * $n);
                            // All reads before all writes: the two might alias, for all the
                            // compiler knows.
                            let mut row = [[P::default(); G]; $n];
                            for g in 0..G {
                                let from = from.offset(steps[group * G + g]);
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
        // Whole panels of single steps are moved as fast without masks.
        if G > 1 && Self::interleaves::<L>() {
            for (group, steps) in steps.chunks_exact(G).enumerate() {
                for panel in 0..panels {
                    // SAFETY: `pack_for`'s contract; the path can.
                    unsafe {
                        let to = to.add(panel * size + group * G * p.width);
                        self.interleave(first.add(panel * p.width), steps, to, p.width);
                    }
                }
            }
        } else {
            match p.width {
                4 => fixed!(4),
                6 => fixed!(6),
                8 => fixed!(8),
                12 => fixed!(12),
                16 => fixed!(16),
                _ => fixed!(32),
            }
        }
        let last = steps.len() / G * G..steps.len();
        if !last.is_empty() {
            for panel in 0..panels {
                // SAFETY: `pack_for`'s contract.
                unsafe {
                    let to = to.add(panel * size);
                    to.add(last.start * p.width).write_bytes(0, G * p.width);
                    let lines: [isize; WIDEST] = std::array::from_fn(|i| i as isize);
                    let from = first.add(panel * p.width);
                    self.gather(from, &lines[..p.width], steps, to, last.clone());
                }
            }
        }
    }

    /// Whether the path can pack groups of neighbouring lines in registers: those of 32 bits.
    fn interleaves<L: Level>() -> bool {
        P::FLIP.is_some() && L::ISA >= crate::Isa::Avx512 && size_of::<P>() * G == size_of::<u32>()
    }

    /// Packs a group of steps of some lines of a panel, which are neighbours in memory.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn interleave(&self, from: *const In, steps: &[isize], to: *mut P, lines: usize) {
        // SAFETY: `pack_for`'s contract; the path interleaves.
        unsafe {
            let at: [*const u8; G] = std::array::from_fn(|g| from.offset(steps[g]).cast::<u8>());
            x86::interleave(at, to.cast(), lines, P::FLIP.unwrap_or_default());
        }
    }

    /// As above, where there are no such instructions.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn interleave(&self, _: *const In, _: &[isize], _: *mut P, _: usize) {}

    /// The panel that begins with a line, wherever its lines lie.
    #[inline(always)]
    unsafe fn panel_of<L: Level>(&self, block: &Block<'_, P>, line: usize) {
        let (p, depth) = (&self.panels, block.steps.len());
        let count = p.width.min(p.lines - line);
        let mut lines = [0; WIDEST];
        p.line.tabulate(line..line + count, &mut lines);
        let lines = &lines[..count];
        // SAFETY: `pack_for`'s contract.
        unsafe {
            let to = block.to.add(line / p.width * self.panel);
            if count < p.width {
                to.write_bytes(0, depth.next_multiple_of(G) * p.width);
            } else if !depth.is_multiple_of(G) {
                to.add(depth / G * G * p.width).write_bytes(0, G * p.width);
            }
            if p.line.stride == 1 && Self::interleaves::<L>() {
                for run in p.line.runs(line..line + count) {
                    let (first, count) = (run.start - line, run.len());
                    let from = p.from.offset(lines[first]);
                    for (group, steps) in block.steps.chunks_exact(G).enumerate() {
                        let to = to.add((group * p.width + first) * G);
                        self.interleave(from, steps, to, count);
                    }
                }
                return self.gather(p.from, lines, block.steps, to, depth / G * G..depth);
            }
            if p.step.stride != 1 {
                return self.gather(p.from, lines, block.steps, to, 0..depth);
            }
            for run in block.step.runs(0..depth) {
                let done = self.transpose::<L>(lines, block.steps, to, run.clone());
                self.gather(p.from, lines, block.steps, to, run.start..done.start);
                for start in (done.end..run.end).step_by(16) {
                    let part = start..(start + 16).min(run.end);
                    self.gather(p.from, lines, block.steps, to, part);
                }
            }
        }
    }

    /// Packs as many of some steps, which are neighbours in memory, as the path has instructions
    /// for, and says which.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn transpose<L: Level>(
        &self,
        lines: &[isize],
        steps: &[isize],
        to: *mut P,
        run: Range<usize>,
    ) -> Range<usize> {
        use half::{bf16, f16};
        use std::any::TypeId;
        let none = run.start..run.start;
        let widened = G == 1 && TypeId::of::<P>() == TypeId::of::<f32>();
        let load: x86::Load = match P::FLIP {
            _ if widened && TypeId::of::<In>() == TypeId::of::<bf16>() => x86::Load::Bf16,
            _ if widened && TypeId::of::<In>() == TypeId::of::<f16>() => x86::Load::F16,
            Some(flip) if size_of::<P>() * G == size_of::<u32>() => x86::Load::Bits(flip),
            _ => return none,
        };
        let (p, start) = (&self.panels, run.start.next_multiple_of(G));
        let groups = run.end.saturating_sub(start) / G / 8 * 8;
        if L::ISA < crate::Isa::Avx2 || groups == 0 {
            return none;
        }
        for (i, lines) in lines.chunks(8).enumerate() {
            // SAFETY: `pack_for`'s contract; packed groups have 32 bits; the level has AVX2 and
            // F16C.
            unsafe {
                let from = p.from.offset(steps[start]);
                // Lines beyond the last are read from the last one again.
                let line = |i: usize| from.offset(lines[i.min(lines.len() - 1)]).cast::<u8>();
                let to = to.add(start * p.width + i * 8 * G).cast::<u32>();
                x86::transpose(std::array::from_fn(line), to, p.width, lines.len(), groups, load);
            }
        }
        start..start + groups * G
    }

    /// As above, where there are no such instructions.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn transpose<L: Level>(
        &self,
        _: &[isize],
        _: &[isize],
        _: *mut P,
        run: Range<usize>,
    ) -> Range<usize> {
        run.start..run.start
    }

    /// Any lines, one element at a time.
    #[inline(always)]
    unsafe fn gather(
        &self,
        from: *const In,
        lines: &[isize],
        steps: &[isize],
        to: *mut P,
        range: Range<usize>,
    ) {
        let width = self.panels.width;
        for (line, &place) in lines.iter().enumerate() {
            for step in range.clone() {
                // SAFETY: `pack_for`'s contract.
                unsafe {
                    let to = to.add((step / G * width + line) * G + step % G);
                    to.write(P::pack(from.offset(place + steps[step]).read()));
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

    /// Transposes the first `lines` of 8 lines of `steps` (a multiple of 8) elements, in 8 × 8 blocks.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C; every line is readable for `steps` elements, `to` writable for
    /// `lines` elements at every step; neither need be aligned.
    #[inline(always)]
    pub unsafe fn transpose(
        source: [*const u8; 8],
        to: *mut u32,
        width: usize,
        lines: usize,
        steps: usize,
        load: Load,
    ) {
        // SAFETY: the caller's contract.
        unsafe {
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

    /// Writes the group of `G` steps of each of `lines` lines, which are neighbours; a group has 32
    /// bits, and the bits of `flip` are flipped in each byte.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and VL; lines are readable at every step, `to` is writable
    /// for `lines` groups; neither need be aligned.
    #[inline(always)]
    pub unsafe fn interleave<const G: usize>(
        from: [*const u8; G],
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
                for (g, from) in from.into_iter().enumerate() {
                    let from = from.add(first * element);
                    let wide = match element {
                        4 => _mm512_maskz_loadu_epi32(mask, from.cast()),
                        2 => _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast())),
                        _ => _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from.cast())),
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
