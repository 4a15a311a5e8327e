//! Fusion: which operations share a kernel.
//!
//! Operations are visited from the results to the inputs. When one is visited, every nest that
//! wants its result is known, so it can be computed inside that nest, stored by it as well, or be
//! left to a kernel of its own. A product first takes the elementwise work behind it.

mod epilogue;
mod merge;
mod schedule;

use crate::body::{Body, Id, Kind, Op, Scalarly};
use crate::nest::{Nest, Output};
use crate::strided::Map;
use ferrata_ir::primitive::elementwise::{self, ScalarOp};
use schedule::schedule;
use std::collections::{BTreeSet, HashSet};

/// Operations that become one kernel (or one call).
#[derive(Clone, Debug)]
pub enum Group {
    /// A fused loop nest.
    Nest(Nest),
    /// A product with the work behind it; the nest wants the product's result.
    Product {
        /// The product.
        op: usize,
        /// Stores the result.
        nest: Nest,
    },
    /// One operation on memory.
    Single(usize),
}

/// More operations than this don't go into one kernel.
const LARGEST_BODY: usize = 96;
/// Reading a value that is so many times smaller than a result costs nothing beside it.
const MUCH_SMALLER: usize = 16;
/// More operands than this don't go into one kernel.
const MOST_OPERANDS: usize = 24;

/// Splits a body into groups, in an order in which they can run.
pub fn fuse(body: &Body) -> Vec<Group> {
    let mut fuser = Fuser::new(body);
    fuser.find_epilogues();
    for at in (0..body.ops.len()).rev() {
        fuser.place(at);
    }
    (0..body.parameters).for_each(|p| fuser.merge_users(p));
    schedule(body, fuser)
}

struct Fuser<'a> {
    body: &'a Body,
    groups: Vec<Option<Group>>,
    /// Last operation of each group.
    last: Vec<usize>,
    /// Groups that want each value.
    wanted_by: Vec<BTreeSet<usize>>,
    is_result: Vec<bool>,
    /// Operations made of numbers and indices alone, computed wherever they are wanted.
    free: Vec<bool>,
    /// Operations that a group has already.
    placed: Vec<bool>,
    /// The group of the first of the operations with effects that have one.
    effect: Option<usize>,
}

impl<'a> Fuser<'a> {
    fn new(body: &'a Body) -> Self {
        let mut is_result = vec![false; body.values.len()];
        body.results.iter().for_each(|&r| is_result[r] = true);
        let mut free: Vec<bool> = Vec::with_capacity(body.ops.len());
        for op in &body.ops {
            let from_free =
                op.inputs.iter().all(|x| body.values[x.value].maker.is_some_and(|m| free[m]));
            free.push(matches!(op.kind, Kind::Map(_)) && from_free);
        }
        Fuser {
            body,
            groups: Vec::new(),
            last: Vec::new(),
            wanted_by: vec![BTreeSet::new(); body.values.len()],
            is_result,
            free,
            placed: vec![false; body.ops.len()],
            effect: None,
        }
    }

    /// Decides where operation `at` is computed.
    fn place(&mut self, at: usize) {
        let op = &self.body.ops[at];
        if !self.free[at] {
            op.outputs.iter().for_each(|&v| self.merge_users(v));
        }
        if self.placed[at] {
            return;
        }
        if !matches!(op.kind, Kind::Map(_) | Kind::Reduce { .. }) {
            return self.place_single(at);
        }
        let value = op.outputs[0];
        if self.body.values[value].ty.elements() == 0 {
            return;
        }
        let wanted = &self.wanted_by[value];
        let nests: Vec<usize> = wanted.iter().copied().filter(|&g| self.wants(g, value)).collect();
        let in_memory = |g: &usize| self.reads(*g, op).contains(&value);
        let elsewhere = self.is_result[value] || wanted.iter().any(in_memory);
        let again = self.free[at] || (!elsewhere && self.is_cheap(at));
        if again || (nests.len() == 1 && !elsewhere) {
            let left = nests.iter().filter(|&&g| !self.try_join(g, at)).count();
            if left == 0 && !elsewhere {
                return;
            }
        }
        if self.free[at] || !nests.iter().any(|&g| self.try_store(g, at)) {
            self.start(at);
        }
    }

    /// An operation on memory.
    fn place_single(&mut self, at: usize) {
        let op = &self.body.ops[at];
        let wanted: Vec<Id> = op.inputs.iter().map(|x| x.value).collect();
        let group = if matches!(op.kind, Kind::Dot(_)) {
            let value = op.outputs[0];
            let nest = Nest::storing(value, &self.body.values[value].ty.shape);
            Group::Product { op: at, nest }
        } else {
            Group::Single(at)
        };
        if op.kind.has_effect() {
            // The next one waits for this one, as if for its result.
            if let (Some(next), Some(&made)) = (self.effect, op.outputs.first()) {
                self.wanted_by[made].insert(next);
            }
            self.effect = Some(self.groups.len());
        }
        self.add(group, at, wanted);
    }

    /// Whether computing a result again costs no more than reading it: one cheap scalar operation
    /// on one value that is no larger, and on values that are much smaller.
    fn is_cheap(&self, at: usize) -> bool {
        let op = &self.body.ops[at];
        let bytes = |v: Id| self.body.values[v].ty.bytes();
        let mut read = op
            .inputs
            .iter()
            .map(|x| x.value)
            .filter(|&v| !self.body.values[v].maker.is_some_and(|m| self.free[m]))
            .filter(|&v| bytes(v) > bytes(op.outputs[0]) / MUCH_SMALLER);
        let small = read.next().is_none_or(|v| bytes(v) <= bytes(op.outputs[0]));
        small && read.next().is_none() && is_light(&op.kind)
    }

    /// Whether the nest of group `g` wants a value.
    fn wants(&self, g: usize, value: Id) -> bool {
        match &self.groups[g] {
            Some(Group::Nest(nest) | Group::Product { nest, .. }) => {
                nest.demands.contains_key(&value)
            }
            _ => false,
        }
    }

    /// Values that group `g` reads from memory as they are. Where it wants an array of equal
    /// numbers, one number is enough for all but calls, so that `maker` need not store it.
    fn reads(&self, g: usize, maker: &Op) -> Vec<Id> {
        let number = matches!(maker.kind, Kind::Map(Scalarly::Constant(_)));
        match self.groups[g] {
            Some(Group::Single(op) | Group::Product { op, .. }) => {
                let op = &self.body.ops[op];
                let call = !op.kind.callees().is_empty();
                op.inputs.iter().filter(|_| call || !number).map(|x| x.value).collect()
            }
            _ => Vec::new(),
        }
    }

    fn start(&mut self, at: usize) {
        if let Ok(nest) = Nest::of(self.body, at) {
            let wanted = nest.demands.keys().copied().collect();
            self.add(Group::Nest(nest), at, wanted);
        }
    }

    fn add(&mut self, group: Group, last: usize, wanted: Vec<Id>) {
        let g = self.groups.len();
        self.groups.push(Some(group));
        self.last.push(last);
        wanted.into_iter().for_each(|v| {
            self.wanted_by[v].insert(g);
        });
    }

    /// Computes operation `at` inside group `g` wherever `g` wants it.
    fn try_join(&mut self, g: usize, at: usize) -> bool {
        let Some(inputs) = self.prepare(g, at) else { return false };
        self.commit(g, at, inputs);
        true
    }

    /// Computes operation `at` inside group `g`, which also stores the result for others.
    fn try_store(&mut self, g: usize, at: usize) -> bool {
        let value = self.body.ops[at].outputs[0];
        if !matches!(self.groups[g], Some(Group::Nest(_))) {
            return false;
        }
        let others = self.wanted_by[value].iter().copied().filter(|&w| w != g);
        if self.reaches(others.collect(), g) {
            return false;
        }
        let Some(inputs) = self.prepare(g, at) else { return false };
        let Some(Group::Nest(nest)) = &mut self.groups[g] else { return false };
        let Some([map]) = nest.demands.get(&value).map(Vec::as_slice) else { return false };
        let output = Output::plain(value, map.clone());
        if !nest.may_store(self.body, &output) {
            return false;
        }
        nest.outputs.push(output);
        self.commit(g, at, inputs);
        true
    }

    /// What operation `at` needs inside group `g`; `None` if it can't or should not be there.
    fn prepare(&mut self, g: usize, at: usize) -> Option<Vec<Vec<Map>>> {
        let op = &self.body.ops[at];
        let behind = self.may_stand_behind(g, at);
        let nest = match &mut self.groups[g] {
            Some(Group::Nest(nest)) if nest.may_repeat(self.body, at) => nest,
            Some(Group::Product { nest, .. }) if behind => nest,
            _ => return None,
        };
        let members = nest.members.len() + nest.demands.get(&op.outputs[0]).map_or(0, Vec::len);
        let operands = nest.demands.len() + nest.outputs.len() + op.inputs.len();
        if members > LARGEST_BODY || operands > MOST_OPERANDS {
            return None;
        }
        nest.prepare(self.body, at).ok()
    }

    fn commit(&mut self, g: usize, at: usize, inputs: Vec<Vec<Map>>) {
        let op = &self.body.ops[at];
        let value = op.outputs[0];
        let side = match &mut self.groups[g] {
            Some(Group::Product { op, nest }) => {
                nest.commit(self.body, at, inputs);
                self.body.ops[*op].inputs.iter().any(|x| x.value == value)
            }
            Some(Group::Nest(nest)) => {
                nest.commit(self.body, at, inputs);
                false
            }
            _ => return,
        };
        for x in &op.inputs {
            self.wanted_by[x.value].insert(g);
        }
        if !side {
            self.wanted_by[value].remove(&g);
        }
    }

    /// Whether some group in `from` has to run before group `to`.
    fn reaches(&self, mut from: Vec<usize>, to: usize) -> bool {
        let mut seen: HashSet<usize> = from.iter().copied().collect();
        while let Some(g) = from.pop() {
            if g == to {
                return true;
            }
            // Groups may span others, so the place of their operations says nothing here.
            for value in self.makes(g) {
                from.extend(self.wanted_by[value].iter().copied().filter(|&w| seen.insert(w)));
            }
        }
        false
    }

    /// Values that a group writes.
    fn makes(&self, g: usize) -> Vec<Id> {
        match &self.groups[g] {
            Some(Group::Nest(nest) | Group::Product { nest, .. }) => {
                nest.outputs.iter().map(|o| o.value).collect()
            }
            Some(Group::Single(op)) => self.body.ops[*op].outputs.clone(),
            None => Vec::new(),
        }
    }
}

/// Whether an operation takes about as long as a load.
fn is_light(kind: &Kind) -> bool {
    let Kind::Map(map) = kind else { return false };
    let Scalarly::Apply(op) = map else { return true };
    let elementwise::Kernel::Op(op) = op.kernel else { return false };
    matches!(
        op,
        ScalarOp::Neg
            | ScalarOp::Abs
            | ScalarOp::Sign
            | ScalarOp::Not
            | ScalarOp::Add
            | ScalarOp::Sub
            | ScalarOp::Mul
            | ScalarOp::Max
            | ScalarOp::Min
            | ScalarOp::And
            | ScalarOp::Or
            | ScalarOp::Xor
            | ScalarOp::Eq
            | ScalarOp::Ne
            | ScalarOp::Lt
            | ScalarOp::Le
            | ScalarOp::Gt
            | ScalarOp::Ge
            | ScalarOp::IsFinite
            | ScalarOp::Select
    )
}

impl Nest {
    /// Whether the nest computes no element of an operation's result more often than it is worth:
    /// heavy work may be repeated along the innermost loops only, where a kernel does it once.
    fn may_repeat(&self, body: &Body, at: usize) -> bool {
        let value = body.ops[at].outputs[0];
        let innermost = |map: &Map| {
            let moves = map.strides.iter().rposition(|s| *s != 0).map_or(0, |l| l + 1);
            map.strides[..moves].iter().all(|s| *s != 0)
        };
        is_light(&body.ops[at].kind)
            || matches!(body.ops[at].kind, Kind::Reduce { .. })
            || self.demands.get(&value).is_some_and(|maps| maps.iter().all(innermost))
    }

    /// Whether a new output writes every element of its value, once in every row. Loops that it
    /// does not depend on become columns.
    fn may_store(&mut self, body: &Body, output: &Output) -> bool {
        let still: Vec<bool> = output.map.strides.iter().map(|s| *s == 0).collect();
        if !output.map.covers(&self.loops, body.values[output.value].ty.elements()) {
            return false;
        }
        if !still.contains(&true) {
            return true;
        }
        if self.columns.is_none()
            && self.outputs.iter().all(|o| o.allows(&still))
            && !self.steps_across(&still)
        {
            self.columns = Some(still);
            return true;
        }
        self.columns.as_ref().is_some_and(|c| c.iter().zip(&still).all(|(c, s)| *c || !s))
    }
}
