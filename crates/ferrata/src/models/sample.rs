//! The choice of a token from its scores, on the host.

use super::GenerateOptions;
use ferrata_ir::primitive::random::random_block;
use ferrata_ir::{Error, Result};

/// Chooses the token at `position` of a sequence from the scores of all tokens. The choice
/// depends on the scores, the options and the position alone.
pub(super) fn choose(logits: &[f32], options: &GenerateOptions, position: usize) -> Result<u32> {
    if logits.iter().any(|score| score.is_nan()) {
        return Err(Error::new(format!("a score of the token at position {position} is NaN"))
            .help("the weights are damaged or training diverged; use an earlier checkpoint"));
    }
    if options.temperature == 0.0 {
        return Ok(best(logits));
    }
    let candidates = candidates(logits, options);
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut left = uniform(options.seed, position) * total;
    for &(id, weight) in &candidates {
        if left < weight {
            return Ok(id);
        }
        left -= weight;
    }
    // Rounding may leave a crumb: it belongs to the last one that can be chosen at all.
    let possible = candidates.iter().rev().find(|(_, weight)| *weight > 0.0);
    Ok(possible.or(candidates.first()).map_or(0, |&(id, _)| id))
}

/// The token with the highest score, the first one of equals.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, score) in logits.iter().enumerate() {
        if *score > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Tokens that may be chosen, with weights in proportion to their probabilities; the likeliest
/// first, smaller ids first among equals.
fn candidates(logits: &[f32], options: &GenerateOptions) -> Vec<(u32, f64)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_score =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let count = options.top_k.unwrap_or(order.len()).clamp(1, order.len().max(1));
    if count < order.len() {
        order.select_nth_unstable_by(count, by_score);
        order.truncate(count);
    }
    order.sort_unstable_by(by_score);
    let top = order.first().map_or(0.0, |&id| f64::from(logits[id as usize]));
    let weight = |&id: &u32| {
        let score = f64::from(logits[id as usize]);
        // Equal scores, infinite ones too, have equal weights.
        if score == top { 1.0 } else { ((score - top) / options.temperature).exp() }
    };
    let mut weighted: Vec<(u32, f64)> = order.iter().map(|id| (*id, weight(id))).collect();
    if let Some(p) = options.top_p {
        let limit = p * weighted.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut sum = 0.0;
        let reaching = weighted.iter().position(|(_, weight)| {
            sum += weight;
            sum >= limit
        });
        weighted.truncate(reaching.map_or(weighted.len(), |last| last + 1));
    }
    weighted
}

/// A number from 0 to below 1.
fn uniform(seed: u64, position: usize) -> f64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let [a, b, ..] = random_block(key, position as u64);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f64) -> GenerateOptions {
        GenerateOptions { temperature, seed: 7, ..GenerateOptions::default() }
    }

    fn ids(found: &[(u32, f64)]) -> Vec<u32> {
        found.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(choose(&[0.0, 3.0, -1.0, 3.0], &options(0.0), 0).unwrap(), 1);
        let all_lowest = [f32::NEG_INFINITY; 3];
        assert_eq!(choose(&all_lowest, &options(0.0), 0).unwrap(), 0);
        assert!(choose(&[0.0, f32::NAN], &options(0.0), 3).unwrap_err().to_string().contains("3"));
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln).to_vec();
        let mut counts = [0; 4];
        for position in 0..20_000 {
            counts[choose(&logits, &options(1.0), position).unwrap() as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.5, 0.3, 0.15, 0.05]) {
            let expected = 20_000.0 * p;
            assert!((f64::from(*count) - expected).abs() < 4.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn temperature_sharpens() {
        let logits = [0.0, 1.0];
        let weight = |t| candidates(&logits, &options(t))[1].1;
        assert!((weight(0.5) - (-2f64).exp()).abs() < 1e-12);
        assert!((weight(2.0) - (-0.5f64).exp()).abs() < 1e-12);
    }

    #[test]
    fn limits_cut_off_unlikely_tokens() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.1, 0.3, 0.1].map(f32::ln).to_vec();
        let with = |top_k, top_p| {
            ids(&candidates(&logits, &GenerateOptions { top_k, top_p, ..options(1.0) }))
        };
        assert_eq!(with(None, None), [1, 3, 0, 2, 4]);
        assert_eq!(with(Some(3), None), [1, 3, 0]);
        assert_eq!(with(None, Some(0.69)), [1, 3]);
        assert_eq!(with(None, Some(0.39)), [1]);
        assert_eq!(with(None, Some(1.0)).len(), 5);
        // The share of the nucleus is that of the tokens left by the first limit.
        assert_eq!(with(Some(2), Some(0.57)), [1]);
        assert_eq!(with(Some(9), None).len(), 5);
    }

    #[test]
    fn a_token_without_probability_is_never_chosen() {
        let logits = [0.0, f32::NEG_INFINITY, 0.0];
        assert!((0..2000).all(|i| choose(&logits, &options(1.0), i).unwrap() != 1));
        assert_eq!(choose(&[0.0, f32::INFINITY], &options(1.0), 0).unwrap(), 1);
    }

    #[test]
    fn seeds_and_positions_give_different_numbers() {
        assert_eq!(uniform(3, 5), uniform(3, 5));
        assert_ne!(uniform(3, 5), uniform(4, 5));
        assert_ne!(uniform(3, 5), uniform(3, 6));
        assert!((0..1000).all(|i| (0.0..1.0).contains(&uniform(1, i))));
    }
}
