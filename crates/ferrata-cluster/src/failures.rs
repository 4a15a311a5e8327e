//! Failures of a long run: how often they come, what is lost, and how often to save.

use crate::hardware::Cluster;

/// A long run, as far as failures matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRun {
    /// Devices that have to work.
    pub devices: usize,
    /// Devices of a node, which fails as a whole.
    pub node: usize,
    /// Seconds of a step.
    pub step: f64,
    /// Seconds in which a checkpoint holds up training.
    pub checkpoint: f64,
    /// Mean hours between failures of one device.
    pub device_hours: f64,
    /// Seconds of a restart.
    pub restart: f64,
    /// Hours until a failed node is back.
    pub repair_hours: f64,
}

/// What a long run has spent its time on, in hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Spent {
    /// Steps that stayed.
    pub useful: f64,
    /// Steps that were lost.
    pub lost: f64,
    /// Writing checkpoints.
    pub saving: f64,
    /// Restarts.
    pub restarting: f64,
    /// Waiting for repairs.
    pub waiting: f64,
    /// How often it was interrupted.
    pub interruptions: usize,
}

impl Spent {
    /// The share of useful time.
    pub fn goodput(&self) -> f64 {
        let all = self.useful + self.lost + self.saving + self.restarting + self.waiting;
        if all > 0.0 { self.useful / all } else { 1.0 }
    }
}

/// What is recommended for a long run.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Advice {
    /// Steps between checkpoints.
    pub interval: usize,
    /// Nodes in reserve.
    pub spares: usize,
    /// Mean hours between interruptions.
    pub hours_between: f64,
    /// What a run with these spends its time on.
    pub spent: Spent,
}

impl Advice {
    /// The same for programs, added to what is known of a step.
    pub fn json(&self, mut step: serde_json::Value) -> serde_json::Value {
        step["long_run"] = serde_json::json!(self);
        step["goodput"] = serde_json::json!(self.spent.goodput());
        step
    }
}

/// Runs that a choice is averaged over.
const RUNS: u64 = 8;
/// Of the best goodput, what fewer spares may cost.
const SPARE: f64 = 0.002;

impl LongRun {
    /// A run on a cluster whose devices hold so many bytes of state each.
    pub fn new(cluster: &Cluster, devices: usize, step: f64, bytes: f64) -> Self {
        let failures = &cluster.failures;
        LongRun {
            devices,
            node: cluster.node().min(devices).max(1),
            step,
            checkpoint: bytes / failures.checkpoint_bandwidth,
            device_hours: failures.device_hours,
            restart: failures.restart,
            repair_hours: failures.repair_hours,
        }
    }

    /// Mean hours between interruptions.
    pub fn hours_between(&self) -> f64 {
        self.device_hours / self.devices as f64
    }

    /// Runs for so many days, with failures drawn from a seed.
    pub fn simulate(&self, days: f64, interval: usize, spares: usize, seed: u64) -> Spent {
        let mut random = Random(seed);
        let mut spent = Spent::default();
        let end = days * 24.0;
        let hours = |seconds: f64| seconds / 3600.0;
        let work = hours(self.step * interval.max(1) as f64);
        let save = hours(self.checkpoint);
        // When failed nodes are back.
        let mut repairs: Vec<f64> = Vec::new();
        let mut now = 0.0;
        let mut failure = random.exponential(self.hours_between());
        while now < end {
            if failure >= now + work + save {
                now += work + save;
                spent.useful += work;
                spent.saving += save;
                continue;
            }
            spent.lost += failure - now;
            spent.interruptions += 1;
            now = failure;
            repairs.retain(|&back| back > now);
            repairs.push(now + self.repair_hours);
            if repairs.len() > spares {
                // Training waits until enough nodes are back.
                repairs.sort_by(f64::total_cmp);
                let back = repairs[repairs.len() - spares - 1];
                spent.waiting += back - now;
                now = back;
            }
            spent.restarting += hours(self.restart);
            now += hours(self.restart);
            failure = now + random.exponential(self.hours_between());
        }
        spent
    }

    fn average(&self, days: f64, interval: usize, spares: usize, seed: u64) -> f64 {
        let one = |i| self.simulate(days, interval, spares, seed.wrapping_add(i)).goodput();
        (0..RUNS).map(one).sum::<f64>() / RUNS as f64
    }

    /// The checkpoint interval and the number of spare nodes with the best goodput, all candidates
    /// meeting the same failures.
    pub fn advise(&self, days: f64, seed: u64) -> Advice {
        // Young's interval, and others around it.
        let young = (2.0 * self.checkpoint * self.hours_between() * 3600.0).sqrt();
        let enough = (self.repair_hours / self.hours_between() * 3.0).ceil() as usize + 4;
        let intervals = (-8..=8).map(|i| {
            let seconds = young * 2f64.powf(f64::from(i) / 4.0);
            ((seconds / self.step).round() as usize).max(1)
        });
        let better = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1));
        let rated = intervals.map(|n| (self.average(days, n, enough, seed), n));
        let (best, interval) = rated.max_by(better).unwrap_or((1.0, 1));
        let spares = (0..=enough)
            .find(|&spares| self.average(days, interval, spares, seed) >= best - SPARE)
            .unwrap_or(enough);
        let spent = self.simulate(days, interval, spares, seed);
        Advice { interval, spares, hours_between: self.hours_between(), spent }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        let uniform = ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -mean * uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Failures;

    fn llama() -> LongRun {
        let failures = Failures::default();
        LongRun {
            devices: 16384,
            node: 8,
            step: 6.0,
            checkpoint: 15.0,
            device_hours: failures.device_hours,
            restart: failures.restart,
            repair_hours: failures.repair_hours,
        }
    }

    /// Llama 3 (arXiv 2407.21783): 419 interruptions in 54 days, more than 90 % effective time.
    #[test]
    fn the_published_run_is_interrupted_as_often_and_as_effective() {
        let run = llama();
        let advice = run.advise(54.0, 1);
        let mean = (0..20).map(|seed| run.simulate(54.0, advice.interval, 100, seed).interruptions);
        let mean = mean.sum::<usize>() as f64 / 20.0;
        // While it restarts, nothing fails.
        assert!((mean / 419.0 - 1.0).abs() < 0.1, "{mean}");
        assert!(advice.spent.goodput() > 0.9, "{advice:?}");
        assert_eq!(run.simulate(54.0, 10, 2, 7), run.simulate(54.0, 10, 2, 7));
    }

    #[test]
    fn the_best_interval_is_near_youngs_and_spares_help() {
        let run = llama();
        let advice = run.advise(54.0, 3);
        let young = (2.0 * run.checkpoint * run.hours_between() * 3600.0).sqrt() / run.step;
        let ratio = advice.interval as f64 / young;
        assert!((0.5..2.0).contains(&ratio), "{} steps, Young {young}", advice.interval);
        let goodput = |interval, spares| run.average(54.0, interval, spares, 3);
        assert!(
            goodput(advice.interval, advice.spares) > goodput(advice.interval * 20, advice.spares)
        );
        assert!(goodput(advice.interval, advice.spares) > goodput(advice.interval, 0) + 0.1);
    }
}
