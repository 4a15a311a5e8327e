//! From the nodes of a function to kernels: products, attention, and everything between products
//! in one pass over memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ferrata_ir::composite::attention;
use ferrata_ir::primitive::Loops;
use ferrata_ir::{Node, Primitive, Type, Value};

use super::cut::{Cuts, Need, Tag, has};
use crate::model::{Exchange, Loop, Operation, Product, Work};

/// How many bytes values take.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    /// Sequences of the program, of which one counts.
    pub rows: f64,
    /// Bytes of an element of the dtype of products.
    pub compute: f64,
    /// Whether nothing lies in memory in a wider dtype.
    pub narrow: bool,
    /// Whether masks of random numbers are kept.
    pub masks: bool,
}

impl Widths {
    /// Bytes of a value in memory, for one sequence.
    pub fn bytes(self, ty: &Type) -> f64 {
        let size = ty.dtype.size() as f64;
        let size = if self.narrow && ty.dtype.is_float() { size.min(self.compute) } else { size };
        ty.elements() as f64 / self.rows * size
    }
}

/// A function taken apart into kernels.
pub(super) struct Kernels<'a> {
    pub cuts: &'a Cuts<'a>,
    widths: Widths,
    /// For each value, the one in memory that it is a view of.
    roots: Vec<Option<Value>>,
    /// For each value, the node that makes it.
    makers: Vec<Option<usize>>,
    /// For each node, the kernel that it is in.
    kernels: Vec<Option<usize>>,
}

/// One kernel: its nodes, and the operations that it is.
pub(super) struct Kernel {
    pub nodes: Vec<usize>,
    pub operations: Vec<Operation>,
}

fn is_view(node: &Node) -> bool {
    matches!(
        node.op,
        Primitive::Reshape(_)
            | Primitive::Transpose(_)
            | Primitive::Slice(_)
            | Primitive::Reverse(_)
            | Primitive::Broadcast(_)
            | Primitive::StopGradient(_)
            | Primitive::Barrier(_)
    )
}

fn is_heavy(node: &Node) -> bool {
    matches!(node.op, Primitive::Dot(_) | Primitive::Call(_))
}

impl<'a> Kernels<'a> {
    /// Joins nodes between products; those of different `segments` stay apart.
    pub fn new(cuts: &'a Cuts<'a>, widths: Widths, segments: &[usize]) -> Self {
        let function = cuts.function;
        let mut roots: Vec<Option<Value>> = vec![None; function.value_count()];
        let mut makers = vec![None; function.value_count()];
        for (at, node) in function.nodes().iter().enumerate() {
            for (i, output) in node.outputs.iter().enumerate() {
                makers[output.index()] = Some(at);
                if is_view(node) {
                    let input = node.inputs[i];
                    roots[output.index()] = Some(roots[input.index()].unwrap_or(input));
                }
            }
        }
        let mut kernels = Kernels { cuts, widths, roots, makers, kernels: Vec::new() };
        kernels.join(segments);
        kernels
    }

    /// The value in memory that `value` is a view of.
    pub fn root(&self, value: Value) -> Value {
        self.roots[value.index()].unwrap_or(value)
    }

    /// The node that makes a value.
    pub fn maker(&self, value: Value) -> Option<usize> {
        self.makers[value.index()]
    }

    fn nodes(&self) -> &'a [Node] {
        self.cuts.function.nodes()
    }

    fn idle(&self, node: &Node) -> bool {
        node.outputs.iter().all(|&v| self.cuts.free(v))
    }

    /// Neighbours with the same number of products before them share a kernel.
    fn join(&mut self, segments: &[usize]) {
        let nodes = self.nodes();
        let mut depth = vec![0usize; self.cuts.function.value_count()];
        let mut level = vec![0usize; nodes.len()];
        let mut kernel: Vec<Option<usize>> = vec![None; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            if self.idle(node) {
                continue;
            }
            level[at] = node.inputs.iter().map(|v| depth[v.index()]).max().unwrap_or_default();
            let heavy = is_heavy(node);
            node.outputs.iter().for_each(|v| depth[v.index()] = level[at] + usize::from(heavy));
            kernel[at] = Some(at);
            if heavy {
                continue;
            }
            for &input in &node.inputs {
                let Some(maker) = self.maker(input) else { continue };
                let alike = !is_heavy(&nodes[maker])
                    && level[maker] == level[at]
                    && segments[maker] == segments[at];
                let (Some(other), Some(own), true) = (kernel[maker], kernel[at], alike) else {
                    continue;
                };
                if other != own {
                    let both = Some(other.min(own));
                    let joined = [Some(other), Some(own)];
                    kernel[..=at].iter_mut().filter(|k| joined.contains(k)).for_each(|k| *k = both);
                }
            }
        }
        self.kernels = kernel;
    }

    /// All kernels in order of their first nodes.
    pub fn all(&self) -> Vec<Kernel> {
        let mut nodes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, kernel) in self.kernels.iter().enumerate() {
            if let Some(kernel) = kernel {
                nodes.entry(*kernel).or_default().push(at);
            }
        }
        let mut gathered = HashSet::new();
        nodes.into_values().map(|nodes| self.kernel(nodes, &mut gathered)).collect()
    }

    fn kernel(&self, nodes: Vec<usize>, gathered: &mut HashSet<Value>) -> Kernel {
        let mut operations = Vec::new();
        for &at in &nodes {
            for &need in &self.cuts.needs[at] {
                operations.extend(self.exchange(at, need, gathered));
            }
        }
        let first = &self.nodes()[nodes[0]];
        let work = match &first.op {
            Primitive::Dot(_) => self.product(nodes[0]).map(Work::Product),
            Primitive::Call(call) if call.function.composite.is_none() => None,
            Primitive::Call(_) => Some(self.composite(first)),
            _ => self.moved(&nodes),
        };
        let name = first.origin.scope.to_string();
        operations.extend(work.map(|work| Operation { name, work, again: false }));
        Kernel { nodes, operations }
    }

    fn exchange(&self, at: usize, need: Need, gathered: &mut HashSet<Value>) -> Option<Operation> {
        let (kind, value) = match need {
            Need::Sum(value) => (Exchange::Reduce, value),
            Need::Gather(value) => (Exchange::Gather, value),
        };
        let root = self.root(value);
        if kind == Exchange::Gather && !gathered.insert(root) {
            return None;
        }
        // A value that was kept can be gathered ahead of its use.
        let kept = self.maker(root).is_none();
        let hideable = kind == Exchange::Reduce || kept;
        let bytes = self.widths.bytes(self.cuts.function.ty(value));
        let name = self.nodes()[at].origin.scope.to_string();
        Some(Operation { name, work: Work::Exchange { kind, bytes, hideable }, again: false })
    }

    fn product(&self, at: usize) -> Option<Product> {
        let node = &self.nodes()[at];
        let types: Vec<&Type> = node.inputs.iter().map(|&v| self.cuts.function.ty(v)).collect();
        let loops = node.op.rules().loops(&types)?;
        let factors = || loops.factors.iter().enumerate();
        let size = |which: Loop| -> f64 {
            factors()
                .filter(|(f, _)| kind(&loops, *f) == which)
                .map(|(_, f)| f.size as f64)
                .product()
        };
        let [left, right] = [0, 1].map(|i| self.cuts.free(node.inputs[i]));
        let batched = factors().any(|(f, _)| kind(&loops, f) == Loop::Batch);
        let gradient = !left && !right && !batched;
        let positions = match (gradient, left, right) {
            (true, _, _) => Loop::K,
            (_, true, _) => Loop::N,
            (_, _, true) => Loop::M,
            _ => Loop::Batch,
        };
        let cut = self.cuts.factors[at].map(|f| kind(&loops, f));
        let one = |which: Loop| {
            if which == positions { size(which) / self.widths.rows } else { size(which) }
        };
        let [batch, m, n, k] = [Loop::Batch, Loop::M, Loop::N, Loop::K].map(one);
        Some(Product { batch, m, n, k, positions, cut, experts: false, gradient })
    }

    fn composite(&self, node: &Node) -> Work {
        let types = |values: &[Value]| -> Vec<&'a Type> {
            values.iter().map(|&v| self.cuts.function.ty(v)).collect()
        };
        let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
        let bytes = inputs.iter().chain(&outputs).map(|ty| self.widths.bytes(ty)).sum();
        let shapes: Vec<&[usize]> = inputs.iter().map(|ty| &ty.shape[..]).collect();
        let Primitive::Call(call) = &node.op else { return Work::Move { cut: 0.0, whole: bytes } };
        let composite = call.function.composite.as_ref();
        match composite.and_then(|composite| attention::flops(composite, &shapes)) {
            Some(flops) => {
                let keys = inputs[1..3].iter().map(|ty| self.widths.bytes(ty)).sum();
                let (heads, size) = (shapes[0][1], shapes[0][3] as f64);
                let pairs = (shapes[0][2] * shapes[1][2] * heads) as f64;
                let dense = 2.0 * pairs * (size + shapes[2][3] as f64) * shapes[0][0] as f64;
                Work::Attention {
                    flops: flops / self.widths.rows,
                    dense: dense / self.widths.rows,
                    bytes,
                    keys,
                    heads,
                    size,
                }
            }
            None => Work::Move { cut: 0.0, whole: bytes },
        }
    }

    /// Bytes that a kernel of elementwise work and reductions reads and writes; `None` if it only
    /// looks at values in another way, or rounds what a product writes.
    fn moved(&self, nodes: &[usize]) -> Option<Work> {
        let all = self.nodes();
        let works = |&at: &usize| !is_view(&all[at]) && !matches!(all[at].op, Primitive::Cast(_));
        if !nodes.iter().any(works) {
            return None;
        }
        let inside: HashSet<usize> = nodes.iter().copied().collect();
        let mut touched: BTreeSet<Value> = BTreeSet::new();
        for &at in nodes {
            let table = matches!(all[at].op, Primitive::Gather(_));
            for &input in all[at].inputs.iter().filter(|&&v| !(table && self.cuts.free(v))) {
                let root = self.root(input);
                if !self.cuts.free(root) && self.maker(root).is_none_or(|m| !inside.contains(&m)) {
                    touched.insert(root);
                }
            }
            touched.extend(all[at].outputs.iter().map(|&v| self.root(v)).filter(|&v| {
                self.maker(v).is_some_and(|maker| inside.contains(&maker))
                    && self.leaves(v, &inside)
            }));
        }
        let (mut cut, mut whole) = (0.0, 0.0);
        for value in touched {
            let bytes = self.widths.bytes(self.cuts.function.ty(value));
            match self.cuts.tag(value) {
                Tag::Cut(_) => cut += bytes,
                _ => whole += bytes,
            }
        }
        if self.widths.masks {
            for &at in nodes {
                match self.mask(at) {
                    Some((elements, Tag::Cut(_))) => cut += elements,
                    Some((elements, _)) => whole += elements,
                    None => {}
                }
            }
        }
        Some(Work::Move { cut, whole })
    }

    /// The elements of the mask of random numbers that a node selects by, and how they lie.
    pub fn mask(&self, at: usize) -> Option<(f64, Tag)> {
        let node = &self.nodes()[at];
        let select = matches!(&node.op, Primitive::Elementwise(op) if op.0.name == "select");
        let mask = *node.inputs.first()?;
        if !select || self.idle(node) || !self.cuts.free(mask) || !self.cuts.random[mask.index()] {
            return None;
        }
        let elements = self.cuts.function.ty(mask).elements() as f64 / self.widths.rows;
        Some((elements, self.cuts.tag(node.outputs[0])))
    }

    /// Whether a value is read outside of a kernel.
    fn leaves(&self, value: Value, inside: &HashSet<usize>) -> bool {
        let function = self.cuts.function;
        let result = function.results().iter().any(|&v| self.root(v) == value);
        let reads = |node: &Node| node.inputs.iter().any(|&v| self.root(v) == value);
        result
            || function
                .nodes()
                .iter()
                .enumerate()
                .any(|(at, node)| !inside.contains(&at) && !is_view(node) && reads(node))
    }
}

/// Which loop of a product a factor is.
fn kind(loops: &Loops, f: usize) -> Loop {
    match (has(loops, 0, f), has(loops, 1, f), loops.factors[f].reduced) {
        (_, _, true) => Loop::K,
        (true, true, _) => Loop::Batch,
        (true, false, _) => Loop::M,
        _ => Loop::N,
    }
}
