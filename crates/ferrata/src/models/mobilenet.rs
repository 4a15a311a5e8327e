//! MobileNetV2: inverted residual blocks of pointwise and depthwise convolutions. The paths of the
//! parameters are the names that torchvision gives them.

use crate::module::Module;
use crate::nn::{BatchNorm, Context, Conv2d, Dropout, Init, Linear, Repeat};
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_formats::huggingface::{ImageConfig, MobileNetV2Config, Stem};
use ferrata_ir::composite::Conv;

/// Expansion, width, number of blocks and stride of the first, for each stage.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];
/// Channels behind the first convolution and behind the last one.
const ENDS: [usize; 2] = [32, 1280];

/// A network of inverted residual blocks that classifies images.
#[derive(Clone, Debug, Module)]
pub struct MobileNetV2 {
    /// Everything but the classifier.
    pub features: Features,
    /// Before the classifier.
    pub dropout: Dropout,
    /// Scores of the classes.
    #[module(name = "classifier.1")]
    pub classifier: Linear,
}

/// The first convolution, the blocks, the last convolution, numbered through.
#[derive(Clone, Debug)]
pub struct Features {
    /// 3 × 3, to half of the size.
    pub first: ConvNorm,
    /// The blocks.
    pub blocks: Repeat<Block>,
    /// 1 × 1.
    pub last: ConvNorm,
}

/// A convolution with its normalisation.
#[derive(Clone, Debug, Module)]
pub struct ConvNorm {
    /// Without bias.
    #[module(name = "0")]
    pub conv: Conv2d,
    /// Behind it.
    #[module(name = "1")]
    pub norm: BatchNorm,
}

/// From narrow to wide, over space, back to narrow; beside a shortcut, if nothing changes.
#[derive(Clone, Debug)]
pub struct Block {
    /// The pointwise convolution to the inner width, if that is another, and the depthwise one;
    /// each is followed by ReLU6.
    pub inner: Vec<ConvNorm>,
    /// 1 × 1, to the outer width.
    pub project: Conv2d,
    /// Behind it.
    pub norm: BatchNorm,
    /// Whether the block's input is added.
    pub residual: bool,
}

impl Tree for Features {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.blocks.recompute);
        visitor.field("0", &self.first);
        for (i, block) in self.blocks.blocks.iter().enumerate() {
            visitor.item(i + 1, block);
        }
        visitor.item(self.blocks.len() + 1, &self.last);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Features {
            first: self.first.rebuild(f),
            blocks: self.blocks.rebuild(f),
            last: self.last.rebuild(f),
        }
    }
}

impl Tree for Block {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.residual);
        visitor.field("conv", &self.inner);
        let n = self.inner.len();
        visitor.field(&format!("conv.{n}"), &self.project);
        visitor.field(&format!("conv.{}", n + 1), &self.norm);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Block {
            inner: self.inner.rebuild(f),
            project: self.project.rebuild(f),
            norm: self.norm.rebuild(f),
            residual: self.residual,
        }
    }
}

impl Module for Features {}
impl Module for Block {}

impl MobileNetV2 {
    /// A model with random f32 weights, initialised as torchvision does.
    pub(super) fn new(config: &ImageConfig, net: &MobileNetV2Config, key: &Key) -> MobileNetV2 {
        // Small images are halved twice less often.
        let small = net.stem == Stem::Cifar;
        let [mut inputs, end] = ENDS;
        let mut blocks = Vec::new();
        for (i, [expansion, width, count, stride]) in STAGES.into_iter().enumerate() {
            let stride = if small && i == 1 { 1 } else { stride };
            for n in 0..count {
                let stride = if n == 0 { stride } else { 1 };
                let key = key.fold(2).fold(blocks.len() as u32);
                blocks.push(Block::new(inputs, width, expansion, stride, &key));
                inputs = width;
            }
        }
        let how = Conv::new(2).stride(if small { 1 } else { 2 }).padding(1);
        let classes = config.classes;
        MobileNetV2 {
            features: Features {
                first: ConvNorm::new(config.channels, ENDS[0], 3, how, &key.fold(0)),
                blocks: blocks.into_iter().collect(),
                last: ConvNorm::new(inputs, end, 1, Conv::new(2), &key.fold(1)),
            },
            dropout: Dropout::new(net.dropout),
            classifier: Linear::with_init(end, classes, true, Init::Normal(0.01), &key.fold(3)),
        }
    }

    /// Scores `[batch, classes]` of images `[batch, channels, height, width]`.
    #[track_caller]
    pub fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        let features = &self.features;
        let x = cx.scope("features", |cx| {
            let x = cx.scope("first", |cx| features.first.forward(images, cx));
            let blocks = &features.blocks;
            let x = blocks.forward(x, cx, |block, x, cx| block.forward(&x, cx));
            cx.scope("last", |cx| features.last.forward(&x, cx))
        });
        let x = self.dropout.forward(&x.mean([2, 3]), cx);
        cx.scope("classifier", |cx| self.classifier.forward(&x, cx))
    }
}

impl ConvNorm {
    fn new(inputs: usize, outputs: usize, kernel: usize, how: Conv, key: &Key) -> ConvNorm {
        let init = Init::KaimingNormalFanOut;
        ConvNorm {
            conv: Conv2d::with_init(inputs, outputs, [kernel, kernel], how, init, key),
            norm: BatchNorm::new(outputs),
        }
    }

    /// With ReLU6.
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("0", |cx| self.conv.forward(x, cx));
        cx.scope("1", |cx| self.norm.forward(&x, cx)).relu6()
    }
}

impl Block {
    fn new(inputs: usize, outputs: usize, expansion: usize, stride: usize, key: &Key) -> Block {
        let inner = inputs * expansion;
        let depthwise = Conv::new(2).stride(stride).padding(1).groups(inner);
        let expand =
            (expansion > 1).then(|| ConvNorm::new(inputs, inner, 1, Conv::new(2), &key.fold(0)));
        let depthwise = ConvNorm::new(inner, inner, 3, depthwise, &key.fold(1));
        let init = Init::KaimingNormalFanOut;
        Block {
            inner: expand.into_iter().chain([depthwise]).collect(),
            project: Conv2d::with_init(inner, outputs, [1, 1], Conv::new(2), init, &key.fold(2)),
            norm: BatchNorm::new(outputs),
            residual: stride == 1 && inputs == outputs,
        }
    }

    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let names = ["depthwise", "expand"].into_iter().take(self.inner.len()).rev();
        let y = names
            .zip(&self.inner)
            .fold(x.clone(), |x, (name, layer)| cx.scope(name, |cx| layer.forward(&x, cx)));
        let y = cx.scope("project", |cx| self.project.forward(&y, cx));
        let y = cx.scope("norm", |cx| self.norm.forward(&y, cx));
        if self.residual { cx.cast(x) + y } else { y }
    }
}
