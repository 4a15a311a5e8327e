//! From the program of a loss to the layers of its training step.
//!
//! The program is differentiated and simplified as for any device. Functions that are called again
//! and again are the layers; what is before them is the embedding, what is behind them the head.
//!
//! | file | what |
//! |---|---|
//! | `device` | a device that only plans |
//! | `cut` | how a cut over the tensor axis goes through a function |
//! | `kernels` | products, and everything between them in one pass over memory |

mod cut;
mod device;
mod kernels;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ferrata_ir::{DType, Error, Function, Node, Primitive, Result, Value, transform};

use crate::hardware::Software;
use crate::model::{Cut, Kept, Layers, Loop, Model, Part, Weights, Work};
use cut::{Cuts, Tag};
use device::Planned;
use kernels::{Kernels, Widths};

/// The loss of a microbatch, as a program.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Weights, then data and keys of random numbers, to the loss.
    pub program: Arc<Function>,
    /// The paths of the weights, which are the first parameters.
    pub weights: Vec<String>,
    /// Sequences of the microbatch. With one alone, dimensions of size 1 hide how the others go
    /// through reshapes.
    pub rows: usize,
    /// Positions of a sequence.
    pub sequence: usize,
    /// Dtype of matrix products.
    pub dtype: DType,
}

impl Loss {
    /// Changes with everything that a plan depends on.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(&self.program.to_string())
    }
}

/// A training step that minimises `loss`, as layers.
///
/// # Errors
/// If the loss has no gradient, or no layer is repeated.
pub fn describe(loss: &Loss, software: &Software) -> Result<Model> {
    let program = &loss.program;
    let types = program.parameter_types();
    let marks: Vec<bool> = (0..types.len()).map(|i| i < loss.weights.len()).collect();
    let step = Arc::new(transform::value_and_grad(program, &marks)?);
    let device = Planned { claims: &software.claims };
    let donated = vec![false; types.len()];
    let trace = ferrata_compiler::trace(&step, &donated, &device)?;
    let (_, main) = trace.programs.last().ok_or("no program")?;
    let widths = Widths {
        rows: loss.rows as f64,
        compute: loss.dtype.size() as f64,
        narrow: software.keeps_narrow,
        masks: software.keeps_masks,
    };
    let main = Main::new(main, loss, widths)?;
    main.model(loss.fingerprint())
}

/// Where a layer is called, forward and backward.
struct Calls {
    forward: usize,
    backward: usize,
}

/// The differentiated program.
struct Main<'a> {
    function: &'a Arc<Function>,
    loss: &'a Loss,
    widths: Widths,
    /// The calls of each layer, in order of the forward pass.
    calls: Vec<Calls>,
}

/// Parts of the main function around the layers.
const EMBEDDING: usize = 0;
const HEAD: usize = 1;
const HEAD_BACKWARD: usize = 2;
const EMBEDDING_BACKWARD: usize = 3;
const LAYER: usize = 4;

fn callee(node: &Node) -> Option<&Arc<Function>> {
    match &node.op {
        Primitive::Call(call) if call.function.composite.is_none() => Some(&call.function),
        _ => None,
    }
}

impl<'a> Main<'a> {
    fn new(function: &'a Arc<Function>, loss: &'a Loss, widths: Widths) -> Result<Self> {
        let nodes = function.nodes();
        let mut makers: BTreeMap<Value, usize> = BTreeMap::new();
        let mut calls: Vec<Calls> = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            makers.extend(node.outputs.iter().map(|&v| (v, at)));
            if callee(node).is_none() {
                continue;
            }
            // A backward call takes what its own forward call, and no other, keeps for it.
            let used = node.inputs.iter().filter_map(|v| makers.get(v)).copied();
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            used.filter(|&m| callee(&nodes[m]).is_some())
                .for_each(|m| *counts.entry(m).or_default() += 1);
            let most = counts.into_iter().max_by_key(|&(_, count)| count);
            if let Some((forward, count)) = most
                && count > 1
                && calls.iter().all(|c| c.forward != forward)
            {
                calls.push(Calls { forward, backward: at });
            }
        }
        if calls.is_empty() {
            return Err(Error::new("the program has no repeated layers to lay out over devices")
                .help("make the model of at least two equal blocks in nn::Repeat"));
        }
        calls.sort_by_key(|c| c.forward);
        Ok(Main { function, loss, widths, calls })
    }

    fn model(&self, fingerprint: String) -> Result<Model> {
        let (tags, sources) = self.parameters();
        let weights = self.loss.weights.len();
        let cuts = Cuts::new(self.function, &tags, &sources, weights);
        let segments = self.segments();
        let mut layers: Vec<(Layers, &Arc<Function>)> = Vec::new();
        let mut in_layers: HashSet<usize> = HashSet::new();
        for calls in &self.calls {
            let node = &self.function.nodes()[calls.forward];
            in_layers.extend(node.inputs.iter().filter_map(|&v| self.weight(v)));
            let Some(forward) = callee(node) else { continue };
            match layers.last_mut() {
                Some((last, known)) if Arc::ptr_eq(known, forward) => last.count += 1,
                _ => {
                    let part = self.layer(calls, &cuts)?;
                    layers.push((Layers { count: 1, part }, forward));
                }
            }
        }
        let layers: Vec<Layers> = layers.into_iter().map(|(layers, _)| layers).collect();
        let (embedding, head, shared) = self.ends(&cuts, &segments, &in_layers);
        let first = &self.function.nodes()[self.calls[0].forward];
        let stream = first.outputs[0];
        let size = |part: &Part| heads(part).unwrap_or(usize::MAX);
        let heads = layers.iter().map(|l| size(&l.part)).min().unwrap_or(1).max(1);
        Ok(Model {
            fingerprint,
            sequence: self.loss.sequence,
            dtype: self.loss.dtype,
            stream: self.widths.bytes(self.function.ty(stream)),
            keys: layers.iter().map(|l| keys(&l.part, self.widths.compute)).fold(0.0, f64::max),
            embedding,
            layers,
            head,
            shared,
            heads,
            experts: 1,
        })
    }

    /// How the parameters of the main function lie, and which weights they are.
    fn parameters(&self) -> (Vec<Tag>, Vec<Vec<usize>>) {
        let weights = self.loss.weights.len();
        let types = self.function.parameter_types().into_iter().enumerate();
        let one = |(i, ty): (usize, &ferrata_ir::Type)| match i < weights {
            true => (Tag::Free, vec![i]),
            false if !ty.dtype.is_float() => (Tag::Free, Vec::new()),
            false => (Tag::Whole, Vec::new()),
        };
        types.map(one).unzip()
    }

    fn weight(&self, value: Value) -> Option<usize> {
        let position = self.function.parameters().iter().position(|&p| p == value)?;
        (position < self.loss.weights.len()).then_some(position)
    }

    /// For each node of the main function, the part that it belongs to.
    fn segments(&self) -> Vec<usize> {
        let nodes = self.function.nodes();
        let mut behind = vec![[false; 2]; self.function.value_count()];
        let mut reach = vec![[false; 2]; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            let mut found = [false; 2];
            for v in &node.inputs {
                let from = behind[v.index()];
                found = [found[0] || from[0], found[1] || from[1]];
            }
            found[0] |= self.calls.iter().any(|c| c.forward == at);
            found[1] |= self.calls.iter().any(|c| c.backward == at);
            reach[at] = found;
            node.outputs.iter().for_each(|v| behind[v.index()] = found);
        }
        let mut wanted: HashSet<Value> =
            self.function.results().first().copied().into_iter().collect();
        let mut ahead = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate().rev() {
            ahead[at] = node.outputs.iter().any(|v| wanted.contains(v));
            if ahead[at] {
                wanted.extend(&node.inputs);
            }
        }
        let segment = |at: usize| match (reach[at], ahead[at]) {
            _ if callee(&nodes[at]).is_some() => LAYER,
            ([_, true], _) => EMBEDDING_BACKWARD,
            ([true, _], true) => HEAD,
            ([true, _], false) => HEAD_BACKWARD,
            ([false, _], _) => EMBEDDING,
        };
        (0..nodes.len()).map(segment).collect()
    }

    /// Embedding, head, and the elements of weights that both have.
    fn ends(
        &self,
        cuts: &Cuts,
        segments: &[usize],
        in_layers: &HashSet<usize>,
    ) -> (Part, Part, f64) {
        let kernels = Kernels::new(cuts, self.widths, segments);
        let (mut embedding, mut head) = (Part::default(), Part::default());
        for kernel in kernels.all() {
            let part = match segments[kernel.nodes[0]] {
                EMBEDDING => &mut embedding.forward,
                HEAD => &mut head.forward,
                HEAD_BACKWARD => &mut head.backward,
                EMBEDDING_BACKWARD => &mut embedding.backward,
                _ => continue,
            };
            part.extend(kernel.operations);
        }
        let nodes = self.function.nodes();
        for (part, own) in [(&mut embedding, EMBEDDING), (&mut head, HEAD)] {
            let later = [HEAD_BACKWARD, EMBEDDING_BACKWARD];
            let readers = (0..nodes.len()).filter(|&at| later.contains(&segments[at]));
            let values = readers.flat_map(|at| &nodes[at].inputs).map(|&v| kernels.root(v));
            let made = |v: &Value| kernels.maker(*v).is_some_and(|at| segments[at] == own);
            let mut seen = HashSet::new();
            for value in values.filter(|v| !cuts.free(*v) && made(v)) {
                if seen.insert(value) && !self.is_stream(value) {
                    part.kept.push(self.kept(cuts, value, String::new()));
                }
            }
            if self.widths.masks {
                part.kept.extend((0..nodes.len()).filter(|&at| segments[at] == own).filter_map(
                    |at| {
                        kernels
                            .mask(at)
                            .map(|mask| kept_mask(mask, nodes[at].origin.scope.to_string()))
                    },
                ));
            }
        }
        let mut shared = 0.0;
        for (i, name) in
            self.loss.weights.iter().enumerate().filter(|(i, _)| !in_layers.contains(i))
        {
            let elements = self.function.ty(self.function.parameters()[i]).elements() as f64;
            let cut = if cuts.cut[i] { Cut::Tensor } else { Cut::Whole };
            let value = self.function.parameters()[i];
            let used = |segment: usize| {
                (0..nodes.len())
                    .any(|at| segments[at] == segment && nodes[at].inputs.contains(&value))
            };
            let (first, last) = (used(EMBEDDING), used(HEAD));
            let weights = Weights { name: name.clone(), elements, cut };
            if first && last {
                shared += elements;
            }
            if last {
                head.weights.push(weights.clone());
            }
            if first || !last {
                embedding.weights.push(weights);
            }
        }
        (embedding, head, shared)
    }

    /// Whether a value of the main function goes from layer to layer.
    fn is_stream(&self, value: Value) -> bool {
        self.calls.iter().any(|c| self.function.nodes()[c.forward].inputs.contains(&value))
    }

    fn kept(&self, cuts: &Cuts, value: Value, name: String) -> Kept {
        let ty = cuts.function.ty(value);
        let cut = match cuts.tag(value) {
            Tag::Cut(_) => Cut::Tensor,
            Tag::Whole | Tag::Partial => Cut::Sequence,
            Tag::Free => Cut::Whole,
        };
        let positions = ty.shape.iter().filter(|&&size| size == self.loss.sequence).count();
        Kept { name, bytes: self.widths.bytes(ty), cut, quadratic: positions > 1 }
    }

    /// One layer.
    fn layer(&self, calls: &Calls, main: &Cuts) -> Result<Part> {
        let nodes = self.function.nodes();
        let (there, here) = (&nodes[calls.forward], &nodes[calls.backward]);
        let (Some(forward), Some(backward)) = (callee(there), callee(here)) else {
            return Err(Error::new("a layer is no function"));
        };
        let weights = self.loss.weights.len();
        let tag = |v: Value| if main.free(v) { Tag::Free } else { Tag::Whole };
        let tags: Vec<Tag> = there.inputs.iter().map(|&v| tag(v)).collect();
        let sources = |node: &Node| -> Vec<Vec<usize>> {
            node.inputs.iter().map(|&v| main.sources[v.index()].clone()).collect()
        };
        let cuts = Cuts::new(forward, &tags, &sources(there), weights);
        let kernels = Kernels::new(&cuts, self.widths, &vec![0; forward.nodes().len()]);
        // What the backward function gets: results and operands of the forward one, or cotangents.
        let same = |v: Value| -> Option<Value> {
            let result = there.outputs.iter().position(|&o| o == v).map(|r| forward.results()[r]);
            let operand =
                || there.inputs.iter().position(|&i| i == v).map(|i| forward.parameters()[i]);
            result.or_else(operand)
        };
        let behind: Vec<Option<Value>> = here.inputs.iter().map(|&v| same(v)).collect();
        let tags: Vec<Tag> = behind.iter().map(|v| v.map_or(Tag::Whole, |v| cuts.tag(v))).collect();
        let mut sources = sources(here);
        for (source, value) in sources.iter_mut().zip(&behind) {
            source.extend(value.iter().flat_map(|v| &cuts.sources[v.index()]));
        }
        let back = Cuts::new(backward, &tags, &sources, weights);
        let back_kernels = Kernels::new(&back, self.widths, &vec![0; backward.nodes().len()]);

        let mut part = Part::default();
        let mut seen = HashSet::new();
        let keep = behind.iter().flatten().filter(|v| !cuts.free(**v));
        let roots: Vec<Value> =
            keep.map(|&v| kernels.root(v)).filter(|&v| seen.insert(v)).collect();
        for &root in &roots {
            let maker = kernels.maker(root);
            let name = maker.map(|at| forward.nodes()[at].origin.scope.to_string());
            part.kept.push(self.kept(&cuts, root, name.unwrap_or_else(|| "input".to_owned())));
        }
        if self.widths.masks {
            let all = forward.nodes().iter().enumerate();
            part.kept.extend(all.filter_map(|(at, node)| {
                kernels.mask(at).map(|mask| {
                    let mut kept = kept_mask(mask, node.origin.scope.to_string());
                    let positions = &forward.ty(node.outputs[0]).shape;
                    kept.quadratic =
                        positions.iter().filter(|&&size| size == self.loss.sequence).count() > 1;
                    kept
                })
            }));
        }
        let again = again(forward, &kernels, &roots, &part.kept);
        for mut kernel in kernels.all() {
            if kernel.nodes.iter().any(|at| again.contains(at)) {
                kernel.operations.iter_mut().for_each(|operation| operation.again = true);
            }
            part.forward.extend(kernel.operations);
        }
        part.backward = back_kernels.all().into_iter().flat_map(|k| k.operations).collect();
        for (i, source) in there.inputs.iter().enumerate() {
            let Some(weight) = self.weight(*source) else { continue };
            let elements = forward.ty(forward.parameters()[i]).elements() as f64;
            let cut = if cuts.cut[weight] { Cut::Tensor } else { Cut::Whole };
            let name = self.loss.weights[weight].clone();
            part.weights.push(Weights { name, elements, cut });
        }
        Ok(part)
    }
}

fn kept_mask((elements, tag): (f64, Tag), name: String) -> Kept {
    let cut = if matches!(tag, Tag::Cut(_)) { Cut::Tensor } else { Cut::Sequence };
    Kept { name, bytes: elements, cut, quadratic: false }
}

/// The nodes that run again if the values in `roots` that grow with the square of the sequence are
/// not kept.
fn again(function: &Function, kernels: &Kernels, roots: &[Value], kept: &[Kept]) -> HashSet<usize> {
    let quadratic = |&(_, kept): &(&Value, &Kept)| kept.quadratic;
    let (gone, stay): (Vec<_>, Vec<_>) = roots.iter().zip(kept).partition(quadratic);
    let stay: HashSet<Value> = stay.into_iter().map(|(&v, _)| v).collect();
    let mut wanted: Vec<Value> = gone.into_iter().map(|(&v, _)| v).collect();
    let mut nodes = HashSet::new();
    while let Some(value) = wanted.pop() {
        let root = kernels.root(value);
        let Some(at) = kernels.maker(root).filter(|_| !stay.contains(&root)) else { continue };
        if nodes.insert(at) {
            wanted.extend(&function.nodes()[at].inputs);
        }
    }
    nodes
}

/// Into how many pieces attention can be cut.
fn heads(part: &Part) -> Option<usize> {
    let heads = part.forward.iter().filter_map(|operation| match operation.work {
        Work::Product(p) if p.positions == Loop::Batch => Some(p.batch as usize),
        Work::Attention { heads, .. } => Some(heads),
        _ => None,
    });
    heads.min()
}

/// Bytes of keys and values: what the two products of attention do not share.
fn keys(part: &Part, width: f64) -> f64 {
    let bytes = part.forward.iter().filter_map(|operation| match operation.work {
        Work::Product(p) if p.positions == Loop::Batch => Some(2.0 * p.batch * p.n * p.k * width),
        Work::Attention { keys, .. } => Some(keys),
        _ => None,
    });
    bytes.fold(0.0, f64::max)
}
