//! Modules: trees whose tensors are named parameters.

use crate::tensor::Tensor;
use crate::tree::{self, Tree};
use ferrata_ir::{Error, Result};
use std::collections::{BTreeMap, HashMap};

pub use ferrata_derive::Module;

/// A tree of parameters with names. `#[derive(Module)]` makes a struct one, field by field; the
/// dotted paths are the names in safetensors files. `#[module(name = "…")]` renames a field, and
/// `#[module(skip)]` leaves one out. A tensor that occurs twice is one parameter. A parameter with
/// a `*` in its name is many in files, one for each of its slices along dimension 0, whose number
/// stands for the `*`.
///
/// ```
/// use ferrata::{DType, Module, Tensor};
/// #[derive(Clone, Module)]
/// struct Layer {
///     weight: Tensor,
///     #[module(name = "beta")]
///     bias: Option<Tensor>,
///     width: usize,
/// }
/// #[derive(Clone, Module)]
/// struct Net {
///     layers: Vec<Layer>,
/// }
/// let layer = Layer { weight: Tensor::zeros([2, 3], DType::F32), bias: None, width: 3 };
/// let net = Net { layers: vec![layer.clone(), layer] };
/// let names: Vec<String> = net.named_parameters().into_iter().map(|(n, _)| n).collect();
/// // Both layers hold the same tensor: it is one parameter.
/// assert_eq!(names, ["layers.0.weight"]);
/// ```
pub trait Module: Tree {
    /// The parameters in order, each once.
    fn parameters(&self) -> Vec<Tensor> {
        tree::leaves(self)
    }

    /// The parameters with their names, in order, each once.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        tree::named_leaves(self)
    }

    /// Number of elements of all parameters.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(Tensor::elements).sum()
    }

    /// The module with other parameters, found by name, as a whole or slice by slice. Values are
    /// cast to the parameter's dtype.
    ///
    /// # Errors
    /// Lists all names that are missing, unexpected, or have another shape.
    fn load(&self, mut values: HashMap<String, Tensor>) -> Result<Self> {
        let (mut missing, mut misshaped) = (Vec::new(), Vec::new());
        let mut found = |name: &str, old: &Tensor| match values.remove(name) {
            None => stacked(&mut values, name, old),
            whole => whole,
        };
        let loaded = tree::map_named(self, |name, old| match found(name, old) {
            None => {
                missing.push(name.to_string());
                old.clone()
            }
            Some(new) if new.shape() != old.shape() && new.error().is_none() => {
                let (want, got) = (old.shape(), new.shape());
                misshaped.push(format!("{name} is {got:?} instead of {want:?}"));
                old.clone()
            }
            Some(new) => new.cast(old.dtype()),
        });
        let mut unexpected: Vec<String> = values.into_keys().collect();
        unexpected.sort();
        let problems =
            [("missing", missing), ("unexpected", unexpected), ("with another shape", misshaped)];
        let problems: Vec<String> = problems
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", shortened(names)))
            .collect();
        if problems.is_empty() {
            return Ok(loaded);
        }
        Err(Error::new(format!("the parameters do not fit: {}", problems.join("; ")))
            .help("check that the file belongs to this configuration of the model"))
    }

    /// The module with some parameters or states replaced by name; names that it does not have
    /// are ignored.
    fn updated(&self, values: &BTreeMap<String, Tensor>) -> Self {
        tree::map_named(self, |name, old| values.get(name).unwrap_or(old).clone())
    }

    /// The module with the parameters whose names match one of `patterns` taken as constants by
    /// derivatives. In a pattern `*` stands for any characters: `layers.*.attention.*`.
    ///
    /// ```
    /// use ferrata::{Module, Tensor, grad};
    /// #[derive(Clone, Module)]
    /// struct Line {
    ///     slope: Tensor,
    ///     offset: Tensor,
    /// }
    /// let line = Line { slope: Tensor::from(2.0f32), offset: Tensor::from(1.0f32) };
    /// let g = grad(|l: &Line| {
    ///     let l = l.frozen(&["off*"]);
    ///     &l.slope * 3.0 + &l.offset
    /// })(&line);
    /// assert_eq!((g.slope.item::<f32>()?, g.offset.item::<f32>()?), (3.0, 0.0));
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    fn frozen(&self, patterns: &[&str]) -> Self {
        tree::map_named(self, |name, t| match patterns.iter().any(|p| matches(p, name)) {
            true => t.stop_gradient(),
            false => t.clone(),
        })
    }
}

/// What stands for the numbers of slices in the name of a parameter.
pub(crate) const STACKED: &str = "*";

/// The parameter `name` from its slices, if all are there.
fn stacked(values: &mut HashMap<String, Tensor>, name: &str, old: &Tensor) -> Option<Tensor> {
    let (before, after) = name.split_once(STACKED)?;
    let names = (0..*old.shape().first()?).map(|i| format!("{before}{i}{after}"));
    let slices: Vec<Tensor> = names.map(|name| values.remove(&name)).collect::<Option<_>>()?;
    Some(Tensor::stack(&slices.iter().collect::<Vec<_>>(), 0))
}

impl<M: Module> Module for Vec<M> {}
impl<M: Module> Module for Option<M> {}
impl<M: Module> Module for Box<M> {}
impl<M: Module, const N: usize> Module for [M; N] {}

/// Whether a dotted path matches a pattern in which `*` stands for any characters.
///
/// ```
/// use ferrata::module::matches;
/// assert!(matches("layers.*.bias", "layers.11.norm.bias"));
/// assert!(!matches("layers.*.bias", "layers.11.norm.weight"));
/// ```
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// At most ten names, and how many more there are.
fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(10)].join(", ");
    match names.len().saturating_sub(10) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
