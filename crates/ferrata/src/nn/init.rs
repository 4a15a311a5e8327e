//! Initial values of parameters.

use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_ir::DType;

/// How a parameter is initialised. For matrices `[outputs, inputs]` the fan-in is the product of
/// all sizes but the first, the fan-out that of all but the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// One number everywhere.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with mean 0 and this standard deviation, of which only values within twice the
    /// standard deviation are taken.
    TruncatedNormal(f64),
    /// Uniform between minus and plus this number.
    Uniform(f64),
    /// Uniform, variance 2 / (fan-in + fan-out) (Glorot & Bengio 2010).
    XavierUniform,
    /// Normal, variance 2 / (fan-in + fan-out).
    XavierNormal,
    /// Uniform, variance 2 / fan-in, for layers before a ReLU (He et al. 2015).
    KaimingUniform,
    /// Normal, variance 2 / fan-in.
    KaimingNormal,
    /// Normal, variance 2 / fan-out: what torchvision's convolutions start with.
    KaimingNormalFanOut,
    /// Uniform between ±1/√fan-in: what PyTorch's linear layers and convolutions start with.
    FanIn,
}

/// `erf(√2)`: the probability of a normal number to be within twice its standard deviation.
const WITHIN_TWO: f64 = 0.954_499_736_103_641_6;

impl Init {
    /// A new parameter of this shape.
    #[track_caller]
    pub fn make(self, shape: &[usize], dtype: DType, key: &Key) -> Tensor {
        let receptive: usize = shape.iter().skip(2).product();
        let fan_in = (shape.get(1).copied().unwrap_or(1) * receptive).max(1) as f64;
        let fan_out = (shape.first().copied().unwrap_or(1) * receptive).max(1) as f64;
        let normal = |std: f64| Tensor::normal(shape, std, dtype, key);
        let uniform = |bound: f64| Tensor::uniform(shape, -bound, bound, dtype, key);
        match self {
            Init::Zeros => Tensor::zeros(shape, dtype),
            Init::Ones => Tensor::ones(shape, dtype),
            Init::Constant(x) => Tensor::full(shape, x, dtype),
            Init::Normal(std) => normal(std),
            Init::TruncatedNormal(std) => {
                // The quantile function on the part of (0, 1) between minus and plus 2.
                let u = Tensor::uniform(shape, -WITHIN_TWO, WITHIN_TWO, dtype, key);
                u.erfinv() * (std * std::f64::consts::SQRT_2)
            }
            Init::Uniform(bound) => uniform(bound),
            Init::XavierUniform => uniform((6.0 / (fan_in + fan_out)).sqrt()),
            Init::XavierNormal => normal((2.0 / (fan_in + fan_out)).sqrt()),
            Init::KaimingUniform => uniform((6.0 / fan_in).sqrt()),
            Init::KaimingNormal => normal((2.0 / fan_in).sqrt()),
            Init::KaimingNormalFanOut => normal((2.0 / fan_out).sqrt()),
            Init::FanIn => uniform(1.0 / fan_in.sqrt()),
        }
    }
}
