//! Attention whose positions are cut: how queries get to keys of other ranks.

use super::partition::{Body, Partitioner, Placement, Reshard};
use super::pattern::{Cutting, attention};
use super::ring::Ring;
use super::{Cut, Sharding, reshard};
use crate::composite::attention::Plan;
use crate::error::Result;
use crate::primitive::Call;
use crate::program::{Node, Value};

/// How attention works where positions are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContextParallel {
    /// A ring or an exchange, whichever can be and costs less.
    #[default]
    Cheapest,
    /// Keys and values go around the ranks, each of which computes with those that it has (Liu et
    /// al. 2023). Without masks and lengths, and if there are as many queries as keys.
    Ring,
    /// Positions are exchanged for heads, if there are enough of these (Jacobs et al. 2023).
    Exchange,
    /// Every rank gets all keys and values.
    Gather,
}

impl ContextParallel {
    /// All of them.
    pub const ALL: [ContextParallel; 4] = [
        ContextParallel::Cheapest,
        ContextParallel::Ring,
        ContextParallel::Exchange,
        ContextParallel::Gather,
    ];
}

crate::words!(
    ContextParallel, "way of attention to positions of other ranks":
    Cheapest => "cheapest", Ring => "ring", Exchange => "exchange", Gather => "gather"
);

/// How operands and results of an attention lie for one of the ways.
pub(super) struct Way {
    pub operands: Vec<Sharding>,
    pub results: Vec<Sharding>,
    /// If keys and values go around.
    pub ring: Option<Ring>,
    seconds: f64,
}

impl Partitioner<'_> {
    /// How a call runs if it is an attention without a mask: the way that is asked for, else the
    /// cheapest. `None` if its body is cut as any other function.
    pub(super) fn attention(&self, body: &Body, node: &Node, call: &Call) -> Result<Option<Way>> {
        let exchange = self.by_heads(body, node, call)?;
        let queries = &body.first(node.inputs[0]).lies.sharding;
        if queries.cuts.get(2).is_none_or(Cut::is_whole) {
            return Ok(exchange);
        }
        let ring = self.by_ring(body, node, call)?;
        let found = match self.context {
            ContextParallel::Gather => None,
            ContextParallel::Ring => ring.or(exchange),
            ContextParallel::Exchange => exchange.or(ring),
            ContextParallel::Cheapest => {
                let ways = ring.into_iter().chain(exchange);
                ways.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
            }
        };
        Ok(found)
    }

    /// So that every rank has all positions of some heads; `None` if there are too few heads.
    fn by_heads(&self, body: &Body, node: &Node, call: &Call) -> Result<Option<Way>> {
        let Some(composite) = &call.function.composite else { return Ok(None) };
        let (inputs, outputs) = (call.function.parameter_types(), call.function.result_types());
        let Some((pattern, groups)) = attention(composite, &inputs, &outputs, Cutting::Heads)
        else {
            return Ok(None);
        };
        let query = &body.first(node.inputs[0]).lies.sharding;
        let positions = query.cuts[2].axes.clone();
        let best = self.choose(body, node, &pattern, Some((groups, &positions)))?;
        let used = |axis: &usize| best.assigned.iter().any(|cut| cut.axes.contains(axis));
        Ok(positions.iter().all(used).then_some(Way {
            operands: best.operands,
            results: best.results,
            ring: None,
            seconds: best.seconds,
        }))
    }

    /// So that positions stay where they are; `None` if they cannot.
    fn by_ring(&self, body: &Body, node: &Node, call: &Call) -> Result<Option<Way>> {
        let Some(composite) = &call.function.composite else { return Ok(None) };
        let (inputs, outputs) = (call.function.parameter_types(), call.function.result_types());
        let found = attention(composite, &inputs, &outputs, Cutting::Positions);
        let (Some((pattern, positions)), Some(plan)) = (found, Plan::of(composite)) else {
            return Ok(None);
        };
        let best = self.choose(body, node, &pattern, None)?;
        let (cut, place) = (&best.assigned[positions], &self.place);
        let size = pattern.factors[positions].size;
        let Some(ring) = Ring::new(plan, place.mesh, place.rank, cut, size) else {
            return Ok(None);
        };
        // While the others wait for the rank with the most to do, what is sent is on its way.
        let points = pattern.points(self.mesh(), &best.assigned);
        let computing = self.rates.compute(pattern.operations * points, 0.0);
        let edges = self.around(body, node, &best.operands, &ring);
        let sending: f64 = edges.iter().map(|edge| edge.seconds).sum();
        let longest = sending.max(computing * ring.imbalance());
        Ok(Some(Way {
            seconds: best.seconds + longest - computing,
            operands: best.operands,
            results: best.results,
            ring: Some(ring),
        }))
    }

    /// What goes around: keys and values, and in the backward pass sums of their gradients.
    fn around(&self, body: &Body, node: &Node, operands: &[Sharding], ring: &Ring) -> Vec<Reshard> {
        let edge = |(&v, lies): (&Value, &Sharding), home: bool| {
            let mut ty = body.ty(v).clone();
            if home {
                ty.dtype = ty.dtype.accumulator();
            }
            let (blocks, part) = (ring.sent(home), reshard::part_of(self.mesh(), &ty, lies));
            Reshard {
                wanted_by: "ring attention".to_owned(),
                origin: node.origin.clone(),
                ty,
                from: lies.clone(),
                to: lies.clone(),
                bytes: blocks * part,
                seconds: blocks * self.rates.collective(part),
                times: 1,
            }
        };
        let pair = || node.inputs.iter().zip(operands).skip(1).take(2);
        let backward = node.inputs.len() > 3;
        let gradients = pair().filter(|_| backward).map(|x| edge(x, true));
        pair().map(|x| edge(x, false)).chain(gradients).collect()
    }

    /// Emits an attention around a ring.
    pub(super) fn ring(
        &self,
        body: &mut Body,
        node: &Node,
        way: &Way,
        ring: &Ring,
        operands: Option<Vec<Value>>,
    ) -> Result<()> {
        let edges = self.around(body, node, &way.operands, ring);
        body.reshards.extend(edges.into_iter().filter(|edge| edge.bytes > 0.0));
        body.same = false;
        let here = operands.filter(|_| body.here);
        let made = here.map(|x| ring.emit(&mut body.b, &x)).transpose()?;
        for (i, (&v, lies)) in node.outputs.iter().zip(&way.results).enumerate() {
            body.set(v, Placement::data(lies.clone()), made.as_ref().map(|made| made[i]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_ways() {
        for way in ContextParallel::ALL {
            assert_eq!(way.to_string().parse::<ContextParallel>().unwrap(), way);
        }
        let error = "square".parse::<ContextParallel>().unwrap_err().to_string();
        assert!(error.contains("`square` is no way of attention"), "{error}");
    }
}
