//! The look for NaNs and infinities among what kernels read and write.

use crate::steps::Steps;
use ferrata_compiler::Kernel;
use ferrata_compiler::finite::Specials;
use ferrata_compiler::kernel::View;
use ferrata_ir::DType;

/// What is among the numbers that a kernel is about to read.
///
/// # Safety
/// Operands hold all that the kernel reads.
pub(super) unsafe fn read(kernel: &Kernel, operands: &[*mut u8]) -> Specials {
    // SAFETY: passed on.
    unsafe { among(&kernel.reads(), operands) }
}

/// What is among the numbers that a kernel has written.
///
/// # Safety
/// Operands hold all that the kernel writes.
pub(super) unsafe fn written(kernel: &Kernel, operands: &[*mut u8]) -> Specials {
    // SAFETY: passed on.
    unsafe { among(&kernel.writes(), operands) }
}

unsafe fn among(views: &[View], operands: &[*mut u8]) -> Specials {
    let mut found = Specials::default();
    for view in views.iter().filter(|v| v.dtype.is_float()) {
        let data = operands[view.operand].cast_const();
        // SAFETY: passed on; every bit pattern is a number.
        unsafe {
            match view.dtype {
                DType::F64 => scan::<u64>(view, data, 0x7ff0 << 48, &mut found),
                DType::F32 => scan::<u32>(view, data, 0x7f80 << 16, &mut found),
                DType::F16 => scan::<u16>(view, data, 0x7c00, &mut found),
                _ => scan::<u16>(view, data, 0x7f80, &mut found),
            }
        }
    }
    found
}

/// Looks at every element of a view; `infinity` has the bits of the exponent.
unsafe fn scan<T: Copy + Into<u64>>(
    view: &View,
    data: *const u8,
    infinity: u64,
    found: &mut Specials,
) {
    let steps = Steps::new(&view.shape, &view.strides);
    let count: usize = view.shape.iter().product();
    let sign = (infinity << 1) & !infinity & !(infinity >> 1);
    let data = data.cast::<T>();
    let mut done = 0;
    while done < count {
        let columns = steps.run(done).min(count - done);
        let first = view.offset as isize + steps.at(done);
        for i in 0..columns as isize {
            // SAFETY: the caller has every element of the view.
            let bits: u64 = unsafe { *data.offset(first + i * steps.stride()) }.into();
            let magnitude = bits & !sign;
            found.nan |= magnitude > infinity;
            found.infinity |= magnitude == infinity;
        }
        done += columns;
    }
}
