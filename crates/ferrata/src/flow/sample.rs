//! Solvers of `dx/dt = v(x, t)` from noise to data.

use super::{check, fitting, scalar, times_of};
use crate::tensor::Tensor;
use ferrata_ir::{Error, Result};
use serde::{Deserialize, Serialize};

/// How a step is made; in configurations `euler`, `heun` or `dpm++`. The order says how the error
/// falls: with the number of steps to that power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Along the velocity at its beginning: order 1, one velocity for each step.
    Euler,
    /// Along the mean of the velocities at its beginning and at the end of an Euler step: order 2,
    /// two velocities for each step.
    Heun,
    /// DPM-Solver++(2M) (Lu et al. 2022), with `alpha = t` and `sigma = 1 - t`: the data predicted
    /// at the beginning of two steps are continued in the logarithm of `alpha / sigma`. Its error
    /// falls as `log(n) / n²` with `n` steps; one velocity for each step.
    #[default]
    #[serde(rename = "dpm++")]
    DpmSolver,
}

/// Makes data of noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// How a step is made.
    pub solver: Solver,
    /// Number of steps.
    pub steps: usize,
    /// Above 1: shorter steps near the noise and longer ones near the data, as large images want
    /// them (Esser et al. 2024). At 1 all steps are equal.
    pub shift: f64,
}

impl Default for Sampler {
    /// DPM-Solver++ in 20 equal steps.
    fn default() -> Self {
        Sampler { solver: Solver::default(), steps: 20, shift: 1.0 }
    }
}

impl Sampler {
    /// The times of the grid, from 0 to 1: one more than there are steps.
    pub fn times(&self) -> Vec<f64> {
        let time = |i: usize| {
            let noise = 1.0 - i as f64 / self.steps as f64;
            1.0 - self.shift * noise / (1.0 + (self.shift - 1.0) * noise)
        };
        (0..=self.steps).map(time).collect()
    }

    /// Follows the velocity from noise `start [batch, ..]` at time 0 to data at time 1.
    ///
    /// `velocity(x, t)` gives the velocity of `x [batch, ..]` at the times `t [batch]`, which are
    /// all the same, f32 (f64 for f64 samples): what a compiled model takes. Every step is computed
    /// before the next one begins, so memory does not grow with the number of steps.
    ///
    /// # Errors
    /// That of `velocity`; a velocity of another shape; no steps, or a shift that is not above 0.
    ///
    /// ```
    /// use ferrata::flow::{Sampler, Solver};
    /// use ferrata::{Tensor, compile};
    /// // All paths lead to 2.
    /// let velocity = compile(|(x, t): (Tensor, Tensor)| (2.0 - x) / (1.0 - t).unsqueeze(1));
    /// let sampler = Sampler { solver: Solver::Euler, steps: 5, shift: 3.0 };
    /// let noise = Tensor::from([[-1.0f32, 0.5]]);
    /// let x = sampler.sample(&noise, |x, t| velocity.call((x.clone(), t.clone())))?;
    /// assert!((x - 2.0).abs().max(..).item::<f32>()? < 1e-6);
    /// assert_eq!(velocity.traces(), 1);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn sample(
        &self,
        start: &Tensor,
        mut velocity: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        check(start, self.steps)?;
        if !(self.shift > 0.0 && self.shift.is_finite()) {
            let shift = self.shift;
            return Err(Error::new(format!("the shift of times is {shift}"))
                .help("give a number above 0; 1 leaves the steps equal"));
        }
        let mut velocity = |x: &Tensor, t: f64| fitting(velocity(x, &times_of(x, t))?, x);
        let times = self.times();
        let mut x = start.clone();
        // What DPM-Solver++ remembers of the step before.
        let mut predicted: Option<Tensor> = None;
        for i in 0..self.steps {
            let (now, next) = (times[i], times[i + 1]);
            let h = scalar(&x, next - now);
            let v = velocity(&x, now)?;
            x = match self.solver {
                Solver::Euler => &x + v * h,
                Solver::Heun => {
                    let there = velocity(&(&x + &v * &h), next)?;
                    &x + (v + there) * (h * 0.5)
                }
                Solver::DpmSolver => {
                    let data = &x + v * scalar(&x, 1.0 - now);
                    data.eval()?;
                    let before = predicted.replace(data.clone());
                    let guess = match (before, i.checked_sub(1).map(|i| times[i])) {
                        (Some(before), Some(last)) => {
                            let weight = continuation(last, now, next);
                            &data + (&data - before) * scalar(&x, weight)
                        }
                        _ => data,
                    };
                    let kept = scalar(&x, (1.0 - next) / (1.0 - now));
                    guess.lerp(&x, kept)
                }
            };
            x.eval()?;
        }
        Ok(x)
    }
}

/// How much of the last change of predicted data is added to them for the step from `now` to
/// `next`: half the ratio of the lengths of the steps, measured in the logarithm of `t / (1 - t)`.
/// The steps from time 0 and to time 1 are infinitely long there: no change is added after the
/// one, nor for the other.
fn continuation(last: f64, now: f64, next: f64) -> f64 {
    let log_ratio = |t: f64| (t / (1.0 - t)).ln();
    let (before, step) = (log_ratio(now) - log_ratio(last), log_ratio(next) - log_ratio(now));
    if before.is_finite() && step.is_finite() { step / before / 2.0 } else { 0.0 }
}
