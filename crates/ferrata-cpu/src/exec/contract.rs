//! Matrix products with work fused behind them.

use super::tile::epilogue::Epilogue;
use super::tile::ops::Kind;
use super::tile::steps::Steps;
use super::tile::{Output as Stored, Reach, Source};
use crate::gemm::{BatchDim, EpilogueTile, Gemm, Operand, Output, gemm};
use crate::isa::Isa;
use crate::pool::Pool;
use ferrata_compiler::kernel::{Access, Contract, Instruction};
use ferrata_ir::{DType, Error, Result};

/// A matrix product, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct ContractKernel {
    kernel: Contract,
    isa: Isa,
    batch: Vec<BatchDim>,
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
        let kernel = oriented(kernel);
        let dtype = kernel.left.dtype;
        if dtype != kernel.right.dtype || dtype == DType::Bool {
            let other = kernel.right.dtype;
            return Err(Error::new(format!("no matrix product of {dtype} with {other}")));
        }
        let accumulator = dtype.accumulator();
        let rank = kernel.batch.len();
        let [row, column] = [kernel.out.strides[rank], kernel.out.strides[rank + 1]];
        let dense = column == 1 && row >= 0;
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
        let batch = batch.collect();
        let in_place = dense && kernel.out.dtype == accumulator;
        Ok(ContractKernel { isa, batch, epilogue, in_place, kernel })
    }

    /// Operand, first byte, end, and whether it is written.
    pub fn reaches(&self) -> impl Iterator<Item = (usize, isize, isize, bool)> {
        let k = &self.kernel;
        let batch = &k.batch[..];
        let (left, right) = (range(&k.left, batch, [k.m, k.k]), range(&k.right, batch, [k.k, k.n]));
        let out = range(&k.out, batch, [k.m, k.n]);
        let behind = |reach: &Reach, written: bool| {
            let (first, end) = reach.bytes();
            (reach.operand, first, end, written)
        };
        let behind = self.epilogue.iter().flat_map(move |e| {
            let loads = e.loads().map(move |r| behind(r, false));
            loads.chain(e.stores().map(move |r| behind(r, true)))
        });
        let empty = k.m * k.n * batch.iter().product::<usize>() == 0;
        let operands = [(&k.left, left, false), (&k.right, right, false), (&k.out, out, true)];
        let operands = operands.into_iter().filter(move |o| !(empty || k.k == 0 && !o.2));
        let operands = operands.map(|(a, (first, end), written)| (a.operand, first, end, written));
        operands.chain(behind.filter(move |_| !empty))
    }

    /// Runs the product.
    ///
    /// # Safety
    /// Operands hold all that [`ContractKernel::reaches`] says, aligned for their dtypes, and
    /// nobody else writes them.
    pub unsafe fn run(&self, pool: &Pool, operands: &[*mut u8]) -> Result<()> {
        let k = &self.kernel;
        let rank = k.batch.len();
        let at = |a: &Access| operands[a.operand].wrapping_add(a.offset * a.dtype.size());
        let operand = |a: &Access| Operand {
            data: at(a).cast_const(),
            row_stride: a.strides[rank],
            column_stride: a.strides[rank + 1],
        };
        let output = Output {
            data: at(&k.out),
            row_stride: k.out.strides[rank].max(0) as usize,
            dtype: k.out.dtype,
        };
        let apart = !self.overlaps(operands);
        let in_place = self.in_place && apart;
        let operands = Operands(operands);
        let element = k.left.dtype.accumulator().size();
        let run = |part: &EpilogueTile| {
            if let Some(epilogue) = &self.epilogue {
                // SAFETY: `reaches` covers the epilogue; parts are disjoint. A result that holds
                // the partial sums, or overlaps a load, is not written before all is computed.
                unsafe { epilogue.run(pool, operands.get(), part, element, apart, in_place) };
            }
        };
        let problem = Gemm {
            dtype: k.left.dtype,
            m: k.m,
            n: k.n,
            k: k.k,
            a: operand(&k.left),
            b: operand(&k.right),
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

/// First byte and end of what an access reaches.
fn range(access: &Access, batch: &[usize], matrix: [usize; 2]) -> (isize, isize) {
    let sizes: Vec<usize> = batch.iter().copied().chain(matrix).collect();
    let (low, high) = Steps::new(&sizes, &access.strides).bounds();
    let (at, size) = (access.offset as isize, access.dtype.size() as isize);
    ((at + low) * size, (at + high + 1) * size)
}

/// The same product with contiguous columns in its result, if rows or columns are.
fn oriented(kernel: &Contract) -> Contract {
    let rank = kernel.batch.len();
    let mut kernel = kernel.clone();
    let fix = |k: &mut Contract| {
        if k.n == 1 {
            k.out.strides[rank + 1] = 1;
        }
    };
    let turn = kernel.out.strides[rank + 1] != 1
        && kernel.n != 1
        && (kernel.out.strides[rank] == 1 || kernel.m == 1);
    if !turn {
        fix(&mut kernel);
        return kernel;
    }
    let swap = |a: &mut Access| a.strides.swap(rank, rank + 1);
    swap(&mut kernel.out);
    swap(&mut kernel.left);
    swap(&mut kernel.right);
    std::mem::swap(&mut kernel.left, &mut kernel.right);
    std::mem::swap(&mut kernel.m, &mut kernel.n);
    if let Some(epilogue) = &mut kernel.epilogue {
        epilogue.loads.iter_mut().for_each(swap);
        epilogue.stores.iter_mut().for_each(|s| swap(&mut s.access));
        for instruction in &mut epilogue.body {
            if let Instruction::Index { dim, .. } = instruction
                && *dim >= rank
            {
                *dim = 2 * rank + 1 - *dim;
            }
        }
    }
    fix(&mut kernel);
    kernel
}

/// The epilogue of a product, or one that only stores it.
fn prepared(isa: Isa, kernel: &Contract, accumulator: DType) -> Result<Epilogue> {
    let rank = kernel.batch.len();
    let sizes: Vec<usize> = kernel.batch.iter().copied().chain([kernel.m]).collect();
    let reach = |a: &Access| Reach {
        operand: a.operand,
        dtype: a.dtype,
        offset: a.offset as isize,
        row: Steps::new(&sizes, &a.strides[..=rank]),
        column: Steps::new(&[kernel.n], &a.strides[rank + 1..]),
    };
    let one = |l: usize, at: usize| isize::from(l == at);
    let index = |l: usize| {
        let strides: Vec<isize> = (0..=rank).map(|at| one(l, at)).collect();
        (Steps::new(&sizes, &strides), Steps::new(&[kernel.n], &[one(l, rank + 1)]))
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
        if kernel.n == 1 {
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
        indices: (0..rank + 2).map(index).collect(),
        product: Some(accumulator),
        // The result may replace the product in memory, so it is stored last.
        outputs: beside.chain([result]).collect(),
    };
    Epilogue::new(isa, &source, kernel.m)
}
