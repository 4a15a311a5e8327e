//! How a cut over the tensor axis goes through a function, by the loop factors of its nodes.
//!
//! Weights may lie in any way, so they are cut as their products want it: a product of a whole
//! activation with a weight is cut along the weight's own loop, and a product whose activation is
//! cut along the contracted loop leaves a partial sum, which is added up where the next operation
//! is not linear.

use ferrata_ir::primitive::{Dim, Loops};
use ferrata_ir::{Function, Node, Primitive, Type, Value};

/// How a value lies on the devices of the tensor axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// Made of weights, integers of the data, constants and random numbers alone: any device can
    /// have any piece of it.
    Free,
    /// Every device has it all, or its piece of the positions.
    Whole,
    /// Along this dimension.
    Cut(usize),
    /// Every device has a summand.
    Partial,
}

/// A product with fewer columns than this is not worth a cut.
const NARROW: usize = 64;

/// What a node asks for beside its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// This partial sum has to be added up.
    Sum(Value),
    /// All positions of this value have to be there.
    Gather(Value),
}

/// The cut of all values of a function.
pub(super) struct Cuts<'a> {
    pub function: &'a Function,
    pub tags: Vec<Tag>,
    /// For each value, the weights that it is made of.
    pub sources: Vec<Vec<usize>>,
    /// For each value, whether it is made of random numbers.
    pub random: Vec<bool>,
    /// The weights that are cut.
    pub cut: Vec<bool>,
    /// For each node, the factor that is cut.
    pub factors: Vec<Option<usize>>,
    /// For each node, what has to be exchanged first.
    pub needs: Vec<Vec<Need>>,
}

impl<'a> Cuts<'a> {
    /// Goes through `function`, whose parameters lie as `tags` says; `sources` gives the weights
    /// that each is made of.
    pub fn new(
        function: &'a Function,
        tags: &[Tag],
        sources: &[Vec<usize>],
        weights: usize,
    ) -> Self {
        let count = function.value_count();
        let mut cuts = Cuts {
            function,
            tags: vec![Tag::Free; count],
            sources: vec![Vec::new(); count],
            random: vec![false; count],
            cut: vec![false; weights],
            factors: Vec::with_capacity(function.nodes().len()),
            needs: Vec::with_capacity(function.nodes().len()),
        };
        for ((&parameter, &tag), source) in function.parameters().iter().zip(tags).zip(sources) {
            cuts.tags[parameter.index()] = tag;
            cuts.sources[parameter.index()].clone_from(source);
        }
        for node in function.nodes() {
            let (factor, needs) = cuts.visit(node);
            cuts.factors.push(factor);
            cuts.needs.push(needs);
        }
        cuts
    }

    /// How a value lies.
    pub fn tag(&self, value: Value) -> Tag {
        self.tags[value.index()]
    }

    /// Whether any device can have any piece of a value.
    pub fn free(&self, value: Value) -> bool {
        self.tag(value) == Tag::Free
    }

    /// Whether a value is made of a weight alone.
    pub fn is_weight(&self, value: Value) -> bool {
        self.free(value) && !self.sources[value.index()].is_empty()
    }

    fn types(&self, values: &[Value]) -> Vec<&'a Type> {
        values.iter().map(|&value| self.function.ty(value)).collect()
    }

    fn visit(&mut self, node: &Node) -> (Option<usize>, Vec<Need>) {
        let lookup = matches!(node.op, Primitive::Gather(_)) && self.is_weight(node.inputs[0]);
        if lookup {
            // Rows of a table that is cut along them: every device has some, and zeros.
            self.cut_sources(node.inputs[0]);
            node.outputs.iter().for_each(|v| self.tags[v.index()] = Tag::Partial);
            return (None, Vec::new());
        }
        if node.inputs.iter().all(|&v| self.free(v)) {
            self.stay_free(node);
            return (None, Vec::new());
        }
        let mut needs = Vec::new();
        if node.inputs.iter().any(|&v| self.tag(v) == Tag::Partial) {
            if self.linear(node) {
                node.outputs.iter().for_each(|v| self.tags[v.index()] = Tag::Partial);
                return (None, needs);
            }
            for &value in &node.inputs {
                if self.tag(value) == Tag::Partial {
                    self.tags[value.index()] = Tag::Whole;
                    needs.push(Need::Sum(value));
                }
            }
        }
        let loops = node.op.rules().loops(&self.types(&node.inputs));
        let factor = match (&node.op, loops) {
            (Primitive::Dot(_), Some(loops)) => self.product(node, &loops, &mut needs),
            (_, Some(loops)) => self.nest(node, &loops),
            (_, None) => {
                self.other(node);
                None
            }
        };
        (factor, needs)
    }

    fn stay_free(&mut self, node: &Node) {
        let mut sources: Vec<usize> =
            node.inputs.iter().flat_map(|v| self.sources[v.index()].clone()).collect();
        sources.sort_unstable();
        sources.dedup();
        let random = matches!(node.op, Primitive::RandomBits(_))
            || node.inputs.iter().any(|v| self.random[v.index()]);
        for output in &node.outputs {
            self.sources[output.index()] = sources.clone();
            self.random[output.index()] = random;
        }
    }

    /// Whether the node applied to summands gives summands of its result.
    fn linear(&self, node: &Node) -> bool {
        let partial = |v: &Value| self.tag(*v) == Tag::Partial;
        match &node.op {
            Primitive::Reshape(_)
            | Primitive::Transpose(_)
            | Primitive::Slice(_)
            | Primitive::Broadcast(_)
            | Primitive::Concatenate(_)
            | Primitive::Cast(_) => node.inputs.iter().all(partial),
            Primitive::Elementwise(op) => match op.0.name {
                "add" | "sub" | "neg" => node.inputs.iter().all(partial),
                _ => false,
            },
            _ => false,
        }
    }

    /// The factor that an operand is cut along.
    fn factor_of(&self, loops: &Loops, operand: usize, value: Value) -> Option<usize> {
        let Tag::Cut(d) = self.tag(value) else { return None };
        factor(loops, loops.operands.get(operand)?.get(d)?)
    }

    fn nest(&mut self, node: &Node, loops: &Loops) -> Option<usize> {
        let inputs = node.inputs.iter().enumerate();
        let found = inputs.clone().find_map(|(i, &value)| self.factor_of(loops, i, value));
        self.place(node, loops, found);
        found
    }

    /// Gives the results their place when `cut` is cut.
    fn place(&mut self, node: &Node, loops: &Loops, cut: Option<usize>) {
        if let Some(cut) = cut {
            for (i, &value) in node.inputs.iter().enumerate() {
                let indexed = loops.operands[i].iter().any(|dim| factor(loops, dim) == Some(cut));
                if indexed && self.free(value) {
                    self.cut_sources(value);
                }
            }
        }
        for (output, dims) in node.outputs.iter().zip(&loops.results) {
            let at = cut.and_then(|cut| dims.iter().position(|d| factor(loops, d) == Some(cut)));
            self.tags[output.index()] = match (cut, at) {
                (_, Some(at)) => Tag::Cut(at),
                (Some(cut), None) if loops.factors[cut].reduced => Tag::Partial,
                _ => Tag::Whole,
            };
        }
    }

    fn product(&mut self, node: &Node, loops: &Loops, needs: &mut Vec<Need>) -> Option<usize> {
        let (left, right) = (node.inputs[0], node.inputs[1]);
        let given = self.factor_of(loops, 0, left).or_else(|| self.factor_of(loops, 1, right));
        let weight = [left, right].iter().position(|&v| self.free(v));
        let cut = given.or_else(|| {
            let weight = weight.filter(|&i| self.is_weight(node.inputs[i]))?;
            own(loops, weight).filter(|&f| loops.factors[f].size >= NARROW)
        });
        if cut.is_some() {
            for &value in &[left, right] {
                if self.tag(value) == Tag::Whole {
                    needs.push(Need::Gather(value));
                }
            }
        }
        self.place(node, loops, cut);
        cut
    }

    /// Nodes without loops: what keeps its shape stays cut; claimed attention is cut by heads.
    fn other(&mut self, node: &Node) {
        let cut = node.inputs.iter().find_map(|&v| match self.tag(v) {
            Tag::Cut(d) => Some((d, self.function.ty(v).rank())),
            _ => None,
        });
        for output in &node.outputs {
            let ty = self.function.ty(*output);
            self.tags[output.index()] = match cut {
                Some((d, rank)) if ty.rank() == rank || matches!(node.op, Primitive::Call(_)) => {
                    Tag::Cut(d)
                }
                _ => Tag::Whole,
            };
        }
    }

    fn cut_sources(&mut self, value: Value) {
        for &weight in &self.sources[value.index()] {
            self.cut[weight] = true;
        }
    }
}

/// The outermost factor that moves along a dimension.
pub(super) fn factor(loops: &Loops, dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Factor(f) | Dim::Affine { factor: f, .. } => Some(*f),
        Dim::Merged(all) => all.iter().copied().find(|&f| loops.factors[f].size > 1),
        Dim::Window { .. } | Dim::One => None,
    }
}

/// Whether a factor moves along some dimension of an operand.
pub(super) fn has(loops: &Loops, operand: usize, f: usize) -> bool {
    loops.operands[operand].contains(&Dim::Factor(f))
}

/// The largest loop of a product that only this operand has.
fn own(loops: &Loops, operand: usize) -> Option<usize> {
    let alone = |&f: &usize| {
        has(loops, operand, f) && !has(loops, 1 - operand, f) && !loops.factors[f].reduced
    };
    (0..loops.factors.len()).filter(alone).max_by_key(|&f| loops.factors[f].size)
}
