//! Scaled dot-product attention with grouped key/value heads.
//!
//! # Operands
//!
//! | operand | type | |
//! |---|---|---|
//! | `q` | float `[B, Hq, Tq, D]` | query head `h` uses key/value head `h / (Hq / Hkv)` |
//! | `k` | same dtype `[B, Hkv, Tk, D]` | |
//! | `v` | same dtype `[B, Hkv, Tk, Dv]` | |
//! | `mask` | bool, or the dtype of `q`; rank 4 | each dimension 1 or that of `[B, Hq, Tq, Tk]`; only if attribute `mask` is true |
//! | `lengths` | i64 `[B]` | only if attribute `lengths` is true |
//!
//! # Attributes, in this order
//!
//! | attribute | kind | |
//! |---|---|---|
//! | `scale` | number | factor of the scores |
//! | `causal` | bool | whether key `j` is visible to query `i` only if `j <= i + offset` |
//! | `offset` | integer | position of query 0 among the keys |
//! | `window` | integer | keys `j > i + offset - window` are visible (with or without `causal`); 0: all |
//! | `softcap` | number | scores `s` become `softcap * tanh(s / softcap)`; 0: they stay |
//! | `mask` | bool | whether there is an operand `mask` |
//! | `lengths` | bool | whether there is an operand `lengths` |
//!
//! # Meaning
//!
//! `s = scale * q k^T`, soft-capped; a float mask is added, a bool mask hides where it is false; then
//! hidden are keys `j >= lengths[b]`, those in the future if `causal`, and those before the window.
//! `p = softmax(s)` over the visible keys, `out = p v`. A query that sees no key gets zeros, and
//! passes no gradient. Scores and sums are in the accumulator dtype (f32 for half precision).
//!
//! # Composites
//!
//! - `attention`: `(q, k, v[, mask][, lengths]) -> out [B, Hq, Tq, Dv]`; its body calls
//!   `attention_forward`.
//! - `attention_forward`: same operands `-> (out, lse)`, where `lse [B, Hq, Tq]`, in the accumulator
//!   dtype, is the logarithm of the sum of `e^s` over visible keys (-infinity if there is none).
//! - `attention_backward`: `(q, k, v[, mask][, lengths], out, lse, dout) -> (dq, dk, dv[, dmask])`;
//!   `dmask` is there only if the mask is a float, and has the mask's type.
//!
//! All three carry the same attributes.

use super::{
    AttributeList, Keep, Own, call, expect_dtype, expect_float, expect_shape, function, with_own,
};
use crate::error::{Error, Result};
use crate::primitive::{Attribute, AttributeValue, ReduceKind};
use crate::program::{Builder, Composite, Function, Value};
use crate::types::Type;
use crate::{DType, Scalar};
use std::sync::Arc;

/// Settings of an attention; see the table of attributes above.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Factor of the scores; `None` is `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// Whether query `i` sees key `j` only if `j <= i + offset`.
    pub causal: bool,
    /// Position of query 0 among the keys.
    pub offset: i64,
    /// Query `i` sees only keys `j > i + offset - window`.
    pub window: Option<usize>,
    /// Scores `s` become `softcap * tanh(s / softcap)`.
    pub softcap: Option<f64>,
}

/// Emits an `attention`. A mask of lower rank is aligned at the last dimensions.
///
/// ```
/// use ferrata_ir::composite::{Attention, attention};
/// use ferrata_ir::{Builder, DType, Type};
/// let mut b = Builder::new("f");
/// let q = b.parameter(Type::new(DType::F32, [2, 6, 5, 4]));
/// let k = b.parameter(Type::new(DType::F32, [2, 2, 5, 4]));
/// let v = b.parameter(Type::new(DType::F32, [2, 2, 5, 4]));
/// let causal = Attention { causal: true, ..Attention::default() };
/// let y = attention(&mut b, q, k, v, None, None, &causal);
/// assert_eq!(b.finish(&[y]).unwrap().result_types()[0].shape, [2, 6, 5, 4]);
/// ```
pub fn attention(
    b: &mut Builder,
    q: Value,
    k: Value,
    v: Value,
    mask: Option<Value>,
    lengths: Option<Value>,
    settings: &Attention,
) -> Value {
    let mask = mask.map(|m| {
        let mut shape = b.ty(m).shape.clone();
        while shape.len() < 4 {
            shape.insert(0, 1);
        }
        b.reshape(m, &shape)
    });
    let inputs: Vec<Value> =
        [Some(q), Some(k), Some(v), mask, lengths].into_iter().flatten().collect();
    let case = (mask.is_some(), lengths.is_some());
    call(b, "attention", &inputs, 1, |types| build(types, case, settings))[0]
}

/// Everything that the bodies need to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Settings, with `scale` filled in.
    pub settings: Attention,
    /// Whether there is an operand `mask`.
    pub mask: bool,
    /// Whether there is an operand `lengths`.
    pub lengths: bool,
}

impl Plan {
    /// Reads the attributes of one of the three composites; `None` for any other composite.
    pub fn of(composite: &Composite) -> Option<Plan> {
        if !["attention", "attention_forward", "attention_backward"].contains(&composite.name) {
            return None;
        }
        let find = |name: &str| {
            composite.attributes.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone())
        };
        let number = |name| Some(Scalar::from_attribute(find(name)?)?.as_f64());
        let flag = |name| bool::from_attribute(find(name)?);
        let int = |name| match find(name)? {
            Attribute::Int(i) => Some(i),
            _ => None,
        };
        let (window, softcap) = (int("window")?, number("softcap")?);
        Some(Plan {
            settings: Attention {
                scale: Some(number("scale")?),
                causal: flag("causal")?,
                offset: int("offset")?,
                window: (window > 0).then_some(window as usize),
                softcap: (softcap > 0.0).then_some(softcap),
            },
            mask: flag("mask")?,
            lengths: flag("lengths")?,
        })
    }

    /// How many pairs of a query and a key see each other, before `mask` and `lengths` hide some.
    pub fn pairs(&self, queries: usize, keys: usize) -> usize {
        let keys = keys as i64;
        let seen = |query: usize| {
            let position = query as i64 + self.settings.offset;
            let end = if self.settings.causal { keys.min(position + 1) } else { keys };
            let first = self.settings.window.map_or(0, |window| position - window as i64 + 1);
            (end - first.max(0)).max(0) as usize
        };
        (0..queries).map(seen).sum()
    }

    /// Emits `attention_forward` without mask and lengths: from `(q, k, v)` to `(out, lse)`.
    pub(crate) fn forward(&self, b: &mut Builder, x: &[Value; 3]) -> Result<[Value; 2]> {
        let function = forward(&x.map(|v| b.ty(v).clone()), self)?;
        let made = b.call(&function, x);
        Ok([made[0], made[1]])
    }

    /// Emits `attention_backward` without mask and lengths: from `(q, k, v, out, lse)` and `dout`
    /// to `(dq, dk, dv)`.
    pub(crate) fn backward(
        &self,
        b: &mut Builder,
        kept: &[Value; 5],
        dout: Value,
    ) -> Result<[Value; 3]> {
        let x = [&kept[..], &[dout]].concat();
        let types: Vec<Type> = x.iter().map(|&v| b.ty(v).clone()).collect();
        let function = function("attention_backward", self.attributes(), &types, |b, x| {
            backward(b, &x[..5], x[5], self)
        })?;
        let made = b.call(&function, &x);
        Ok([made[0], made[1], made[2]])
    }

    fn scale(&self) -> f64 {
        self.settings.scale.unwrap_or(1.0)
    }

    fn attributes(&self) -> AttributeList {
        let s = &self.settings;
        vec![
            ("scale", Attribute::Scalar(Scalar::Float(self.scale()))),
            ("causal", Attribute::Bool(s.causal)),
            ("offset", Attribute::Int(s.offset)),
            ("window", Attribute::Int(s.window.unwrap_or(0) as i64)),
            ("softcap", Attribute::Scalar(Scalar::Float(s.softcap.unwrap_or(0.0)))),
            ("mask", Attribute::Bool(self.mask)),
            ("lengths", Attribute::Bool(self.lengths)),
        ]
    }
}

/// Scalar operations of the matrix products of one of the three composites, given its inputs'
/// shapes; a multiplication and an addition count as two. Only pairs that see each other count,
/// and the backward pass computes the scores again. `None` for any other composite.
pub fn flops(composite: &Composite, inputs: &[&[usize]]) -> Option<f64> {
    let plan = Plan::of(composite)?;
    let &[&[batch, heads, queries, size], &[_, _, keys, _], &[_, _, _, value_size]] =
        inputs.get(..3)?
    else {
        return None;
    };
    let each = match composite.name {
        // q k^T, dq = ds k, dk = ds^T q; dv = p^T dout, dp = dout v^T.
        "attention_backward" => 3 * size + 2 * value_size,
        // q k^T; p v.
        _ => size + value_size,
    };
    Some(2.0 * (batch * heads * plan.pairs(queries, keys)) as f64 * each as f64)
}

fn build(
    types: &[Type],
    (mask, lengths): (bool, bool),
    settings: &Attention,
) -> Result<Arc<Function>> {
    let plan = check(types, mask, lengths, settings)?;
    let mut keep: Vec<Keep> = (0..types.len()).map(Keep::Input).collect();
    keep.extend([Keep::Result(0), Keep::Result(1)]);
    let own = Own {
        names: ("attention", "attention_backward"),
        forward: forward(types, &plan)?,
        results: 1,
        keep: &keep,
    };
    with_own(own, |b, kept, dy| backward(b, kept, dy[0], &plan))
}

fn check(types: &[Type], mask: bool, lengths: bool, settings: &Attention) -> Result<Plan> {
    let (q, k, v) = (&types[0], &types[1], &types[2]);
    expect_float("the query", q)?;
    expect_dtype("the key", k, q.dtype)?;
    expect_dtype("the value", v, q.dtype)?;
    if [q, k, v].iter().any(|t| t.rank() != 4) {
        return Err(Error::new("query, key and value must be [batch, heads, time, size]"));
    }
    let (batch, heads, queries, size) = (q.shape[0], q.shape[1], q.shape[2], q.shape[3]);
    let (groups, keys) = (k.shape[1], k.shape[2]);
    expect_shape("the key", k, &[batch, groups, keys, size])?;
    expect_shape("the value", v, &[batch, groups, keys, v.shape[3]])?;
    if groups == 0 || heads % groups != 0 {
        return Err(Error::new(format!(
            "{heads} query heads cannot share {groups} key/value heads"
        ))
        .help("make the number of query heads a multiple of the number of key/value heads"));
    }
    let full = [batch, heads, queries, keys];
    if mask {
        let m = &types[3];
        if m.dtype != DType::Bool && m.dtype != q.dtype {
            return Err(Error::new(format!("the mask is {m}, but must be bool or {}", q.dtype)));
        }
        if m.rank() != 4 || m.shape.iter().zip(full).any(|(&a, b)| a != 1 && a != b) {
            return Err(Error::new(format!("the mask {m} does not broadcast to {full:?}")));
        }
    }
    if lengths {
        let l = &types[3 + usize::from(mask)];
        expect_dtype("lengths", l, DType::I64)?;
        expect_shape("lengths", l, &[batch])?;
    }
    if settings.window == Some(0) || settings.softcap.is_some_and(|c| c.is_nan() || c <= 0.0) {
        return Err(Error::new("window and softcap must be above 0").help("use None to have none"));
    }
    let scale = settings.scale.unwrap_or_else(|| 1.0 / (size as f64).sqrt());
    Ok(Plan { settings: Attention { scale: Some(scale), ..*settings }, mask, lengths })
}

/// Operands in the accumulator dtype, with query heads split by the key/value head that they share.
struct Operands {
    q: Value,
    k: Value,
    v: Value,
    mask: Option<Value>,
    lengths: Option<Value>,
    /// `[B, Hkv, Hq / Hkv, Tq, Tk]`.
    scores: Vec<usize>,
}

impl Operands {
    fn new(b: &mut Builder, inputs: &[Value], plan: &Plan) -> Self {
        let wide = b.ty(inputs[0]).dtype.accumulator();
        let (q, k) = (b.ty(inputs[0]).shape.clone(), b.ty(inputs[1]).shape.clone());
        let scores = vec![k[0], k[1], q[1] / k[1], q[2], k[2]];
        let split = split_heads(b, inputs[0], k[1]);
        Operands {
            q: b.cast(split, wide),
            k: b.cast(inputs[1], wide),
            v: b.cast(inputs[2], wide),
            mask: plan.mask.then(|| inputs[3]),
            lengths: plan.lengths.then(|| inputs[3 + usize::from(plan.mask)]),
            scores,
        }
    }

    /// Masked scores, and the tanh of the soft cap if there is one.
    fn scores(&self, b: &mut Builder, plan: &Plan) -> (Value, Option<Value>) {
        let wide = b.ty(self.q).dtype;
        let raw = b.dot(self.q, self.k, (&[0, 1], &[0, 1]), (&[4], &[3]));
        let mut s = b.scale(raw, plan.scale());
        let mut tanh = None;
        if let Some(cap) = plan.settings.softcap {
            let small = b.scale(s, 1.0 / cap);
            let t = b.tanh(small);
            tanh = Some(t);
            s = b.scale(t, cap);
        }
        let hidden = b.full_like(s, f64::NEG_INFINITY);
        if let Some(mask) = self.mask {
            let mask = split_heads(b, mask, self.scores[1]);
            if b.ty(mask).dtype == DType::Bool {
                let mask = b.broadcast_trailing(mask, &self.scores);
                s = b.select(mask, s, hidden);
            } else {
                let mask = b.cast(mask, wide);
                let mask = b.broadcast_trailing(mask, &self.scores);
                s = b.add(s, mask);
            }
        }
        if let Some(visible) = self.visible(b, plan) {
            s = b.select(visible, s, hidden);
        }
        (s, tanh)
    }

    /// Which keys causality, window and lengths leave visible; `None` if all.
    fn visible(&self, b: &mut Builder, plan: &Plan) -> Option<Value> {
        let plane = Type::new(DType::I64, &self.scores[3..]);
        let key = b.iota(plane.clone(), 1);
        let query = b.iota(plane.clone(), 0);
        let ahead = b.sub(key, query);
        let mut all = None;
        let mut also = |b: &mut Builder, v: Value| {
            all = Some(all.map_or(v, |a| b.and(a, v)));
        };
        if plan.settings.causal {
            let limit = b.full(plane.clone(), plan.settings.offset);
            let past = b.le(ahead, limit);
            let past = b.broadcast_trailing(past, &self.scores);
            also(b, past);
        }
        if let Some(window) = plan.settings.window {
            let first = plan.settings.offset.saturating_sub(window as i64);
            let limit = b.full(plane, first);
            let near = b.gt(ahead, limit);
            let near = b.broadcast_trailing(near, &self.scores);
            also(b, near);
        }
        if let Some(lengths) = self.lengths {
            let key = b.iota(Type::new(DType::I64, self.scores.clone()), 4);
            let lengths = b.broadcast(lengths, &self.scores, &[0]);
            let valid = b.lt(key, lengths);
            also(b, valid);
        }
        all
    }
}

/// `[B, H, ..]` as `[B, groups, H / groups, ..]`; a dimension of size 1 stays one.
fn split_heads(b: &mut Builder, x: Value, groups: usize) -> Value {
    let shape = b.ty(x).shape.clone();
    let (outer, inner) = if shape[1] == 1 { (1, 1) } else { (groups, shape[1] / groups) };
    let mut split = vec![shape[0], outer, inner];
    split.extend(&shape[2..]);
    b.reshape(x, &split)
}

/// `[B, G, N, ..]` as `[B, G N, ..]` in `dtype`.
fn merge_heads(b: &mut Builder, x: Value, dtype: DType) -> Value {
    let shape = b.ty(x).shape.clone();
    let mut merged = vec![shape[0], shape[1] * shape[2]];
    merged.extend(&shape[3..]);
    let x = b.reshape(x, &merged);
    b.cast(x, dtype)
}

/// `x` where it is finite or NaN, 0 where it is -infinity.
fn finite(b: &mut Builder, x: Value) -> (Value, Value) {
    let zero = b.zeros_like(x);
    let lowest = b.full_like(x, f64::NEG_INFINITY);
    let empty = b.eq(x, lowest);
    (b.select(empty, zero, x), empty)
}

fn forward(types: &[Type], plan: &Plan) -> Result<Arc<Function>> {
    function("attention_forward", plan.attributes(), types, |b, inputs| {
        let dtype = b.ty(inputs[0]).dtype;
        let o = Operands::new(b, inputs, plan);
        let (s, _) = o.scores(b, plan);
        // The shift cancels, so it takes no part in derivatives.
        let still = b.emit1(crate::primitive::StopGradient {}, &[s]);
        let top = b.reduce(ReduceKind::Max, still, &[4]);
        let (top, empty) = finite(b, top);
        let shift = b.broadcast_reduced(top, &o.scores, &[4]);
        let s = b.sub(s, shift);
        let e = b.exp(s);
        let sum = b.sum(e, &[4]);
        let one = b.full_like(sum, 1.0);
        let sum = b.select(empty, one, sum);
        let out = b.dot(e, o.v, (&[0, 1], &[0, 1]), (&[4], &[2]));
        let divisor = b.broadcast_reduced(sum, &b.ty(out).shape.clone(), &[4]);
        let out = b.div(out, divisor);
        let log = b.log(sum);
        let lse = b.add(log, top);
        let lowest = b.full_like(lse, f64::NEG_INFINITY);
        let lse = b.select(empty, lowest, lse);
        let wide = b.ty(lse).dtype;
        vec![merge_heads(b, out, dtype), merge_heads(b, lse, wide)]
    })
}

fn backward(b: &mut Builder, kept: &[Value], dout: Value, plan: &Plan) -> Vec<Value> {
    let dtype = b.ty(kept[0]).dtype;
    let n = kept.len() - 2;
    let o = Operands::new(b, &kept[..n], plan);
    let wide = b.ty(o.q).dtype;
    let head = |b: &mut Builder, x: Value| {
        let x = split_heads(b, x, o.scores[1]);
        b.cast(x, wide)
    };
    let (out, lse, dout) = (head(b, kept[n]), head(b, kept[n + 1]), head(b, dout));
    let (s, tanh) = o.scores(b, plan);
    let (lse, _) = finite(b, lse);
    let lse = b.broadcast_reduced(lse, &o.scores, &[4]);
    let s = b.sub(s, lse);
    let p = b.exp(s);
    let dv = b.dot(p, dout, (&[0, 1], &[0, 1]), (&[2, 3], &[2, 3]));
    let dp = b.dot(dout, o.v, (&[0, 1], &[0, 1]), (&[4], &[3]));
    let both = b.mul(dout, out);
    let mean = b.sum(both, &[4]);
    let mean = b.broadcast_reduced(mean, &o.scores, &[4]);
    let ds = b.sub(dp, mean);
    let ds = b.mul(p, ds);
    let dmask = o.mask.filter(|&m| b.ty(m).dtype.is_float()).map(|m| {
        let to = b.ty(m).shape.clone();
        mask_cotangent(b, ds, &to, dtype)
    });
    let mut ds = b.scale(ds, plan.scale());
    if let Some(t) = tanh {
        let square = b.mul(t, t);
        let one = b.full_like(t, 1.0);
        let slope = b.sub(one, square);
        ds = b.mul(ds, slope);
    }
    let dq = b.dot(ds, o.k, (&[0, 1], &[0, 1]), (&[4], &[2]));
    let dk = b.dot(ds, o.q, (&[0, 1], &[0, 1]), (&[2, 3], &[2, 3]));
    let mut results = vec![merge_heads(b, dq, dtype), b.cast(dk, dtype), b.cast(dv, dtype)];
    results.extend(dmask);
    results
}

/// The cotangent of scores summed to the shape of the mask.
fn mask_cotangent(b: &mut Builder, ds: Value, shape: &[usize], dtype: DType) -> Value {
    let wide = b.ty(ds).dtype;
    let full = merge_heads(b, ds, wide);
    let dims: Vec<usize> = (0..4).filter(|&d| shape[d] != b.ty(full).shape[d]).collect();
    let sum = b.sum(full, &dims);
    let sum = b.reshape(sum, shape);
    b.cast(sum, dtype)
}
