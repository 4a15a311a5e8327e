//! A text-to-image model of any architecture, and its directory.

use super::files::{failed, raw_weights, with_weights};
use super::{Mmdit, UNet};
use crate::flow::towards;
use crate::module::Module;
use crate::nn::Context;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};
use ferrata_formats::huggingface::{
    DirectoryConfig, FlowConfig, FlowDirectory, FlowNetwork, Prediction,
};
use ferrata_ir::{DType, Error, Result};
use std::path::Path;

/// A model of the velocity that carries noise to pictures that a text describes; see
/// [`crate::flow`].
///
/// ```
/// use ferrata::models::{DirectoryConfig, FlowConfig, FlowModel};
/// use ferrata::{DType, Key, Tensor, nn::Context};
/// # let config = r#"{"model_type": "mmdit", "image_size": 8, "patch_size": 4, "hidden_size": 8,
/// #   "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
/// #   "vocab_size": 10, "max_position_embeddings": 3}"#;
/// # let config = FlowConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
/// # let config = config.unwrap();
/// let model = FlowModel::new(&config, &Key::new(1))?;
/// let noise = Tensor::randn([2, 3, 8, 8], DType::F32, &Key::new(2));
/// let (time, text) = (Tensor::from([0.0f32, 0.5]), Tensor::from([[1i64, 2, 3], [4, 5, 0]]));
/// let velocity = model.forward(&noise, &time, &text, &mut Context::eval());
/// assert_eq!(velocity.shape(), [2, 3, 8, 8]);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlowModel {
    /// Sizes and settings.
    pub config: FlowConfig,
    /// The network.
    pub network: VelocityNetwork,
}

/// The networks that tell velocities or pictures.
#[derive(Clone, Debug)]
pub enum VelocityNetwork {
    /// Transformer of patches and text.
    Mmdit(Mmdit),
    /// Convolutions with attention to the text.
    UNet(Box<UNet>),
}

impl Tree for FlowModel {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.config);
        match &self.network {
            VelocityNetwork::Mmdit(model) => model.visit(visitor),
            VelocityNetwork::UNet(model) => model.visit(visitor),
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        let network = match &self.network {
            VelocityNetwork::Mmdit(model) => VelocityNetwork::Mmdit(model.rebuild(f)),
            VelocityNetwork::UNet(model) => VelocityNetwork::UNet(model.rebuild(f)),
        };
        FlowModel { config: self.config.clone(), network }
    }
}

impl Module for FlowModel {}

impl FlowModel {
    /// A model with random f32 weights.
    ///
    /// # Errors
    /// If the sizes of the configuration do not fit together.
    pub fn new(config: &FlowConfig, key: &Key) -> Result<FlowModel> {
        config.validate("config.json".as_ref()).map_err(failed)?;
        let network = match &config.network {
            FlowNetwork::Mmdit(net) => VelocityNetwork::Mmdit(Mmdit::new(config, net, key)),
            FlowNetwork::UNet(net) => VelocityNetwork::UNet(Box::new(UNet::new(config, net, key))),
        };
        Ok(FlowModel { config: config.clone(), network })
    }

    /// [`FlowModel::from_directory`] of the directory at `path`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, also if it is no text-to-image model.
    pub fn load(path: impl AsRef<Path>) -> Result<FlowModel> {
        let path = path.as_ref();
        match FlowDirectory::open(path).map_err(failed)? {
            Some(directory) => FlowModel::from_directory(&directory),
            None => Err(Error::new(format!("`{}` paints no pictures", path.display()))
                .help("its config.json must name such a model as `model_type`")),
        }
    }

    /// The model of an opened directory with `config.json` and `model.safetensors`. Parameters
    /// become f32 whatever dtype they are stored in.
    ///
    /// # Errors
    /// Lists all names of weights that are missing, unexpected, or have another shape.
    pub fn from_directory(directory: &FlowDirectory) -> Result<FlowModel> {
        // The random weights are lazy: they are never computed.
        let empty = FlowModel::new(&directory.config, &Key::new(0))?;
        with_weights(&empty, directory.weights())
    }

    /// Writes a directory that [`FlowModel::load`] reads, in the dtype of the parameters.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let weights = raw_weights(self)?;
        let dtype = weights.first().map_or(DType::F32, |(_, weight)| weight.dtype);
        let config = FlowConfig { dtype, ..self.config.clone() };
        let views = weights.iter().map(|(name, weight)| (name.as_str(), weight.view()));
        FlowDirectory::write(path, &config, views).map_err(failed)
    }

    /// The velocity of `x [batch, channels, height, width]` at times `t [batch]`, for captions
    /// `text`, i64 `[batch, text_length]`: the shape of `x`. A network that tells pictures is
    /// computed with in the dtype of `x` from there on.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, t: &Tensor, text: &Tensor, cx: &mut Context) -> Tensor {
        let told = match &self.network {
            VelocityNetwork::Mmdit(model) => model.forward(x, t, text, cx),
            VelocityNetwork::UNet(model) => model.forward(x, t, text, cx),
        };
        match self.config.prediction {
            Prediction::Velocity => told,
            Prediction::Picture => towards(&told, x, t),
        }
    }
}
