//! The elementwise family: each member is one declaration in one of the files beside this one.

mod arithmetic;
mod compare;
mod special;
mod transcendental;
mod trigonometric;

pub use arithmetic::*;
pub use compare::*;
pub use special::*;
pub use transcendental::*;
pub use trigonometric::*;

use super::{Loops, Operand, Rules, Tangents, expect_inputs, not_linear, unsupported, zero};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::primitive::{Attribute, AttributeReader, Attributes};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::hash::{Hash, Hasher};

/// Everything that the stack knows of one elementwise operation. There is no `Default`: an
/// operation that lacks a part does not compile.
#[derive(Debug)]
pub struct ElementwiseOp {
    /// Name in the text form, in errors and in the Rust API.
    pub name: &'static str,
    /// Operands and result.
    pub signature: Signature,
    /// The meaning on scalars.
    pub reference: Reference,
    /// The derivative.
    pub derivative: Derivative,
    /// What devices run.
    pub kernel: Kernel,
}

/// Which operand types an elementwise operation takes, and what it gives. All operands have one
/// shape, which is the result's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// `n` operands of one float dtype; same result.
    Float(usize),
    /// `n` operands of one float or integer dtype; same result.
    Number(usize),
    /// `n` operands of one integer dtype or bool; same result.
    Bits(usize),
    /// `n` bool operands; bool result.
    Bool(usize),
    /// Two operands of one dtype; bool result.
    Compare,
    /// One float operand; bool result.
    Test,
    /// A bool operand and two of one dtype; that dtype.
    Select,
}

/// The scalar meaning; integer results are wrapped and float results rounded by the caller.
#[derive(Clone, Copy, Debug)]
pub enum Reference {
    /// On floats.
    Float(fn(&[f64]) -> f64),
    /// On integers and bool.
    Int(fn(&[i64]) -> i64),
    /// On floats and on integers.
    Number(fn(&[f64]) -> f64, fn(&[i64]) -> i64),
    /// Truth value from floats or integers.
    Compare(fn(f64, f64) -> bool, fn(i64, i64) -> bool),
    /// Truth value of one float.
    Test(fn(f64) -> bool),
    /// Picks the second or third operand.
    Select,
}

/// The contribution of operand `i` with tangent `dx` to the result's tangent, given operands `x`
/// and result `y`.
pub type Contribution = fn(&mut Builder, x: &[Value], y: Value, i: usize, dx: Value) -> Value;

/// Derivative of an elementwise operation.
#[derive(Clone, Copy, Debug)]
pub enum Derivative {
    /// Linear in each operand for which the function says so; the contribution of such an operand
    /// uses neither that operand nor the result, so it is its own transpose.
    Linear(fn(usize) -> bool, Contribution),
    /// A rule that may use operands and result.
    Rule(Contribution),
    /// Constant almost everywhere.
    Zero,
    /// None, and why.
    Unsupported(&'static str),
}

/// How a kernel computes an elementwise operation.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// By one scalar operation of the kernel language.
    Op(ScalarOp),
    /// By an expression of scalar operations over operands of the given dtype.
    Expand(fn(&mut dyn Expression, DType, &[Term]) -> Term),
}

/// A value inside an [`Expression`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Term(pub u32);

/// Where an expansion puts its scalar operations.
pub trait Expression {
    /// A constant of the given dtype.
    fn constant(&mut self, dtype: DType, x: f64) -> Term;
    /// Applies a scalar operation.
    fn apply(&mut self, op: ScalarOp, args: &[Term]) -> Term;
}

/// Scalar operations that every device knows; kernels are straight-line code over these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rustfmt::skip]
#[allow(missing_docs)]
pub enum ScalarOp {
    Neg, Abs, Sign, Floor, Ceil, Round, Trunc, Sqrt, Rsqrt, Not,
    Exp, Expm1, Log, Log1p, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh,
    Tanh, Logistic, Erf, Erfc, ErfInv, Lgamma, Digamma,
    Add, Sub, Mul, Div, Rem, Max, Min, Pow, Atan2,
    And, Or, Xor, Shl, Shr,
    Eq, Ne, Lt, Le, Gt, Ge, IsFinite,
    Select,
}

/// An elementwise primitive.
#[derive(Clone, Copy, Debug)]
pub struct Elementwise(pub &'static ElementwiseOp);

impl PartialEq for Elementwise {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Elementwise {}

impl Hash for Elementwise {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

/// The elementwise operation called `name`.
pub fn find(name: &str) -> Option<&'static ElementwiseOp> {
    all().find(|op| op.name == name)
}

/// Every elementwise operation.
pub fn all() -> impl Iterator<Item = &'static ElementwiseOp> {
    let families =
        [arithmetic::ALL, compare::ALL, transcendental::ALL, trigonometric::ALL, special::ALL];
    families.into_iter().flatten().copied()
}

/// An operation on one float that devices run as one scalar operation.
const fn unary(
    name: &'static str,
    reference: fn(&[f64]) -> f64,
    derivative: Derivative,
    op: ScalarOp,
) -> ElementwiseOp {
    ElementwiseOp {
        name,
        signature: Signature::Float(1),
        reference: Reference::Float(reference),
        derivative,
        kernel: Kernel::Op(op),
    }
}

impl Attributes for Elementwise {
    fn write(&self) -> Vec<(&'static str, Attribute)> {
        Vec::new()
    }
    fn read(_: &mut AttributeReader) -> Result<Self> {
        Err(Error::new("an elementwise primitive goes by its own name"))
    }
}

impl Signature {
    /// Number of operands.
    pub fn operands(self) -> usize {
        match self {
            Signature::Float(n)
            | Signature::Number(n)
            | Signature::Bits(n)
            | Signature::Bool(n) => n,
            Signature::Compare => 2,
            Signature::Test => 1,
            Signature::Select => 3,
        }
    }

    /// Dtype of the result for operands of these dtypes.
    fn result(self, dtypes: &[DType]) -> Result<DType> {
        let main = if self == Signature::Select { dtypes[1] } else { dtypes[0] };
        let same = if self == Signature::Select { &dtypes[1..] } else { dtypes };
        if let Some(other) = same.iter().find(|&&d| d != main) {
            return Err(Error::new(format!("operands have different dtypes {main} and {other}"))
                .help(format!("cast one of them, for example with .cast({main})")));
        }
        let (ok, wanted) = match self {
            Signature::Float(_) | Signature::Test => (main.is_float(), "a float dtype"),
            Signature::Number(_) => (main != DType::Bool, "a float or integer dtype"),
            Signature::Bits(_) => (!main.is_float(), "an integer dtype or bool"),
            Signature::Bool(_) => (main == DType::Bool, "bool"),
            Signature::Compare => (true, ""),
            Signature::Select => (dtypes[0] == DType::Bool, "a bool first operand"),
        };
        if !ok {
            let got = dtypes[0];
            return Err(Error::new(format!("needs {wanted}, but got {got}")).help("cast first"));
        }
        Ok(if matches!(self, Signature::Compare | Signature::Test) { DType::Bool } else { main })
    }
}

impl Reference {
    /// The meaning on one point.
    pub fn apply(self, x: &[Scalar]) -> Scalar {
        let floats = || x.iter().map(|s| s.as_f64()).collect::<Vec<_>>();
        let ints = || x.iter().map(|s| s.as_i64()).collect::<Vec<_>>();
        let is_float = matches!(x[0], Scalar::Float(_));
        match self {
            Reference::Float(f) => Scalar::Float(f(&floats())),
            Reference::Int(f) => Scalar::Int(f(&ints())),
            Reference::Number(f, _) if is_float => Scalar::Float(f(&floats())),
            Reference::Number(_, f) => Scalar::Int(f(&ints())),
            Reference::Compare(f, _) if is_float => {
                Scalar::Int(f(x[0].as_f64(), x[1].as_f64()).into())
            }
            Reference::Compare(_, f) => Scalar::Int(f(x[0].as_i64(), x[1].as_i64()).into()),
            Reference::Test(f) => Scalar::Int(f(x[0].as_f64()).into()),
            Reference::Select => x[if x[0].as_i64() != 0 { 1 } else { 2 }],
        }
    }
}

impl Rules for Elementwise {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, self.0.signature.operands())?;
        if let Some(other) = inputs.iter().find(|t| t.shape != inputs[0].shape) {
            return Err(Error::new(format!(
                "shapes {:?} and {:?} differ",
                inputs[0].shape, other.shape
            )));
        }
        let dtypes: Vec<DType> = inputs.iter().map(|t| t.dtype).collect();
        Ok(vec![inputs[0].with_dtype(self.0.signature.result(&dtypes)?)])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        Some(Loops::elementwise(&inputs[0].shape, inputs.len()))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let mut x = vec![Scalar::Int(0); inputs.len()];
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            for (s, literal) in x.iter_mut().zip(inputs) {
                *s = literal.get(i);
            }
            self.0.reference.apply(&x)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let rule = match self.0.derivative {
            Derivative::Linear(_, rule) | Derivative::Rule(rule) => rule,
            Derivative::Zero => return zero(1),
            Derivative::Unsupported(reason) => return unsupported(reason),
        };
        if !b.ty(y[0]).dtype.is_float() {
            return zero(1);
        }
        let mut sum = None;
        for (i, d) in dx.iter().enumerate() {
            if let Some(d) = *d {
                let term = rule(b, x, y[0], i, d);
                sum = Some(sum.map_or(term, |s| b.add(s, term)));
            }
        }
        Ok(vec![sum])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Derivative::Linear(linear_in, rule) = self.0.derivative else { return not_linear() };
        let Some(dy) = dy[0] else { return zero(inputs.len()) };
        // A contribution never looks at its own operand or the result, so `dy` may stand in there.
        let x: Vec<Value> =
            inputs.iter().map(|o| if let Operand::Known(v) = o { *v } else { dy }).collect();
        let mut cotangents = Vec::new();
        for (i, operand) in inputs.iter().enumerate() {
            if operand.is_linear() && !linear_in(i) {
                return not_linear();
            }
            cotangents.push(operand.is_linear().then(|| rule(b, &x, dy, i, dy)));
        }
        Ok(cotangents)
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(*self, &inputs))
    }
}

/// Conversion to another dtype. Float to integer truncates and saturates; NaN becomes 0;
/// integers wrap; anything non-zero is `true`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cast {
    /// The result's dtype.
    pub dtype: DType,
}

super::attribute::attributes!(Cast { dtype });

impl Cast {
    /// The meaning on one value.
    pub fn apply(&self, x: Scalar) -> Scalar {
        let to = self.dtype;
        match x {
            Scalar::Float(x) if to.is_float() => Scalar::Float(x),
            Scalar::Float(x) => Scalar::Int(match to {
                DType::Bool => i64::from(x != 0.0),
                DType::I64 => x as i64,
                DType::I32 => i64::from(x as i32),
                DType::I16 => i64::from(x as i16),
                DType::I8 => i64::from(x as i8),
                DType::U8 => i64::from(x as u8),
                _ => i64::from(x as u32),
            }),
            Scalar::Int(x) if to.is_float() => Scalar::Float(x as f64),
            Scalar::Int(x) => Scalar::Int(to.wrap_int(x)),
        }
    }
}

impl Rules for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        Ok(vec![inputs[0].with_dtype(self.dtype)])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        Some(Loops::elementwise(&inputs[0].shape, 1))
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let x = inputs[0];
        Ok(vec![Literal::build(outputs[0].clone(), |i| self.apply(x.get(i)))])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        if !self.dtype.is_float() || !b.ty(x[0]).dtype.is_float() {
            return zero(1);
        }
        Ok(vec![dx[0].map(|d| b.cast(d, self.dtype))])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let dtype = inputs[0].ty(b).dtype;
        Ok(vec![dy[0].map(|d| b.cast(d, dtype))])
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}
