//! Tracing: a function runs on placeholders, and what it recorded becomes a program.

use crate::tensor::{Collected, Collector, Frame, Tensor, Traced};
use crate::tree::{self, Leaves, Tree};
use ferrata_ir::{Function, Result};
use std::sync::Arc;

/// A traced function of tensors.
pub(crate) struct Trace<R> {
    /// Parameters: the arguments, then the captured values. Results: the tensors of `result`.
    pub function: Arc<Function>,
    /// Values from outside that the function uses.
    pub captured: Vec<Tensor>,
    /// What the function returned; its tensors have no elements.
    pub result: R,
    /// The tensors of `result`.
    pub leaves: Leaves,
}

/// Why a function could not be traced; the result's structure is known all the same.
pub(crate) struct Untraced<R> {
    pub error: ferrata_ir::Error,
    pub result: R,
}

impl<R: Tree> Untraced<R> {
    /// The result with every tensor holding the error.
    pub fn failed(&self) -> R {
        tree::failed(&self.result, &self.error)
    }
}

/// Runs `f` on placeholders like these tensors and collects what it recorded. A failed tensor
/// stands for itself.
pub(crate) fn trace<R: Tree>(
    name: &str,
    like: &[Tensor],
    f: impl FnOnce(&[Tensor]) -> R,
) -> Result<Trace<R>, Untraced<R>> {
    let tracing = Traced::begin();
    let level = Frame::depth();
    let inside = |t: &Tensor| match t.error() {
        Some(error) => Tensor::failed(error),
        None => Tensor::placeholder(t.ty().clone(), level),
    };
    let placeholders: Vec<Tensor> = like.iter().map(inside).collect();
    let result = f(&placeholders);
    let effects = tracing.effects();
    drop(tracing);
    let leaves = tree::flatten(&result);
    match collect(name, level, &placeholders, &leaves.tensors, &effects) {
        Ok(Collected { function, captured }) => {
            Ok(Trace { function: Arc::new(function), captured, result, leaves })
        }
        Err(error) => Err(Untraced { error, result }),
    }
}

fn collect(
    name: &str,
    level: u32,
    parameters: &[Tensor],
    results: &[Tensor],
    effects: &[Tensor],
) -> Result<Collected> {
    if let Some(error) = parameters.iter().find_map(|p| p.error()) {
        return Err(error);
    }
    let mut collector = Collector::new(name, level);
    parameters.iter().for_each(|p| collector.parameter(p));
    let values = results.iter().map(|t| collector.visit(t)).collect::<Result<Vec<_>>>()?;
    for effect in effects {
        collector.visit(effect)?;
    }
    collector.finish(&values)
}

/// Arguments and captured values, in the order of the parameters.
pub(crate) fn inputs<'a>(arguments: &'a [Tensor], captured: &'a [Tensor]) -> Vec<&'a Tensor> {
    arguments.iter().chain(captured).collect()
}
