//! The kernel language. A device lowers these few kinds; it never needs to know a primitive that
//! is made of scalar operations.
//!
//! Operands of a kernel are numbered; an operand is a span of memory given by the schedule, and a
//! [`View`] or [`Access`] says how the kernel reads or writes it. Offsets and strides count
//! elements of the view's dtype.
//!
//! Aliasing: operands that are written overlap no other operand, with one exception. A store of a
//! [`Loop`] without `combine` may share its memory with an operand that is only loaded with the
//! very same access (offset and strides; dtypes of one size): that element is loaded before it is
//! stored, in each row for all columns if the body reduces columns. A [`Contract`] never
//! overwrites what it reads.
//!
//! Registers: `dtype`s in instructions are what is computed with, so f16 and bf16 occur only in
//! accesses and as the `to` of a cast; a load of them gives an f32 register, a store rounds. Bool
//! registers come from bool loads, comparisons and logic. No loop has zero steps.

use ferrata_ir::primitive::{ReduceKind, ScalarOp};
use ferrata_ir::{Composite, DType, Primitive, Scalar};

/// A strided array in an operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Which operand of the kernel.
    pub operand: usize,
    /// Element type in memory.
    pub dtype: DType,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// First element.
    pub offset: usize,
    /// Elements to step over for the next index of each dimension; 0 repeats.
    pub strides: Vec<isize>,
}

/// How a loop nest reads or writes an operand: one stride for each loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Which operand of the kernel.
    pub operand: usize,
    /// Element type in memory.
    pub dtype: DType,
    /// Element at loop indices 0.
    pub offset: usize,
    /// Elements to step over for the next index of each loop; 0 repeats.
    pub strides: Vec<isize>,
}

/// A value of a kernel body: the instruction that defines it.
pub type Register = usize;

/// One instruction of a straight-line body. Half-precision floats are computed in f32: loads and
/// casts from f16 or bf16 give f32 registers, rounded to the narrow type by [`Instruction::Cast`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// The element of load `loads[i]` at the current loop indices.
    Load(usize),
    /// The accumulated product, in the epilogue of a [`Contract`].
    Product,
    /// A number.
    Constant {
        /// Register dtype.
        dtype: DType,
        /// The number.
        value: Scalar,
    },
    /// The current index of a loop; not in the epilogue of a [`Contract`].
    Index {
        /// Which loop: rows first, then columns.
        dim: usize,
        /// Register dtype.
        dtype: DType,
    },
    /// A scalar operation.
    Apply {
        /// Which.
        op: ScalarOp,
        /// Dtype of the operands (for a selection, of the chosen ones).
        dtype: DType,
        /// Operands.
        args: Vec<Register>,
    },
    /// Conversion, rounding to `to`.
    Cast {
        /// Dtype of the operand.
        from: DType,
        /// Dtype of the result.
        to: DType,
        /// Operand.
        arg: Register,
    },
    /// Combines the values of all columns of a row; the result is the same in each column.
    ReduceColumns {
        /// How.
        kind: ReduceKind,
        /// Dtype of operand and result.
        dtype: DType,
        /// Operand.
        arg: Register,
    },
}

/// Writes a register to memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// What is written.
    pub register: Register,
    /// Where; loops with stride 0 (and more than one step) are combined over.
    pub access: Access,
    /// How row loops with stride 0 are combined; `None` if there are none. Registers that are
    /// constant along the columns are stored once per row.
    pub combine: Option<ReduceKind>,
}

/// A fused elementwise and reduction kernel: `for row in rows { for column in columns { body } }`.
///
/// Reductions over columns ([`Instruction::ReduceColumns`]) may be used by later instructions, so a
/// soft-max or a layer normalisation is one kernel. Reductions over rows happen in stores, in the
/// register's dtype until the last partial result. Partial results are combined in an order that
/// depends only on the sizes. Without a reduction over columns, rows and columns are alike: a
/// device may split and order them as it likes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// Trip counts of the row loops, outermost first.
    pub rows: Vec<usize>,
    /// Trip counts of the column loops, outermost first; none means one column.
    pub columns: Vec<usize>,
    /// What the body reads; strides over rows, then columns.
    pub loads: Vec<Access>,
    /// Instructions in order; instruction `i` defines register `i`.
    pub body: Vec<Instruction>,
    /// What is written; strides over rows, then columns.
    pub stores: Vec<Store>,
}

/// One matrix product or a batch of them: `out[b, i, j] = epilogue(sum_k left[b, i, k] right[b, k, j])`.
///
/// Rows, columns and sums are loop nests of their own, so that an operand may be an overlapping
/// window: a convolution has rows `(image, y, x)` and sums `(kernel y, kernel x, channel)`, and its
/// left operand steps alike for `y` and `kernel y`. No loops are one step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Contract {
    /// Trip counts of the batch loops, outermost first.
    pub batch: Vec<usize>,
    /// Trip counts of the loops over rows of the result, outermost first.
    pub m: Vec<usize>,
    /// Trip counts of the loops over columns of the result, outermost first.
    pub n: Vec<usize>,
    /// Trip counts of the loops of the sums, outermost first.
    pub k: Vec<usize>,
    /// Left operand; strides over batch, `m`, `k`.
    pub left: Access,
    /// Right operand; strides over batch, `k`, `n`.
    pub right: Access,
    /// Result; strides over batch, `m`, `n`. Without an epilogue the accumulated product is
    /// rounded to its dtype.
    pub out: Access,
    /// Applied to each element of the product before it is stored, in the accumulator's dtype.
    pub epilogue: Option<Epilogue>,
}

/// Elementwise work fused behind a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// What the body reads; strides over batch, `m`, `n`.
    pub loads: Vec<Access>,
    /// Instructions without [`Instruction::ReduceColumns`]; the last register is the result.
    pub body: Vec<Instruction>,
    /// Registers that are written beside the result; strides over batch, `m`, `n`. None combines.
    pub stores: Vec<Store>,
}

/// What a device runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// A fused loop nest.
    Loop(Loop),
    /// A matrix product.
    Contract(Contract),
    /// A composite that the device has claimed.
    Composite {
        /// Name and attributes.
        composite: Composite,
        /// Inputs in the composite's order.
        inputs: Vec<View>,
        /// Results in the composite's order, through any window; several may lie in one buffer,
        /// but they never overlap.
        outputs: Vec<View>,
    },
    /// A primitive that is no loop nest of scalar operations: gather, scatter, sort, top-k, arg
    /// reductions, running reductions, pad, concatenate, dynamic slices, random bits, debug print.
    Primitive {
        /// Which, with attributes.
        op: Primitive,
        /// Inputs in the primitive's order.
        inputs: Vec<View>,
        /// Results in the primitive's order, dense.
        outputs: Vec<View>,
    },
}

impl Instruction {
    /// Registers that it uses.
    pub fn args(&self) -> &[Register] {
        match self {
            Instruction::Apply { args, .. } => args,
            Instruction::Cast { arg, .. } | Instruction::ReduceColumns { arg, .. } => {
                std::slice::from_ref(arg)
            }
            _ => &[],
        }
    }

    /// [`Instruction::args`], to renumber them.
    pub fn args_mut(&mut self) -> &mut [Register] {
        match self {
            Instruction::Apply { args, .. } => args,
            Instruction::Cast { arg, .. } | Instruction::ReduceColumns { arg, .. } => {
                std::slice::from_mut(arg)
            }
            _ => &mut [],
        }
    }
}

impl Access {
    /// The elements of all loops of these trip counts; a loop that stays in place counts once.
    fn view(&self, counts: &[usize]) -> View {
        let size = |(&n, &stride): (&usize, &isize)| if stride == 0 { n.min(1) } else { n };
        View {
            operand: self.operand,
            dtype: self.dtype,
            shape: counts.iter().zip(&self.strides).map(size).collect(),
            offset: self.offset,
            strides: self.strides.clone(),
        }
    }
}

impl Kernel {
    /// Whether ranks run it together.
    pub fn is_collective(&self) -> bool {
        matches!(self, Kernel::Primitive { op, .. } if op.is_collective())
    }

    /// Everything that the kernel reads.
    pub fn reads(&self) -> Vec<View> {
        match self {
            Kernel::Loop(l) => {
                let counts = [&l.rows[..], &l.columns].concat();
                l.loads.iter().map(|a| a.view(&counts)).collect()
            }
            Kernel::Contract(c) => {
                let left = c.left.view(&[&c.batch[..], &c.m, &c.k].concat());
                let right = c.right.view(&[&c.batch[..], &c.k, &c.n].concat());
                let counts = [&c.batch[..], &c.m, &c.n].concat();
                let loads = c.epilogue.iter().flat_map(|e| &e.loads);
                let loads = loads.map(|a| a.view(&counts));
                [left, right].into_iter().chain(loads).collect()
            }
            Kernel::Composite { inputs, .. } | Kernel::Primitive { inputs, .. } => inputs.clone(),
        }
    }

    /// Everything that the kernel writes.
    pub fn writes(&self) -> Vec<View> {
        match self {
            Kernel::Loop(l) => {
                let counts = [&l.rows[..], &l.columns].concat();
                l.stores.iter().map(|s| s.access.view(&counts)).collect()
            }
            Kernel::Contract(c) => {
                let counts = [&c.batch[..], &c.m, &c.n].concat();
                let beside = c.epilogue.iter().flat_map(|e| &e.stores).map(|s| &s.access);
                std::iter::once(&c.out).chain(beside).map(|a| a.view(&counts)).collect()
            }
            Kernel::Composite { outputs, .. } | Kernel::Primitive { outputs, .. } => {
                outputs.clone()
            }
        }
    }

    /// The instructions of the body or epilogue.
    pub fn body(&self) -> &[Instruction] {
        match self {
            Kernel::Loop(l) => &l.body,
            Kernel::Contract(c) => c.epilogue.as_ref().map_or(&[], |e| &e.body),
            Kernel::Composite { .. } | Kernel::Primitive { .. } => &[],
        }
    }
}
