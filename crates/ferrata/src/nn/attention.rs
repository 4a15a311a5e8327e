//! Multi-head attention with grouped queries, masks, rotary positions and a key/value cache.

use super::{Context, Init, Linear};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::Tree;
use ferrata_ir::composite::{Attention, Pairing, rope_frequencies};
use ferrata_ir::{DType, Error};

/// Attention of a sequence to itself.
#[derive(Clone, Debug, Module)]
pub struct MultiHeadAttention {
    /// `[heads size, width]`.
    #[module(name = "q_proj")]
    pub query: Linear,
    /// `[groups size, width]`.
    #[module(name = "k_proj")]
    pub key: Linear,
    /// `[groups size, width]`.
    #[module(name = "v_proj")]
    pub value: Linear,
    /// `[width, heads size]`.
    #[module(name = "o_proj")]
    pub output: Linear,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads, a divisor of `heads`.
    pub groups: usize,
    /// Whether a position sees only itself and earlier ones.
    pub causal: bool,
    /// Whether a position sees only so many: itself and those before it.
    pub window: Option<usize>,
}

impl MultiHeadAttention {
    /// Causal attention with as many key/value heads as query heads, without biases.
    #[track_caller]
    pub fn new(width: usize, heads: usize, key: &Key) -> Self {
        MultiHeadAttention::grouped(width, heads, heads, width / heads.max(1), key)
    }

    /// Causal attention with `groups` key/value heads of `size`, without biases.
    #[track_caller]
    pub fn grouped(width: usize, heads: usize, groups: usize, size: usize, key: &Key) -> Self {
        let linear = |inputs, outputs, i| {
            Linear::with_init(inputs, outputs, false, Init::FanIn, &key.fold(i))
        };
        MultiHeadAttention {
            query: linear(width, heads * size, 0),
            key: linear(width, groups * size, 1),
            value: linear(width, groups * size, 2),
            output: linear(heads * size, width, 3),
            heads,
            groups,
            causal: true,
            window: None,
        }
    }

    /// `x [B, T, width]` to the same shape. `rope` holds the tables of the positions.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, rope: Option<&Rope>, cx: &mut Context) -> Tensor {
        let x = x.expect_rank(3, "attention input [batch, time, width]");
        let [q, k, v] = self.projected(&x, rope, cx);
        let y = q.attention(&k, &v, &self.settings());
        self.joined(&y, cx)
    }

    /// `x [B, T, width]`, whose positions follow those in `cache`. Gives the result and the cache
    /// with these positions in it.
    #[track_caller]
    pub fn forward_cached(
        &self,
        x: &Tensor,
        rope: Option<&Rope>,
        cache: &KvCache,
        at: &CacheIndex,
        cx: &mut Context,
    ) -> (Tensor, KvCache) {
        let x = x.expect_rank(3, "attention input [batch, time, width]");
        let [q, k, v] = self.projected(&x, rope, cx);
        let cache = cache.updated(&k, &v, at);
        let y = match at.start {
            None => q.attention(&k, &v, &self.settings()),
            Some(_) => {
                let (keys, values) = (cache.keys.cast(q.dtype()), cache.values.cast(q.dtype()));
                let settings = Attention { causal: false, ..Attention::default() };
                let mask = at.mask(x.size(1), keys.size(2), self.causal, self.window);
                let lengths = at.lengths(x.size(0), x.size(1));
                q.attention_with(&keys, &values, mask.as_ref(), Some(&lengths), &settings)
            }
        };
        (self.joined(&y, cx), cache)
    }

    fn settings(&self) -> Attention {
        Attention { causal: self.causal, window: self.window, ..Attention::default() }
    }

    /// Queries, keys and values `[B, heads, T, size]`, rotated.
    #[track_caller]
    fn projected(&self, x: &Tensor, rope: Option<&Rope>, cx: &mut Context) -> [Tensor; 3] {
        let one = |name: &str, layer: &Linear, heads: usize, cx: &mut Context| {
            cx.scope(name, |cx| split_heads(&layer.forward(x, cx), heads))
        };
        let q = one("query", &self.query, self.heads, cx);
        let k = one("key", &self.key, self.groups, cx);
        let v = one("value", &self.value, self.groups, cx);
        let turn = |x: Tensor| rope.map_or_else(|| x.clone(), |rope| rope.apply(&x));
        [turn(q), turn(k), v]
    }

    #[track_caller]
    fn joined(&self, y: &Tensor, cx: &mut Context) -> Tensor {
        let y = y.transpose(1, 2).flatten(2, 3);
        cx.scope("output", |cx| self.output.forward(&y, cx))
    }
}

/// `[B, T, heads size]` to `[B, heads, T, size]`.
#[track_caller]
pub(crate) fn split_heads(x: &Tensor, heads: usize) -> Tensor {
    x.unflatten(2, (heads, -1)).transpose(1, 2)
}

/// Cosine and sine of the rotary angles of a range of positions. One serves all layers.
#[derive(Clone, Debug, Tree)]
pub struct Rope {
    /// `[.., T, size / 2]`.
    pub cos: Tensor,
    /// `[.., T, size / 2]`.
    pub sin: Tensor,
    /// Whether neighbours are turned together, as GPT-J has it, or halves, as Llama has it.
    pub interleaved: bool,
}

impl Rope {
    /// Tables in `dtype` for i64 `positions` `[.., T]` and heads of `size`.
    #[track_caller]
    pub fn new(positions: &Tensor, theta: f64, size: usize, dtype: DType) -> Self {
        Rope::with_frequencies(positions, &rope_frequencies(theta, size), dtype)
    }

    /// Tables for the given frequencies, in radians per position.
    #[track_caller]
    pub fn with_frequencies(positions: &Tensor, frequencies: &[f64], dtype: DType) -> Self {
        let (cos, sin) = positions.rope_table(frequencies, dtype);
        Rope { cos, sin, interleaved: false }
    }

    /// Rotates `x [.., T, size]`.
    #[track_caller]
    pub fn apply(&self, x: &Tensor) -> Tensor {
        let pairing = if self.interleaved { Pairing::Interleaved } else { Pairing::Half };
        x.rope(&self.cos.cast(x.dtype()), &self.sin.cast(x.dtype()), pairing)
    }
}

/// Keys and values of the positions seen so far, of one layer.
#[derive(Clone, Debug, Tree)]
pub struct KvCache {
    /// `[B, groups, capacity, size]`.
    pub keys: Tensor,
    /// `[B, groups, capacity, size]`.
    pub values: Tensor,
}

impl KvCache {
    /// An empty cache.
    #[track_caller]
    pub fn new(batch: usize, groups: usize, capacity: usize, size: usize, dtype: DType) -> Self {
        let shape = [batch, groups, capacity, size];
        KvCache { keys: Tensor::zeros(shape, dtype), values: Tensor::zeros(shape, dtype) }
    }

    /// The cache with keys and values `[B, groups, T, size]` of new positions.
    #[track_caller]
    pub(crate) fn updated(&self, keys: &Tensor, values: &Tensor, at: &CacheIndex) -> KvCache {
        let zero = Tensor::zeros((), DType::I64);
        let start = at.start.as_ref().unwrap_or(&zero);
        let starts = Tensor::stack(&[&zero, &zero, start, &zero], 0);
        let put = |old: &Tensor, new: &Tensor| {
            Tensor::op("cache", &[old, new], || {
                if new.size(2) > old.size(2) {
                    let (n, capacity) = (new.size(2), old.size(2));
                    return Err(Error::new(format!(
                        "{n} positions do not fit in a cache of {capacity}"
                    )));
                }
                Ok(old.dynamic_update(&new.cast(old.dtype()), &starts))
            })
        };
        KvCache { keys: put(&self.keys, keys), values: put(&self.values, values) }
    }
}

/// Where new positions go in the caches of all layers.
#[derive(Clone, Debug, Tree)]
pub struct CacheIndex {
    /// The first new position, an i64 scalar; `None`: the caches are empty.
    pub start: Option<Tensor>,
}

impl CacheIndex {
    /// The first positions of empty caches: attention needs no look at the cache.
    pub fn first() -> Self {
        CacheIndex { start: None }
    }

    /// Positions from `start`, an i64 scalar, which may be computed. It must leave room in the
    /// cache: a window beyond the capacity is moved inside.
    pub fn from(start: &Tensor) -> Self {
        CacheIndex { start: Some(start.clone()) }
    }

    /// The new positions, i64 `[T]`.
    #[track_caller]
    pub fn positions(&self, time: usize) -> Tensor {
        let first = Tensor::arange(time);
        self.start.as_ref().map_or_else(|| first.clone(), |start| &first + start)
    }

    /// Valid lengths after the update, i64 `[B]`.
    #[track_caller]
    pub(crate) fn lengths(&self, batch: usize, time: usize) -> Tensor {
        let zero = Tensor::zeros((), DType::I64);
        let start = self.start.as_ref().unwrap_or(&zero);
        (start + time).expand([batch])
    }

    /// Which of the cached keys each new position sees, bool `[T, capacity]`; `None`: all.
    #[track_caller]
    pub(crate) fn mask(
        &self,
        time: usize,
        capacity: usize,
        causal: bool,
        window: Option<usize>,
    ) -> Option<Tensor> {
        if (time == 1 || !causal) && window.is_none() {
            return None;
        }
        let own = self.positions(time).unsqueeze(1);
        let keys = Tensor::arange(capacity).unsqueeze(0);
        let mut visible = Tensor::full((time, capacity), 1.0, DType::Bool);
        if causal {
            visible = visible & keys.le(&own);
        }
        if let Some(window) = window {
            visible = visible & keys.gt(own - window);
        }
        Some(visible)
    }
}
