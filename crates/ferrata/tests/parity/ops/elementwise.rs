//! Elementwise operators and products.

use super::attributes::Attributes;
use ferrata::Tensor;

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let y = match x {
        [x] => unary(op, a, x)?,
        [x, y] => binary(op, a, x, y)?,
        _ => several(op, a, x)?,
    };
    Some(vec![y])
}

fn unary(op: &str, a: &Attributes, x: &Tensor) -> Option<Tensor> {
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
        "logical_not" => !x,
        "leaky_relu" => x.leaky_relu(a.f64("slope")),
        "elu" => x.elu(a.f64("alpha")),
        "softplus" => x.softplus(a.f64("beta")),
        "clamp" => x.clamp(a.some_f64("min"), a.some_f64("max")),
        "pow_scalar" => x.pow(a.f64("exponent")),
        "scalar_pow" => x.full_like(a.f64("base")).pow(x),
        "masked_log" => {
            let positive = x.gt(0.0);
            let safe = positive.select(x, 1.0);
            positive.select(safe.log(), 0.0)
        }
        "einsum" => Tensor::einsum(a.text("equation"), &[x]),
        _ => return None,
    })
}

fn binary(op: &str, a: &Attributes, x: &Tensor, y: &Tensor) -> Option<Tensor> {
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
        "logical_and" => x & y,
        "logical_xor" => x ^ y,
        "matmul" => x.matmul(y),
        "outer" => x.outer(y),
        "linear" => x.linear(y, None),
        "einsum" => Tensor::einsum(a.text("equation"), &[x, y]),
        "masked_fill" => x.masked_fill(y, a.f64("value")),
        _ => return None,
    })
}

fn several(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    Some(match op {
        "where" => x[0].select(&x[1], &x[2]),
        "lerp" => x[0].lerp(&x[1], &x[2]),
        "addcmul" => x[0].addcmul(&x[1], &x[2]),
        "addmm" => x[1].addmm(&x[2], &x[0], a.f64("beta"), a.f64("alpha")),
        "linear" => x[0].linear(&x[1], Some(&x[2])),
        "einsum" => Tensor::einsum(a.text("equation"), &x.iter().collect::<Vec<_>>()),
        _ => return None,
    })
}
