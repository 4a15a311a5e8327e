//! Losses of predictions against targets of the same shape.

use super::{
    AttributeList, Keep, Own, call, expect_dtype, expect_float, expect_shape, function, number,
    softplus, widen, with_own,
};
use crate::error::{Error, Result};
use crate::primitive::{Attribute, AttributeValue, attribute_words};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// What becomes of the losses of single elements or positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// They are the result.
    None,
    /// Their sum.
    Sum,
    /// Their mean; for class ids the mean weighted by class, over positions that count.
    #[default]
    Mean,
    /// Their sum divided by the size of dimension 0.
    BatchMean,
}

attribute_words!(Reduction {
    None => "none", Sum => "sum", Mean => "mean", BatchMean => "batch_mean",
});

impl Reduction {
    pub(super) fn attribute(self) -> (&'static str, Attribute) {
        ("reduction", self.to_attribute())
    }

    /// The reduced losses.
    pub(super) fn apply(self, b: &mut Builder, losses: Value) -> Value {
        let shape = b.ty(losses).shape.clone();
        let dims: Vec<usize> = (0..shape.len()).collect();
        let count = match self {
            Reduction::None => return losses,
            Reduction::Sum => return b.sum(losses, &dims),
            Reduction::Mean => shape.iter().product(),
            Reduction::BatchMean => shape.first().copied().unwrap_or(1),
        };
        let sum = b.sum(losses, &dims);
        let count = b.full_like(sum, count as f64);
        b.div(sum, count)
    }
}

/// `mse`: `(x - t)^2`. Attribute: `reduction`.
pub fn mse(b: &mut Builder, x: Value, t: Value, reduction: Reduction) -> Value {
    loss(b, "mse", vec![], x, t, reduction, |b, x, t| {
        let d = b.sub(x, t);
        b.mul(d, d)
    })
}

/// `l1`: `|x - t|`; the gradient at 0 is 0. Attribute: `reduction`.
pub fn l1(b: &mut Builder, x: Value, t: Value, reduction: Reduction) -> Value {
    loss(b, "l1", vec![], x, t, reduction, |b, x, t| {
        let d = b.sub(x, t);
        b.abs(d)
    })
}

/// `huber`: with `d = |x - t|`, `d^2 / 2` up to `delta`, then `delta (d - delta / 2)`. Attributes:
/// `delta`, `reduction`.
pub fn huber(b: &mut Builder, x: Value, t: Value, delta: f64, reduction: Reduction) -> Value {
    loss(b, "huber", vec![("delta", number(delta))], x, t, reduction, |b, x, t| {
        bent(b, x, t, delta, 1.0)
    })
}

/// `smooth_l1`: with `d = |x - t|`, `d^2 / (2 beta)` below `beta`, then `d - beta / 2`; `beta` 0
/// is [`l1`]. Attributes: `beta`, `reduction`.
pub fn smooth_l1(b: &mut Builder, x: Value, t: Value, beta: f64, reduction: Reduction) -> Value {
    loss(b, "smooth_l1", vec![("beta", number(beta))], x, t, reduction, |b, x, t| {
        if beta > 0.0 {
            return bent(b, x, t, beta, 1.0 / beta);
        }
        let d = b.sub(x, t);
        b.abs(d)
    })
}

/// `scale d^2 / 2` up to `knee`, then the line that goes on from there.
fn bent(b: &mut Builder, x: Value, t: Value, knee: f64, scale: f64) -> Value {
    let d = b.sub(x, t);
    let d = b.abs(d);
    let square = b.mul(d, d);
    let near = b.scale(square, 0.5 * scale);
    let line = b.offset(d, -0.5 * knee);
    let far = b.scale(line, knee * scale);
    let limit = b.full_like(d, knee);
    let inside = b.lt(d, limit);
    b.select(inside, near, far)
}

/// `bce`: `-(t log x + (1 - t) log(1 - x))` of probabilities `x`; logarithms are bounded at -100.
/// Attribute: `reduction`.
pub fn bce(b: &mut Builder, x: Value, t: Value, reduction: Reduction) -> Value {
    loss(b, "bce", vec![], x, t, reduction, bce_elements)
}

/// The losses of single elements, with a derivative that stays finite at probabilities 0 and 1.
fn bce_elements(b: &mut Builder, x: Value, t: Value) -> Value {
    let logs = |b: &mut Builder, x: Value| {
        let bound = b.full_like(x, -100.0);
        let yes = b.log(x);
        let minus = b.neg(x);
        let no = b.log1p(minus);
        (b.max(yes, bound), b.max(no, bound))
    };
    call(b, "bce_elements", &[x, t], 1, |types| {
        let own = Own {
            names: ("bce_elements", "bce_elements_backward"),
            forward: function("bce_elements", vec![], types, |b, x| {
                let (yes, no) = logs(b, x[0]);
                let yes = b.mul(x[1], yes);
                let minus = b.offset(x[1], -1.0);
                let no = b.mul(minus, no);
                vec![b.sub(no, yes)]
            })?,
            results: 1,
            keep: &[Keep::Input(0), Keep::Input(1)],
        };
        with_own(own, |b, kept, dy| {
            let (x, t) = (kept[0], kept[1]);
            let minus = b.neg(x);
            let rest = b.offset(minus, 1.0);
            let spread = b.mul(x, rest);
            let least = b.full_like(x, 1e-12);
            let spread = b.max(spread, least);
            let off = b.sub(x, t);
            let slope = b.div(off, spread);
            let (yes, no) = logs(b, x);
            let apart = b.sub(no, yes);
            vec![b.mul(dy[0], slope), b.mul(dy[0], apart)]
        })
    })[0]
}

/// `bce_with_logits`: `-(w t log s(x) + (1 - t) log(1 - s(x)))` of logits `x`, without overflow;
/// `weight` is `w`, of the type of `x`, else 1. Attribute: `reduction`.
pub fn bce_with_logits(
    b: &mut Builder,
    x: Value,
    t: Value,
    weight: Option<Value>,
    reduction: Reduction,
) -> Value {
    let mut inputs = vec![x, t];
    inputs.extend(weight);
    call(b, "bce_with_logits", &inputs, 1, |types| {
        build("bce_with_logits", vec![], types, reduction, |b, v| {
            // (1 - t) x + (1 + (w - 1) t) softplus(-x)
            let minus = b.neg(v[0]);
            let mut soft = softplus(b, minus, 1.0);
            if let Some(&w) = v.get(2) {
                let more = b.offset(w, -1.0);
                let more = b.mul(more, v[1]);
                let factor = b.offset(more, 1.0);
                soft = b.mul(factor, soft);
            }
            let one = b.full_like(v[1], 1.0);
            let rest = b.sub(one, v[1]);
            let line = b.mul(rest, v[0]);
            b.add(line, soft)
        })
    })[0]
}

/// `kl_div`: `t (log t - x)` of logarithms of probabilities `x` and probabilities `t`; 0 where `t`
/// is. Attribute: `reduction`.
pub fn kl_div(b: &mut Builder, x: Value, t: Value, reduction: Reduction) -> Value {
    loss(b, "kl_div", vec![], x, t, reduction, |b, x, t| {
        let zero = b.zeros_like(t);
        let one = b.full_like(t, 1.0);
        let none = b.eq(t, zero);
        let safe = b.select(none, one, t);
        let log = b.log(safe);
        let own = b.mul(t, log);
        let cross = b.mul(t, x);
        b.sub(own, cross)
    })
}

/// A loss of two values of one type.
fn loss(
    b: &mut Builder,
    name: &'static str,
    attributes: AttributeList,
    x: Value,
    t: Value,
    reduction: Reduction,
    element: impl FnOnce(&mut Builder, Value, Value) -> Value,
) -> Value {
    call(b, name, &[x, t], 1, |types| {
        build(name, attributes, types, reduction, |b, v| element(b, v[0], v[1]))
    })[0]
}

/// A loss whose operands all have the type of the first one.
fn build(
    name: &'static str,
    mut attributes: AttributeList,
    types: &[Type],
    reduction: Reduction,
    element: impl FnOnce(&mut Builder, &[Value]) -> Value,
) -> Result<Arc<Function>> {
    expect_float("the prediction", &types[0])?;
    for ty in &types[1..] {
        expect_dtype("the target", ty, types[0].dtype)?;
        expect_shape("the target", ty, &types[0].shape)?;
    }
    if reduction == Reduction::BatchMean && types[0].rank() == 0 {
        return Err(Error::new("a scalar has no batch dimension").help("use the mean"));
    }
    attributes.push(reduction.attribute());
    function(name, attributes, types, |b, x| {
        let wide: Vec<Value> = x.iter().map(|&v| widen(b, v)).collect();
        let losses = element(b, &wide);
        let y = reduction.apply(b, losses);
        vec![b.cast(y, types[0].dtype)]
    })
}
