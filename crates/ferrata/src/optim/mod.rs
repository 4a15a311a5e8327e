//! Optimisers: how parameters move along their gradients.
//!
//! An [`Optimizer`] is a [`Rule`] with parameter groups. It holds no tensors: [`Optimizer::init`]
//! makes the [`State`] of a tree of parameters, and [`Optimizer::update`] gives new parameters and
//! a new state. The update can be traced, so it runs inside of a compiled step; all that changes
//! from step to step, learning rate and bias corrections, comes in as [`Rates`], which
//! [`Optimizer::rates`] computes in f64 on the host.
//!
//! ```
//! use ferrata::optim::{Adam, Optimizer, Schedule, clip_by_norm};
//! use ferrata::{Tensor, compile, value_and_grad};
//! let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() }).weight_decay(0.1);
//! let schedule = Schedule::constant(0.1);
//! let mut w = Tensor::from([3.0f32, -1.0]);
//! let mut state = optimizer.init(&w);
//! let step = compile(|(w, state, rates)| {
//!     let (loss, gradient) = value_and_grad(|w: &Tensor| w.square().sum(..))(&w);
//!     let (gradient, _norm) = clip_by_norm(&gradient, 1.0);
//!     let (w, state) = optimizer.update(&w, &gradient, &state, &rates);
//!     (w, state, loss)
//! });
//! for i in 0..100 {
//!     let rates = optimizer.rates(i, schedule.at(i));
//!     (w, state, _) = step.call((w, state, rates))?;
//! }
//! assert!(w.to_vec::<f32>()?.iter().all(|x| x.abs() < 0.1));
//! # Ok::<(), ferrata::Error>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `rule` | [`Rule`] and the settings of each update rule |
//! | `update` | the update rules on one parameter |
//! | `group` | parameter groups: which parameters have other settings |
//! | `schedule` | learning rates over the steps |
//! | `gradient` | clipping, accumulation, moving averages |

mod gradient;
mod group;
mod rule;
mod schedule;
mod update;

#[cfg(test)]
mod tests;

pub use gradient::{accumulate, average, clip_by_norm, clip_by_value, global_norm, moving_average};
pub use group::{Group, Select};
pub use rule::{Adagrad, Adam, Lion, Muon, MuonScale, RmsProp, Rule, Sgd};
pub use schedule::{Decay, Schedule};

use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor, failed, flatten};
use ferrata_ir::{DType, Error, Result};
use std::collections::BTreeMap;
use update::{Scalars, Slots};

/// An update rule with weight decay and parameter groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    groups: Vec<Group>,
}

/// What an optimiser remembers of each parameter. As a tree, the path of a tensor is the path of
/// the parameter and the name of the quantity: `layers.0.weight.mean_square`.
#[derive(Clone, Debug, Default)]
pub struct State(BTreeMap<String, Slots>);

/// What changes from step to step: scalars in f64.
#[derive(Clone, Debug)]
pub struct Rates {
    lr: Tensor,
    /// For the optimiser's own rule, then for each group.
    rules: Vec<Vec<Tensor>>,
}

impl Tree for State {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.0.visit(visitor);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        State(self.0.rebuild(f))
    }
}

impl Tree for Rates {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.field("lr", &self.lr);
        visitor.field("rules", &self.rules);
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Rates { lr: self.lr.rebuild(f), rules: self.rules.rebuild(f) }
    }
}

/// The settings of one parameter, after looking for its group.
struct Settings<'a> {
    rule: &'a Rule,
    /// Index of the scalars in [`Rates`].
    index: usize,
    weight_decay: f64,
    lr_scale: f64,
}

impl Optimizer {
    /// An optimiser with this rule for all parameters and no weight decay.
    pub fn new(rule: impl Into<Rule>) -> Self {
        Optimizer { rule: rule.into(), weight_decay: 0.0, groups: Vec::new() }
    }

    /// Sets the weight decay, which acts on all parameters whose group has none of its own.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Adds a group. A parameter belongs to the first group that selects it.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.groups.push(group);
        self
    }

    /// Keeps weight decay off parameters with fewer than two dimensions, as is usual for language
    /// models.
    #[must_use]
    pub fn decay_matrices_only(self) -> Self {
        self.group(Group::new(Select::FewerDims(2)).weight_decay(0.0))
    }

    /// Whether the parameter moves at all.
    pub fn is_trained(&self, path: &str, parameter: &Tensor) -> bool {
        self.settings(path, parameter).is_some()
    }

    /// The settings of a parameter; `None` if it is frozen or no float.
    fn settings(&self, path: &str, parameter: &Tensor) -> Option<Settings<'_>> {
        if !parameter.dtype().is_float() {
            return None;
        }
        let found = self.groups.iter().position(|g| g.selects(path, parameter.shape()));
        let group = found.map(|i| &self.groups[i]);
        if group.is_some_and(|g| g.frozen) {
            return None;
        }
        let own = group.and_then(|g| g.rule.as_ref());
        let mut settings = Settings {
            rule: own.unwrap_or(&self.rule),
            index: if own.is_some() { found.map_or(0, |i| i + 1) } else { 0 },
            weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(self.weight_decay),
            lr_scale: group.map_or(1.0, |g| g.lr_scale),
        };
        // Muon is for matrices; it brings the rule for everything else.
        if let Rule::Muon(muon) = settings.rule
            && parameter.rank() != 2
        {
            settings.lr_scale *= muon.vector_lr_scale;
        }
        Some(settings)
    }

    /// The state before the first step.
    pub fn init<T: Tree>(&self, parameters: &T) -> State {
        let leaves = flatten(parameters);
        let mut state = BTreeMap::new();
        for (path, p) in leaves.paths.iter().zip(&leaves.tensors) {
            if let Some(settings) = self.settings(path, p) {
                let slots = settings.rule.init(p);
                if !slots.is_empty() {
                    state.insert(path.clone(), slots);
                }
            }
        }
        State(state)
    }

    /// The scalars of step number `step`, counted from 0, at learning rate `lr`.
    pub fn rates(&self, step: u64, lr: f64) -> Rates {
        let scalars = |rule: &Rule| -> Vec<Tensor> {
            rule.scalars(step + 1).into_iter().map(Tensor::from).collect()
        };
        let own = |g: &Group| g.rule.as_ref().map_or(vec![], scalars);
        let mut rules = vec![scalars(&self.rule)];
        rules.extend(self.groups.iter().map(own));
        Rates { lr: Tensor::from(lr), rules }
    }

    /// The parameters and the state after a step along `gradients`, a tree of the structure of
    /// `parameters`. If something does not fit, all tensors hold the error.
    #[track_caller]
    pub fn update<T: Tree>(
        &self,
        parameters: &T,
        gradients: &T,
        state: &State,
        rates: &Rates,
    ) -> (T, State) {
        match self.try_update(parameters, gradients, state, rates) {
            Ok(both) => both,
            Err(error) => (failed(parameters, &error), failed(state, &error)),
        }
    }

    fn try_update<T: Tree>(
        &self,
        parameters: &T,
        gradients: &T,
        state: &State,
        rates: &Rates,
    ) -> Result<(T, State)> {
        let (old, slopes) = (flatten(parameters), flatten(gradients));
        if old.tensors.len() != slopes.tensors.len() {
            let (n, m) = (old.tensors.len(), slopes.tensors.len());
            return Err(Error::new(format!("{m} gradients for {n} parameters")));
        }
        let mut moved = Vec::with_capacity(old.tensors.len());
        let mut next = state.clone();
        for ((path, p), g) in old.paths.iter().zip(&old.tensors).zip(&slopes.tensors) {
            let Some(settings) = self.settings(path, p) else {
                moved.push(p.clone());
                continue;
            };
            if p.ty() != g.ty() {
                let (p, g) = (p.ty(), g.ty());
                return Err(Error::new(format!("the gradient of `{path}` is {g} instead of {p}")));
            }
            let slots = state.0.get(path).cloned().unwrap_or_default();
            let scalars = self.scalars(&settings, rates, p.dtype(), path)?;
            let (p, slots) = settings.rule.update(p, g, &slots, &scalars).map_err(|name| {
                Error::new(format!("the optimiser state has no `{path}.{name}`"))
                    .help("make the state with init, from the same optimiser and parameters")
            })?;
            moved.push(p);
            if !slots.is_empty() {
                next.0.insert(path.clone(), slots);
            }
        }
        Ok((old.rebuild(parameters, &moved), next))
    }

    /// The scalars of a parameter, in its dtype.
    fn scalars(
        &self,
        settings: &Settings<'_>,
        rates: &Rates,
        dtype: DType,
        path: &str,
    ) -> Result<Scalars> {
        let rule = rates.rules.get(settings.index).ok_or_else(|| {
            Error::new(format!("the rates lack those of the group of `{path}`"))
                .help("compute them with the same optimiser")
        })?;
        let lr = &rates.lr * settings.lr_scale;
        Ok(Scalars::new(lr, rule.clone(), settings.weight_decay, dtype))
    }
}
