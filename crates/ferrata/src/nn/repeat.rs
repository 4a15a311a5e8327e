//! Equal blocks one after the other.

use super::Context;
use crate::module::Module;
use crate::random::Key;
use crate::tensor::{Frame, Tensor};
use crate::transform::trace;
use crate::tree::{self, Leaves, Tree, flatten};
use ferrata_ir::Error;
use std::collections::BTreeSet;

/// Equal blocks one after the other. One of them is traced; the program calls it once per block
/// with that block's parameters, so that tracing, differentiating and compiling cost the same for
/// 12 blocks and 96.
///
/// ```
/// use ferrata::nn::{Context, Linear, Repeat};
/// use ferrata::{DType, Key, Module, Tensor};
/// let blocks = (0..3).map(|i| Linear::new(4, 4, &Key::new(i)));
/// let stack: Repeat<Linear> = blocks.collect();
/// let x = Tensor::ones([2, 4], DType::F32);
/// let y = stack.forward(x, &mut Context::eval(), |block, x, cx| block.forward(&x, cx).tanh());
/// assert_eq!(y.shape(), [2, 4]);
/// assert_eq!(stack.named_parameters()[2].0, "1.weight");
/// ```
#[derive(Clone, Debug)]
pub struct Repeat<T> {
    /// The blocks, in order.
    pub blocks: Vec<T>,
    /// The blocks, by number, of which the derivative keeps only the input and computes the rest
    /// again.
    pub recompute: BTreeSet<usize>,
}

impl<T> FromIterator<T> for Repeat<T> {
    fn from_iter<I: IntoIterator<Item = T>>(blocks: I) -> Self {
        Repeat { blocks: blocks.into_iter().collect(), recompute: BTreeSet::new() }
    }
}

impl<T: Tree> Tree for Repeat<T> {
    fn visit(&self, visitor: &mut tree::Visitor<'_>) {
        visitor.setting(&self.recompute);
        self.blocks.visit(visitor);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Repeat { blocks: self.blocks.rebuild(f), recompute: self.recompute.clone() }
    }
}

impl<T: Module> Module for Repeat<T> {}

/// One block, traced.
struct Block<X, S> {
    call: trace::Trace<Vec<Tensor>>,
    /// What kinds of tensors it was traced for.
    kind: Kind,
    carry: (X, Leaves),
    state: (S, Leaves),
    /// For each update of state, which of the block's tensors it replaces.
    updates: Vec<usize>,
}

/// What a traced block depends on.
#[derive(PartialEq)]
struct Kind {
    types: Vec<ferrata_ir::Type>,
    slots: Vec<usize>,
    settings: String,
}

impl<T: Tree> Repeat<T> {
    /// The same, whose derivative computes these blocks again.
    pub fn with_recompute(self, blocks: impl IntoIterator<Item = usize>) -> Self {
        Repeat { recompute: blocks.into_iter().collect(), ..self }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Passes `x` through all blocks. What `f` captures is the same for all of them.
    #[track_caller]
    pub fn forward<X: Tree>(
        &self,
        x: X,
        cx: &mut Context,
        f: impl Fn(&T, X, &mut Context) -> X,
    ) -> X {
        let nothing = vec![(); self.blocks.len()];
        self.forward_with(x, nothing, cx, |block, x, (), cx| (f(block, x, cx), ())).0
    }

    /// Passes `x` through all blocks, each of which also gets and gives a value of its own, for
    /// example a key/value cache. There must be one for each block.
    #[track_caller]
    pub fn forward_with<X: Tree, S: Tree>(
        &self,
        x: X,
        states: Vec<S>,
        cx: &mut Context,
        f: impl Fn(&T, X, S, &mut Context) -> (X, S),
    ) -> (X, Vec<S>) {
        let _line = Frame::at(std::panic::Location::caller());
        if states.len() != self.blocks.len() {
            let (n, m) = (self.blocks.len(), states.len());
            let error = Error::new(format!("{m} states for {n} blocks"));
            return (tree::failed(&x, &error), states);
        }
        let mut known: Vec<Block<X, S>> = Vec::new();
        let (mut x, mut out) = (x, Vec::new());
        for (i, (block, state)) in self.blocks.iter().zip(states).enumerate() {
            let (next, state) =
                cx.scope(&i.to_string(), |cx| self.pass(i, (block, x, state), &mut known, cx, &f));
            x = next;
            out.push(state);
        }
        (x, out)
    }

    fn pass<X: Tree, S: Tree>(
        &self,
        number: usize,
        (block, x, state): (&T, X, S),
        known: &mut Vec<Block<X, S>>,
        cx: &mut Context,
        f: &impl Fn(&T, X, S, &mut Context) -> (X, S),
    ) -> (X, S) {
        let arguments = Arguments {
            block: flatten(block),
            carry: flatten(&x),
            state: flatten(&state),
            key: cx.has_key().then(|| cx.key()).and_then(Result::ok).map(|k| k.tensor()),
        };
        let tensors = arguments.tensors();
        let kind = arguments.kind();
        let found = known.iter().position(|k| k.kind == kind);
        let traced = match found {
            Some(i) => &known[i],
            None => match arguments.trace(block, &x, &state, kind, cx, f) {
                Ok(traced) => {
                    known.push(traced);
                    &known[known.len() - 1]
                }
                Err(error) => {
                    return (tree::failed(&x, &error), tree::failed(&state, &error));
                }
            },
        };
        let inputs = trace::inputs(&tensors, &traced.call.captured);
        let again = self.recompute.contains(&number);
        let results = Tensor::call(&traced.call.function, again, &inputs);
        let (n, m) = (traced.carry.1.tensors.len(), traced.state.1.tensors.len());
        for (&which, new) in traced.updates.iter().zip(&results[n + m..]) {
            cx.update(&arguments.block.tensors[which], new.clone());
        }
        let next = traced.carry.1.rebuild(&traced.carry.0, &results[..n]);
        (next, traced.state.1.rebuild(&traced.state.0, &results[n..n + m]))
    }
}

/// What one block is called with.
struct Arguments {
    block: Leaves,
    carry: Leaves,
    state: Leaves,
    key: Option<Tensor>,
}

impl Arguments {
    fn tensors(&self) -> Vec<Tensor> {
        let parts = [&self.block.tensors, &self.carry.tensors, &self.state.tensors];
        parts.into_iter().flatten().chain(&self.key).cloned().collect()
    }

    fn kind(&self) -> Kind {
        let parts = [&self.block, &self.carry, &self.state];
        Kind {
            types: self.tensors().iter().map(|t| t.ty().clone()).collect(),
            slots: parts.iter().flat_map(|p| &p.slots).copied().collect(),
            settings: parts.map(|p| &p.settings[..]).join("|"),
        }
    }

    fn trace<T: Tree, X: Tree, S: Tree>(
        &self,
        block: &T,
        x: &X,
        state: &S,
        kind: Kind,
        cx: &Context,
        f: &impl Fn(&T, X, S, &mut Context) -> (X, S),
    ) -> Result<Block<X, S>, Error> {
        let (n, m) = (self.block.tensors.len(), self.carry.tensors.len());
        let end = n + m + self.state.tensors.len();
        let mut parts = None;
        let call = trace::trace("block", &self.tensors(), |inside| {
            let mut inner = cx.inner(inside.get(end).map(Key::from_tensor));
            let (next, state) = f(
                &self.block.rebuild(block, &inside[..n]),
                self.carry.rebuild(x, &inside[n..n + m]),
                self.state.rebuild(state, &inside[n + m..end]),
                &mut inner,
            );
            let (carry_leaves, state_leaves) = (flatten(&next), flatten(&state));
            let mut results = [&carry_leaves.tensors[..], &state_leaves.tensors].concat();
            let mut updates = Vec::new();
            for (old, new) in inner.take_updates() {
                if let Some(which) = inside[..n].iter().position(|t| t.key() == old.key()) {
                    updates.push(which);
                    results.push(new);
                }
            }
            parts = Some(((next, carry_leaves), (state, state_leaves), updates));
            results
        })
        .map_err(|untraced| untraced.error)?;
        let Some((carry, state, updates)) = parts else {
            return Err(Error::new("the block did not run"));
        };
        Ok(Block { call, kind, carry, state, updates })
    }
}
