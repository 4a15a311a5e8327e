//! A model evaluated on tensors of a file.

use super::Model;
use super::model::check_ids;
use crate::nn::Context;
use crate::tensor::Tensor;
use crate::transform::compile;
use crate::tree;
use ferrata_formats::safetensors::{self, TensorFile};
use ferrata_formats::{RawTensor, TensorView};
use ferrata_ir::{DType, Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Evaluates a language model: integer `input_ids [.., T]` give `logits [.., T, vocab_size]` in
/// f32; if there are `targets` of the same shape, also `loss`, their mean cross-entropy.
///
/// # Errors
/// A tensor that is missing, unknown, of the wrong dtype or shape; a token id that is not in the
/// vocabulary (names tensor, position, id and size).
pub fn run(
    model: &Model,
    inputs: &BTreeMap<String, TensorView<'_>>,
) -> Result<BTreeMap<String, RawTensor>> {
    if let Some(name) = inputs.keys().find(|name| !["input_ids", "targets"].contains(&&name[..])) {
        return Err(Error::new(format!("the model has no input `{name}`"))
            .help("a language model takes `input_ids` and, for the loss, `targets`"));
    }
    let Some(ids) = inputs.get("input_ids") else {
        return Err(Error::new("the input `input_ids` is missing")
            .help("give token ids [batch, time] under this name"));
    };
    let targets = inputs.get("targets");
    if let Some(targets) = targets.filter(|targets| targets.shape != ids.shape) {
        let (t, i) = (targets.shape, ids.shape);
        return Err(Error::new(format!("`targets` has shape {t:?} and `input_ids` {i:?}"))
            .help("give the id that comes after each of the ids"));
    }
    let shape = ids.shape.to_vec();
    let ids = rows("input_ids", ids, model)?;
    let targets = targets.map(|targets| rows("targets", targets, model)).transpose()?;
    tree::eval(model)?;
    let pass = compile(|(ids, targets): (Tensor, Option<Tensor>)| {
        let logits = model.forward(&ids, &mut Context::eval()).cast(DType::F32);
        let loss = targets.map(|targets| logits.cross_entropy(&targets));
        (logits, loss)
    });
    let (logits, loss) = pass.call((ids, targets))?;
    let raw = |tensor: &Tensor, shape: Vec<usize>| -> Result<RawTensor> {
        Ok(RawTensor { dtype: tensor.dtype(), shape, bytes: tensor.to_bytes()? })
    };
    let whole = [&shape[..], &[model.vocab_size()]].concat();
    let mut results = BTreeMap::from([("logits".to_owned(), raw(&logits, whole)?)]);
    if let Some(loss) = loss {
        results.insert("loss".to_owned(), raw(&loss, Vec::new())?);
    }
    Ok(results)
}

/// Loads the model directory `model`, evaluates it on the tensors of the safetensors file `input`
/// and writes what [`run`] gives to the safetensors file `output`.
///
/// # Errors
/// As [`Model::load`] and [`run`]; a file that cannot be read or written.
pub fn run_file(model: &Path, input: &Path, output: &Path) -> Result<()> {
    let failed = |error: ferrata_formats::Error| Error::new(error.to_string());
    let file = TensorFile::open(input).map_err(failed)?;
    let inputs = file.iter().map(|(name, view)| (name.to_owned(), view)).collect();
    let results = run(&Model::load(model)?, &inputs)?;
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
