//! A model evaluated on tensors of a file.

use super::files::on_host;
use super::model::check_ids;
use super::{ImageModel, Model};
use crate::nn::Context;
use crate::tensor::Tensor;
use crate::transform::compile;
use crate::tree::{self, Tree};
use ferrata_formats::huggingface::ImageDirectory;
use ferrata_formats::safetensors::{self, TensorFile};
use ferrata_formats::{RawTensor, TensorView};
use ferrata_ir::{DType, Error, Result, Type};
use std::collections::BTreeMap;
use std::path::Path;

/// Named tensors of a file.
type Inputs<'a> = BTreeMap<String, TensorView<'a>>;
/// Named tensors for a file.
type Outputs = BTreeMap<String, RawTensor>;

/// Evaluates a language model: integer `input_ids [.., T]` give `logits [.., T, vocab_size]` in
/// f32; if there are `targets` of the same shape, also `loss`, their mean cross-entropy.
///
/// # Errors
/// A tensor that is missing, unknown, of the wrong dtype or shape; a token id that is not in the
/// vocabulary (names tensor, position, id and size).
pub fn run(model: &Model, inputs: &Inputs<'_>) -> Result<Outputs> {
    let names = ["input_ids", "targets"];
    let (ids, targets) = known(inputs, names, "a language model takes `input_ids`")?;
    if let Some(targets) = targets.filter(|targets| targets.shape != ids.shape) {
        let (t, i) = (targets.shape, ids.shape);
        return Err(Error::new(format!("`targets` has shape {t:?} and `input_ids` {i:?}"))
            .help("give the id that comes after each of the ids"));
    }
    let shape = [ids.shape, &[model.vocab_size()]].concat();
    let ids = rows(names[0], ids, model)?;
    let targets = targets.map(|targets| rows(names[1], targets, model)).transpose()?;
    scored(model, ids, targets, shape, Model::forward)
}

/// Evaluates an image classifier: float `images [.., channels, height, width]` give
/// `logits [.., classes]` in f32; if there are integer `labels [..]`, also `loss`, their mean
/// cross-entropy.
///
/// # Errors
/// A tensor that is missing, unknown, of the wrong dtype or shape; a label that is no class.
pub fn run_images(model: &ImageModel, inputs: &Inputs<'_>) -> Result<Outputs> {
    let help = "an image classifier takes `images`";
    let (images, labels) = known(inputs, ["images", "labels"], help)?;
    let [batch @ .., channels, height, width] = images.shape else {
        return Err(Error::new(format!("`images` has shape {:?}", images.shape))
            .help("give [batch, channels, height, width]"));
    };
    if !images.dtype.is_float() {
        return Err(Error::new(format!("`images` is {}", images.dtype))
            .help("give floats, normalised as for training"));
    }
    if let Some(labels) = labels {
        if labels.shape != batch {
            return Err(Error::new(format!("`labels` has shape {:?}", labels.shape))
                .help(format!("give one for each image, {batch:?}")));
        }
        check_labels(labels, model.classes())?;
    }
    let tensor =
        |view: &TensorView<'_>| Tensor::from_bytes(Type::new(view.dtype, view.shape), view.bytes);
    let shape = [batch, &[model.classes()]].concat();
    let images = tensor(images).cast(DType::F32).reshape((-1, *channels, *height, *width));
    let labels = labels.map(|labels| tensor(labels).cast(DType::I64).reshape([-1]));
    scored(model, images, labels, shape, ImageModel::forward)
}

fn check_labels(labels: &TensorView<'_>, classes: usize) -> Result<()> {
    let Some(labels) = labels.to_i64().filter(|_| labels.dtype != DType::Bool) else {
        return Err(Error::new(format!("`labels` is {}, not classes", labels.dtype))
            .help("give integers, for example i64"));
    };
    let valid = |label: i64| usize::try_from(label).is_ok_and(|label| label < classes);
    match labels.iter().position(|&label| !valid(label)) {
        Some(at) => {
            let label = labels[at];
            Err(Error::new(format!(
                "`labels` has {label} at {at}, which is none of the {classes} classes"
            )))
        }
        None => Ok(()),
    }
}

/// The two named inputs, of which the second may be missing.
fn known<'i, 'a>(
    inputs: &'i Inputs<'a>,
    names: [&str; 2],
    help: &str,
) -> Result<(&'i TensorView<'a>, Option<&'i TensorView<'a>>)> {
    let [input, target] = names;
    let help = || format!("{help} and, for the loss, `{target}`");
    if let Some(name) = inputs.keys().find(|name| !names.contains(&&name[..])) {
        return Err(Error::new(format!("the model has no input `{name}`")).help(help()));
    }
    let first = inputs
        .get(input)
        .ok_or_else(|| Error::new(format!("the input `{input}` is missing")).help(help()))?;
    Ok((first, inputs.get(target)))
}

/// `logits` of this shape, and `loss`, if there are targets.
fn scored<M: Tree>(
    model: &M,
    input: Tensor,
    targets: Option<Tensor>,
    shape: Vec<usize>,
    forward: impl Fn(&M, &Tensor, &mut Context) -> Tensor,
) -> Result<Outputs> {
    tree::eval(model)?;
    let pass = compile(|(input, targets): (Tensor, Option<Tensor>)| {
        let logits = forward(model, &input, &mut Context::eval()).cast(DType::F32);
        let loss = targets.map(|targets| logits.cross_entropy(&targets));
        (logits, loss)
    });
    let (logits, loss) = pass.call((input, targets))?;
    let raw = |tensor: &Tensor, shape: Vec<usize>| -> Result<RawTensor> {
        Ok(RawTensor { shape, ..on_host(tensor)? })
    };
    let mut results = BTreeMap::from([("logits".to_owned(), raw(&logits, shape)?)]);
    if let Some(loss) = loss {
        results.insert("loss".to_owned(), raw(&loss, Vec::new())?);
    }
    Ok(results)
}

/// Loads the model directory `model`, evaluates it on the tensors of the safetensors file `input`
/// and writes what [`run`] or [`run_images`] gives to the safetensors file `output`.
///
/// # Errors
/// As [`Model::load`] and [`run`], [`ImageModel::load`] and [`run_images`]; a file that cannot be read or written.
pub fn run_file(model: &Path, input: &Path, output: &Path) -> Result<()> {
    let failed = |error: ferrata_formats::Error| Error::new(error.to_string());
    let file = TensorFile::open(input).map_err(failed)?;
    let inputs = file.iter().map(|(name, view)| (name.to_owned(), view)).collect();
    let results = match ImageDirectory::open(model).map_err(failed)? {
        Some(directory) => run_images(&ImageModel::from_directory(&directory)?, &inputs)?,
        None => run(&Model::load(model)?, &inputs)?,
    };
    let views = results.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
    safetensors::write(output, views, &BTreeMap::new()).map_err(failed)
}

/// Token ids `[.., T]` as rows `[N, T]`.
fn rows(name: &str, view: &TensorView<'_>, model: &Model) -> Result<Tensor> {
    let Some(ids) = view.to_i64().filter(|_| view.dtype != DType::Bool) else {
        return Err(Error::new(format!("`{name}` is {}, not token ids", view.dtype))
            .help("give integers, for example i64"));
    };
    let Some(&time) = view.shape.last().filter(|_| !ids.is_empty()) else {
        return Err(Error::new(format!("`{name}` has shape {:?}", view.shape))
            .help("give at least one token id, as [batch, time]"));
    };
    check_ids(&ids, model.vocab_size()).map_err(|error| {
        Error::new(format!("`{name}`: {}", error.message()))
            .help("use the tokenizer that belongs to the model")
    })?;
    Ok(Tensor::from_slice(&ids, &[ids.len() / time, time]))
}
