//! The loss of language models: what a step minimises, and its sum over a validation part.

use ferrata_ir::DType;

use super::Result;
use super::engine::{self, Arrays, Loss, Program, number, program, with_compute};
use crate::data::Batch;
use crate::nn::Context;
use crate::{Classes, Module, Reduction, Tensor};

/// A model that scores the next token at every position.
pub(super) trait LanguageModel: Module + Clone + Send + Sync + 'static {
    /// Scores `[batch, sequence, vocabulary]` for token ids, i64 `[batch, sequence]`.
    fn logits(&self, ids: &Tensor, cx: &mut Context) -> Tensor;

    /// The same, and what the loss of a step adds to their cross-entropy, if anything.
    fn logits_with_penalty(&self, ids: &Tensor, cx: &mut Context) -> (Tensor, Option<Tensor>) {
        (self.logits(ids, cx), None)
    }
}

impl LanguageModel for crate::models::Model {
    fn logits(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        self.forward(ids, cx)
    }

    fn logits_with_penalty(&self, ids: &Tensor, cx: &mut Context) -> (Tensor, Option<Tensor>) {
        self.forward_with_penalty(ids, cx)
    }
}

/// The arrays of a batch: token ids, those that follow them, and what each position counts.
const IDS: &str = "input_ids";
const TARGETS: &str = "targets";
const WEIGHTS: &str = "weights";

/// The mean cross-entropy of `targets` after `input_ids`, and what the model adds to it.
pub(super) fn loss<M: LanguageModel>(label_smoothing: f64) -> Loss<M> {
    Box::new(move |model: &M, batch: &Arrays, cx: &mut Context| {
        let (logits, penalty) = model.logits_with_penalty(&batch[IDS], cx);
        let smoothed = Classes { label_smoothing, ..Classes::default() };
        let loss = logits.cast(DType::F32).cross_entropy_with(&batch[TARGETS], &smoothed);
        penalty.map_or(loss.clone(), |penalty| loss + penalty.cast(DType::F32))
    })
}

/// Model and batch to the sum of weighted losses.
pub(super) type Evaluate<M> = Program<(M, Arrays), Tensor>;

/// The program that sums the losses of a batch, times the weights of its positions.
pub(super) fn evaluation<M: LanguageModel>(compute: Option<DType>) -> Evaluate<M> {
    program(move |(model, batch): (M, Arrays)| {
        let mut cx = with_compute(Context::eval(), compute);
        let logits = model.logits(&batch[IDS], &mut cx).cast(DType::F32);
        let each = Classes { reduction: Reduction::None, ..Classes::default() };
        (logits.cross_entropy_with(&batch[TARGETS], &each) * &batch[WEIGHTS]).sum(..)
    })
}

/// The sum of the losses of a batch with `input_ids`, `targets` and `weights`.
pub(super) fn loss_sum<M: LanguageModel>(
    program: &Evaluate<M>,
    model: &M,
    batch: &Batch,
) -> Result<f64> {
    let arrays = engine::arrays(batch, &[IDS, TARGETS, WEIGHTS])?;
    number(&program.call((model.clone(), arrays))?)
}

/// The arrays that a step takes.
pub(super) const STEP: &[&str] = &[IDS, TARGETS];

/// A batch of this size, for compiling.
pub(super) fn example(rows: usize, length: usize) -> Arrays {
    let zeros = || Tensor::zeros([rows, length], DType::I64);
    STEP.iter().map(|name| ((*name).to_owned(), zeros())).collect()
}
