//! Primitives that are no loop nest of scalar operations.
//!
//! Map: `moves` (windows, padding, concatenation), `index` (gather, scatter), `order` (sort, top-k,
//! arg-reduce, running reductions), `matrix` (factorisations), `fourier` (transforms), `batch` (what
//! these two work on), `random` (bits and keys), `collective` (what ranks do together).

mod batch;
mod collective;
mod fourier;
mod index;
mod matrix;
pub(super) mod moves;
mod order;
pub(super) mod random;

use super::Context;
use crate::steps::Steps;
use ferrata_compiler::kernel::View;
use ferrata_ir::primitive::Pad;
use ferrata_ir::{Error, Literal, Primitive, Result, Type};

/// A primitive, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct PrimitiveKernel {
    op: Primitive,
    fourier: Option<fourier::Plan>,
    pub inputs: Vec<View>,
    pub outputs: Vec<View>,
}

impl PrimitiveKernel {
    /// Prepares a primitive.
    ///
    /// # Errors
    /// One that the device cannot run.
    pub fn new(op: &Primitive, inputs: &[View], outputs: &[View]) -> Result<PrimitiveKernel> {
        use Primitive::*;
        let known = matches!(
            op,
            Gather(_)
                | Scatter(_)
                | DynamicSlice(_)
                | DynamicUpdate(_)
                | Pad(_)
                | Concatenate(_)
                | Sort(_)
                | TopK(_)
                | ArgReduce(_)
                | Cumulative(_)
                | Factorize(_)
                | TriangularSolve(_)
                | Dft(_)
                | RandomBits(_)
                | FoldKey(_)
                | DebugPrint(_)
        ) || op.is_collective();
        if !known {
            return Err(Error::new(format!("this device has no kernel for `{}`", op.name())));
        }
        let types = |views: &[View]| -> Vec<Type> { views.iter().map(ty).collect() };
        let want = op.infer(&types(inputs).iter().collect::<Vec<_>>())?;
        if want != types(outputs) {
            return Err(Error::new(format!("results of `{}` have other types", op.name())));
        }
        let fourier = matches!(op, Dft(_))
            .then(|| fourier::Plan::new(inputs[0].shape[inputs[0].shape.len() - 2]));
        let (inputs, outputs) = (inputs.to_vec(), outputs.to_vec());
        Ok(PrimitiveKernel { op: op.clone(), fourier, inputs, outputs })
    }

    /// Bytes of workspace that a run needs.
    pub fn workspace(&self) -> usize {
        match &self.op {
            Primitive::Scatter(op) => index::scatter_workspace(op, &self.outputs[0]),
            Primitive::Cumulative(_) => order::running_workspace(&self.outputs[0]),
            op if op.is_collective() => collective::workspace(&self.inputs[0], &self.outputs[0]),
            _ => 0,
        }
    }

    /// Runs the primitive.
    ///
    /// # Safety
    /// As for [`super::Prepared::run`].
    pub unsafe fn run(&self, cx: &Context<'_>, operands: &[*mut u8]) -> Result<()> {
        let (inputs, outputs) = (&self.inputs[..], &self.outputs[..]);
        let (x, y) = (&inputs[0], &outputs[0]);
        if self.op.is_collective() {
            // SAFETY: passed on.
            return unsafe { collective::run(&self.op, cx, [x, y], operands) };
        }
        if y.shape.contains(&0) {
            return Ok(());
        }
        // SAFETY: passed on.
        unsafe {
            match &self.op {
                Primitive::Gather(op) => index::gather(op, cx, inputs, y, operands),
                Primitive::Scatter(op) => index::scatter(op, cx, inputs, y, operands),
                Primitive::DynamicSlice(op) => {
                    let offset = moves::window(x, &op.sizes, &inputs[1], operands);
                    moves::copy(cx.pool, &shifted(x, offset, &op.sizes), y, operands);
                }
                Primitive::DynamicUpdate(_) => {
                    moves::copy(cx.pool, x, y, operands);
                    let sizes = &inputs[1].shape;
                    let offset = moves::window(y, sizes, &inputs[2], operands);
                    moves::copy(cx.pool, &inputs[1], &shifted(y, offset, sizes), operands);
                }
                Primitive::Pad(op) => pad(op, cx, inputs, y, operands),
                Primitive::Concatenate(op) => {
                    let mut at = 0;
                    for part in inputs {
                        let place = shifted(y, at * y.strides[op.dim], &part.shape);
                        moves::copy(cx.pool, part, &place, operands);
                        at += part.shape[op.dim] as isize;
                    }
                }
                Primitive::Sort(op) => {
                    let (k, views) = (x.shape[op.dim], [x, y, &outputs[1]]);
                    order::first(cx, views, op.dim, k, op.descending, operands);
                }
                Primitive::TopK(op) => {
                    order::first(cx, [x, y, &outputs[1]], op.dim, op.k, op.largest, operands);
                }
                Primitive::ArgReduce(op) => order::extreme(op, cx, x, y, operands),
                Primitive::Cumulative(op) => order::running(op, cx, x, y, operands)?,
                Primitive::Factorize(op) => matrix::factors(op.kind, cx, x, outputs, operands),
                Primitive::TriangularSolve(op) => matrix::solution(op, cx, inputs, y, operands),
                Primitive::Dft(op) => {
                    let plan = self.fourier.as_ref().ok_or("a transform without a plan")?;
                    fourier::transform(op, plan, cx, [x, y], operands);
                }
                Primitive::RandomBits(_) => random::bits(cx, x, y, operands),
                Primitive::FoldKey(_) => random::fold(inputs, y, operands),
                Primitive::DebugPrint(op) => {
                    moves::copy(cx.pool, x, y, operands);
                    if let Some(show) = cx.show {
                        show(&op.label, &read(y, operands)?);
                    }
                }
                other => {
                    return Err(Error::new(format!("no kernel for `{}`", other.name())));
                }
            }
        }
        Ok(())
    }
}

/// The type of a view's elements.
fn ty(view: &View) -> Type {
    Type::new(view.dtype, view.shape.clone())
}

/// A window of a view.
fn shifted(view: &View, offset: isize, shape: &[usize]) -> View {
    let offset = (view.offset as isize + offset) as usize;
    View { offset, shape: shape.to_vec(), ..view.clone() }
}

/// Fills the result with the padding, then copies what remains of the operand into it.
unsafe fn pad(op: &Pad, cx: &Context<'_>, inputs: &[View], y: &View, operands: &[*mut u8]) {
    let still =
        View { shape: y.shape.clone(), strides: vec![0; y.shape.len()], ..inputs[1].clone() };
    let mut from = inputs[0].clone();
    let mut to = y.clone();
    let (mut from_at, mut to_at) = (0isize, 0isize);
    for d in 0..y.shape.len() {
        // Element `i` goes to `low + i * step`, if that is inside.
        let step = op.interior[d] as i64 + 1;
        let steps = |distance: i64| (distance.max(0) + step - 1) / step;
        let first = steps(-op.low[d]);
        let end = steps(y.shape[d] as i64 - op.low[d]).min(from.shape[d] as i64);
        from_at += first as isize * from.strides[d];
        to_at += (op.low[d] + first * step) as isize * to.strides[d];
        let count = (end - first).max(0) as usize;
        (from.shape[d], to.shape[d]) = (count, count);
        to.strides[d] *= step as isize;
    }
    // SAFETY: passed on; what is copied stays inside of both.
    unsafe {
        moves::copy(cx.pool, &still, y, operands);
        if !from.shape.contains(&0) {
            let from = shifted(&from, from_at, &from.shape);
            let to = shifted(&to, to_at, &to.shape);
            moves::copy(cx.pool, &from, &to, operands);
        }
    }
}

/// The value of a view.
unsafe fn read(view: &View, operands: &[*mut u8]) -> Result<Literal> {
    let steps = Steps::new(&view.shape, &view.strides);
    let (size, count) = (view.dtype.size(), view.shape.iter().product::<usize>());
    let mut bytes = vec![0; count * size];
    for (i, element) in bytes.chunks_exact_mut(size).enumerate() {
        let from = moves::start(view, operands).wrapping_offset(steps.at(i) * size as isize);
        // SAFETY: the view's elements are in the operand.
        unsafe { std::ptr::copy_nonoverlapping(from, element.as_mut_ptr(), size) };
    }
    Literal::from_bytes(ty(view), &bytes)
}
