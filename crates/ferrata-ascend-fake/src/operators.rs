//! Tensors and products, computed on the processor.

use crate::devices::put;
use crate::state::{
    Executor as Prepared, Outcome, State, Tensor as Known, call, lock, on_device, wrong,
};
use ferrata_ascend::runtime::abi::{Code, DataType, Executor, Format, Tensor};
use half::{bf16, f16};
use std::ffi::c_void;

const NULL: i32 = 161_001;
const PARAMETER: i32 = 161_002;
/// Scratch memory that every product asks for; an odd number, as real ones are.
const SCRATCH: u64 = 1000;

#[unsafe(no_mangle)]
unsafe extern "C" fn aclCreateTensor(
    sizes: *const i64,
    count: u64,
    dtype: DataType,
    strides: *const i64,
    offset: i64,
    format: Format,
    storage: *const i64,
    storage_count: u64,
    data: *mut c_void,
) -> *mut Tensor {
    // SAFETY: the caller gives lists of these lengths.
    let list =
        |at: *const i64, n: u64| unsafe { std::slice::from_raw_parts(at, n as usize) }.to_vec();
    let (sizes, strides) = (list(sizes, count), list(strides, count));
    let room: i64 = list(storage, storage_count).iter().product();
    let last: i64 = sizes.iter().zip(&strides).map(|(n, s)| (n - 1) * s).sum();
    if offset != 0 || format != Format::Nd || last >= room {
        return std::ptr::null_mut();
    }
    let mut s = lock();
    let handle = s.handle();
    s.tensors.insert(handle, Known { sizes, strides, dtype: dtype.0, data: data as u64 });
    handle as *mut Tensor
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclDestroyTensor(tensor: *const Tensor) -> Code {
    let handle = tensor as u64;
    call("aclDestroyTensor", |s| {
        s.remove("a tensor", handle, |s| s.tensors.remove(&handle)).map(drop)
    })
}

fn size(dtype: i32) -> usize {
    if dtype == DataType::F32.0 { 4 } else { 2 }
}

fn prepare(
    [name, operator]: [&'static str; 2],
    dims: usize,
    tensors: [*const Tensor; 3],
    mode: i8,
    bytes: *mut u64,
    executor: *mut *mut Executor,
) -> Code {
    on_device(name, |s| {
        let handles = tensors.map(|t| t as u64);
        let known: Vec<Known> = handles.iter().filter_map(|h| s.tensors.get(h).cloned()).collect();
        let [left, right, out] = &known[..] else { return wrong(NULL, "no tensor") };
        if mode != 0 {
            s.find("a product of f32 may be computed with shorter numbers");
        }
        let fits =
            [left, right, out].iter().all(|t| t.sizes.len() == dims && t.dtype == left.dtype);
        let (l, r, o) = (&left.sizes, &right.sizes, &out.sizes);
        let d = dims - 2;
        if !fits
            || l[..d] != r[..d]
            || l[..d] != o[..d]
            || l[d] != o[d]
            || l[d + 1] != r[d]
            || r[d + 1] != o[d + 1]
        {
            return wrong(PARAMETER, format!("{l:?} by {r:?} is not {o:?}"));
        }
        for tensor in &known {
            s.bytes(tensor.data, span(tensor))?;
        }
        let handle = s.handle();
        s.executors.insert(handle, Prepared { operator, tensors: handles, scratch: SCRATCH });
        // SAFETY: the caller gives room for both.
        unsafe {
            put(bytes, SCRATCH)?;
            put(executor, handle as *mut Executor)
        }
    })
}

/// Bytes from the first element to the end of the last.
fn span(tensor: &Known) -> usize {
    let last: i64 = tensor.sizes.iter().zip(&tensor.strides).map(|(n, s)| (n - 1) * s).sum();
    (last as usize + 1) * size(tensor.dtype)
}

fn run(
    operator: &'static str,
    scratch: *mut c_void,
    bytes: u64,
    executor: *mut Executor,
    stream: *mut c_void,
) -> Code {
    let handle = executor as u64;
    on_device(operator, |s| {
        let call = s.remove("a prepared call", handle, |s| s.executors.remove(&handle))?;
        if call.operator != operator || bytes < call.scratch {
            return wrong(PARAMETER, "not what was prepared");
        }
        let (scratch, bytes) = (scratch as u64, bytes as usize);
        s.bytes(scratch, bytes)?;
        let task = move |s: &mut State| {
            s.bytes(scratch, bytes)?.fill(0xEE);
            let known: Vec<Known> =
                call.tensors.iter().filter_map(|h| s.tensors.get(h).cloned()).collect();
            let [left, right, out] = &known[..] else {
                s.find("a tensor was given back before its operator had run");
                return wrong(NULL, "no tensor");
            };
            multiply(s, left, right, out)
        };
        s.push(stream as u64, operator, Box::new(task))
    })
}

/// One of two functions for each operator.
macro_rules! products {
    ($($prepare:ident, $run:ident, $dims:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $prepare(
            left: *const Tensor,
            right: *const Tensor,
            out: *mut Tensor,
            mode: i8,
            bytes: *mut u64,
            executor: *mut *mut Executor,
        ) -> Code {
            prepare([stringify!($prepare), stringify!($run)], $dims, [left, right, out], mode, bytes, executor)
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn $run(
            scratch: *mut c_void,
            bytes: u64,
            executor: *mut Executor,
            stream: *mut c_void,
        ) -> Code {
            run(stringify!($run), scratch, bytes, executor, stream)
        }
    )*};
}

products! {
    aclnnMatmulGetWorkspaceSize, aclnnMatmul, 2;
    aclnnBatchMatMulGetWorkspaceSize, aclnnBatchMatMul, 3;
}

fn read(data: &[u8], at: i64, dtype: i32) -> f32 {
    let at = at as usize * size(dtype);
    let half = || [data[at], data[at + 1]];
    match DataType(dtype) {
        DataType::F16 => f16::from_le_bytes(half()).to_f32(),
        DataType::BF16 => bf16::from_le_bytes(half()).to_f32(),
        _ => f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]),
    }
}

fn multiply(s: &mut State, left: &Known, right: &Known, out: &Known) -> Outcome {
    let x = s.bytes(left.data, span(left))?.to_vec();
    let y = s.bytes(right.data, span(right))?.to_vec();
    let dims = out.sizes.len();
    let d = dims - 2;
    let (batch, m, n, k) =
        (out.sizes[..d].iter().product::<i64>(), out.sizes[d], out.sizes[d + 1], left.sizes[d + 1]);
    let at = |t: &Known, b: i64, i: i64, j: i64| {
        let outer = if d == 1 { b * t.strides[0] } else { 0 };
        outer + i * t.strides[d] + j * t.strides[d + 1]
    };
    let dtype = out.dtype;
    let z = s.bytes(out.data, span(out))?;
    for b in 0..batch {
        for i in 0..m {
            for j in 0..n {
                let products = (0..k).map(|l| {
                    read(&x, at(left, b, i, l), dtype) * read(&y, at(right, b, l, j), dtype)
                });
                let sum: f32 = products.sum();
                let to = at(out, b, i, j) as usize * size(dtype);
                match DataType(dtype) {
                    DataType::F16 => {
                        z[to..to + 2].copy_from_slice(&f16::from_f32(sum).to_le_bytes())
                    }
                    DataType::BF16 => {
                        z[to..to + 2].copy_from_slice(&bf16::from_f32(sum).to_le_bytes())
                    }
                    _ => z[to..to + 4].copy_from_slice(&sum.to_le_bytes()),
                }
            }
        }
    }
    Ok(())
}
