//! An image classifier of any architecture, and its directory.

use super::files::{failed, raw_weights, with_weights};
use super::{MobileNetV2, ResNet, Vit};
use crate::module::Module;
use crate::nn::Context;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{self, Tree, Visitor};
use ferrata_formats::huggingface::{Architecture, DirectoryConfig, ImageConfig, ImageDirectory};
use ferrata_ir::{DType, Error, Result};
use std::path::Path;

/// An image classifier.
///
/// ```
/// use ferrata::models::{DirectoryConfig, ImageConfig, ImageModel};
/// use ferrata::{DType, Key, Tensor, nn::Context};
/// # let config = r#"{"model_type": "vit", "image_size": 8, "patch_size": 4, "hidden_size": 4,
/// #   "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
/// #   "num_labels": 10}"#;
/// # let config = ImageConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
/// # let config = config.unwrap();
/// let model = ImageModel::new(&config, &Key::new(1))?;
/// let images = Tensor::zeros([2, 3, 8, 8], DType::F32);
/// assert_eq!(model.forward(&images, &mut Context::eval()).shape(), [2, 10]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageModel {
    /// Sizes, settings, names of the classes.
    pub config: ImageConfig,
    /// The network.
    pub network: Network,
}

/// The networks that classify images.
#[derive(Clone, Debug)]
pub enum Network {
    /// Residual network.
    ResNet(ResNet),
    /// Inverted residual blocks of depthwise convolutions.
    MobileNetV2(MobileNetV2),
    /// Vision transformer.
    Vit(Vit),
}

impl Tree for ImageModel {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.config);
        match &self.network {
            Network::ResNet(model) => model.visit(visitor),
            Network::MobileNetV2(model) => model.visit(visitor),
            Network::Vit(model) => model.visit(visitor),
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        let network = match &self.network {
            Network::ResNet(model) => Network::ResNet(model.rebuild(f)),
            Network::MobileNetV2(model) => Network::MobileNetV2(model.rebuild(f)),
            Network::Vit(model) => Network::Vit(model.rebuild(f)),
        };
        ImageModel { config: self.config.clone(), network }
    }
}

impl Module for ImageModel {}

impl ImageModel {
    /// A model with random f32 weights.
    ///
    /// # Errors
    /// If the sizes of the configuration do not fit together.
    pub fn new(config: &ImageConfig, key: &Key) -> Result<ImageModel> {
        config.validate("config.json".as_ref()).map_err(failed)?;
        let network = match &config.architecture {
            Architecture::ResNet(net) => Network::ResNet(ResNet::new(config, net, key)),
            Architecture::MobileNetV2(net) => {
                Network::MobileNetV2(MobileNetV2::new(config, net, key))
            }
            Architecture::Vit(vit) => Network::Vit(Vit::new(config, vit, key)),
        };
        Ok(ImageModel { config: config.clone(), network })
    }

    /// Reads a directory with `config.json` and `model.safetensors`. Parameters become f32
    /// whatever dtype they are stored in.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, also if it is no image classifier.
    pub fn load(path: impl AsRef<Path>) -> Result<ImageModel> {
        let path = path.as_ref();
        match ImageDirectory::open(path).map_err(failed)? {
            Some(directory) => ImageModel::from_directory(&directory),
            None => Err(Error::new(format!("`{}` is no image classifier", path.display()))
                .help("its config.json must name one as `architecture` or `model_type`")),
        }
    }

    /// [`ImageModel::load`] of an opened directory.
    ///
    /// # Errors
    /// Lists all names of weights that are missing, unexpected, or have another shape.
    pub fn from_directory(directory: &ImageDirectory) -> Result<ImageModel> {
        // Only PyTorch counts batches, for averages that nobody uses by default.
        let weights =
            directory.weights().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
        // The random weights are lazy: they are never computed.
        let empty = ImageModel::new(&directory.config, &Key::new(0))?;
        with_weights(&empty, weights)
    }

    /// Writes a directory that [`ImageModel::load`] reads, in the dtype of the parameters.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let weights = raw_weights(self)?;
        let dtype = weights.first().map_or(DType::F32, |(_, weight)| weight.dtype);
        let config = ImageConfig { dtype, ..self.config.clone() };
        let views = weights.iter().map(|(name, weight)| (name.as_str(), weight.view()));
        ImageDirectory::write(path, &config, views).map_err(failed)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.config.classes
    }

    /// The same model with parameters of another float dtype.
    #[must_use]
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Self {
        tree::map(self, |parameter| parameter.cast(dtype))
    }

    /// Scores `[batch, classes]` of float images `[batch, channels, height, width]`, in the compute
    /// dtype. In training, running statistics are noted in the context: see
    /// [`Context::updates`].
    #[track_caller]
    pub fn forward(&self, images: &Tensor, cx: &mut Context) -> Tensor {
        match &self.network {
            Network::ResNet(model) => model.forward(images, cx),
            Network::MobileNetV2(model) => model.forward(images, cx),
            Network::Vit(model) => model.forward(images, cx),
        }
    }
}
