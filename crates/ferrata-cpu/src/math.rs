//! Elementary functions, one lane at a time.
//!
//! The f32 functions have no branches and no calls, so a loop over them inside a
//! [`crate::Kernel`] becomes vector code. Where f32 arithmetic would not be exact enough they
//! compute in f64 and round once. Those of f64, and of both types the rare `lgamma`, `digamma`
//! and `erfinv`, are plain scalar code.
//!
//! NaN gives NaN, and infinities, zeros (with their sign) and subnormal numbers give what
//! IEEE 754 recommends. The largest errors, in units in the last place of the exact result, that
//! a test holds every path to; and what every single f32 showed on the AVX-512 path:
//!
//! | f32 function | limit | found |
//! |---|---|---|
//! | `sqrt`, functions computed in f64 (`expm1`, `log1p`, `sin`, `cos`, …) | 0.6 | 0.500 |
//! | `exp` | 1.5 | 0.987 |
//! | `exp2` | 1.5 | 0.898 |
//! | `log` | 1.5 | 0.887 |
//! | `rsqrt`, `decay` | 1.5 | sampled only |
//! | `tanh` | 2 | 1.330 |
//! | `erf` | 2 | 1.305 |
//! | `logistic` | 2 | 1.640 |
//!
//! ```
//! use ferrata_cpu::{Isa, Kernel, Level, math::Math};
//!
//! struct Softplus<'a>(&'a mut [f32]);
//!
//! impl Kernel for Softplus<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<L: Level>(self) {
//!         for x in self.0 {
//!             *x = Math::log1p::<L>(Math::exp::<L>(*x));
//!         }
//!     }
//! }
//!
//! let mut x = [0.0];
//! Isa::detect().run(Softplus(&mut x));
//! assert!((x[0] - 2f32.ln()).abs() < 1e-6);
//! ```

#![allow(clippy::excessive_precision)] // Coefficients stand as they were computed.

use crate::isa::{Level, Real};
use lanes::Lane;

pub(crate) mod exponential;
mod gamma;
pub(crate) mod lanes;
pub(crate) mod logarithm;
pub(crate) mod normal;
pub(crate) mod polynomial;
mod trigonometric;

#[cfg(test)]
mod tests;

/// The elementary functions of f32 and f64. Called as `Math::exp::<L>(x)`: on a value whose type
/// is known, method syntax would find the standard library's function of the same name.
pub trait Math: Real {
    /// The exponential function.
    fn exp<L: Level>(self) -> Self;
    /// 2 to the power of `self`.
    fn exp2<L: Level>(self) -> Self;
    /// 2 to the power of `self`, which is at most about 0, as for the weights of a softmax; 0
    /// where f32 would be subnormal.
    fn decay<L: Level>(self) -> Self;
    /// `exp(self) - 1`, exact near 0.
    fn expm1<L: Level>(self) -> Self;
    /// The natural logarithm.
    fn log<L: Level>(self) -> Self;
    /// The logarithm to base 2.
    fn log2<L: Level>(self) -> Self;
    /// `log(1 + self)`, exact near 0.
    fn log1p<L: Level>(self) -> Self;
    /// The sine of an angle in radians, of any size.
    fn sin<L: Level>(self) -> Self;
    /// The cosine of an angle in radians, of any size.
    fn cos<L: Level>(self) -> Self;
    /// The tangent of an angle in radians, of any size.
    fn tan<L: Level>(self) -> Self;
    /// The angle in [-π/2, π/2] whose sine is `self`.
    fn asin<L: Level>(self) -> Self;
    /// The angle in [0, π] whose cosine is `self`.
    fn acos<L: Level>(self) -> Self;
    /// The angle in [-π/2, π/2] whose tangent is `self`.
    fn atan<L: Level>(self) -> Self;
    /// The angle in [-π, π] of the point (`x`, `self`).
    fn atan2<L: Level>(self, x: Self) -> Self;
    /// The hyperbolic sine.
    fn sinh<L: Level>(self) -> Self;
    /// The hyperbolic cosine.
    fn cosh<L: Level>(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh<L: Level>(self) -> Self;
    /// The inverse hyperbolic sine.
    fn asinh<L: Level>(self) -> Self;
    /// The inverse hyperbolic cosine.
    fn acosh<L: Level>(self) -> Self;
    /// The inverse hyperbolic tangent.
    fn atanh<L: Level>(self) -> Self;
    /// `self` to the power of `exponent`; negative bases only have integer powers.
    fn pow<L: Level>(self, exponent: Self) -> Self;
    /// The square root.
    fn sqrt<L: Level>(self) -> Self;
    /// 1 over the square root.
    fn rsqrt<L: Level>(self) -> Self;
    /// The logistic function `1 / (1 + exp(-self))`, exact in both tails.
    fn logistic<L: Level>(self) -> Self;
    /// The error function.
    fn erf<L: Level>(self) -> Self;
    /// `1 - erf(self)`, exact in its tail.
    fn erfc<L: Level>(self) -> Self;
    /// The inverse of the error function.
    fn erfinv<L: Level>(self) -> Self;
    /// The logarithm of the absolute value of the gamma function.
    fn lgamma<L: Level>(self) -> Self;
    /// The derivative of `lgamma`.
    fn digamma<L: Level>(self) -> Self;
}

/// Implements [`Math`] by functions of one and of two arguments.
macro_rules! math {
    ($t:ty, $level:ident; $($name:ident: $f:expr),*; $($binary:ident: $g:expr),*) => {
        impl Math for $t {
            $(
                #[inline(always)]
                fn $name<$level: Level>(self) -> $t {
                    $f(self)
                }
            )*
            $(
                #[inline(always)]
                fn $binary<$level: Level>(self, other: $t) -> $t {
                    $g(self, other)
                }
            )*
        }
    };
}

math!(
    f32, L;
    exp: |x| exponential::exp(Lane::<f32, L>::new(x)).0,
    exp2: |x| exponential::exp2(Lane::<f32, L>::new(x)).0,
    decay: |x| exponential::decay(Lane::<f32, L>::new(x)).0,
    expm1: exponential::expm1::<L>,
    log: |x| logarithm::log(Lane::<f32, L>::new(x)).0,
    log2: logarithm::log2::<L>,
    log1p: logarithm::log1p::<L>,
    sin: trigonometric::sin::<L>,
    cos: trigonometric::cos::<L>,
    tan: trigonometric::tan::<L>,
    asin: trigonometric::asin::<L>,
    acos: trigonometric::acos::<L>,
    atan: trigonometric::atan::<L>,
    sinh: exponential::sinh::<L>,
    cosh: exponential::cosh::<L>,
    tanh: |x| exponential::tanh(Lane::<f32, L>::new(x)).0,
    asinh: logarithm::asinh::<L>,
    acosh: logarithm::acosh::<L>,
    atanh: logarithm::atanh::<L>,
    sqrt: f32::sqrt,
    rsqrt: |x: f32| 1.0 / x.sqrt(),
    logistic: |x| exponential::logistic(Lane::<f32, L>::new(x)).0,
    erf: |x| normal::erf(Lane::<f32, L>::new(x)).0,
    erfc: normal::erfc::<L>,
    erfinv: |x: f32| normal::erfinv_f64(f64::from(x)) as f32,
    lgamma: |x: f32| gamma::lgamma(f64::from(x)) as f32,
    digamma: |x: f32| gamma::digamma(f64::from(x)) as f32;
    pow: logarithm::pow::<L>,
    atan2: trigonometric::atan2::<L>
);

math!(
    f64, L;
    exp: f64::exp,
    exp2: f64::exp2,
    decay: f64::exp2,
    expm1: f64::exp_m1,
    log: f64::ln,
    log2: f64::log2,
    log1p: f64::ln_1p,
    sin: f64::sin,
    cos: f64::cos,
    tan: f64::tan,
    asin: f64::asin,
    acos: f64::acos,
    atan: f64::atan,
    sinh: f64::sinh,
    cosh: f64::cosh,
    tanh: f64::tanh,
    asinh: f64::asinh,
    acosh: f64::acosh,
    atanh: f64::atanh,
    sqrt: f64::sqrt,
    rsqrt: |x: f64| 1.0 / x.sqrt(),
    logistic: exponential::logistic_f64,
    erf: normal::erf_f64,
    erfc: normal::erfc_f64,
    erfinv: normal::erfinv_f64,
    lgamma: gamma::lgamma,
    digamma: gamma::digamma;
    pow: f64::powf,
    atan2: f64::atan2
);
