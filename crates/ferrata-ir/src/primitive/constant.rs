//! Constants and index ramps: primitives without operands.

use super::attribute::attributes;
use super::{Loops, Operand, Rules, Tangents, expect_dim, expect_inputs, not_linear, zero};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};
use std::sync::Arc;

/// Every element equal to one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    /// Type of the result.
    pub ty: Type,
    /// The value, of the dtype's kind.
    pub value: Scalar,
}

attributes!(Constant { ty, value });

/// A dense constant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dense {
    /// The value.
    pub value: Arc<Literal>,
}

attributes!(Dense { value });

/// The index along one dimension: 0, 1, 2, …
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Iota {
    /// Type of the result.
    pub ty: Type,
    /// The dimension that is counted.
    pub dim: usize,
}

attributes!(Iota { ty, dim });

/// The rules that all primitives without operands share.
macro_rules! nullary {
    ($name:ident, $text:literal, |$s:ident| $infer:expr, |$e:ident, $ty:ident| $evaluate:expr) => {
        impl Rules for $name {
            fn name(&self) -> &'static str {
                $text
            }

            fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
                expect_inputs(inputs, 0)?;
                let $s = self;
                $infer
            }

            fn loops(&self, _: &[&Type]) -> Option<Loops> {
                let mut loops = Loops::elementwise(&self.infer(&[]).ok()?[0].shape, 0);
                loops.operations = 0.0;
                Some(loops)
            }

            fn evaluate(
                &self,
                _: &Evaluator,
                _: &[&Literal],
                outputs: &[&Type],
            ) -> Result<Vec<Literal>> {
                let ($e, $ty) = (self, outputs[0]);
                Ok(vec![$evaluate])
            }

            fn jvp(
                &self,
                _: &mut Builder,
                _: &[Value],
                _: &mut Vec<Value>,
                _: &[Option<Value>],
            ) -> Result<Tangents> {
                zero(1)
            }

            fn transpose(
                &self,
                _: &mut Builder,
                _: &[Operand],
                _: &[Option<Value>],
            ) -> Result<Tangents> {
                not_linear()
            }

            fn batch(
                &self,
                b: &mut Builder,
                _: &[Value],
                _: &[bool],
                size: usize,
            ) -> Result<Vec<Value>> {
                let x = b.emit1(self.clone(), &[]);
                Ok(vec![b.add_batch(x, size)])
            }
        }
    };
}

nullary!(
    Constant,
    "constant",
    |s| match s.value {
        Scalar::Float(_) if !s.ty.dtype.is_float() => {
            Err(Error::new(format!("a float is no value of {}", s.ty.dtype)))
        }
        Scalar::Int(_) if s.ty.dtype.is_float() => {
            Err(Error::new(format!("an integer is no value of {}", s.ty.dtype)))
        }
        _ => Ok(vec![s.ty.clone()]),
    },
    |e, ty| Literal::splat(ty.clone(), e.value)
);

nullary!(Dense, "dense", |s| Ok(vec![s.value.ty.clone()]), |e, _ty| (*e.value).clone());

nullary!(
    Iota,
    "iota",
    |s| {
        expect_dim(&s.ty, s.dim)?;
        Ok(vec![s.ty.clone()])
    },
    |e, ty| {
        let stride = row_major_strides(&ty.shape)[e.dim];
        let size = ty.shape[e.dim];
        Literal::build(ty.clone(), |i| {
            let index = i / stride % size;
            if ty.dtype.is_float() {
                Scalar::Float(index as f64)
            } else {
                Scalar::Int(index as i64)
            }
        })
    }
);
