//! The loops of the tile interpreter: one function for each operation and register type, that works
//! on a whole block of elements. Only those that generated code calls are compiled for each path.

mod binary;
mod cast;
mod reduce;
mod select;
mod unary;

pub(crate) use binary::binary;
pub(crate) use cast::{cast, narrow, widen};
pub(crate) use reduce::{Reduction, reduction};
pub(crate) use select::select;
pub(crate) use unary::{copy, unary};

use crate::isa::{self, Isa, Kernel, Level};
use ferrata_ir::{DType, Scalar};
use std::marker::PhantomData;

/// Type of the elements of a register. Half-precision floats are kept as f32, truth values as
/// bytes that are 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F64,
    F32,
    I64,
    I32,
    I16,
    I8,
    U8,
    U32,
    Bool,
}

impl Kind {
    /// Of registers of this dtype.
    pub fn of(dtype: DType) -> Kind {
        match dtype {
            DType::F64 => Kind::F64,
            DType::F32 | DType::F16 | DType::BF16 => Kind::F32,
            DType::I64 => Kind::I64,
            DType::I32 => Kind::I32,
            DType::I16 => Kind::I16,
            DType::I8 => Kind::I8,
            DType::U8 => Kind::U8,
            DType::U32 => Kind::U32,
            DType::Bool => Kind::Bool,
        }
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Kind::F64 | Kind::I64 => 8,
            Kind::F32 | Kind::I32 | Kind::U32 => 4,
            Kind::I16 => 2,
            Kind::I8 | Kind::U8 | Kind::Bool => 1,
        }
    }

    /// The dtype whose elements in memory are those of a register.
    pub fn dtype(self) -> DType {
        match self {
            Kind::F64 => DType::F64,
            Kind::F32 => DType::F32,
            Kind::I64 => DType::I64,
            Kind::I32 => DType::I32,
            Kind::I16 => DType::I16,
            Kind::I8 => DType::I8,
            Kind::U8 => DType::U8,
            Kind::U32 => DType::U32,
            Kind::Bool => DType::Bool,
        }
    }

    /// The bits of a number, in the low bytes.
    pub fn bits(self, x: Scalar) -> u64 {
        match self {
            Kind::F64 => x.as_f64().to_bits(),
            Kind::F32 => u64::from((x.as_f64() as f32).to_bits()),
            Kind::Bool => u64::from(x.as_i64() != 0),
            _ => x.as_i64() as u64,
        }
    }
}

/// An operand of a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arg {
    pub data: *const u8,
    /// Elements from one row to the next.
    pub row: isize,
    /// Whether each column has an element of its own; else the row's first one is meant.
    pub vector: bool,
}

/// One loop over a block.
#[derive(Debug)]
pub(crate) struct Call {
    pub rows: usize,
    pub columns: usize,
    pub out: *mut u8,
    /// Elements from one row of the result to the next.
    pub out_row: isize,
    pub args: [Arg; 3],
}

/// A compiled loop. Results may not overlap operands, except in accumulating reductions.
pub(crate) type Loop = unsafe fn(&Call);

/// What a loop does, before it is compiled for an instruction set.
pub(super) trait Body {
    /// # Safety
    /// Every row of the result and of the operands is within its buffer.
    unsafe fn run<L: Level>(call: &Call);
}

struct Bound<'a, B>(&'a Call, PhantomData<B>);

impl<B: Body> Kernel for Bound<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        // SAFETY: whoever calls a `Loop` vouches for its blocks.
        unsafe { B::run::<L>(self.0) }
    }
}

/// # Safety
/// That of the body, and the machine has the level.
unsafe fn via<L: Level, B: Body>(call: &Call) {
    // SAFETY: passed on.
    unsafe { L::call(Bound::<B>(call, PhantomData)) }
}

/// The body, compiled for every machine.
pub(super) fn portable<B: Body>() -> Loop {
    via::<isa::Portable, B>
}

/// The body, compiled for an instruction set.
pub(super) fn entry<B: Body>(isa: Isa) -> Loop {
    match isa {
        Isa::Portable => via::<isa::Portable, B>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => via::<isa::Avx2, B>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => via::<isa::Avx512, B>,
        #[cfg(not(target_arch = "x86_64"))]
        _ => via::<isa::Portable, B>,
    }
}

impl Call {
    /// A row of the result.
    ///
    /// # Safety
    /// The row is within the result's buffer, and nobody else uses it meanwhile.
    #[inline(always)]
    unsafe fn out<'a, T>(&self, row: usize) -> &'a mut [T] {
        // SAFETY: passed on.
        unsafe {
            let start = self.out.cast::<T>().offset(row as isize * self.out_row);
            std::slice::from_raw_parts_mut(start, self.columns)
        }
    }

    /// A row of an operand with one element for each column.
    ///
    /// # Safety
    /// The row is within the operand's buffer, and nobody writes it meanwhile.
    #[inline(always)]
    unsafe fn row<'a, T>(&self, arg: usize, row: usize) -> &'a [T] {
        let arg = &self.args[arg];
        // SAFETY: passed on.
        unsafe {
            let start = arg.data.cast::<T>().offset(row as isize * arg.row);
            std::slice::from_raw_parts(start, self.columns)
        }
    }

    /// The element of an operand that has one for a whole row.
    ///
    /// # Safety
    /// As for [`Call::row`].
    #[inline(always)]
    unsafe fn scalar<T: Copy>(&self, arg: usize, row: usize) -> T {
        let arg = &self.args[arg];
        // SAFETY: passed on.
        unsafe { *arg.data.cast::<T>().offset(row as isize * arg.row) }
    }
}
