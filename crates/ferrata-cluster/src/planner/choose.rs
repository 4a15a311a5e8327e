//! What to compute again, cut and share of each layer, so that a stage fits into the memory at the
//! least time: dynamic programming over its layers and the memory that is left.

use ferrata_ir::Result;

use super::{Fixed, USABLE};
use crate::hardware::Cluster;
use crate::model::{Model, Part};
use crate::step::{Choice, Step};

/// Into how many pieces the memory is divided.
const PIECES: usize = 256;

/// A choice for one layer, and what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priced {
    pub choice: Choice,
    /// Seconds of all microbatches.
    pub seconds: f64,
    /// Bytes.
    pub bytes: f64,
    /// Bytes that its backward pass needs beside them.
    pub working: f64,
}

/// The choices for all layers. Where nothing fits, those that need least.
pub(super) fn choose(
    cluster: &Cluster,
    model: &Model,
    step: &Step,
    fixed: &Fixed,
) -> Result<Vec<Choice>> {
    let layout = step.layout();
    let depth = layout.mesh.pipeline;
    let parts: Vec<&Part> = model.parts().collect();
    let mut choices = vec![Choice::default(); parts.len()];
    let mut starts = Vec::with_capacity(step.chunks().len());
    let mut at = 0;
    for &layers in step.chunks() {
        starts.push(at);
        at += layers;
    }
    let mut known: Vec<((usize, usize), Vec<Choice>)> = Vec::new();
    for stage in 0..depth {
        let layers: Vec<usize> = (stage..starts.len())
            .step_by(depth)
            .flat_map(|chunk| starts[chunk]..starts[chunk] + step.chunks()[chunk])
            .collect();
        let ends = stage == 0 || stage + 1 == depth;
        // Stages in the middle with as many layers and microbatches in flight are the same.
        let key = (layers.len(), step.in_flight(stage) as usize);
        let equal = model.layers.len() == 1 && !ends;
        let found = known.iter().find(|(k, _)| equal && *k == key).map(|(_, found)| found.clone());
        let chosen = match found {
            Some(chosen) => chosen,
            None => {
                let limit = cluster.accelerator.memory * USABLE - step.ends_bytes(stage)?;
                let prices = layers
                    .iter()
                    .map(|&layer| priced(cluster, step, parts[layer], stage, fixed))
                    .collect::<Result<Vec<_>>>()?;
                let chosen = within(&prices, limit, step.reshard() * step.microbatches() as f64);
                if equal {
                    known.push((key, chosen.clone()));
                }
                chosen
            }
        };
        layers.iter().zip(chosen).for_each(|(&layer, choice)| choices[layer] = choice);
    }
    Ok(choices)
}

/// What each choice for a layer takes.
fn priced(
    cluster: &Cluster,
    step: &Step,
    part: &Part,
    stage: usize,
    fixed: &Fixed,
) -> Result<Vec<Priced>> {
    let layout = step.layout();
    let microbatches = step.microbatches() as f64;
    let kept = step.in_flight(stage) / layout.interleave as f64;
    let size = layout.mesh.replicas().size as f64;
    let shares: &[bool] = match layout.zero {
        _ if fixed.zero.is_some() => &[false],
        1 | 2 => &[false, true],
        _ => &[false],
    };
    let cuts = match layout.mesh.tensor {
        1 => vec![false],
        _ => fixed.sequence_parallel(),
    };
    let mut all = Vec::new();
    for recompute in fixed.recompute() {
        for &sequence_parallel in &cuts {
            for &shared in shares {
                let sharded = shared || layout.zero >= 3;
                let choice = Choice { recompute, sequence_parallel, sharded };
                let cost = step.layer(part, choice)?;
                let software = &cluster.software;
                let divided = |by: bool| if by { size } else { 1.0 };
                let state = software.weight_bytes / divided(sharded)
                    + software.gradient_bytes / divided(layout.zero >= 2)
                    + software.optimizer_bytes / divided(layout.zero >= 1);
                all.push(Priced {
                    choice,
                    seconds: cost.total() * microbatches,
                    bytes: cost.weights * state + cost.kept * kept,
                    working: cost.working,
                });
            }
        }
    }
    Ok(all)
}

/// The fastest choices whose bytes stay below `limit`; a change of cuts from one layer to the next
/// takes `edge` seconds.
pub(super) fn within(prices: &[Vec<Priced>], limit: f64, edge: f64) -> Vec<Choice> {
    // If everything fits as it is fastest, nothing has to be weighed.
    let fastest: Vec<&Priced> = prices
        .iter()
        .filter_map(|p| p.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds)))
        .collect();
    let working = |chosen: &[&Priced]| chosen.iter().map(|p| p.working).fold(0.0, f64::max);
    let bytes = |chosen: &[&Priced]| chosen.iter().map(|p| p.bytes).sum::<f64>() + working(chosen);
    let alike =
        fastest.windows(2).all(|w| w[0].choice.sequence_parallel == w[1].choice.sequence_parallel);
    if alike && bytes(&fastest) <= limit {
        return fastest.into_iter().map(|p| p.choice).collect();
    }
    // What recomputation needs while a layer is computed again is the same for any number of such
    // layers, so each bound on it is tried.
    let mut bounds: Vec<f64> = prices.iter().flatten().map(|p| p.working).collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    let tried = bounds.iter().filter_map(|&bound| weighed(prices, limit - bound, bound, edge));
    let best = tried.min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, choices)| choices).unwrap_or_else(|| {
        let smallest = |p: &Vec<Priced>| {
            p.iter()
                .min_by(|a, b| (a.bytes + a.working).total_cmp(&(b.bytes + b.working)))
                .map(|p| p.choice)
        };
        prices.iter().filter_map(smallest).collect()
    })
}

/// The fastest choices of those that need no more than `bound` while they are computed again.
fn weighed(
    prices: &[Vec<Priced>],
    limit: f64,
    bound: f64,
    edge: f64,
) -> Option<(f64, Vec<Choice>)> {
    if limit <= 0.0 {
        return None;
    }
    let piece = limit / PIECES as f64;
    // For each cut of the last layer and each memory in use: time, and how it came about.
    let mut best = vec![[f64::INFINITY; 2]; PIECES + 1];
    best[0] = [0.0; 2];
    let mut from: Vec<Vec<[(usize, usize, usize); 2]>> = Vec::with_capacity(prices.len());
    // Bytes are rounded down, with what is lost carried on, so that many small layers do not seem
    // larger than they are.
    let mut exact = vec![[0.0f64; 2]; PIECES + 1];
    for (layer, options) in prices.iter().enumerate() {
        let mut next = vec![[f64::INFINITY; 2]; PIECES + 1];
        let mut bytes = vec![[0.0f64; 2]; PIECES + 1];
        let mut how = vec![[(0, 0, 0); 2]; PIECES + 1];
        for used in 0..=PIECES {
            for cut in 0..2 {
                let time = best[used][cut];
                if time.is_infinite() || layer == 0 && cut == 1 {
                    continue;
                }
                for (i, option) in options.iter().enumerate().filter(|(_, p)| p.working <= bound) {
                    let own = usize::from(option.choice.sequence_parallel);
                    let sum = exact[used][cut] + option.bytes;
                    if sum > limit {
                        continue;
                    }
                    let place = (sum / piece) as usize;
                    let change = if layer > 0 && own != cut { edge } else { 0.0 };
                    let total = time + option.seconds + change;
                    if total < next[place][own] {
                        next[place][own] = total;
                        bytes[place][own] = sum;
                        how[place][own] = (used, cut, i);
                    }
                }
            }
        }
        (best, exact) = (next, bytes);
        from.push(how);
    }
    let ends = (0..=PIECES).flat_map(|used| [(used, 0), (used, 1)]);
    let (mut used, mut cut) = ends
        .filter(|&(used, cut)| best[used][cut].is_finite())
        .min_by(|a, b| best[a.0][a.1].total_cmp(&best[b.0][b.1]))?;
    let time = best[used][cut];
    let mut choices = Vec::with_capacity(prices.len());
    for (how, options) in from.iter().zip(prices).rev() {
        let (before, cut_before, i) = how[used][cut];
        choices.push(options[i].choice);
        (used, cut) = (before, cut_before);
    }
    choices.reverse();
    Some((time, choices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Recompute;

    #[test]
    fn choices_are_nearly_the_best_of_all() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        for round in 0..200 {
            let prices: Vec<Vec<Priced>> = (0..6)
                .map(|_| {
                    let option = |(i, recompute): (usize, Recompute)| Priced {
                        choice: Choice { recompute, sequence_parallel: i % 2 == 1, sharded: false },
                        seconds: 1.0 + random(),
                        bytes: 1.0 + 3.0 * random(),
                        working: 0.0,
                    };
                    let all = Recompute::ALL.into_iter().chain([Recompute::None]);
                    all.enumerate().map(option).collect()
                })
                .collect();
            let (limit, edge) = (6.0 + 12.0 * random(), 0.1 * random());
            let take = |picks: &[usize]| -> (f64, f64) {
                let picked: Vec<&Priced> = picks.iter().zip(&prices).map(|(&i, p)| &p[i]).collect();
                let cut = |p: &Priced| p.choice.sequence_parallel;
                let changes = picked.windows(2).filter(|w| cut(w[0]) != cut(w[1])).count();
                let seconds = picked.iter().map(|p| p.seconds).sum::<f64>();
                (seconds + edge * changes as f64, picked.iter().map(|p| p.bytes).sum())
            };
            let mut best = f64::INFINITY;
            for code in 0..4usize.pow(6) {
                let picks: Vec<usize> = (0..6).map(|i| code / 4usize.pow(i) % 4).collect();
                let (seconds, bytes) = take(&picks);
                if bytes <= limit {
                    best = best.min(seconds);
                }
            }
            let chosen = within(&prices, limit, edge);
            let picks: Vec<usize> = chosen
                .iter()
                .zip(&prices)
                .map(|(choice, p)| p.iter().position(|p| p.choice == *choice).unwrap())
                .collect();
            let (seconds, bytes) = take(&picks);
            if best.is_finite() {
                assert!(bytes <= limit, "round {round}: {bytes} > {limit}");
                assert!(seconds <= best * 1.02, "round {round}: {seconds} against {best}");
            }
        }
    }
}
