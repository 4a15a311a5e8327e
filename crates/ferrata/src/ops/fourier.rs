//! Fourier transforms, in f32 or f64. Complex numbers are pairs in the last dimension, real part
//! first: `[.., 2]`, as PyTorch's `view_as_real` has them. A dimension of complex values is
//! counted without that of the pairs: -1 is the one before it.

use crate::tensor::{IntoDims, Tensor, dimension};
use ferrata_ir::composite;
use ferrata_ir::primitive::{Dft, Pad};
use ferrata_ir::{DType, Error, Result, Type};

/// Where the factor of a pair of transforms of `n` elements stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FftNorm {
    /// `1 / n` on the way back.
    #[default]
    Backward,
    /// `1 / √n` on both ways.
    Ortho,
    /// `1 / n` on the way there.
    Forward,
}

impl FftNorm {
    fn factor(self, n: usize, inverse: bool) -> f64 {
        match self {
            FftNorm::Ortho => 1.0 / (n as f64).sqrt(),
            FftNorm::Backward if inverse => 1.0 / n as f64,
            FftNorm::Forward if !inverse => 1.0 / n as f64,
            _ => 1.0,
        }
    }
}

impl Tensor {
    /// Complex numbers `[.., 2]` with this real part and this imaginary part.
    #[track_caller]
    pub fn complex(real: &Tensor, imaginary: &Tensor) -> Tensor {
        Tensor::stack(&[real, imaginary], -1)
    }

    /// Complex numbers `[.., 2]` with this real part.
    #[track_caller]
    pub fn to_complex(&self) -> Tensor {
        Tensor::complex(self, &self.zeros_like())
    }

    /// The real part of complex numbers `[.., 2]`.
    #[track_caller]
    pub fn real(&self) -> Tensor {
        self.complex_part("real", 0)
    }

    /// The imaginary part of complex numbers `[.., 2]`.
    #[track_caller]
    pub fn imag(&self) -> Tensor {
        self.complex_part("imag", 1)
    }

    #[track_caller]
    fn complex_part(&self, name: &str, part: usize) -> Tensor {
        Tensor::op(name, &[self], || {
            self.complex_rank()?;
            Ok(self.narrow(-1, part, 1).squeeze(-1))
        })
    }

    /// The product of complex numbers `[.., 2]`; the shapes broadcast.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let (x, y) = (Tensor::from([[1.0f32, 2.0]]), Tensor::from([3.0f32, -1.0]));
    /// assert_eq!(x.complex_mul(&y).to_vec::<f32>()?, [5.0, 5.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn complex_mul(&self, other: &Tensor) -> Tensor {
        Tensor::op("complex_mul", &[self, other], || {
            let shape = crate::tensor::broadcast_shape(&[self.shape(), other.shape()])?;
            let (x, y) = (self.broadcast_to(&shape), other.broadcast_to(&shape));
            Ok(Tensor::built1("complex_mul", &[&x, &y], |b, x| {
                composite::complex_mul(b, x[0], x[1])
            }))
        })
    }

    /// The Fourier transform of complex numbers `[.., 2]` along `dim`, which is cut or filled with
    /// zeros to `n` elements first, if `n` is given. Any length is fast; one with prime factors up
    /// to 13 is fastest.
    ///
    /// ```
    /// use ferrata::{FftNorm, Tensor};
    /// let x = Tensor::from([1.0f32, 0.0, -1.0, 0.0]).to_complex();
    /// let y = x.fft(None, -1, FftNorm::Backward);
    /// assert_eq!(y.real().to_vec::<f32>()?, [0.0, 2.0, 0.0, 2.0]);
    /// let back = y.ifft(None, -1, FftNorm::Backward);
    /// assert_eq!(back.to_vec::<f32>()?, x.to_vec::<f32>()?);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn fft(&self, n: impl Into<Option<usize>>, dim: i64, norm: FftNorm) -> Tensor {
        Tensor::op("fft", &[self], || self.transformed(n.into(), dim, norm, false))
    }

    /// The inverse of [`Tensor::fft`].
    #[track_caller]
    pub fn ifft(&self, n: impl Into<Option<usize>>, dim: i64, norm: FftNorm) -> Tensor {
        Tensor::op("ifft", &[self], || self.transformed(n.into(), dim, norm, true))
    }

    /// [`Tensor::fft`] along several dimensions.
    #[track_caller]
    pub fn fftn(&self, dims: impl IntoDims, norm: FftNorm) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("fftn", &[self], || self.transformed_along(dims, norm, false))
    }

    /// The inverse of [`Tensor::fftn`].
    #[track_caller]
    pub fn ifftn(&self, dims: impl IntoDims, norm: FftNorm) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op("ifftn", &[self], || self.transformed_along(dims, norm, true))
    }

    /// [`Tensor::fft`] along the last two dimensions: of `[.., height, width, 2]`.
    #[track_caller]
    pub fn fft2(&self, norm: FftNorm) -> Tensor {
        Tensor::op("fft2", &[self], || self.transformed_along([-2, -1].into_dims(), norm, false))
    }

    /// The inverse of [`Tensor::fft2`].
    #[track_caller]
    pub fn ifft2(&self, norm: FftNorm) -> Tensor {
        Tensor::op("ifft2", &[self], || self.transformed_along([-2, -1].into_dims(), norm, true))
    }

    /// The first half of the spectrum of this real value along `dim`, of which `n / 2 + 1` complex
    /// numbers `[.., 2]` stay: the rest is their mirror image, conjugated. With `n`, the dimension
    /// is cut or filled with zeros first.
    ///
    /// ```
    /// use ferrata::{FftNorm, Tensor};
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]);
    /// let y = x.rfft(None, -1, FftNorm::Backward);
    /// assert_eq!(y.to_vec::<f32>()?, [10.0, 0.0, -2.0, 2.0, -2.0, 0.0]);
    /// assert_eq!(y.irfft(4, -1, FftNorm::Backward).to_vec::<f32>()?, x.to_vec::<f32>()?);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn rfft(&self, n: impl Into<Option<usize>>, dim: i64, norm: FftNorm) -> Tensor {
        let n = n.into();
        Tensor::op("rfft", &[self], || {
            let dim = dimension(dim, self.rank())?;
            let n = some_length(n.unwrap_or(self.shape()[dim]))?;
            let x = self.resized(dim, n).move_dim(dim as i64, -1);
            let y = Tensor::built1("rfft", &[&x], |b, x| composite::rfft(b, x[0]));
            Ok(y.move_dim(-2, dim as i64) * norm.factor(n, false))
        })
    }

    /// The real value of `n` elements whose spectrum begins with these complex numbers `[.., 2]`
    /// along `dim`, which is cut or filled with zeros to `n / 2 + 1`. `None`: twice as many as
    /// there are, less 2. The inverse of [`Tensor::rfft`].
    #[track_caller]
    pub fn irfft(&self, n: impl Into<Option<usize>>, dim: i64, norm: FftNorm) -> Tensor {
        let n = n.into();
        Tensor::op("irfft", &[self], || {
            let dim = dimension(dim, self.complex_rank()?)?;
            let n = some_length(n.unwrap_or((2 * self.shape()[dim]).saturating_sub(2)))?;
            let x = self.resized(dim, n / 2 + 1).move_dim(dim as i64, -2);
            let y = Tensor::built1("irfft", &[&x], |b, x| composite::irfft(b, x[0], n));
            Ok(y.move_dim(-1, dim as i64) * norm.factor(n, true))
        })
    }

    /// [`Tensor::rfft`] along the last dimension, [`Tensor::fft`] along the one before it: of
    /// `[.., height, width]` complex `[.., height, width / 2 + 1, 2]`.
    #[track_caller]
    pub fn rfft2(&self, norm: FftNorm) -> Tensor {
        Tensor::op("rfft2", &[self], || {
            self.rfft(None, -1, norm).transformed(None, -2, norm, false)
        })
    }

    /// The inverse of [`Tensor::rfft2`]; `n` as in [`Tensor::irfft`].
    #[track_caller]
    pub fn irfft2(&self, n: impl Into<Option<usize>>, norm: FftNorm) -> Tensor {
        let n = n.into();
        Tensor::op("irfft2", &[self], || {
            Ok(self.transformed(None, -2, norm, true)?.irfft(n, -1, norm))
        })
    }

    /// Brings frequency 0 from the start to the middle along `dims`, which count all dimensions.
    #[track_caller]
    pub fn fftshift(&self, dims: impl IntoDims) -> Tensor {
        self.shifted("fftshift", dims, |n| n / 2)
    }

    /// The inverse of [`Tensor::fftshift`].
    #[track_caller]
    pub fn ifftshift(&self, dims: impl IntoDims) -> Tensor {
        self.shifted("ifftshift", dims, |n| n.div_ceil(2))
    }

    #[track_caller]
    fn shifted(&self, name: &str, dims: impl IntoDims, by: impl Fn(usize) -> usize) -> Tensor {
        let dims = dims.into_dims();
        Tensor::op(name, &[self], || {
            let dims = dims.resolve(self.rank())?;
            let roll = |x: Tensor, d: usize| x.roll(by(self.shape()[d]) as i64, d as i64);
            Ok(dims.into_iter().fold(self.clone(), roll))
        })
    }

    /// The frequencies of [`Tensor::fft`] of `n` samples at distance `spacing`: 0 and the positive
    /// ones, then the negative ones.
    ///
    /// ```
    /// use ferrata::{DType, Tensor};
    /// let f = Tensor::fftfreq(4, 0.5, DType::F32);
    /// assert_eq!(f.to_vec::<f32>()?, [0.0, 0.5, -1.0, -0.5]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn fftfreq(n: usize, spacing: f64, dtype: DType) -> Tensor {
        let centred = Tensor::iota(n, 0, dtype) - (n / 2) as f64;
        centred.ifftshift(0) / (n as f64 * spacing)
    }

    /// The frequencies of [`Tensor::rfft`] of `n` samples at distance `spacing`.
    #[track_caller]
    pub fn rfftfreq(n: usize, spacing: f64, dtype: DType) -> Tensor {
        Tensor::iota(n / 2 + 1, 0, dtype) / (n as f64 * spacing)
    }

    /// Dimensions without that of the pairs.
    fn complex_rank(&self) -> Result<usize> {
        if let Some(error) = self.error() {
            return Err(error);
        }
        match self.shape().split_last() {
            Some((2, rest)) => Ok(rest.len()),
            _ => Err(Error::new(format!("{} holds no complex numbers [.., 2]", self.ty()))
                .help("make them with Tensor::complex or to_complex")),
        }
    }

    fn transformed(
        &self,
        n: Option<usize>,
        dim: i64,
        norm: FftNorm,
        inverse: bool,
    ) -> Result<Tensor> {
        let dim = dimension(dim, self.complex_rank()?)?;
        let n = some_length(n.unwrap_or(self.shape()[dim]))?;
        let x = self.resized(dim, n).move_dim(dim as i64, -2);
        let y = Tensor::record1(Dft { inverse }, &[&x]);
        Ok(y.move_dim(-2, dim as i64) * norm.factor(n, inverse))
    }

    fn transformed_along(
        &self,
        dims: crate::tensor::Dims,
        norm: FftNorm,
        inverse: bool,
    ) -> Result<Tensor> {
        let dims = dims.resolve(self.complex_rank()?)?;
        let along = |x: Tensor, &d: &usize| x.transformed(None, d as i64, norm, inverse);
        dims.iter().rev().try_fold(self.clone(), along)
    }

    /// Cut or filled with zeros at the end of a dimension.
    fn resized(&self, dim: usize, n: usize) -> Tensor {
        if self.shape()[dim] == n {
            return self.clone();
        }
        Tensor::built1("resize", &[self], |b, x| {
            let rank = self.rank();
            let mut high = vec![0; rank];
            high[dim] = n as i64 - self.shape()[dim] as i64;
            let zero = b.full(Type::scalar(self.dtype()), 0.0);
            b.emit1(Pad { low: vec![0; rank], high, interior: vec![0; rank] }, &[x[0], zero])
        })
    }
}

fn some_length(n: usize) -> Result<usize> {
    match n {
        0 => Err(Error::new("there is nothing to transform: the length is 0")),
        n => Ok(n),
    }
}
