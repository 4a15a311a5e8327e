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
        /// Natural logarithm.
        log => LOG,
        /// Square root.
        sqrt => SQRT,
        /// `1 / sqrt(x)`.
        rsqrt => RSQRT,
        /// Sine, of radians.
        sin => SIN,
        /// Cosine, of radians.
        cos => COS,
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

    /// `x` limited to at least `low` and at most `high`; `None` is no limit.
    #[track_caller]
    pub fn clamp(&self, low: impl Into<Option<f64>>, high: impl Into<Option<f64>>) -> Tensor {
        let x = low.into().map_or_else(|| self.clone(), |low| self.maximum(low));
        high.into().map_or_else(|| x.clone(), |high| x.minimum(high))
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
