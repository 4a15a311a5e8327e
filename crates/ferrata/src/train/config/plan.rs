//! What a plan sets in a configuration.

use std::collections::BTreeSet;

use ferrata_cluster::hardware::{Cluster, LOCAL};
use ferrata_cluster::layout::{Axis, Recompute};
use ferrata_cluster::model::starred;
use ferrata_cluster::planner::PlanFile;
use ferrata_cluster::step::Choice;
use ferrata_ir::DType;

use super::{ComputeType, Config, ParallelSection};
use crate::mesh::{Layout, Zero};
use crate::models::Model;
use crate::train::sketch;
use crate::train::trained::described;
use crate::train::{Error, Result};
use crate::{Device, Key, Tensor, tree};

/// The axes from the outermost to those whose ranks are neighbours.
const ORDER: [Axis; 4] = [Axis::Pipeline, Axis::Data, Axis::Context, Axis::Tensor];

impl Config {
    /// Sets mesh, microbatches, dtype and all else that the plan chose, so that training executes it
    /// as it is; whatever else the configuration says stays.
    ///
    /// # Errors
    /// When the plan is for another model or batch, the configuration itself says something else
    /// about what is planned, or the plan asks for what cannot be executed.
    pub fn follow(&mut self, plan: &PlanFile) -> Result<()> {
        self.check()?;
        executable(plan)?;
        let (own, planned) = (self.train.batch * self.train.accumulate, plan.batch);
        if own != planned {
            return Err(Error::new(
                format!(
                    "the plan is for steps of {planned} sequences, and `train.batch` times \
                     `train.accumulate` is {own}"
                ),
                "plan again, or train with the batch that was planned",
            ));
        }
        let dtype = compute(&plan.dtype)?;
        let model = Model::new(&described(self)?, &Key::new(0))?;
        let loss = sketch(self, dtype.dtype().unwrap_or(DType::F32))?;
        plan.check_model(&loss.fingerprint(), model.depth())?;
        let parallel = self.parallel.following(plan)?;
        let again = layers(plan, |choice| choice.recompute == Recompute::Full);
        let given = [
            ("[parallel]", self.parallel != parallel && !self.parallel.is_open()),
            ("train.recompute", !self.train.recompute.is_empty() && self.train.recompute != again),
            ("train.memory", self.train.memory.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(_, differs)| *differs) {
            return Err(Error::new(
                format!("the configuration and the plan both say what `{key}` is for"),
                format!("remove `{key}` from the configuration, or leave the plan out"),
            ));
        }
        check_cuts(plan, &parallel, &model)?;
        self.train.batch = plan.layout.microbatch * plan.layout.mesh.data;
        self.train.accumulate = plan.batch / self.train.batch;
        self.train.dtype = dtype;
        self.train.recompute = again;
        self.parallel = parallel;
        Ok(())
    }
}

impl ParallelSection {
    /// Whether nothing is said that a plan chooses.
    fn is_open(&self) -> bool {
        let ParallelSection { rules, verify_every, .. } = self.clone();
        *self == ParallelSection { rules, verify_every, ..ParallelSection::default() }
    }

    /// What the plan chooses, and the rest as it is.
    fn following(&self, plan: &PlanFile) -> Result<ParallelSection> {
        let layout = &plan.layout;
        let mesh = &layout.mesh;
        let axes = ORDER.into_iter().filter(|&axis| mesh.size(axis) > 1);
        let axes: Vec<String> =
            axes.map(|axis| format!("{}={}", axis.name(), mesh.size(axis))).collect();
        let zero = u8::try_from(layout.zero).map_err(|_| "too large".to_owned());
        let zero = zero.and_then(Zero::try_from);
        Ok(ParallelSection {
            mesh: if axes.is_empty() { "data=1".to_owned() } else { axes.join(",") },
            zero: zero
                .map_err(|what| Error::new(format!("ZeRO {}: {what}", layout.zero), AGAIN))?,
            stored: layers(plan, |choice| choice.sharded && layout.zero < 3),
            sequence: layout.sequence_parallel && mesh.tensor > 1,
            interleave: layout.interleave,
            layers: if mesh.pipeline > 1 { plan.chunks.clone() } else { Vec::new() },
            schedule: layout.schedule,
            context: self.context,
            rules: self.rules.clone(),
            verify_every: self.verify_every,
        })
    }
}

const AGAIN: &str = "write the plan anew with ferrata plan";

/// The layers whose choice is so.
fn layers(plan: &PlanFile, is: impl Fn(&Choice) -> bool) -> Vec<usize> {
    let choices = plan.choices().into_iter().enumerate();
    choices.filter(|(_, choice)| is(choice)).map(|(layer, _)| layer).collect()
}

fn compute(dtype: &str) -> Result<ComputeType> {
    match dtype {
        "f32" => Ok(ComputeType::F32),
        "bf16" => Ok(ComputeType::Bf16),
        _ => Err(Error::new(
            format!("the plan multiplies in {dtype}, which training does not"),
            "plan with --dtype f32 or bf16",
        )),
    }
}

/// Refuses what ranks do otherwise than the plan thinks.
fn executable(plan: &PlanFile) -> Result<()> {
    let layout = &plan.layout;
    let refuse = |what: String, help: &str| Err(Error::new(what, help));
    if layout.mesh.expert > 1 {
        let experts = layout.mesh.expert;
        return refuse(
            format!("the plan has expert={experts}, and experts are not executed yet"),
            "plan with --mesh expert=1",
        );
    }
    let positions = |choice: &Choice| choice.sequence_parallel == layout.sequence_parallel;
    if layout.mesh.tensor > 1 && !plan.choices().iter().all(positions) {
        return refuse(
            "the plan cuts positions in some layers and not in others".to_owned(),
            "plan with --sequence-parallel true or false",
        );
    }
    let Cluster { name, accelerator, .. } = &plan.cluster;
    let machine = Device::cpu_with_threads(1)?.backend().fingerprint();
    if name == LOCAL && accelerator.name != machine {
        let planned = &accelerator.name;
        return refuse(
            format!("the plan is for the machine it was made on ({planned}), not {machine}"),
            "plan again here",
        );
    }
    let attention = Cluster::attention();
    if !attention.iter().all(|name| plan.cluster.software.claims.contains(name)) {
        return refuse(
            "the plan computes attention value by value, and here it is one kernel".to_owned(),
            "plan with --fused-attention true",
        );
    }
    Ok(())
}

/// Checks that the weights that are cut along `tensor` are those of the plan.
fn check_cuts(plan: &PlanFile, parallel: &ParallelSection, model: &Model) -> Result<()> {
    let mesh = parallel.mesh(plan.devices)?;
    let Some(axis) = mesh.axis(Axis::Tensor.name()) else { return Ok(()) };
    let layout = Layout::new(mesh, parallel.zero, parallel.all_rules());
    let cut = |(name, weight): (String, Tensor)| {
        let cuts = layout.weight(&name, weight.ty()).sharding.cuts;
        cuts.iter().any(|cut| cut.axes.contains(&axis)).then(|| starred(&name))
    };
    let own: BTreeSet<String> = tree::named_leaves(model).into_iter().filter_map(cut).collect();
    let planned: BTreeSet<String> = plan.cut.iter().cloned().collect();
    match own.symmetric_difference(&planned).next() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            format!("the plan and the rules of this model do not agree on cutting `{name}`"),
            "say how in `parallel.rules`, or plan without tensor",
        )),
    }
}
