//! The elementwise work behind a product that is done while its result is stored.

use super::{Fuser, Group};
use crate::body::{Id, Kind, Scalarly};
use crate::nest::{Nest, Output};
use crate::strided::Refusal;
use std::collections::BTreeSet;

/// More operations than this don't go behind a product.
const LONGEST: usize = 48;
/// More operands than this don't go behind a product.
const MOST_LOADS: usize = 8;

impl Fuser<'_> {
    /// Gives every product the longest stretch of work behind it that ends in one value, or in
    /// values that have to be in memory in any case.
    pub(super) fn find_epilogues(&mut self) {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.body.values.len()];
        for (at, op) in self.body.ops.iter().enumerate() {
            op.inputs.iter().for_each(|x| users[x.value].push(at));
        }
        for at in 0..self.body.ops.len() {
            let op = &self.body.ops[at];
            let float = self.body.dtype(op.outputs.first().copied().unwrap_or(0)).is_float();
            if matches!(op.kind, Kind::Dot(_)) && float {
                self.find_epilogue(at, &users);
            }
        }
    }

    fn find_epilogue(&mut self, product: usize, users: &[Vec<usize>]) {
        let mut region: Vec<usize> = Vec::new();
        let mut ends: Vec<(usize, Vec<Id>)> = Vec::new();
        let mut inside: BTreeSet<Id> = self.body.ops[product].outputs.iter().copied().collect();
        let mut next: BTreeSet<usize> =
            users[self.body.ops[product].outputs[0]].iter().copied().collect();
        while let Some(at) = next.pop_first() {
            if region.len() == LONGEST || !self.may_follow(product, at, &inside) {
                break;
            }
            region.push(at);
            let out = self.body.ops[at].outputs[0];
            inside.insert(out);
            next.extend(&users[out]);
            let outside = |v: &Id| users[*v].iter().filter(|u| !region.contains(u));
            let open: Vec<Id> = inside
                .iter()
                .copied()
                .filter(|v| self.is_result[*v] || outside(v).next().is_some())
                .collect();
            // What others make of an open value must not come before work that may wait for it.
            let stored = |v: &Id| {
                let used = outside(v).any(|&u| self.is_memory_op(u));
                (self.is_result[*v] || used) && outside(v).all(|&u| u > at)
            };
            if open == [out] || (open.contains(&out) && open.iter().all(stored)) {
                ends.push((region.len(), open));
            }
        }
        for (end, open) in ends.into_iter().rev() {
            if self.take_epilogue(product, &region[..end], &open) {
                return;
            }
        }
    }

    /// Whether an operation reads its operands from memory as they are.
    fn is_memory_op(&self, at: usize) -> bool {
        !matches!(self.body.ops[at].kind, Kind::Map(_) | Kind::Reduce { .. })
    }

    /// Whether an operation can be done element by element while a product is stored.
    fn may_follow(&self, product: usize, at: usize, inside: &BTreeSet<Id>) -> bool {
        let op = &self.body.ops[at];
        let Kind::Map(map) = &op.kind else { return false };
        let elements = |v: Id| self.body.values[v].ty.elements();
        let number = |v: Id| {
            let maker = self.body.maker(v).map(|m| &m.kind);
            matches!(maker, Some(Kind::Map(Scalarly::Constant(_))))
        };
        let free = |v: Id| self.body.values[v].maker.is_some_and(|m| self.free[m]);
        let same = elements(op.outputs[0]) == elements(self.body.ops[product].outputs[0]);
        let known = |v: Id| inside.contains(&v) || number(v) || !free(v);
        matches!(map, Scalarly::Apply(_) | Scalarly::Cast | Scalarly::Copy)
            && !self.placed[at]
            && same
            && op.inputs.iter().all(|x| known(x.value))
    }

    /// Whether what feeds the work behind the product of group `g` can be computed there too:
    /// once for each element, and without indices, which a product does not know.
    pub(super) fn may_stand_behind(&self, g: usize, at: usize) -> bool {
        let Some(Group::Product { nest, .. }) = &self.groups[g] else { return false };
        let op = &self.body.ops[at];
        let Kind::Map(map) = &op.kind else { return false };
        if matches!(map, Scalarly::Constant(_)) {
            return true;
        }
        let value = op.outputs[0];
        let index = |v: Id| {
            let maker = self.body.values[v].maker;
            let number =
                |m: usize| matches!(self.body.ops[m].kind, Kind::Map(Scalarly::Constant(_)));
            maker.is_some_and(|m| self.free[m] && !number(m))
        };
        // Numbers become instructions in the end; what else is wanted is loaded.
        let loaded = |v: &Id| !self.body.values[*v].maker.is_some_and(|m| self.free[m]);
        let mut loads: BTreeSet<Id> = nest.demands.keys().copied().filter(loaded).collect();
        loads.extend(op.inputs.iter().map(|x| x.value).filter(loaded));
        loads.remove(&value);
        matches!(map, Scalarly::Apply(_) | Scalarly::Cast)
            && !self.free[at]
            && !op.inputs.iter().any(|x| index(x.value))
            && nest.members.len() < LONGEST
            && loads.len() <= MOST_LOADS
            && nest.covers(self.body, value).is_some()
    }

    fn take_epilogue(&mut self, product: usize, region: &[usize], open: &[Id]) -> bool {
        let result = self.body.ops[product].outputs[0];
        let Some(&last) = region.last() else { return false };
        let value = self.body.ops[last].outputs[0];
        let mut nest = Nest::storing(value, &self.body.values[value].ty.shape);
        let body = self.body;
        let store = |nest: &mut Nest, v: Id| {
            let wanted = v != value && open.contains(&v);
            let map = if wanted { nest.covers(body, v).cloned() } else { None };
            nest.outputs.extend(map.map(|map| Output::plain(v, map)));
        };
        let joined = region.iter().rev().all(|&at| {
            store(&mut nest, body.ops[at].outputs[0]);
            nest.join(body, at).is_ok()
        });
        store(&mut nest, result);
        let stored = nest.outputs.len() == open.len();
        let loads = nest.demands.values().map(Vec::len).sum::<usize>();
        // Each loop has to be one of the product's own.
        let shape = &self.body.values[result].ty.shape;
        let own = nest.splitting(|n| {
            let map = n.covers(self.body, result).ok_or(Refusal::Never)?;
            map.indices(&n.loops, shape)
        });
        if !joined || !stored || own.is_err() || loads > MOST_LOADS {
            return false;
        }
        region.iter().for_each(|&at| self.placed[at] = true);
        self.placed[product] = true;
        let sides = self.body.ops[product].inputs.iter().map(|x| x.value);
        let behind = nest.demands.keys().copied().filter(|&v| v != result);
        let wanted = sides.chain(behind).collect();
        self.add(Group::Product { op: product, nest }, last, wanted);
        true
    }
}
