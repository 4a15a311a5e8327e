//! Time and memory of a layer under a layout, for one microbatch on one device.

use ferrata_ir::Result;

use crate::hardware::Cluster;
use crate::layout::{Axis, Layout, Recompute};
use crate::model::{Cut, Exchange, Loop, Model, Operation, Part, Product, Work};
use crate::network::Collective;

/// What costs are computed for.
#[derive(Clone, Copy, Debug)]
pub struct Pricing<'a> {
    cluster: &'a Cluster,
    layout: Layout,
    /// Operations per second.
    peak: f64,
    /// Bytes of an element of a product's operands.
    width: f64,
    /// Bytes of keys and values of a layer and sequence.
    keys: f64,
}

/// Seconds of one microbatch in one part of a model, and bytes on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Forward pass, communication included.
    pub forward: f64,
    /// Backward pass without gradients of weights.
    pub backward: f64,
    /// Gradients of weights.
    pub gradient: f64,
    /// What is computed again, which is no part of `backward`.
    pub again: f64,
    /// Communication over the tensor and context axes that nothing hides.
    pub exposed: f64,
    /// Bytes sent over each axis, in the order of [`Axis::ALL`].
    pub sent: [f64; 5],
    /// Bytes kept for the backward pass of each microbatch.
    pub kept: f64,
    /// Bytes that the backward pass of one microbatch needs beside them.
    pub working: f64,
    /// Weights on the device: elements.
    pub weights: f64,
    /// Of those, elements that belong to experts.
    pub experts: f64,
}

impl Cost {
    /// Both costs together.
    pub fn plus(mut self, other: &Cost) -> Cost {
        self.forward += other.forward;
        self.backward += other.backward;
        self.gradient += other.gradient;
        self.again += other.again;
        self.exposed += other.exposed;
        self.sent.iter_mut().zip(other.sent).for_each(|(sent, more)| *sent += more);
        self.kept += other.kept;
        self.working = self.working.max(other.working);
        self.weights += other.weights;
        self.experts += other.experts;
        self
    }

    /// The cost of so many times as much, on average.
    pub fn times(mut self, by: f64) -> Cost {
        let amounts = [
            &mut self.forward,
            &mut self.backward,
            &mut self.gradient,
            &mut self.again,
            &mut self.exposed,
            &mut self.kept,
            &mut self.weights,
            &mut self.experts,
        ];
        amounts.into_iter().chain(&mut self.sent).for_each(|amount| *amount *= by);
        self
    }

    /// Seconds of a forward and a backward pass.
    pub fn total(&self) -> f64 {
        self.forward + self.backward + self.gradient + self.again
    }
}

/// Seconds of a list of operations.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    /// Products, kernels and communication, but for gradients of weights.
    busy: f64,
    gradient: f64,
    /// Communication that gradients of weights may hide.
    hideable: f64,
    /// Other communication; part of `busy`.
    exposed: f64,
    sent: [f64; 5],
}

/// Attention in one kernel is as fast as products whose smallest dimension is so many heads wide:
/// queries stay on the chip while they meet keys and values.
const ATTENTION: f64 = 4.0;

impl<'a> Pricing<'a> {
    /// Costs of `model` on `cluster` under `layout`.
    ///
    /// # Errors
    /// If the accelerator has no rate for the dtype of the model.
    pub fn new(cluster: &'a Cluster, model: &Model, layout: Layout) -> Result<Self> {
        let peak = cluster.peak(model.dtype)?;
        let width = model.dtype.size() as f64;
        Ok(Pricing { cluster, layout, peak, width, keys: model.keys })
    }

    fn tensor(&self) -> f64 {
        self.layout.mesh.tensor as f64
    }

    /// Sequences of a microbatch, as far as this device works on their positions.
    fn rows(&self) -> f64 {
        self.layout.microbatch as f64 / self.layout.mesh.context as f64
    }

    fn parts(&self, cut: Cut) -> f64 {
        match cut {
            Cut::Whole => 1.0,
            Cut::Sequence if self.layout.sequence_parallel => self.tensor(),
            Cut::Sequence => 1.0,
            Cut::Tensor => self.tensor(),
            Cut::Expert => self.tensor() * self.layout.mesh.expert as f64,
        }
    }

    /// What one part of a model costs.
    pub fn part(&self, part: &Part, recompute: Recompute) -> Cost {
        let forward = self.time(part.forward.iter());
        let mut backward = self.time(part.backward.iter());
        let again = match recompute {
            Recompute::None => Time::default(),
            Recompute::Selective => self.time(part.forward.iter().filter(|o| o.again)),
            Recompute::Full => self.time(part.forward.iter()),
        };
        let weights = part.weights.iter().map(|w| w.elements / self.parts(w.cut)).sum();
        let experts = part.weights.iter().filter(|w| w.cut == Cut::Expert);
        let experts = experts.map(|w| w.elements / self.parts(w.cut)).sum();
        // Each microbatch adds to the sum of gradients.
        let summed = 2.0 * self.cluster.software.gradient_bytes * weights;
        backward.gradient += self.memory_time(summed);
        let hidden = self.cluster.calibration.hidden * backward.hideable.min(backward.gradient);
        let waits = backward.hideable - hidden;
        let mut sent = forward.sent;
        for more in [backward.sent, again.sent] {
            sent.iter_mut().zip(more).for_each(|(sent, more)| *sent += more);
        }
        let all: f64 = part.kept.iter().map(|k| self.kept(k.bytes, k.cut)).sum();
        let quadratic: f64 =
            part.kept.iter().filter(|k| k.quadratic).map(|k| self.kept(k.bytes, k.cut)).sum();
        let input = part.kept.first().map_or(0.0, |k| self.kept(k.bytes, k.cut));
        let (kept, working) = match recompute {
            Recompute::None => (all, 0.0),
            Recompute::Selective => (all - quadratic, quadratic),
            Recompute::Full => (input, all - input),
        };
        Cost {
            // What could be hidden in the forward pass has nothing to hide behind.
            forward: forward.busy + forward.gradient + forward.hideable,
            backward: backward.busy + waits,
            gradient: backward.gradient,
            again: again.busy + again.gradient + again.hideable,
            exposed: forward.exposed
                + forward.hideable
                + backward.exposed
                + waits
                + again.exposed
                + again.hideable,
            sent,
            kept,
            working,
            weights,
            experts,
        }
    }

    fn kept(&self, bytes: f64, cut: Cut) -> f64 {
        bytes * self.rows() / self.parts(cut)
    }

    /// Seconds in which memory moves so many bytes.
    pub fn memory_time(&self, bytes: f64) -> f64 {
        bytes / (self.cluster.accelerator.bandwidth * self.cluster.calibration.memory)
    }

    fn time<'b>(&self, operations: impl Iterator<Item = &'b Operation>) -> Time {
        let mut time = Time::default();
        for operation in operations {
            match operation.work {
                Work::Product(product) if product.gradient => {
                    time.gradient += self.product(product)
                }
                Work::Product(product) => time.busy += self.product(product),
                Work::Attention { flops, bytes, size, .. } => {
                    let share = self.rows() / self.tensor();
                    let compute = flops * share / self.rate(ATTENTION * size);
                    let work = compute.max(self.memory_time(bytes * share));
                    let (waits, sent) = self.ring(work);
                    time.busy += work + waits + self.cluster.calibration.launch;
                    time.exposed += waits;
                    time.sent[1] += sent;
                }
                Work::Move { cut, whole } => {
                    let bytes = cut / self.parts(Cut::Tensor) + whole / self.parts(Cut::Sequence);
                    time.busy +=
                        self.memory_time(bytes * self.rows()) + self.cluster.calibration.launch;
                }
                Work::Exchange { kind, bytes, hideable } => {
                    let (seconds, axis, sent) = self.exchange(kind, bytes * self.rows());
                    time.sent[axis] += sent;
                    if hideable {
                        time.hideable += seconds;
                    } else {
                        time.busy += seconds;
                        time.exposed += seconds;
                    }
                }
            }
        }
        time
    }

    /// Keys and values go round the context axis while attention works on those that are here.
    fn ring(&self, work: f64) -> (f64, f64) {
        let group = self.layout.mesh.group(Axis::Context);
        let bytes = self.keys * self.layout.microbatch as f64 / self.tensor();
        let time = self.cluster.collective(Collective::AllGather, bytes, group);
        let sent = bytes * (group.size - 1) as f64 / group.size as f64;
        ((time - work).max(0.0), sent)
    }

    fn exchange(&self, kind: Exchange, bytes: f64) -> (f64, usize, f64) {
        let mesh = &self.layout.mesh;
        let cut = self.layout.sequence_parallel;
        let (axis, collective) = match kind {
            Exchange::Reduce if cut => (Axis::Tensor, Collective::ReduceScatter),
            Exchange::Reduce => (Axis::Tensor, Collective::AllReduce),
            Exchange::Gather if cut => (Axis::Tensor, Collective::AllGather),
            Exchange::Gather => return (0.0, 0, 0.0),
            Exchange::Experts => (Axis::Expert, Collective::AllToAll),
        };
        let bytes = if kind == Exchange::Experts { bytes / self.tensor() } else { bytes };
        let group = mesh.group(axis);
        let share = (group.size - 1) as f64 / group.size as f64;
        let times = if collective == Collective::AllReduce { 2.0 } else { 1.0 };
        let at = Axis::ALL.iter().position(|&a| a == axis).unwrap_or_default();
        (self.cluster.collective(collective, bytes, group), at, bytes * share * times)
    }

    /// Operations per second of products whose smallest dimension is this long.
    fn rate(&self, smallest: f64) -> f64 {
        let calibration = &self.cluster.calibration;
        let half = calibration.half * self.peak / self.cluster.accelerator.bandwidth;
        self.peak * calibration.product / (1.0 + half / smallest)
    }

    fn product(&self, product: Product) -> f64 {
        let Product { mut batch, mut m, mut n, mut k, positions, cut, experts, .. } = product;
        let mut scale = |which: Loop, by: f64| match which {
            Loop::Batch => batch *= by,
            Loop::M => m *= by,
            Loop::N => n *= by,
            Loop::K => k *= by,
        };
        if positions == Loop::Batch {
            scale(Loop::Batch, self.layout.microbatch as f64);
            scale(Loop::M, 1.0 / self.layout.mesh.context as f64);
        } else {
            scale(positions, self.rows());
        }
        match cut {
            Some(cut) => scale(cut, 1.0 / self.tensor()),
            None => scale(positions, 1.0 / self.parts(Cut::Sequence)),
        }
        if experts {
            scale(Loop::Batch, 1.0 / self.layout.mesh.expert as f64);
            scale(positions, self.layout.mesh.expert as f64);
        }
        let smallest = m.min(n).min(k).max(1.0);
        let compute = 2.0 * batch * m * n * k / self.rate(smallest);
        let bytes = batch * (m * k + k * n + m * n) * self.width;
        compute.max(self.memory_time(bytes)) + self.cluster.calibration.launch
    }
}
