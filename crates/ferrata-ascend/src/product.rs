//! Contractions as matrix products of the vendor's operators.

use crate::emit::behind;
use crate::runtime::{Block, Cann, Heap, Matmul, Matrix, Stream};
use ferrata_compiler::kernel::{Access, Contract, Loop};
use ferrata_compiler::row_major;
use ferrata_ir::{DType, Error, Result};
use std::sync::Arc;

/// One product, or a batch of them.
pub struct Product {
    matmul: Matmul,
    /// Whether there is a batch.
    batch: bool,
    /// Counts of batch, rows, columns, sums.
    counts: [usize; 4],
    dtype: DType,
    /// Left, right, out: first byte, and strides of batch, rows, columns.
    places: [(usize, [usize; 3]); 3],
}

/// A group of loops as one: its steps, and its stride; nothing if they do not step evenly, or not
/// forwards.
fn joined(counts: &[usize], strides: &[isize]) -> Option<(usize, usize)> {
    let (mut total, mut step) = (1, 0);
    for (&n, &stride) in counts.iter().zip(strides).rev().filter(|(n, _)| **n != 1) {
        match total {
            1 => step = usize::try_from(stride).ok().filter(|&s| s > 0)?,
            _ if stride == (step * total) as isize => {}
            _ => return None,
        }
        total *= n;
    }
    Some((total, step))
}

/// The strides of an access of three groups of loops.
fn strides(access: &Access, groups: [&[usize]; 3]) -> Option<[usize; 3]> {
    let mut rest = &access.strides[..];
    let mut steps = [0; 3];
    for (step, counts) in steps.iter_mut().zip(groups) {
        let own = rest.split_off(..counts.len())?;
        *step = joined(counts, own)?.1;
    }
    Some(steps)
}

impl Product {
    /// The product of a contraction, without what is behind it.
    ///
    /// # Errors
    /// When its loops or dtypes are none of a matrix product, or the installed CANN lacks the
    /// operator.
    pub fn find(contract: &Contract, cann: &Cann) -> Result<Product> {
        let Contract { batch, m, n, k, left, right, out, .. } = contract;
        let dtype = left.dtype;
        let known = [DType::F32, DType::F16, DType::BF16].contains(&dtype);
        if !known || right.dtype != dtype {
            return Err(Error::new(format!("no operator multiplies {dtype} by {}", right.dtype)));
        }
        let count = |group: &[usize]| group.iter().product::<usize>();
        let counts = [batch, m, n, k].map(|group| count(group));
        let uneven = || Error::new("the loops of a contraction are no matrix product");
        let place = |access: &Access, groups| -> Result<(usize, [usize; 3])> {
            let strides = strides(access, groups).ok_or_else(uneven)?;
            Ok((access.offset * access.dtype.size(), strides))
        };
        let places = [
            place(left, [batch, m, k])?,
            place(right, [batch, k, n])?,
            // Elsewhere if it lies there otherwise.
            place(out, [batch, m, n]).unwrap_or((0, [0; 3])),
        ];
        if counts.contains(&0) {
            return Err(uneven());
        }
        let batch = counts[0] > 1;
        Ok(Product { matmul: Matmul::find(cann, batch)?, batch, counts, dtype, places })
    }

    /// Strides of a dense result.
    fn dense(&self) -> [usize; 3] {
        let [_, m, n, _] = self.counts;
        [m * n, n, 1]
    }

    /// Bytes of the result.
    pub fn bytes(&self) -> usize {
        let [b, m, n, _] = self.counts;
        b * m * n * self.dtype.size()
    }

    /// Whether it is all of the contraction: dense, and nothing behind it.
    pub fn is_whole(&self, contract: &Contract) -> bool {
        let [b, m, n, _] = self.counts;
        let steps = self.places[2].1.iter().zip(self.dense()).zip([b, m, n]);
        let dense = steps.into_iter().all(|((own, dense), n)| n == 1 || *own == dense);
        contract.epilogue.is_none() && contract.out.dtype == self.dtype && dense
    }

    /// The product with a dense result in memory of its own, which is this operand; and what is
    /// behind it, as a loop nest that reads it there.
    pub fn apart(mut self, contract: &Contract, operand: usize) -> (Product, Loop) {
        self.places[2] = (0, self.dense());
        let counts = [&contract.batch[..], &contract.m, &contract.n].concat();
        let strides = row_major(&counts);
        let product = Access { operand, dtype: self.dtype, offset: 0, strides };
        (self, behind(contract, &counts, &product))
    }

    /// Multiplies, in a stream; operands are left, right, out.
    ///
    /// # Errors
    /// When the operator refuses it.
    pub fn run(
        &self,
        operands: &[(&Block, usize)],
        stream: &Arc<Stream>,
        heap: &Arc<Heap>,
    ) -> Result<()> {
        let [(left, l), (right, r), (out, o)] = operands else {
            return Err(Error::new("a product has three operands"));
        };
        let [b, m, n, k] = self.counts;
        let sizes = [[b, m, k], [b, k, n], [b, m, n]];
        let from = usize::from(!self.batch);
        // Where there is one step only, any stride does, but none is 0.
        let steps = self.places.map(|(_, strides)| strides.map(|s| s.max(1)));
        let matrix = |i: usize, block, at: &usize| Matrix {
            block,
            offset: at + self.places[i].0,
            dtype: self.dtype,
            sizes: &sizes[i][from..],
            strides: &steps[i][from..],
        };
        let matrices = [&matrix(0, *left, l), &matrix(1, *right, r), &matrix(2, *out, o)];
        self.matmul.run(matrices, stream, heap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_that_step_evenly_are_one() {
        assert_eq!(joined(&[3, 4], &[8, 2]), Some((12, 2)));
        assert_eq!(joined(&[3, 1, 4], &[4, 0, 1]), Some((12, 1)));
        assert_eq!(joined(&[1, 1], &[0, 0]), Some((1, 0)));
        assert_eq!(joined(&[], &[]), Some((1, 0)));
        assert_eq!(joined(&[3, 4], &[5, 1]), None);
        assert_eq!(joined(&[3], &[-1]), None);
        assert_eq!(joined(&[3], &[0]), None);
    }
}
