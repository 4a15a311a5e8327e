//! A training step under a layout: stages, time, memory.

use ferrata_ir::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::cost::{Cost, Pricing};
use crate::hardware::Cluster;
use crate::layout::{Axis, Layout, Recompute, Schedule};
use crate::model::{Model, Part};
use crate::network::{Collective, Group};
use crate::pipeline::{Chunk, Pipeline, Run, Table, balanced, run};

/// What is chosen for each layer by itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What is computed again.
    pub recompute: Recompute,
    /// Whether activations between products are cut along positions.
    pub sequence_parallel: bool,
    /// Whether replicas share the weights (ZeRO 3).
    pub sharded: bool,
}

/// A training step to be predicted: a model on a cluster under a layout.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    cluster: &'a Cluster,
    model: &'a Model,
    layout: Layout,
    /// Sequences of all replicas together.
    batch: usize,
    /// For each chunk, in order of the model, how many layers it has.
    chunks: Vec<usize>,
}

/// Bytes on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Weights that products read.
    pub weights: f64,
    /// Sums of gradients.
    pub gradients: f64,
    /// Master weights and moments.
    pub optimizer: f64,
    /// Of these three, what belongs to embedding and head.
    pub ends: f64,
    /// What layers keep for the backward pass.
    pub activations: f64,
    /// The same of embedding and head.
    pub end_activations: f64,
    /// What is needed beside that while one layer is computed.
    pub working: f64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> f64 {
        let state = self.weights + self.gradients + self.optimizer;
        state + self.activations + self.end_activations + self.working
    }
}

/// What a step takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Seconds of a step.
    pub seconds: f64,
    /// Of them, those of the pipeline.
    pub pipeline: f64,
    /// Share of the pipeline's time in which devices do nothing.
    pub bubble: f64,
    /// Seconds in which a device waits for communication within layers.
    pub exposed: f64,
    /// Seconds in which a device computes again what it did not keep.
    pub again: f64,
    /// Seconds of reducing gradients and gathering weights that nothing hides.
    pub data: f64,
    /// Seconds of the optimiser.
    pub optimizer: f64,
    /// Operations of the model per second and device, without those that are done again.
    pub flops: f64,
    /// The same as a share of the peak.
    pub utilisation: f64,
    /// By stage.
    pub memory: Vec<Memory>,
    /// Bytes that a device of the first stage sends in a step, by axis.
    pub sent: [f64; 5],
}

impl Prediction {
    /// Bytes of the fullest device.
    pub fn peak(&self) -> f64 {
        self.memory.iter().map(Memory::total).fold(0.0, f64::max)
    }
}

/// Weights of a stage on one device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Elements.
    pub all: f64,
    /// Of those, elements that belong to experts.
    pub experts: f64,
}

/// A stage's costs and bytes.
struct Stage {
    chunks: Vec<Cost>,
    ends: Cost,
    /// Bytes kept by layers for a microbatch, by chunk.
    layers_kept: Vec<f64>,
    sharded: f64,
}

impl Stage {
    fn held(&self) -> Held {
        let all = self.chunks.iter().map(|chunk| chunk.weights).sum();
        Held { all, experts: self.chunks.iter().map(|chunk| chunk.experts).sum() }
    }
}

impl<'a> Step<'a> {
    /// A step of `batch` sequences.
    ///
    /// # Errors
    /// If the layout does not fit the model, the batch or the devices; names what does not divide.
    pub fn new(
        cluster: &'a Cluster,
        model: &'a Model,
        layout: Layout,
        batch: usize,
    ) -> Result<Self> {
        check(model, &layout, batch)?;
        let mut step = Step::uncut(cluster, model, layout, batch);
        step.chunks = step.partition()?;
        Ok(step)
    }

    /// The same for a layout that was checked, before the layers are spread over stages.
    pub(crate) fn uncut(
        cluster: &'a Cluster,
        model: &'a Model,
        layout: Layout,
        batch: usize,
    ) -> Self {
        Step { cluster, model, layout, batch, chunks: Vec::new() }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Layers of each chunk, in order of the model.
    pub fn chunks(&self) -> &[usize] {
        &self.chunks
    }

    /// Microbatches of a replica.
    pub fn microbatches(&self) -> usize {
        self.batch / (self.layout.mesh.data * self.layout.microbatch)
    }

    fn pricing(&self, sequence_parallel: bool) -> Result<Pricing<'a>> {
        let sequence_parallel = sequence_parallel && self.layout.mesh.tensor > 1;
        Pricing::new(self.cluster, self.model, Layout { sequence_parallel, ..self.layout })
    }

    /// What one layer costs, with the communication of weights that replicas share.
    pub fn layer(&self, part: &Part, choice: Choice) -> Result<Cost> {
        let pricing = self.pricing(choice.sequence_parallel)?;
        let cost = pricing.part(part, choice.recompute);
        Ok(self.shared(cost, choice.sharded))
    }

    /// Communication of every microbatch under ZeRO 2 and 3, hidden behind the layer's own work where
    /// the software overlaps them.
    fn shared(&self, mut cost: Cost, sharded: bool) -> Cost {
        let software = &self.cluster.software;
        let group = self.layout.mesh.replicas();
        if group.size < 2 {
            return cost;
        }
        let all = |kind, width: f64| self.cluster.collective(kind, cost.weights * width, group);
        let mut forward = 0.0;
        let mut backward = 0.0;
        if sharded {
            forward = all(Collective::AllGather, software.weight_bytes);
            backward = forward;
        }
        if sharded || self.layout.zero >= 2 {
            backward += all(Collective::ReduceScatter, software.gradient_bytes);
        }
        let hides = if software.overlaps_gradients { 1.0 } else { 0.0 };
        let waits = (forward - hides * cost.forward).max(0.0);
        let behind = cost.backward + cost.gradient + cost.again;
        let waits_back = (backward - hides * behind).max(0.0);
        cost.forward += waits;
        cost.backward += waits_back;
        cost.exposed += waits + waits_back;
        cost
    }

    /// The ends of the model, which nothing is computed again of.
    pub(crate) fn end(&self, part: &Part) -> Result<Cost> {
        let pricing = self.pricing(self.layout.sequence_parallel)?;
        Ok(self.shared(pricing.part(part, Recompute::None), self.layout.zero >= 3))
    }

    /// Cuts the layers into chunks whose most expensive one is as cheap as can be.
    fn partition(&self) -> Result<Vec<usize>> {
        let count = self.layout.mesh.pipeline * self.layout.interleave;
        let plain =
            Choice { sequence_parallel: self.layout.sequence_parallel, ..Choice::default() };
        let mut costs = Vec::with_capacity(self.model.depth());
        for layers in &self.model.layers {
            let cost = self.layer(&layers.part, plain)?.total();
            costs.extend(std::iter::repeat_n(cost, layers.count));
        }
        let first = self.end(&self.model.embedding)?.total();
        let last = self.end(&self.model.head)?.total();
        Ok(balanced(&costs, first, last, count))
    }

    /// What is in the stages if layers are computed as `choices` says.
    fn stages(&self, choices: &[Choice]) -> Result<Vec<Stage>> {
        let depth = self.layout.mesh.pipeline;
        let parts: Vec<&Part> = self.model.parts().collect();
        let mut known: Vec<(*const Part, Choice, Cost)> = Vec::new();
        let mut stages: Vec<Stage> = (0..depth)
            .map(|_| Stage {
                chunks: Vec::new(),
                ends: Cost::default(),
                layers_kept: Vec::new(),
                sharded: 0.0,
            })
            .collect();
        let mut at = 0;
        for (place, &layers) in self.chunks.iter().enumerate() {
            let stage = &mut stages[place % depth];
            let mut chunk = Cost::default();
            let mut before: Option<Choice> = None;
            for (part, &choice) in parts.iter().zip(choices).skip(at).take(layers) {
                let key = (std::ptr::from_ref::<Part>(part), choice);
                let found = known.iter().find(|(part, choice, _)| (*part, *choice) == key);
                let cost = match found {
                    Some((.., cost)) => *cost,
                    None => {
                        let cost = self.layer(part, choice)?;
                        known.push((key.0, key.1, cost));
                        cost
                    }
                };
                if choice.sharded {
                    stage.sharded += cost.weights;
                }
                chunk = chunk.plus(&cost);
                if before.is_some_and(|b| b.sequence_parallel != choice.sequence_parallel) {
                    let edge = self.reshard();
                    chunk.forward += edge;
                    chunk.backward += edge;
                    chunk.exposed += 2.0 * edge;
                }
                before = Some(choice);
            }
            at += layers;
            stage.layers_kept.push(chunk.kept);
            stage.chunks.push(chunk);
        }
        let ends = [
            (0, 0, &self.model.embedding),
            (depth - 1, self.layout.interleave - 1, &self.model.head),
        ];
        for (stage, chunk, part) in ends {
            let cost = self.end(part)?;
            stages[stage].chunks[chunk] = stages[stage].chunks[chunk].plus(&cost);
            stages[stage].ends = stages[stage].ends.plus(&cost);
        }
        Ok(stages)
    }

    /// Seconds of bringing a layer's input from whole to cut positions or back.
    pub fn reshard(&self) -> f64 {
        let bytes =
            self.model.stream * self.layout.microbatch as f64 / self.layout.mesh.context as f64;
        self.cluster.collective(Collective::AllGather, bytes, self.layout.mesh.group(Axis::Tensor))
    }

    /// The pipeline that the stages are, where each has a processor for itself.
    fn pipeline(&self, stages: &[Stage]) -> Pipeline {
        let sharing = self.cluster.accelerator.sharing;
        let chunk = |cost: &Cost| Chunk {
            forward: cost.forward / sharing,
            backward: (cost.backward + cost.again) / sharing,
            gradient: cost.gradient / sharing,
            kept: cost.kept,
            working: cost.working,
        };
        let group = self.layout.mesh.group(Axis::Pipeline);
        let bytes = self.boundary();
        let transfer = if group.size > 1 { self.cluster.send(bytes, group.stride) } else { 0.0 };
        let stages = stages.iter().map(|stage| stage.chunks.iter().map(chunk).collect()).collect();
        Pipeline { stages, transfer, microbatches: self.microbatches() }
    }

    /// When a pipeline ends that would do so at `end` if each stage had a processor for itself, and
    /// the share of the time in which processors do nothing.
    fn turns(&self, pipeline: &Pipeline, end: f64) -> (f64, f64) {
        let work = pipeline.average() * self.cluster.accelerator.sharing;
        let end = end.max(work);
        (end, if end > 0.0 { 1.0 - work / end } else { 0.0 })
    }

    /// Bytes that a device sends to the next stage.
    fn boundary(&self) -> f64 {
        let mesh = &self.layout.mesh;
        self.model.stream * self.layout.microbatch as f64 / (mesh.context * mesh.tensor) as f64
    }

    /// Bytes that a microbatch keeps, by stage and chunk.
    ///
    /// # Errors
    /// If the dtype does not exist.
    pub fn kept_bytes(&self, choices: &[Choice]) -> Result<Vec<Vec<f64>>> {
        let stages = self.stages(choices)?;
        Ok(stages
            .iter()
            .map(|stage| stage.chunks.iter().map(|chunk| chunk.kept).collect())
            .collect())
    }

    /// The fast prediction: near [`Step::run`], without the events.
    ///
    /// # Errors
    /// If the dtype or the schedule does not exist.
    pub fn estimate(&self, choices: &[Choice]) -> Result<Prediction> {
        let stages = self.stages(choices)?;
        let pipeline = self.pipeline(&stages);
        let (seconds, bubble) = self.turns(&pipeline, pipeline.estimate(self.layout.schedule));
        let kept: Vec<f64> = (0..stages.len()).map(|at| self.kept(&stages[at], at)).collect();
        let hidden = self.hidden_time(&stages);
        Ok(self.prediction(&stages, seconds, bubble, &kept, &hidden))
    }

    /// Bytes that layers and ends of a stage keep at most, under the 1F1B order.
    fn kept(&self, stage: &Stage, at: usize) -> f64 {
        let each: f64 = stage.chunks.iter().map(|chunk| chunk.kept).sum::<f64>();
        let working = stage.chunks.iter().map(|chunk| chunk.working).fold(0.0, f64::max);
        each * self.in_flight(at) / self.layout.interleave as f64 + working
    }

    /// Microbatches, in chunks, that a stage keeps at most.
    pub fn in_flight(&self, stage: usize) -> f64 {
        let (depth, chunks) = (self.layout.mesh.pipeline, self.layout.interleave);
        let all = self.microbatches() * chunks;
        let behind = depth - stage - 1;
        let most = match self.layout.schedule {
            Schedule::GPipe => all,
            Schedule::ZeroBubble => depth,
            Schedule::OneForwardOneBackward if chunks == 1 => behind + 1,
            Schedule::OneForwardOneBackward => 2 * behind + (chunks - 1) * depth + 1,
        };
        most.min(all) as f64
    }

    /// For each stage, the seconds of work of the last microbatch behind the first gradients.
    fn hidden_time(&self, stages: &[Stage]) -> Vec<f64> {
        let chunks = self.layout.interleave as f64;
        let one = |stage: &Stage| {
            let work: f64 = stage.chunks.iter().map(|c| c.backward + c.gradient + c.again).sum();
            // Layers of a chunk are reduced one by one.
            let pieces =
                self.chunks.iter().sum::<usize>() as f64 / self.layout.mesh.pipeline as f64;
            work * (1.0 - 1.0 / pieces.max(chunks))
        };
        stages.iter().map(one).collect()
    }

    /// The prediction event by event, and the pipeline's run.
    ///
    /// # Errors
    /// If the dtype or the schedule does not exist.
    pub fn run(&self, choices: &[Choice]) -> Result<(Prediction, Run)> {
        let stages = self.stages(choices)?;
        let pipeline = self.pipeline(&stages);
        let table = Table::new(self.layout.schedule, &pipeline)?;
        let run = run(&pipeline, &table)?;
        let hidden = self.hidden_time(&stages);
        let (end, bubble) = self.turns(&pipeline, run.end);
        Ok((self.prediction(&stages, end, bubble, &run.kept, &hidden), run))
    }

    fn prediction(
        &self,
        stages: &[Stage],
        pipeline: f64,
        bubble: f64,
        kept: &[f64],
        hidden: &[f64],
    ) -> Prediction {
        let microbatches = self.microbatches() as f64;
        let data =
            stages.iter().zip(hidden).map(|(stage, &hidden)| self.reduction(stage.held(), hidden));
        let data = data.fold(0.0, f64::max) + self.tied();
        let optimizer = stages.iter().map(|stage| self.update(stage.held())).fold(0.0, f64::max);
        let exposed = stages.iter().map(|s| s.chunks.iter().map(|c| c.exposed).sum::<f64>());
        let again = stages.iter().map(|s| s.chunks.iter().map(|c| c.again).sum::<f64>());
        let seconds = pipeline + data + optimizer;
        let devices = self.layout.mesh.devices() as f64;
        let flops = self.model.flops() * self.batch as f64 / (seconds * devices);
        let peak = self.cluster.peak(self.model.dtype).unwrap_or(f64::INFINITY);
        let memory = stages.iter().enumerate().map(|(at, stage)| self.memory(stage, kept[at], at));
        Prediction {
            seconds,
            pipeline,
            bubble,
            exposed: exposed.fold(0.0, f64::max) * microbatches,
            again: again.fold(0.0, f64::max) * microbatches,
            data,
            optimizer,
            flops,
            utilisation: flops / peak,
            memory: memory.collect(),
            sent: self.sent(&stages[0], microbatches),
        }
    }

    /// Elements of a stage's weights that are no expert's, and those of experts, with the devices
    /// that have the same.
    fn replicated(&self, held: Held) -> [(f64, Group); 2] {
        let mesh = &self.layout.mesh;
        let stride = mesh.tensor * mesh.context * mesh.expert;
        let apart = Group { size: mesh.data / mesh.expert, stride };
        [(held.all - held.experts, mesh.replicas()), (held.experts, apart)]
    }

    /// Seconds of reducing gradients and gathering weights after the pipeline, of which so many can
    /// be hidden.
    pub(crate) fn reduction(&self, held: Held, hidden: f64) -> f64 {
        let software = &self.cluster.software;
        let zero = self.layout.zero;
        let mut reduce = 0.0;
        let mut gather = 0.0;
        for (elements, group) in self.replicated(held) {
            let all = |kind, width: f64| self.cluster.collective(kind, elements * width, group);
            match zero {
                0 => reduce += all(Collective::AllReduce, software.gradient_bytes),
                1 => reduce += all(Collective::ReduceScatter, software.gradient_bytes),
                _ => {}
            }
            if zero == 1 || zero == 2 {
                gather += all(Collective::AllGather, software.weight_bytes);
            }
        }
        if software.overlaps_gradients {
            // The last gradients have nothing to hide behind, the first weights neither.
            let share =
                1.0 / (self.model.depth() as f64 / self.layout.mesh.pipeline as f64).max(1.0);
            (reduce * share).max(reduce - hidden) + (gather * share).max(gather - hidden)
        } else {
            reduce + gather
        }
    }

    /// Seconds of adding up the gradients of weights that the first and the last stage share.
    fn tied(&self) -> f64 {
        let mesh = &self.layout.mesh;
        if mesh.pipeline < 2 || self.model.shared <= 0.0 {
            return 0.0;
        }
        let bytes = self.model.shared / mesh.tensor as f64 * self.cluster.software.gradient_bytes;
        let stride = mesh.group(Axis::Pipeline).stride * (mesh.pipeline - 1);
        self.cluster.collective(Collective::AllReduce, bytes, Group { size: 2, stride })
    }

    /// Seconds of the optimiser: gradients are read for their norm, scaled, read again and cleared,
    /// the state is read and written, weights are written.
    pub(crate) fn update(&self, held: Held) -> f64 {
        let software = &self.cluster.software;
        let share = |group: Group| if self.layout.zero >= 1 { group.size as f64 } else { 1.0 };
        let elements: f64 = self
            .replicated(held)
            .into_iter()
            .map(|(elements, group)| elements / share(group))
            .sum();
        let each =
            2.0 * software.optimizer_bytes + 4.0 * software.gradient_bytes + software.weight_bytes;
        let bytes = elements * each + held.all * software.gradient_bytes;
        bytes / (self.cluster.accelerator.bandwidth * self.cluster.calibration.memory)
    }

    /// Bytes of weights, gradients and optimiser.
    pub(crate) fn state(&self, held: Held) -> Memory {
        let software = &self.cluster.software;
        let zero = self.layout.zero;
        let mut memory = Memory::default();
        for (elements, group) in self.replicated(held) {
            let divided = |from: usize| if zero >= from { group.size as f64 } else { 1.0 };
            memory.weights += elements * software.weight_bytes / divided(3);
            memory.gradients += elements * software.gradient_bytes / divided(2);
            memory.optimizer += elements * software.optimizer_bytes / divided(1);
        }
        memory
    }

    /// Bytes of what goes from layer to layer, forward and backward.
    pub(crate) fn stream(&self) -> f64 {
        2.0 * self.model.stream * self.layout.microbatch as f64 / self.layout.mesh.context as f64
    }

    fn memory(&self, stage: &Stage, kept: f64, at: usize) -> Memory {
        let mut memory = self.state(stage.held());
        if self.layout.zero < 3 && stage.sharded > 0.0 {
            let size = self.layout.mesh.replicas().size as f64;
            memory.weights -=
                stage.sharded * self.cluster.software.weight_bytes * (1.0 - 1.0 / size);
        }
        let ends = Held { all: stage.ends.weights, experts: stage.ends.experts };
        let ends = self.state(ends);
        memory.ends = ends.weights + ends.gradients + ends.optimizer;
        let working = stage.chunks.iter().map(|chunk| chunk.working).fold(0.0, f64::max);
        let layers: f64 = stage.layers_kept.iter().sum();
        memory.activations = layers * self.in_flight(at) / self.layout.interleave as f64;
        memory.activations = memory.activations.min(kept);
        memory.end_activations = (kept - working - memory.activations).max(0.0);
        memory.working = working + self.stream();
        memory
    }

    /// Bytes of the embedding or the head, if they are on this stage, and of the stream.
    pub(crate) fn ends_bytes(&self, stage: usize) -> Result<f64> {
        let mut bytes = self.stream();
        let last = self.layout.mesh.pipeline - 1;
        let kept = self.in_flight(stage) / self.layout.interleave as f64;
        for (at, part) in [(0, &self.model.embedding), (last, &self.model.head)] {
            if at == stage {
                let cost = self.end(part)?;
                let state = self.state(Held { all: cost.weights, experts: cost.experts });
                bytes += state.weights + state.gradients + state.optimizer + cost.kept * kept;
            }
        }
        Ok(bytes)
    }

    fn sent(&self, stage: &Stage, microbatches: f64) -> [f64; 5] {
        let mut sent = [0.0; 5];
        for chunk in &stage.chunks {
            sent.iter_mut().zip(chunk.sent).for_each(|(sent, more)| *sent += more * microbatches);
        }
        let mesh = &self.layout.mesh;
        if mesh.pipeline > 1 {
            sent[4] += self.boundary() * microbatches * self.layout.interleave as f64;
        }
        let software = &self.cluster.software;
        for (elements, group) in self.replicated(stage.held()) {
            let share = (group.size.max(1) - 1) as f64 / group.size.max(1) as f64;
            let width = match self.layout.zero {
                0 => 2.0 * software.gradient_bytes,
                1 => software.gradient_bytes + software.weight_bytes,
                2 => software.gradient_bytes * microbatches + software.weight_bytes,
                _ => (software.gradient_bytes + 2.0 * software.weight_bytes) * microbatches,
            };
            sent[2] += elements * share * width;
        }
        sent
    }
}

/// Refuses layouts that do not fit, by name.
pub(crate) fn check(model: &Model, layout: &Layout, batch: usize) -> Result<()> {
    let mesh = &layout.mesh;
    for axis in Axis::ALL {
        if mesh.size(axis) == 0 {
            return Err(Error::new(format!("the axis `{}` has no devices", axis.name()))
                .help("give it at least 1"));
        }
    }
    let refuse = |what: String, help: String| Err(Error::new(what).help(help));
    let divides = |n: usize, of: usize| n > 0 && of.is_multiple_of(n);
    if !divides(mesh.tensor, model.heads) {
        let (tensor, heads) = (mesh.tensor, model.heads);
        return refuse(
            format!("tensor={tensor} does not divide the {heads} heads of attention"),
            "choose a divisor".to_owned(),
        );
    }
    if !divides(mesh.context, model.sequence) {
        let (context, sequence) = (mesh.context, model.sequence);
        return refuse(
            format!("context={context} does not divide sequences of {sequence} positions"),
            "choose a divisor".to_owned(),
        );
    }
    if !divides(mesh.expert, mesh.data) || !divides(mesh.expert, model.experts) {
        let (expert, data, experts) = (mesh.expert, mesh.data, model.experts);
        return refuse(
            format!("expert={expert} does not divide data={data} and the {experts} experts"),
            "choose a divisor of both".to_owned(),
        );
    }
    if layout.microbatch == 0 || layout.interleave == 0 {
        return refuse(
            "microbatch and interleave are at least 1".to_owned(),
            "raise them".to_owned(),
        );
    }
    let each = mesh.data * layout.microbatch;
    if batch == 0 || !batch.is_multiple_of(each) {
        let (data, rows) = (mesh.data, layout.microbatch);
        return refuse(
            format!(
                "data={data} replicas with microbatches of {rows} do not divide a batch of {batch}"
            ),
            format!("make the batch a multiple of {each}"),
        );
    }
    let chunks = mesh.pipeline * layout.interleave;
    if chunks > model.depth() {
        let (stages, interleave, layers) = (mesh.pipeline, layout.interleave, model.depth());
        return refuse(
            format!(
                "{layers} layers are too few for pipeline={stages} with {interleave} chunks each"
            ),
            "make pipeline or interleave smaller".to_owned(),
        );
    }
    if layout.zero > 3 {
        return refuse(format!("there is no ZeRO level {}", layout.zero), "give 0 to 3".to_owned());
    }
    Ok(())
}
