//! Convolutions, and windows as columns.

use crate::tensor::Tensor;
use ferrata_ir::composite::{self, Conv};

impl Tensor {
    /// Cross-correlation of `[batch, channels, spatial..]` with the kernels
    /// `weight [outputs, channels / groups, kernel..]`, plus `bias [outputs]`: `[batch, outputs,
    /// positions..]`, for one or more spatial dimensions.
    ///
    /// ```
    /// use ferrata::{Conv, DType, Tensor};
    /// let x = Tensor::ones([1, 3, 8, 8], DType::F32);
    /// let w = Tensor::ones([16, 3, 3, 3], DType::F32);
    /// assert_eq!(x.conv(&w, None, &Conv::new(2).padding(1)).shape(), [1, 16, 8, 8]);
    /// assert_eq!(x.conv(&w, None, &Conv::new(2).stride(2)).shape(), [1, 16, 3, 3]);
    /// ```
    #[track_caller]
    pub fn conv(&self, weight: &Tensor, bias: Option<&Tensor>, how: &Conv) -> Tensor {
        let inputs: Vec<&Tensor> = [Some(self), Some(weight), bias].into_iter().flatten().collect();
        Tensor::built1("conv", &inputs, |b, x| {
            composite::conv(b, x[0], x[1], x.get(2).copied(), how)
        })
    }

    /// The gradient of [`Tensor::conv`] by its operand, as an operation: `[batch, channels,
    /// spatial..]` and `weight [channels, outputs / groups, kernel..]`, plus `bias [outputs]`, give
    /// `[batch, outputs, positions..]` with `(size - 1) stride - padding + dilation (kernel - 1) +
    /// output_padding + 1` positions in each spatial dimension.
    ///
    /// ```
    /// use ferrata::{Conv, DType, Tensor};
    /// let x = Tensor::ones([1, 16, 4, 4], DType::F32);
    /// let w = Tensor::ones([16, 3, 2, 2], DType::F32);
    /// let y = x.conv_transpose(&w, None, &Conv::new(2).stride(2), &[0, 0]);
    /// assert_eq!(y.shape(), [1, 3, 8, 8]);
    /// ```
    #[track_caller]
    pub fn conv_transpose(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        how: &Conv,
        output_padding: &[usize],
    ) -> Tensor {
        let inputs: Vec<&Tensor> = [Some(self), Some(weight), bias].into_iter().flatten().collect();
        Tensor::built1("conv_transpose", &inputs, |b, x| {
            composite::conv_transpose(b, x[0], x[1], x.get(2).copied(), how, output_padding)
        })
    }

    /// The windows of a kernel of these `sizes` over `[batch, channels, spatial..]` as columns
    /// `[batch, channels sizes.., positions]`; the groups of `how` do not count.
    ///
    /// ```
    /// use ferrata::{Conv, Tensor};
    /// let x = Tensor::arange(4).reshape([1, 1, 4]).cast(ferrata::DType::F32);
    /// let y = x.unfold(&[2], &Conv::new(1));
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 1.0, 2.0, 1.0, 2.0, 3.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn unfold(&self, sizes: &[usize], how: &Conv) -> Tensor {
        Tensor::built1("unfold", &[self], |b, x| composite::unfold(b, x[0], sizes, how))
    }

    /// The transpose of [`Tensor::unfold`]: columns `[batch, channels sizes.., positions]` become
    /// `[batch, channels, spatial..]`, of which each element is the sum of the window elements that
    /// came from it.
    #[track_caller]
    pub fn fold(&self, spatial: &[usize], sizes: &[usize], how: &Conv) -> Tensor {
        Tensor::built1("fold", &[self], |b, x| composite::fold(b, x[0], spatial, sizes, how))
    }
}
