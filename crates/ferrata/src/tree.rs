//! Trees of tensors: what function transforms take and give.

use crate::tensor::Tensor;
use ferrata_ir::{Error, Result, Type};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Write};
use std::hash::Hash;

pub use ferrata_derive::Tree;

/// A value made of tensors, in a fixed order, and of settings that are no tensors.
///
/// Tensors, numbers, strings, tuples, arrays, `Vec`, `Option`, maps and boxes are trees;
/// `#[derive(Tree)]` makes a struct one, field by field. Numbers and strings are settings: compiled
/// code is made anew when they change. What changes from step to step must be a tensor.
///
/// ```
/// use ferrata::{DType, Tensor, Tree, grad};
/// #[derive(Clone, Tree)]
/// struct Line {
///     slope: Tensor,
///     offset: Tensor,
/// }
/// let line = Line { slope: Tensor::from(2.0f32), offset: Tensor::from(1.0f32) };
/// let x = Tensor::from([1.0f32, 2.0]);
/// let g = grad(|l: &Line| (&l.slope * &x + &l.offset).square().sum(..))(&line);
/// assert_eq!(g.slope.item::<f32>()?, 2.0 * 3.0 + 2.0 * 5.0 * 2.0);
/// assert_eq!(g.offset.item::<f32>()?, 16.0);
/// # Ok::<(), ferrata::Error>(())
/// ```
pub trait Tree: Sized {
    /// Shows every tensor and setting to `visitor`, in order.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// The same tree with other tensors: `f` is called for each in the order of [`Tree::visit`].
    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;
}

/// Walks through a tree and keeps the path.
pub struct Visitor<'f> {
    path: String,
    /// Inside a module, where a tensor that occurs twice is one parameter.
    in_module: bool,
    on: &'f mut dyn FnMut(Visit<'_>),
}

/// What a visitor meets.
pub enum Visit<'a> {
    /// A tensor.
    Tensor {
        /// Dotted path: `layers.0.attention.query.weight`.
        path: &'a str,
        /// The tensor.
        tensor: &'a Tensor,
        /// Whether it is part of a module, where a tensor that occurs twice is one parameter.
        in_module: bool,
    },
    /// A setting.
    Setting(&'a dyn Debug),
}

impl<'f> Visitor<'f> {
    /// A visitor at the root.
    pub fn new(on: &'f mut dyn FnMut(Visit<'_>)) -> Self {
        Visitor { path: String::new(), in_module: false, on }
    }

    /// Visits a part called `name`; an empty name adds nothing to the path.
    pub fn field(&mut self, name: &str, part: &impl Tree) {
        let length = self.path.len();
        if !name.is_empty() {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
        }
        part.visit(self);
        self.path.truncate(length);
    }

    /// Visits part number `i`.
    pub fn item(&mut self, i: usize, part: &impl Tree) {
        let length = self.path.len();
        let dot = if length > 0 { "." } else { "" };
        let _ = write!(self.path, "{dot}{i}");
        part.visit(self);
        self.path.truncate(length);
    }

    /// Visits a tensor.
    pub fn tensor(&mut self, tensor: &Tensor) {
        (self.on)(Visit::Tensor { path: &self.path, tensor, in_module: self.in_module });
    }

    /// Visits a setting.
    pub fn setting(&mut self, setting: &dyn Debug) {
        (self.on)(Visit::Setting(setting));
    }

    /// Visits the parts of a module: within it, a tensor that occurs twice is one parameter.
    pub fn module(&mut self, f: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.in_module, true);
        f(self);
        self.in_module = outer;
    }
}

impl Tree for Tensor {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.tensor(self);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        f(self)
    }
}

macro_rules! settings {
    ($($ty:ty),* $(,)?) => {$(
        impl Tree for $ty {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                visitor.setting(self);
            }

            fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                self.clone()
            }
        }
    )*};
}

settings! {
    (), bool, char, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64, String,
    &'static str, ferrata_ir::DType, std::sync::Arc<str>,
}

macro_rules! tuples {
    ($($name:ident $i:tt)*) => {
        impl<$($name: Tree),*> Tree for ($($name,)*) {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                $(visitor.item($i, &self.$i);)*
            }

            fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                ($(self.$i.rebuild(f),)*)
            }
        }
    };
}

tuples!(A 0);
tuples!(A 0 B 1);
tuples!(A 0 B 1 C 2);
tuples!(A 0 B 1 C 2 D 3);
tuples!(A 0 B 1 C 2 D 3 E 4);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);

impl<T: Tree> Tree for Vec<T> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.len());
        self.iter().enumerate().for_each(|(i, t)| visitor.item(i, t));
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|t| t.rebuild(f)).collect()
    }
}

impl<T: Tree, const N: usize> Tree for [T; N] {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.iter().enumerate().for_each(|(i, t)| visitor.item(i, t));
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        std::array::from_fn(|i| self[i].rebuild(f))
    }
}

impl<T: Tree> Tree for Option<T> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(&self.is_some());
        self.iter().for_each(|t| t.visit(visitor));
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.as_ref().map(|t| t.rebuild(f))
    }
}

impl<T: Tree> Tree for Box<T> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        (**self).visit(visitor);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Box::new((**self).rebuild(f))
    }
}

impl<K: Ord + Clone + Debug + std::fmt::Display, T: Tree> Tree for BTreeMap<K, T> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (key, part) in self {
            visitor.setting(key);
            visitor.field(&key.to_string(), part);
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|(k, t)| (k.clone(), t.rebuild(f))).collect()
    }
}

impl<K, T: Tree> Tree for HashMap<K, T>
where
    K: Ord + Hash + Clone + Debug + std::fmt::Display,
{
    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (key, part) in sorted(self) {
            visitor.setting(key);
            visitor.field(&key.to_string(), part);
        }
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        sorted(self).into_iter().map(|(k, t)| (k.clone(), t.rebuild(f))).collect()
    }
}

fn sorted<K: Ord, T>(map: &HashMap<K, T>) -> Vec<(&K, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    entries
}

/// The tensors of a tree, each tied parameter once, and how to put others in their places.
#[derive(Clone, Debug)]
pub(crate) struct Leaves {
    pub tensors: Vec<Tensor>,
    /// Path of the first occurrence of each.
    pub paths: Vec<String>,
    /// For each tensor of the tree in order, which of `tensors` it is.
    pub slots: Vec<usize>,
    /// All settings.
    pub settings: String,
}

/// Flattens a tree.
pub(crate) fn flatten(tree: &impl Tree) -> Leaves {
    let mut leaves =
        Leaves { tensors: vec![], paths: vec![], slots: vec![], settings: String::new() };
    let mut parameters: HashMap<_, usize> = HashMap::new();
    tree.visit(&mut Visitor::new(&mut |visit| match visit {
        Visit::Setting(s) => {
            let _ = write!(leaves.settings, "{s:?};");
        }
        Visit::Tensor { path, tensor, in_module } => {
            let next = leaves.tensors.len();
            let slot = match in_module {
                true => *parameters.entry(tensor.key()).or_insert(next),
                false => next,
            };
            if slot == next {
                leaves.tensors.push(tensor.clone());
                leaves.paths.push(path.to_string());
            }
            leaves.slots.push(slot);
        }
    }));
    leaves
}

impl Leaves {
    /// The tree with `tensors` in place of its own.
    pub fn rebuild<T: Tree>(&self, tree: &T, tensors: &[Tensor]) -> T {
        let mut slots = self.slots.iter();
        tree.rebuild(&mut |old| {
            let new = slots.next().and_then(|&i| tensors.get(i));
            new.cloned().unwrap_or_else(|| old.clone())
        })
    }

    /// Types of the tensors.
    pub fn types(&self) -> Vec<Type> {
        self.tensors.iter().map(|t| t.ty().clone()).collect()
    }

    /// The first error that one of the tensors holds.
    pub fn check(&self) -> Result<()> {
        self.tensors.iter().find_map(|t| t.error()).map_or(Ok(()), Err)
    }
}

/// The tree with every tensor holding this error.
pub(crate) fn failed<T: Tree>(tree: &T, error: &Error) -> T {
    let failed = Tensor::failed(error.clone());
    tree.rebuild(&mut |_| failed.clone())
}

/// The tree with `f` applied to every tensor; tied parameters stay tied.
///
/// ```
/// use ferrata::{Tensor, tree};
/// let pair = (Tensor::from(1.0f32), Tensor::from(2.0f32));
/// let doubled = tree::map(&pair, |t| t * 2.0);
/// assert_eq!(doubled.1.item::<f32>()?, 4.0);
/// # Ok::<(), ferrata::Error>(())
/// ```
pub fn map<T: Tree>(tree: &T, f: impl FnMut(&Tensor) -> Tensor) -> T {
    let leaves = flatten(tree);
    let mapped: Vec<Tensor> = leaves.tensors.iter().map(f).collect();
    leaves.rebuild(tree, &mapped)
}

/// [`map`] with the path of each tensor.
pub fn map_named<T: Tree>(tree: &T, mut f: impl FnMut(&str, &Tensor) -> Tensor) -> T {
    let leaves = flatten(tree);
    let pairs = leaves.paths.iter().zip(&leaves.tensors);
    let mapped: Vec<Tensor> = pairs.map(|(path, t)| f(path, t)).collect();
    leaves.rebuild(tree, &mapped)
}

/// Combines the tensors of two trees of one structure, for example parameters and gradients. If
/// the structures differ, every tensor of the result holds an error.
pub fn zip<T: Tree, U: Tree>(a: &T, b: &U, mut f: impl FnMut(&Tensor, &Tensor) -> Tensor) -> T {
    let (left, right) = (flatten(a), flatten(b));
    if left.tensors.len() != right.tensors.len() {
        let (n, m) = (left.tensors.len(), right.tensors.len());
        return failed(a, &Error::new(format!("trees of {n} and {m} tensors do not match")));
    }
    let pairs = left.tensors.iter().zip(&right.tensors);
    let combined: Vec<Tensor> = pairs.map(|(x, y)| f(x, y)).collect();
    left.rebuild(a, &combined)
}

/// The tensors of a tree, in order, tied parameters once.
pub fn leaves(tree: &impl Tree) -> Vec<Tensor> {
    flatten(tree).tensors
}

/// The tensors of a tree with their paths, in order, tied parameters once.
pub fn named_leaves(tree: &impl Tree) -> Vec<(String, Tensor)> {
    let leaves = flatten(tree);
    leaves.paths.into_iter().zip(leaves.tensors).collect()
}

/// Computes all tensors of a tree with one program.
///
/// # Errors
/// The first error that one of them holds, or what the device reports.
pub fn eval(tree: &impl Tree) -> Result<()> {
    let leaves = flatten(tree);
    crate::eval(&leaves.tensors.iter().collect::<Vec<_>>())
}
