//! Instruction sets, detected at run time, and the one way to compile a loop for each of them.
//!
//! Write a loop once as the `#[inline(always)]` method of a [`Kernel`] and call it with
//! [`Isa::run`]: the loop is instantiated inside a function that enables the instruction set, so
//! the compiler vectorises it for each.

use std::fmt;
use std::sync::OnceLock;

use half::bf16;

use crate::gemm::{Pack, Stored};
use crate::simd::{self, Dot, Fma, Simd, VectorI32};

/// A path through the kernels. Each is deterministic on its own; they differ in rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Only what every machine of the compiled target has; separate multiplication and addition.
    Portable,
    /// x86-64 with AVX2, FMA and F16C: 256-bit vectors.
    Avx2,
    /// x86-64 with AVX-512 F, VL, DQ and BW: 512-bit vectors.
    Avx512,
    /// [`Isa::Avx512`] with VNNI: matrix products of 8-bit integers by dot instructions.
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with BF16: matrix products of bf16 by dot instructions, which take
    /// subnormals as zeros.
    Avx512Bf16,
}

/// The environment variable that forces a lower path.
const VARIABLE: &str = "FERRATA_ISA";

impl Isa {
    /// Every path, lowest first; a machine that has one has all below it.
    pub const ALL: [Isa; 5] =
        [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16];

    /// The best path this machine has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            let vnni = is_x86_feature_detected!("avx512vnni");
            let bf16 = is_x86_feature_detected!("avx512bf16");
            match (avx2, avx512, vnni, bf16) {
                (true, true, true, true) => Isa::Avx512Bf16,
                (true, true, true, false) => Isa::Avx512Vnni,
                (true, true, false, _) => Isa::Avx512,
                (true, false, ..) => Isa::Avx2,
                (false, ..) => Isa::Portable,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Portable
    }

    /// Every path this machine has, lowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let best = Isa::detect();
        Isa::ALL.into_iter().filter(move |&isa| isa <= best)
    }

    /// The path to use: the one that the environment variable `FERRATA_ISA` names (see
    /// [`Isa::name`]), else the best. Read once per process.
    ///
    /// # Errors
    /// The variable's value is no path, or one that this machine lacks.
    pub fn current() -> Result<Isa, String> {
        static CURRENT: OnceLock<Result<Isa, String>> = OnceLock::new();
        CURRENT
            .get_or_init(|| match std::env::var(VARIABLE) {
                Ok(name) => Isa::choose(Some(&name)),
                Err(_) => Isa::choose(None),
            })
            .clone()
    }

    fn choose(name: Option<&str>) -> Result<Isa, String> {
        let best = Isa::detect();
        let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(best) };
        let wanted = Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names = Isa::ALL.map(Isa::name).join(", ");
            format!(
                "{VARIABLE}={name} is no instruction set; use one of {names}, \
                 or unset it to use the best ({best})"
            )
        })?;
        if wanted > best {
            return Err(format!(
                "{VARIABLE}={name}, but this machine has no {name}; \
                 unset it to use the best that it has ({best})"
            ));
        }
        Ok(wanted)
    }

    /// The name used in [`Isa::current`]'s variable and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// The path that has this one's vectors and no dot instructions: what kernels other than
    /// matrix products take.
    pub fn vectors(self) -> Isa {
        self.min(Isa::Avx512)
    }

    /// Runs `kernel`, compiled for this path's vectors; its dot instructions stay unused, so that
    /// kernels without need for them are not compiled again. A path that this machine lacks runs
    /// the best it has.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.min(Isa::supported()) {
            Isa::Portable => kernel.run::<Portable>(),
            // SAFETY: `supported` says that the machine has AVX2 and its companions.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: `supported` says that the machine has AVX-512 and its companions.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run::<Portable>(),
        }
    }

    /// As [`Isa::run`], for kernels that multiply narrow numbers: with [`Level::Bf16`] and
    /// [`Level::Int8`] being the path's dot instructions where it has them.
    #[inline]
    pub fn run_dots<K: Kernel>(self, kernel: K) -> K::Output {
        match self.min(Isa::supported()) {
            // SAFETY: `supported` says that the machine has the features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => unsafe { run_avx512_vnni(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => unsafe { run_avx512_bf16(kernel) },
            isa => isa.run(kernel),
        }
    }

    #[inline]
    fn supported() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(Isa::detect)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A loop that is compiled once per path. See [`Isa::run`].
///
/// ```
/// use ferrata_cpu::{Isa, Kernel, Level};
///
/// struct Axpy<'a>(f32, &'a [f32], &'a mut [f32]);
///
/// impl Kernel for Axpy<'_> {
///     type Output = ();
///     #[inline(always)]
///     fn run<L: Level>(self) {
///         for (y, &x) in self.2.iter_mut().zip(self.1) {
///             *y = L::mul_add(self.0, x, *y);
///         }
///     }
/// }
///
/// let mut y = [1.0, 2.0];
/// Isa::detect().run(Axpy(2.0, &[3.0, 4.0], &mut y));
/// assert_eq!(y, [7.0, 10.0]);
/// ```
pub trait Kernel {
    /// What the loop returns.
    type Output;

    /// The loop. Mark it, and every function of ours that it calls, `#[inline(always)]`; code
    /// that is not inlined is compiled without the path's instructions.
    fn run<L: Level>(self) -> Self::Output;
}

/// What a [`Kernel`] may ask of the path it is compiled for.
pub trait Level: Copy + Send + Sync + 'static {
    /// The path.
    const ISA: Isa;
    /// Vectors of f32.
    type F32: Simd<Elem = f32>;
    /// Vectors of f64.
    type F64: Simd<Elem = f64>;
    /// Products of bf16, in f32: dot instructions, or [`Level::F32`] over widened numbers.
    type Bf16: Dot<Acc = Self::F32, Left: Pack<bf16> + Stored<f32>, Right: Pack<bf16>>;
    /// Products of 8-bit integers, in i32: dot instructions, or vectors over widened numbers.
    type Int8: Dot<Acc: Simd<Elem = i32>, Left: Pack<i8> + Pack<u8>, Right: Pack<i8> + Pack<u8>>;

    /// `a·b + c`: rounded once where the path has the instruction, twice on the portable path.
    #[inline(always)]
    fn mul_add<T: Real>(a: T, b: T, c: T) -> T {
        if matches!(Self::ISA, Isa::Portable) { a * b + c } else { a.fused(b, c) }
    }

    /// Runs `kernel` as a function of its own, compiled for this path: for use inside a kernel,
    /// where a call keeps code size and register pressure down or a closure stands between.
    ///
    /// # Safety
    /// The machine has the path ([`Isa::detect`] is at least `ISA`).
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;
}

/// f32 or f64.
pub trait Real:
    Copy
    + Default
    + PartialOrd
    + fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// `self·b + c`, rounded once; slow where the machine lacks the instruction.
    fn fused(self, b: Self, c: Self) -> Self;
    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// This value as f64, exactly.
    fn to_f64(self) -> f64;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            #[inline(always)]
            fn fused(self, b: $t, c: $t) -> $t {
                self.mul_add(b, c)
            }
            #[inline(always)]
            fn from_f64(x: f64) -> $t {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// [`Isa::Portable`] as a type.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Level for Portable {
    const ISA: Isa = Isa::Portable;
    type F32 = simd::PortableF32;
    type F64 = simd::PortableF64;
    type Bf16 = Fma<Self::F32>;
    type Int8 = Fma<VectorI32>;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Portable>()
    }
}

/// [`Isa::Avx2`] as a type.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Level for Avx2 {
    const ISA: Isa = Isa::Avx2;
    type F32 = simd::Avx2F32;
    type F64 = simd::Avx2F64;
    type Bf16 = Fma<Self::F32>;
    type Int8 = Fma<VectorI32>;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller has the path.
        unsafe { run_avx2(kernel) }
    }
}

/// [`Isa::Avx512`] as a type.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Level for Avx512 {
    const ISA: Isa = Isa::Avx512;
    type F32 = simd::Avx512F32;
    type F64 = simd::Avx512F64;
    type Bf16 = Fma<Self::F32>;
    type Int8 = Fma<VectorI32>;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller has the path.
        unsafe { run_avx512(kernel) }
    }
}

/// [`Isa::Avx512Vnni`] as a type.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni;

#[cfg(target_arch = "x86_64")]
impl Level for Avx512Vnni {
    const ISA: Isa = Isa::Avx512Vnni;
    type F32 = simd::Avx512F32;
    type F64 = simd::Avx512F64;
    type Bf16 = Fma<Self::F32>;
    type Int8 = simd::VnniInt8;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller has the path.
        unsafe { run_avx512_vnni(kernel) }
    }
}

/// [`Isa::Avx512Bf16`] as a type.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16;

#[cfg(target_arch = "x86_64")]
impl Level for Avx512Bf16 {
    const ISA: Isa = Isa::Avx512Bf16;
    type F32 = simd::Avx512F32;
    type F64 = simd::Avx512F64;
    type Bf16 = simd::DotBf16;
    type Int8 = simd::VnniInt8;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller has the path.
        unsafe { run_avx512_bf16(kernel) }
    }
}

/// # Safety
/// The machine has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// # Safety
/// The machine has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

/// # Safety
/// The machine has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512vnni,avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn run_avx512_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512Vnni>()
}

/// # Safety
/// The machine has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(
    enable = "avx512bf16,avx512vnni,avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,bmi1,bmi2"
)]
unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512Bf16>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_paths() {
        assert_eq!(Isa::choose(None), Ok(Isa::detect()));
        assert_eq!(Isa::choose(Some("")), Ok(Isa::detect()));
        assert_eq!(Isa::choose(Some("portable")), Ok(Isa::Portable));
        assert!(Isa::choose(Some("sse9")).unwrap_err().contains("portable, avx2, avx512,"));
        for isa in Isa::ALL {
            match Isa::choose(Some(isa.name())) {
                Ok(chosen) => assert!(chosen == isa && isa <= Isa::detect()),
                Err(e) => assert!(isa > Isa::detect() && e.contains("this machine has no"), "{e}"),
            }
        }
    }

    struct Which;
    impl Kernel for Which {
        type Output = Isa;
        #[inline(always)]
        fn run<L: Level>(self) -> Isa {
            L::ISA
        }
    }

    #[test]
    fn run_takes_the_named_path_where_the_machine_has_it() {
        for isa in Isa::ALL {
            let had = isa.min(Isa::detect());
            assert_eq!(isa.run(Which), had.min(Isa::Avx512));
            assert_eq!(isa.run_dots(Which), had);
        }
    }
}
