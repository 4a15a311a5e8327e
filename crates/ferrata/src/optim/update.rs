//! The update rules on one parameter.

use super::rule::{Adagrad, Adam, Lion, Muon, MuonScale, RmsProp, Rule, Sgd};
use crate::tensor::Tensor;
use ferrata_ir::DType;
use std::collections::BTreeMap;

/// What is remembered of one parameter, by name.
pub(super) type Slots = BTreeMap<String, Tensor>;

/// A moved parameter and its new slots; or the name of a slot that is missing.
type Moved = Result<(Tensor, Slots), &'static str>;

/// Coefficients of the Newton-Schulz iteration (Jordan et al. 2024).
const NEWTON_SCHULZ: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// The scalars of one parameter at one step.
pub(super) struct Scalars {
    /// Learning rate, f64.
    lr: Tensor,
    /// What [`Rule::scalars`] gave, f64.
    rule: Vec<Tensor>,
    weight_decay: f64,
    dtype: DType,
}

impl Scalars {
    pub fn new(lr: Tensor, rule: Vec<Tensor>, weight_decay: f64, dtype: DType) -> Self {
        Scalars { lr, rule, weight_decay, dtype }
    }

    /// The learning rate in the parameter's dtype.
    fn lr(&self) -> Tensor {
        self.lr.cast(self.dtype)
    }

    /// The rule's scalar number `i`, f64.
    fn get(&self, i: usize) -> Tensor {
        self.rule.get(i).cloned().unwrap_or_else(|| Tensor::from(1.0f64))
    }

    /// The gradient with the pull of the weight decay.
    fn decayed(&self, g: &Tensor, p: &Tensor) -> Tensor {
        if self.weight_decay == 0.0 { g.clone() } else { g + p * self.weight_decay }
    }

    /// The parameter after decoupled weight decay.
    fn shrunk(&self, p: &Tensor) -> Tensor {
        if self.weight_decay == 0.0 {
            return p.clone();
        }
        let factor: Tensor = 1.0f64 - &self.lr * self.weight_decay;
        p * factor.cast(self.dtype)
    }
}

/// `decay old + (1 - decay) new`.
fn blend(old: &Tensor, new: &Tensor, decay: f64) -> Tensor {
    old * decay + new * (1.0 - decay)
}

fn slot<'a>(slots: &'a Slots, name: &'static str) -> Result<&'a Tensor, &'static str> {
    slots.get(name).ok_or(name)
}

fn slots<const N: usize>(named: [(&str, Tensor); N]) -> Slots {
    named.into_iter().map(|(name, t)| (name.to_string(), t)).collect()
}

impl Rule {
    /// The slots of a parameter before the first step.
    pub(super) fn init(&self, p: &Tensor) -> Slots {
        let start = |names: &[&str], value: f64| -> Slots {
            let one = |name: &&str| (name.to_string(), Tensor::full(p.shape(), value, p.dtype()));
            names.iter().map(one).collect()
        };
        match self {
            Rule::Sgd(r) if r.momentum == 0.0 => Slots::new(),
            Rule::Sgd(_) => start(&["momentum"], 0.0),
            Rule::Adam(r) if r.amsgrad => start(&["mean", "mean_square", "largest"], 0.0),
            Rule::Adam(_) => start(&["mean", "mean_square"], 0.0),
            Rule::Lion(_) => start(&["mean"], 0.0),
            Rule::RmsProp(r) => {
                let mut names = vec!["mean_square"];
                names.extend(r.centered.then_some("mean"));
                names.extend((r.momentum != 0.0).then_some("momentum"));
                start(&names, 0.0)
            }
            Rule::Adagrad(r) => start(&["sum"], r.initial),
            Rule::Muon(_) if p.rank() == 2 => start(&["momentum"], 0.0),
            Rule::Muon(r) => Rule::Adam(r.vectors.clone()).init(p),
        }
    }

    /// What changes with the number `t` of the step, counted from 1, besides the learning rate.
    pub(super) fn scalars(&self, t: u64) -> Vec<f64> {
        let steps = t as f64;
        match self {
            // The share of the gradient in the running direction.
            Rule::Sgd(r) => vec![if t == 1 { 1.0 } else { 1.0 - r.dampening }],
            Rule::Adam(r) => {
                let (b1, b2) = r.betas;
                vec![1.0 / (1.0 - b1.powf(steps)), (1.0 - b2.powf(steps)).sqrt()]
            }
            Rule::Adagrad(r) => vec![1.0 / (1.0 + (steps - 1.0) * r.lr_decay)],
            Rule::Muon(r) => Rule::Adam(r.vectors.clone()).scalars(t),
            Rule::Lion(_) | Rule::RmsProp(_) => Vec::new(),
        }
    }

    pub(super) fn update(&self, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
        match self {
            Rule::Sgd(rule) => sgd(rule, p, g, old, s),
            Rule::Adam(rule) => adam(rule, p, g, old, s),
            Rule::Lion(rule) => lion(rule, p, g, old, s),
            Rule::RmsProp(rule) => rms_prop(rule, p, g, old, s),
            Rule::Adagrad(rule) => adagrad(rule, p, g, old, s),
            Rule::Muon(rule) if p.rank() == 2 => muon(rule, p, g, old, s),
            Rule::Muon(rule) => adam(&rule.vectors, p, g, old, s),
        }
    }
}

fn sgd(rule: &Sgd, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let g = s.decayed(g, p);
    if rule.momentum == 0.0 {
        return Ok((p - g * s.lr(), Slots::new()));
    }
    let run = slot(old, "momentum")? * rule.momentum + &g * s.get(0).cast(s.dtype);
    let step = if rule.nesterov { &g + &run * rule.momentum } else { run.clone() };
    Ok((p - step * s.lr(), slots([("momentum", run)])))
}

fn adam(rule: &Adam, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let (p, g) = match rule.decoupled {
        true => (s.shrunk(p), g.clone()),
        false => (p.clone(), s.decayed(g, p)),
    };
    let mean = blend(slot(old, "mean")?, &g, rule.betas.0);
    let square = blend(slot(old, "mean_square")?, &g.square(), rule.betas.1);
    let mut new = slots([("mean", mean.clone()), ("mean_square", square.clone())]);
    let mut below = square;
    if rule.amsgrad {
        below = slot(old, "largest")?.maximum(&below);
        new.insert("largest".to_string(), below.clone());
    }
    let rate = (&s.lr * s.get(0)).cast(s.dtype);
    let below = below.sqrt() / s.get(1).cast(s.dtype) + rule.eps;
    Ok((p - mean * rate / below, new))
}

fn lion(rule: &Lion, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let mean = slot(old, "mean")?;
    let direction = s.decayed(&blend(mean, g, rule.betas.0).sign(), p);
    let mean = blend(mean, g, rule.betas.1);
    Ok((p - direction * s.lr(), slots([("mean", mean)])))
}

fn rms_prop(rule: &RmsProp, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let g = s.decayed(g, p);
    let square = blend(slot(old, "mean_square")?, &g.square(), rule.alpha);
    let mut new = slots([("mean_square", square.clone())]);
    let mut below = square;
    if rule.centered {
        let mean = blend(slot(old, "mean")?, &g, rule.alpha);
        below -= mean.square();
        new.insert("mean".to_string(), mean);
    }
    let mut step = g / (below.sqrt() + rule.eps);
    if rule.momentum != 0.0 {
        step = slot(old, "momentum")? * rule.momentum + step;
        new.insert("momentum".to_string(), step.clone());
    }
    Ok((p - step * s.lr(), new))
}

fn adagrad(rule: &Adagrad, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let g = s.decayed(g, p);
    let sum = slot(old, "sum")? + g.square();
    let rate = (&s.lr * s.get(0)).cast(s.dtype);
    let step = g * rate / (sum.sqrt() + rule.eps);
    Ok((p - step, slots([("sum", sum)])))
}

fn muon(rule: &Muon, p: &Tensor, g: &Tensor, old: &Slots, s: &Scalars) -> Moved {
    let run = blend(slot(old, "momentum")?, g, rule.momentum);
    let direction = if rule.nesterov { blend(&run, g, rule.momentum) } else { run.clone() };
    let [rows, columns] = p.dims::<2>();
    let (rows, columns) = (rows as f64, columns as f64);
    let scale = match rule.scale {
        MuonScale::Spectral => (rows / columns).max(1.0).sqrt(),
        MuonScale::Rms => 0.2 * rows.max(columns).sqrt(),
    };
    let step = orthogonal(&direction, rule) * scale;
    Ok((s.shrunk(p) - step * s.lr(), slots([("momentum", run)])))
}

/// Brings all singular values of a matrix near 1.
fn orthogonal(matrix: &Tensor, rule: &Muon) -> Tensor {
    let [rows, columns] = matrix.dims::<2>();
    let tall = rows > columns;
    let mut x = if tall { matrix.t() } else { matrix.clone() };
    let norm = x.square().sum(..).sqrt() + rule.eps;
    x = (x / norm).cast(rule.compute.unwrap_or(matrix.dtype()));
    let (a, b, c) = NEWTON_SCHULZ;
    for _ in 0..rule.rounds {
        let q = x.matmul(&x.t());
        let q = &q * b + q.matmul(&q) * c;
        x = &x * a + q.matmul(&x);
    }
    x = x.cast(matrix.dtype());
    if tall { x.t() } else { x }
}
