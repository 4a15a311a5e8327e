//! Soft-max, normalisation, losses, attention.

use super::attributes::Attributes;
use ferrata::{Attention, Classes, Pairing, Reduction, Tensor};

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    if op == "batch_norm_train" {
        let (y, mean, variance) =
            x[0].batch_norm_train(&x[1], &x[2], (&x[3], &x[4]), a.f64("momentum"), a.f64("eps"));
        return Some(vec![y, mean, variance]);
    }
    layer(op, a, x).or_else(|| loss(op, a, x)).map(|y| vec![y])
}

fn layer(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    let first = x.first()?;
    Some(match op {
        "softmax" => first.softmax(a.i64("dim")),
        "log_softmax" => first.log_softmax(a.i64("dim")),
        "layer_norm" => first.layer_norm(x.get(1), x.get(2), a.usize("n_dims"), a.f64("eps")),
        "rms_norm" => first.rms_norm(&x[1], a.f64("eps"), a.f64("weight_offset")),
        "group_norm" => first.group_norm(&x[1], &x[2], a.usize("groups"), a.f64("eps")),
        "instance_norm" => first.instance_norm(&x[1], &x[2], a.f64("eps")),
        "batch_norm_eval" => first.batch_norm(&x[1], &x[2], &x[3], &x[4], a.f64("eps")),
        "l2_normalize" => first.l2_normalize(a.i64("dim"), a.f64("eps")),
        "embedding" => first.embedding(&x[1], a.some_i64("padding_idx")),
        "attention" => attention(a, x),
        "rope" => rope(a, first),
        _ => return None,
    })
}

fn attention(a: &Attributes, x: &[Tensor]) -> Tensor {
    let offset = match a.text("causal") {
        "bottom_right" => x[1].size(2) as i64 - x[0].size(2) as i64,
        _ => 0,
    };
    let settings = Attention {
        scale: a.some_f64("scale"),
        causal: a.text("causal") != "none",
        offset,
        window: a.some_i64("window").map(|w| w as usize),
        softcap: a.some_f64("softcap"),
    };
    x[0].attention_with(&x[1], &x[2], x.get(3), None, &settings)
}

fn rope(a: &Attributes, x: &Tensor) -> Tensor {
    let pairing = match a.text("pairing") {
        "half" => Pairing::Half,
        _ => Pairing::Interleaved,
    };
    let positions = Tensor::arange(x.size(-2)) + a.i64("start");
    let frequencies = ferrata::rope_frequencies(a.f64("theta"), x.size(-1));
    let (cos, sin) = positions.rope_table(&frequencies, x.dtype());
    x.rope(&cos, &sin, pairing)
}

fn loss(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    let reduction = match a.0["reduction"].as_str()? {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "batchmean" => Reduction::BatchMean,
        _ => Reduction::Mean,
    };
    let (first, target) = (x.first()?, x.get(1)?);
    Some(match op {
        "cross_entropy" => {
            let classes = Classes {
                dim: 1,
                weight: x.get(2).cloned(),
                ignore: a.some_i64("ignore_index"),
                label_smoothing: a.f64("label_smoothing"),
                reduction,
            };
            first.cross_entropy_with(target, &classes)
        }
        "nll" => first.nll_with(target, &Classes { dim: 1, reduction, ..Classes::default() }),
        "bce" => first.bce(target, reduction),
        "bce_with_logits" => first.bce_with_logits(target, x.get(2), reduction),
        "mse" => first.mse(target, reduction),
        "l1" => first.l1(target, reduction),
        "huber" => first.huber(target, a.f64("delta"), reduction),
        "smooth_l1" => first.smooth_l1(target, a.f64("beta"), reduction),
        "kl_div" => first.kl_div(target, reduction),
        _ => return None,
    })
}
