//! What a configuration trains, as a program that is only planned: nothing is allocated.

use ferrata_cluster::describe::Loss;
use ferrata_ir::DType;

use super::engine::with_compute;
use super::trained::described;
use super::{Config, Result, next_token};
use crate::models::Model;
use crate::nn::Context;
use crate::transform::trace;
use crate::{Key, tree};

/// Sequences that a program is traced for; what it costs is linear in them.
const ROWS: usize = 2;

/// The loss of the language model that a configuration describes, with products in `dtype`.
///
/// # Errors
/// If it describes none, or the sizes do not fit together.
pub fn sketch(config: &Config, dtype: DType) -> Result<Loss> {
    let model_config = described(config)?;
    let model = Model::new(&model_config, &Key::new(0))?;
    let sequence = model.context();
    let loss = next_token::loss(config.train.label_smoothing);
    let argument = (model, next_token::example(ROWS, sequence), Key::new(0));
    let weights = tree::flatten(&argument.0).paths;
    let leaves = tree::flatten(&argument);
    let traced = trace::trace("loss", &leaves.tensors, |inside| {
        let (model, batch, key) = leaves.rebuild(&argument, inside);
        let compute = (dtype != DType::F32).then_some(dtype);
        let mut cx = with_compute(Context::train(key), compute);
        loss(&model, &batch, &mut cx)
    });
    let traced = traced.map_err(|untraced| untraced.error)?;
    Ok(Loss { program: traced.function, weights, rows: ROWS, sequence, dtype })
}
