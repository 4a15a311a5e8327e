//! Tells from the beats of all ranks which one is at fault, if one is.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::processes::control::{Beat, Hello};
use crate::processes::rank::PULSE;

/// What is taken for a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A rank that says nothing for so long stands still, or cannot be reached.
    pub silence: Duration,
    /// Ranks in steps are compared over so long.
    pub window: Duration,
    /// A rank that computes so many times as long as most others, which wait for it, crawls.
    pub crawl: f64,
    /// No step is allowed to take longer than this, or five times the longest so far, or twice the
    /// first one.
    pub step: Duration,
    /// All ranks have to be there after so long.
    pub start: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            silence: Duration::from_secs(3),
            window: Duration::from_secs(5),
            crawl: 8.0,
            step: Duration::from_secs(8),
            start: Duration::from_secs(120),
        }
    }
}

/// Steps are given so many times as long as the longest before them took.
const SLACK: u32 = 5;
/// A rank that the others wait for is at work for at least this share of the time.
const AT_WORK: f64 = 0.8;

/// How a rank failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// A signal killed it.
    Killed(i32),
    /// It ended with this exit code, by an error of its own.
    Exited(i32),
    /// Its connection ended.
    Gone,
    /// A collective failed, and no rank is known to have failed before.
    Collective(String),
    /// It says nothing any more.
    Silent(Duration),
    /// It enters no collective, and the others wait for it.
    Hangs(Duration),
    /// It is so many times as slow as the others.
    Crawls(f64),
    /// No rank gets on, and this one is the farthest behind.
    Stuck(Duration),
    /// It was never there.
    Missing(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Killed(signal) => write!(f, "was killed by signal {signal}"),
            Failure::Exited(code) => write!(f, "ended with exit code {code}"),
            Failure::Gone => write!(f, "is gone: its connection ended"),
            Failure::Collective(error) => write!(f, "reports: {error}"),
            Failure::Silent(time) => {
                write!(f, "has said nothing for {:.1} s", time.as_secs_f64())
            }
            Failure::Hangs(time) => {
                let time = time.as_secs_f64();
                write!(f, "hangs: it let the others wait for {time:.1} s")
            }
            Failure::Crawls(factor) => {
                write!(f, "crawls: it is {factor:.0} times as slow as the others")
            }
            Failure::Stuck(time) => {
                write!(f, "is stuck: no step ended for {:.1} s", time.as_secs_f64())
            }
            Failure::Missing(time) => write!(f, "did not join within {:.0} s", time.as_secs_f64()),
        }
    }
}

/// A rank that failed, and where it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its number.
    pub rank: usize,
    /// Where it ran, as in log lines: `rank 2 cpu node7`.
    pub label: String,
    /// How it failed.
    pub failure: Failure,
    /// The step that it was in, or what else it did.
    pub activity: String,
    /// The collective that it entered last, and its scope.
    pub collective: Option<(String, String)>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}", self.label, self.failure, self.activity)?;
        match &self.collective {
            Some((name, scope)) if scope.is_empty() => write!(f, "; last collective: {name})"),
            Some((name, scope)) => write!(f, "; last collective: {name} in scope {scope})"),
            None => write!(f, "; it entered no collective)"),
        }
    }
}

/// How a rank is called in log lines.
pub(super) fn label(rank: usize, hello: Option<&Hello>) -> String {
    match hello {
        Some(hello) => format!("rank {rank} {} {}", hello.device, hello.host),
        None => format!("rank {rank}"),
    }
}

/// What is known of one rank.
#[derive(Debug)]
struct Watched {
    hello: Hello,
    beat: Beat,
    last: Instant,
    /// The first step that it reported: it may compile in it.
    first: Option<u64>,
    /// When it did.
    since: Instant,
    /// When it said how long it had been busy, and how many collectives it had entered.
    samples: VecDeque<(Instant, f64, u64)>,
    /// It has ended, well or not, and is not watched any more.
    ended: bool,
}

/// All ranks of a start of a job.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    ranks: Vec<Watched>,
    /// The farthest step, and when it began.
    step: (u64, Instant),
    longest: Duration,
    /// The longest first step, in which programs are compiled too.
    first: Duration,
}

impl Watch {
    pub fn new(limits: Limits, hellos: Vec<Hello>, now: Instant) -> Watch {
        let ranks = hellos.into_iter().map(|hello| Watched {
            hello,
            beat: Beat::default(),
            last: now,
            first: None,
            since: now,
            samples: VecDeque::new(),
            ended: false,
        });
        Watch {
            limits,
            ranks: ranks.collect(),
            step: (0, now),
            longest: Duration::ZERO,
            first: Duration::ZERO,
        }
    }

    /// The farthest step that a rank has begun.
    pub fn step(&self) -> u64 {
        self.step.0
    }

    /// Whether a rank has got beyond the step that it began with.
    pub fn has_progressed(&self) -> bool {
        self.ranks.iter().any(|rank| rank.beat.step > rank.first && rank.first.is_some())
    }

    pub fn beat_of(&self, rank: usize) -> &Beat {
        &self.ranks[rank].beat
    }

    pub fn end(&mut self, rank: usize) {
        self.ranks[rank].ended = true;
    }

    /// Takes note of what a rank says.
    pub fn beat(&mut self, rank: usize, beat: Beat, now: Instant) {
        if let Some(step) = beat.step.filter(|&step| step > self.step.0) {
            if self.step.0 > 0 && self.ranks[rank].first != Some(self.step.0) {
                self.longest = self.longest.max(now - self.step.1);
            }
            self.step = (step, now);
        }
        let watched = &mut self.ranks[rank];
        if watched.first.is_none() {
            watched.since = now;
        } else if watched.beat.step == watched.first && beat.step > watched.first {
            self.first = self.first.max(now - watched.since);
        }
        watched.first = watched.first.or(beat.step);
        watched.samples.push_back((now, beat.busy, beat.entered));
        while watched.samples.get(1).is_some_and(|sample| now - sample.0 >= self.limits.window) {
            watched.samples.pop_front();
        }
        watched.last = now;
        watched.beat = beat;
        if !self.comparable() {
            self.ranks.iter_mut().for_each(|rank| rank.samples.clear());
            self.step.1 = now;
        }
    }

    /// Whether all ranks are in steps, and not in their first one.
    fn comparable(&self) -> bool {
        let ranks = &self.ranks;
        ranks
            .iter()
            .all(|rank| !rank.ended && rank.beat.step.is_some_and(|step| Some(step) > rank.first))
    }

    /// The supervisor itself stood still for `gap`: nobody is to blame for that.
    pub fn forgive(&mut self, gap: Duration) {
        for rank in &mut self.ranks {
            rank.last += gap;
            rank.samples.clear();
        }
        self.step.1 += gap;
    }

    /// The rank that is at fault by what it says, or by what it does not say.
    pub fn verdict(&self, now: Instant) -> Option<Fault> {
        let alive = self.ranks.iter().enumerate().filter(|(_, rank)| !rank.ended);
        let (quiet, watched) = alive.min_by_key(|(_, rank)| rank.last)?;
        let silent = now.saturating_duration_since(watched.last);
        if silent > self.limits.silence {
            return Some(self.fault(quiet, Failure::Silent(silent)));
        }
        if !self.comparable() {
            return None;
        }
        self.straggler(now).or_else(|| self.stuck(now))
    }

    /// A rank at work, or without any time to say so, while most others wait.
    fn straggler(&self, now: Instant) -> Option<Fault> {
        let complete = |rank: &Watched| {
            rank.samples.front().is_some_and(|sample| now - sample.0 >= self.limits.window)
        };
        if self.ranks.len() < 2 || !self.ranks.iter().all(complete) {
            return None;
        }
        let shares: Vec<f64> = self.ranks.iter().map(Watched::busy_share).collect();
        let (slowest, median) = outlier(&shares);
        let factor = shares[slowest] / median.max(1e-3);
        if shares[slowest] > AT_WORK && factor > self.limits.crawl {
            let failure = match self.ranks[slowest].without_collective(now) {
                time if time > self.limits.window / 2 => Failure::Hangs(time),
                _ => Failure::Crawls(factor),
            };
            return Some(self.fault(slowest, failure));
        }
        // Whoever is stopped most of the time beats late.
        let expected = self.limits.window.as_secs_f64() / PULSE.as_secs_f64();
        let late: Vec<f64> =
            self.ranks.iter().map(|rank| expected / rank.samples.len().max(1) as f64).collect();
        let (slowest, median) = outlier(&late);
        (late[slowest] > 2.5 && median < 1.5)
            .then(|| self.fault(slowest, Failure::Crawls(late[slowest] / median)))
    }

    fn stuck(&self, now: Instant) -> Option<Fault> {
        let time = now.saturating_duration_since(self.step.1);
        if time < self.limits.step.max(SLACK * self.longest).max(2 * self.first) {
            return None;
        }
        // Stages of a pipeline take part in different numbers of collectives.
        let behind = |rank: &&(usize, &Watched)| (rank.1.beat.inside, rank.1.beat.entered);
        let ranks: Vec<_> = self.ranks.iter().enumerate().collect();
        let (behind, _) = *ranks.iter().min_by_key(behind)?;
        Some(self.fault(behind, Failure::Stuck(time)))
    }

    /// A fault of a rank, with where it was.
    pub fn fault(&self, rank: usize, failure: Failure) -> Fault {
        let watched = &self.ranks[rank];
        let beat = &watched.beat;
        let activity = match (beat.step, &beat.other) {
            (Some(step), _) => format!("in step {step}"),
            (None, Some(other)) => format!("in {other}"),
            (None, None) => "before the first step".to_owned(),
        };
        Fault {
            rank,
            label: label(rank, Some(&watched.hello)),
            failure,
            activity,
            collective: beat.collective.clone().map(|name| (name, beat.scope.clone())),
        }
    }
}

impl Watched {
    /// For how long, as far as is known, a rank has entered no collective.
    fn without_collective(&self, now: Instant) -> Duration {
        let same = |sample: &&(Instant, f64, u64)| sample.2 == self.beat.entered;
        let since = self.samples.iter().find(same);
        since.map_or(Duration::ZERO, |sample| now - sample.0)
    }

    /// The share of its time that a rank was not in collectives.
    fn busy_share(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((start, before, _)), Some((end, after, _))) if end > start => {
                (after - before) / (*end - *start).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

/// The largest of some values, and the median of the others.
fn outlier(values: &[f64]) -> (usize, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let largest = order.pop().unwrap_or_default();
    // Of two in the middle the larger one: the slower ranks are given the benefit of the doubt.
    let median = order.get(order.len() / 2).map_or(0.0, |&i| values[i]);
    (largest, median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(ranks: usize, start: Instant) -> Watch {
        let hello = |rank| Hello {
            protocol: 1,
            version: String::new(),
            job: String::new(),
            rank,
            ranks,
            host: "h".into(),
            pid: 1,
            device: "cpu".into(),
            listens: None,
        };
        Watch::new(Limits::default(), (0..ranks).map(hello).collect(), start)
    }

    /// Lets ranks beat for `seconds`, each step `step` seconds long; a rank's share of work and
    /// every how many pulses it beats come with it.
    fn after(seconds: f64, step: f64, ranks: &[(f64, u32)]) -> Option<Fault> {
        let start = Instant::now();
        let mut watch = watch(ranks.len(), start);
        for pulse in 0..(seconds / PULSE.as_secs_f64()) as u32 {
            let now = start + pulse * PULSE;
            let time = (pulse * PULSE).as_secs_f64();
            for (rank, (work, every)) in ranks.iter().enumerate() {
                let beat = Beat {
                    step: Some(1 + (time / step) as u64),
                    busy: work * time,
                    entered: if *work < 1.0 { pulse.into() } else { 7 },
                    collective: Some("all_reduce".into()),
                    scope: "layers.3".into(),
                    ..Beat::default()
                };
                if pulse % every == 0 {
                    watch.beat(rank, beat, now);
                }
            }
            if let Some(fault) = watch.verdict(now) {
                return Some(fault);
            }
        }
        None
    }

    #[test]
    fn ranks_that_differ_a_little_are_no_fault() {
        assert_eq!(after(60.0, 0.5, &[(0.9, 1), (0.95, 1), (0.3, 1), (0.9, 2)]), None);
        // Steps may be long, as long as they were so from the beginning.
        assert_eq!(after(60.0, 7.0, &[(0.5, 1), (0.6, 1)]), None);
        // One rank has nobody to be compared with.
        assert_eq!(after(60.0, 0.5, &[(0.99, 1)]), None);
    }

    #[test]
    fn who_lets_the_others_wait_is_named() {
        let fault = after(9.0, 0.5, &[(0.05, 1), (0.98, 1), (0.06, 1)]).unwrap();
        assert_eq!((fault.rank, matches!(fault.failure, Failure::Crawls(_))), (1, true));
        let fault = after(9.0, 0.5, &[(0.05, 1), (0.06, 1), (1.0, 1)]).unwrap();
        assert_eq!((fault.rank, matches!(fault.failure, Failure::Hangs(_))), (2, true));
        let text = fault.to_string();
        assert!(text.starts_with("rank 2 cpu h hangs: it let the others wait"), "{text}");
        assert!(text.ends_with("last collective: all_reduce in scope layers.3)"), "{text}");
    }

    #[test]
    fn who_is_stopped_most_of_the_time_is_named() {
        let fault = after(9.0, 0.5, &[(0.5, 1), (0.5, 1), (0.4, 4)]).unwrap();
        assert_eq!((fault.rank, matches!(fault.failure, Failure::Crawls(_))), (2, true));
    }

    #[test]
    fn who_says_nothing_is_named() {
        let fault = after(9.0, 0.5, &[(0.5, 100), (0.5, 1)]).unwrap();
        assert_eq!((fault.rank, matches!(fault.failure, Failure::Silent(_))), (0, true));
    }

    #[test]
    fn a_step_without_end_is_noticed() {
        // Steps of half a second, and one that lasts.
        let start = Instant::now();
        let mut watch = watch(2, start);
        let found = (0..100).find_map(|pulse| {
            let now = start + pulse * PULSE;
            for rank in 0..2 {
                let step = u64::from(pulse / 2).min(20);
                // Rank 1 is one collective behind.
                let entered = 10 * step + 1 - rank as u64;
                watch.beat(rank, Beat { step: Some(step), entered, ..Beat::default() }, now);
            }
            watch.verdict(now).map(|fault| (fault, pulse))
        });
        let (fault, pulse) = found.unwrap();
        assert_eq!((fault.rank, matches!(fault.failure, Failure::Stuck(_))), (1, true));
        assert!((pulse - 40) * PULSE < Duration::from_secs(10), "after {pulse} pulses");
        // The first step may take its time.
        assert_eq!(after(30.0, 1e9, &[(0.5, 1), (0.5, 1)]), None);
        // So may others, if the first one took as long.
        assert_eq!(after(60.0, 12.0, &[(0.5, 1), (0.5, 1)]), None);
    }
}
