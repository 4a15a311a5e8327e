//! Operators on images: convolution, pooling, resizing.

use super::attributes::Attributes;
use ferrata::{Conv, GridSample, Interpolation, Outside, Pool, Tensor};
use serde_json::Value;

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let first = x.first()?;
    let y = match op {
        "conv" => first.conv(&x[1], x.get(2), &conv(a)),
        "conv_transpose" => {
            first.conv_transpose(&x[1], x.get(2), &conv(a), &a.sizes("output_padding"))
        }
        "unfold2d" => first.unfold(&a.sizes("kernel"), &conv(a)),
        "max_pool" => first.max_pool(&pool(a)),
        "avg_pool" => first.avg_pool(&pool(a), a.bool("count_include_pad")),
        "adaptive_avg_pool2d" => first.adaptive_avg_pool(&a.sizes("output_size")),
        "adaptive_max_pool2d" => first.adaptive_max_pool(&a.sizes("output_size")),
        "interpolate" => first.interpolate(&a.sizes("size"), interpolation(a)),
        "grid_sample" => first.grid_sample(&x[1], grid_sample(a)),
        _ => return None,
    };
    Some(vec![y])
}

/// Padding is one number or a pair for each spatial dimension.
fn conv(a: &Attributes) -> Conv {
    let padding = |p: &Value| {
        let amount = |v: &Value| v.as_i64().unwrap();
        p.as_array().map_or_else(|| (amount(p), amount(p)), |p| (amount(&p[0]), amount(&p[1])))
    };
    Conv {
        stride: a.sizes("stride"),
        padding: a.0["padding"].as_array().unwrap().iter().map(padding).collect(),
        dilation: a.sizes("dilation"),
        groups: a.some_i64("groups").map_or(1, |g| g as usize),
    }
}

fn pool(a: &Attributes) -> Pool {
    let pool = Pool::new(a.sizes("kernel")).stride(a.sizes("stride")).padding(a.sizes("padding"));
    let pool = if a.0["dilation"].is_array() { pool.dilation(a.sizes("dilation")) } else { pool };
    if a.bool("ceil_mode") { pool.ceil() } else { pool }
}

fn interpolation(a: &Attributes) -> Interpolation {
    let align_corners = a.bool("align_corners");
    match a.text("mode") {
        "nearest" => Interpolation::Nearest,
        "bicubic" => Interpolation::Cubic { align_corners },
        _ => Interpolation::Linear { align_corners },
    }
}

fn grid_sample(a: &Attributes) -> GridSample {
    GridSample {
        nearest: a.text("mode") == "nearest",
        outside: match a.text("padding_mode") {
            "border" => Outside::Border,
            _ => Outside::Zeros,
        },
        align_corners: a.bool("align_corners"),
    }
}
