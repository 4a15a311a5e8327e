//! AVX2 and AVX-512 vectors.

use std::arch::x86_64::*;

use half::bf16;

use super::{Dot, Simd};

/// Lane masks of AVX2: the window `[8 - n, 16 - n)` has its first `n` lanes set.
static MASK32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
static MASK64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

macro_rules! vector {
    ($name:ident, $t:ty, $reg:ty, $lanes:expr, $rows:expr, $what:expr,
     $set1:ident, $loadu:ident, $storeu:ident, $stream:ident, $fma:ident, $addv:ident, $subv:ident,
     |$lf:ident, $ln:ident| $load_first:expr,
     |$sv:ident, $st:ident, $sn:ident| $store_first:expr,
     |$rv:ident| $reduce:expr $(, |$hf:ident| $load_high:expr)?) => {
        #[doc = $what]
        #[derive(Clone, Copy, Debug)]
        pub struct $name($reg);

        impl Simd for $name {
            type Elem = $t;
            const LANES: usize = $lanes;
            const TILE_ROWS: usize = $rows;

            #[inline(always)]
            unsafe fn splat(x: $t) -> Self {
                // SAFETY: the caller has the instruction set.
                Self(unsafe { $set1(x) })
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller has the instruction set and gives `LANES` elements.
                Self(unsafe { $loadu(from) })
            }
            $(#[inline(always)]
            unsafe fn load_high($hf: *const u16) -> Self {
                // SAFETY: the caller has the instruction set and gives `LANES` halves.
                Self(unsafe { $load_high })
            })?
            #[inline(always)]
            unsafe fn load_first($lf: *const $t, $ln: usize) -> Self {
                debug_assert!($ln <= $lanes);
                // SAFETY: masked lanes are not read; the caller gives the rest.
                Self(unsafe { $load_first })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller has the instruction set and gives `LANES` elements.
                unsafe { $storeu(to, self.0) }
            }
            #[inline(always)]
            unsafe fn store_first(self, $st: *mut $t, $sn: usize) {
                debug_assert!($sn <= $lanes);
                let $sv = self.0;
                // SAFETY: masked lanes are not written; the caller gives the rest.
                unsafe { $store_first }
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $t) {
                // SAFETY: as for `store`, and `to` is aligned.
                unsafe { $stream(to, self.0) }
            }
            #[inline(always)]
            unsafe fn prefetch(at: *const $t) {
                // SAFETY: any address may be asked for.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }
            #[inline(always)]
            unsafe fn fence() {
                // SAFETY: every x86-64 has it.
                unsafe { _mm_sfence() }
            }
            #[inline(always)]
            unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                Self(unsafe { $fma(a.0, b.0, self.0) })
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                Self(unsafe { $addv(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                Self(unsafe { $subv(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn sum(self) -> $t {
                let $rv = self.0;
                // SAFETY: the caller has the instruction set.
                unsafe { $reduce }
            }
        }
    };
}

vector!(
    Avx512F32,
    f32,
    __m512,
    16,
    12,
    "Sixteen f32.",
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_stream_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    |from, n| _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, from),
    |v, to, n| _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as u16, v),
    |v| _mm512_reduce_add_ps(v),
    |from| {
        let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
    }
);
vector!(
    Avx512F64,
    f64,
    __m512d,
    8,
    12,
    "Eight f64.",
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_stream_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    |from, n| _mm512_maskz_loadu_pd(((1u32 << n) - 1) as u8, from),
    |v, to, n| _mm512_mask_storeu_pd(to, ((1u32 << n) - 1) as u8, v),
    |v| _mm512_reduce_add_pd(v)
);
vector!(
    Avx2F32,
    f32,
    __m256,
    8,
    6,
    "Eight f32.",
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_stream_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    |from, n| _mm256_maskload_ps(from, _mm256_loadu_si256(MASK32.as_ptr().add(8 - n).cast())),
    |v, to, n| _mm256_maskstore_ps(to, _mm256_loadu_si256(MASK32.as_ptr().add(8 - n).cast()), v),
    |v| {
        let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
    },
    |from| {
        let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
    }
);
vector!(
    Avx2F64,
    f64,
    __m256d,
    4,
    6,
    "Four f64.",
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_stream_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    |from, n| _mm256_maskload_pd(from, _mm256_loadu_si256(MASK64.as_ptr().add(4 - n).cast())),
    |v, to, n| _mm256_maskstore_pd(to, _mm256_loadu_si256(MASK64.as_ptr().add(4 - n).cast()), v),
    |v| {
        let half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)))
    }
);

/// Sixteen i32.
#[derive(Clone, Copy, Debug)]
pub struct Avx512I32(__m512i);

impl Simd for Avx512I32 {
    type Elem = i32;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self {
        // SAFETY: the caller has the instruction set.
        Self(unsafe { _mm512_set1_epi32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller has the instruction set and gives `LANES` elements.
        Self(unsafe { _mm512_loadu_epi32(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const i32, n: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller gives the rest.
        Self(unsafe { _mm512_maskz_loadu_epi32(((1u32 << n) - 1) as u16, from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: the caller has the instruction set and gives `LANES` elements.
        unsafe { _mm512_storeu_epi32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut i32, n: usize) {
        // SAFETY: masked lanes are not written; the caller gives the rest.
        unsafe { _mm512_mask_storeu_epi32(to, ((1u32 << n) - 1) as u16, self.0) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const i32) {
        // SAFETY: any address may be asked for.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has the instruction set.
        Self(unsafe { _mm512_add_epi32(_mm512_mullo_epi32(a.0, b.0), self.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the instruction set.
        Self(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        // SAFETY: the caller has the instruction set.
        unsafe { _mm512_reduce_add_epi32(self.0) }
    }
}

/// Pairs of bf16, by the BF16 dot instruction: subnormals are taken as zeros.
#[derive(Clone, Copy, Debug)]
pub struct DotBf16;

impl Dot for DotBf16 {
    type Acc = Avx512F32;
    type Left = bf16;
    type Right = bf16;
    type Register = __m512i;
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn left(from: *const bf16) -> __m512i {
        // SAFETY: the caller has the instruction set and gives a pair.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn right(from: *const bf16) -> __m512i {
        // SAFETY: the caller has the instruction set and gives a pair for each lane.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: Avx512F32, left: __m512i, right: __m512i) -> Avx512F32 {
        // SAFETY: the caller has the instruction set; both types are 512 bits without meaning.
        unsafe {
            let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
            Avx512F32(_mm512_dpbf16_ps(acc.0, pairs(left), pairs(right)))
        }
    }
}

/// Groups of four 8-bit integers, signed on the left and unsigned on the right, by VNNI.
#[derive(Clone, Copy, Debug)]
pub struct VnniInt8;

impl Dot for VnniInt8 {
    type Acc = Avx512I32;
    type Left = i8;
    type Right = u8;
    type Register = __m512i;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn left(from: *const i8) -> __m512i {
        // SAFETY: the caller has the instruction set and gives four elements.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn right(from: *const u8) -> __m512i {
        // SAFETY: the caller has the instruction set and gives four elements for each lane.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(acc: Avx512I32, left: __m512i, right: __m512i) -> Avx512I32 {
        // SAFETY: the caller has the instruction set.
        Avx512I32(unsafe { _mm512_dpbusd_epi32(acc.0, right, left) })
    }
}
