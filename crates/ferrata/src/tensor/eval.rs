//! Evaluation: the needed part of the history becomes a program, which is compiled (once for each
//! structure, process-wide) and run.

use super::{Collected, Collector, Lazy, State, Stored, Tensor};
use crate::device::{Device, Lies, compiled, default_device};
use ferrata_compiler::{Argument, Buffer};
use ferrata_ir::{Error, Primitive, Result, Scalar, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A history longer than this is evaluated without being asked for.
const LONGEST_HISTORY: usize = 10_000;

/// Recorded nodes that are not yet evaluated, of all histories.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Called for each node recorded outside of traced functions.
pub(super) fn remember(outputs: &[Tensor], effect: bool) {
    let waiting = WAITING.fetch_add(1, Ordering::Relaxed) + 1;
    // Counting a history takes time: look only now and then.
    let long = waiting >= LONGEST_HISTORY
        && waiting.is_multiple_of(LONGEST_HISTORY / 10)
        && outputs.first().is_some_and(|t| history(t) >= LONGEST_HISTORY);
    if (long || effect)
        && let Err(error) = evaluate(&outputs.iter().collect::<Vec<_>>())
    {
        outputs.iter().for_each(|t| *t.lock() = State::Failed(error.clone()));
    }
}

/// Called when such a node is dropped.
pub(super) fn forget() {
    WAITING.fetch_sub(1, Ordering::Relaxed);
}

/// Number of distinct nodes that `tensor` waits for.
fn history(tensor: &Tensor) -> usize {
    let mut seen: HashSet<*const Lazy> = HashSet::new();
    let mut pending = vec![tensor.clone()];
    while let Some(tensor) = pending.pop() {
        if let State::Lazy(node, _) = tensor.state()
            && seen.insert(Arc::as_ptr(&node))
        {
            pending.extend(node.inputs.iter().cloned());
        }
    }
    seen.len()
}

/// Computes several tensors with one program.
///
/// # Errors
/// The first failed tensor among them or among what they are computed from, or what the device
/// reports.
///
/// ```
/// use ferrata::Tensor;
/// let x = Tensor::arange(4);
/// let (a, b) = (&x + 1, &x * 2);
/// ferrata::eval(&[&a, &b])?;
/// # Ok::<(), ferrata::Error>(())
/// ```
pub fn evaluate(tensors: &[&Tensor]) -> Result<()> {
    let mut wanted: Vec<Tensor> = Vec::new();
    for tensor in tensors {
        let state = &mut *tensor.lock();
        match state {
            State::Failed(error) => return Err(error.clone()),
            State::Concrete(_) => {}
            // Fresh memory is zero already.
            State::Lazy(node, _) if is_zeros(node) => {
                let device = default_device();
                let buffer = device.backend().zeros(tensor.ty().clone())?;
                *state = State::Concrete(Stored { buffer, device });
            }
            _ => wanted.push((*tensor).clone()),
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut collector = Collector::new("main", 0);
    let mut results: Vec<Value> = Vec::new();
    for tensor in &wanted {
        results.push(collector.visit(tensor)?);
    }
    for tensor in collector.shared(&wanted) {
        results.push(collector.visit(&tensor)?);
        wanted.push(tensor);
    }
    let Collected { function, captured, .. } = collector.finish(&results)?;
    let device = captured.iter().find_map(|t| t.device()).unwrap_or_else(default_device);
    let executable =
        compiled(&Arc::new(function), &vec![false; captured.len()], Lies::default(), &device)?;
    let arguments = captured
        .iter()
        .map(|t| t.buffer_on(&device).map(Argument::Shared))
        .collect::<Result<Vec<_>>>()?;
    let buffers = executable.run(arguments)?;
    for (tensor, buffer) in wanted.iter().zip(buffers) {
        let stored = State::Concrete(Stored { buffer, device: device.clone() });
        // The old state goes after the lock: it may own a long history.
        let old = std::mem::replace(&mut *tensor.lock(), stored);
        drop(old);
    }
    Ok(())
}

fn is_zeros(node: &Lazy) -> bool {
    match &node.op {
        Primitive::Constant(constant) => match constant.value {
            Scalar::Float(x) => x == 0.0 && x.is_sign_positive(),
            Scalar::Int(x) => x == 0,
        },
        _ => false,
    }
}

impl Collector {
    /// Values inside the program that someone outside still holds: computing them now spares
    /// computing them again.
    fn shared(&self, wanted: &[Tensor]) -> Vec<Tensor> {
        let mut uses: HashMap<*const super::Inner, (usize, Tensor)> = HashMap::new();
        for input in self.nodes().iter().flat_map(|n| &n.inputs) {
            uses.entry(input.key()).or_insert_with(|| (0, input.clone())).0 += 1;
        }
        let asked: HashSet<_> = wanted.iter().map(Tensor::key).collect();
        let mut found = Vec::new();
        for node in self.nodes() {
            let outputs = node.outputs.get().into_iter().flatten();
            for tensor in outputs.filter_map(std::sync::Weak::upgrade).map(Tensor) {
                // Our own handles: the one just made, and the one in `uses`.
                let inside = uses.get(&tensor.key()).map_or(1, |(n, _)| n + 2);
                let held = Arc::strong_count(&tensor.0) > inside;
                if held && !tensor.0.closed && !asked.contains(&tensor.key()) {
                    found.push(tensor);
                }
            }
        }
        found
    }
}

impl Tensor {
    /// Computes the value, unless that has been done.
    ///
    /// # Errors
    /// The error that the tensor holds, or what the device reports.
    pub fn eval(&self) -> Result<()> {
        evaluate(&[self])
    }

    /// The device of a concrete tensor.
    pub(crate) fn device(&self) -> Option<Device> {
        match &*self.lock() {
            State::Concrete(stored) => Some(stored.device.clone()),
            _ => None,
        }
    }

    /// The value, computed if necessary, and its device.
    pub(crate) fn stored(&self) -> Result<Stored> {
        self.eval()?;
        match self.state() {
            State::Concrete(stored) => Ok(stored),
            State::Failed(error) => Err(error),
            _ => Err(Error::new("the value was not computed")),
        }
    }

    /// The value on `device`, computed and copied if necessary.
    pub(crate) fn buffer_on(&self, device: &Device) -> Result<Buffer> {
        let stored = self.stored()?;
        if stored.device == *device {
            return Ok(stored.buffer);
        }
        let bytes = stored.device.backend().download(&stored.buffer)?;
        device.backend().upload(stored.buffer.ty, &bytes)
    }

    /// Whether nobody holds this value beside these many handles, and nothing shares its memory.
    pub(crate) fn is_owned_by(&self, handles: usize) -> bool {
        match &*self.lock() {
            State::Concrete(stored) => {
                Arc::strong_count(&self.0) == handles
                    && Arc::strong_count(&stored.buffer.memory) == 1
            }
            _ => false,
        }
    }

    /// The same value on `device`.
    pub fn to_device(&self, device: &Device) -> Tensor {
        match self.buffer_on(device) {
            Ok(buffer) => Tensor::concrete(buffer, device.clone()),
            Err(error) => Tensor::failed(error),
        }
    }
}
