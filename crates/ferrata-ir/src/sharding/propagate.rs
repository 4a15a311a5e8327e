//! How every value of a program would best lie: shardings of some values spread over the loops of
//! the nodes that they meet in, forwards and backwards, until nothing changes.

use super::pattern::{Pattern, pattern};
use super::{Cut, Mesh, Names};
use crate::primitive::{Primitive, Scan};
use crate::program::{Function, Node, Value};
use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

/// How much a wish weighs where two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Level {
    /// Only memory is saved by it: it spreads through elementwise work, not into products.
    Stored,
    /// That of data.
    Data,
    /// That of weights.
    Weight,
}

/// A wish for one dimension.
pub(super) type Wish = Option<(Cut, Level)>;

/// Wishes for all dimensions of a value.
pub(super) type Wishes = Vec<Wish>;

/// How every value of a function would best lie.
#[derive(Clone, Debug)]
pub(super) struct Intents {
    wishes: Vec<Wishes>,
}

impl Intents {
    /// The wishes for a value.
    pub fn of(&self, v: Value) -> &Wishes {
        &self.wishes[v.index()]
    }
}

/// What a function is asked about: itself, the wishes for its parameters and results.
type Question = (*const Function, Vec<Wishes>, Vec<Wishes>);

/// Spreads wishes, each function and question once.
pub(super) struct Propagation<'a> {
    pub mesh: &'a Mesh,
    names: &'a Names,
    known: HashMap<Question, Arc<Intents>>,
}

/// Sweeps at most; programs of layers need few.
const SWEEPS: usize = 12;

impl<'a> Propagation<'a> {
    pub fn new(mesh: &'a Mesh, names: &'a Names) -> Propagation<'a> {
        Propagation { mesh, names, known: HashMap::new() }
    }

    /// What the names of the dimensions of a value of this type wish.
    pub fn named(&self, names: &str, ty: &Type) -> Wishes {
        let mut used: Vec<usize> = Vec::new();
        let dims = names.split(',').zip(&ty.shape);
        let wish = |(name, &size): (&str, &usize)| {
            let named = self.names.get(name)?;
            let axes = named.axes.iter().copied();
            let axes: Vec<usize> = axes.filter(|axis| !used.contains(axis)).collect();
            let cut = match named.dealt {
                true => Cut::dealt(self.mesh, &axes, size),
                false => Cut::along(&axes),
            };
            let fits = !cut.is_whole() && cut.fits(self.mesh, size);
            used.extend(fits.then_some(axes).into_iter().flatten());
            fits.then(|| (cut.canonical(self.mesh, size), Level::Data))
        };
        dims.map(wish).collect()
    }

    /// The intents of a function with wishes for its parameters and results.
    pub fn intents(
        &mut self,
        function: &Arc<Function>,
        parameters: &[Wishes],
        results: &[Wishes],
    ) -> Arc<Intents> {
        let question = (Arc::as_ptr(function), parameters.to_vec(), results.to_vec());
        if let Some(found) = self.known.get(&question) {
            return found.clone();
        }
        let wishes = function.types.iter().map(|ty| vec![None; ty.rank()]).collect();
        let mut spread = Spread { function, wishes, least: Level::Data };
        for least in [Level::Data, Level::Stored] {
            spread.least = least;
            for (&v, wishes) in function.parameters().iter().zip(parameters) {
                spread.add_all(self.mesh, v, wishes);
            }
            for (&v, wishes) in function.results().iter().zip(results) {
                spread.add_all(self.mesh, v, wishes);
            }
            for _ in 0..SWEEPS {
                let mut changed = false;
                for node in function.nodes() {
                    changed |= self.visit(&mut spread, node);
                }
                for node in function.nodes().iter().rev() {
                    changed |= self.visit(&mut spread, node);
                }
                if !changed {
                    break;
                }
            }
        }
        let found = Arc::new(Intents { wishes: spread.wishes });
        self.known.insert(question, found.clone());
        found
    }

    fn visit(&mut self, spread: &mut Spread, node: &Node) -> bool {
        match &node.op {
            Primitive::Barrier(_) => {
                let mut changed = false;
                for (&x, &y) in node.inputs.iter().zip(&node.outputs) {
                    changed |= spread.same(self.mesh, x, y);
                }
                changed
            }
            Primitive::Annotate(named) => {
                let (x, y) = (node.inputs[0], node.outputs[0]);
                let wishes = self.named(&named.names, spread.function.ty(x));
                spread.add_all(self.mesh, y, &wishes) | spread.same(self.mesh, x, y)
            }
            Primitive::Call(c) => {
                let [inputs, outputs] =
                    [&node.inputs, &node.outputs].map(|values| spread.all(values));
                self.through(spread, &c.function, (&node.inputs, inputs), (&node.outputs, outputs))
            }
            Primitive::Scan(s) => self.through_scan(spread, node, s),
            Primitive::Cond(c) => {
                let mut changed = false;
                for branch in &c.branches {
                    let inputs = spread.all(&node.inputs[1..]);
                    let outputs = spread.all(&node.outputs);
                    let arguments = (&node.inputs[1..], inputs);
                    changed |= self.through(spread, branch, arguments, (&node.outputs, outputs));
                }
                changed
            }
            op => {
                let function = spread.function;
                let types = |values: &[Value]| -> Vec<&Type> {
                    values.iter().map(|&v| function.ty(v)).collect()
                };
                let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
                let Some(pattern) = pattern(op, &inputs, &outputs) else { return false };
                spread.spread(self.mesh, node, &pattern)
            }
        }
    }

    /// Asks a callee, and takes over what it wishes of its parameters and results.
    fn through(
        &mut self,
        spread: &mut Spread,
        callee: &Arc<Function>,
        (inputs, input_wishes): (&[Value], Vec<Wishes>),
        (outputs, output_wishes): (&[Value], Vec<Wishes>),
    ) -> bool {
        let intents = self.intents(callee, &input_wishes, &output_wishes);
        let mut changed = false;
        for (&v, &p) in inputs.iter().zip(callee.parameters()) {
            changed |= spread.add_all(self.mesh, v, intents.of(p));
        }
        for (&v, &r) in outputs.iter().zip(callee.results()) {
            changed |= spread.add_all(self.mesh, v, intents.of(r));
        }
        changed
    }

    fn through_scan(&mut self, spread: &mut Spread, node: &Node, scan: &Scan) -> bool {
        let mut changed = false;
        let (_, carries, _) = scan.parts(&node.inputs);
        for (&x, &y) in carries.iter().zip(&node.outputs) {
            changed |= spread.same(self.mesh, x, y);
        }
        let slices = |wishes: Vec<Wishes>, whole: usize| -> Vec<Wishes> {
            let slice = |(i, wishes): (usize, Wishes)| match i < whole {
                true => wishes,
                false => wishes[1..].to_vec(),
            };
            wishes.into_iter().enumerate().map(slice).collect()
        };
        let whole = scan.constants + scan.carries;
        let inputs = slices(spread.all(&node.inputs), whole);
        let outputs = slices(spread.all(&node.outputs), scan.carries);
        let intents = self.intents(&scan.body, &inputs, &outputs);
        let body = scan.body.parameters().iter().zip(&node.inputs).enumerate();
        for (i, (&p, &v)) in body {
            changed |= spread.add_at(self.mesh, v, intents.of(p), usize::from(i >= whole));
        }
        let body = scan.body.results().iter().zip(&node.outputs).enumerate();
        for (i, (&r, &v)) in body {
            changed |= spread.add_at(self.mesh, v, intents.of(r), usize::from(i >= scan.carries));
        }
        changed
    }
}

/// The wishes of one function while they spread.
struct Spread<'a> {
    function: &'a Function,
    wishes: Vec<Wishes>,
    /// Wishes that weigh less wait.
    least: Level,
}

impl Spread<'_> {
    /// The wishes for these values that spread by now.
    fn all(&self, values: &[Value]) -> Vec<Wishes> {
        let own = |&v: &Value| -> Wishes {
            let ripe = |wish: &Wish| wish.clone().filter(|(_, level)| *level >= self.least);
            self.wishes[v.index()].iter().map(ripe).collect()
        };
        values.iter().map(own).collect()
    }

    /// Adds a wish for a dimension that has none, if it can be had.
    fn add(&mut self, mesh: &Mesh, v: Value, d: usize, cut: &Cut, level: Level) -> bool {
        let wishes = &mut self.wishes[v.index()];
        let used = |axis: &usize| {
            wishes.iter().flatten().any(|(cut, _): &(Cut, Level)| cut.axes.contains(axis))
        };
        let size = self.function.ty(v).shape[d];
        if wishes[d].is_some() || cut.is_whole() || cut.axes.iter().any(used) {
            return false;
        }
        if !cut.fits(mesh, size) {
            return false;
        }
        wishes[d] = Some((cut.clone().canonical(mesh, size), level));
        true
    }

    /// As [`Spread::add`], for the dimensions of a value behind the first `skip`.
    fn add_at(&mut self, mesh: &Mesh, v: Value, wishes: &Wishes, skip: usize) -> bool {
        let mut changed = false;
        for (d, wish) in wishes.iter().enumerate() {
            if let Some((cut, level)) = wish
                && *level >= self.least
            {
                changed |= self.add(mesh, v, d + skip, cut, *level);
            }
        }
        changed
    }

    fn add_all(&mut self, mesh: &Mesh, v: Value, wishes: &Wishes) -> bool {
        self.add_at(mesh, v, wishes, 0)
    }

    /// Two values that lie alike.
    fn same(&mut self, mesh: &Mesh, x: Value, y: Value) -> bool {
        let [from, to] = [x, y].map(|v| self.wishes[v.index()].clone());
        self.add_all(mesh, y, &from) | self.add_all(mesh, x, &to)
    }

    fn spread(&mut self, mesh: &Mesh, node: &Node, pattern: &Pattern) -> bool {
        let values = || node.inputs.iter().chain(&node.outputs).copied();
        let dims = || pattern.operands.iter().chain(&pattern.results);
        let contracts = pattern.factors.iter().any(|f| f.reduced.is_some());
        let mut proposals = Vec::new();
        for (v, dims) in values().zip(dims()) {
            let bytes = self.function.ty(v).bytes();
            for (wish, dim) in self.wishes[v.index()].iter().zip(dims) {
                let Some((cut, level)) = wish else { continue };
                if *level < self.least || (contracts && *level == Level::Stored) {
                    continue;
                }
                if let Some((factor, cut)) = pattern.project(mesh, dim, cut) {
                    proposals.push((*level, bytes, factor, cut));
                }
            }
        }
        // The order of equal ones stays that of the operands.
        proposals.sort_by_key(|&(level, bytes, ..)| std::cmp::Reverse((level, bytes)));
        let mut assigned: Vec<Option<(Cut, Level)>> = vec![None; pattern.factors.len()];
        for (level, _, factor, cut) in proposals {
            let taken = |axis: &usize| {
                assigned.iter().flatten().any(|(cut, _): &(Cut, Level)| cut.axes.contains(axis))
            };
            if assigned[factor].is_none() && !cut.axes.iter().any(taken) {
                assigned[factor] = Some((cut, level));
            }
        }
        let mut changed = false;
        for (factor, wish) in assigned.iter().enumerate() {
            let Some((cut, level)) = wish else { continue };
            let mut alone = vec![Cut::whole(); pattern.factors.len()];
            alone[factor] = cut.clone();
            for (v, dims) in values().zip(dims()) {
                for (d, dim) in dims.iter().enumerate() {
                    if let Some(cut) = pattern.lift(mesh, dim, &alone) {
                        changed |= self.add(mesh, v, d, &cut, *level);
                    }
                }
            }
        }
        changed
    }
}
