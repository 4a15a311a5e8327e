//! A first, fast look at a layout: the average layer, stages as equal as can be.

use std::collections::HashMap;

use ferrata_ir::Result;

use super::{Fixed, USABLE};
use crate::cost::Cost;
use crate::hardware::Cluster;
use crate::layout::{Axis, Layout, Recompute, Schedule};
use crate::model::Model;
use crate::network::Group;
use crate::step::{Choice, Held, Step};

/// A layout and what it is thought to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screened {
    pub layout: Layout,
    seconds: f64,
    /// Bytes beyond the memory.
    missing: f64,
}

impl Screened {
    /// What layouts are ordered by: those that fit, then those that come near.
    pub fn key(&self) -> (f64, f64) {
        (self.missing, self.seconds)
    }
}

/// Costs of the average layer by what is computed again, and of embedding and head.
struct Costs {
    layer: Vec<Cost>,
    embedding: Cost,
    head: Cost,
}

/// Looks at layouts, and remembers the costs of layers.
pub(super) struct Screen<'a> {
    cluster: &'a Cluster,
    model: &'a Model,
    batch: usize,
    recompute: Vec<Recompute>,
    known: HashMap<Layout, Costs>,
}

impl<'a> Screen<'a> {
    pub fn new(cluster: &'a Cluster, model: &'a Model, batch: usize, fixed: &Fixed) -> Self {
        Screen { cluster, model, batch, recompute: fixed.recompute(), known: HashMap::new() }
    }

    /// Layouts whose layers cost the same have the same key.
    fn key(layout: &Layout) -> Layout {
        let mut key = Layout { interleave: 1, schedule: Schedule::default(), ..*layout };
        key.mesh.pipeline = 1;
        if layout.zero < 2 {
            key.zero = 0;
            // Replicas matter to layers only if they exchange something in each of them.
            key.mesh.data = layout.mesh.expert;
        }
        key
    }

    fn costs(&mut self, layout: Layout) -> Result<&Costs> {
        let key = Screen::key(&layout);
        if !self.known.contains_key(&key) {
            let step = Step::uncut(self.cluster, self.model, key, self.batch);
            let depth = self.model.depth() as f64;
            let average = |recompute: Recompute| -> Result<Cost> {
                let choice = Choice {
                    recompute,
                    sequence_parallel: layout.sequence_parallel,
                    sharded: layout.zero >= 3,
                };
                let mut sum = Cost::default();
                for layers in &self.model.layers {
                    let share = layers.count as f64 / depth;
                    sum = sum.plus(&step.layer(&layers.part, choice)?.times(share));
                }
                Ok(sum)
            };
            let costs = Costs {
                layer: self.recompute.iter().map(|&r| average(r)).collect::<Result<_>>()?,
                embedding: step.end(&self.model.embedding)?,
                head: step.end(&self.model.head)?,
            };
            self.known.insert(key, costs);
        }
        Ok(&self.known[&key])
    }

    /// What a layout is thought to take.
    pub fn look(&mut self, layout: Layout) -> Result<Screened> {
        let (cluster, model, batch) = (self.cluster, self.model, self.batch);
        let step = Step::uncut(cluster, model, layout, batch);
        let costs = self.costs(layout)?;
        let (mesh, chunks) = (&layout.mesh, layout.interleave as f64);
        let stages = mesh.pipeline as f64;
        let microbatches = step.microbatches() as f64;
        let layers = (model.depth() as f64 / (stages * chunks)).ceil() * chunks;
        let first = &costs.layer[0];
        let ends =
            if mesh.pipeline > 1 { costs.embedding } else { costs.embedding.plus(&costs.head) };
        let held =
            Held { all: layers * first.weights + ends.weights, experts: layers * first.experts };
        let state = step.state(held);
        let in_flight = step.in_flight(0) / chunks;
        let limit = cluster.accelerator.memory * USABLE
            - (state.weights + state.gradients + state.optimizer)
            - ends.kept * in_flight
            - step.stream();
        let (layer, missing) = mix(&costs.layer, limit / layers, in_flight, layers);
        let ends = costs.embedding.total() + costs.head.total();
        let mean = (model.depth() as f64 * layer.total() + ends) / stages;
        let most = mean.max(layers * layer.total());
        let filled = match layout.schedule {
            Schedule::ZeroBubble => 2.0 * layers * layer.gradient,
            _ => 0.0,
        };
        let group = mesh.group(Axis::Pipeline);
        let rows = layout.microbatch as f64 / (mesh.context * mesh.tensor) as f64;
        let transfer =
            if group.size > 1 { cluster.send(model.stream * rows, group.stride) } else { 0.0 };
        let bubble = ((mean - filled).max(0.0) / chunks + 2.0 * transfer) * (stages - 1.0);
        let hidden = layers * (layer.total() - layer.forward);
        let seconds =
            most * microbatches + bubble + step.reduction(held, hidden) + step.update(held);
        Ok(Screened { layout, seconds, missing })
    }
}

/// The average layer, if as many layers as have to compute more again than the others; and the
/// bytes that are missing even if all of them do. Of each layer `limit` bytes are there.
fn mix(layers: &[Cost], limit: f64, in_flight: f64, count: f64) -> (Cost, f64) {
    let need = |cost: &Cost| cost.kept * in_flight + cost.working / count;
    for (i, cost) in layers.iter().enumerate() {
        if need(cost) > limit {
            continue;
        }
        let Some(before) = i.checked_sub(1).map(|i| &layers[i]) else { return (*cost, 0.0) };
        let share = ((need(before) - limit) / (need(before) - need(cost))).clamp(0.0, 1.0);
        return (before.times(1.0 - share).plus(&cost.times(share)), 0.0);
    }
    let least = layers.iter().min_by(|a, b| need(a).total_cmp(&need(b)));
    least.map_or((Cost::default(), f64::INFINITY), |cost| (*cost, (need(cost) - limit) * count))
}

/// Devices that a node does not hold.
pub(super) fn leaves_node(cluster: &Cluster, group: Group) -> bool {
    group.size > 1 && group.stride * (group.size - 1) >= cluster.node()
}
