//! Reductions along dimensions.

use super::attribute::{attribute_words, attributes};
use super::{
    Cumulative, Dim, Factor, Loops, Operand, Rules, Tangents, expect_dim, expect_inputs,
    not_linear, zero,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::primitive::{Concatenate, elementwise};
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// How elements are combined. All are associative and commutative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// Sum; in the dtype's accumulator type.
    Sum,
    /// Product.
    Product,
    /// Largest; NaN wins.
    Max,
    /// Smallest; NaN wins.
    Min,
    /// Bitwise and; for bool "all".
    And,
    /// Bitwise or; for bool "any".
    Or,
}

attribute_words!(ReduceKind {
    Sum => "sum", Product => "product", Max => "max", Min => "min", And => "and", Or => "or",
});

impl ReduceKind {
    /// The elementwise operation that combines two values.
    pub fn op(self) -> &'static elementwise::ElementwiseOp {
        match self {
            ReduceKind::Sum => &elementwise::ADD,
            ReduceKind::Product => &elementwise::MUL,
            ReduceKind::Max => &elementwise::MAX,
            ReduceKind::Min => &elementwise::MIN,
            ReduceKind::And => &elementwise::AND,
            ReduceKind::Or => &elementwise::OR,
        }
    }

    /// The value that changes nothing, which is also the result over no elements.
    pub fn identity(self, dtype: DType) -> Scalar {
        let bits = 8 * dtype.size() as u32;
        let signed = !matches!(dtype, DType::U8 | DType::U32 | DType::Bool);
        let top = match dtype {
            DType::Bool => 1,
            _ if signed => i64::MAX >> (64 - bits),
            _ => (1i64 << bits) - 1,
        };
        let (low, high) = if dtype.is_float() {
            (Scalar::Float(f64::NEG_INFINITY), Scalar::Float(f64::INFINITY))
        } else {
            (Scalar::Int(if signed { -top - 1 } else { 0 }), Scalar::Int(top))
        };
        match self {
            ReduceKind::Sum => Scalar::of(dtype, 0.0),
            ReduceKind::Product => Scalar::of(dtype, 1.0),
            ReduceKind::Max => low,
            ReduceKind::Min => high,
            ReduceKind::And => Scalar::Int(if signed { -1 } else { top }),
            ReduceKind::Or => Scalar::Int(0),
        }
    }

    /// Whether values of this dtype can be combined.
    pub fn accepts(self, dtype: DType) -> Result<()> {
        let ok = match self {
            ReduceKind::And | ReduceKind::Or => !dtype.is_float(),
            _ => dtype != DType::Bool,
        };
        if ok {
            return Ok(());
        }
        Err(Error::new(format!("{} of {dtype} has no meaning", self.word())).help("cast first"))
    }
}

/// Combines all elements along `dims`, which disappear from the shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// How.
    pub kind: ReduceKind,
    /// Rising list of dimensions.
    pub dims: Vec<usize>,
}

attributes!(Reduce { kind, dims });

impl Reduce {
    fn kept(&self, rank: usize) -> Vec<usize> {
        (0..rank).filter(|d| !self.dims.contains(d)).collect()
    }
}

impl Rules for Reduce {
    fn name(&self) -> &'static str {
        "reduce"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        self.kind.accepts(inputs[0].dtype)?;
        for &d in &self.dims {
            expect_dim(inputs[0], d)?;
        }
        if self.dims.windows(2).any(|w| w[0] >= w[1]) {
            return Err(Error::new(format!("dimensions {:?} repeat or do not rise", self.dims)));
        }
        let loops = self.loops(inputs).ok_or("no loop nest")?;
        Ok(vec![inputs[0].with_shape(loops.result_shape(0))])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let shape = &inputs[0].shape;
        let factor = |d: usize| Factor { size: shape[d], reduced: self.dims.contains(&d) };
        Some(Loops {
            factors: (0..shape.len()).map(factor).collect(),
            operands: vec![(0..shape.len()).map(Dim::Factor).collect()],
            results: vec![self.kept(shape.len()).into_iter().map(Dim::Factor).collect()],
            operations: 1.0,
        })
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let (x, ty) = (inputs[0], outputs[0]);
        let from = row_major_strides(&x.ty.shape);
        let to = row_major_strides(&ty.shape);
        let kept = self.kept(x.ty.rank());
        let mut sums = vec![self.kind.identity(ty.dtype); ty.elements()];
        let combine = self.kind.op().reference;
        for i in 0..x.ty.elements() {
            let at: usize =
                kept.iter().zip(&to).map(|(&d, stride)| i / from[d] % x.ty.shape[d] * stride).sum();
            sums[at] = combine.apply(&[sums[at], x.get(i)]);
        }
        Ok(vec![Literal::build(ty.clone(), |i| sums[i])])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dx) = dx[0].filter(|_| b.ty(x[0]).dtype.is_float()) else { return zero(1) };
        let shape = b.ty(x[0]).shape.clone();
        Ok(vec![Some(match self.kind {
            ReduceKind::Sum => b.sum(dx, &self.dims),
            ReduceKind::Max | ReduceKind::Min => {
                // Ties share the gradient equally.
                let extreme = b.broadcast_reduced(y[0], &shape, &self.dims);
                let hit = b.eq(x[0], extreme);
                let weight = b.cast(hit, b.ty(x[0]).dtype);
                let count = b.sum(weight, &self.dims);
                let masked = b.mul(dx, weight);
                let sum = b.sum(masked, &self.dims);
                b.div(sum, count)
            }
            ReduceKind::Product => {
                let others = products_of_others(b, x[0], &self.dims);
                let terms = b.mul(dx, others);
                b.sum(terms, &self.dims)
            }
            ReduceKind::And | ReduceKind::Or => return zero(1),
        })])
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        if self.kind != ReduceKind::Sum {
            return not_linear();
        }
        let shape = inputs[0].ty(b).shape;
        Ok(vec![dy[0].map(|d| b.broadcast_reduced(d, &shape, &self.dims))])
    }

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        let dims = self.dims.iter().map(|d| d + 1).collect();
        Ok(b.emit(Reduce { kind: self.kind, dims }, inputs))
    }
}

/// For each element the product of all others along `dims`, right also where elements are 0.
fn products_of_others(b: &mut Builder, x: Value, dims: &[usize]) -> Value {
    let shape = b.ty(x).shape.clone();
    let kept: Vec<usize> = (0..shape.len()).filter(|d| !dims.contains(d)).collect();
    let order: Vec<usize> = kept.iter().chain(dims).copied().collect();
    let moved = b.transpose(x, &order);
    let moved_shape = b.ty(moved).shape.clone();
    let n: usize = dims.iter().map(|&d| shape[d]).product();
    let mut flat_shape: Vec<usize> = kept.iter().map(|&d| shape[d]).collect();
    let dim = flat_shape.len();
    flat_shape.push(n);
    let flat = b.reshape(moved, &flat_shape);
    let mut one_shape = flat_shape;
    one_shape[dim] = n.min(1);
    let one = b.full(b.ty(flat).with_shape(one_shape), 1.0);
    let running = |b: &mut Builder, reverse| {
        let op = Cumulative { kind: ReduceKind::Product, dim, reverse };
        let all = b.emit1(op, &[flat]);
        let (from, to) = if reverse { (n.min(1), n) } else { (0, n.saturating_sub(1)) };
        let part = b.slice_dim(all, dim, from, to);
        let parts = if reverse { [part, one] } else { [one, part] };
        b.emit1(Concatenate { dim }, &parts)
    };
    let before = running(b, false);
    let after = running(b, true);
    let others = b.mul(before, after);
    let others = b.reshape(others, &moved_shape);
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
    b.transpose(others, &inverse)
}
