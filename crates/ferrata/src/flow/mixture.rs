//! A distribution of which everything is known.

use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_ir::{DType, Error, Result};

/// A mixture of normal distributions, each as wide in all directions: data whose density and mean
/// velocity are known in closed form, against which solvers and trained networks can be measured.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// `[parts, n]`.
    means: Tensor,
    /// `[parts]`.
    stds: Tensor,
    /// `[parts]`.
    log_weights: Tensor,
}

impl Mixture {
    /// A mixture with a mean, a standard deviation and a weight for each part, computed with in
    /// `dtype`. The weights need not sum to 1.
    ///
    /// # Errors
    /// Lists of different lengths; standard deviations or weights that are not above 0.
    pub fn new(means: &[Vec<f64>], stds: &[f64], weights: &[f64], dtype: DType) -> Result<Self> {
        let (n, m, k) = (means.len(), stds.len(), weights.len());
        if n == 0 || n != m || n != k {
            let what = format!("{n} means, {m} standard deviations and {k} weights");
            return Err(Error::new(what).help("give one of each for each part"));
        }
        if !stds.iter().chain(weights).all(|x| *x > 0.0 && x.is_finite()) {
            return Err(Error::new("standard deviations and weights must be above 0"));
        }
        let total: f64 = weights.iter().sum();
        let log_weights: Vec<f64> = weights.iter().map(|w| (w / total).ln()).collect();
        let host = |x: &[f64]| Tensor::from_slice(x, &[x.len()]).cast(dtype);
        let mixture = Mixture {
            means: Tensor::from(means).cast(dtype),
            stds: host(stds),
            log_weights: host(&log_weights),
        };
        crate::eval(&[&mixture.means, &mixture.stds, &mixture.log_weights])?;
        Ok(mixture)
    }

    /// Random data `[count, n]`.
    #[track_caller]
    pub fn sample(&self, count: usize, key: &Key) -> Tensor {
        let (parts, n) = (self.means.size(0), self.means.size(1));
        let dtype = self.means.dtype();
        // The largest of the logarithms of weights with Gumbel noise is at each part as often as
        // its weight says.
        let gumbel = -(-Tensor::rand([count, parts], dtype, &key.fold(0)).log()).log();
        let part = (&self.log_weights + gumbel).argmax(1);
        let noise = Tensor::randn([count, n], dtype, &key.fold(1));
        self.means.take(&part, 0) + self.stds.take(&part, 0).unsqueeze(1) * noise
    }

    /// The logarithm of the density at `x [batch, n]`, in nats: `[batch]`.
    #[track_caller]
    pub fn log_density(&self, x: &Tensor) -> Tensor {
        let t = Tensor::ones([x.size(0)], x.dtype());
        self.log_parts(x, &t).logsumexp(1)
    }

    /// `E[data - noise | x_t = x]` of `x [batch, n]` at the times `t [batch]`, for independent
    /// standard normal noise.
    #[track_caller]
    pub fn velocity(&self, x: &Tensor, t: &Tensor) -> Tensor {
        // Given the part, data and noise are normal together: their mean is linear in `x`.
        let of_part = self.log_parts(x, t).softmax(1);
        let t = t.cast(x.dtype()).unsqueeze(1);
        let slope = (&t * self.stds.square() - (1.0 - &t)) / self.variances(&t);
        let of_means = (&of_part * (1.0 - &t * &slope)).matmul(&self.means);
        of_means + (of_part * slope).sum(crate::keep(1)) * x
    }

    /// Variances of `x_t` for each part: `[batch, parts]` at the times `t [batch, 1]`.
    fn variances(&self, t: &Tensor) -> Tensor {
        (1.0 - t).square() + (t * &self.stds).square()
    }

    /// The logarithm of the weight of each part times its density at `x_t = x`: `[batch, parts]`.
    fn log_parts(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let t = t.cast(x.dtype()).unsqueeze(1);
        let variance = self.variances(&t);
        let sizes = x.square().sum(crate::keep(1)) + self.means.square().sum(1) * t.square();
        let distance = sizes - x.matmul(&self.means.t()) * t * 2.0;
        let normal = (variance.log() + std::f64::consts::TAU.ln()) * self.means.size(1);
        &self.log_weights - (normal + distance / variance) * 0.5
    }
}
