//! What layers need beside their input and their parameters.

use crate::module::Module;
use crate::random::Key;
use crate::tensor::{Frame, Tensor};
use crate::tree;
use ferrata_ir::{DType, Error};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Which dtypes a model computes with. Parameters keep their own dtype; layers cast them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Dtype of activations and of the products; `None`: that of the parameters.
    pub compute: Option<DType>,
}

/// Mode, dtype policy and random key of one pass through a model, and the new values of its state
/// (running statistics). Make one inside the function that is differentiated or compiled.
///
/// ```
/// use ferrata::nn::{Context, Dropout};
/// use ferrata::{DType, Key, Tensor};
/// let x = Tensor::ones([1000], DType::F32);
/// let dropout = Dropout::new(0.25);
/// let mut cx = Context::train(Key::new(1));
/// let kept = dropout.forward(&x, &mut cx).ne(0.0).cast(DType::F32).mean(..).item::<f32>()?;
/// assert!((kept - 0.75).abs() < 0.05);
/// let same = dropout.forward(&x, &mut Context::eval());
/// assert_eq!(same.sum(..).item::<f32>()?, 1000.0);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Debug)]
pub struct Context {
    training: bool,
    policy: Policy,
    key: Option<Key>,
    /// How many keys each scope has taken.
    taken: HashMap<Arc<str>, u32>,
    updates: Vec<(Tensor, Tensor)>,
}

impl Context {
    /// For evaluation: no dropout, running statistics.
    pub fn eval() -> Self {
        Context {
            training: false,
            policy: Policy::default(),
            key: None,
            taken: HashMap::new(),
            updates: Vec::new(),
        }
    }

    /// For training, with the random key of this step.
    pub fn train(key: Key) -> Self {
        Context { training: true, key: Some(key), ..Context::eval() }
    }

    /// The same with a dtype policy.
    pub fn with_policy(self, policy: Policy) -> Self {
        Context { policy, ..self }
    }

    /// The same with activations and products in `dtype`.
    pub fn with_compute(self, dtype: DType) -> Self {
        self.with_policy(Policy { compute: Some(dtype) })
    }

    /// Whether this is a training pass.
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// The dtype policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// `x` in the compute dtype of the policy, if it is a float.
    #[track_caller]
    pub fn cast(&self, x: &Tensor) -> Tensor {
        match self.policy.compute {
            Some(dtype) if x.dtype().is_float() => x.cast(dtype),
            _ => x.clone(),
        }
    }

    /// Runs `f` in the scope `name`, which errors, profiles and random keys go by.
    pub fn scope<R>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        let _scope = Frame::scope(name);
        f(self)
    }

    /// A new random key, which depends on the scope and on how many keys it has taken before.
    ///
    /// # Errors
    /// If the context was made without a key.
    #[track_caller]
    pub fn key(&mut self) -> Result<Key, Error> {
        let scope = Frame::current_scope();
        let Some(key) = &self.key else {
            return Err(Error::new("the context has no random key")
                .help("make it with Context::train(Key::new(seed))"));
        };
        let count = self.taken.entry(scope.clone()).or_default();
        *count += 1;
        Ok(key.fold(hash(&scope)).fold(*count - 1))
    }

    /// Notes the new value of a piece of state, which is the module's own tensor `old`.
    pub fn update(&mut self, old: &Tensor, new: Tensor) {
        self.updates.push((old.clone(), new));
    }

    /// The noted new values by the names they have in `module`: return them from the function
    /// that is differentiated or compiled, and apply them with [`Module::updated`].
    pub fn updates(&self, module: &impl Module) -> BTreeMap<String, Tensor> {
        let mut found = BTreeMap::new();
        for (name, tensor) in tree::named_leaves(module) {
            if let Some((_, new)) = self.updates.iter().rev().find(|(o, _)| o.key() == tensor.key())
            {
                found.insert(name, new.clone());
            }
        }
        found
    }

    /// The context of a part that is traced on its own, with its own key.
    pub(super) fn inner(&self, key: Option<Key>) -> Self {
        Context { training: self.training, policy: self.policy, key, ..Context::eval() }
    }

    /// New values noted so far: of which tensor, and what.
    pub(super) fn take_updates(self) -> Vec<(Tensor, Tensor)> {
        self.updates
    }

    /// Whether there is a key to take others from.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// FNV-1a: the same number for the same scope, on any machine.
fn hash(scope: &str) -> u32 {
    scope.bytes().fold(0x811C_9DC5, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
