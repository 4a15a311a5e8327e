//! Pooling and resizing of the last dimensions.

use crate::tensor::Tensor;
use ferrata_ir::composite::{self, GridSample, Interpolation, Pool};

impl Tensor {
    /// The largest element of sliding windows over the last dimensions. Padding never is one; NaN
    /// wins; the gradient goes to the first of equal elements.
    ///
    /// ```
    /// use ferrata::{Pool, Tensor};
    /// let x = Tensor::from([[1.0f32, 5.0, 2.0, 4.0]]);
    /// assert_eq!(x.max_pool(&Pool::new([2])).to_vec::<f32>()?, [5.0, 4.0]);
    /// assert_eq!(x.max_pool(&Pool::new([3]).stride([1])).to_vec::<f32>()?, [5.0, 5.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn max_pool(&self, pool: &Pool) -> Tensor {
        Tensor::built1("max_pool", &[self], |b, x| composite::max_pool(b, x[0], pool))
    }

    /// The mean of sliding windows over the last dimensions. Their size counts padding, if
    /// `include_padding`.
    #[track_caller]
    pub fn avg_pool(&self, pool: &Pool, include_padding: bool) -> Tensor {
        Tensor::built1("avg_pool", &[self], |b, x| {
            composite::avg_pool(b, x[0], pool, include_padding)
        })
    }

    /// The largest elements of cells that cover the last dimensions: as many as `sizes` says.
    #[track_caller]
    pub fn adaptive_max_pool(&self, sizes: &[usize]) -> Tensor {
        Tensor::built1("adaptive_max_pool", &[self], |b, x| {
            composite::adaptive_max_pool(b, x[0], sizes)
        })
    }

    /// The means of cells that cover the last dimensions: as many as `sizes` says. Cells overlap by
    /// an element where a size does not divide.
    #[track_caller]
    pub fn adaptive_avg_pool(&self, sizes: &[usize]) -> Tensor {
        Tensor::built1("adaptive_avg_pool", &[self], |b, x| {
            composite::adaptive_avg_pool(b, x[0], sizes)
        })
    }

    /// Resizes the last dimensions to `sizes`. Linear and cubic interpolation are products with
    /// constant matrices: a NaN or an infinity spreads along its row and column.
    ///
    /// ```
    /// use ferrata::{Interpolation, Tensor};
    /// let x = Tensor::from([0.0f32, 4.0]);
    /// let linear = Interpolation::Linear { align_corners: false };
    /// assert_eq!(x.interpolate(&[4], linear).to_vec::<f32>()?, [0.0, 1.0, 3.0, 4.0]);
    /// assert_eq!(x.interpolate(&[3], Interpolation::Nearest).to_vec::<f32>()?, [0.0, 0.0, 4.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn interpolate(&self, sizes: &[usize], mode: Interpolation) -> Tensor {
        Tensor::built1("interpolate", &[self], |b, x| composite::interpolate(b, x[0], sizes, mode))
    }

    /// Images `[batch, channels, height, width]` at the places `(x, y)` of `grid [batch, h, w, 2]`,
    /// which go from -1 to 1 over the image: `[batch, channels, h, w]`.
    #[track_caller]
    pub fn grid_sample(&self, grid: &Tensor, how: GridSample) -> Tensor {
        Tensor::built1("grid_sample", &[self, grid], |b, x| {
            composite::grid_sample(b, x[0], x[1], how)
        })
    }
}
