//! Constants: what equal elements become, and results without elements.

use super::{Rewrite, Simplifier};
use ferrata_ir::primitive::Constant;
use ferrata_ir::{DType, Primitive, Scalar, Type, Value};

impl Simplifier {
    /// The number that all elements of a value are.
    pub(super) fn number(&self, v: Value) -> Option<Scalar> {
        match self.maker(v)?.0 {
            Primitive::Constant(c) => Some(c.value),
            _ => None,
        }
    }

    /// The result as a constant, where its elements are known to be equal.
    pub(super) fn fold(&self, op: &Primitive, args: &[Value]) -> Option<Rewrite> {
        if op.has_effect() || matches!(op, Primitive::Constant(_) | Primitive::Barrier(_)) {
            return None;
        }
        let types: Vec<&Type> = args.iter().map(|&v| self.ty(v)).collect();
        let Ok([ty]) = <[Type; 1]>::try_from(op.infer(&types).ok()?) else { return None };
        let value = self.equal_elements(op, args, &types, &ty)?;
        let constant = Constant { value: rounded(ty.dtype, value), ty };
        Some(Rewrite::Node(constant.into(), Vec::new()))
    }

    fn equal_elements(
        &self,
        op: &Primitive,
        args: &[Value],
        types: &[&Type],
        ty: &Type,
    ) -> Option<Scalar> {
        let zero = rounded(ty.dtype, Scalar::of(ty.dtype, 0.0));
        if ty.elements() == 0 {
            return Some(zero);
        }
        match op {
            Primitive::Reduce(r) if types[0].elements() == 0 => Some(r.kind.identity(ty.dtype)),
            Primitive::Dot(_) if types[0].elements() == 0 => Some(zero),
            Primitive::Elementwise(e) => {
                let numbers = args.iter().map(|&v| self.number(v)).collect::<Option<Vec<_>>>()?;
                Some(e.0.reference.apply(&numbers))
            }
            Primitive::Cast(c) => Some(c.apply(self.number(args[0])?)),
            Primitive::Broadcast(_)
            | Primitive::Reshape(_)
            | Primitive::Transpose(_)
            | Primitive::Slice(_)
            | Primitive::Reverse(_)
            | Primitive::Windows(_) => self.number(args[0]),
            Primitive::Dense(d) if ty.elements() == 1 => Some(d.value.get(0)),
            _ => None,
        }
    }
}

fn rounded(dtype: DType, x: Scalar) -> Scalar {
    match x {
        Scalar::Float(x) => Scalar::Float(dtype.round_float(x)),
        Scalar::Int(x) => Scalar::Int(dtype.wrap_int(x)),
    }
}
