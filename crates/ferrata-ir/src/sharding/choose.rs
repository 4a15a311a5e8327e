//! The choice among the ways to cut the loops of a node.

use super::partition::{Body, Partitioner, Version};
use super::pattern::{Linear, Pattern};
use super::reshard;
use super::{Cut, Sharding};
use crate::error::{Error, Result};
use crate::primitive::{Dim, Primitive, ReduceKind};
use crate::program::{Node, Value};

/// A way to cut the loops of a node.
pub(super) struct Candidate {
    pub assigned: Vec<Cut>,
    pub operands: Vec<Sharding>,
    pub results: Vec<Sharding>,
    /// What it costs.
    pub seconds: f64,
}

impl Partitioner<'_> {
    /// The cheapest way to cut the loops of a node among those that how its operands lie, how its
    /// results are wanted, and whole loops suggest. `moved` names a loop that is to be cut along
    /// further axes.
    pub(super) fn choose(
        &self,
        body: &Body,
        node: &Node,
        pattern: &Pattern,
        moved: Option<(usize, &[usize])>,
    ) -> Result<Candidate> {
        let mesh = self.mesh();
        // What suggests cuts, the most important first.
        let mut sources: Vec<Vec<(usize, Cut)>> = Vec::new();
        let wished = |v: Value, dims: &[Dim]| -> Vec<(usize, Cut)> {
            let wishes = body.intents.of(v).iter().zip(dims);
            let cuts = wishes.filter_map(|(wish, dim)| {
                let (cut, _) = wish.as_ref()?;
                pattern.project(mesh, dim, cut)
            });
            cuts.collect()
        };
        for (&v, dims) in node.outputs.iter().zip(&pattern.results) {
            sources.push(wished(v, dims));
        }
        let mut operands: Vec<_> = node.inputs.iter().zip(&pattern.operands).collect();
        operands.sort_by_key(|(v, _)| std::cmp::Reverse(body.ty(**v).bytes()));
        for (&v, dims) in operands {
            for version in &body.versions[v.index()] {
                let cuts = version.lies.sharding.cuts.iter().zip(dims);
                let cuts = cuts.filter_map(|(cut, dim)| pattern.project(mesh, dim, cut));
                sources.push(cuts.collect());
            }
            sources.push(wished(v, dims));
        }
        sources.retain(|cuts| !cuts.is_empty());
        sources.dedup();
        let mut best: Option<Candidate> = None;
        for first in 0..=sources.len() {
            let cuts = sources[first..].iter().chain(&sources[..first]).flatten();
            // The last candidate is whole.
            let cuts: Vec<&(usize, Cut)> =
                if first < sources.len() { cuts.collect() } else { Vec::new() };
            let Some(mut candidate) = self.candidate(body, node, pattern, &cuts, moved) else {
                continue;
            };
            candidate.seconds = self.cost(body, node, pattern, &candidate);
            if best.as_ref().is_none_or(|least| candidate.seconds < least.seconds) {
                best = Some(candidate);
            }
        }
        best.ok_or_else(|| Error::new("cannot be cut over a mesh"))
    }

    /// The node with its loops cut along these, the first of two that exclude each other.
    fn candidate(
        &self,
        body: &Body,
        node: &Node,
        pattern: &Pattern,
        cuts: &[&(usize, Cut)],
        moved: Option<(usize, &[usize])>,
    ) -> Option<Candidate> {
        let mesh = self.mesh();
        let mut assigned = vec![Cut::whole(); pattern.factors.len()];
        for (factor, cut) in cuts {
            let taken = |axis: &usize| assigned.iter().any(|c: &Cut| c.axes.contains(axis));
            if !assigned[*factor].is_whole() || cut.axes.iter().any(taken) {
                continue;
            }
            assigned[*factor] = cut.clone();
            let all = pattern.operands.iter().chain(&pattern.results);
            if all.clone().any(|dims| pattern.lift_all(mesh, dims, &assigned).is_none())
                || self.unaddressable(node, pattern, *factor, cut)
            {
                assigned[*factor] = Cut::whole();
            }
        }
        for (factor, axis) in moved.iter().flat_map(|(f, axes)| axes.iter().map(move |&a| (*f, a)))
        {
            let mut cut = assigned[factor].clone();
            let taken = assigned.iter().any(|c: &Cut| c.axes.contains(&axis));
            cut.axes.push(axis);
            if !taken && cut.fits(mesh, pattern.factors[factor].size) {
                assigned[factor] = cut.canonical(mesh, pattern.factors[factor].size);
            }
        }
        let cuts_of = |dims| pattern.lift_all(mesh, dims, &assigned);
        let operands = pattern.operands.iter().map(|dims| cuts_of(dims));
        let operands: Vec<Vec<Cut>> = operands.collect::<Option<_>>()?;
        let results = pattern.results.iter().map(|dims| cuts_of(dims));
        let results: Vec<Vec<Cut>> = results.collect::<Option<_>>()?;
        let mut partial: Vec<(usize, ReduceKind)> = Vec::new();
        for (factor, cut) in pattern.factors.iter().zip(&assigned) {
            if let Some(kind) = factor.reduced {
                partial.extend(cut.axes.iter().map(|&axis| (axis, kind)));
            }
        }
        // Partial operands that may stay so: sums, over axes that cut no loop, that nobody has had
        // to combine yet.
        let mut operand_partial = vec![Vec::new(); operands.len()];
        let used = |axis: &usize| assigned.iter().any(|cut| cut.axes.contains(axis));
        let combined = |x: &Version| x.lies.sharding.partial.is_empty();
        let staying = |v: Value| -> Vec<(usize, ReduceKind)> {
            let partial = &body.first(v).lies.sharding.partial;
            let may_stay =
                |(axis, kind): &(usize, ReduceKind)| *kind == ReduceKind::Sum && !used(axis);
            let known = body.needed[v.index()] || body.versions[v.index()].iter().any(combined);
            if known || !partial.iter().all(may_stay) { Vec::new() } else { partial.clone() }
        };
        let stays = match (pattern.linear, node.inputs.as_slice()) {
            (Linear::First, [x, ..]) => {
                operand_partial[0] = staying(*x);
                operand_partial[0].clone()
            }
            (Linear::All, inputs) => {
                let mut stays: Vec<(usize, ReduceKind)> =
                    inputs.iter().flat_map(|&v| staying(v)).collect();
                stays.sort_by_key(|&(axis, _)| axis);
                stays.dedup();
                let alike = |&v: &Value| staying(v) == stays;
                // Of numbers, those that are whole are held by one rank for all.
                let numbers = inputs.iter().all(|&v| body.ty(v).rank() == 0);
                if numbers || inputs.iter().all(alike) {
                    operand_partial.iter_mut().for_each(|p| p.clone_from(&stays));
                    stays
                } else {
                    Vec::new()
                }
            }
            (Linear::Either, &[x, y]) => match (staying(x), staying(y)) {
                (left, right) if right.is_empty() && combined(body.first(y)) => {
                    operand_partial[0] = left.clone();
                    left
                }
                (left, right) if left.is_empty() && combined(body.first(x)) => {
                    operand_partial[1] = right.clone();
                    right
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        // A sum into an operand: only one rank brings what is there already.
        if let Primitive::Scatter(_) = node.op {
            operand_partial[0].clone_from(&partial);
        }
        partial.extend(stays);
        partial.sort_by_key(|&(axis, _)| axis);
        partial.dedup();
        let with = |(cuts, mut partial): (Vec<Cut>, Vec<(usize, ReduceKind)>)| {
            partial.sort_by_key(|&(axis, _)| axis);
            Sharding { cuts, partial, stage: body.stage }
        };
        Some(Candidate {
            assigned,
            operands: operands.into_iter().zip(operand_partial).map(with).collect(),
            results: results.into_iter().map(|cuts| with((cuts, partial.clone()))).collect(),
            seconds: f64::INFINITY,
        })
    }

    /// Whether indices cannot address a dimension that is cut so.
    fn unaddressable(&self, node: &Node, pattern: &Pattern, factor: usize, cut: &Cut) -> bool {
        let batch = match &node.op {
            Primitive::Gather(g) => g.batch,
            Primitive::Scatter(s) => s.batch,
            _ => return false,
        };
        let addressed = pattern.operands[0].get(batch) == Some(&Dim::Factor(factor));
        addressed && cut.blocks != 1
    }

    /// Seconds of moving the operands, of computing, and of what becomes of the results.
    fn cost(&self, body: &Body, node: &Node, pattern: &Pattern, candidate: &Candidate) -> f64 {
        let mesh = self.mesh();
        let moving = |v: Value, to: &Sharding| {
            let cost =
                |x: &Version| reshard::cost(mesh, &self.rates, body.ty(v), &x.lies.sharding, to).1;
            body.versions[v.index()].iter().map(cost).fold(f64::INFINITY, f64::min)
        };
        let mut seconds = 0.0;
        let mut bytes = 0.0;
        for (&v, to) in node.inputs.iter().zip(&candidate.operands) {
            seconds += moving(v, to);
            bytes += reshard::part_of(mesh, body.ty(v), to);
        }
        for (&v, made) in node.outputs.iter().zip(&candidate.results) {
            bytes += reshard::part_of(mesh, body.ty(v), made);
            let mut target = Sharding { partial: Vec::new(), ..made.clone() };
            for (d, wish) in body.intents.of(v).iter().enumerate() {
                let Some((cut, _)) = wish else { continue };
                let elsewhere = |axis: &usize| {
                    let others = target.cuts.iter().enumerate();
                    others.into_iter().any(|(e, c)| e != d && c.axes.contains(axis))
                };
                if !cut.axes.iter().any(elsewhere) {
                    target.cuts[d] = cut.clone();
                }
            }
            seconds += reshard::cost(mesh, &self.rates, body.ty(v), made, &target).1;
        }
        let operations = pattern.operations * pattern.points(mesh, &candidate.assigned);
        seconds + self.rates.compute(operations, bytes)
    }
}
