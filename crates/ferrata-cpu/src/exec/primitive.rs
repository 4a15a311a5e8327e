//! Primitives that are no loop nest of scalar operations.

use super::Context;
use super::tile::steps::Steps;
use ferrata_compiler::kernel::View;
use ferrata_ir::{DType, Evaluator, Literal, Precision, Primitive, Result, Scalar, Type};

/// A primitive, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct PrimitiveKernel {
    op: Primitive,
    pub inputs: Vec<View>,
    pub outputs: Vec<View>,
}

impl PrimitiveKernel {
    /// Prepares a primitive.
    ///
    /// # Errors
    /// One that the device cannot run.
    pub fn new(op: &Primitive, inputs: &[View], outputs: &[View]) -> Result<PrimitiveKernel> {
        Ok(PrimitiveKernel { op: op.clone(), inputs: inputs.to_vec(), outputs: outputs.to_vec() })
    }

    /// Runs the primitive.
    ///
    /// # Safety
    /// As for [`super::Prepared::run`].
    pub unsafe fn run(&self, cx: &Context<'_>, operands: &[*mut u8]) -> Result<()> {
        // SAFETY: passed on.
        let inputs: Vec<Literal> =
            self.inputs.iter().map(|v| unsafe { read(v, operands[v.operand]) }).collect();
        if let (Primitive::DebugPrint(p), Some(show)) = (&self.op, cx.show) {
            show(&p.label, &inputs[0]);
        }
        let types: Vec<Type> =
            self.outputs.iter().map(|v| Type::new(v.dtype, v.shape.clone())).collect();
        let results = self.op.rules().evaluate(
            &Evaluator::new(Precision::Typed),
            &inputs.iter().collect::<Vec<_>>(),
            &types.iter().collect::<Vec<_>>(),
        )?;
        for (view, result) in self.outputs.iter().zip(results) {
            // SAFETY: passed on.
            unsafe { write(view, operands[view.operand], &result.rounded()) };
        }
        Ok(())
    }
}

/// Reads a view.
unsafe fn read(view: &View, data: *const u8) -> Literal {
    let steps = Steps::new(&view.shape, &view.strides);
    let ty = Type::new(view.dtype, view.shape.clone());
    Literal::build(ty, |i| {
        let at = (view.offset as isize + steps.at(i)) * view.dtype.size() as isize;
        // SAFETY: the view's elements are in the operand.
        unsafe {
            let p = data.offset(at);
            match view.dtype {
                DType::F64 => Scalar::Float(*p.cast::<f64>()),
                DType::F32 => Scalar::Float(f64::from(*p.cast::<f32>())),
                DType::F16 => Scalar::Float((*p.cast::<half::f16>()).to_f64()),
                DType::BF16 => Scalar::Float((*p.cast::<half::bf16>()).to_f64()),
                DType::I64 => Scalar::Int(*p.cast::<i64>()),
                DType::I32 => Scalar::Int(i64::from(*p.cast::<i32>())),
                DType::I16 => Scalar::Int(i64::from(*p.cast::<i16>())),
                DType::I8 => Scalar::Int(i64::from(*p.cast::<i8>())),
                DType::U32 => Scalar::Int(i64::from(*p.cast::<u32>())),
                DType::U8 | DType::Bool => Scalar::Int(i64::from(*p)),
            }
        }
    })
}

/// Writes a view.
unsafe fn write(view: &View, data: *mut u8, value: &Literal) {
    let steps = Steps::new(&view.shape, &view.strides);
    let bytes = value.to_bytes();
    let size = view.dtype.size();
    for (i, element) in bytes.chunks_exact(size).enumerate() {
        let at = (view.offset as isize + steps.at(i)) * size as isize;
        // SAFETY: the view's elements are in the operand.
        unsafe { std::ptr::copy_nonoverlapping(element.as_ptr(), data.offset(at), size) };
    }
}
