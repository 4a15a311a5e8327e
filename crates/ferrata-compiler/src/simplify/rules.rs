//! Rewriting rules. Each holds for every bit of every result: `x + 0` is not among them, since it
//! turns -0 into 0. The one exception is the sum of values padded with zeros, how gradients of
//! slices come together: it becomes a concatenation, where a -0 stays a -0.

use super::{Rewrite, Simplifier};
use ferrata_ir::primitive::elementwise::{self, ElementwiseOp, ScalarOp};
use ferrata_ir::primitive::{
    Broadcast, Cast, Concatenate, Constant, Elementwise, Pad, ReduceKind, Reshape, Transpose,
};
use ferrata_ir::{DType, Primitive, Scalar, Value};

impl Simplifier {
    /// A simpler form of a node, if some rule knows one.
    pub(super) fn rewrite(&mut self, op: &Primitive, args: &[Value]) -> Option<Rewrite> {
        if let Some(folded) = self.fold(op, args) {
            return Some(folded);
        }
        match op {
            Primitive::Elementwise(e) => self.elementwise(e.0, args),
            Primitive::Cast(c) => self.cast(c.dtype, args[0]),
            _ => self.moves(op, args),
        }
    }

    fn elementwise(&mut self, op: &ElementwiseOp, args: &[Value]) -> Option<Rewrite> {
        let elementwise::Kernel::Op(op) = op.kernel else { return None };
        let same = |i: usize| Some(Rewrite::Value(args[i]));
        if op == ScalarOp::Div && !self.is_number(args[1], 1.0) {
            return self.division(args);
        }
        if op == ScalarOp::Add
            && let Some(joined) = self.sum_of_padded(args[0], args[1])
        {
            return Some(joined);
        }
        let is = |i: usize, x: f64| self.is_number(args[i], x);
        match op {
            ScalarOp::Mul if is(1, 1.0) => same(0),
            ScalarOp::Mul if is(0, 1.0) => same(1),
            ScalarOp::Div if is(1, 1.0) => same(0),
            ScalarOp::Add if is(1, -0.0) => same(0),
            ScalarOp::Add if is(0, -0.0) => same(1),
            ScalarOp::Sub if is(1, 0.0) => same(0),
            ScalarOp::Pow if is(1, 1.0) => same(0),
            ScalarOp::Pow if is(1, 2.0) => {
                Some(Rewrite::Node(Elementwise(&elementwise::MUL).into(), vec![args[0], args[0]]))
            }
            ScalarOp::Neg | ScalarOp::Not => {
                let (inner, x) = self.maker(args[0])?;
                let undone = matches!(inner, Primitive::Elementwise(e)
                    if matches!(e.0.kernel, elementwise::Kernel::Op(o) if o == op));
                undone.then(|| Rewrite::Value(x[0]))
            }
            ScalarOp::Select if args[1] == args[2] => same(1),
            ScalarOp::Select => {
                let chosen = self.number(args[0])?;
                same(if chosen.as_i64() != 0 { 1 } else { 2 })
            }
            _ => None,
        }
    }

    /// Whether all elements are this number; the sign of a float zero counts.
    fn is_number(&self, v: Value, x: f64) -> bool {
        match self.number(v) {
            Some(Scalar::Float(y)) => y.to_bits() == x.to_bits(),
            Some(Scalar::Int(y)) => y as f64 == x,
            None => false,
        }
    }

    /// Division by a power of two is a product.
    fn division(&mut self, args: &[Value]) -> Option<Rewrite> {
        let Some(Scalar::Float(x)) = self.number(args[1]) else { return None };
        let power = x.abs().log2();
        if power.fract() != 0.0 || power.abs() >= 14.0 {
            return None;
        }
        let (ty, value) = (self.ty(args[1]).clone(), Scalar::Float(1.0 / x));
        let inverse = self.emit(Constant { ty, value }.into(), Vec::new())[0];
        Some(Rewrite::Node(Elementwise(&elementwise::MUL).into(), vec![args[0], inverse]))
    }

    /// Two values padded with zeros, one ending where the other begins.
    fn sum_of_padded(&mut self, x: Value, y: Value) -> Option<Rewrite> {
        let (low, high) = (self.padded(x)?, self.padded(y)?);
        let mut order = [low, high];
        let differs = |d: &usize| order[0].0.low[*d] != order[1].0.low[*d];
        let dim = (0..self.ty(x).rank()).find(differs)?;
        order.sort_by_key(|(pad, _)| pad.low[dim]);
        let [(first, a), (second, b)] = order;
        let rank = self.ty(x).rank();
        let alike = (0..rank).all(|d| {
            d == dim || (first.low[d] == second.low[d] && first.high[d] == second.high[d])
        });
        if !alike || first.low[dim] + self.ty(a).shape[dim] as i64 != second.low[dim] {
            return None;
        }
        let mut parts = Vec::new();
        for part in [a, b] {
            match self.maker(part) {
                Some((Primitive::Concatenate(c), inner)) if c.dim == dim => parts.extend(inner),
                _ => parts.push(part),
            }
        }
        let inner = self.emit(Concatenate { dim }.into(), parts)[0];
        let mut pad = first;
        pad.high[dim] = second.high[dim];
        let zero = self.maker(x)?.1[1];
        Some(Rewrite::Node(pad.into(), vec![inner, zero]))
    }

    /// How and what is padded with zeros to make `v`, without cropping.
    fn padded(&self, v: Value) -> Option<(Pad, Value)> {
        let (Primitive::Pad(pad), args) = self.maker(v)? else { return None };
        let plain = pad.low.iter().chain(&pad.high).all(|&n| n >= 0)
            && pad.interior.iter().all(|&n| n == 0)
            && self.is_number(args[1], 0.0);
        plain.then(|| (pad.clone(), args[0]))
    }

    fn cast(&self, to: DType, x: Value) -> Option<Rewrite> {
        let middle = self.ty(x).dtype;
        if middle == to {
            return Some(Rewrite::Value(x));
        }
        let (Primitive::Cast(_), inner) = self.maker(x)? else { return None };
        let from = self.ty(inner[0]).dtype;
        let alike = from.is_float() == middle.is_float() || from == to;
        (alike && holds(middle, from))
            .then(|| Rewrite::Node(Cast { dtype: to }.into(), vec![inner[0]]))
    }

    /// Primitives that only move elements.
    fn moves(&self, op: &Primitive, args: &[Value]) -> Option<Rewrite> {
        let x = *args.first()?;
        let shape = &self.ty(x).shape;
        let inner = self.maker(x);
        let nothing = match op {
            Primitive::StopGradient(_) | Primitive::Annotate(_) => true,
            Primitive::Transpose(t) => t.permutation.iter().enumerate().all(|(i, &p)| i == p),
            Primitive::Reshape(r) => r.shape == *shape,
            Primitive::Broadcast(b) => b.shape == *shape,
            Primitive::Slice(s) => {
                s.start.iter().all(|&s| s == 0)
                    && s.stride.iter().all(|&s| s == 1)
                    && s.limit == *shape
            }
            Primitive::Reverse(r) => r.dims.iter().all(|&d| shape[d] == 1),
            Primitive::Pad(p) => {
                p.low.iter().chain(&p.high).all(|&n| n == 0) && p.interior.iter().all(|&n| n == 0)
            }
            Primitive::Concatenate(_) => args.len() == 1,
            Primitive::Reduce(r) => r.dims.is_empty(),
            _ => false,
        };
        if nothing {
            return Some(Rewrite::Value(x));
        }
        if let Primitive::Reduce(r) = op
            && r.dims.iter().all(|&d| shape[d] == 1)
            && (r.kind != ReduceKind::Sum || !self.ty(x).dtype.is_float())
        {
            let kept = (0..shape.len()).filter(|d| !r.dims.contains(d)).map(|d| shape[d]);
            return Some(Rewrite::Node(Reshape { shape: kept.collect() }.into(), vec![x]));
        }
        let again: Primitive = match (op, inner?.0) {
            (Primitive::Reshape(r), Primitive::Reshape(_)) => r.clone().into(),
            (Primitive::Transpose(outer), Primitive::Transpose(inner)) => Transpose {
                permutation: outer.permutation.iter().map(|&p| inner.permutation[p]).collect(),
            }
            .into(),
            (Primitive::Broadcast(outer), Primitive::Broadcast(inner)) => Broadcast {
                shape: outer.shape.clone(),
                dims: inner.dims.iter().map(|&d| outer.dims[d]).collect(),
            }
            .into(),
            _ => return None,
        };
        Some(Rewrite::Node(again, inner?.1.to_vec()))
    }
}

/// Whether `wide` represents every value of `narrow`.
fn holds(wide: DType, narrow: DType) -> bool {
    use DType::*;
    match narrow {
        Bool => true,
        F16 | BF16 => matches!(wide, F32 | F64),
        F32 => wide == F64,
        I8 => matches!(wide, I16 | I32 | I64 | F16 | F32 | F64),
        U8 => matches!(wide, I16 | I32 | I64 | U32 | F16 | F32 | F64),
        I16 => matches!(wide, I32 | I64 | F32 | F64),
        I32 => matches!(wide, I64 | F64),
        U32 => matches!(wide, I64 | F64),
        F64 | I64 => false,
    }
}
