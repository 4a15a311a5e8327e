//! Reductions, sorting, indexing and operators that move elements.

use super::attributes::Attributes;
use ferrata::{DType, Index, Padding, Tensor};
use serde_json::Value;

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    several(op, a, x).or_else(|| one(op, a, x).map(|y| vec![y]))
}

fn pair((first, second): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![first, second]
}

/// Both results with the reduced dimension, if it is to stay.
fn with_index(a: &Attributes, (value, index): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![kept(a, value), kept(a, index)]
}

fn kept(a: &Attributes, y: Tensor) -> Tensor {
    if a.bool("keepdim") { y.unsqueeze(a.i64("dim")) } else { y }
}

fn several(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    Some(match op {
        "max_dim" => with_index(a, x[0].max_with_index(a.i64("dim"))),
        "min_dim" => with_index(a, x[0].min_with_index(a.i64("dim"))),
        "cummax" => pair(x[0].cummax(a.i64("dim"))),
        "sort" => pair(x[0].sort(a.i64("dim"), a.bool("descending"))),
        "topk" => pair(x[0].topk(a.usize("k"), a.i64("dim"), a.bool("largest"))),
        "split" => x[0].split(&a.sizes("sizes"), a.i64("dim")),
        _ => return None,
    })
}

fn one(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    let refs: Vec<&Tensor> = x.iter().collect();
    let first = x.first()?;
    Some(match op {
        "sum" => first.sum(a.dims()),
        "mean" => first.mean(a.dims()),
        "prod" => first.prod(a.dims()),
        "amax" => first.max(a.dims()),
        "amin" => first.min(a.dims()),
        "any" => first.any(a.dims()),
        "all" => first.all(a.dims()),
        "var" => first.var(a.dims(), a.f64("correction")),
        "std" => first.std(a.dims(), a.f64("correction")),
        "norm" => first.norm(a.f64("p"), a.dims()),
        "logsumexp" => first.logsumexp(a.dims()),
        "argmax" => kept(a, first.argmax(a.some_i64("dim"))),
        "argmin" => kept(a, first.argmin(a.some_i64("dim"))),
        "cumsum" => first.cumsum(a.i64("dim")),
        "cumprod" => first.cumprod(a.i64("dim")),
        "logcumsumexp" => first.logcumsumexp(a.i64("dim")),
        "argsort" => first.argsort(a.i64("dim"), a.bool("descending")),
        "gather" => first.gather(&x[1], a.i64("dim")),
        "scatter" => first.scatter(&x[1], &x[2], a.i64("dim")),
        "scatter_add" => first.scatter_add(&x[1], &x[2], a.i64("dim")),
        "scatter_amax" => first.scatter_max(&x[1], &x[2], a.i64("dim")),
        "index_select" => first.take(&x[1], a.i64("dim")),
        "index_add" => first.index_add(&x[1], &x[2], a.i64("dim"), a.f64("alpha")),
        "index_copy" => first.index_copy(&x[1], &x[2], a.i64("dim")),
        "index_nd" => first.index(&refs[1..]),
        "index_put_add" => first.index_put_add(&refs[1..x.len() - 1], &x[x.len() - 1]),
        "masked_select" => first.masked_select(&x[1]),
        "nonzero" => first.nonzero(),
        "slice" => first.at(&slices(a)[..]),
        "pad" => pad(a, first),
        "pixel_shuffle" => first.pixel_shuffle(a.usize("factor")),
        "pixel_unshuffle" => first.pixel_unshuffle(a.usize("factor")),
        "one_hot" => first.one_hot(a.usize("classes"), DType::I64),
        "tril" => first.tril(a.i64("k")),
        "triu" => first.triu(a.i64("k")),
        "diagonal" => first.diagonal(a.i64("k")),
        "concat" => Tensor::concat(&refs, a.i64("dim")),
        "stack" => Tensor::stack(&refs, a.i64("dim")),
        "permute" => first.permute(&a.ints("order")).reshape(a.sizes("shape")),
        "flip" => first.flip(a.dims()),
        "roll" => {
            let mut shifts = a.ints("shifts").into_iter().zip(a.ints("dims"));
            shifts.try_fold(first.clone(), |x, (shift, dim)| Some(x.roll(shift, dim)))?
        }
        "expand" => first.expand(a.sizes("shape")),
        "tile" => first.tile(&a.sizes("reps")),
        "repeat_interleave" => first.repeat_interleave(a.usize("repeats"), a.i64("dim")),
        _ => return None,
    })
}

fn slices(a: &Attributes) -> Vec<Index> {
    let all = a.0["slices"].as_array().unwrap().iter();
    all.map(|s| Index::Range {
        start: s[0].as_i64(),
        end: s[1].as_i64(),
        step: s[2].as_u64().unwrap_or(1) as usize,
    })
    .collect()
}

fn pad(a: &Attributes, x: &Tensor) -> Tensor {
    let amount = |p: &Value| (p[0].as_i64().unwrap(), p[1].as_i64().unwrap());
    let amounts: Vec<(i64, i64)> = a.0["padding"].as_array().unwrap().iter().map(amount).collect();
    let mode = match a.text("mode") {
        "constant" => Padding::Constant(a.f64("value")),
        "reflect" => Padding::Reflect,
        "replicate" => Padding::Replicate,
        _ => Padding::Circular,
    };
    x.pad(&amounts, mode)
}
