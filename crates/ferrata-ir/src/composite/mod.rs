//! Composites: named functions whose bodies are primitives.
//!
//! Each builder function here checks its operands, builds a [`Function`] with a
//! [`Composite`](crate::Composite) name and attributes, and calls it. A device may claim the name
//! and run one kernel; otherwise the body is inlined. Where differentiating the body would keep too
//! much or lose digits, the composite brings its own derivative, whose two halves are composites
//! themselves (`NAME_forward`, `NAME_backward`).
//!
//! Wrong operands are remembered by the builder and reported by `Builder::finish`, under the
//! composite's name.
//!
//! | file | composites |
//! |---|---|
//! | `softmax` | `softmax`, `log_softmax`, `logsumexp` |
//! | `activation` | `relu`, `gelu`, `silu`, `swiglu`, `softplus` and others |
//! | `math` | `logaddexp`, `logcumsumexp`, `hypot`, `remainder`, `floor_div`, `cummax`, `cummin` |
//! | `norm` | `layer_norm`, `rms_norm`, `group_norm`, `batch_norm`, `batch_norm_train` |
//! | `conv` | `conv`, `conv_transpose`, `unfold`, `fold` |
//! | `pool` | `max_pool`, `avg_pool`, `adaptive_max_pool`, `adaptive_avg_pool` |
//! | `fourier` | `rfft`, `irfft`, `complex_mul` |
//! | `interpolate` | `interpolate`, `grid_sample` |
//! | `statistics` | `mean`, `var`, `std`, `norm`, `l2_normalize` |
//! | `cross_entropy` | `cross_entropy`, `nll` |
//! | `loss` | `mse`, `l1`, `huber`, `smooth_l1`, `bce`, `bce_with_logits`, `kl_div` |
//! | `linalg` | `solve`, `cholesky_solve`, `det`, `slogdet`, `lstsq`, `pinv`, `matrix_rank` |
//! | `lookup` | `embedding`, `dropout` |
//! | `segment` | `segment_sum` and others, `searchsorted`, `nonzero` |
//! | `rope` | `rope`, `rope_table` |
//! | `random` | `random_normal` |
//! | `attention` | `attention`, `attention_forward`, `attention_backward` |

mod activation;
pub mod attention;
mod conv;
mod cross_entropy;
mod fourier;
mod interpolate;
mod linalg;
mod lookup;
mod loss;
mod math;
mod norm;
mod pool;
mod random;
mod rope;
mod segment;
mod softmax;
mod statistics;

pub use activation::{
    elu, gelu, gelu_tanh, hard_sigmoid, hard_swish, leaky_relu, log_sigmoid, mish, relu, relu6,
    selu, silu, softplus, softsign, swiglu,
};
pub use attention::{Attention, attention};
pub use conv::{Conv, conv, conv_transpose, fold, unfold};
pub use cross_entropy::{CrossEntropy, cross_entropy, nll};
pub use fourier::{complex_mul, irfft, rfft};
pub use interpolate::{GridSample, Interpolation, Outside, grid_sample, interpolate};
pub use linalg::{cholesky_solve, det, lstsq, matrix_rank, pinv, slogdet, solve};
pub use lookup::{dropout, embedding};
pub use loss::{Reduction, bce, bce_with_logits, huber, kl_div, l1, mse, smooth_l1};
pub use math::{cumulative_extreme, floor_div, hypot, logaddexp, logcumsumexp, remainder};
pub use norm::{BatchNorm, batch_norm, batch_norm_train, group_norm, layer_norm, rms_norm};
pub use pool::{Pool, adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool};
pub use random::random_normal;
pub use rope::{Pairing, rope, rope_frequencies, rope_table};
pub use segment::{Segment, nonzero, searchsorted, segment};
pub use softmax::{log_softmax, logsumexp, softmax};
pub use statistics::{l2_normalize, mean, norm, std, var};

use crate::error::{Error, Result};
use crate::primitive::Attribute;
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use crate::{DType, Scalar};
use std::sync::Arc;

/// Attributes of a composite.
pub(crate) type AttributeList = Vec<(&'static str, Attribute)>;

/// A composite: parameters of the given types, results that `body` builds.
pub(crate) fn function(
    name: &'static str,
    attributes: AttributeList,
    inputs: &[Type],
    body: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let mut b = Builder::new(name);
    let parameters: Vec<Value> = inputs.iter().map(|t| b.parameter(t.clone())).collect();
    let results = body(&mut b, &parameters);
    Ok(Arc::new(b.finish(&results)?.as_composite(name, attributes)))
}

/// What a forward pass keeps for the backward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    /// An operand.
    Input(usize),
    /// A result of the forward composite.
    Result(usize),
}

/// How a composite brings its own derivative.
pub(crate) struct Own<'a> {
    /// Name of the composite, and of its backward composite.
    pub names: (&'static str, &'static str),
    /// Computes the results first, then values that only the backward pass wants.
    pub forward: Arc<Function>,
    /// How many of them are results of the composite.
    pub results: usize,
    /// The leading operands of the backward composite; cotangents follow.
    pub keep: &'a [Keep],
}

/// The composite whose derivative is `backward`: from kept values and cotangents of the float
/// results to cotangents of the float inputs. It carries the attributes of the forward composite.
pub(crate) fn with_own(
    own: Own,
    backward: impl FnOnce(&mut Builder, &[Value], &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let forward = own.forward;
    let attributes = forward.composite.as_ref().map_or(vec![], |c| c.attributes.clone());
    let inputs: Vec<Type> = forward.parameter_types().into_iter().cloned().collect();
    let parameters =
        |b: &mut Builder| -> Vec<Value> { inputs.iter().map(|t| b.parameter(t.clone())).collect() };
    let mut keeping = Builder::new(format!("{}.keep", own.names.0));
    let x = parameters(&mut keeping);
    let y = keeping.call(&forward, &x);
    let kept = own.keep.iter().map(|k| match *k {
        Keep::Input(i) => x[i],
        Keep::Result(i) => y[i],
    });
    let kept: Vec<Value> = kept.collect();
    let mut operands: Vec<Type> = kept.iter().map(|&v| keeping.ty(v).clone()).collect();
    let floats = forward.result_types().into_iter().take(own.results);
    operands.extend(floats.filter(|t| t.dtype.is_float()).cloned());
    let keeping = keeping.finish(&[&y[..own.results], &kept].concat())?;
    let backward = function(own.names.1, attributes.clone(), &operands, |b, x| {
        backward(b, &x[..own.keep.len()], &x[own.keep.len()..])
    })?;
    let all = own.results == forward.results().len();
    let plain = if all {
        Function::clone(&forward)
    } else {
        let mut b = Builder::new(own.names.0);
        let x = parameters(&mut b);
        let y = b.call(&forward, &x);
        b.finish(&y[..own.results])?.as_composite(own.names.0, attributes)
    };
    Ok(Arc::new(plain.with_derivative(Arc::new(keeping), backward)))
}

/// Builds the composite `name` for these operands and calls it. An error of `build` is remembered
/// by the builder, and `results` placeholders are returned.
pub(crate) fn call(
    b: &mut Builder,
    name: &str,
    inputs: &[Value],
    results: usize,
    build: impl FnOnce(&[Type]) -> Result<Arc<Function>>,
) -> Vec<Value> {
    let types: Vec<Type> = inputs.iter().map(|&v| b.ty(v).clone()).collect();
    match build(&types) {
        Ok(function) => b.call(&function, inputs),
        Err(e) => {
            let operands: Vec<&Type> = types.iter().collect();
            let error = e.at(name, &operands, b.origin());
            b.fail(error);
            let placeholder = b.full(Type::scalar(DType::F32), Scalar::Float(0.0));
            vec![placeholder; results]
        }
    }
}

/// The first of the last `count` dimensions.
pub(crate) fn first_of_last(ty: &Type, count: usize) -> Result<usize> {
    let first = ty.rank().checked_sub(count).filter(|_| count > 0);
    first.ok_or_else(|| Error::new(format!("{ty} has no {count} last dimensions")))
}

/// Checks that `ty` has a float dtype.
pub(crate) fn expect_float(what: &str, ty: &Type) -> Result<()> {
    if ty.dtype.is_float() {
        return Ok(());
    }
    Err(Error::new(format!("{what} is {ty}, but must have a float dtype"))
        .help("cast it, for example with .cast(f32)"))
}

/// Checks that `ty` has this dtype.
pub(crate) fn expect_dtype(what: &str, ty: &Type, dtype: DType) -> Result<()> {
    if ty.dtype == dtype {
        return Ok(());
    }
    Err(Error::new(format!("{what} is {ty}, but must have dtype {dtype}"))
        .help(format!("cast it, for example with .cast({dtype})")))
}

/// Checks that `ty` has this shape.
pub(crate) fn expect_shape(what: &str, ty: &Type, shape: &[usize]) -> Result<()> {
    if ty.shape == shape {
        return Ok(());
    }
    Err(Error::new(format!("{what} is {ty}, but must have shape {shape:?}")))
}

/// Checks that `dim` is a dimension of `ty`.
pub(crate) fn expect_dim(ty: &Type, dim: usize) -> Result<()> {
    if dim < ty.rank() {
        return Ok(());
    }
    Err(Error::new(format!("dimension {dim} does not exist in {ty}")))
}

/// Checks that `dims` are different dimensions of `ty`.
pub(crate) fn expect_dims(ty: &Type, dims: &[usize]) -> Result<()> {
    for (i, &d) in dims.iter().enumerate() {
        expect_dim(ty, d)?;
        if dims[..i].contains(&d) {
            return Err(Error::new(format!("dimension {d} of {ty} is named twice")));
        }
    }
    Ok(())
}

/// `x` in the dtype that sums of its dtype are accumulated in.
pub(crate) fn widen(b: &mut Builder, x: Value) -> Value {
    let wide = b.ty(x).dtype.accumulator();
    b.cast(x, wide)
}

/// An attribute that lists dimensions.
pub(crate) fn dims_attribute(dims: &[usize]) -> Attribute {
    Attribute::Ints(dims.iter().map(|&d| d as i64).collect())
}

/// A number as an attribute.
pub(crate) fn number(x: f64) -> Attribute {
    Attribute::Scalar(Scalar::Float(x))
}
