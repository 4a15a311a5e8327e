//! The vendor's operators: matrix products.
//!
//! Their functions are in no public header. Names and parameters are those of the pages
//! "aclnnMatmul" and "aclnnBatchMatMul" of CANN's reference of operators ("aclnn operator APIs"),
//! and **unverified**: nothing has compared them with a declaration.

use super::abi::{Code, DataType, Executor, Format, Tensor};
use super::cann::Cann;
use super::functions::signature;
use super::memory::{Block, Heap};
use super::stream::Stream;
use ferrata_ir::{DType, Error, Result};
use std::ffi::c_void;
use std::fmt;
use std::mem::transmute;
use std::ptr;
use std::sync::Arc;

/// Left, right, out, how products are computed, bytes of scratch memory, the prepared call.
type Prepare = unsafe extern "C" fn(
    *const Tensor,
    *const Tensor,
    *mut Tensor,
    i8,
    *mut u64,
    *mut *mut Executor,
) -> Code;
/// Scratch memory, its bytes, the prepared call, the stream.
type Run = unsafe extern "C" fn(*mut c_void, u64, *mut Executor, *mut c_void) -> Code;
/// Products of f32 in f32: the others round operands of f32 to shorter numbers.
const EXACT: i8 = 0;

/// A matrix in a block of memory, or a batch of them: sizes and strides, of batch (if there is one),
/// rows, columns.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Where it lies.
    pub block: &'a Block,
    /// Its first byte there.
    pub offset: usize,
    /// f32, f16 or bf16.
    pub dtype: DType,
    /// Size of each dimension.
    pub sizes: &'a [usize],
    /// Elements to step over for the next index of each dimension.
    pub strides: &'a [usize],
}

/// An operator that multiplies matrices.
#[derive(Clone, Copy)]
pub struct Matmul {
    prepare: Prepare,
    run: Run,
    create: signature::aclCreateTensor,
    destroy: signature::aclDestroyTensor,
    name: &'static str,
}

impl fmt::Debug for Matmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A tensor; dropping gives it back.
struct Owned {
    raw: *mut Tensor,
    destroy: signature::aclDestroyTensor,
}

// SAFETY: it is a handle that any thread may give back.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was made by aclCreateTensor, and the work that uses it is done.
        unsafe { (self.destroy)(self.raw) };
    }
}

impl Matmul {
    /// The operator for single products or for batches of them.
    ///
    /// # Errors
    /// When the user's CANN lacks it: says what is missing.
    pub fn find(cann: &Cann, batch: bool) -> Result<Matmul> {
        let (name, prepare) = match batch {
            true => ("aclnnBatchMatMul", "aclnnBatchMatMulGetWorkspaceSize"),
            false => ("aclnnMatmul", "aclnnMatmulGetWorkspaceSize"),
        };
        let lacks = |name: &str| Error::new(format!("the installed CANN lacks {name}"));
        let find = |name: &str| cann.operator(name).ok_or_else(|| lacks(name));
        let functions = cann.functions();
        let (run, prepare) = (find(name)?, find(prepare)?);
        Ok(Matmul {
            // SAFETY: the types are those of the vendor's documentation.
            prepare: unsafe { transmute::<*const c_void, Prepare>(prepare) },
            // SAFETY: as above.
            run: unsafe { transmute::<*const c_void, Run>(run) },
            create: functions.aclCreateTensor.ok_or_else(|| lacks("aclCreateTensor"))?,
            destroy: functions.aclDestroyTensor.ok_or_else(|| lacks("aclDestroyTensor"))?,
            name,
        })
    }

    fn tensor(&self, matrix: &Matrix<'_>) -> Result<Owned> {
        let numbers = |n: &[usize]| n.iter().map(|&n| n as i64).collect::<Vec<i64>>();
        let (sizes, strides) = (numbers(matrix.sizes), numbers(matrix.strides));
        let last = matrix.sizes.iter().zip(matrix.strides).map(|(n, s)| (n - 1) * s).sum::<usize>();
        let span = [last as i64 + 1];
        let data = matrix.block.address(matrix.offset, (last + 1) * matrix.dtype.size())?;
        let dtype = match matrix.dtype {
            DType::F32 => DataType::F32,
            DType::F16 => DataType::F16,
            DType::BF16 => DataType::BF16,
            other => return Err(Error::new(format!("{} does not multiply {other}", self.name))),
        };
        // SAFETY: the lists have the lengths that are given, and are copied; the memory is there
        // for as long as the work that uses the tensor.
        let raw = unsafe {
            let (count, at) = (sizes.len() as u64, strides.as_ptr());
            (self.create)(sizes.as_ptr(), count, dtype, at, 0, Format::Nd, span.as_ptr(), 1, data)
        };
        if raw.is_null() {
            return Err(Error::new("aclCreateTensor makes no tensor"));
        }
        Ok(Owned { raw, destroy: self.destroy })
    }

    /// Multiplies in a stream.
    ///
    /// # Errors
    /// When the operator refuses these matrices.
    pub fn run(
        &self,
        [left, right, out]: [&Matrix<'_>; 3],
        stream: &Arc<Stream>,
        heap: &Arc<Heap>,
    ) -> Result<()> {
        if [left, right, out].iter().any(|m| m.sizes.contains(&0)) {
            return Err(Error::new(format!("{} multiplies no empty matrices", self.name)));
        }
        let cann = stream.npu().cann();
        stream.npu().bind()?;
        let [left, right, out] = [self.tensor(left)?, self.tensor(right)?, self.tensor(out)?];
        let (mut bytes, mut executor) = (0, ptr::null_mut());
        // SAFETY: the tensors are alive; it writes a number and a pointer.
        let code = unsafe {
            (self.prepare)(left.raw, right.raw, out.raw, EXACT, &mut bytes, &mut executor)
        };
        cann.check(self.name, code)?;
        let scratch = match bytes {
            0 => None,
            _ => Some(heap.allocate(bytes as usize, stream)?),
        };
        let at = scratch.as_ref().map_or(Ok(ptr::null_mut()), |s| s.address(0, bytes as usize))?;
        // SAFETY: the scratch memory has the bytes that were asked for, and only later work of this
        // stream gets it next; the call is used once; the tensors are kept below.
        let code = unsafe { (self.run)(at, bytes, executor, stream.raw()) };
        stream.keep([left, right, out]);
        cann.check(self.name, code)
    }
}

/// The name of every operator's function that may be called, and whether it is there.
pub fn operators(cann: &Cann) -> Vec<(&'static str, bool)> {
    let names = [
        "aclnnMatmulGetWorkspaceSize",
        "aclnnMatmul",
        "aclnnBatchMatMulGetWorkspaceSize",
        "aclnnBatchMatMul",
    ];
    names.into_iter().map(|name| (name, cann.operator(name).is_some())).collect()
}
