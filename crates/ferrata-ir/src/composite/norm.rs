//! Normalisation: statistics in two passes, in the accumulator dtype.

use super::{
    AttributeList, Keep, Own, call, expect_dtype, expect_float, expect_shape, function, number,
    widen, with_own,
};
use crate::error::{Error, Result};
use crate::primitive::Attribute;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// `layer_norm`: `(x - mean) / sqrt(variance + eps) * weight + bias`, with the mean and the biased
/// variance over the last `dims` dimensions, whose shape weight and bias have.
///
/// Forward: `layer_norm_forward(x[, weight][, bias]) -> (y, mean, rstd)`, where `mean` and `rstd`
/// (`1 / sqrt(variance + eps)`) have the other dimensions, in the accumulator dtype. Backward:
/// `layer_norm_backward(x, mean, rstd[, weight], dy) -> (dx[, dweight][, dbias])`. Attributes:
/// `dims`, `eps`, `weight`, `bias` (whether there is one).
pub fn layer_norm(
    b: &mut Builder,
    x: Value,
    weight: Option<Value>,
    bias: Option<Value>,
    dims: usize,
    eps: f64,
) -> Value {
    let inputs: Vec<Value> = [Some(x), weight, bias].into_iter().flatten().collect();
    let affine = (weight.is_some(), bias.is_some());
    call(b, "layer_norm", &inputs, 1, |types| layer_norm_function(types, affine, dims, eps))[0]
}

fn layer_norm_function(
    types: &[Type],
    (weight, bias): (bool, bool),
    dims: usize,
    eps: f64,
) -> Result<Arc<Function>> {
    let rows = Rows::new(&types[0], dims)?;
    for (ty, what) in types[1..].iter().zip(if weight { ["weight", "bias"] } else { ["bias"; 2] }) {
        expect_dtype(what, ty, types[0].dtype)?;
        expect_shape(what, ty, &types[0].shape[rows.first()..])?;
    }
    let attributes = vec![
        ("dims", Attribute::Int(dims as i64)),
        ("eps", number(eps)),
        ("weight", Attribute::Bool(weight)),
        ("bias", Attribute::Bool(bias)),
    ];
    let mut keep = vec![Keep::Input(0), Keep::Result(1), Keep::Result(2)];
    keep.extend(weight.then_some(Keep::Input(1)));
    let own = Own {
        names: ("layer_norm", "layer_norm_backward"),
        forward: function("layer_norm_forward", attributes, types, |b, inputs| {
            let x = widen(b, inputs[0]);
            let mean = rows.mean(b, x);
            let shift = rows.repeat(b, mean);
            let centred = b.sub(x, shift);
            let rstd = rows.rsqrt_mean_square(b, centred, eps);
            let factor = rows.repeat(b, rstd);
            let mut y = b.mul(centred, factor);
            if weight {
                let w = rows.affine(b, inputs[1]);
                y = b.mul(y, w);
            }
            if bias {
                let c = rows.affine(b, inputs[1 + usize::from(weight)]);
                y = b.add(y, c);
            }
            vec![b.cast(y, types[0].dtype), mean, rstd]
        })?,
        results: 1,
        keep: &keep,
    };
    with_own(own, |b, kept, dy| {
        let (x, dy) = (widen(b, kept[0]), widen(b, dy[0]));
        let shift = rows.repeat(b, kept[1]);
        let factor = rows.repeat(b, kept[2]);
        let centred = b.sub(x, shift);
        let normal = b.mul(centred, factor);
        let weight = kept.get(3).map(|&w| rows.affine(b, w));
        let dnormal = weight.map_or(dy, |w| b.mul(dy, w));
        let mean = rows.mean(b, dnormal);
        let mean = rows.repeat(b, mean);
        let rest = b.sub(dnormal, mean);
        let dx = rows.remove_along(b, rest, dnormal, normal, factor);
        let mut results = vec![b.cast(dx, types[0].dtype)];
        if weight.is_some() {
            let terms = b.mul(dy, normal);
            results.push(rows.sum_outer(b, terms, types[0].dtype));
        }
        if bias {
            results.push(rows.sum_outer(b, dy, types[0].dtype));
        }
        results
    })
}

/// `rms_norm`: `x / sqrt(mean(x^2) + eps) * (weight + offset)` over the last dimension. Llama has
/// offset 0, Gemma 1.
///
/// Forward: `rms_norm_forward(x, weight) -> (y, rstd)`, where `rstd` lacks the last dimension and
/// has the accumulator dtype. Backward: `rms_norm_backward(x, rstd, weight, dy) -> (dx, dweight)`.
/// Attributes: `eps`, `offset`.
pub fn rms_norm(b: &mut Builder, x: Value, weight: Value, eps: f64, offset: f64) -> Value {
    call(b, "rms_norm", &[x, weight], 1, |types| {
        let rows = Rows::new(&types[0], 1)?;
        expect_dtype("weight", &types[1], types[0].dtype)?;
        expect_shape("weight", &types[1], &types[0].shape[rows.first()..])?;
        let gain = |b: &mut Builder, w: Value| {
            let w = rows.affine(b, w);
            if offset == 0.0 { w } else { b.offset(w, offset) }
        };
        let attributes = vec![("eps", number(eps)), ("offset", number(offset))];
        let own = Own {
            names: ("rms_norm", "rms_norm_backward"),
            forward: function("rms_norm_forward", attributes, types, |b, inputs| {
                let x = widen(b, inputs[0]);
                let rstd = rows.rsqrt_mean_square(b, x, eps);
                let factor = rows.repeat(b, rstd);
                let normal = b.mul(x, factor);
                let gain = gain(b, inputs[1]);
                let y = b.mul(normal, gain);
                vec![b.cast(y, types[0].dtype), rstd]
            })?,
            results: 1,
            keep: &[Keep::Input(0), Keep::Result(1), Keep::Input(1)],
        };
        with_own(own, |b, kept, dy| {
            let (x, dy) = (widen(b, kept[0]), widen(b, dy[0]));
            let factor = rows.repeat(b, kept[1]);
            let normal = b.mul(x, factor);
            let gain = gain(b, kept[2]);
            let dnormal = b.mul(dy, gain);
            let dx = rows.remove_along(b, dnormal, dnormal, normal, factor);
            let terms = b.mul(dy, normal);
            let dtype = types[0].dtype;
            vec![b.cast(dx, dtype), rows.sum_outer(b, terms, dtype)]
        })
    })[0]
}

/// Values seen as rows: outer dimensions, then the last ones, which are normalised.
struct Rows {
    shape: Vec<usize>,
    inner: Vec<usize>,
}

impl Rows {
    fn new(ty: &Type, dims: usize) -> Result<Self> {
        expect_float("the operand", ty)?;
        if dims == 0 || dims > ty.rank() {
            return Err(Error::new(format!("{ty} has no last {dims} dimensions to normalise")));
        }
        let inner = (ty.rank() - dims..ty.rank()).collect();
        Ok(Rows { shape: ty.shape.clone(), inner })
    }

    fn first(&self) -> usize {
        self.inner[0]
    }

    fn mean(&self, b: &mut Builder, x: Value) -> Value {
        mean(b, x, &self.inner)
    }

    /// `1 / sqrt(mean(x^2) + eps)`.
    fn rsqrt_mean_square(&self, b: &mut Builder, x: Value, eps: f64) -> Value {
        let square = b.mul(x, x);
        let mean = self.mean(b, square);
        let mean = b.offset(mean, eps);
        b.rsqrt(mean)
    }

    /// One number per row, in the full shape.
    fn repeat(&self, b: &mut Builder, x: Value) -> Value {
        b.broadcast_reduced(x, &self.shape, &self.inner)
    }

    /// One number per place in a row, widened, in the full shape.
    fn affine(&self, b: &mut Builder, x: Value) -> Value {
        let x = widen(b, x);
        b.broadcast(x, &self.shape, &self.inner)
    }

    /// The cotangent of `x` where `normal = x * factor` and the factor makes the mean square of a
    /// row 1: `factor * (rest - normal * mean(dnormal * normal))`.
    fn remove_along(
        &self,
        b: &mut Builder,
        rest: Value,
        dnormal: Value,
        normal: Value,
        factor: Value,
    ) -> Value {
        let terms = b.mul(dnormal, normal);
        let mean = self.mean(b, terms);
        let mean = self.repeat(b, mean);
        let along = b.mul(normal, mean);
        let rest = b.sub(rest, along);
        b.mul(factor, rest)
    }

    fn sum_outer(&self, b: &mut Builder, x: Value, dtype: crate::DType) -> Value {
        let outer: Vec<usize> = (0..self.first()).collect();
        let sum = b.sum(x, &outer);
        b.cast(sum, dtype)
    }
}

/// Mean along `dims` as primitives; over no elements it is NaN.
pub(super) fn mean(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    let count: usize = dims.iter().map(|&d| b.ty(x).shape[d]).product();
    let sum = b.sum(x, dims);
    let count = b.full_like(sum, count as f64);
    b.div(sum, count)
}

/// `group_norm`: channels (dimension 1 of `x`) in consecutive `groups`; mean and biased variance
/// for each sample and group; weight and bias have one number per channel. One group per channel
/// is instance normalisation. Attributes: `groups`, `eps`.
pub fn group_norm(
    b: &mut Builder,
    x: Value,
    weight: Value,
    bias: Value,
    groups: usize,
    eps: f64,
) -> Value {
    call(b, "group_norm", &[x, weight, bias], 1, |types| {
        let channels = check_channels(&types[0], &types[1..])?;
        if groups == 0 || channels % groups != 0 {
            return Err(Error::new(format!(
                "{channels} channels do not fall into {groups} groups"
            )));
        }
        let attributes = vec![("groups", Attribute::Int(groups as i64)), ("eps", number(eps))];
        let shape = &types[0].shape;
        let row: usize = shape[1..].iter().product::<usize>() / groups;
        function("group_norm", attributes, types, |b, inputs| {
            let x = widen(b, inputs[0]);
            let rows = b.reshape(x, &[shape[0], groups, row]);
            let normal = layer_norm(b, rows, None, None, 1, eps);
            let normal = b.reshape(normal, shape);
            let y = affine_per_channel(b, normal, inputs[1], inputs[2]);
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

/// Results of [`batch_norm_train`].
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// The normalised value.
    pub y: Value,
    /// The running mean after this step.
    pub running_mean: Value,
    /// The running variance after this step.
    pub running_variance: Value,
}

/// `batch_norm_train`: normalises each channel (dimension 1) by the mean and the biased variance
/// over all other dimensions. The running statistics become
/// `(1 - momentum) running + momentum batch`, with the unbiased variance; no gradient passes
/// through them. `parameters` are weight, bias, running mean and running variance, one number per
/// channel each, in the dtype of `x` or its accumulator's.
///
/// Forward: `batch_norm_train_forward(x, parameters..) -> (y, running_mean, running_variance, mean,
/// rstd)`, where `mean` and `rstd` (`1 / sqrt(variance + eps)`) are in the accumulator dtype.
/// Backward: `batch_norm_train_backward(x, weight, mean, rstd, dy, ..) -> (dx, dweight, dbias, 0,
/// 0)`. Attributes: `momentum`, `eps`.
pub fn batch_norm_train(
    b: &mut Builder,
    x: Value,
    parameters: [Value; 4],
    momentum: f64,
    eps: f64,
) -> BatchNorm {
    let [weight, bias, running_mean, running_variance] = parameters;
    let inputs = [x, weight, bias, running_mean, running_variance];
    let results =
        call(b, "batch_norm_train", &inputs, 3, |types| batch_norm_function(types, momentum, eps));
    BatchNorm { y: results[0], running_mean: results[1], running_variance: results[2] }
}

fn batch_norm_function(types: &[Type], momentum: f64, eps: f64) -> Result<Arc<Function>> {
    check_channels(&types[0], &types[1..])?;
    let (dtype, shape) = (types[0].dtype, types[0].shape.clone());
    let others: Vec<usize> = (0..shape.len()).filter(|&d| d != 1).collect();
    let count: usize = others.iter().map(|&d| shape[d]).product();
    if count < 2 {
        return Err(Error::new(format!(
            "{} has no variance: {count} values per channel",
            types[0]
        ))
        .help("train with more than one value per channel, or evaluate"));
    }
    let attributes = vec![("momentum", number(momentum)), ("eps", number(eps))];
    let spread = |b: &mut Builder, x: Value| b.broadcast(x, &shape, &[1]);
    let own = Own {
        names: ("batch_norm_train", "batch_norm_train_backward"),
        forward: function("batch_norm_train_forward", attributes, types, |b, inputs| {
            let x = widen(b, inputs[0]);
            let batch_mean = mean(b, x, &others);
            let shift = spread(b, batch_mean);
            let centred = b.sub(x, shift);
            let square = b.mul(centred, centred);
            let variance = mean(b, square, &others);
            let padded = b.offset(variance, eps);
            let rstd = b.rsqrt(padded);
            let y = normalised(b, x, [batch_mean, rstd, inputs[1], inputs[2]]);
            let unbiased = b.scale(variance, count as f64 / (count as f64 - 1.0));
            let running = |b: &mut Builder, old: Value, new: Value| {
                let dtype = b.ty(old).dtype;
                let (old, new) = (b.stop_gradient(old), b.stop_gradient(new));
                let old = widen(b, old);
                let old = b.scale(old, 1.0 - momentum);
                let new = b.scale(new, momentum);
                let sum = b.add(old, new);
                b.cast(sum, dtype)
            };
            let new_mean = running(b, inputs[3], batch_mean);
            let new_variance = running(b, inputs[4], unbiased);
            vec![b.cast(y, dtype), new_mean, new_variance, batch_mean, rstd]
        })?,
        results: 3,
        keep: &[Keep::Input(0), Keep::Input(1), Keep::Result(3), Keep::Result(4)],
    };
    with_own(own, |b, kept, dy| {
        let (x, dy) = (widen(b, kept[0]), widen(b, dy[0]));
        let (weight, mean, rstd) = (widen(b, kept[1]), kept[2], kept[3]);
        let shift = spread(b, mean);
        let centred = b.sub(x, shift);
        let along = b.mul(dy, centred);
        let (along, dbias) = (b.sum(along, &others), b.sum(dy, &others));
        let dweight = b.mul(along, rstd);
        // What mean and variance take away: dy's means over the channel, alone and along x.
        let off = b.scale(dbias, 1.0 / count as f64);
        let off = spread(b, off);
        let slope = b.mul(dweight, rstd);
        let slope = b.scale(slope, 1.0 / count as f64);
        let slope = spread(b, slope);
        let slope = b.mul(centred, slope);
        let rest = b.sub(dy, off);
        let rest = b.sub(rest, slope);
        let factor = b.mul(rstd, weight);
        let factor = spread(b, factor);
        let dx = b.mul(rest, factor);
        let none = types[3..].iter().map(|ty| b.full(ty.clone(), 0.0)).collect::<Vec<_>>();
        let some = [dx, dweight, dbias].into_iter().zip(types);
        let some = some.map(|(d, ty)| b.cast(d, ty.dtype)).collect::<Vec<_>>();
        [some, none].concat()
    })
}

/// `batch_norm`: `(x - mean) / sqrt(variance + eps) * weight + bias` with given statistics, one
/// number per channel (dimension 1) each. `parameters` are weight, bias, mean, variance.
/// Attribute: `eps`.
pub fn batch_norm(b: &mut Builder, x: Value, parameters: [Value; 4], eps: f64) -> Value {
    let [weight, bias, mean, variance] = parameters;
    call(b, "batch_norm", &[x, weight, bias, mean, variance], 1, |types| {
        check_channels(&types[0], &types[1..])?;
        let attributes: AttributeList = vec![("eps", number(eps))];
        function("batch_norm", attributes, types, |b, inputs| {
            let x = widen(b, inputs[0]);
            let [mean, variance] = [inputs[3], inputs[4]].map(|v| widen(b, v));
            let variance = b.offset(variance, eps);
            let rstd = b.rsqrt(variance);
            let y = normalised(b, x, [mean, rstd, inputs[1], inputs[2]]);
            vec![b.cast(y, types[0].dtype)]
        })
    })[0]
}

/// Checks a value with channels and the parameters of the channels, which have its dtype or the
/// one that its sums are accumulated in; gives the number of channels.
fn check_channels(x: &Type, parameters: &[Type]) -> Result<usize> {
    expect_float("the operand", x)?;
    if x.rank() < 2 {
        return Err(Error::new(format!("{x} has no channels"))
            .help("the operand must be [batch, channels, ..]"));
    }
    for p in parameters {
        if p.dtype != x.dtype.accumulator() {
            expect_dtype("a parameter of the channels", p, x.dtype)?;
        }
        expect_shape("a parameter of the channels", p, &x.shape[1..2])?;
    }
    Ok(x.shape[1])
}

/// `(x - mean) rstd weight + bias` as one product and one sum per element. All but `x` have one
/// number per channel.
fn normalised(b: &mut Builder, x: Value, [mean, rstd, weight, bias]: [Value; 4]) -> Value {
    let (weight, bias) = (widen(b, weight), widen(b, bias));
    let factor = b.mul(rstd, weight);
    let shift = b.mul(mean, factor);
    let shift = b.sub(bias, shift);
    affine_per_channel(b, x, factor, shift)
}

fn affine_per_channel(b: &mut Builder, x: Value, weight: Value, bias: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let weight = widen(b, weight);
    let weight = b.broadcast(weight, &shape, &[1]);
    let bias = widen(b, bias);
    let bias = b.broadcast(bias, &shape, &[1]);
    let scaled = b.mul(x, weight);
    b.add(scaled, bias)
}
