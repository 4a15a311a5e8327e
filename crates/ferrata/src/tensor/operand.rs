//! Operators between tensors and numbers.

use super::Tensor;
use ferrata_ir::primitive::{Broadcast, Constant, Elementwise, ElementwiseOp, elementwise as ops};
use ferrata_ir::{Error, Result, Scalar, Type};

/// A second operand: a tensor, or a number, which takes the dtype and shape of the tensor.
pub trait IntoOperand {
    /// As a tensor that fits `like`.
    #[track_caller]
    fn into_operand(self, like: &Tensor) -> Tensor;

    /// The tensor, if it is one and not a number.
    fn tensor(&self) -> Option<&Tensor> {
        None
    }
}

impl IntoOperand for Tensor {
    fn tensor(&self) -> Option<&Tensor> {
        Some(self)
    }

    fn into_operand(self, _: &Tensor) -> Tensor {
        self
    }
}

impl IntoOperand for &Tensor {
    fn tensor(&self) -> Option<&Tensor> {
        Some(self)
    }

    fn into_operand(self, _: &Tensor) -> Tensor {
        self.clone()
    }
}

/// The number as a scalar of `like`'s dtype; an error if it has no such value.
#[track_caller]
fn number(x: Scalar, like: &Tensor) -> Tensor {
    let dtype = like.dtype();
    if like.error().is_some() {
        return like.clone();
    }
    Tensor::op("constant", &[], || {
        let value = match x {
            Scalar::Float(f) if !dtype.is_float() && (f.fract() != 0.0 || !f.is_finite()) => {
                return Err(Error::new(format!("the number {f} is no value of {dtype}"))
                    .help("cast the tensor to a float dtype first"));
            }
            Scalar::Int(i) if dtype.is_float() => Scalar::of(dtype, i as f64),
            Scalar::Int(i) => Scalar::Int(dtype.wrap_int(i)),
            Scalar::Float(f) => Scalar::of(dtype, f),
        };
        Ok(Tensor::record1(Constant { ty: Type::scalar(dtype), value }, &[]))
    })
}

macro_rules! numbers {
    ($($ty:ty => $via:ty),*) => {$(
        impl IntoOperand for $ty {
            #[track_caller]
            fn into_operand(self, like: &Tensor) -> Tensor {
                number((self as $via).into(), like)
            }
        }
    )*};
}

numbers!(f64 => f64, f32 => f64, i64 => i64, i32 => i64, u32 => i64, usize => i64);

impl IntoOperand for bool {
    #[track_caller]
    fn into_operand(self, like: &Tensor) -> Tensor {
        number(i64::from(self).into(), like)
    }
}

/// The shape that NumPy broadcasting gives operands of these shapes.
///
/// # Errors
/// Names the first dimension that does not fit.
pub fn broadcast_shape(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (i, &size) in shape.iter().rev().enumerate() {
            let slot = &mut out[rank - 1 - i];
            if *slot != size && *slot != 1 && size != 1 {
                let all: Vec<String> = shapes.iter().map(|s| format!("{s:?}")).collect();
                return Err(Error::new(format!(
                    "shapes {} do not broadcast: dimension -{} is {} and {size}",
                    all.join(" and "),
                    i + 1,
                    slot
                ))
                .help("sizes, aligned at the end, must be equal or 1; see reshape and unsqueeze"));
            }
            if size != 1 {
                *slot = size;
            }
        }
    }
    Ok(out)
}

impl Tensor {
    /// Repeats size-1 and missing leading dimensions to reach `shape`.
    #[track_caller]
    pub(crate) fn broadcast_to(&self, shape: &[usize]) -> Tensor {
        if self.shape() == shape || self.error().is_some() {
            return self.clone();
        }
        let first = shape.len().saturating_sub(self.rank());
        let dims = (first..first + self.rank()).collect();
        Tensor::record1(Broadcast { shape: shape.to_vec(), dims }, &[self])
    }

    /// Applies an elementwise primitive to operands of broadcastable shapes.
    #[track_caller]
    pub(crate) fn elementwise(op: &'static ElementwiseOp, inputs: &[&Tensor]) -> Tensor {
        let first = inputs.first().map(|t| t.shape()).unwrap_or_default();
        if inputs.iter().all(|t| t.shape() == first) {
            return Tensor::record1(Elementwise(op), inputs);
        }
        Tensor::op(op.name, inputs, || {
            let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape()).collect();
            let shape = broadcast_shape(&shapes)?;
            let operands: Vec<Tensor> = inputs.iter().map(|t| t.broadcast_to(&shape)).collect();
            let operands: Vec<&Tensor> = operands.iter().collect();
            Ok(Tensor::record1(Elementwise(op), &operands))
        })
    }

    #[track_caller]
    pub(crate) fn binary(op: &'static ElementwiseOp, x: &Tensor, y: impl IntoOperand) -> Tensor {
        let y = y.into_operand(x);
        Tensor::elementwise(op, &[x, &y])
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $assign:ident $assign_method:ident $op:ident),* $(,)?) => {$(
        impl<Y: IntoOperand> std::ops::$trait<Y> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: Y) -> Tensor {
                Tensor::binary(&ops::$op, self, y)
            }
        }

        impl<Y: IntoOperand> std::ops::$trait<Y> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: Y) -> Tensor {
                Tensor::binary(&ops::$op, &self, y)
            }
        }

        impl<Y: IntoOperand> std::ops::$assign<Y> for Tensor {
            /// Replaces this handle by the result; other handles keep the old value.
            #[track_caller]
            fn $assign_method(&mut self, y: Y) {
                *self = Tensor::binary(&ops::$op, self, y);
            }
        }

        // One type for each kind of literal: more would leave the type of `1.0 - x` open.
        operators!(@left $trait $method $op; f64 i64);
    )*};
    (@left $trait:ident $method:ident $op:ident; $($ty:ty)*) => {$(
        impl std::ops::$trait<&Tensor> for $ty {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: &Tensor) -> Tensor {
                Tensor::elementwise(&ops::$op, &[&self.into_operand(y), y])
            }
        }

        impl std::ops::$trait<Tensor> for $ty {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: Tensor) -> Tensor {
                Tensor::elementwise(&ops::$op, &[&self.into_operand(&y), &y])
            }
        }
    )*};
}

operators! {
    Add add AddAssign add_assign ADD, Sub sub SubAssign sub_assign SUB,
    Mul mul MulAssign mul_assign MUL, Div div DivAssign div_assign DIV,
}

macro_rules! bit_operators {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl<Y: IntoOperand> std::ops::$trait<Y> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: Y) -> Tensor {
                Tensor::binary(&ops::$op, self, y)
            }
        }

        impl<Y: IntoOperand> std::ops::$trait<Y> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, y: Y) -> Tensor {
                Tensor::binary(&ops::$op, &self, y)
            }
        }
    )*};
}

bit_operators!(BitAnd bitand AND, BitOr bitor OR, BitXor bitxor XOR, Shl shl SHL, Shr shr SHR);

macro_rules! unary_operators {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl std::ops::$trait for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self) -> Tensor {
                Tensor::elementwise(&ops::$op, &[self])
            }
        }

        impl std::ops::$trait for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self) -> Tensor {
                Tensor::elementwise(&ops::$op, &[&self])
            }
        }
    )*};
}

unary_operators!(Neg neg NEG, Not not NOT);
