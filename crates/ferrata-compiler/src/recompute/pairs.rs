//! Forward functions, backward functions, and the values that go from one to the other.

use super::{Work, work};
use ferrata_ir::{Function, Node, Origin, Primitive, Type, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// A forward function and the backward function of the same layers.
pub(super) struct Pair {
    /// The function that calls both: the program or the body of a loop.
    pub home: Arc<Function>,
    /// How often that runs.
    turns: f64,
    pub forward: Arc<Function>,
    pub backward: Arc<Function>,
    /// For each layer the nodes of `home` that call the two.
    pub calls: Vec<(usize, usize)>,
    /// Results of the forward function that only the backward function uses.
    pub links: Vec<Link>,
    /// For each parameter of the backward function, the forward function's value that it is in
    /// every layer.
    pub same: Vec<Option<Value>>,
    /// For each value of the forward function, the node that makes it.
    makers: Vec<Option<usize>>,
    /// The work of each node.
    work: Vec<Work>,
}

/// A value that is kept for the backward function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Which result of the forward function.
    pub result: usize,
    /// Which parameter of the backward function.
    pub parameter: usize,
}

impl Pair {
    /// The forward function's value behind a link.
    pub fn value(&self, link: usize) -> Value {
        self.forward.results()[self.links[link].result]
    }

    /// Bytes that a link keeps, in all layers together.
    pub fn bytes(&self, link: usize) -> usize {
        self.forward.ty(self.value(link)).bytes() * self.calls.len()
    }

    /// Where a link's value is made, and its type.
    pub fn describe(&self, link: usize) -> (Origin, Type) {
        let value = self.value(link);
        let maker = self.maker(value).map(|at| self.forward.nodes()[at].origin.clone());
        (maker.unwrap_or_default(), self.forward.ty(value).clone())
    }

    /// The node that makes a value of the forward function; `None` for parameters.
    pub fn maker(&self, value: Value) -> Option<usize> {
        self.makers[value.index()]
    }

    /// Whether the value behind a link can be made again without side effects.
    pub fn may_repeat(&self, link: usize) -> bool {
        let nodes = self.needed(&|l| l == link);
        nodes.iter().all(|&at| !self.forward.nodes()[at].op.has_effect())
    }

    /// The work in all layers and turns of computing again the links that `again` says.
    pub fn cost(&self, again: &dyn Fn(usize) -> bool) -> Work {
        let layers = self.calls.len() as f64 * self.turns;
        let mut sum = Work::default();
        for at in self.needed(again) {
            sum.flops += self.work[at].flops * layers;
            sum.weight += self.work[at].weight * layers;
        }
        sum
    }

    /// Nodes of the forward function that have to run again.
    pub fn needed(&self, again: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let kept = self.kept(again);
        let mut wanted: Vec<Value> =
            (0..self.links.len()).filter(|&l| again(l)).map(|l| self.value(l)).collect();
        let mut seen = vec![false; self.forward.nodes().len()];
        let mut nodes = Vec::new();
        while let Some(value) = wanted.pop() {
            let Some(at) = self.maker(value).filter(|_| !kept.contains_key(&value)) else {
                continue;
            };
            if !std::mem::replace(&mut seen[at], true) {
                nodes.push(at);
                wanted.extend(&self.forward.nodes()[at].inputs);
            }
        }
        nodes
    }

    /// The forward function's values that the backward function has in its parameters, but for
    /// the links that `again` says.
    pub fn kept(&self, again: &dyn Fn(usize) -> bool) -> HashMap<Value, usize> {
        let gone: Vec<usize> =
            (0..self.links.len()).filter(|&l| again(l)).map(|l| self.links[l].parameter).collect();
        let there = self.same.iter().enumerate().filter(|(p, _)| !gone.contains(p));
        there.filter_map(|(p, value)| value.map(|value| (value, p))).collect()
    }
}

/// All pairs of the program and of the loops in it.
pub(super) fn pairs(program: &Arc<Function>) -> Vec<Pair> {
    let mut homes = Vec::new();
    find_homes(program, 1.0, &mut homes);
    homes.iter().flat_map(|(home, turns)| pairs_in(home, *turns)).collect()
}

/// The function and the bodies of its loops, and how often they run.
fn find_homes(f: &Arc<Function>, turns: f64, homes: &mut Vec<(Arc<Function>, f64)>) {
    if homes.iter().any(|(known, _)| Arc::ptr_eq(known, f)) {
        return;
    }
    homes.push((f.clone(), turns));
    for node in f.nodes() {
        if let Primitive::Scan(scan) = &node.op {
            find_homes(&scan.body, turns * scan.length as f64, homes);
        }
    }
}

/// All pairs that one function calls.
fn pairs_in(home: &Arc<Function>, turns: f64) -> Vec<Pair> {
    let mut calls: Vec<(&Arc<Function>, Vec<usize>)> = Vec::new();
    let mut users: HashMap<Value, Vec<(usize, usize)>> = HashMap::new();
    for (at, node) in home.nodes().iter().enumerate() {
        for (i, &v) in node.inputs.iter().enumerate() {
            users.entry(v).or_default().push((at, i));
        }
        if let Some(f) = callee(node) {
            match calls.iter_mut().find(|(known, _)| Arc::ptr_eq(known, f)) {
                Some((_, sites)) => sites.push(at),
                None => calls.push((f, vec![at])),
            }
        }
    }
    let found = calls.iter().filter(|(_, sites)| sites.len() > 1);
    found.filter_map(|(f, sites)| pair((home, turns), &users, f, sites)).collect()
}

fn callee(node: &Node) -> Option<&Arc<Function>> {
    match &node.op {
        Primitive::Call(c) if c.function.composite.is_none() => Some(&c.function),
        _ => None,
    }
}

/// The pair that a function called at `sites` is the forward half of.
fn pair(
    (home, turns): (&Arc<Function>, f64),
    users: &HashMap<Value, Vec<(usize, usize)>>,
    forward: &Arc<Function>,
    sites: &[usize],
) -> Option<Pair> {
    let nodes = home.nodes();
    // The single user of a result in each layer, and the place among its operands.
    let only_users = |result: usize| -> Option<(Vec<usize>, usize)> {
        let mut at = Vec::new();
        let mut place = None;
        for &site in sites {
            let value = nodes[site].outputs[result];
            let [(user, operand)] = users.get(&value)?.as_slice() else { return None };
            if home.results().contains(&value) || *place.get_or_insert(*operand) != *operand {
                return None;
            }
            at.push(*user);
        }
        Some((at, place?))
    };
    let mut backward: Option<(&Arc<Function>, Vec<usize>)> = None;
    let mut links = Vec::new();
    for result in 0..forward.results().len() {
        if forward.parameters().contains(&forward.results()[result]) {
            continue;
        }
        let Some((at, parameter)) = only_users(result) else { continue };
        let Some(f) = callee(&nodes[at[0]]) else { continue };
        let alike = |&user: &usize| callee(&nodes[user]).is_some_and(|g| Arc::ptr_eq(f, g));
        if Arc::ptr_eq(f, forward) || !at.iter().all(alike) {
            continue;
        }
        match &backward {
            None => backward = Some((f, at)),
            Some((known, sites)) if !Arc::ptr_eq(known, f) || *sites != at => continue,
            Some(_) => {}
        }
        links.push(Link { result, parameter });
    }
    let (backward, back) = backward?;
    // The backward function may be called for other layers too: then it has to stay as it is.
    let mut distinct = back.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let all = nodes.iter().filter(|n| callee(n).is_some_and(|f| Arc::ptr_eq(f, backward))).count();
    if distinct.len() != back.len() || all != back.len() {
        return None;
    }
    let calls: Vec<(usize, usize)> = sites.iter().copied().zip(back).collect();
    let same = (0..backward.parameters().len()).map(|p| same(home, forward, &calls, p)).collect();
    let mut makers = vec![None; forward.value_count()];
    for (at, node) in forward.nodes().iter().enumerate() {
        node.outputs.iter().for_each(|v| makers[v.index()] = Some(at));
    }
    let cost = |node: &Node| {
        let inputs: Vec<&Type> = node.inputs.iter().map(|&v| forward.ty(v)).collect();
        work(&node.op, &inputs)
    };
    let work = forward.nodes().iter().map(cost).collect();
    let (forward, backward) = (forward.clone(), backward.clone());
    let home = home.clone();
    Some(Pair { home, turns, forward, backward, calls, links, same, makers, work })
}

/// The forward function's value that parameter `p` of the backward function is in every layer.
fn same(home: &Function, forward: &Function, calls: &[(usize, usize)], p: usize) -> Option<Value> {
    let nodes = home.nodes();
    let is = |find: &dyn Fn(&Node) -> Value| {
        calls.iter().all(|&(there, here)| nodes[here].inputs[p] == find(&nodes[there]))
    };
    let parameter = (0..forward.parameters().len()).find(|&i| is(&|call| call.inputs[i]));
    let result = || (0..forward.results().len()).find(|&r| is(&|call| call.outputs[r]));
    parameter.map(|i| forward.parameters()[i]).or_else(|| result().map(|r| forward.results()[r]))
}
