//! Initial weights, and Hugging Face directories.

use super::{Gpt2, Llama, Model};
use crate::module::{Module, STACKED};
use crate::nn::Init;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree;
use ferrata_formats::huggingface::{ModelConfig, ModelDirectory, write_directory};
use ferrata_formats::{RawTensor, TensorView};
use ferrata_ir::{DType, Error, Result, Type};
use std::collections::HashMap;
use std::path::Path;

/// An error of a file as one of a model.
pub(super) fn failed(error: ferrata_formats::Error) -> Error {
    Error::new(error.to_string())
}

/// `empty` with the parameters of a file.
///
/// # Errors
/// Lists all names of weights that are missing, unexpected, or have another shape.
pub(super) fn with_weights<'a, M: Module>(
    empty: &M,
    weights: impl Iterator<Item = (&'a str, TensorView<'a>)>,
) -> Result<M> {
    let tensor =
        |view: TensorView<'_>| Tensor::from_bytes(Type::new(view.dtype, view.shape), view.bytes);
    let weights: HashMap<String, Tensor> =
        weights.map(|(name, view)| (name.to_owned(), tensor(view))).collect();
    let model = Module::load(empty, weights)?;
    tree::eval(&model)?;
    Ok(model)
}

/// A tensor as files hold it.
pub(crate) fn on_host(x: &Tensor) -> Result<RawTensor> {
    Ok(RawTensor { dtype: x.dtype(), shape: x.shape().to_vec(), bytes: x.to_bytes()? })
}

/// The parameters with their names, for a file.
pub(crate) fn raw_weights(module: &impl Module) -> Result<Vec<(String, RawTensor)>> {
    tree::eval(module)?;
    let mut weights = Vec::new();
    for (name, tensor) in module.named_parameters() {
        weights.extend(published(name, on_host(&tensor)?));
    }
    Ok(weights)
}

/// A parameter as it is published: slice by slice if its name says so.
pub(crate) fn published(name: String, raw: RawTensor) -> Vec<(String, RawTensor)> {
    let (Some((before, after)), Some((&count, rest))) =
        (name.split_once(STACKED), raw.shape.split_first())
    else {
        return vec![(name, raw)];
    };
    let size = (raw.bytes.len() / count.max(1)).max(1);
    let slice = |(i, bytes): (usize, &[u8])| {
        let (shape, bytes) = (rest.to_vec(), bytes.to_vec());
        (format!("{before}{i}{after}"), RawTensor { dtype: raw.dtype, shape, bytes })
    };
    raw.bytes.chunks_exact(size).enumerate().map(slice).collect()
}

impl Model {
    /// A model with random f32 weights: matrices and tables are normal with the standard
    /// deviation `initializer_range`, those that write into the residual stream with that divided
    /// by `√(2 layers)`; biases are zero and norms one.
    ///
    /// # Errors
    /// If the sizes of the configuration do not fit together.
    pub fn new(config: &ModelConfig, key: &Key) -> Result<Model> {
        config.validate("config.json".as_ref()).map_err(failed)?;
        let std = match config {
            ModelConfig::Gpt2(config) => config.initializer_range,
            ModelConfig::Llama(config) => config.initializer_range,
        };
        let residual = std / (2.0 * config.layers().max(1) as f64).sqrt();
        let mut number = 0;
        Ok(tree::map_named(&Model::zeros(config), |name, parameter| {
            let key = key.fold(number);
            number += 1;
            if parameter.rank() < 2 {
                return parameter.clone();
            }
            let writes = ["c_proj.weight", "o_proj.weight", "down_proj.weight", "w2.weight"];
            let std = if writes.iter().any(|end| name.ends_with(end)) { residual } else { std };
            Init::Normal(std).make(parameter.shape(), parameter.dtype(), &key)
        }))
    }

    /// Reads a Hugging Face directory: `config.json` and `model.safetensors`, also sharded by
    /// index. Parameters become f32 whatever dtype they are stored in.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Model> {
        let directory = ModelDirectory::open(path).map_err(failed)?;
        Model::from_directory(&directory)
    }

    /// [`Model::load`] of an opened directory. The special tokens are those of
    /// `generation_config.json` where it has any.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_directory(directory: &ModelDirectory) -> Result<Model> {
        let mut config = directory.config.clone();
        match &mut config {
            ModelConfig::Gpt2(config) => config.tokens = directory.tokens.clone(),
            ModelConfig::Llama(config) => config.tokens = directory.tokens.clone(),
        }
        with_weights(&Model::zeros(&config), directory.weights())
    }

    /// Writes a Hugging Face directory that transformers loads, in the dtype of the parameters;
    /// tokenizer files are copied from `tokenizer_from`.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, tokenizer_from: Option<&Path>) -> Result<()> {
        let mut config = self.config();
        let weights = raw_weights(self)?;
        let dtype = weights.first().map_or(DType::F32, |(_, weight)| weight.dtype);
        match &mut config {
            ModelConfig::Gpt2(config) => config.dtype = dtype,
            ModelConfig::Llama(config) => config.dtype = dtype,
        }
        let views = weights.iter().map(|(name, weight)| (name.as_str(), weight.view()));
        write_directory(path, &config, views, tokenizer_from).map_err(failed)
    }

    /// A model of this shape with weights of zero and norms of one.
    fn zeros(config: &ModelConfig) -> Model {
        match config {
            ModelConfig::Gpt2(config) => Model::Gpt2(Gpt2::zeros(config)),
            ModelConfig::Llama(config) => Model::Llama(Llama::zeros(config)),
        }
    }
}
