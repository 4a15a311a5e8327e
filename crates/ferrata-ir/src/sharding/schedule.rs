//! In which order the stages of a pipeline work on the iterations of a loop.

use super::Stage;
use std::collections::{BTreeMap, BTreeSet};

/// The order in which stages work on microbatches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Schedule {
    /// All forward passes, then all backward passes (Huang et al. 2019).
    GPipe,
    /// One forward, one backward (Narayanan et al. 2021): a microbatch is only begun if that keeps a
    /// stage busy. With several chunks of layers per stage, interleaved.
    #[default]
    OneForwardOneBackward,
    /// As that, and gradients of weights fill what would be bubbles (Qi et al. 2023).
    ZeroBubble,
}

impl Schedule {
    /// All of them.
    pub const ALL: [Schedule; 3] =
        [Schedule::GPipe, Schedule::OneForwardOneBackward, Schedule::ZeroBubble];
}

crate::words!(
    Schedule, "pipeline schedule":
    GPipe => "gpipe", OneForwardOneBackward => "1f1b", ZeroBubble => "zero-bubble"
);

/// Work of one stage on one iteration that is done without a break.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub iteration: usize,
    /// Where it is done; everywhere if there is none.
    pub stage: Option<Stage>,
    /// How many times the iteration has gone to another stage before it.
    pub depth: usize,
    /// Whether no other stage waits for it.
    pub late: bool,
    /// Seconds.
    pub duration: f64,
    /// Blocks that have to be done before it.
    pub after: Vec<usize>,
}

/// Blocks in an order in which all stages can do them: a list schedule, in which a stage does what
/// it can do first, and of what it can do then the work that is furthest on its way.
pub(super) fn order(blocks: &[Block], schedule: Schedule) -> Vec<usize> {
    let limits = limits(blocks, schedule);
    let mut turns: BTreeMap<Stage, Turns> = BTreeMap::new();
    for block in blocks {
        if let Some(stage) = block.stage {
            *turns.entry(stage).or_default().left.entry(block.iteration).or_default() += 1;
        }
    }
    for turns in turns.values_mut() {
        turns.waiting = turns.left.keys().copied().collect();
    }
    let mut waits: Vec<usize> = blocks.iter().map(|block| block.after.len()).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); blocks.len()];
    for (i, block) in blocks.iter().enumerate() {
        block.after.iter().for_each(|&b| users[b].push(i));
    }
    let mut ready: BTreeSet<usize> = (0..blocks.len()).filter(|&i| waits[i] == 0).collect();
    let mut ends = vec![0f64; blocks.len()];
    let mut free: BTreeMap<Option<Stage>, f64> = BTreeMap::new();
    let mut order = Vec::with_capacity(blocks.len());
    while order.len() < blocks.len() {
        let may_begin = |block: &Block| {
            let limit = limits.get(&block.stage).copied().unwrap_or(usize::MAX);
            block.stage.is_none_or(|stage| turns[&stage].may_begin(block.iteration, limit))
        };
        let candidates = ready.iter().filter(|&&i| may_begin(&blocks[i])).map(|&i| {
            let inputs = blocks[i].after.iter().map(|&b| ends[b]);
            (i, inputs.fold(free.get(&blocks[i].stage).copied().unwrap_or(0.0), f64::max))
        });
        let best = candidates.min_by(|&(a, start), &(b, other)| {
            let (a, b) = (&blocks[a], &blocks[b]);
            let further = match schedule {
                Schedule::GPipe => a.depth.cmp(&b.depth),
                _ => b.depth.cmp(&a.depth),
            };
            let urgent = start.total_cmp(&other).then(a.late.cmp(&b.late));
            urgent.then(further).then(a.iteration.cmp(&b.iteration))
        });
        let Some((next, start)) = best else {
            unreachable!("the first iteration that is not done can always go on");
        };
        let block = &blocks[next];
        ends[next] = start + block.duration;
        free.insert(block.stage, ends[next]);
        if let Some(turns) = block.stage.and_then(|stage| turns.get_mut(&stage)) {
            turns.take(block.iteration);
        }
        ready.remove(&next);
        for &user in &users[next] {
            waits[user] -= 1;
            if waits[user] == 0 {
                ready.insert(user);
            }
        }
        order.push(next);
    }
    order
}

/// The iterations of a stage, which it begins in their order.
#[derive(Default)]
struct Turns {
    /// Blocks that are left of each.
    left: BTreeMap<usize, usize>,
    /// Those that are not begun.
    waiting: BTreeSet<usize>,
    /// How many are begun and not ended.
    open: usize,
}

impl Turns {
    /// Whether a block of an iteration may be done while no more than `limit` are open.
    fn may_begin(&self, iteration: usize, limit: usize) -> bool {
        !self.waiting.contains(&iteration)
            || (self.waiting.first() == Some(&iteration) && self.open < limit)
    }

    /// Notes that a block of an iteration is done.
    fn take(&mut self, iteration: usize) {
        self.open += usize::from(self.waiting.remove(&iteration));
        if let Some(left) = self.left.get_mut(&iteration) {
            *left -= 1;
            self.open -= usize::from(*left == 0);
        }
    }
}

/// How many iterations each stage may have begun and not ended: no more than it takes to be busy
/// while one of them is away (Little's law). Where iterations come by more than twice they wait for
/// each other, so that there have to be twice as many.
fn limits(blocks: &[Block], schedule: Schedule) -> BTreeMap<Option<Stage>, usize> {
    let mut limits: BTreeMap<Option<Stage>, usize> = BTreeMap::new();
    let first = blocks.iter().map(|block| block.iteration).min();
    // When one iteration alone, with all stages free, would begin, end and be worked on.
    let mut ends = vec![0f64; blocks.len()];
    let mut spans: BTreeMap<Option<Stage>, Span> = BTreeMap::new();
    for (i, block) in blocks.iter().enumerate().filter(|(_, b)| Some(b.iteration) == first) {
        let start = block.after.iter().map(|&b| ends[b]).fold(0.0, f64::max);
        ends[i] = start + block.duration;
        let span = spans.entry(block.stage).or_insert(Span { from: start, ..Span::default() });
        span.from = span.from.min(start);
        span.to = span.to.max(ends[i]);
        span.work += block.duration;
        span.visits += usize::from(!block.late);
    }
    for (stage, span) in spans {
        let busy = ((span.to - span.from) / span.work - 1e-6).ceil().max(1.0) as usize;
        let limit = match schedule {
            Schedule::GPipe => usize::MAX,
            _ if span.visits > 2 => busy.saturating_mul(2),
            Schedule::ZeroBubble => busy.saturating_add(1),
            _ => busy,
        };
        limits.insert(stage, limit);
    }
    limits
}

/// When a stage has to do with an iteration.
#[derive(Default)]
struct Span {
    from: f64,
    to: f64,
    /// Seconds of it in which the stage works.
    work: f64,
    /// How often the iteration comes by.
    visits: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forward passes of one second and backward passes of two through `stages`, each of which has
    /// `chunks` chunks of layers; what is late takes half of the backward pass.
    fn blocks(stages: usize, chunks: usize, iterations: usize, split: bool) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let last = stages * chunks - 1;
        for iteration in 0..iterations {
            let mut before: Vec<usize> = Vec::new();
            for depth in 0..=2 * last {
                let chunk = depth.min(2 * last - depth);
                let stage = Some(Stage { axis: 0, at: chunk % stages });
                let (forward, backward) = (depth <= last, depth >= last);
                let pass = |passes: bool, seconds: f64| if passes { seconds } else { 0.0 };
                let near = if split { 1.0 } else { 2.0 };
                let duration = (pass(forward, 1.0) + pass(backward, near)) / chunks as f64;
                let block =
                    Block { iteration, stage, depth, late: false, duration, after: before.clone() };
                before = vec![blocks.len()];
                blocks.push(block.clone());
                if split && backward {
                    let duration = 1.0 / chunks as f64;
                    blocks.push(Block { late: true, duration, after: before.clone(), ..block });
                }
            }
        }
        blocks
    }

    /// Seconds that the order takes, the most iterations that any stage has open, and whether each
    /// block stands behind what it needs.
    fn run(blocks: &[Block], schedule: Schedule) -> (f64, usize) {
        let order = order(blocks, schedule);
        let mut ends = vec![f64::NAN; blocks.len()];
        let mut free: BTreeMap<Option<Stage>, f64> = BTreeMap::new();
        let mut left: BTreeMap<_, usize> = BTreeMap::new();
        blocks.iter().for_each(|b| *left.entry((b.stage, b.iteration)).or_default() += 1);
        let all = left.clone();
        let mut most = 0;
        for &i in &order {
            let block = &blocks[i];
            let inputs = block.after.iter().map(|&b| ends[b]);
            assert!(inputs.clone().all(|end| !end.is_nan()), "{block:?} stands too early");
            let start = inputs.fold(free.get(&block.stage).copied().unwrap_or(0.0), f64::max);
            ends[i] = start + block.duration;
            free.insert(block.stage, ends[i]);
            *left.get_mut(&(block.stage, block.iteration)).unwrap() -= 1;
            let open = all
                .iter()
                .filter(|(key, n)| key.0 == block.stage && left[key] > 0 && left[key] < **n);
            most = most.max(open.count());
        }
        (ends.into_iter().fold(0.0, f64::max), most)
    }

    #[test]
    fn pipelines_take_as_long_as_their_papers_say() {
        let (stages, iterations) = (4, 8);
        let busy = 3.0 * iterations as f64;
        let bubble = 3.0 * (stages - 1) as f64;
        let plain = blocks(stages, 1, iterations, false);
        assert_eq!(run(&plain, Schedule::GPipe), (busy + bubble, iterations));
        assert_eq!(run(&plain, Schedule::OneForwardOneBackward), (busy + bubble, stages));
        // With two chunks the bubble is shorter: at best half as long, which a list schedule misses.
        let (seconds, open) =
            run(&blocks(stages, 2, iterations, false), Schedule::OneForwardOneBackward);
        assert!(seconds <= busy + 0.85 * bubble && open <= 2 * stages, "{seconds} s, {open} open");
        // What is late fills bubbles: of their seconds a third would be left at best (ZB-H1).
        let (seconds, open) = run(&blocks(stages, 1, iterations, true), Schedule::ZeroBubble);
        assert!(seconds <= busy + 0.6 * bubble && open <= stages, "{seconds} s, {open} open");
    }

    #[test]
    fn words_name_schedules() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        let error = "2f2b".parse::<Schedule>().unwrap_err().to_string();
        assert!(error.contains("`2f2b` is no pipeline schedule"), "{error}");
    }
}
