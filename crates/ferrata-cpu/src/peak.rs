//! What this machine can do at most, measured: arithmetic out of registers, and memory.
//!
//! Rates are the best of some runs, of all threads together; a measurement takes about 0.2 s.

use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::isa::{Isa, Kernel, Level};
use crate::pool::Scratch;
use crate::simd::{Dot, Simd};

/// Chains of dependent instructions: enough to hide the latency of any of them, few enough for
/// sixteen registers.
const CHAINS: usize = 12;
/// Instructions of each chain in one turn.
const LINKS: usize = 4096;
/// How long a run takes at least.
const RUN: Duration = Duration::from_millis(20);
/// Runs of which the best counts.
const RUNS: usize = 5;
/// Vectors that memory is read or written by at a time.
const ABREAST: usize = 8;

/// Operations per second of f32 multiply-adds, two for each.
pub fn f32_fma(threads: usize, isa: Isa) -> f64 {
    operations(threads, |turns| isa.run(Links::<F32>(turns, PhantomData)))
}

/// Operations per second of f64 multiply-adds, two for each.
pub fn f64_fma(threads: usize, isa: Isa) -> f64 {
    operations(threads, |turns| isa.run(Links::<F64>(turns, PhantomData)))
}

/// Operations per second of bf16 dot instructions, two for each product; `None` where the path has
/// none and products run in f32.
pub fn bf16_dot(threads: usize, isa: Isa) -> Option<f64> {
    let has = isa >= Isa::Avx512Bf16;
    has.then(|| operations(threads, |turns| isa.run_dots(Links::<Bf16>(turns, PhantomData))))
}

/// Operations per second of 8-bit integer dot instructions, two for each product; `None` where the
/// path has none and products run in i32.
pub fn int8_dot(threads: usize, isa: Isa) -> Option<f64> {
    let has = isa >= Isa::Avx512Vnni;
    has.then(|| operations(threads, |turns| isa.run_dots(Links::<Int8>(turns, PhantomData))))
}

/// Speeds of memory in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of reads.
    pub read: f64,
    /// Of copies; bytes read and bytes written both count.
    pub copy: f64,
    /// Of writes.
    pub write: f64,
}

/// The speed of memory when every thread goes over `bytes` bytes of its own again and again: that
/// of the smallest cache that holds them, or of main memory. Copies and writes are by ordinary or
/// by streaming stores, whichever is faster.
pub fn bandwidth(threads: usize, isa: Isa, bytes: usize) -> Bandwidth {
    let rate = |way: Way| {
        best_rate(threads, || {
            let mut scratch = Scratch::default();
            scratch.reserve(bytes.next_multiple_of(4096));
            let elements = scratch.len() / size_of::<f32>();
            // Pages that were never written are all the same one, which stays in a cache.
            isa.run(Sweep { way: Way::Write, data: scratch.as_mut_ptr(), elements, turns: 1 });
            move |turns| {
                isa.run(Sweep { way, data: scratch.as_mut_ptr(), elements, turns });
                (scratch.len() * turns) as f64
            }
        })
    };
    Bandwidth {
        read: rate(Way::Read),
        copy: rate(Way::Copy).max(rate(Way::StreamingCopy)),
        write: rate(Way::Write).max(rate(Way::StreamingWrite)),
    }
}

fn operations(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    best_rate(threads, || &work)
}

/// The best rate of some runs of work that `make` readies in every thread: so many turns of it,
/// of which it says how much it did.
fn best_rate<W: FnMut(usize) -> f64>(threads: usize, make: impl Fn() -> W + Sync) -> f64 {
    let arrived = AtomicUsize::new(0);
    let run = || {
        let mut work = make();
        let mut turns = 1;
        loop {
            let start = Instant::now();
            work(turns);
            if start.elapsed() >= RUN || turns >= 1 << 30 {
                break;
            }
            turns *= 2;
        }
        let rate = |run: usize| {
            // Nobody begins before all are there, so that they share what they share in use; nor
            // sleeps, lest it wake on a processor that another thread is busy on.
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < (run + 1) * threads {
                std::thread::yield_now();
            }
            let start = Instant::now();
            work(turns) / start.elapsed().as_secs_f64()
        };
        std::array::from_fn::<f64, RUNS, _>(rate)
    };
    let rates: Vec<[f64; RUNS]> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        let others = others.into_iter().filter_map(|other| other.join().ok());
        others.chain([own]).collect()
    });
    (0..RUNS).map(|i| rates.iter().map(|r| r[i]).sum()).fold(0.0, f64::max)
}

/// What a chain is made of.
trait Link: Send + Sync {
    /// Operations in one link.
    fn operations<L: Level>() -> usize;

    /// Adds so many turns of links to chains in registers.
    ///
    /// # Safety
    /// The machine has `L`.
    unsafe fn chains<L: Level>(turns: usize);
}

struct Links<T>(usize, PhantomData<T>);

impl<T: Link> Kernel for Links<T> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Level>(self) -> f64 {
        // SAFETY: `Isa` runs kernels only for what the machine has.
        unsafe { T::chains::<L>(self.0) };
        (T::operations::<L>() * CHAINS * LINKS) as f64 * self.0 as f64
    }
}

/// Links of multiply-adds: the chain is a factor, so that no product is the same twice.
#[inline(always)]
unsafe fn multiply_adds<V: Simd>(turns: usize, factor: V::Elem, term: V::Elem) {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (factor, term) = (V::splat(black_box(factor)), V::splat(black_box(term)));
        let mut chains = [factor; CHAINS];
        for _ in 0..turns {
            for _ in 0..LINKS {
                for chain in &mut chains {
                    *chain = term.mul_add(*chain, factor);
                }
            }
            chains = black_box(chains);
        }
    }
}

/// Links of dot instructions.
#[inline(always)]
unsafe fn dots<D: Dot>(turns: usize) {
    // SAFETY: the caller has the instruction set; groups have at most 4 steps, and vectors 64
    // bytes.
    unsafe {
        let left = D::left(black_box([D::Left::default(); 4]).as_ptr());
        let right = D::right(black_box([D::Right::default(); 64]).as_ptr());
        let mut chains = [D::Acc::splat(Default::default()); CHAINS];
        for _ in 0..turns {
            for _ in 0..LINKS {
                for chain in &mut chains {
                    *chain = D::dot(*chain, left, right);
                }
            }
            chains = black_box(chains);
        }
    }
}

macro_rules! link {
    ($name:ident, |$l:ident| $operations:expr, |$turns:ident| $chains:expr) => {
        struct $name;

        impl Link for $name {
            #[inline(always)]
            fn operations<$l: Level>() -> usize {
                $operations
            }
            #[inline(always)]
            unsafe fn chains<$l: Level>($turns: usize) {
                // SAFETY: the caller has the level.
                unsafe { $chains }
            }
        }
    };
}
link!(F32, |L| 2 * L::F32::LANES, |turns| multiply_adds::<L::F32>(turns, 0.5, 1.0));
link!(F64, |L| 2 * L::F64::LANES, |turns| multiply_adds::<L::F64>(turns, 0.5, 1.0));
link!(Bf16, |L| 2 * L::Bf16::GROUP * <L::Bf16 as Dot>::Acc::LANES, |turns| dots::<L::Bf16>(turns));
link!(Int8, |L| 2 * L::Int8::GROUP * <L::Int8 as Dot>::Acc::LANES, |turns| dots::<L::Int8>(turns));

/// How memory is gone over.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Read,
    /// The first half to the second.
    Copy,
    StreamingCopy,
    Write,
    StreamingWrite,
}

/// So many turns over a buffer of whole pages.
struct Sweep {
    way: Way,
    data: *mut f32,
    elements: usize,
    turns: usize,
}

impl Kernel for Sweep {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        for turn in 0..self.turns {
            // Nothing is known of the buffer's content from one turn to the next.
            let sweep = Sweep { data: black_box(self.data), ..self };
            // SAFETY: `Isa` runs kernels only for what the machine has; the buffer belongs to
            // this thread.
            unsafe {
                match self.way {
                    Way::Read => sweep.read::<L::F32>(),
                    Way::Copy => sweep.copy::<L::F32, false>(),
                    Way::StreamingCopy => sweep.copy::<L::F32, true>(),
                    Way::Write => sweep.write::<L::F32, false>(turn as f32),
                    Way::StreamingWrite => sweep.write::<L::F32, true>(turn as f32),
                }
                L::F32::fence();
            }
        }
    }
}

impl Sweep {
    #[inline(always)]
    unsafe fn read<V: Simd<Elem = f32>>(&self) {
        // SAFETY: the caller has the instruction set; the buffer holds whole pages.
        unsafe {
            let mut sums = [V::splat(0.0); ABREAST];
            for at in (0..self.elements).step_by(ABREAST * V::LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(V::load(self.data.add(at + i * V::LANES)));
                }
            }
            black_box(sums);
        }
    }

    #[inline(always)]
    unsafe fn copy<V: Simd<Elem = f32>, const STREAM: bool>(&self) {
        let half = self.elements / 2;
        // SAFETY: as for `read`; halves of pages are multiples of what is copied at a time, and
        // aligned.
        unsafe {
            for at in (0..half).step_by(ABREAST * V::LANES) {
                for i in 0..ABREAST {
                    let from = self.data.add(at + i * V::LANES);
                    Self::put::<V, STREAM>(V::load(from), from.add(half));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn write<V: Simd<Elem = f32>, const STREAM: bool>(&self, x: f32) {
        // SAFETY: as for `copy`.
        unsafe {
            let x = V::splat(x);
            for at in (0..self.elements).step_by(ABREAST * V::LANES) {
                for i in 0..ABREAST {
                    Self::put::<V, STREAM>(x, self.data.add(at + i * V::LANES));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn put<V: Simd<Elem = f32>, const STREAM: bool>(x: V, to: *mut f32) {
        // SAFETY: passed on.
        unsafe { if STREAM { x.stream(to) } else { x.store(to) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_exist_where_the_path_has_the_instruction() {
        for isa in Isa::available() {
            let bf16 = bf16_dot(1, isa);
            let int8 = int8_dot(2, isa);
            assert_eq!(bf16.is_some(), isa >= Isa::Avx512Bf16);
            assert_eq!(int8.is_some(), isa >= Isa::Avx512Vnni);
            // Any clock and unit do more than an operation in ten cycles, none a hundred thousand.
            let rates = [Some(f32_fma(1, isa)), Some(f64_fma(2, isa)), bf16, int8];
            for rate in rates.into_iter().flatten() {
                assert!((1e8..1e14).contains(&rate), "{isa}: {rate}");
            }
        }
    }

    #[test]
    fn every_way_over_memory_is_measured() {
        let speed = bandwidth(2, Isa::detect(), 10_000);
        assert!([speed.read, speed.copy, speed.write].iter().all(|&s| s > 1e7), "{speed:?}");
    }
}
