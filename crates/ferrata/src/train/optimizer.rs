//! From the `[optimizer]` and `[schedule]` sections to `ferrata::optim`.

use super::config::{
    Config, DecayOn, OptimizerKind, OptimizerSection, ScheduleKind, ScheduleSection, StepScale,
};
use ferrata_ir::DType;

use crate::optim::{
    Adagrad, Adam, Decay, Group, Lion, Muon, MuonScale, Optimizer, RmsProp, Rule, Schedule, Select,
    Sgd,
};

impl Config {
    /// The optimiser of the configuration, frozen parameters included.
    pub fn optimizer(&self) -> Optimizer {
        let section = &self.optimizer;
        let mut optimizer = Optimizer::new(section.rule(self.train.dtype.dtype()))
            .weight_decay(section.weight_decay);
        for pattern in &self.train.freeze {
            optimizer = optimizer.group(Group::new(Select::Path(pattern.clone())).frozen());
        }
        match section.decay_on {
            DecayOn::Matrices => optimizer.decay_matrices_only(),
            DecayOn::All => optimizer,
        }
    }

    /// The learning rate over the steps.
    pub fn learning_rate(&self) -> Schedule {
        self.schedule.over(self.optimizer.lr, self.train.steps)
    }
}

impl OptimizerSection {
    /// The rule, where it has products: of the dtype `compute`.
    fn rule(&self, compute: Option<DType>) -> Rule {
        let flag = |value: Option<bool>| value.unwrap_or_default();
        match self.kind {
            OptimizerKind::Sgd => Rule::Sgd(Sgd {
                momentum: self.momentum.unwrap_or_default(),
                dampening: self.dampening.unwrap_or_default(),
                nesterov: flag(self.nesterov),
            }),
            OptimizerKind::Adam => Rule::Adam(self.adam(Adam::default())),
            OptimizerKind::AdamW => {
                Rule::Adam(self.adam(Adam { decoupled: true, ..Adam::default() }))
            }
            OptimizerKind::Lion => Rule::Lion(Lion { betas: self.betas(Lion::default().betas) }),
            OptimizerKind::RmsProp => {
                let usual = RmsProp::default();
                Rule::RmsProp(RmsProp {
                    alpha: self.alpha.unwrap_or(usual.alpha),
                    eps: self.eps.unwrap_or(usual.eps),
                    momentum: self.momentum.unwrap_or(usual.momentum),
                    centered: flag(self.centered),
                })
            }
            OptimizerKind::Adagrad => {
                let usual = Adagrad::default();
                Rule::Adagrad(Adagrad {
                    lr_decay: self.lr_decay.unwrap_or(usual.lr_decay),
                    eps: self.eps.unwrap_or(usual.eps),
                    ..usual
                })
            }
            OptimizerKind::Muon => Rule::Muon(Muon { compute, ..self.muon() }),
        }
    }

    fn betas(&self, usual: (f64, f64)) -> (f64, f64) {
        match self.betas.as_deref() {
            Some([first, second]) => (*first, *second),
            _ => usual,
        }
    }

    fn adam(&self, usual: Adam) -> Adam {
        Adam {
            betas: self.betas(usual.betas),
            eps: self.eps.unwrap_or(usual.eps),
            amsgrad: self.amsgrad.unwrap_or(usual.amsgrad),
            ..usual
        }
    }

    fn muon(&self) -> Muon {
        let usual = Muon::default();
        Muon {
            momentum: self.momentum.unwrap_or(usual.momentum),
            nesterov: self.nesterov.unwrap_or(usual.nesterov),
            scale: match self.scale {
                Some(StepScale::Rms) => MuonScale::Rms,
                Some(StepScale::Spectral) | None => MuonScale::Spectral,
            },
            vectors: self.adam(usual.vectors.clone()),
            vector_lr_scale: match self.vector_lr {
                Some(lr) if self.lr > 0.0 => lr / self.lr,
                _ => 1.0,
            },
            ..usual
        }
    }
}

impl ScheduleSection {
    fn over(&self, peak: f64, steps: u64) -> Schedule {
        let last = self.final_lr;
        let decay = match self.kind {
            ScheduleKind::Constant => Decay::Constant,
            ScheduleKind::Linear => Decay::Linear { end: steps, last },
            ScheduleKind::Cosine => Decay::Cosine { end: steps, last },
            ScheduleKind::Wsd => {
                let length = self.decay.unwrap_or(steps / 10);
                Decay::Stable { from: steps.saturating_sub(length), end: steps, last }
            }
        };
        Schedule { peak, warmup: self.warmup, decay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::{Override, Source};

    fn config(settings: &[&str]) -> Config {
        let overrides: Vec<_> = settings.iter().map(|s| Override::parse(s).unwrap()).collect();
        Config::load(Source::Text { name: "test", text: "" }, &overrides).unwrap()
    }

    #[test]
    fn settings_reach_the_rule() {
        let config = config(&[
            "optimizer.kind=adamw",
            "optimizer.betas=[0.8, 0.95]",
            "optimizer.eps=1e-6",
            "optimizer.weight_decay=0.1",
            "train.freeze=transformer.wte.*",
        ]);
        let rule = Adam { betas: (0.8, 0.95), eps: 1e-6, decoupled: true, ..Adam::default() };
        let expected = Optimizer::new(rule)
            .weight_decay(0.1)
            .group(Group::new(Select::Path("transformer.wte.*".into())).frozen())
            .decay_matrices_only();
        assert_eq!(config.optimizer(), expected);
    }

    #[test]
    fn muon_has_a_rate_for_vectors() {
        let config = config(&[
            "optimizer.kind=muon",
            "optimizer.lr=0.02",
            "optimizer.vector_lr=0.001",
            "optimizer.scale=rms",
            "optimizer.decay_on=all",
        ]);
        let muon = Muon { vector_lr_scale: 0.05, scale: MuonScale::Rms, ..Muon::default() };
        assert_eq!(config.optimizer(), Optimizer::new(muon));
    }

    #[test]
    fn schedules_end_where_the_run_ends() {
        let settings = ["train.steps=100", "optimizer.lr=1.0", "schedule.final_lr=0.5"];
        for (kind, middle) in [("linear", 0.75), ("cosine", 0.75), ("wsd", 1.0), ("constant", 1.0)]
        {
            let kind_set = format!("schedule.kind={kind}");
            let all = [&settings[..], &[kind_set.as_str()]].concat();
            let rate = config(&all).learning_rate();
            assert!((rate.at(50) - middle).abs() < 1e-9, "{kind}");
            assert_eq!(rate.at(100), if kind == "constant" { 1.0 } else { 0.5 }, "{kind}");
        }
    }
}
