//! The general product: `(b m k), (b k n) -> (b m n)` with any number of dimensions of each kind.

use super::attribute::attributes;
use super::{
    Dim, Factor, Loops, Operand, Rules, SumOfProducts, Tangents, bilinear, expect_dim,
    expect_inputs, not_linear,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Value};
use crate::types::{Type, row_major_strides};

/// Multiplies along paired batch dimensions and sums along paired contracted ones. The result has
/// the batch dimensions, then the free dimensions of the left operand, then those of the right.
/// Sums are accumulated in the dtype's accumulator type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dot {
    /// Batch dimensions of the left operand.
    pub left_batch: Vec<usize>,
    /// Batch dimensions of the right operand, in the same order.
    pub right_batch: Vec<usize>,
    /// Contracted dimensions of the left operand.
    pub left_contract: Vec<usize>,
    /// Contracted dimensions of the right operand, in the same order.
    pub right_contract: Vec<usize>,
}

attributes!(Dot { left_batch, right_batch, left_contract, right_contract });

impl Dot {
    /// Free dimensions of the left operand of this rank.
    pub fn left_free(&self, rank: usize) -> Vec<usize> {
        free(rank, &self.left_batch, &self.left_contract)
    }

    /// Free dimensions of the right operand of this rank.
    pub fn right_free(&self, rank: usize) -> Vec<usize> {
        free(rank, &self.right_batch, &self.right_contract)
    }
}

fn free(rank: usize, batch: &[usize], contract: &[usize]) -> Vec<usize> {
    (0..rank).filter(|d| !batch.contains(d) && !contract.contains(d)).collect()
}

impl Rules for Dot {
    fn name(&self) -> &'static str {
        "dot"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let (x, y) = (inputs[0], inputs[1]);
        if x.dtype != y.dtype {
            return Err(Error::new(format!(
                "operands have different dtypes {} and {}",
                x.dtype, y.dtype
            ))
            .help(format!("cast one of them, for example with .cast({})", x.dtype)));
        }
        if x.dtype == DType::Bool {
            return Err(Error::new("needs numbers, but got bool").help("cast first"));
        }
        let sides = [
            (x, &self.left_batch, &self.left_contract),
            (y, &self.right_batch, &self.right_contract),
        ];
        for (ty, batch, contract) in sides {
            let mut named: Vec<usize> = batch.iter().chain(contract).copied().collect();
            for &d in &named {
                expect_dim(ty, d)?;
            }
            named.sort_unstable();
            if named.windows(2).any(|w| w[0] == w[1]) {
                return Err(Error::new(format!("a dimension of {ty} is named twice")));
            }
        }
        if self.left_batch.len() != self.right_batch.len()
            || self.left_contract.len() != self.right_contract.len()
        {
            return Err(Error::new("batch or contracted dimensions do not pair up"));
        }
        let pairs = |what: &str, l: &[usize], r: &[usize]| {
            let bad = l.iter().zip(r).find(|(l, r)| x.shape[**l] != y.shape[**r]);
            bad.map_or(Ok(()), |(&l, &r)| {
                Err(Error::new(format!(
                    "{what} dimension {l} of the left operand is {}, but dimension {r} of the right one is {}",
                    x.shape[l], y.shape[r]
                )))
            })
        };
        pairs("batch", &self.left_batch, &self.right_batch)?;
        pairs("contracted", &self.left_contract, &self.right_contract)?;
        let loops = self.loops(inputs).ok_or("no loop nest")?;
        loops.check(inputs)?;
        Ok(vec![x.with_shape(loops.result_shape(0))])
    }

    fn loops(&self, inputs: &[&Type]) -> Option<Loops> {
        let (x, y) = (inputs[0], inputs[1]);
        let (left_free, right_free) = (self.left_free(x.rank()), self.right_free(y.rank()));
        let mut factors = Vec::new();
        let mut left = vec![Dim::One; x.rank()];
        let mut right = vec![Dim::One; y.rank()];
        for (&l, &r) in self.left_batch.iter().zip(&self.right_batch) {
            (left[l], right[r]) = (Dim::Factor(factors.len()), Dim::Factor(factors.len()));
            factors.push(Factor { size: x.shape[l], reduced: false });
        }
        for &l in &left_free {
            left[l] = Dim::Factor(factors.len());
            factors.push(Factor { size: x.shape[l], reduced: false });
        }
        for &r in &right_free {
            right[r] = Dim::Factor(factors.len());
            factors.push(Factor { size: y.shape[r], reduced: false });
        }
        let result = (0..factors.len()).map(Dim::Factor).collect();
        for (&l, &r) in self.left_contract.iter().zip(&self.right_contract) {
            (left[l], right[r]) = (Dim::Factor(factors.len()), Dim::Factor(factors.len()));
            factors.push(Factor { size: x.shape[l], reduced: true });
        }
        Some(Loops { factors, operands: vec![left, right], results: vec![result], operations: 2.0 })
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let types = [&inputs[0].ty, &inputs[1].ty];
        let loops = self.loops(&types).ok_or("no loop nest")?;
        let stride_of = |dims: &[Dim], ty: &Type| {
            let strides = row_major_strides(&ty.shape);
            let mut by_factor = vec![0; loops.factors.len()];
            for (dim, stride) in dims.iter().zip(strides) {
                if let Dim::Factor(f) = dim {
                    by_factor[*f] = stride;
                }
            }
            by_factor
        };
        let (ls, rs) =
            (stride_of(&loops.operands[0], types[0]), stride_of(&loops.operands[1], types[1]));
        let parallel = outputs[0].rank();
        let k_shape: Vec<usize> = loops.factors[parallel..].iter().map(|f| f.size).collect();
        let (out_strides, k_strides) =
            (row_major_strides(&outputs[0].shape), row_major_strides(&k_shape));
        let k: usize = k_shape.iter().product();
        let offset = |i: usize, shape: &[usize], strides: &[usize], by: &[usize]| -> usize {
            (0..shape.len()).map(|d| i / strides[d] % shape[d] * by[d]).sum()
        };
        let steps: Vec<(usize, usize)> = (0..k)
            .map(|j| {
                let at = |by: &[usize]| offset(j, &k_shape, &k_strides, &by[parallel..]);
                (at(&ls), at(&rs))
            })
            .collect();
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            let (l, r) = (
                offset(i, &outputs[0].shape, &out_strides, &ls),
                offset(i, &outputs[0].shape, &out_strides, &rs),
            );
            let mut sum = SumOfProducts::default();
            for &(dl, dr) in &steps {
                sum.add(inputs[0].get(l + dl), inputs[1].get(r + dr));
            }
            sum.of_dtype(outputs[0].dtype)
        })])
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        _: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        bilinear(self, b, x, dx)
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        let Some(dy) = dy[0] else { return super::zero(2) };
        let (lt, rt) = (inputs[0].ty(b), inputs[1].ty(b));
        let (lf, rf) = (self.left_free(lt.rank()), self.right_free(rt.rank()));
        let nb = self.left_batch.len();
        let batch: Vec<usize> = (0..nb).collect();
        let dy_left: Vec<usize> = (nb..nb + lf.len()).collect();
        let dy_right: Vec<usize> = (nb + lf.len()..nb + lf.len() + rf.len()).collect();
        match (&inputs[0], &inputs[1]) {
            (Operand::Linear(_), Operand::Known(y)) => {
                // dy (b m n) · y (b k n) -> (b m k), then into the order of the left operand.
                let d = b.dot(dy, *y, (&batch, &self.right_batch), (&dy_right, &rf));
                let mut order: Vec<usize> = self.left_batch.iter().chain(&lf).copied().collect();
                order.extend(remaining(&self.right_contract, &self.left_contract));
                Ok(vec![Some(unpermute(b, d, &order)), None])
            }
            (Operand::Known(x), Operand::Linear(_)) => {
                // x (b m k) · dy (b m n) -> (b k n).
                let d = b.dot(*x, dy, (&self.left_batch, &batch), (&lf, &dy_left));
                let mut order: Vec<usize> = self.right_batch.clone();
                order.extend(remaining(&self.left_contract, &self.right_contract));
                order.extend(&rf);
                Ok(vec![None, Some(unpermute(b, d, &order))])
            }
            _ => not_linear(),
        }
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        _: usize,
    ) -> Result<Vec<Value>> {
        let shift =
            |v: &[usize], by: bool| v.iter().map(|d| d + usize::from(by)).collect::<Vec<_>>();
        let mut op = Dot {
            left_batch: shift(&self.left_batch, batched[0]),
            right_batch: shift(&self.right_batch, batched[1]),
            left_contract: shift(&self.left_contract, batched[0]),
            right_contract: shift(&self.right_contract, batched[1]),
        };
        // Where the new dimension lands: a batch dimension if both have it, else a free one.
        let at = match (batched[0], batched[1]) {
            (true, true) => {
                op.left_batch.insert(0, 0);
                op.right_batch.insert(0, 0);
                0
            }
            (true, false) => op.left_batch.len(),
            _ => op.left_batch.len() + op.left_free(b.ty(inputs[0]).rank()).len(),
        };
        let y = b.emit1(op, inputs);
        Ok(vec![b.move_dim(y, at, 0)])
    }
}

/// The contracted dimensions `mine`, in the order in which the paired `theirs` rise (which is the
/// order in which they stand in the result of the transposed product).
fn remaining(theirs: &[usize], mine: &[usize]) -> Vec<usize> {
    let mut pairs: Vec<(usize, usize)> = theirs.iter().copied().zip(mine.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, m)| m).collect()
}

/// Dimension `i` of `x` becomes dimension `order[i]` of the result.
fn unpermute(b: &mut Builder, x: Value, order: &[usize]) -> Value {
    let mut permutation = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &d)| permutation[d] = i);
    b.transpose(x, &permutation)
}
