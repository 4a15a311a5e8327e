//! Matrix products with work fused behind them.

use super::tile::epilogue::Epilogue;
use super::tile::ops::Kind;
use super::tile::{Output as Stored, Reach, Source};
use crate::gemm::{BatchDim, EpilogueTile, Gemm, Operand, Output, gemm};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::steps::Steps;
use ferrata_compiler::kernel::{Access, Contract, Instruction};
use ferrata_ir::{DType, Error, Result};

#[cfg(test)]
mod tests;

/// A matrix product, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct ContractKernel {
    kernel: Contract,
    isa: Isa,
    batch: Vec<BatchDim>,
    /// Rows, columns and length of the sums.
    size: [usize; 3],
    /// Rows and columns of both operands and of the result.
    left: [Steps; 2],
    right: [Steps; 2],
    out: [Steps; 2],
    /// What runs on finished parts, if the product itself is not the result.
    epilogue: Option<Epilogue>,
    /// Whether the result can hold partial sums.
    in_place: bool,
}

impl ContractKernel {
    /// Prepares a product.
    ///
    /// # Errors
    /// Dtypes that have no product.
    pub fn new(isa: Isa, kernel: &Contract) -> Result<ContractKernel> {
        let kernel = oriented(without_single_steps(kernel));
        let dtype = kernel.left.dtype;
        if dtype != kernel.right.dtype || dtype == DType::Bool {
            let other = kernel.right.dtype;
            return Err(Error::new(format!("no matrix product of {dtype} with {other}")));
        }
        let accumulator = dtype.accumulator();
        let rank = kernel.batch.len();
        let (m, n, k) = (&kernel.m[..], &kernel.n[..], &kernel.k[..]);
        let matrix = |access: &Access, rows: &[usize], columns: &[usize]| {
            let (row, column) = access.strides[rank..].split_at(rows.len());
            [Steps::new(rows, row), Steps::new(columns, column)]
        };
        let out = matrix(&kernel.out, m, n);
        let columns_in_a_row = n.is_empty() || out[1].single() == Some(1);
        let dense = columns_in_a_row && out[0].single().is_some_and(|row| row >= 0);
        let plain = dense && (kernel.out.dtype == dtype || kernel.out.dtype == accumulator);
        let epilogue = if plain && kernel.epilogue.is_none() {
            None
        } else {
            Some(prepared(isa, &kernel, accumulator)?)
        };
        let batch = (0..rank).map(|d| BatchDim {
            extent: kernel.batch[d],
            a_stride: kernel.left.strides[d],
            b_stride: kernel.right.strides[d],
            c_stride: kernel.out.strides[d],
        });
        Ok(ContractKernel {
            isa,
            batch: batch.collect(),
            size: [m, n, k].map(|loops| loops.iter().product()),
            left: matrix(&kernel.left, m, k),
            right: matrix(&kernel.right, k, n),
            out,
            epilogue,
            in_place: dense && kernel.out.dtype == accumulator,
            kernel,
        })
    }

    /// Operand, first byte, end, and whether it is written.
    pub fn reaches(&self) -> impl Iterator<Item = (usize, isize, isize, bool)> {
        let kernel = &self.kernel;
        let [m, n, k] = self.size;
        let range = |access: &Access, matrix: &[Steps; 2]| {
            let batch = Steps::new(&kernel.batch, &access.strides[..kernel.batch.len()]);
            let bounds = [batch.bounds(), matrix[0].bounds(), matrix[1].bounds()];
            let (at, size) = (access.offset as isize, access.dtype.size() as isize);
            let first: isize = bounds.iter().map(|b| b.0).sum();
            let last: isize = bounds.iter().map(|b| b.1).sum();
            (access.operand, (at + first) * size, (at + last + 1) * size)
        };
        let (left, right) = (range(&kernel.left, &self.left), range(&kernel.right, &self.right));
        let out = range(&kernel.out, &self.out);
        let behind = |reach: &Reach, written: bool| {
            let (first, end) = reach.bytes();
            (reach.operand, first, end, written)
        };
        let behind = self.epilogue.iter().flat_map(move |e| {
            let loads = e.loads().map(move |r| behind(r, false));
            loads.chain(e.stores().map(move |r| behind(r, true)))
        });
        let empty = m * n * kernel.batch.iter().product::<usize>() == 0;
        let operands = [(left, false), (right, false), (out, true)];
        let operands = operands.into_iter().filter(move |o| !(empty || k == 0 && !o.1));
        let operands = operands.map(|((operand, first, end), out)| (operand, first, end, out));
        operands.chain(behind.filter(move |_| !empty))
    }

    /// Runs the product.
    ///
    /// # Safety
    /// Operands hold all that [`ContractKernel::reaches`] says, aligned for their dtypes, and
    /// nobody else writes them.
    pub unsafe fn run(&self, pool: &Pool, operands: &[*mut u8]) -> Result<()> {
        let kernel = &self.kernel;
        let at = |a: &Access| operands[a.operand].wrapping_add(a.offset * a.dtype.size());
        let a = Operand {
            data: at(&kernel.left).cast_const(),
            rows: &self.left[0],
            columns: &self.left[1],
        };
        let b = Operand {
            data: at(&kernel.right).cast_const(),
            rows: &self.right[0],
            columns: &self.right[1],
        };
        let output = Output {
            data: at(&kernel.out),
            row_stride: self.out[0].single().map_or(0, |row| row.max(0) as usize),
            dtype: kernel.out.dtype,
        };
        let apart = !self.overlaps(operands);
        let in_place = self.in_place && apart;
        let operands = Operands(operands);
        let element = kernel.left.dtype.accumulator().size();
        let [m, n, k] = self.size;
        let run = |part: &EpilogueTile| {
            if let Some(epilogue) = &self.epilogue {
                // SAFETY: `reaches` covers the epilogue; parts are disjoint. A result that holds
                // the partial sums, or overlaps a load, is not written before all is computed.
                unsafe { epilogue.run(pool, operands.get(), part, element, apart, in_place) };
            }
        };
        let problem = Gemm {
            dtype: kernel.left.dtype,
            m,
            n,
            k,
            a,
            b,
            c: (self.epilogue.is_none() || in_place).then_some(output),
            batch: &self.batch,
            accumulate: false,
            epilogue: if self.epilogue.is_some() { Some(&run) } else { None },
        };
        // SAFETY: passed on.
        unsafe { gemm(pool, self.isa, &problem) }.map_err(Error::new)
    }

    /// Whether the epilogue reads memory that it writes.
    fn overlaps(&self, operands: &[*mut u8]) -> bool {
        let place = |reach: &Reach| {
            let (first, end) = reach.bytes();
            let base = operands[reach.operand] as isize;
            (base + first, base + end)
        };
        let Some(epilogue) = &self.epilogue else { return false };
        epilogue
            .loads()
            .map(place)
            .any(|read| epilogue.stores().map(place).any(|out| read.0 < out.1 && out.0 < read.1))
    }
}

/// Operands as seen from several threads.
#[derive(Clone, Copy)]
struct Operands<'a>(&'a [*mut u8]);

// SAFETY: parts of a product write different elements.
unsafe impl Sync for Operands<'_> {}

impl<'a> Operands<'a> {
    fn get(self) -> &'a [*mut u8] {
        self.0
    }
}

/// The same product without loops of one step in rows, columns and sums.
fn without_single_steps(kernel: &Contract) -> Contract {
    let mut out = kernel.clone();
    let longer = |loops: &[usize]| loops.iter().copied().filter(|&n| n != 1).collect();
    (out.m, out.n, out.k) = (longer(&kernel.m), longer(&kernel.n), longer(&kernel.k));
    let rank = kernel.batch.len();
    let fix = |access: &mut Access, rows: &[usize], columns: &[usize]| {
        let mut sizes = rows.iter().chain(columns);
        let strides = access.strides.split_off(rank);
        access.strides.extend(strides.into_iter().filter(|_| sizes.next() != Some(&1)));
    };
    let (m, n, k) = (&kernel.m, &kernel.n, &kernel.k);
    fix(&mut out.left, m, k);
    fix(&mut out.right, k, n);
    fix(&mut out.out, m, n);
    if let Some(epilogue) = &mut out.epilogue {
        epilogue.loads.iter_mut().for_each(|a| fix(a, m, n));
        epilogue.stores.iter_mut().for_each(|s| fix(&mut s.access, m, n));
    }
    out
}

/// The same product with contiguous columns in its result, if rows or columns are.
fn oriented(mut kernel: Contract) -> Contract {
    let rank = kernel.batch.len();
    let (rows, columns) = (kernel.m.len(), kernel.n.len());
    let inner = |strides: &[isize]| strides.last().copied();
    let (row, column) = kernel.out.strides[rank..].split_at(rows);
    let turn = inner(column).is_some_and(|s| s != 1) && inner(row).is_none_or(|s| s == 1);
    if !turn {
        return kernel;
    }
    let swap = |a: &mut Access, first: usize| a.strides[rank..].rotate_left(first);
    swap(&mut kernel.left, rows);
    swap(&mut kernel.right, kernel.k.len());
    swap(&mut kernel.out, rows);
    debug_assert_eq!(kernel.out.strides.len(), rank + rows + columns);
    std::mem::swap(&mut kernel.left, &mut kernel.right);
    std::mem::swap(&mut kernel.m, &mut kernel.n);
    if let Some(epilogue) = &mut kernel.epilogue {
        epilogue.loads.iter_mut().for_each(|a| swap(a, rows));
        epilogue.stores.iter_mut().for_each(|s| swap(&mut s.access, rows));
    }
    kernel
}

/// The epilogue of a product, or one that only stores it.
fn prepared(isa: Isa, kernel: &Contract, accumulator: DType) -> Result<Epilogue> {
    let rank = kernel.batch.len();
    let sizes = [&kernel.batch[..], &kernel.m].concat();
    let reach = |a: &Access| {
        let (row, column) = a.strides.split_at(rank + kernel.m.len());
        Reach {
            operand: a.operand,
            dtype: a.dtype,
            offset: a.offset as isize,
            row: Steps::new(&sizes, row),
            column: Steps::new(&kernel.n, column),
        }
    };
    let mut body = match &kernel.epilogue {
        Some(epilogue) => epilogue.body.clone(),
        None => vec![Instruction::Product],
    };
    if kernel.epilogue.is_none() && Kind::of(kernel.out.dtype) != Kind::of(accumulator) {
        body.push(Instruction::Cast { from: accumulator, to: kernel.out.dtype, arg: 0 });
    }
    if body.iter().any(|i| matches!(i, Instruction::ReduceColumns { .. })) || body.is_empty() {
        return Err(Error::new("an epilogue is elementwise and gives a value"));
    }
    let loads = kernel.epilogue.iter().flat_map(|e| &e.loads).map(reach).collect();
    let written = |access: &Access| {
        let mut reach = reach(access);
        if kernel.n.is_empty() {
            // A single column is still stored as columns are, so that its register has one.
            reach.column = Steps::new(&[1], &[1]);
        }
        reach
    };
    let result = Stored { register: body.len() - 1, reach: written(&kernel.out), combine: None };
    let beside = kernel.epilogue.iter().flat_map(|e| &e.stores).map(|s| Stored {
        register: s.register,
        reach: written(&s.access),
        combine: None,
    });
    let source = Source {
        loads,
        code: &body,
        indices: Vec::new(),
        product: Some(accumulator),
        // The result may replace the product in memory, so it is stored last.
        outputs: beside.chain([result]).collect(),
    };
    Epilogue::new(isa, &source, kernel.m.iter().product())
}
