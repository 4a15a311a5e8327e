//! The meaning of the neutral operator names, in this crate's words.

use ferrata::nn::Rope;
use ferrata::{Attention, Classes, DType, Dims, Index, IntoDims, Padding, Reduction, Tensor, keep};
use serde_json::Value;

fn int(a: &Value, name: &str) -> i64 {
    a[name].as_i64().unwrap_or_else(|| panic!("{name} in {a}"))
}

fn float(a: &Value, name: &str) -> f64 {
    match &a[name] {
        Value::String(s) => s.parse().unwrap(),
        other => other.as_f64().unwrap_or_else(|| panic!("{name} in {a}")),
    }
}

fn yes(a: &Value, name: &str) -> bool {
    a[name].as_bool().unwrap_or(false)
}

fn ints(a: &Value) -> Vec<i64> {
    a.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

fn sizes(a: &Value) -> Vec<usize> {
    ints(a).into_iter().map(|x| x as usize).collect()
}

/// `dims` or `dim` with `keepdim`.
fn dims(a: &Value) -> Dims {
    let chosen = match (&a["dims"], &a["dim"]) {
        (Value::Array(_), _) => ints(&a["dims"]).into_dims(),
        (_, Value::Number(_)) => int(a, "dim").into_dims(),
        _ => (..).into_dims(),
    };
    if yes(a, "keepdim") { keep(chosen) } else { chosen }
}

fn reduction(a: &Value) -> Reduction {
    match a["reduction"].as_str().unwrap() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        _ => Reduction::BatchMean,
    }
}

fn classes(a: &Value, weight: Option<&Tensor>) -> Classes {
    Classes {
        dim: 1,
        weight: weight.cloned(),
        ignore: a["ignore_index"].as_i64(),
        label_smoothing: a["label_smoothing"].as_f64().unwrap_or(0.0),
        reduction: reduction(a),
    }
}

fn pair(x: (Tensor, Tensor)) -> Vec<Tensor> {
    vec![x.0, x.1]
}

/// Applies the operator called `op`.
pub fn apply(op: &str, a: &Value, x: &[Tensor]) -> Vec<Tensor> {
    if let Some(y) = unary(op, &x[0]) {
        return vec![y];
    }
    if x.len() == 2
        && let Some(y) = binary(op, &x[0], &x[1])
    {
        return vec![y];
    }
    for family in [reductions, shapes, indices, products, losses, networks] {
        if let Some(y) = family(op, a, x) {
            return y;
        }
    }
    panic!("no operator is called {op}");
}

fn unary(op: &str, x: &Tensor) -> Option<Tensor> {
    Some(match op {
        "neg" => -x,
        "abs" => x.abs(),
        "sign" => x.sign(),
        "exp" => x.exp(),
        "exp2" => x.exp2(),
        "expm1" => x.expm1(),
        "log" => x.log(),
        "log2" => x.log2(),
        "log10" => x.log10(),
        "log1p" => x.log1p(),
        "sqrt" => x.sqrt(),
        "rsqrt" => x.rsqrt(),
        "reciprocal" => x.reciprocal(),
        "square" => x.square(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.tan(),
        "asin" => x.asin(),
        "acos" => x.acos(),
        "atan" => x.atan(),
        "sinh" => x.sinh(),
        "cosh" => x.cosh(),
        "tanh" => x.tanh(),
        "asinh" => x.asinh(),
        "acosh" => x.acosh(),
        "atanh" => x.atanh(),
        "erf" => x.erf(),
        "erfc" => x.erfc(),
        "erfinv" => x.erfinv(),
        "lgamma" => x.lgamma(),
        "sigmoid" => x.sigmoid(),
        "log_sigmoid" => x.log_sigmoid(),
        "relu" => x.relu(),
        "relu6" => x.relu6(),
        "selu" => x.selu(),
        "silu" => x.silu(),
        "mish" => x.mish(),
        "hard_swish" => x.hard_swish(),
        "hard_sigmoid" => x.hard_sigmoid(),
        "softsign" => x.softsign(),
        "gelu_erf" => x.gelu(),
        "gelu_tanh" => x.gelu_tanh(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "trunc" => x.trunc(),
        "round" => x.round(),
        "is_nan" => x.is_nan(),
        "is_finite" => x.is_finite(),
        "logical_not" => x.logical_not(),
        "nonzero" => x.nonzero(),
        "masked_log" => {
            let safe = x.gt(0.0).select(x, 1.0);
            x.gt(0.0).select(safe.log(), 0.0)
        }
        _ => return None,
    })
}

fn binary(op: &str, x: &Tensor, y: &Tensor) -> Option<Tensor> {
    Some(match op {
        "add" => x + y,
        "sub" => x - y,
        "mul" => x * y,
        "div" => x / y,
        "pow" => x.pow(y),
        "atan2" => x.atan2(y),
        "maximum" => x.maximum(y),
        "minimum" => x.minimum(y),
        "fmod" => x.fmod(y),
        "remainder" => x.remainder(y),
        "floor_div" => x.floor_div(y),
        "hypot" => x.hypot(y),
        "logaddexp" => x.logaddexp(y),
        "greater" => x.gt(y),
        "less_equal" => x.le(y),
        "equal" => x.eq(y),
        "not_equal" => x.ne(y),
        "logical_and" => x.logical_and(y),
        "logical_xor" => x.logical_xor(y),
        "matmul" => x.matmul(y),
        "outer" => x.outer(y),
        "masked_select" => x.masked_select(y),
        _ => return None,
    })
}

fn reductions(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let t = &x[0];
    let kept = |y: Tensor| match yes(a, "keepdim") {
        true if a["dim"].is_null() => y.reshape(vec![1; t.rank()]),
        true => y.unsqueeze(int(a, "dim")),
        false => y,
    };
    let both = |(value, index): (Tensor, Tensor)| vec![kept(value), kept(index)];
    Some(match op {
        "sum" => vec![t.sum(dims(a))],
        "mean" => vec![t.mean(dims(a))],
        "amax" => vec![t.max(dims(a))],
        "amin" => vec![t.min(dims(a))],
        "prod" => vec![t.prod(dims(a))],
        "any" => vec![t.any(dims(a))],
        "all" => vec![t.all(dims(a))],
        "logsumexp" => vec![t.logsumexp(dims(a))],
        "var" => vec![t.var(dims(a), float(a, "correction"))],
        "std" => vec![t.std(dims(a), float(a, "correction"))],
        "norm" => vec![t.norm(float(a, "p"), dims(a))],
        "max_dim" => both(t.max_with_index(int(a, "dim"))),
        "min_dim" => both(t.min_with_index(int(a, "dim"))),
        "argmax" => vec![kept(t.argmax(a["dim"].as_i64()))],
        "argmin" => vec![kept(t.argmin(a["dim"].as_i64()))],
        "cumsum" => vec![t.cumsum(int(a, "dim"))],
        "cumprod" => vec![t.cumprod(int(a, "dim"))],
        "cummax" => pair(t.cummax(int(a, "dim"))),
        "logcumsumexp" => vec![t.logcumsumexp(int(a, "dim"))],
        "sort" => pair(t.sort(int(a, "dim"), yes(a, "descending"))),
        "argsort" => vec![t.argsort(int(a, "dim"), yes(a, "descending"))],
        "topk" => pair(t.topk(int(a, "k") as usize, int(a, "dim"), yes(a, "largest"))),
        _ => return None,
    })
}

fn shapes(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let t = &x[0];
    let all: Vec<&Tensor> = x.iter().collect();
    Some(vec![match op {
        "tril" => t.tril(int(a, "k")),
        "triu" => t.triu(int(a, "k")),
        "diagonal" => t.diagonal(int(a, "k")),
        "concat" => Tensor::concat(&all, int(a, "dim")),
        "stack" => Tensor::stack(&all, int(a, "dim")),
        "split" => return Some(t.split(&sizes(&a["sizes"]), int(a, "dim"))),
        "permute" => t.permute(&ints(&a["order"])).reshape(ints(&a["shape"])),
        "flip" => t.flip(ints(&a["dims"])),
        "roll" => {
            let moves = ints(&a["shifts"]).into_iter().zip(ints(&a["dims"]));
            moves.fold(t.clone(), |t, (shift, dim)| t.roll(shift, dim))
        }
        "expand" => t.expand(ints(&a["shape"])),
        "tile" => t.tile(&sizes(&a["reps"])),
        "repeat_interleave" => t.repeat_interleave(int(a, "repeats") as usize, int(a, "dim")),
        "pixel_shuffle" => t.pixel_shuffle(int(a, "factor") as usize),
        "pixel_unshuffle" => t.pixel_unshuffle(int(a, "factor") as usize),
        "one_hot" => t.one_hot(int(a, "classes") as usize, DType::I64),
        "pad" => {
            let amounts: Vec<(i64, i64)> =
                a["padding"].as_array().unwrap().iter().map(|p| (ints(p)[0], ints(p)[1])).collect();
            let mode = match a["mode"].as_str().unwrap() {
                "constant" => Padding::Constant(float(a, "value")),
                "reflect" => Padding::Reflect,
                "replicate" => Padding::Replicate,
                _ => Padding::Circular,
            };
            t.pad(&amounts, mode)
        }
        "slice" => {
            let one = |s: &Value| Index::Range {
                start: s[0].as_i64(),
                end: s[1].as_i64(),
                step: s[2].as_u64().unwrap_or(1) as usize,
            };
            let index: Vec<Index> = a["slices"].as_array().unwrap().iter().map(one).collect();
            t.at(&index[..])
        }
        _ => return None,
    }])
}

fn indices(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let t = &x[0];
    let dim = a["dim"].as_i64().unwrap_or(0);
    Some(vec![match op {
        "gather" => t.gather(&x[1], dim),
        "scatter" => t.scatter(&x[1], &x[2], dim),
        "scatter_add" => t.scatter_add(&x[1], &x[2], dim),
        "scatter_amax" => t.scatter_max(&x[1], &x[2], dim),
        "index_select" => t.take(&x[1], dim),
        "index_add" => t.index_add(&x[1], &x[2], dim, float(a, "alpha")),
        "index_copy" => t.index_copy(&x[1], &x[2], dim),
        "index_nd" => t.index(&x[1..].iter().collect::<Vec<_>>()),
        "index_put_add" => t.index_put_add(&[&x[1], &x[2]], &x[3]),
        "embedding" => t.embedding(&x[1], a["padding_idx"].as_i64()),
        "masked_fill" => t.masked_fill(&x[1], float(a, "value")),
        "where" => t.select(&x[1], &x[2]),
        "lerp" => t.lerp(&x[1], &x[2]),
        "addcmul" => t.addcmul(&x[1], &x[2]),
        _ => return None,
    }])
}

fn products(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let all: Vec<&Tensor> = x.iter().collect();
    Some(vec![match op {
        "linear" => x[0].linear(&x[1], x.get(2)),
        "addmm" => x[1].addmm(&x[2], &x[0], float(a, "beta"), float(a, "alpha")),
        "einsum" => Tensor::einsum(a["equation"].as_str().unwrap(), &all),
        "leaky_relu" => x[0].leaky_relu(float(a, "slope")),
        "elu" => x[0].elu(float(a, "alpha")),
        "softplus" => x[0].softplus(float(a, "beta")),
        "clamp" => x[0].clamp(a["min"].as_f64(), a["max"].as_f64()),
        "pow_scalar" => x[0].pow(float(a, "exponent")),
        "scalar_pow" => x[0].full_like(float(a, "base")).pow(&x[0]),
        _ => return None,
    }])
}

fn losses(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    Some(vec![match op {
        "cross_entropy" => x[0].cross_entropy_with(&x[1], &classes(a, x.get(2))),
        "nll" => x[0].nll_with(&x[1], &classes(a, None)),
        "bce" => x[0].bce(&x[1], reduction(a)),
        "bce_with_logits" => x[0].bce_with_logits(&x[1], x.get(2), reduction(a)),
        "mse" => x[0].mse(&x[1], reduction(a)),
        "l1" => x[0].l1(&x[1], reduction(a)),
        "huber" => x[0].huber(&x[1], float(a, "delta"), reduction(a)),
        "smooth_l1" => x[0].smooth_l1(&x[1], float(a, "beta"), reduction(a)),
        "kl_div" => x[0].kl_div(&x[1], reduction(a)),
        _ => return None,
    }])
}

fn networks(op: &str, a: &Value, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let t = &x[0];
    let eps = a["eps"].as_f64().unwrap_or(0.0);
    Some(vec![match op {
        "softmax" => t.softmax(int(a, "dim")),
        "log_softmax" => t.log_softmax(int(a, "dim")),
        "l2_normalize" => t.l2_normalize(int(a, "dim"), eps),
        "layer_norm" => {
            let affine = yes(a, "affine");
            let (weight, bias) = (x.get(1).filter(|_| affine), x.get(2).filter(|_| affine));
            t.layer_norm(weight, bias, int(a, "n_dims") as usize, eps)
        }
        "rms_norm" => t.rms_norm(&x[1], eps, float(a, "weight_offset")),
        "group_norm" => t.group_norm(&x[1], &x[2], int(a, "groups") as usize, eps),
        "instance_norm" => t.instance_norm(&x[1], &x[2], eps),
        "batch_norm_eval" => t.batch_norm(&x[1], &x[2], &x[3], &x[4], eps),
        "batch_norm_train" => {
            let (y, mean, variance) =
                t.batch_norm_train(&x[1], &x[2], (&x[3], &x[4]), float(a, "momentum"), eps);
            return Some(vec![y, mean, variance]);
        }
        "attention" => {
            let causal = a["causal"].as_str().unwrap();
            let offset = match causal {
                "bottom_right" => x[1].size(2) as i64 - t.size(2) as i64,
                _ => 0,
            };
            let settings = Attention {
                scale: a["scale"].as_f64(),
                causal: causal != "none",
                offset,
                window: a["window"].as_u64().map(|w| w as usize),
                softcap: a["softcap"].as_f64(),
            };
            t.attention_with(&x[1], &x[2], x.get(3), None, &settings)
        }
        "rope" => {
            let positions = Tensor::arange(t.size(-2)) + int(a, "start");
            let mut rope = Rope::new(&positions, float(a, "theta"), t.size(-1), DType::F64);
            rope.interleaved = a["pairing"] == "interleaved";
            rope.apply(t)
        }
        _ => return None,
    }])
}
