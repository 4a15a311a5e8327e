//! Primitives. Each stands in one file with all its rules: type, loop factors, reference meaning,
//! derivative, transposition, batching and text attributes. The [`Rules`] trait has no defaults,
//! so a primitive that lacks a rule does not compile.

pub mod arg_reduce;
mod attribute;
pub mod collective;
pub mod constant;
pub mod control;
pub mod convolution;
pub mod cumulative;
pub mod dft;
pub mod dot;
pub mod dynamic;
pub mod elementwise;
pub mod factorize;
pub mod identity;
pub mod index;
mod loops;
pub mod random;
pub mod reduce;
pub mod scan;
pub mod sort;
pub mod triangular_solve;
pub mod view;
pub mod windows;

pub use arg_reduce::{ArgReduce, Extremum};
pub(crate) use attribute::attribute_words;
pub use attribute::{Attribute, AttributeReader, AttributeValue, Attributes};
pub use collective::{AllGather, AllReduce, AllToAll, Permute, ReduceScatter};
pub use constant::{Constant, Dense, Iota};
pub use control::{Call, Cond, CustomLinear};
pub use convolution::Convolution;
pub use cumulative::Cumulative;
pub use dft::Dft;
pub use dot::Dot;
pub use dynamic::{DynamicSlice, DynamicUpdate};
pub use elementwise::{Cast, Elementwise, ElementwiseOp, ScalarOp};
pub use factorize::{Factorization, Factorize};
pub use identity::{Annotate, Barrier, DebugPrint, StopGradient};
pub use index::{BadIndex, Gather, Scatter, ScatterKind};
pub use loops::{Dim, Factor, Loops};
pub use random::{FoldKey, RandomBits};
pub use reduce::{Reduce, ReduceKind};
pub use scan::{Save, Scan};
pub use sort::{Sort, TopK};
pub use triangular_solve::TriangularSolve;
pub use view::{Broadcast, Concatenate, Pad, Reshape, Reverse, Slice, Transpose};
pub use windows::{Windows, window_count};

use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// An operand of a node that is being transposed.
#[derive(Clone, Debug)]
pub enum Operand {
    /// Does not depend on the tangents: its value may be used.
    Known(Value),
    /// Depends linearly on the tangents: only its type is known.
    Linear(Type),
}

impl Operand {
    /// Whether a cotangent is wanted for this operand.
    pub fn is_linear(&self) -> bool {
        matches!(self, Operand::Linear(_))
    }

    /// The value of an operand that must be known.
    ///
    /// # Errors
    /// When the node is not linear in the way its rule promises.
    pub fn known(&self) -> Result<Value> {
        match self {
            Operand::Known(v) => Ok(*v),
            Operand::Linear(ty) => {
                Err(Error::new(format!("operand of type {ty} is used non-linearly")))
            }
        }
    }

    /// The operand's type.
    pub fn ty(&self, b: &Builder) -> Type {
        match self {
            Operand::Known(v) => b.ty(*v).clone(),
            Operand::Linear(ty) => ty.clone(),
        }
    }
}

/// Tangents or cotangents, one per value; `None` is an exact zero.
pub type Tangents = Vec<Option<Value>>;

/// Everything that the stack knows of a primitive.
pub trait Rules: Attributes {
    /// Name in the text form and in errors.
    fn name(&self) -> &'static str;

    /// The type rule.
    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>>;

    /// The loop nest, for primitives that are one; operand types have passed [`Rules::infer`].
    fn loops(&self, inputs: &[&Type]) -> Option<Loops>;

    /// The meaning, slow and obvious. Results are rounded to their dtype by the caller if asked.
    fn evaluate(
        &self,
        cx: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>>;

    /// Tangents of the results `y` from tangents `dx` of the inputs `x`, at least one of which is
    /// there. A primitive that holds functions gets an empty `y` and fills it with the results,
    /// computed in the form that its derivative needs.
    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents>;

    /// Cotangents of the linear inputs from cotangents `dy` of the results. Entries of known
    /// inputs are `None`.
    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents>;

    /// The results with a new outermost dimension of `size`, when the inputs marked in `batched`
    /// have it. Every result gets the dimension.
    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>>;
}

/// The rule of a product of two operands, linear in each: its tangent with either of them.
fn bilinear(
    op: &(impl Clone + Into<Primitive>),
    b: &mut Builder,
    x: &[Value],
    dx: &[Option<Value>],
) -> Result<Tangents> {
    if !b.ty(x[0]).dtype.is_float() {
        return zero(1);
    }
    let left = dx[0].map(|d| b.emit1(op.clone(), &[d, x[1]]));
    let right = dx[1].map(|d| b.emit1(op.clone(), &[x[0], d]));
    Ok(vec![b.add_some(left, right)])
}

/// A sum of products of one dtype: floats in f64, integers wrapping.
#[derive(Default)]
struct SumOfProducts {
    float: f64,
    int: i64,
}

impl SumOfProducts {
    fn add(&mut self, x: Scalar, y: Scalar) {
        match (x, y) {
            (Scalar::Float(x), Scalar::Float(y)) => self.float += x * y,
            (x, y) => self.int = self.int.wrapping_add(x.as_i64().wrapping_mul(y.as_i64())),
        }
    }

    fn of_dtype(&self, dtype: crate::DType) -> Scalar {
        if dtype.is_float() { Scalar::Float(self.float) } else { Scalar::Int(self.int) }
    }
}

/// The rule of a linear primitive of one operand, and of its transpose: the result from what there
/// is of it.
fn linear(dx: &[Option<Value>], f: impl FnMut(Value) -> Value) -> Result<Tangents> {
    Ok(vec![dx[0].map(f)])
}

/// The rule of a primitive whose results do not change when its inputs do.
pub fn zero(results: usize) -> Result<Tangents> {
    Ok(vec![None; results])
}

/// The rule of a primitive that has no derivative; `reason` completes "has no derivative: …".
pub fn unsupported(reason: &str) -> Result<Tangents> {
    Err(Error::new(format!("has no derivative: {reason}"))
        .help("wrap the value in stop_gradient if no gradient is wanted through it"))
}

/// The transposition rule of a primitive that never stands among linear nodes.
pub fn not_linear() -> Result<Tangents> {
    Err(Error::new("is not linear and cannot be transposed"))
}

/// The derivative rules of a primitive whose results are integers.
macro_rules! integer_results {
    () => {
        fn jvp(
            &self,
            _: &mut $crate::program::Builder,
            _: &[$crate::program::Value],
            y: &mut Vec<$crate::program::Value>,
            _: &[Option<$crate::program::Value>],
        ) -> $crate::error::Result<$crate::primitive::Tangents> {
            $crate::primitive::zero(y.len())
        }

        fn transpose(
            &self,
            _: &mut $crate::program::Builder,
            _: &[$crate::primitive::Operand],
            _: &[Option<$crate::program::Value>],
        ) -> $crate::error::Result<$crate::primitive::Tangents> {
            $crate::primitive::not_linear()
        }
    };
}
pub(crate) use integer_results;

macro_rules! primitives {
    ($($variant:ident => $name:literal),* $(,)?) => {
        /// A primitive with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum Primitive { $($variant($variant)),* }

        $(impl From<$variant> for Primitive {
            fn from(p: $variant) -> Self { Primitive::$variant(p) }
        })*

        impl Primitive {
            /// Every name in the text form.
            pub fn names() -> Vec<&'static str> {
                let families = [$($name),*].into_iter().filter(|&name| name != "elementwise");
                families.chain(elementwise::all().map(|op| op.name)).collect()
            }

            /// The rules of the primitive inside.
            pub fn rules(&self) -> &dyn Rules {
                match self { $(Primitive::$variant(p) => p),* }
            }

            /// Reads the attributes of the primitive called `name`; `None` if there is none.
            pub fn read(name: &str, a: &mut AttributeReader) -> Option<Result<Primitive>> {
                $(if name == $name {
                    return Some(<$variant as Attributes>::read(a).map(Primitive::$variant));
                })*
                elementwise::find(name).map(|op| Ok(Primitive::Elementwise(Elementwise(op))))
            }
        }
    };
}

primitives! {
    Elementwise => "elementwise", Cast => "cast", Constant => "constant", Dense => "dense",
    Iota => "iota", Broadcast => "broadcast", Reshape => "reshape", Transpose => "transpose",
    Slice => "slice", Reverse => "reverse", Windows => "windows", Pad => "pad", Concatenate => "concatenate",
    Gather => "gather", Scatter => "scatter", DynamicSlice => "dynamic_slice",
    DynamicUpdate => "dynamic_update", Reduce => "reduce", ArgReduce => "arg_reduce",
    Sort => "sort", TopK => "top_k", Cumulative => "cumulative", Dot => "dot",
    Convolution => "convolution", Factorize => "factorize", TriangularSolve => "triangular_solve",
    Dft => "dft",
    AllReduce => "all_reduce", AllGather => "all_gather", ReduceScatter => "reduce_scatter",
    AllToAll => "all_to_all", Permute => "permute",
    RandomBits => "random_bits", FoldKey => "fold_key",
    StopGradient => "stop_gradient", Annotate => "annotate", Barrier => "barrier", DebugPrint => "debug_print", Call => "call",
    Scan => "scan", Cond => "cond", CustomLinear => "custom_linear",
}

impl Primitive {
    /// Name in the text form and in errors; a composite's call goes by the composite's name.
    pub fn name(&self) -> &str {
        match self {
            Primitive::Call(c) => c.function.composite.as_ref().map_or("call", |c| c.name),
            other => other.rules().name(),
        }
    }

    /// The type rule.
    ///
    /// # Errors
    /// When the operand types do not fit.
    pub fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        self.rules().infer(inputs)
    }

    /// How many results a node of this primitive with so many inputs has.
    pub fn result_count(&self, inputs: usize) -> usize {
        match self {
            Primitive::Barrier(_) => inputs,
            Primitive::Call(c) => c.function.results().len(),
            Primitive::Scan(s) => s.body.results().len(),
            Primitive::Cond(c) => c.branches[0].results().len(),
            Primitive::CustomLinear(c) => c.outputs.len(),
            Primitive::Sort(_) | Primitive::TopK(_) => 2,
            Primitive::Factorize(f) => f.kind.results(),
            _ => 1,
        }
    }

    /// Functions that this primitive holds.
    pub fn functions(&self) -> Vec<&Arc<Function>> {
        match self {
            Primitive::Call(c) => vec![&c.function],
            Primitive::Scan(s) => vec![&s.body],
            Primitive::Cond(c) => c.branches.iter().collect(),
            Primitive::CustomLinear(c) => vec![&c.backward],
            _ => Vec::new(),
        }
    }

    /// Whether it is done together with other ranks.
    pub fn is_collective(&self) -> bool {
        use Primitive::{AllGather, AllReduce, AllToAll, Permute, ReduceScatter};
        matches!(self, AllReduce(_) | AllGather(_) | ReduceScatter(_) | AllToAll(_) | Permute(_))
    }

    /// Whether a node must be kept although nobody uses its results.
    pub fn has_effect(&self) -> bool {
        match self {
            Primitive::DebugPrint(_) => true,
            // The other ranks wait for it.
            op if op.is_collective() => true,
            other => other.functions().iter().any(|f| f.nodes().iter().any(|n| n.op.has_effect())),
        }
    }
}

/// Checks the number of inputs.
pub(crate) fn expect_inputs(inputs: &[&Type], count: usize) -> Result<()> {
    if inputs.len() == count {
        return Ok(());
    }
    Err(Error::new(format!("takes {count} operands, {} given", inputs.len())))
}

/// Checks that an operand holds indices.
pub(crate) fn expect_indices(ty: &Type) -> Result<()> {
    if matches!(ty.dtype, crate::DType::I64 | crate::DType::I32) {
        return Ok(());
    }
    Err(Error::new(format!("indices are {ty}, not i64 or i32")).help("cast the indices to i64"))
}

/// Checks that `dim` is a dimension of a value of type `ty`.
pub(crate) fn expect_dim(ty: &Type, dim: usize) -> Result<()> {
    if dim < ty.rank() {
        return Ok(());
    }
    Err(Error::new(format!("dimension {dim} does not exist in {ty}")))
}
