//! What the attention of all models has in common once queries, keys and values are there.

use crate::nn::{CacheIndex, Context, Dropout, KvCache, Routing};
use crate::tensor::Tensor;
use ferrata_ir::composite::Attention;

/// What a block keeps from one pass to the next, and what it shows of itself.
#[derive(Clone, Debug, Default, crate::tree::Tree)]
pub(super) struct BlockState {
    /// Keys and values of earlier positions, when there is a cache.
    pub cache: Option<KvCache>,
    /// The output of the block, when it is asked for.
    pub output: Option<Tensor>,
    /// How tokens spread over the experts of the block, if it has any and is in training.
    pub routing: Option<Routing>,
}

/// How a pass goes through the blocks.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    /// Where the new positions stand.
    pub at: &'a CacheIndex,
    /// Whether blocks give their outputs out.
    pub hidden: bool,
}

/// What goes from layer to layer, `[B, T, width]`: cut by samples and positions on a mesh.
#[track_caller]
pub(super) fn residual(x: Tensor) -> Tensor {
    x.annotate("batch,position,-")
}

/// Causal attention of queries `[B, heads, T, size]` to keys and values `[B, groups, T, size]` and
/// to the cached ones before them: `[B, T, heads size]`, and the cache with the new positions.
#[track_caller]
pub(super) fn attend(
    [q, k, v]: &[Tensor; 3],
    cache: Option<&KvCache>,
    at: &CacheIndex,
    scale: f64,
    dropout: &Dropout,
    cx: &mut Context,
) -> (Tensor, Option<KvCache>) {
    let settings = Attention { scale: Some(scale), causal: true, ..Attention::default() };
    let cache = cache.map(|cache| cache.updated(k, v, at));
    let y = match (&cache, &at.start) {
        (Some(cache), Some(_)) => {
            let (keys, values) = (cache.keys.cast(q.dtype()), cache.values.cast(q.dtype()));
            let mask = at.mask(q.size(2), keys.size(2), true, None);
            let lengths = at.lengths(q.size(0), q.size(2));
            let settings = Attention { causal: false, ..settings };
            q.attention_with(&keys, &values, mask.as_ref(), Some(&lengths), &settings)
        }
        _ if cx.is_training() && dropout.rate > 0.0 => {
            attention_with_dropout([q, k, v], scale, true, dropout, cx)
        }
        _ => q.attention(k, v, &settings),
    };
    (y.transpose(1, 2).flatten(2, 3), cache)
}

/// Attention of all positions `[B, heads, T, size]` to all: `[B, T, heads size]`.
#[track_caller]
pub(super) fn attend_both_ways(
    [q, k, v]: &[Tensor; 3],
    dropout: &Dropout,
    cx: &mut Context,
) -> Tensor {
    let y = if cx.is_training() && dropout.rate > 0.0 {
        let scale = 1.0 / (q.size(3) as f64).sqrt();
        attention_with_dropout([q, k, v], scale, false, dropout, cx)
    } else {
        q.attention(k, v, &Attention::default())
    };
    y.transpose(1, 2).flatten(2, 3)
}

/// Attention whose weights pass through dropout. The weights have to exist for that, so the fused
/// kernel cannot be used.
#[track_caller]
fn attention_with_dropout(
    [q, k, v]: [&Tensor; 3],
    scale: f64,
    causal: bool,
    dropout: &Dropout,
    cx: &mut Context,
) -> Tensor {
    let (heads, groups, time) = (q.size(1), k.size(1), q.size(2));
    let times = heads / groups.max(1);
    let (k, v) = (k.repeat_interleave(times, 1), v.repeat_interleave(times, 1));
    let mut scores = q.matmul(&k.t()).cast(q.dtype().accumulator()) * scale;
    if causal {
        let own = Tensor::arange(time).unsqueeze(1);
        let past = Tensor::arange(time).unsqueeze(0).le(own);
        scores = past.select(&scores, f64::NEG_INFINITY);
    }
    let weights = scores.softmax(-1);
    dropout.forward(&weights.cast(q.dtype()), cx).matmul(&v)
}
