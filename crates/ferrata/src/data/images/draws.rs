//! Random numbers of one example in one epoch.

use crate::data::random::Philox;

/// Keeps these numbers apart from the orders of epochs, which belong to the same seed.
const STREAM: u64 = 1 << 62;

/// Numbers drawn one after the other; which they are depends on the seed, the epoch and the
/// example alone.
pub(in crate::data) struct Draws {
    random: Philox,
    next: u64,
}

impl Draws {
    /// The numbers of example `index` in `epoch`.
    pub(in crate::data) fn new(seed: u64, epoch: u64, index: u64) -> Draws {
        Draws { random: Philox::new(seed, STREAM | epoch), next: index << 32 }
    }

    /// 64 random bits.
    pub(in crate::data) fn bits(&mut self) -> u64 {
        self.next += 1;
        self.random.bits(self.next)
    }

    /// Uniform in `0.0..1.0`.
    pub(in crate::data) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub(in crate::data) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`; 0 if `n` is.
    pub(in crate::data) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Whether something of this probability happens.
    pub(in crate::data) fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let (radius, turn) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }

    /// Gamma with this shape and scale 1 (Marsaglia and Tsang).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * (1.0 - self.unit()).powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Beta with both shapes `alpha`.
    pub(in crate::data) fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.gamma(alpha), self.gamma(alpha));
        // Both can vanish where alpha is tiny: one of the ends then.
        if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(self.happens(0.5))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_distributions() {
        let mut draws = Draws::new(1, 2, 3);
        let mean = |f: &mut dyn FnMut() -> f64| (0..20_000).map(|_| f()).sum::<f64>() / 20_000.0;
        assert!((mean(&mut || draws.unit()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || draws.below(7) as f64) - 3.0).abs() < 0.06);
        assert!((mean(&mut || f64::from(u8::from(draws.happens(0.3)))) - 0.3).abs() < 0.02);
        for alpha in [0.2, 1.0, 4.0] {
            let mut squares = 0.0;
            let first = mean(&mut || {
                let x = draws.beta(alpha);
                assert!((0.0..=1.0).contains(&x));
                squares += (x - 0.5) * (x - 0.5) / 20_000.0;
                x
            });
            let variance = 0.25 / (2.0 * alpha + 1.0);
            assert!((first - 0.5).abs() < 0.02, "{alpha}: {first}");
            assert!((squares / variance - 1.0).abs() < 0.05, "{alpha}: {squares} {variance}");
        }
    }

    #[test]
    fn examples_and_epochs_are_apart() {
        let first = |seed, epoch, index| Draws::new(seed, epoch, index).bits();
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1)];
        assert!((1..4).all(|i| all[i] != all[i - 1]) && first(0, 0, 0) == all[0]);
    }
}
