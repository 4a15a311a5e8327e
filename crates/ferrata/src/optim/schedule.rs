//! Learning rates over the steps.

use std::f64::consts::PI;

/// A learning rate for every step: a straight warm-up, then a [`Decay`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate after the warm-up.
    pub peak: f64,
    /// Steps of the warm-up: step `i` of it has `peak (i + 1) / (warmup + 1)`.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

/// How a learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// In a straight line to `last`, reached at step `end`.
    Linear {
        /// First step at the last learning rate.
        end: u64,
        /// The last learning rate.
        last: f64,
    },
    /// Along half a cosine to `last`, reached at step `end`.
    Cosine {
        /// First step at the last learning rate.
        end: u64,
        /// The last learning rate.
        last: f64,
    },
    /// Not until step `from`, then in a straight line to `last`, reached at step `end`.
    Stable {
        /// First step that falls.
        from: u64,
        /// First step at the last learning rate.
        end: u64,
        /// The last learning rate.
        last: f64,
    },
}

impl Schedule {
    /// The same learning rate for all steps.
    pub fn constant(lr: f64) -> Self {
        Schedule { peak: lr, warmup: 0, decay: Decay::Constant }
    }

    /// A warm-up, then half a cosine from `peak` to `last` at step `end`.
    ///
    /// ```
    /// use ferrata::optim::Schedule;
    /// let schedule = Schedule::cosine(1e-3, 100, 2000, 1e-4);
    /// assert_eq!(schedule.at(100), 1e-3);
    /// assert!((schedule.at(1050) - 5.5e-4).abs() < 1e-12);
    /// assert_eq!(schedule.at(2000), 1e-4);
    /// ```
    pub fn cosine(peak: f64, warmup: u64, end: u64, last: f64) -> Self {
        Schedule { peak, warmup, decay: Decay::Cosine { end, last } }
    }

    /// The learning rate of step number `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        // The part of the way from `from` to `end`.
        let way = |from: u64, end: u64| match step {
            _ if step >= end => 1.0,
            _ if step <= from => 0.0,
            _ => (step - from) as f64 / (end - from) as f64,
        };
        let line = |last: f64, way: f64| match way {
            1.0 => last,
            _ => self.peak + (last - self.peak) * way,
        };
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Linear { end, last } => line(last, way(self.warmup, end)),
            Decay::Cosine { end, last } => {
                line(last, 0.5 * (1.0 - (PI * way(self.warmup, end)).cos()))
            }
            Decay::Stable { from, end, last } => line(last, way(from.max(self.warmup), end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape() {
        let at = |decay, steps: &[u64]| -> Vec<f64> {
            let schedule = Schedule { peak: 2.0, warmup: 3, decay };
            steps.iter().map(|&s| schedule.at(s)).collect()
        };
        assert_eq!(at(Decay::Constant, &[0, 1, 2, 3, 900]), [0.5, 1.0, 1.5, 2.0, 2.0]);
        let linear = Decay::Linear { end: 7, last: 0.0 };
        assert_eq!(at(linear, &[2, 3, 4, 6, 7, 8]), [1.5, 2.0, 1.5, 0.5, 0.0, 0.0]);
        let stable = Decay::Stable { from: 10, end: 14, last: 1.0 };
        assert_eq!(at(stable, &[3, 10, 12, 14, 20]), [2.0, 2.0, 1.5, 1.0, 1.0]);
        let cosine = at(Decay::Cosine { end: 13, last: 0.0 }, &[3, 8, 13, 50]);
        assert_eq!((cosine[0], cosine[2], cosine[3]), (2.0, 0.0, 0.0));
        assert!((cosine[1] - 1.0).abs() < 1e-15);
        // A schedule that ends before its warm-up does not fall below zero or blow up.
        assert_eq!(at(Decay::Linear { end: 1, last: 0.5 }, &[3]), [0.5]);
    }
}
