//! What the host does with values of a device: kernels that the cores lack, and the look for numbers
//! that are none.

use ferrata_compiler::finite::Specials;
use ferrata_compiler::kernel::View;
use ferrata_compiler::plan::{Place, Step};
use ferrata_compiler::{Kernel, Plan};
use ferrata_ir::{
    DType, Evaluator, Literal, Origin, Precision, Primitive, Result, Scalar, Type,
    row_major_strides,
};
use std::sync::Arc;

/// Byte offsets of a view's elements, row-major.
fn positions(view: &View) -> impl Iterator<Item = usize> + '_ {
    let steps = row_major_strides(&view.shape);
    let size = view.dtype.size();
    (0..view.shape.iter().product()).map(move |i: usize| {
        let index = steps.iter().zip(&view.shape).map(|(step, n)| i / step % n);
        let at = index.zip(&view.strides).map(|(i, s)| i as isize * s).sum::<isize>();
        (view.offset as isize + at) as usize * size
    })
}

/// Bytes of the operand up to the end of a view's last element.
pub(crate) fn extent(view: &View) -> usize {
    if view.shape.contains(&0) {
        return 0;
    }
    let steps = view.shape.iter().zip(&view.strides);
    let last = steps.map(|(&n, &stride)| (n as isize - 1) * stride.max(0)).sum::<isize>();
    (view.offset + last as usize + 1) * view.dtype.size()
}

/// The elements of a view on an operand's bytes.
///
/// # Errors
/// When the view leaves them.
pub(crate) fn read(view: &View, bytes: &[u8]) -> Result<Literal> {
    let size = view.dtype.size();
    let mut dense = Vec::with_capacity(view.shape.iter().product::<usize>() * size);
    for at in positions(view) {
        let element = bytes.get(at..at + size);
        dense.extend(element.ok_or("a kernel of the plan leaves its memory")?);
    }
    Literal::from_bytes(Type::new(view.dtype, view.shape.clone()), &dense)
}

/// Writes the elements of a view on an operand's bytes.
///
/// # Errors
/// When the view leaves them.
pub(crate) fn write(view: &View, bytes: &mut [u8], value: &Literal) -> Result<()> {
    let size = view.dtype.size();
    let dense = value.to_bytes();
    for (at, element) in positions(view).zip(dense.chunks(size)) {
        let place = bytes.get_mut(at..at + size);
        place.ok_or("a kernel of the plan leaves its memory")?.copy_from_slice(element);
    }
    Ok(())
}

/// Results of a primitive, by the reference evaluator.
///
/// # Errors
/// When the primitive has no meaning for these operands.
pub(crate) fn evaluate(
    op: &Primitive,
    inputs: &[Literal],
    outputs: &[View],
) -> Result<Vec<Literal>> {
    let types: Vec<Type> = outputs.iter().map(|v| Type::new(v.dtype, v.shape.clone())).collect();
    let (inputs, types): (Vec<_>, Vec<_>) = (inputs.iter().collect(), types.iter().collect());
    let results = op.rules().evaluate(&Evaluator::new(Precision::Typed), &inputs, &types)?;
    Ok(results.into_iter().map(Literal::rounded).collect())
}

/// Runs a kernel on its operands by the interpreter of the kernel language.
///
/// # Errors
/// When the kernel has no meaning for these operands.
pub(crate) fn interpret(kernel: &Arc<Kernel>, operands: &mut [Vec<u8>]) -> Result<()> {
    let literal = |bytes: &Vec<u8>| Literal::from_bytes(Type::new(DType::U8, [bytes.len()]), bytes);
    let inputs = operands.iter().map(literal).collect::<Result<Vec<_>>>()?;
    let types: Vec<Type> = inputs.iter().map(|x| x.ty.clone()).collect();
    let places = (0..inputs.len()).map(|index| Place::Input { index, offset: 0 }).collect();
    let plan = Plan {
        inputs: types.clone(),
        results: types,
        takes: (0..inputs.len()).map(Some).collect(),
        kernels: vec![Arc::clone(kernel)],
        steps: vec![Step::Run { kernel: 0, operands: places, origin: Origin::default() }],
        arena: 0,
        constants: Vec::new(),
    };
    let results = ferrata_compiler::testing::interpret(&plan, &inputs.iter().collect::<Vec<_>>())?;
    operands.iter_mut().zip(results).for_each(|(bytes, result)| *bytes = result.to_bytes());
    Ok(())
}

/// What is among these values.
pub(crate) fn specials(values: &[Literal]) -> Specials {
    let mut found = Specials::default();
    for value in values {
        for i in 0..value.ty.elements() {
            if let Scalar::Float(x) = value.get(i) {
                found.nan |= x.is_nan();
                found.infinity |= x.is_infinite();
            }
        }
    }
    found
}
