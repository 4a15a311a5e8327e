//! ResNet: residual blocks of convolutions. The paths of the parameters are the names that
//! torchvision gives them.

use crate::module::Module;
use crate::nn::{BatchNorm, Context, Conv2d, Init, Linear, Repeat};
use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_formats::huggingface::{ImageConfig, ResNetConfig, Stem};
use ferrata_ir::composite::{Conv, Pool};

/// A residual network that classifies images.
#[derive(Clone, Debug, Module)]
pub struct ResNet {
    /// The first convolution.
    pub conv1: Conv2d,
    /// Behind it.
    pub bn1: BatchNorm,
    /// Blocks at full size.
    pub layer1: Repeat<Block>,
    /// Blocks at half of it.
    pub layer2: Repeat<Block>,
    /// Blocks at a quarter.
    pub layer3: Repeat<Block>,
    /// Blocks at an eighth.
    pub layer4: Repeat<Block>,
    /// Scores of the classes.
    pub fc: Linear,
    /// Whether the largest of 3 × 3 pixels are taken before the blocks.
    pub pools: bool,
}

/// Two or three convolutions beside a shortcut.
#[derive(Clone, Debug, Module)]
pub struct Block {
    /// 3 × 3, or 1 × 1 to the inner width of a bottleneck.
    pub conv1: Conv2d,
    /// Behind it.
    pub bn1: BatchNorm,
    /// 3 × 3.
    pub conv2: Conv2d,
    /// Behind it.
    pub bn2: BatchNorm,
    /// 1 × 1 to the outer width of a bottleneck.
    pub conv3: Option<Conv2d>,
    /// Behind it.
    pub bn3: Option<BatchNorm>,
    /// The shortcut, where size or width change.
    pub downsample: Option<Downsample>,
}

/// A shortcut that changes size or width.
#[derive(Clone, Debug, Module)]
pub struct Downsample {
    /// 1 × 1.
    #[module(name = "0")]
    pub conv: Conv2d,
    /// Behind it.
    #[module(name = "1")]
    pub norm: BatchNorm,
}

/// A convolution without bias that keeps the size, but for the stride.
fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, key: &Key) -> Conv2d {
    let how = Conv::new(2).stride(stride).padding((kernel / 2) as i64);
    let init = Init::KaimingNormalFanOut;
    Conv2d::with_init(inputs, outputs, [kernel, kernel], how, init, key)
}

impl ResNet {
    /// A model with random f32 weights, initialised as torchvision does.
    pub(super) fn new(config: &ImageConfig, resnet: &ResNetConfig, key: &Key) -> ResNet {
        let width = resnet.width;
        let expansion = if resnet.depth.is_bottleneck() { 4 } else { 1 };
        let mut inputs = width;
        let mut layers = resnet.depth.blocks().into_iter().enumerate().map(|(i, blocks)| {
            let inner = width << i;
            let blocks = (0..blocks).map(|n| {
                let stride = if i > 0 && n == 0 { 2 } else { 1 };
                let key = key.fold(2 + i as u32).fold(n as u32);
                let block = Block::new(inputs, inner, expansion, stride, &key);
                inputs = inner * expansion;
                block
            });
            blocks.collect::<Repeat<Block>>()
        });
        let mut next = || layers.next().unwrap_or_else(|| Repeat::from_iter([]));
        let [layer1, layer2, layer3, layer4] = [next(), next(), next(), next()];
        let (kernel, stride) = match resnet.stem {
            Stem::Imagenet => (7, 2),
            Stem::Cifar => (3, 1),
        };
        ResNet {
            conv1: conv(config.channels, width, kernel, stride, &key.fold(0)),
            bn1: BatchNorm::new(width),
            layer1,
            layer2,
            layer3,
            layer4,
            fc: Linear::new(8 * width * expansion, config.classes, &key.fold(1)),
            pools: resnet.stem == Stem::Imagenet,
        }
    }

    /// Scores `[batch, classes]` of images `[batch, channels, height, width]`.
    #[track_caller]
    pub fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        let x = cx.scope("conv1", |cx| self.conv1.forward(images, cx));
        let x = cx.scope("bn1", |cx| self.bn1.forward(&x, cx)).relu();
        let x = match self.pools {
            true => x.max_pool(&Pool::new([3, 3]).stride([2, 2]).padding([1, 1])),
            false => x,
        };
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let x = ["layer1", "layer2", "layer3", "layer4"].into_iter().zip(layers).fold(
            x,
            |x, (name, layer)| {
                cx.scope(name, |cx| layer.forward(x, cx, |block, x, cx| block.forward(&x, cx)))
            },
        );
        let x = x.mean([2, 3]);
        cx.scope("fc", |cx| self.fc.forward(&x, cx))
    }
}

impl Block {
    fn new(inputs: usize, inner: usize, expansion: usize, stride: usize, key: &Key) -> Block {
        let outputs = inner * expansion;
        let third = (expansion > 1).then(|| conv(inner, outputs, 1, 1, &key.fold(2)));
        let shortcut = || Downsample {
            conv: conv(inputs, outputs, 1, stride, &key.fold(3)),
            norm: BatchNorm::new(outputs),
        };
        // A bottleneck changes the size in its middle.
        let (kernel, first, second) = if expansion > 1 { (1, 1, stride) } else { (3, stride, 1) };
        Block {
            conv1: conv(inputs, inner, kernel, first, &key.fold(0)),
            bn1: BatchNorm::new(inner),
            conv2: conv(inner, inner, 3, second, &key.fold(1)),
            bn2: BatchNorm::new(inner),
            bn3: third.as_ref().map(|_| BatchNorm::new(outputs)),
            conv3: third,
            downsample: (stride != 1 || inputs != outputs).then(shortcut),
        }
    }

    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let y = cx.scope("conv1", |cx| self.conv1.forward(x, cx));
        let y = cx.scope("bn1", |cx| self.bn1.forward(&y, cx)).relu();
        let y = cx.scope("conv2", |cx| self.conv2.forward(&y, cx));
        let mut y = cx.scope("bn2", |cx| self.bn2.forward(&y, cx));
        if let (Some(conv3), Some(bn3)) = (&self.conv3, &self.bn3) {
            y = cx.scope("conv3", |cx| conv3.forward(&y.relu(), cx));
            y = cx.scope("bn3", |cx| bn3.forward(&y, cx));
        }
        let shortcut = match &self.downsample {
            Some(shortcut) => cx.scope("downsample", |cx| {
                let x = cx.scope("0", |cx| shortcut.conv.forward(x, cx));
                cx.scope("1", |cx| shortcut.norm.forward(&x, cx))
            }),
            None => cx.cast(x),
        };
        (y + shortcut).relu()
    }
}
