//! Compiled functions: traced once for each kind of argument, then run as one program.

use super::trace::{Untraced, trace};
use crate::device::{Device, Lies, compiled, default_device};
use crate::tensor::{Frame, Tensor};
use crate::tree::{Tree, flatten};
use ferrata_compiler::{Argument, Buffer, Executable, Recomputation, recompute};
use ferrata_ir::{Error, Function, Result, Type};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// A function that is traced and compiled when it is called with a new kind of argument: another
/// structure, other shapes, dtypes or settings, another device. Calls with a known kind only run
/// the compiled program.
///
/// The argument is passed by value. Tensors that nobody else holds are donated: the program may
/// reuse their memory for its results. So a training step that takes parameters and optimiser
/// state and returns new ones needs them in memory only once.
///
/// The function must not depend on anything that changes between calls but its argument: what it
/// captures is fixed when it is traced.
///
/// ```
/// use ferrata::{Tensor, compile, value_and_grad};
/// let step = compile(|(w, x): (Tensor, Tensor)| {
///     let (loss, slope) = value_and_grad(|w: &Tensor| (w * &x - 1.0).square().mean(..))(&w);
///     (w - slope * 0.1, loss)
/// });
/// let mut w = Tensor::from(0.0f32);
/// for _ in 0..20 {
///     (w, _) = step.call((w, Tensor::from([1.0f32, 2.0])))?;
/// }
/// assert!((w.item::<f32>()? - 0.6).abs() < 1e-4);
/// assert_eq!(step.traces(), 1);
/// # Ok::<(), ferrata::Error>(())
/// ```
pub fn compile<A: Tree, B: Tree, F: Fn(A) -> B>(f: F) -> Compiled<A, B, F> {
    Compiled {
        f,
        recompute: Recompute::Never,
        like: None,
        known: Mutex::default(),
        argument: PhantomData,
    }
}

/// What a program computes again in its backward pass instead of keeping it in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing but what the user marked.
    #[default]
    Never,
    /// What costs next to nothing.
    Cheap,
    /// As much as it takes for all memory of a run to fit into so many bytes.
    Within(u64),
}

/// A compiled program that has not been run.
#[derive(Clone)]
pub struct Planned {
    /// The program as it was traced.
    pub traced: Arc<Function>,
    /// What is computed again in the backward pass, and the program that does so.
    pub recomputation: Option<Recomputation>,
    /// Its compiled form.
    pub executable: Arc<dyn Executable>,
    /// Which inputs count as donated.
    pub donated: Vec<bool>,
}

/// What [`compile`] gives.
pub struct Compiled<A, B, F> {
    f: F,
    recompute: Recompute,
    /// What the first tensors of the result lie like on a mesh.
    like: Option<fn(&A) -> Vec<Tensor>>,
    known: Mutex<HashMap<Kind, Arc<Entry<B>>>>,
    argument: PhantomData<fn(A)>,
}

/// What a compiled program depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    types: Vec<Type>,
    slots: Vec<usize>,
    settings: String,
    donated: Vec<bool>,
    device: Device,
}

struct Entry<B> {
    planned: Planned,
    device: Device,
    captured: Vec<Buffer>,
    /// The result's structure.
    template: B,
    slots: crate::tree::Leaves,
}

/// A compiled entry and the tensors to run it on, with those marked that may be overwritten.
type Prepared<B> = (Arc<Entry<B>>, Vec<(Tensor, bool)>);

impl<A: Tree, B: Tree, F: Fn(A) -> B> Compiled<A, B, F> {
    /// The same function, whose program computes some of what its backward pass needs again.
    /// Results differ by roundings at most.
    #[must_use]
    pub fn with_recompute(self, recompute: Recompute) -> Self {
        Compiled { recompute, ..self }
    }

    /// The same function; on a mesh the first tensors of its result lie like these tensors of its
    /// argument, one by one.
    #[must_use]
    pub fn with_results_like(self, like: fn(&A) -> Vec<Tensor>) -> Self {
        Compiled { like: Some(like), ..self }
    }

    /// Runs the function. Inside of another traced function it becomes a part of that.
    ///
    /// # Errors
    /// The first wrong operation, with its scope and line; a failed argument; what the device
    /// reports.
    pub fn call(&self, argument: A) -> Result<B> {
        self.run(argument, |executable, arguments| executable.run(arguments))
    }

    /// As [`Compiled::call`], slower: the first work that makes a NaN, or an infinity of finite
    /// numbers, is an error that names its scope and line.
    ///
    /// # Errors
    /// As [`Compiled::call`]; that error.
    ///
    /// ```
    /// use ferrata::{Tensor, compile};
    /// let f = compile(|x: Tensor| x.log() * 2.0);
    /// let error = f.call_watching(Tensor::from([-1f32])).unwrap_err().to_string();
    /// assert!(error.contains("makes NaN of finite numbers"), "{error}");
    /// assert!(f.call_watching(Tensor::from([1f32])).is_ok());
    /// ```
    pub fn call_watching(&self, argument: A) -> Result<B> {
        self.run(argument, |executable, arguments| executable.run_watching(arguments))
    }

    fn run(
        &self,
        argument: A,
        run: impl Fn(&dyn Executable, Vec<Argument>) -> Result<Vec<Buffer>>,
    ) -> Result<B> {
        if Frame::depth() > 0 {
            return Ok((self.f)(argument));
        }
        let (entry, tensors) = self.entry(argument)?;
        let mut arguments = Vec::with_capacity(tensors.len() + entry.captured.len());
        for (tensor, donated) in tensors {
            let buffer = tensor.buffer_on(&entry.device)?;
            drop(tensor);
            arguments.push(match donated {
                true => Argument::Donated(buffer),
                false => Argument::Shared(buffer),
            });
        }
        arguments.extend(entry.captured.iter().cloned().map(Argument::Shared));
        let results: Vec<Tensor> = run(&*entry.planned.executable, arguments)?
            .into_iter()
            .map(|buffer| Tensor::concrete(buffer, entry.device.clone()))
            .collect();
        Ok(entry.slots.rebuild(&entry.template, &results))
    }

    /// Traces and compiles for arguments of this kind, without running.
    ///
    /// # Errors
    /// As [`Compiled::call`].
    pub fn prepare(&self, argument: A) -> Result<()> {
        self.entry(argument).map(|_| ())
    }

    /// The program for arguments of this kind with its plan. No tensor is computed for it; all
    /// count as `donated`, or none.
    ///
    /// # Errors
    /// As [`Compiled::call`].
    pub fn planned(&self, argument: &A, donated: bool) -> Result<Planned> {
        let leaves = flatten(argument);
        leaves.check()?;
        let donated = vec![donated; leaves.tensors.len()];
        Ok(self.find(argument, &leaves, donated)?.planned.clone())
    }

    /// How many kinds of arguments it has been traced for.
    pub fn traces(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The entry for this kind of argument, and the tensors to run it on, with those marked that
    /// may be overwritten.
    fn entry(&self, argument: A) -> Result<Prepared<B>> {
        let leaves = flatten(&argument);
        leaves.check()?;
        crate::eval(&leaves.tensors.iter().collect::<Vec<_>>())?;
        // The argument's own handles do not count as owners.
        let counts = handles(&leaves);
        let donated: Vec<bool> =
            leaves.tensors.iter().zip(counts).map(|(t, own)| t.is_owned_by(own)).collect();
        let entry = self.find(&argument, &leaves, donated.clone())?;
        drop(argument);
        Ok((entry, leaves.tensors.into_iter().zip(donated).collect()))
    }

    /// The entry for an argument with these leaves, compiled now if it is new.
    fn find(
        &self,
        argument: &A,
        leaves: &crate::tree::Leaves,
        donated: Vec<bool>,
    ) -> Result<Arc<Entry<B>>> {
        let device = leaves.tensors.iter().find_map(|t| t.device()).unwrap_or_else(default_device);
        let kind = Kind {
            types: leaves.types(),
            slots: leaves.slots.clone(),
            settings: leaves.settings.clone(),
            donated,
            device,
        };
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = lock().get(&kind) {
            return Ok(entry.clone());
        }
        let entry = self.make(argument, leaves, &kind.donated, kind.device.clone())?;
        Ok(lock().entry(kind).or_insert(Arc::new(entry)).clone())
    }

    /// How inputs and results lie on a mesh.
    fn lies(&self, argument: &A, leaves: &crate::tree::Leaves, captured: &[Tensor]) -> Lies {
        let place = |t: &Tensor| leaves.tensors.iter().position(|other| other.key() == t.key());
        let like = self.like.map(|like| like(argument).iter().map(place).collect());
        let inputs = leaves.tensors.iter().chain(captured).map(Tensor::placement).collect();
        Lies { like: like.unwrap_or_default(), inputs }
    }

    fn make(
        &self,
        argument: &A,
        leaves: &crate::tree::Leaves,
        donated: &[bool],
        device: Device,
    ) -> Result<Entry<B>> {
        let traced =
            trace("main", &leaves.tensors, |inside| (self.f)(leaves.rebuild(argument, inside)))
                .map_err(|untraced: Untraced<B>| untraced.error)?;
        let mut donated = donated.to_vec();
        donated.resize(traced.function.parameters().len(), false);
        let again = |budget| recompute(&traced.function, &donated, device.backend(), budget);
        let recomputation = match self.recompute {
            Recompute::Never => None,
            Recompute::Cheap => Some(again(None)?),
            Recompute::Within(bytes) => Some(again(Some(bytes as usize))?),
        };
        let program = recomputation.as_ref().map_or(&traced.function, |r| &r.program);
        let lies = device.mesh().map(|_| self.lies(argument, leaves, &traced.captured));
        let executable = compiled(program, &donated, lies.unwrap_or_default(), &device)?;
        let captured =
            traced.captured.iter().map(|t| t.buffer_on(&device)).collect::<Result<Vec<_>>>()?;
        let nothing = Tensor::failed(Error::new("a result was not computed"));
        let template = traced.result.rebuild(&mut |_| nothing.clone());
        let mut slots = traced.leaves;
        slots.tensors = Vec::new();
        let traced = traced.function;
        let planned = Planned { traced, recomputation, executable, donated };
        Ok(Entry { planned, device, captured, template, slots })
    }
}

/// How many handles the tree and its flattened form hold of each tensor.
fn handles(leaves: &crate::tree::Leaves) -> Vec<usize> {
    let mut in_tree: HashMap<_, usize> = HashMap::new();
    for &slot in &leaves.slots {
        *in_tree.entry(slot).or_default() += 1;
    }
    (0..leaves.tensors.len()).map(|i| in_tree.get(&i).copied().unwrap_or(0) + 1).collect()
}
