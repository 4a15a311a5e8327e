//! Which values the backward pass computes again instead of keeping them.
//!
//! A repeated layer is, after differentiation, a function that is called many times and returns
//! beside its results what its backward function needs: values that stay in memory from one to the
//! other. Any of them can be left out and computed again, in the backward function just before it
//! is used, from the layer's operands and the values that stay. All sets of them are weighed by
//! the bytes that they give back and the work that they cost; of the sets that cost least for
//! what they give, the first whose plan fits into the memory is taken.
//!
//! | file | what |
//! |---|---|
//! | `pairs` | forward functions, backward functions, and the values between them |
//! | `rewrite` | the program without some of these values |

mod pairs;
mod rewrite;

use crate::compile::{optimized, plan_of};
use crate::device::Device;
use ferrata_ir::{Error, Function, Origin, Primitive, Result, Type};
use pairs::{Pair, pairs};
use rewrite::without;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// A program in which some values are computed again, and what that gives and costs.
#[derive(Clone, Debug)]
pub struct Recomputation {
    /// The program to compile.
    pub program: Arc<Function>,
    /// Bytes that the plan of the original program occupies.
    pub peak_without: usize,
    /// Bytes that the plan of the new program occupies.
    pub peak: usize,
    /// Scalar operations of one run that are done again.
    pub flops: f64,
    /// What is computed again in every layer: where it comes from, its type, and in how many
    /// layers.
    pub values: Vec<(Origin, Type, usize)>,
}

/// How much longer a step may take for values that are computed again unasked.
const FREE: f64 = 0.005;
/// More values than this are not weighed against each other: the largest are.
const CANDIDATES: usize = 8;
/// A value of fewer bytes than this share of the largest is always kept.
const SMALL: usize = 64;
/// Operations of a product that take as long as one of another kind.
const WEIGHT: f64 = 16.0;

/// Chooses what to compute again, so that the plan fits into `budget` bytes at the least cost;
/// without a budget only what costs next to nothing. Inputs marked `donated` may be overwritten.
///
/// # Errors
/// As [`crate::compile()`]; when the budget is too small, with the least that is possible.
pub fn recompute(
    program: &Arc<Function>,
    donated: &[bool],
    device: &dyn Device,
    budget: Option<usize>,
) -> Result<Recomputation> {
    let simple = optimized(program, device)?;
    let peak_without = plan_of(&simple, donated)?.bytes();
    let pairs = pairs(&simple);
    let sets = worthwhile(&pairs);
    let try_set = |set: &Set| -> Result<Recomputation> {
        let again = |p: usize, link: usize| set.values.contains(&(p, link));
        let flops = pairs.iter().enumerate().map(|(p, pair)| pair.cost(&|l| again(p, l)).flops);
        let value = |&(p, l): &(usize, usize)| {
            let (origin, ty) = pairs[p].describe(l);
            (origin, ty, pairs[p].calls.len())
        };
        let program = match set.values.is_empty() {
            true => program.clone(),
            false => without(&simple, &pairs, &again)?,
        };
        let peak = plan_of(&optimized(&program, device)?, donated)?.bytes();
        let values = set.values.iter().map(value).collect();
        Ok(Recomputation { program, peak_without, peak, flops: flops.sum(), values })
    };
    let Some(budget) = budget else {
        let limit = FREE * weight(&simple, &mut HashMap::new());
        let free = sets.iter().rev().find(|set| set.weight <= limit);
        let found = try_set(free.unwrap_or(&Set::default()))?;
        return if found.peak < peak_without { Ok(found) } else { try_set(&Set::default()) };
    };
    let all = try_set(&sets[0])?;
    if all.peak <= budget {
        return Ok(all);
    }
    // Sets that give back more come later: halve until the first that fits.
    let (mut low, mut high) = (1, sets.len());
    let (mut fits, mut least) = (None, all.peak);
    while low < high {
        let middle = (low + high) / 2;
        let tried = try_set(&sets[middle])?;
        least = least.min(tried.peak);
        if tried.peak <= budget {
            (high, fits) = (middle, Some(tried));
        } else {
            low = middle + 1;
        }
    }
    fits.ok_or_else(|| {
        let (least, allowed) = (megabytes(least), megabytes(budget));
        Error::new(format!("the program needs {least} and is allowed {allowed} of memory"))
            .help(format!("allow {least}, or use a smaller batch or a shorter context"))
    })
}

/// Bytes for people, rounded up.
fn megabytes(bytes: usize) -> String {
    format!("{}MB", bytes.div_ceil(1_000_000))
}

/// Values that are computed again: pair and link.
#[derive(Clone, Debug, Default)]
struct Set {
    values: Vec<(usize, usize)>,
    bytes: usize,
    weight: f64,
}

/// The sets that no other beats, by rising bytes that they give back; the first is empty.
fn worthwhile(pairs: &[Pair]) -> Vec<Set> {
    let all = pairs.iter().enumerate();
    let mut candidates: Vec<(usize, usize, usize)> = all
        .flat_map(|(p, pair)| (0..pair.links.len()).map(move |l| (pair.bytes(l), p, l)))
        .filter(|&(_, p, l)| pairs[p].may_repeat(l))
        .collect();
    candidates.sort_by_key(|&(bytes, p, l)| (std::cmp::Reverse(bytes), p, l));
    let largest = candidates.first().map_or(0, |c| c.0);
    candidates.retain(|c| c.0 * SMALL >= largest);
    candidates.truncate(CANDIDATES);
    let mut sets: Vec<Set> = (0..1usize << candidates.len())
        .map(|mask| {
            let chosen = candidates.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
            let values: Vec<(usize, usize)> = chosen.map(|(_, &(_, p, l))| (p, l)).collect();
            let bytes = values.iter().map(|&(p, l)| pairs[p].bytes(l)).sum();
            let cost = |(p, pair): (usize, &Pair)| pair.cost(&|l| values.contains(&(p, l))).weight;
            let weight = pairs.iter().enumerate().map(cost).sum();
            Set { values, bytes, weight }
        })
        .collect();
    let by_weight = |a: &Set, b: &Set| a.weight.partial_cmp(&b.weight).unwrap_or(Ordering::Equal);
    sets.sort_by(|a, b| by_weight(a, b).then(b.bytes.cmp(&a.bytes)));
    let mut most = None;
    sets.retain(|set| {
        let better = most.is_none_or(|most| set.bytes > most);
        most = most.max(Some(set.bytes));
        better
    });
    if sets.first().is_none_or(|set| !set.values.is_empty()) {
        sets.insert(0, Set::default());
    }
    sets
}

/// Work that is done again.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    flops: f64,
    /// In operations of a product.
    weight: f64,
}

/// The work of a node: views cost nothing, a claimed composite what its body does.
fn work(op: &Primitive, inputs: &[&Type]) -> Work {
    if let Primitive::Call(call) = op {
        let mut sum = Work::default();
        for node in call.function.nodes() {
            let inputs: Vec<&Type> = node.inputs.iter().map(|&v| call.function.ty(v)).collect();
            let inner = work(&node.op, &inputs);
            sum = Work { flops: sum.flops + inner.flops, weight: sum.weight + inner.weight };
        }
        return sum;
    }
    let flops = op.rules().loops(inputs).map_or(0.0, |loops| loops.flops());
    let weight = if matches!(op, Primitive::Dot(_)) { flops } else { WEIGHT * flops };
    Work { flops, weight }
}

/// The work of a whole program, in operations of a product.
fn weight(f: &Arc<Function>, known: &mut HashMap<*const Function, f64>) -> f64 {
    if let Some(found) = known.get(&Arc::as_ptr(f)) {
        return *found;
    }
    let mut sum = 0.0;
    for node in f.nodes() {
        sum += match &node.op {
            Primitive::Call(call) if call.function.composite.is_none() => {
                weight(&call.function, known)
            }
            Primitive::Scan(scan) => scan.length as f64 * weight(&scan.body, known),
            op => {
                let inputs: Vec<&Type> = node.inputs.iter().map(|&v| f.ty(v)).collect();
                work(op, &inputs).weight
            }
        };
    }
    known.insert(Arc::as_ptr(f), sum);
    sum
}
