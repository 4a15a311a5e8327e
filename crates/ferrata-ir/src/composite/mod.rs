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
//! | `attention` | `attention`, `attention_forward`, `attention_backward` |

pub mod attention;

pub use attention::{Attention, attention};

use crate::error::{Error, Result};
use crate::primitive::Attribute;
use crate::program::{Builder, CustomDerivative, Function, Value};
use crate::types::Type;
use crate::{DType, Scalar};
use std::sync::Arc;

/// Attributes of a composite.
pub(crate) type AttributeList = Vec<(&'static str, Attribute)>;

/// A composite without own derivative: parameters of the given types, results that `body` builds.
pub(crate) fn function(
    name: &'static str,
    attributes: AttributeList,
    inputs: &[Type],
    body: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    differentiable(name, attributes, inputs, None, body)
}

/// A composite with own derivative.
pub(crate) fn differentiable(
    name: &'static str,
    attributes: AttributeList,
    inputs: &[Type],
    derivative: Option<CustomDerivative>,
    body: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let mut b = Builder::new(name);
    let parameters: Vec<Value> = inputs.iter().map(|t| b.parameter(t.clone())).collect();
    let results = body(&mut b, &parameters);
    let mut function = b.finish(&results)?.as_composite(name, attributes);
    function.derivative = derivative;
    Ok(Arc::new(function))
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
