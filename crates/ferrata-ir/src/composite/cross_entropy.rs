//! Cross-entropy of logits against class ids or probabilities.
//!
//! With `p = log_softmax(x)` along the classes, a position with class id `t` costs
//! `-(1 - e) w[t] p[t] - (e / C) sum_c w[c] p[c]`, where `e` is the label smoothing and `w` the
//! class weights, 1 if absent; with probabilities `t` it costs
//! `-sum_c w[c] ((1 - e) t[c] + e / C) p[c]`. Positions whose id is the ignored one cost 0. The mean
//! over ids divides by the sum of `w[t]` over positions that count, the mean over probabilities by
//! the number of positions. An id that is no class makes the loss NaN.
//!
//! Without class weights, ids bring their own derivative, which keeps one number per position and
//! compares ids with class numbers row by row:
//!
//! - `cross_entropy_forward`: `(logits, ids) -> (loss, lse[, count])`, where `lse`, in the
//!   accumulator dtype, has the shape of the ids, and `count` (only for the mean) is the number of
//!   positions that count, a scalar of the accumulator dtype;
//! - `cross_entropy_backward`: `(logits, ids, lse[, count], dloss) -> dlogits`.
//!
//! Attributes: `dim` (of the classes), `label_smoothing`, `reduction`, and `ignore_index` only if
//! there is one.

use super::loss::Reduction;
use super::softmax::log_of_sum;
use super::{
    AttributeList, Keep, Own, call, expect_dim, expect_dtype, expect_float, expect_shape, function,
    log_softmax, number, widen, with_own,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::primitive::Attribute;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// Settings of a cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Dimension of the logits that counts classes.
    pub dim: usize,
    /// Positions with this class id cost nothing.
    pub ignore_index: Option<i64>,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// What becomes of the costs of the positions.
    pub reduction: Reduction,
}

impl CrossEntropy {
    /// The mean over positions, classes along `dim`, nothing ignored, no smoothing.
    pub fn new(dim: usize) -> Self {
        CrossEntropy { dim, ignore_index: None, label_smoothing: 0.0, reduction: Reduction::Mean }
    }

    fn attributes(&self) -> AttributeList {
        let mut attributes = vec![
            ("dim", Attribute::Int(self.dim as i64)),
            ("label_smoothing", number(self.label_smoothing)),
            self.reduction.attribute(),
        ];
        attributes.extend(self.ignore_index.map(|i| ("ignore_index", Attribute::Int(i))));
        attributes
    }
}

/// Emits a `cross_entropy`. The target is integers with the shape of `logits` less the dimension of
/// the classes, or probabilities of the type of `logits`; `weight` has one number per class.
///
/// ```
/// use ferrata_ir::composite::{CrossEntropy, cross_entropy};
/// use ferrata_ir::{Builder, DType, Type};
/// let mut b = Builder::new("loss");
/// let logits = b.parameter(Type::new(DType::F32, [4, 16, 65]));
/// let ids = b.parameter(Type::new(DType::I64, [4, 16]));
/// let loss = cross_entropy(&mut b, logits, ids, None, &CrossEntropy::new(2));
/// assert!(b.finish(&[loss]).unwrap().result_types()[0].shape.is_empty());
/// ```
pub fn cross_entropy(
    b: &mut Builder,
    logits: Value,
    target: Value,
    weight: Option<Value>,
    settings: &CrossEntropy,
) -> Value {
    let mut inputs = vec![logits, target];
    inputs.extend(weight);
    call(b, "cross_entropy", &inputs, 1, |types| {
        let rows = Rows::new(types, settings)?;
        if types[1].dtype.is_float() {
            probabilities(types, settings, &rows)
        } else if weight.is_some() {
            weighted(types, settings, &rows)
        } else {
            unweighted(types, settings, &rows)
        }
    })[0]
}

/// `nll`: `-x[t]` of logarithms of probabilities `x` and class ids `t`, else as [`cross_entropy`].
pub fn nll(
    b: &mut Builder,
    log_probabilities: Value,
    ids: Value,
    weight: Option<Value>,
    settings: &CrossEntropy,
) -> Value {
    let mut inputs = vec![log_probabilities, ids];
    inputs.extend(weight);
    call(b, "nll", &inputs, 1, |types| {
        let rows = Rows::new(types, settings)?;
        if types[1].dtype.is_float() {
            return Err(Error::new(format!("the target {} must be class ids", types[1])));
        }
        function("nll", settings.attributes(), types, |b, x| {
            let p = widen(b, x[0]);
            vec![rows.weighted_loss(b, p, x[1], x.get(2).copied(), settings)]
        })
    })[0]
}

/// Logits seen as one row of classes per position.
struct Rows {
    dtype: DType,
    shape: Vec<usize>,
    dim: usize,
}

impl Rows {
    fn new(types: &[Type], settings: &CrossEntropy) -> Result<Self> {
        let (logits, target) = (&types[0], &types[1]);
        expect_float("logits", logits)?;
        expect_dim(logits, settings.dim)?;
        if target.dtype.is_float() {
            expect_dtype("the target", target, logits.dtype)?;
            expect_shape("the target", target, &logits.shape)?;
        } else if !target.dtype.is_int() {
            return Err(Error::new(format!("the target is {target}, but must be class ids"))
                .help("cast it, for example with .cast(i64)"));
        } else {
            let mut positions = logits.shape.clone();
            positions.remove(settings.dim);
            expect_shape("the target", target, &positions)?;
        }
        if let Some(weight) = types.get(2) {
            expect_dtype("the class weights", weight, logits.dtype)?;
            expect_shape("the class weights", weight, &logits.shape[settings.dim..][..1])?;
        }
        if !(0.0..=1.0).contains(&settings.label_smoothing) {
            let e = settings.label_smoothing;
            return Err(Error::new(format!("label smoothing {e} is not between 0 and 1")));
        }
        if settings.reduction == Reduction::BatchMean {
            return Err(Error::new("a mean over the batch only is not defined here")
                .help("use the mean or the sum"));
        }
        Ok(Rows { dtype: logits.dtype, shape: logits.shape.clone(), dim: settings.dim })
    }

    fn classes(&self) -> usize {
        self.shape[self.dim]
    }

    /// One number per position, in the full shape.
    fn repeat(&self, b: &mut Builder, x: Value) -> Value {
        b.broadcast_reduced(x, &self.shape, &[self.dim])
    }

    /// Where the class is the position's id, in the full shape.
    fn hits(&self, b: &mut Builder, ids: Value) -> Value {
        let ty = Type::new(b.ty(ids).dtype, self.shape.clone());
        let class = b.iota(ty, self.dim);
        let ids = self.repeat(b, ids);
        b.eq(class, ids)
    }

    /// The element of each row that `hits` marks.
    fn pick(&self, b: &mut Builder, hits: Value, x: Value) -> Value {
        let zero = b.zeros_like(x);
        let marked = b.select(hits, x, zero);
        b.sum(marked, &[self.dim])
    }

    /// `x` at positions that count, else 0; NaN where the id is no class.
    fn where_valid(
        &self,
        b: &mut Builder,
        x: Value,
        ids: Value,
        settings: &CrossEntropy,
    ) -> (Value, Value) {
        let ids_type = b.ty(ids).clone();
        let bound = |b: &mut Builder, i: i64| b.full(ids_type.clone(), i);
        let (first, end) = (bound(b, 0), bound(b, self.classes() as i64));
        let (not_below, below_end) = (b.ge(ids, first), b.lt(ids, end));
        let known = b.and(not_below, below_end);
        let nan = b.full_like(x, f64::NAN);
        let x = b.select(known, x, nan);
        let zero = b.zeros_like(x);
        let valid = self.valid(b, ids, settings);
        (b.select(valid, x, zero), valid)
    }

    /// Positions that count.
    fn valid(&self, b: &mut Builder, ids: Value, settings: &CrossEntropy) -> Value {
        let ty = b.ty(ids).clone();
        match settings.ignore_index {
            Some(i) => {
                let ignored = b.full(ty, i);
                b.ne(ids, ignored)
            }
            None => b.full(ty.with_dtype(DType::Bool), 1i64),
        }
    }

    /// The loss from logarithms of probabilities, for ids with optional class weights.
    fn weighted_loss(
        &self,
        b: &mut Builder,
        p: Value,
        ids: Value,
        weight: Option<Value>,
        settings: &CrossEntropy,
    ) -> Value {
        let e = settings.label_smoothing;
        let hits = self.hits(b, ids);
        let w = match weight {
            Some(w) => self.class_weights(b, w),
            None => b.full_like(p, 1.0),
        };
        let weighted = b.mul(w, p);
        let at = self.pick(b, hits, weighted);
        let mut cost = b.scale(at, e - 1.0);
        if e > 0.0 {
            let all = b.sum(weighted, &[self.dim]);
            let all = b.scale(all, e / self.classes() as f64);
            cost = b.sub(cost, all);
        }
        let (cost, valid) = self.where_valid(b, cost, ids, settings);
        let share = self.pick(b, hits, w);
        let zero = b.zeros_like(share);
        let share = b.select(valid, share, zero);
        let positions: Vec<usize> = (0..self.shape.len() - 1).collect();
        let y = match settings.reduction {
            Reduction::None => cost,
            Reduction::Sum | Reduction::BatchMean => b.sum(cost, &positions),
            Reduction::Mean => {
                let (sum, total) = (b.sum(cost, &positions), b.sum(share, &positions));
                b.div(sum, total)
            }
        };
        b.cast(y, self.dtype)
    }

    fn class_weights(&self, b: &mut Builder, w: Value) -> Value {
        let w = widen(b, w);
        b.broadcast(w, &self.shape, &[self.dim])
    }
}

fn weighted(types: &[Type], settings: &CrossEntropy, rows: &Rows) -> Result<Arc<Function>> {
    function("cross_entropy", settings.attributes(), types, |b, x| {
        let logits = widen(b, x[0]);
        let p = log_softmax(b, logits, rows.dim);
        vec![rows.weighted_loss(b, p, x[1], Some(x[2]), settings)]
    })
}

fn probabilities(types: &[Type], settings: &CrossEntropy, rows: &Rows) -> Result<Arc<Function>> {
    function("cross_entropy", settings.attributes(), types, |b, x| {
        let (logits, target) = (widen(b, x[0]), widen(b, x[1]));
        let e = settings.label_smoothing;
        let mut p = log_softmax(b, logits, rows.dim);
        if let Some(&w) = x.get(2) {
            let w = rows.class_weights(b, w);
            p = b.mul(p, w);
        }
        let target = b.scale(target, 1.0 - e);
        let target = b.offset(target, e / rows.classes() as f64);
        let terms = b.mul(target, p);
        let cost = b.sum(terms, &[rows.dim]);
        let cost = b.neg(cost);
        let y = settings.reduction.apply(b, cost);
        vec![b.cast(y, rows.dtype)]
    })
}

fn unweighted(types: &[Type], settings: &CrossEntropy, rows: &Rows) -> Result<Arc<Function>> {
    let e = settings.label_smoothing;
    let positions: Vec<usize> = (0..rows.shape.len() - 1).collect();
    let mean = settings.reduction == Reduction::Mean;
    let forward = function("cross_entropy_forward", settings.attributes(), types, |b, x| {
        let (logits, ids) = (widen(b, x[0]), x[1]);
        let lse = log_of_sum(b, logits, &[rows.dim]);
        let hits = rows.hits(b, ids);
        let at = rows.pick(b, hits, logits);
        let mut cost = b.sub(lse, at);
        if e > 0.0 {
            let all = super::norm::mean(b, logits, &[rows.dim]);
            let spread = b.sub(lse, all);
            let spread = b.scale(spread, e);
            let sharp = b.scale(cost, 1.0 - e);
            cost = b.add(sharp, spread);
        }
        let (cost, valid) = rows.where_valid(b, cost, ids, settings);
        if settings.reduction == Reduction::None {
            return vec![b.cast(cost, rows.dtype), lse];
        }
        let sum = b.sum(cost, &positions);
        if !mean {
            return vec![b.cast(sum, rows.dtype), lse];
        }
        let valid = b.cast(valid, b.ty(lse).dtype);
        let count = b.sum(valid, &positions);
        let loss = b.div(sum, count);
        vec![b.cast(loss, rows.dtype), lse, count]
    })?;
    let mut keep = vec![Keep::Input(0), Keep::Input(1), Keep::Result(1)];
    keep.extend(mean.then_some(Keep::Result(2)));
    let names = ("cross_entropy", "cross_entropy_backward");
    let own = Own { names, forward, results: 1, keep: &keep };
    with_own(own, |b, kept, dy| {
        let (logits, ids, dy) = (widen(b, kept[0]), kept[1], widen(b, dy[0]));
        let dy = if mean { b.div(dy, kept[3]) } else { dy };
        let each = b.ty(kept[2]).shape.clone();
        let dy =
            if settings.reduction == Reduction::None { dy } else { b.broadcast(dy, &each, &[]) };
        let valid = rows.valid(b, ids, settings);
        let zero = b.zeros_like(dy);
        let dy = b.select(valid, dy, zero);
        let dy = rows.repeat(b, dy);
        let lse = rows.repeat(b, kept[2]);
        let low = b.sub(logits, lse);
        let p = b.exp(low);
        let (hits, spread) = (rows.hits(b, ids), e / rows.classes() as f64);
        let hit = b.full_like(p, 1.0 - e + spread);
        let miss = b.full_like(p, spread);
        let target = b.select(hits, hit, miss);
        let off = b.sub(p, target);
        let dx = b.mul(off, dy);
        vec![b.cast(dx, rows.dtype)]
    })
}
