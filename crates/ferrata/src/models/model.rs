//! A language model of any architecture.

use super::{Gpt2, Input, Llama, Output};
use crate::module::Module;
use crate::nn::{CacheIndex, Context, KvCache, Routing};
use crate::tensor::Tensor;
use crate::tree::{self, Tree, Visitor};
use ferrata_formats::huggingface::ModelConfig;
use ferrata_ir::{DType, Error, Result};

/// A language model.
#[derive(Clone, Debug)]
pub enum Model {
    /// GPT-2.
    Gpt2(Gpt2),
    /// Llama, Mixtral.
    Llama(Llama),
}

/// Keys and values of all layers for the positions seen so far.
#[derive(Clone, Debug, Tree)]
pub struct Cache {
    /// One for each layer.
    pub layers: Vec<KvCache>,
}

impl Cache {
    /// How many positions fit in.
    pub fn capacity(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.keys.size(2))
    }

    /// The same positions with room for `capacity` of them.
    #[track_caller]
    pub fn grown(&self, capacity: usize) -> Cache {
        tree::map(self, |t| {
            let more = capacity.saturating_sub(t.size(2)) as i64;
            t.pad(&[(0, more), (0, 0)], crate::Padding::Constant(0.0))
        })
    }
}

impl Tree for Model {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        match self {
            Model::Gpt2(model) => model.visit(visitor),
            Model::Llama(model) => model.visit(visitor),
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        match self {
            Model::Gpt2(model) => Model::Gpt2(model.rebuild(f)),
            Model::Llama(model) => Model::Llama(model.rebuild(f)),
        }
    }
}

impl Module for Model {}

impl Model {
    /// Sizes and settings.
    pub fn config(&self) -> ModelConfig {
        match self {
            Model::Gpt2(model) => ModelConfig::Gpt2(model.config.clone()),
            Model::Llama(model) => ModelConfig::Llama(model.config.clone()),
        }
    }

    /// Number of token ids.
    pub fn vocab_size(&self) -> usize {
        match self {
            Model::Gpt2(model) => model.config.vocab_size,
            Model::Llama(model) => model.config.vocab_size,
        }
    }

    /// Longest context in tokens.
    pub fn context(&self) -> usize {
        match self {
            Model::Gpt2(model) => model.config.n_positions,
            Model::Llama(model) => model.config.max_position_embeddings,
        }
    }

    /// The same model whose derivative computes the inside of these blocks again instead of
    /// keeping it.
    #[must_use]
    pub fn with_recompute(mut self, blocks: impl IntoIterator<Item = usize>) -> Self {
        let recompute = match &mut self {
            Model::Gpt2(model) => &mut model.transformer.h.recompute,
            Model::Llama(model) => &mut model.model.layers.recompute,
        };
        *recompute = blocks.into_iter().collect();
        self
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        match self {
            Model::Gpt2(model) => model.transformer.h.len(),
            Model::Llama(model) => model.model.layers.len(),
        }
    }

    /// The same model with parameters of another float dtype.
    #[must_use]
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Self {
        tree::map(self, |parameter| parameter.cast(dtype))
    }

    /// Scores of the next token at every position: integer ids `[B, T]` give `[B, T, vocab_size]`
    /// in the compute dtype. Ids that the model does not have count as zeros: check them with
    /// [`Model::check_ids`] where they enter.
    #[track_caller]
    pub fn forward(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        let output = self.pass(ids, None, &CacheIndex::first(), false, cx);
        self.head(&output.last, cx)
    }

    /// [`Model::forward`], with the hidden states `[B, T, width]` after the embedding and after
    /// each block (before the final normalisation).
    #[track_caller]
    pub fn forward_with_hidden(&self, ids: &Tensor, cx: &mut Context) -> (Tensor, Vec<Tensor>) {
        let output = self.pass(ids, None, &CacheIndex::first(), true, cx);
        (self.head(&output.last, cx), output.hidden)
    }

    /// [`Model::forward`], with what a training loss adds to the cross-entropy, if there is
    /// anything: the weighted [`Routing::imbalance`] of experts.
    #[track_caller]
    pub fn forward_with_penalty(&self, ids: &Tensor, cx: &mut Context) -> (Tensor, Option<Tensor>) {
        let output = self.pass(ids, None, &CacheIndex::first(), false, cx);
        let weight = match self {
            Model::Gpt2(_) => 0.0,
            Model::Llama(model) => {
                let experts = model.config.experts.as_ref();
                experts.map_or(0.0, |experts| experts.router_aux_loss_coef)
            }
        };
        let counts = weight > 0.0 && !output.routing.is_empty();
        let penalty = counts.then(|| Routing::imbalance(&output.routing) * weight);
        (self.head(&output.last, cx), penalty)
    }

    /// The mean cross-entropy over all positions of ids `[B, T]` against the ids `targets [B, T]`
    /// that come after them, in training with the penalty: a scalar, in f32 where the model
    /// computes in half precision.
    #[track_caller]
    pub fn loss(&self, ids: &Tensor, targets: &Tensor, cx: &mut Context) -> Tensor {
        let (logits, penalty) = self.forward_with_penalty(ids, cx);
        cx.scope("loss", |_| {
            let loss = logits.cast(logits.dtype().accumulator()).cross_entropy(&whole(targets));
            penalty.map_or(loss.clone(), |penalty| loss + penalty)
        })
    }

    /// An empty cache of `dtype` for `batch` sequences with room for `capacity` positions.
    #[track_caller]
    pub fn cache(&self, batch: usize, capacity: usize, dtype: DType) -> Cache {
        let (layers, groups, size) = match self {
            Model::Gpt2(model) => {
                let c = &model.config;
                (c.n_layer, c.n_head, c.n_embd / c.n_head.max(1))
            }
            Model::Llama(model) => {
                let c = &model.config;
                (c.num_hidden_layers, c.num_key_value_heads, c.head_dim)
            }
        };
        let layer = || KvCache::new(batch, groups, capacity, size, dtype);
        Cache { layers: (0..layers).map(|_| layer()).collect() }
    }

    /// Scores of the token after the first `count` (an i64 scalar; all, if `None`) of the ids
    /// `[B, T]`, which stand at the positions `at`: `[B, vocab_size]`, and the cache with these
    /// positions in it. Ids after the first `count` fill up the shape: what the cache holds for
    /// them has to be overwritten by the positions that come next.
    #[track_caller]
    pub fn next_logits(
        &self,
        ids: &Tensor,
        count: Option<&Tensor>,
        cache: Cache,
        at: &CacheIndex,
        cx: &mut Context,
    ) -> (Tensor, Cache) {
        let output = self.pass(ids, Some(&cache), at, false, cx);
        let last = match count {
            Some(count) => output.last.take(&(count - 1), 1),
            None => output.last.at((.., -1)),
        };
        let logits = self.head(&last, cx);
        match output.cache {
            Some(cache) => (logits, cache),
            None => (logits.clone(), tree::map(&cache, |_| logits.clone())),
        }
    }

    /// Checks token ids on the host.
    ///
    /// # Errors
    /// Names the position, the id and the size of the vocabulary.
    pub fn check_ids(&self, ids: &[i64]) -> Result<()> {
        check_ids(ids, self.vocab_size())
    }

    #[track_caller]
    fn pass(
        &self,
        ids: &Tensor,
        cache: Option<&Cache>,
        at: &CacheIndex,
        hidden: bool,
        cx: &mut Context,
    ) -> Output {
        let ids = whole(ids).expect_rank(2, "token ids [batch, time]");
        if ids.error().is_some() {
            return Output::failed(ids);
        }
        let input = Input { ids: &ids, cache, at, hidden };
        match self {
            Model::Gpt2(model) => model.pass(input, cx),
            Model::Llama(model) => model.pass(input, cx),
        }
    }

    #[track_caller]
    fn head(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        match self {
            Model::Gpt2(model) => model.head(x, cx),
            Model::Llama(model) => model.head(x, cx),
        }
    }
}

/// Ids as i64.
#[track_caller]
fn whole(ids: &Tensor) -> Tensor {
    if ids.dtype().is_float() && ids.error().is_none() {
        let error = Error::new("token ids must be integers").help("cast them to i64");
        return Tensor::op("token ids", &[ids], || Err(error));
    }
    ids.cast(DType::I64)
}

/// Checks token ids against the size of a vocabulary.
///
/// # Errors
/// Names the position, the id and the size of the vocabulary.
pub fn check_ids(ids: &[i64], vocab_size: usize) -> Result<()> {
    let valid = |id: i64| usize::try_from(id).is_ok_and(|id| id < vocab_size);
    let Some(place) = ids.iter().position(|&id| !valid(id)) else { return Ok(()) };
    let id = ids[place];
    Err(Error::new(format!(
        "token id {id} at position {place} is not among the {vocab_size} of the vocabulary"
    ))
    .help("use the tokenizer that belongs to the model"))
}
