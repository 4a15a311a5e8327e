//! The lazy tensor.
//!
//! A tensor is concrete (a device buffer), lazy (a node over other tensors), a placeholder of a
//! function being traced, or failed. Nodes form a DAG of `Arc`s; `eval` turns the part of it that
//! is needed into a program.

#[cfg(feature = "ndarray")]
mod arrays;
mod collect;
mod convert;
mod dims;
mod eval;
mod index;
mod operand;
mod place;

pub(crate) use collect::{Collected, Collector};
pub use convert::{Element, IntoTensor};
pub use dims::{Dims, IntoDims, IntoShape, IntoSize, keep};
pub(crate) use dims::{dimension, resolve_shape};
pub use eval::evaluate;
pub use index::{Index, IntoIndex, NewDim, step};
pub use operand::{IntoOperand, broadcast_shape};
pub(crate) use place::{Frame, Place, Traced};

use crate::device::Device;
use ferrata_compiler::Buffer;
use ferrata_ir::primitive::Primitive;
use ferrata_ir::{Builder, DType, Error, Function, Result, Type, Value};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// A dense array of numbers or truth values, computed when it is needed.
///
/// Operations never fail on the spot: a wrong shape, dtype or dimension gives a tensor that holds
/// the error, everything computed from it holds it too, and the first reading step returns it.
/// Cloning is cheap and shares the value.
///
/// ```
/// use ferrata::Tensor;
/// let x = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
/// let y = (&x * 2.0 + 1.0).sum(1);
/// assert_eq!(y.to_vec::<f32>()?, [8.0, 16.0]);
///
/// let wrong = x.reshape([3, 3]).exp().mean(..);
/// assert!(wrong.item::<f32>().unwrap_err().to_string().contains("reshape(f32[2,2])"));
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub ty: Type,
    /// How many traced functions deep the value lives; 0 outside of any.
    pub level: u32,
    /// Depends on no data, only on constants: cheaper to build into a program than to pass.
    pub closed: bool,
    state: Mutex<State>,
}

#[derive(Clone)]
pub(crate) enum State {
    Concrete(Stored),
    Lazy(Arc<Lazy>, usize),
    Placeholder,
    Failed(Error),
}

/// A buffer and the device that it belongs to.
#[derive(Clone)]
pub(crate) struct Stored {
    pub buffer: Buffer,
    pub device: Device,
}

/// A recorded operation.
pub(crate) struct Lazy {
    pub op: Primitive,
    pub inputs: Vec<Tensor>,
    pub place: Place,
    pub outputs: OnceLock<Vec<Weak<Inner>>>,
    counted: bool,
}

impl Drop for Lazy {
    /// Takes the history apart in a loop: it may be far deeper than the stack.
    fn drop(&mut self) {
        if self.counted {
            eval::forget();
        }
        let mut pending = std::mem::take(&mut self.inputs);
        while let Some(tensor) = pending.pop() {
            let Some(inner) = Arc::into_inner(tensor.0) else { continue };
            let state = inner.state.into_inner().unwrap_or_else(PoisonError::into_inner);
            let State::Lazy(node, _) = state else { continue };
            if let Some(mut node) = Arc::into_inner(node) {
                pending.append(&mut node.inputs);
            }
        }
    }
}

impl Tensor {
    pub(crate) fn new(ty: Type, level: u32, closed: bool, state: State) -> Self {
        Tensor(Arc::new(Inner { ty, level, closed, state: Mutex::new(state) }))
    }

    /// A tensor whose reading gives this error.
    pub fn failed(error: Error) -> Self {
        Tensor::new(Type::scalar(DType::F32), 0, false, State::Failed(error))
    }

    pub(crate) fn concrete(buffer: Buffer, device: Device) -> Self {
        let ty = buffer.ty.clone();
        Tensor::new(ty, 0, false, State::Concrete(Stored { buffer, device }))
    }

    pub(crate) fn placeholder(ty: Type, level: u32) -> Self {
        Tensor::new(ty, level, false, State::Placeholder)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    pub(crate) fn key(&self) -> *const Inner {
        Arc::as_ptr(&self.0)
    }

    /// Size of each dimension; empty for a scalar and for a failed tensor.
    pub fn shape(&self) -> &[usize] {
        &self.0.ty.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.ty.dtype
    }

    /// Dtype and shape.
    pub fn ty(&self) -> &Type {
        &self.0.ty
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.ty.rank()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.ty.elements()
    }

    /// Size of dimension `dim`, negative ones counted from the end; 1 if there is none.
    pub fn size(&self, dim: i64) -> usize {
        dimension(dim, self.rank()).map_or(1, |d| self.shape()[d])
    }

    /// The sizes as an array; all 1 if the rank is not `N`. Check with [`Tensor::expect_rank`].
    pub fn dims<const N: usize>(&self) -> [usize; N] {
        <[usize; N]>::try_from(self.shape()).unwrap_or([1; N])
    }

    /// This tensor, or a failed one if the rank is not `rank`; `what` says what was expected, for
    /// example `"input [batch, time, width]"`.
    #[track_caller]
    pub fn expect_rank(&self, rank: usize, what: &str) -> Tensor {
        Tensor::op("expect_rank", &[self], || {
            if self.rank() == rank {
                return Ok(self.clone());
            }
            let got = self.rank();
            Err(Error::new(format!("{what} needs {rank} dimensions, but there are {got}")))
        })
    }

    /// The error that this tensor holds, if it failed.
    pub fn error(&self) -> Option<Error> {
        match &*self.lock() {
            State::Failed(e) => Some(e.clone()),
            _ => None,
        }
    }

    /// Whether this value belongs to a function that is being traced and has no elements yet.
    pub fn is_traced(&self) -> bool {
        self.0.level > 0
    }

    /// Records a primitive; wrong operands give failed tensors.
    #[track_caller]
    pub(crate) fn record(op: impl Into<Primitive>, inputs: &[&Tensor]) -> Vec<Tensor> {
        let op = op.into();
        let place = Place::here(Location::caller());
        if let Some(error) = inputs.iter().find_map(|t| t.error()) {
            return vec![Tensor::failed(error); op.result_count(inputs.len())];
        }
        let types: Vec<&Type> = inputs.iter().map(|t| t.ty()).collect();
        match op.infer(&types) {
            Ok(results) => Tensor::lazy(op, inputs, place, results),
            Err(e) => {
                let error =
                    if Frame::is_named() { e } else { e.at(op.name(), &types, &place.origin()) };
                vec![Tensor::failed(error); op.result_count(inputs.len())]
            }
        }
    }

    /// Records a primitive with one result.
    #[track_caller]
    pub(crate) fn record1(op: impl Into<Primitive>, inputs: &[&Tensor]) -> Tensor {
        let mut results = Tensor::record(op, inputs);
        results.swap_remove(0)
    }

    fn lazy(op: Primitive, inputs: &[&Tensor], place: Place, types: Vec<Type>) -> Vec<Tensor> {
        let level = inputs.iter().map(|t| t.0.level).max().unwrap_or(0);
        let closed = match op {
            Primitive::DebugPrint(_) => false,
            _ => inputs.iter().all(|t| t.0.closed),
        };
        let effect = op.has_effect();
        let counted = level == 0;
        let node = Arc::new(Lazy {
            op,
            inputs: inputs.iter().map(|&t| t.clone()).collect(),
            place,
            outputs: OnceLock::new(),
            counted,
        });
        let state = |i| State::Lazy(node.clone(), i);
        let outputs: Vec<Tensor> = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| Tensor::new(ty, level, closed, state(i)))
            .collect();
        let _ = node.outputs.set(outputs.iter().map(|t| Arc::downgrade(&t.0)).collect());
        if counted {
            eval::remember(&outputs, effect);
        } else if effect {
            Frame::add_effect(&outputs[0]);
        }
        outputs
    }

    /// Runs `f`, which computes with other operations, as one operation called `name`: errors
    /// inside it name this operation, these operands and the caller's line.
    #[track_caller]
    pub fn op(name: &str, inputs: &[&Tensor], f: impl FnOnce() -> Result<Tensor>) -> Tensor {
        let mut results = Tensor::op_many(name, inputs, 1, || f().map(|t| vec![t]));
        results.swap_remove(0)
    }

    /// [`Tensor::op`] with several results; a failure gives `count` failed tensors.
    #[track_caller]
    pub fn op_many(
        name: &str,
        inputs: &[&Tensor],
        count: usize,
        f: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Vec<Tensor> {
        if let Some(error) = inputs.iter().find_map(|t| t.error()) {
            return vec![Tensor::failed(error); count];
        }
        let place = Place::here(Location::caller());
        let outermost = Frame::name_operation(&place);
        let results = f();
        let named = outermost.is_some();
        drop(outermost);
        let error = match results {
            Ok(results) => match results.iter().find_map(|t| t.error()) {
                None => return results,
                Some(error) => error,
            },
            Err(error) => error,
        };
        let error = if named {
            let types: Vec<&Type> = inputs.iter().map(|t| t.ty()).collect();
            error.at(name, &types, &place.origin())
        } else {
            error
        };
        vec![Tensor::failed(error); count]
    }

    /// Records what `f` builds from these operands, as one operation called `name`.
    #[track_caller]
    pub(crate) fn built(
        name: &str,
        inputs: &[&Tensor],
        count: usize,
        f: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
    ) -> Vec<Tensor> {
        Tensor::op_many(name, inputs, count, || {
            let mut b = Builder::new(name);
            let x: Vec<Value> = inputs.iter().map(|t| b.parameter(t.ty().clone())).collect();
            let results = f(&mut b, &x);
            let function = b.finish(&results)?;
            let mut values: Vec<Option<Tensor>> = vec![None; function.value_count()];
            for (v, &t) in function.parameters().iter().zip(inputs) {
                values[v.index()] = Some(t.clone());
            }
            let find = |values: &[Option<Tensor>], vs: &[Value]| {
                let found = vs.iter().map(|v| values[v.index()].clone());
                found.collect::<Option<Vec<_>>>().ok_or_else(|| Error::new("a value is undefined"))
            };
            for node in function.nodes() {
                let operands = find(&values, &node.inputs)?;
                let outputs = Tensor::record(node.op.clone(), &operands.iter().collect::<Vec<_>>());
                for (v, t) in node.outputs.iter().zip(outputs) {
                    values[v.index()] = Some(t);
                }
            }
            find(&values, function.results())
        })
    }

    /// [`Tensor::built`] with one result.
    #[track_caller]
    pub(crate) fn built1(
        name: &str,
        inputs: &[&Tensor],
        f: impl FnOnce(&mut Builder, &[Value]) -> Value,
    ) -> Tensor {
        Tensor::built(name, inputs, 1, |b, x| vec![f(b, x)]).swap_remove(0)
    }

    /// Calls a function on tensors.
    #[track_caller]
    pub(crate) fn call(
        function: &Arc<Function>,
        recompute: bool,
        inputs: &[&Tensor],
    ) -> Vec<Tensor> {
        let call = ferrata_ir::primitive::Call { function: function.clone(), recompute };
        Tensor::record(call, inputs)
    }
}

/// Runs `f` in the scope `name`: the operations in it carry the name in programs, profiles and
/// errors.
///
/// ```
/// use ferrata::{Tensor, scope};
/// let x = Tensor::from([1.0f32, 2.0]);
/// let y = scope("head", || scope("query", || x.reshape([3])));
/// assert!(y.eval().unwrap_err().to_string().contains("in scope head.query"));
/// ```
pub fn scope<R>(name: &str, f: impl FnOnce() -> R) -> R {
    let _scope = Frame::scope(name);
    f()
}

impl std::fmt::Debug for Tensor {
    /// Type and state; never computes anything.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ty = self.ty();
        match &*self.lock() {
            State::Concrete(_) => write!(f, "Tensor({ty})"),
            State::Lazy(node, _) => write!(f, "Tensor({ty}, {} not yet computed)", node.op.name()),
            State::Placeholder => write!(f, "Tensor({ty}, traced)"),
            State::Failed(e) => write!(f, "Tensor(failed: {e})"),
        }
    }
}
