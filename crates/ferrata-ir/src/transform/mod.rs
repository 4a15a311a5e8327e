//! Transforms from program to program. Each is memoised on the function it is applied to, so that
//! a layer called many times is transformed once.

pub mod batch;
pub mod derivative;
mod prune;
pub(crate) mod transpose;

pub use batch::vmap;
pub use derivative::{jvp, value_and_grad, vjp};
pub use prune::prune;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a memoised transform was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Jvp { active: Vec<bool>, required: Vec<bool> },
    Linearize { active: Vec<bool>, required: Vec<bool> },
    Recompute { active: Vec<bool> },
    Transpose { linear: Vec<bool>, cotangents: Vec<bool> },
    Batch { batched: Vec<bool>, required: Vec<bool>, size: usize },
}

/// Results of transforms of one function. A copy of the function starts without them, and they
/// take no part in equality.
#[derive(Default)]
pub(crate) struct Memo(Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>);

impl Memo {
    /// The remembered result for `key`, or that of `make`.
    pub(crate) fn get<T: Any + Send + Sync, E>(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lock().get(&key).cloned();
        if let Some(found) = found.and_then(|f| f.downcast::<T>().ok()) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        lock().insert(key, made.clone());
        Ok(made)
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl std::hash::Hash for Memo {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memo")
    }
}
