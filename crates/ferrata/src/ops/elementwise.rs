//! Elementwise operations. An elementwise primitive needs one line here.

use crate::tensor::{IntoOperand, Tensor};
use ferrata_ir::DType;
use ferrata_ir::primitive::{Cast, elementwise as ops};

macro_rules! elementwise {
    (
        unary { $($(#[$u:meta])* $unary:ident => $UNARY:ident),* $(,)? }
        binary { $($(#[$b:meta])* $binary:ident => $BINARY:ident),* $(,)? }
    ) => {
        impl Tensor {
            $($(#[$u])*
            #[track_caller]
            pub fn $unary(&self) -> Tensor {
                Tensor::elementwise(&ops::$UNARY, &[self])
            })*

            $($(#[$b])*
            #[track_caller]
            pub fn $binary(&self, other: impl IntoOperand) -> Tensor {
                Tensor::binary(&ops::$BINARY, self, other)
            })*
        }
    };
}

elementwise! {
    unary {
        /// `|x|`.
        abs => ABS,
        /// -1, 0 or 1.
        sign => SIGN,
        /// Largest whole number that is not above `x`.
        floor => FLOOR,
        /// Smallest whole number that is not below `x`.
        ceil => CEIL,
        /// Nearest whole number, halves to even.
        round => ROUND,
        /// Whole part, toward 0.
        trunc => TRUNC,
        /// `e^x`.
        exp => EXP,
        /// `e^x - 1`, exact also for small `x`.
        expm1 => EXPM1,
        /// Natural logarithm.
        log => LOG,
        /// `log(1 + x)`, exact also for small `x`.
        log1p => LOG1P,
        /// Square root.
        sqrt => SQRT,
        /// `1 / sqrt(x)`.
        rsqrt => RSQRT,
        /// Sine, of radians.
        sin => SIN,
        /// Cosine, of radians.
        cos => COS,
        /// Tangent, of radians.
        tan => TAN,
        /// `2^x`.
        exp2 => EXP2,
        /// Angle whose sine is `x`, in radians.
        asin => ASIN,
        /// Angle whose cosine is `x`, in radians.
        acos => ACOS,
        /// Angle whose tangent is `x`, in radians.
        atan => ATAN,
        /// Hyperbolic sine.
        sinh => SINH,
        /// Hyperbolic cosine.
        cosh => COSH,
        /// Inverse of the hyperbolic sine.
        asinh => ASINH,
        /// Inverse of the hyperbolic cosine.
        acosh => ACOSH,
        /// Inverse of the hyperbolic tangent.
        atanh => ATANH,
        /// Error function: `2/√π ∫₀ˣ e^(-t²) dt`.
        erf => ERF,
        /// `1 - erf(x)`, exact also for large `x`.
        erfc => ERFC,
        /// Inverse of [`Tensor::erf`].
        erfinv => ERF_INV,
        /// `log |Γ(x)|`.
        lgamma => LGAMMA,
        /// Derivative of [`Tensor::lgamma`].
        digamma => DIGAMMA,
        /// Hyperbolic tangent.
        tanh => TANH,
        /// `1 / (1 + e^-x)`.
        sigmoid => LOGISTIC,
        /// Whether `x` is neither infinite nor NaN; a bool tensor.
        is_finite => IS_FINITE,
    }
    binary {
        /// The larger one; NaN wins; at a tie each operand gets half of the gradient.
        maximum => MAX,
        /// The smaller one; NaN wins; at a tie each operand gets half of the gradient.
        minimum => MIN,
        /// `x^other`.
        pow => POW,
        /// Remainder of the truncated division, with the sign of `x`.
        fmod => REM,
        /// Angle of the point with ordinate `x` and abscissa `other`, in radians.
        atan2 => ATAN2,
        /// `x == other`; a bool tensor.
        eq => EQ,
        /// `x != other`; a bool tensor.
        ne => NE,
        /// `x < other`; a bool tensor.
        lt => LT,
        /// `x <= other`; a bool tensor.
        le => LE,
        /// `x > other`; a bool tensor.
        gt => GT,
        /// `x >= other`; a bool tensor.
        ge => GE,
    }
}

impl Tensor {
    /// The same values as `dtype`: floats are truncated and saturate to integers, integers wrap,
    /// anything but 0 is true.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype || self.error().is_some() {
            return self.clone();
        }
        Tensor::record1(Cast { dtype }, &[self])
    }

    /// `self ? x : y`, elementwise; `self` is a bool tensor, and the shapes broadcast. One of `x`
    /// and `y` may be a number.
    #[track_caller]
    pub fn select(&self, x: impl IntoOperand, y: impl IntoOperand) -> Tensor {
        let like = x.tensor().or(y.tensor()).cloned();
        let like = like.unwrap_or_else(|| Tensor::zeros((), DType::F32));
        let (x, y) = (x.into_operand(&like), y.into_operand(&like));
        Tensor::elementwise(&ops::SELECT, &[self, &x, &y])
    }

    /// `value` where `mask` is true, else `x`.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor, value: impl IntoOperand) -> Tensor {
        mask.select(value, self)
    }

    /// `x` limited to at least `low` and at most `high`; `None` is no limit. The gradient is 1
    /// inside and on the bounds.
    #[track_caller]
    pub fn clamp(&self, low: impl Into<Option<f64>>, high: impl Into<Option<f64>>) -> Tensor {
        let (low, high) = (low.into(), high.into());
        Tensor::op("clamp", &[self], || {
            if !self.dtype().is_float() {
                let x = low.map_or_else(|| self.clone(), |low| self.maximum(low));
                return Ok(high.map_or_else(|| x.clone(), |high| x.minimum(high)));
            }
            let low = self.full_like(low.unwrap_or(f64::NEG_INFINITY));
            let high = self.full_like(high.unwrap_or(f64::INFINITY));
            Ok(Tensor::elementwise(&ops::CLAMP, &[self, &low, &high]))
        })
    }

    /// `x + weight (end - x)`.
    #[track_caller]
    pub fn lerp(&self, end: &Tensor, weight: impl IntoOperand) -> Tensor {
        Tensor::op("lerp", &[self, end], || Ok(self + (end - self) * weight))
    }

    /// Logarithm to base 2.
    #[track_caller]
    pub fn log2(&self) -> Tensor {
        Tensor::op("log2", &[self], || Ok(self.log() / std::f64::consts::LN_2))
    }

    /// Logarithm to base 10.
    #[track_caller]
    pub fn log10(&self) -> Tensor {
        Tensor::op("log10", &[self], || Ok(self.log() / std::f64::consts::LN_10))
    }

    /// Whether `x` is NaN; a bool tensor.
    #[track_caller]
    pub fn is_nan(&self) -> Tensor {
        self.ne(self)
    }

    /// Whether both are true.
    #[track_caller]
    pub fn logical_and(&self, other: impl IntoOperand) -> Tensor {
        self & other
    }

    /// Whether at least one is true.
    #[track_caller]
    pub fn logical_or(&self, other: impl IntoOperand) -> Tensor {
        self | other
    }

    /// Whether exactly one is true.
    #[track_caller]
    pub fn logical_xor(&self, other: impl IntoOperand) -> Tensor {
        self ^ other
    }

    /// Whether `x` is false.
    #[track_caller]
    pub fn logical_not(&self) -> Tensor {
        !self
    }

    /// `x^2`.
    #[track_caller]
    pub fn square(&self) -> Tensor {
        self * self
    }

    /// `1 / x`.
    #[track_caller]
    pub fn reciprocal(&self) -> Tensor {
        1.0 / self
    }
}
