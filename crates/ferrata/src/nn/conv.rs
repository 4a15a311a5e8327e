//! Convolutions as layers.

use super::{Context, Init};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_ir::DType;
use ferrata_ir::composite::Conv;

/// A convolution over `D` spatial dimensions.
///
/// ```
/// use ferrata::nn::{Context, Conv2d};
/// use ferrata::{Conv, DType, Key, Tensor};
/// let layer = Conv2d::new(3, 16, [3, 3], Conv::new(2).stride(2).padding(1), &Key::new(0));
/// let y = layer.forward(&Tensor::ones([1, 3, 32, 32], DType::F32), &mut Context::eval());
/// assert_eq!(y.shape(), [1, 16, 16, 16]);
/// ```
#[derive(Clone, Debug, Module)]
pub struct ConvLayer<const D: usize> {
    /// `[outputs, inputs / groups, kernel..]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
    /// Stride, padding, dilation, groups.
    pub how: Conv,
}

/// A convolution over sequences `[batch, channels, time]`.
pub type Conv1d = ConvLayer<1>;
/// A convolution over images `[batch, channels, height, width]`.
pub type Conv2d = ConvLayer<2>;
/// A convolution over volumes `[batch, channels, depth, height, width]`.
pub type Conv3d = ConvLayer<3>;

/// A transposed convolution over `D` spatial dimensions.
#[derive(Clone, Debug, Module)]
pub struct ConvTransposeLayer<const D: usize> {
    /// `[inputs, outputs / groups, kernel..]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Option<Tensor>,
    /// Stride, padding, dilation, groups.
    pub how: Conv,
    /// Elements added at the end of each spatial dimension of the result.
    pub output_padding: [usize; D],
}

/// A transposed convolution over sequences `[batch, channels, time]`.
pub type ConvTranspose1d = ConvTransposeLayer<1>;
/// A transposed convolution over images `[batch, channels, height, width]`.
pub type ConvTranspose2d = ConvTransposeLayer<2>;
/// A transposed convolution over volumes `[batch, channels, depth, height, width]`.
pub type ConvTranspose3d = ConvTransposeLayer<3>;

impl Tree for Conv {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(self);
    }

    fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.clone()
    }
}

/// A kernel with these leading sizes, and a bias, initialised as PyTorch does.
fn initial(leading: [usize; 2], kernel: &[usize], outputs: usize, key: &Key) -> (Tensor, Tensor) {
    let shape = [&leading, kernel].concat();
    let fan_in: usize = shape[1..].iter().product();
    let bias = Init::Uniform(1.0 / (fan_in.max(1) as f64).sqrt());
    (
        Init::FanIn.make(&shape, DType::F32, &key.fold(0)),
        bias.make(&[outputs], DType::F32, &key.fold(1)),
    )
}

impl<const D: usize> ConvLayer<D> {
    /// A layer with bias, initialised as PyTorch does.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, kernel: [usize; D], how: Conv, key: &Key) -> Self {
        let channels = inputs / how.groups.max(1);
        let (weight, bias) = initial([outputs, channels], &kernel, outputs, key);
        ConvLayer { weight, bias: Some(bias), how }
    }

    /// A layer without bias and with the given initial weight.
    #[track_caller]
    pub fn with_init(
        inputs: usize,
        outputs: usize,
        kernel: [usize; D],
        how: Conv,
        weight: Init,
        key: &Key,
    ) -> Self {
        let shape = [&[outputs, inputs / how.groups.max(1)], &kernel[..]].concat();
        ConvLayer { weight: weight.make(&shape, DType::F32, key), bias: None, how }
    }

    /// `x [batch, inputs, spatial..]` becomes `[batch, outputs, positions..]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let bias = self.bias.as_ref().map(|b| cx.cast(b));
        cx.cast(x).conv(&cx.cast(&self.weight), bias.as_ref(), &self.how)
    }
}

impl<const D: usize> ConvTransposeLayer<D> {
    /// A layer with bias, initialised as PyTorch does.
    #[track_caller]
    pub fn new(inputs: usize, outputs: usize, kernel: [usize; D], how: Conv, key: &Key) -> Self {
        let channels = outputs / how.groups.max(1);
        let (weight, bias) = initial([inputs, channels], &kernel, outputs, key);
        ConvTransposeLayer { weight, bias: Some(bias), how, output_padding: [0; D] }
    }

    /// `x [batch, inputs, spatial..]` becomes `[batch, outputs, positions..]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let bias = self.bias.as_ref().map(|b| cx.cast(b));
        let weight = cx.cast(&self.weight);
        cx.cast(x).conv_transpose(&weight, bias.as_ref(), &self.how, &self.output_padding)
    }
}
