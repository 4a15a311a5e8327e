//! How the dimensions of the operands and results of a node belong together.
//!
//! For loop nests this is what [`Rules::loops`](crate::primitive::Rules::loops) declares; the other
//! primitives are described here by the dimensions in which they do one thing many times.

use super::{Cut, Mesh};
use crate::DType;
use crate::composite::attention::{Plan, flops};
use crate::primitive::elementwise::{ADD, DIV, MUL, NEG, SUB};
use crate::primitive::{
    Dim, Elementwise, ElementwiseOp, Loops, Primitive, ReduceKind, ScatterKind,
};
use crate::program::Composite;
use crate::types::Type;

/// One loop of a node.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    pub size: usize,
    /// How parts are combined, if results do not have it.
    pub reduced: Option<ReduceKind>,
    /// Whether every rank needs all of it.
    pub whole: bool,
}

/// What becomes of operands that are still partial sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linear {
    /// They are combined first.
    No,
    /// The node does the same to the parts: the first operand may be partial.
    First,
    /// As `First`, if all operands are partial alike.
    All,
    /// One of two operands may be partial.
    Either,
}

/// The loops of a node, and which of them index each dimension.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub factors: Vec<Factor>,
    pub operands: Vec<Vec<Dim>>,
    pub results: Vec<Vec<Dim>>,
    /// Scalar operations per point of the loops.
    pub operations: f64,
    pub linear: Linear,
}

impl Pattern {
    fn new(operands: usize, results: usize) -> Pattern {
        Pattern {
            factors: Vec::new(),
            operands: vec![Vec::new(); operands],
            results: vec![Vec::new(); results],
            operations: 1.0,
            linear: Linear::No,
        }
    }

    fn factor(&mut self, size: usize, reduced: Option<ReduceKind>, whole: bool) -> Dim {
        self.factors.push(Factor { size, reduced, whole });
        Dim::Factor(self.factors.len() - 1)
    }

    fn parallel(&mut self, size: usize) -> Dim {
        self.factor(size, None, false)
    }

    fn whole(&mut self, size: usize) -> Dim {
        self.factor(size, None, true)
    }

    /// The same loop over dimension `d` of the first operand and of all results, if `shared`;
    /// else each has all of its own.
    fn along(&mut self, d: usize, shared: bool, inputs: &[&Type], outputs: &[&Type]) {
        let size = inputs[0].shape[d];
        let dim = if shared { self.parallel(size) } else { self.whole(size) };
        self.operands[0].push(dim.clone());
        for (i, ty) in outputs.iter().enumerate() {
            let dim = if shared { dim.clone() } else { self.whole(ty.shape[d]) };
            self.results[i].push(dim);
        }
    }

    /// One more dimension that all operands and results share.
    fn shared(&mut self, size: usize) {
        let dim = self.parallel(size);
        let all = self.operands.iter_mut().chain(&mut self.results);
        all.for_each(|dims| dims.push(dim.clone()));
    }

    /// Every rank needs all of these operands.
    fn whole_operands(&mut self, inputs: &[&Type], which: impl IntoIterator<Item = usize>) {
        for i in which {
            self.operands[i] = inputs[i].shape.iter().map(|&size| self.whole(size)).collect();
        }
    }

    fn whole_results(&mut self, outputs: &[&Type]) {
        for (i, ty) in outputs.iter().enumerate() {
            self.results[i] = ty.shape.iter().map(|&size| self.whole(size)).collect();
        }
    }

    /// The loops of a nest. Where windows slide or steps are taken, ranks need all.
    fn of_loops(loops: Loops, kind: ReduceKind) -> Pattern {
        let factors = loops.factors.iter().map(|f| Factor {
            size: f.size,
            reduced: f.reduced.then_some(kind),
            whole: false,
        });
        let mut pattern = Pattern {
            factors: factors.collect(),
            operands: loops.operands,
            results: loops.results,
            operations: loops.operations,
            linear: Linear::No,
        };
        for dim in pattern.operands.iter().chain(&pattern.results).flatten() {
            match *dim {
                Dim::Window { outer, inner, .. } => {
                    pattern.factors[outer].whole = true;
                    pattern.factors[inner].whole = true;
                }
                Dim::Affine { factor, .. } => pattern.factors[factor].whole = true,
                _ => {}
            }
        }
        pattern
    }

    /// The number of points of the loops on one rank.
    pub fn points(&self, mesh: &Mesh, assigned: &[Cut]) -> f64 {
        let each = self.factors.iter().zip(assigned);
        each.map(|(f, cut)| f.size as f64 / mesh.parts(&cut.axes) as f64).product()
    }

    /// The factor that a cut of a dimension cuts, and how. `None` if it falls between factors.
    pub fn project(&self, mesh: &Mesh, dim: &Dim, cut: &Cut) -> Option<(usize, Cut)> {
        let open = |f: usize| !self.factors[f].whole && !cut.is_whole();
        match dim {
            Dim::Factor(f) => open(*f).then(|| (*f, cut.clone())),
            Dim::Merged(all) => {
                let size = |f: usize| self.factors[f].size;
                let total: usize = all.iter().map(|&f| size(f)).product();
                let mut outer = 1;
                for &f in all {
                    let inner = (total / (outer * size(f)).max(1)).max(1);
                    let blocks = cut.blocks / outer;
                    let exact = cut.blocks.is_multiple_of(outer) && size(f) % blocks.max(1) == 0;
                    if exact && size(f) > 1 {
                        let units = size(f) / blocks.max(1);
                        let parts = mesh.parts(&cut.axes);
                        let unit = match cut.unit % inner {
                            0 => Some(cut.unit / inner),
                            _ if cut.unit == 1 && units.is_multiple_of(parts) => Some(1),
                            _ => None,
                        };
                        if let Some(unit) = unit {
                            let cut = Cut { axes: cut.axes.clone(), blocks, unit };
                            let fits = cut.fits(mesh, size(f)) && open(f);
                            return fits.then(|| (f, cut.canonical(mesh, size(f))));
                        }
                    }
                    outer *= size(f);
                }
                None
            }
            _ => None,
        }
    }

    /// The cut of a dimension that cuts of its factors make. `None` if there is none.
    pub fn lift(&self, mesh: &Mesh, dim: &Dim, assigned: &[Cut]) -> Option<Cut> {
        match dim {
            Dim::Factor(f) => Some(assigned[*f].clone()),
            Dim::Merged(all) => {
                let mut made = Cut::whole();
                let size = |f: usize| self.factors[f].size;
                let total: usize = all.iter().map(|&f| size(f)).product();
                let mut outer = 1;
                for &f in all {
                    let inner = (total / (outer * size(f)).max(1)).max(1);
                    let cut = &assigned[f];
                    if !cut.is_whole() {
                        if !made.is_whole() || total == 0 {
                            return None;
                        }
                        made = Cut {
                            axes: cut.axes.clone(),
                            blocks: cut.blocks * outer,
                            unit: cut.unit * inner,
                        };
                    }
                    outer *= size(f);
                }
                Some(made.canonical(mesh, total))
            }
            _ => Some(Cut::whole()),
        }
    }

    /// The cuts of all dimensions of an operand or result. `None` if the assignment makes none.
    pub fn lift_all(&self, mesh: &Mesh, dims: &[Dim], assigned: &[Cut]) -> Option<Vec<Cut>> {
        dims.iter().map(|dim| self.lift(mesh, dim, assigned)).collect()
    }
}

fn equal_parts(inputs: &[&Type], dim: usize) -> bool {
    inputs.iter().all(|ty| ty.shape[dim] == inputs[0].shape[dim]) && inputs[0].shape[dim] > 0
}

/// The pattern of a node; `None` for primitives that hold functions or pass on many values, and
/// for collectives.
pub(super) fn pattern(op: &Primitive, inputs: &[&Type], outputs: &[&Type]) -> Option<Pattern> {
    let mut p = Pattern::new(inputs.len(), outputs.len());
    let rank = inputs.first().map_or(0, |ty| ty.rank());
    match op {
        Primitive::Elementwise(e) => {
            p = Pattern::of_loops(op.rules().loops(inputs)?, ReduceKind::Sum);
            let is = |op: &'static ElementwiseOp| *e == Elementwise(op);
            p.linear = match () {
                () if !inputs[0].dtype.is_float() => Linear::No,
                () if is(&NEG) || is(&DIV) => Linear::First,
                () if is(&ADD) || is(&SUB) => Linear::All,
                () if is(&MUL) => Linear::Either,
                () => Linear::No,
            };
        }
        Primitive::Cast(c) => {
            p = Pattern::of_loops(op.rules().loops(inputs)?, ReduceKind::Sum);
            let (from, to) = (inputs[0].dtype, c.dtype);
            if from.is_float() && to.is_float() && to.size() >= from.size() {
                p.linear = Linear::First;
            }
        }
        Primitive::Reduce(r) => {
            p = Pattern::of_loops(op.rules().loops(inputs)?, r.kind);
            if r.kind == ReduceKind::Sum {
                p.linear = Linear::First;
            }
        }
        Primitive::Constant(_)
        | Primitive::Broadcast(_)
        | Primitive::Dot(_)
        | Primitive::Convolution(_)
        | Primitive::Windows(_) => {
            p = Pattern::of_loops(op.rules().loops(inputs)?, ReduceKind::Sum);
        }
        Primitive::Transpose(_) | Primitive::StopGradient(_) => {
            p = Pattern::of_loops(op.rules().loops(inputs)?, ReduceKind::Sum);
            p.linear = Linear::First;
        }
        Primitive::Dense(_) | Primitive::Iota(_) => p.whole_results(outputs),
        Primitive::Reshape(r) => {
            let (loops, apart) = r.nest(&inputs[0].shape);
            p = Pattern::of_loops(loops, ReduceKind::Sum);
            p.linear = Linear::First;
            apart.into_iter().for_each(|factor| p.factors[factor].whole = true);
        }
        Primitive::Slice(s) => {
            p.linear = Linear::First;
            for d in 0..rank {
                let (size, kept) = (inputs[0].shape[d], outputs[0].shape[d]);
                let aligned = s.stride[d] == 1 && kept > 0 && size % kept == 0;
                if aligned && s.start[d] % kept == 0 && kept < size {
                    let stretch = p.parallel(kept);
                    let Dim::Factor(inner) = stretch else { return None };
                    let Dim::Factor(outer) = p.whole(size / kept) else { return None };
                    p.operands[0].push(Dim::Merged(vec![outer, inner]));
                    p.results[0].push(stretch);
                } else {
                    p.along(d, size == kept && s.stride[d] == 1, inputs, outputs);
                }
            }
        }
        Primitive::Reverse(r) => {
            p.linear = Linear::First;
            (0..rank).for_each(|d| p.along(d, !r.dims.contains(&d), inputs, outputs));
        }
        Primitive::Pad(pad) => {
            for d in 0..rank {
                let nothing = pad.low[d] == 0 && pad.high[d] == 0 && pad.interior[d] == 0;
                p.along(d, nothing, inputs, outputs);
            }
        }
        Primitive::Concatenate(c) => {
            p.linear = Linear::All;
            for d in 0..rank {
                if d == c.dim && equal_parts(inputs, d) {
                    let stretch = p.parallel(inputs[0].shape[d]);
                    let Dim::Factor(inner) = stretch else { return None };
                    let Dim::Factor(outer) = p.whole(inputs.len()) else { return None };
                    p.operands.iter_mut().for_each(|dims| dims.push(stretch.clone()));
                    p.results[0].push(Dim::Merged(vec![outer, inner]));
                } else if d == c.dim {
                    for (i, ty) in inputs.iter().enumerate() {
                        let dim = p.whole(ty.shape[d]);
                        p.operands[i].push(dim);
                    }
                    let dim = p.whole(outputs[0].shape[d]);
                    p.results[0].push(dim);
                } else {
                    p.shared(inputs[0].shape[d]);
                }
            }
        }
        Primitive::Gather(g) => {
            let (x, ids) = (inputs[0], inputs[1]);
            x.shape[..g.batch].iter().for_each(|&size| p.shared(size));
            let combined = if x.dtype == DType::Bool { ReduceKind::Or } else { ReduceKind::Sum };
            for d in g.batch..g.batch + g.indexed {
                // A rank gives 0 for what other ranks have.
                let dim = p.factor(x.shape[d], Some(combined), g.indexed != 1);
                p.operands[0].push(dim);
            }
            for d in g.batch..ids.rank() - 1 {
                let dim = p.parallel(ids.shape[d]);
                p.operands[1].push(dim.clone());
                p.results[0].push(dim);
            }
            let last = p.whole(g.indexed);
            p.operands[1].push(last);
            for d in g.batch + g.indexed..x.rank() {
                let dim = p.parallel(x.shape[d]);
                p.operands[0].push(dim.clone());
                p.results[0].push(dim);
            }
        }
        Primitive::Scatter(s) => {
            let (x, ids) = (inputs[0], inputs[1]);
            x.shape[..s.batch].iter().for_each(|&size| p.shared(size));
            for d in s.batch..s.batch + s.indexed {
                let dim = p.factor(x.shape[d], None, s.indexed != 1);
                p.operands[0].push(dim.clone());
                p.results[0].push(dim);
            }
            let sums = s.kind == ScatterKind::Add;
            for d in s.batch..ids.rank() - 1 {
                let dim = p.factor(ids.shape[d], sums.then_some(ReduceKind::Sum), !sums);
                p.operands[1].push(dim.clone());
                p.operands[2].push(dim);
            }
            let last = p.whole(s.indexed);
            p.operands[1].push(last);
            for d in s.batch + s.indexed..x.rank() {
                let dim = p.parallel(x.shape[d]);
                p.operands[0].push(dim.clone());
                p.operands[2].push(dim.clone());
                p.results[0].push(dim);
            }
        }
        Primitive::DynamicSlice(s) => {
            let x = inputs[0];
            (0..rank).for_each(|d| p.along(d, s.sizes[d] == x.shape[d], inputs, outputs));
            p.whole_operands(inputs, [1]);
        }
        Primitive::DynamicUpdate(_) => {
            for d in 0..rank {
                let (size, changed) = (inputs[0].shape[d], inputs[1].shape[d]);
                let dim = if size == changed { p.parallel(size) } else { p.whole(size) };
                p.operands[0].push(dim.clone());
                p.results[0].push(dim.clone());
                let dim = if size == changed { dim } else { p.whole(changed) };
                p.operands[1].push(dim);
            }
            p.whole_operands(inputs, [2]);
        }
        Primitive::ArgReduce(a) => {
            for d in 0..rank {
                let dim = p.factor(inputs[0].shape[d], None, d == a.dim);
                p.operands[0].push(dim.clone());
                if d != a.dim {
                    p.results[0].push(dim);
                }
            }
        }
        Primitive::Sort(s) => (0..rank).for_each(|d| p.along(d, d != s.dim, inputs, outputs)),
        Primitive::TopK(s) => (0..rank).for_each(|d| p.along(d, d != s.dim, inputs, outputs)),
        Primitive::Cumulative(c) => {
            (0..rank).for_each(|d| p.along(d, d != c.dim, inputs, outputs));
        }
        Primitive::Dft(_) => {
            (0..rank).for_each(|d| p.along(d, d + 2 < rank, inputs, outputs));
        }
        Primitive::Factorize(_) | Primitive::TriangularSolve(_) => {
            inputs[0].shape[..rank - 2].iter().for_each(|&size| p.shared(size));
            for (i, ty) in inputs.iter().enumerate() {
                for d in rank - 2..ty.rank() {
                    let dim = p.whole(ty.shape[d]);
                    p.operands[i].push(dim);
                }
            }
            for (i, ty) in outputs.iter().enumerate() {
                for d in rank - 2..ty.rank() {
                    let dim = p.whole(ty.shape[d]);
                    p.results[i].push(dim);
                }
            }
        }
        Primitive::RandomBits(_) | Primitive::FoldKey(_) | Primitive::DebugPrint(_) => {
            p.whole_operands(inputs, 0..inputs.len());
            p.whole_results(outputs);
        }
        _ => return None,
    }
    Some(p)
}

/// What is cut of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cutting {
    /// Groups of heads, each over all positions.
    Heads,
    /// Positions, queries and keys alike.
    Positions,
}

/// The pattern of a composite of attention that is computed by samples, groups of heads and, if
/// these are cut, positions, and its factor of what is cut. `None` for any other composite.
pub(super) fn attention(
    composite: &Composite,
    inputs: &[&Type],
    outputs: &[&Type],
    cutting: Cutting,
) -> Option<(Pattern, usize)> {
    let plan = Plan::of(composite)?;
    let [batch, heads, queries, _] = inputs[0].shape[..] else { return None };
    let (groups, keys) = (inputs[1].shape[1], inputs[1].shape[2]);
    let around = cutting == Cutting::Positions;
    // The gradient of a mask is summed over what it is repeated along.
    if plan.mask || (around && (plan.lengths || queries != keys)) {
        return None;
    }
    let mut p = Pattern::new(inputs.len(), outputs.len());
    let sample = p.parallel(batch);
    p.parallel(groups);
    p.whole(heads / groups.max(1));
    let positions = p.factor(queries, None, !around);
    let (group, head) = (Dim::Factor(1), Dim::Merged(vec![1, 2]));
    let dims = |p: &mut Pattern, ty: &Type| -> Vec<Dim> {
        let of = |(d, &size): (usize, &usize)| match d {
            0 => sample.clone(),
            1 if size == heads => head.clone(),
            1 => group.clone(),
            2 if around => positions.clone(),
            _ => p.whole(size),
        };
        ty.shape.iter().enumerate().map(of).collect()
    };
    for (i, ty) in inputs.iter().enumerate() {
        p.operands[i] = dims(&mut p, ty);
    }
    for (i, ty) in outputs.iter().enumerate() {
        p.results[i] = dims(&mut p, ty);
    }
    let shapes: Vec<&[usize]> = inputs.iter().map(|ty| &ty.shape[..]).collect();
    let points: f64 = p.factors.iter().map(|factor| factor.size as f64).product();
    p.operations = flops(composite, &shapes)? / points.max(1.0);
    Some((p, if around { 3 } else { 1 }))
}
