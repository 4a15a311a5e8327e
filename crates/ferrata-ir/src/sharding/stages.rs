//! Programs whose parameters lie on stages of a pipeline: which nodes run on which stage.
//!
//! A node runs where its weights are. Any other runs where that moves the fewest bytes between
//! stages: with its operands, or with those that use its results. Calls and loops whose operands
//! are weights of several stages are opened up, and the iterations of such a loop reordered.

use super::partition::{Placement, Setting};
use super::pattern::pattern;
use super::schedule::{self, Block};
use super::{Schedule, Stage};
use crate::error::Result;
use crate::primitive::{Primitive, Scan};
use crate::program::{Builder, Function, Node, Value};
use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

/// A program and where its nodes run.
pub(super) struct Staged {
    pub program: Arc<Function>,
    /// For each node its stage, if it does not run everywhere.
    pub stages: Vec<Option<Stage>>,
}

impl Staged {
    /// The program with stages along `axis`: parameters lie so, and results are wanted on these
    /// stages or everywhere, if anything is said of them.
    pub fn new(
        program: &Function,
        setting: &Setting,
        axis: usize,
        parameters: &[Placement],
        results: &[Option<Option<Stage>>],
    ) -> Result<Staged> {
        let mut opened = Opened {
            b: Builder::new(program.name.clone()),
            weights: HashMap::new(),
            iterations: Vec::new(),
            loops: 0,
            schedule: setting.schedule,
        };
        let mut all = Vec::new();
        for (&p, lies) in program.parameters().iter().zip(parameters) {
            let v = opened.b.parameter(program.ty(p).clone());
            all.push(v);
            let stage = lies.sharding.stage.filter(|_| lies.weight);
            opened.weights.extend(stage.map(|stage| (v, stage)));
        }
        let made = opened.copy(program, &all, None);
        let Opened { b, weights, iterations, .. } = opened;
        let flat = b.finish(&made)?;
        let count = setting.mesh.parts(&[axis]);
        let stages = Homes::new(&flat, &weights, parameters, results, count).settle();
        let order = reordered(&flat, setting, &stages, &iterations);
        let stages = order.iter().map(|&at| stages[at]).collect();
        let nodes = order.iter().map(|&at| flat.nodes[at].clone()).collect();
        Ok(Staged { program: Arc::new(Function { nodes, ..flat }), stages })
    }
}

/// An iteration of an opened loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Iteration {
    lap: usize,
    /// Which of the opened loops.
    of: usize,
}

/// A program whose calls and loops over several stages are being opened.
struct Opened {
    b: Builder,
    /// The stages of weights and of what is made of weights alone.
    weights: HashMap<Value, Stage>,
    /// For each node.
    iterations: Vec<Option<Iteration>>,
    loops: usize,
    schedule: Schedule,
}

impl Opened {
    /// Copies the nodes of a function; gives its results.
    fn copy(
        &mut self,
        function: &Function,
        inputs: &[Value],
        lap: Option<Iteration>,
    ) -> Vec<Value> {
        let outer = self.b.origin().clone();
        let mut map: HashMap<Value, Value> =
            function.parameters().iter().copied().zip(inputs.iter().copied()).collect();
        for node in function.nodes() {
            self.b.set_origin(outer.enter(&node.origin));
            let inputs: Vec<Value> = node.inputs.iter().map(|v| map[v]).collect();
            let outputs = match &node.op {
                Primitive::Call(call) if self.opens(&call.function, &inputs, lap) => {
                    self.copy(&call.function, &inputs, lap)
                }
                Primitive::Scan(scan) if self.spans(&inputs) => self.unroll(scan, &inputs, lap),
                op => {
                    let outputs = self.build(lap, |b| b.emit(op.clone(), &inputs));
                    let mut stages = inputs.iter().map(|v| self.weights.get(v).copied());
                    let first = stages.next().flatten();
                    if let Some(stage) = first.filter(|_| stages.all(|stage| stage == first)) {
                        self.weights.extend(outputs.iter().map(|&v| (v, stage)));
                    }
                    outputs
                }
            };
            map.extend(node.outputs.iter().copied().zip(outputs));
        }
        self.b.set_origin(outer);
        function.results().iter().map(|v| map[v]).collect()
    }

    /// Whether a call is opened: it goes over several stages, or gradients of its weights can wait
    /// while others cannot.
    fn opens(&self, function: &Function, inputs: &[Value], lap: Option<Iteration>) -> bool {
        let weights = || inputs.iter().any(|v| self.weights.contains_key(v));
        let apart = self.schedule == Schedule::ZeroBubble && function.composite.is_none();
        self.spans(inputs) || (apart && lap.is_some() && weights())
    }

    /// Whether weights of several stages are among these.
    fn spans(&self, values: &[Value]) -> bool {
        let mut stages = values.iter().filter_map(|v| self.weights.get(v));
        let first = stages.next();
        stages.any(|stage| Some(stage) != first)
    }

    /// Builds nodes of an iteration.
    fn build<T>(&mut self, lap: Option<Iteration>, f: impl FnOnce(&mut Builder) -> T) -> T {
        let made = f(&mut self.b);
        self.iterations.resize(self.b.nodes().len(), lap);
        made
    }

    /// The iterations of a loop, one after the other; those of a loop within it belong to its own.
    fn unroll(&mut self, scan: &Scan, inputs: &[Value], lap: Option<Iteration>) -> Vec<Value> {
        let (constants, carries, stacked) = scan.parts(inputs);
        let mut carries = carries.to_vec();
        let mut slices: Vec<Vec<Value>> = Vec::new();
        let of = self.loops;
        self.loops += 1;
        for i in 0..scan.length {
            let lap = lap.or(Some(Iteration { of, lap: i }));
            let at = if scan.reverse { scan.length - 1 - i } else { i };
            let own = stacked.iter().map(|&x| {
                self.build(lap, |b| {
                    let slice = b.slice_dim(x, 0, at, at + 1);
                    let shape = b.ty(x).shape[1..].to_vec();
                    b.reshape(slice, &shape)
                })
            });
            let own: Vec<Value> = own.collect();
            let mut results = self.copy(&scan.body, &[constants, &carries, &own].concat(), lap);
            slices.push(results.split_off(scan.carries));
            carries = results;
        }
        if scan.reverse {
            slices.reverse();
        }
        for i in 0..scan.body.results().len() - scan.carries {
            let parts: Vec<Value> = slices.iter().map(|slice| slice[i]).collect();
            carries.push(self.build(lap, |b| {
                let rows = parts.iter().map(|&part| {
                    let shape = [&[1], &b.ty(part).shape[..]].concat();
                    b.reshape(part, &shape)
                });
                let rows: Vec<Value> = rows.collect();
                b.concatenate(&rows, 0)
            }));
        }
        carries
    }
}

/// The stages of the nodes of a program, as far as they are settled.
struct Homes<'a> {
    program: &'a Function,
    /// How many stages there are.
    count: f64,
    /// For each value: where it is made, or lies.
    made: Vec<Option<Stage>>,
    /// For each node: whether its weights say where it runs.
    settled: Vec<bool>,
    /// For each value the nodes that use it.
    users: Vec<Vec<usize>>,
    /// For each value: where it is wanted as a result.
    wanted: Vec<Vec<Option<Stage>>>,
}

impl<'a> Homes<'a> {
    fn new(
        program: &'a Function,
        weights: &HashMap<Value, Stage>,
        parameters: &[Placement],
        results: &[Option<Option<Stage>>],
        count: usize,
    ) -> Homes<'a> {
        let values = program.value_count();
        let mut homes = Homes {
            program,
            count: count as f64,
            made: vec![None; values],
            settled: vec![false; program.nodes().len()],
            users: vec![Vec::new(); values],
            wanted: vec![Vec::new(); values],
        };
        for (p, lies) in program.parameters().iter().zip(parameters) {
            homes.made[p.index()] = lies.sharding.stage;
        }
        for (v, want) in program.results().iter().zip(results) {
            homes.wanted[v.index()].extend(want);
        }
        for (i, node) in program.nodes().iter().enumerate() {
            for v in &node.inputs {
                homes.users[v.index()].push(i);
            }
            let stages: Vec<Stage> =
                node.inputs.iter().filter_map(|v| weights.get(v)).copied().collect();
            if let Some(&stage) = stages.iter().min_by(|a, b| {
                let cost = |stage: &Stage| homes.cost(i, Some(*stage), false);
                cost(a).total_cmp(&cost(b))
            }) {
                homes.settled[i] = true;
                homes.put(i, Some(stage));
            } else {
                homes.put(i, homes.best(i, homes.operands(i), false));
            }
        }
        homes
    }

    /// For each node where it runs.
    fn settle(mut self) -> Vec<Option<Stage>> {
        let all = self.program.nodes().len();
        for _ in 0..2 {
            for i in (0..all).rev().filter(|&i| !self.settled[i]).collect::<Vec<_>>() {
                let mut candidates = self.consumers(i);
                candidates.push(self.of(i));
                candidates.extend(self.operands(i));
                self.put(i, self.best(i, candidates, true));
            }
            // What is made of values that are everywhere can be everywhere, until it turns out
            // that only one stage uses it.
            for i in (0..all).filter(|&i| !self.settled[i]).collect::<Vec<_>>() {
                if self.operands(i).iter().all(Option::is_none) {
                    self.put(i, None);
                }
            }
        }
        for i in (0..all).rev().filter(|&i| !self.settled[i]).collect::<Vec<_>>() {
            let mut candidates = self.consumers(i);
            candidates.push(self.of(i));
            self.put(i, self.best(i, candidates, true));
        }
        (0..all).map(|i| self.of(i)).collect()
    }

    fn of(&self, node: usize) -> Option<Stage> {
        let outputs = &self.program.nodes()[node].outputs;
        outputs.first().and_then(|v| self.made[v.index()])
    }

    fn put(&mut self, node: usize, stage: Option<Stage>) {
        let program = self.program;
        for v in &program.nodes()[node].outputs {
            self.made[v.index()] = stage;
        }
    }

    /// Where the operands of a node are, the last first.
    fn operands(&self, node: usize) -> Vec<Option<Stage>> {
        let inputs = self.program.nodes()[node].inputs.iter().rev();
        let stages: Vec<Option<Stage>> = inputs.map(|v| self.made[v.index()]).collect();
        // Of values that are everywhere each stage makes its own.
        let somewhere: Vec<_> = stages.iter().copied().filter(Option::is_some).collect();
        if somewhere.is_empty() { vec![None] } else { somewhere }
    }

    /// Where a value is used by other nodes than this.
    fn uses<'s>(
        &'s self,
        v: Value,
        but: usize,
    ) -> impl Iterator<Item = Option<Stage>> + use<'s, 'a> {
        let users = self.users[v.index()].iter().filter(move |&&user| user != but);
        users.map(|&user| self.of(user)).chain(self.wanted[v.index()].iter().copied())
    }

    /// Where the results of a node are used.
    fn consumers(&self, node: usize) -> Vec<Option<Stage>> {
        let outputs = &self.program.nodes()[node].outputs;
        let mut all: Vec<_> = outputs.iter().flat_map(|&v| self.uses(v, node)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The first of the cheapest.
    fn best(&self, node: usize, candidates: Vec<Option<Stage>>, results: bool) -> Option<Stage> {
        let costs = candidates.into_iter().map(|stage| (self.cost(node, stage, results), stage));
        costs.min_by(|(a, _), (b, _)| a.total_cmp(b)).and_then(|(_, stage)| stage)
    }

    /// Bytes that go between stages if a node runs there: its operands, and its results if they
    /// are looked at.
    fn cost(&self, node: usize, at: Option<Stage>, results: bool) -> f64 {
        let Node { inputs, outputs, .. } = &self.program.nodes()[node];
        let moved = |v: Value, from: Option<Stage>, to: Option<Stage>| match (from, to) {
            (None, _) => 0.0,
            _ if from == to => 0.0,
            (Some(_), Some(_)) => self.program.ty(v).bytes() as f64,
            (Some(_), None) => self.program.ty(v).bytes() as f64 * (self.count - 1.0),
        };
        let operand = |&v: &Value| match self.uses(v, node).any(|user| user == at) {
            true => 0.0,
            false => moved(v, self.made[v.index()], at),
        };
        let mut bytes: f64 = inputs.iter().map(operand).sum();
        for &v in outputs.iter().filter(|_| results) {
            let mut to: Vec<_> = self.uses(v, node).collect();
            to.sort_unstable();
            to.dedup();
            bytes += to.into_iter().map(|to| moved(v, at, to)).sum::<f64>();
        }
        bytes
    }
}

/// The nodes in the order in which they are to stand: in every opened loop that of the schedule.
fn reordered(
    program: &Function,
    setting: &Setting,
    stages: &[Option<Stage>],
    iterations: &[Option<Iteration>],
) -> Vec<usize> {
    let mut order = Vec::with_capacity(stages.len());
    let mut seconds = Seconds { setting, known: HashMap::new() };
    let all: Vec<usize> = (0..stages.len()).collect();
    for run in all.chunk_by(|&a, &b| iterations[a].map(|x| x.of) == iterations[b].map(|x| x.of)) {
        match iterations[run[0]] {
            None => order.extend(run),
            Some(_) => {
                let laps: Vec<usize> = iterations[run[0]..=run[run.len() - 1]]
                    .iter()
                    .map(|lap| lap.map_or(0, |x| x.lap))
                    .collect();
                let run = Run { program, first: run[0], laps, stages };
                let (blocks, nodes) = run.blocks(setting.schedule, &mut seconds);
                for block in schedule::order(&blocks, setting.schedule) {
                    order.extend(&nodes[block]);
                }
            }
        }
    }
    order
}

/// The nodes of an opened loop.
struct Run<'a> {
    program: &'a Function,
    /// The first of them.
    first: usize,
    /// For each its iteration.
    laps: Vec<usize>,
    /// Of all nodes of the program.
    stages: &'a [Option<Stage>],
}

impl Run<'_> {
    /// The work of each stage on each iteration in one piece, and the nodes of each piece.
    fn blocks(&self, schedule: Schedule, seconds: &mut Seconds) -> (Vec<Block>, Vec<Vec<usize>>) {
        let nodes = &self.program.nodes()[self.first..][..self.laps.len()];
        let stage = |i: usize| self.stages[self.first + i];
        let mut makers: HashMap<Value, usize> = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            makers.extend(node.outputs.iter().map(|&v| (v, i)));
        }
        let operands = |i: usize| nodes[i].inputs.iter().filter_map(|v| makers.get(v).copied());
        let same = |i: usize, j: usize| self.laps[i] == self.laps[j];
        // How often an iteration has gone to another stage. From everywhere to one is no step.
        let mut depths: Vec<usize> = Vec::with_capacity(nodes.len());
        for i in 0..nodes.len() {
            let steps = |j: usize| usize::from(stage(j).is_some() && stage(j) != stage(i));
            let before = operands(i).filter(|&j| same(i, j)).map(|j| depths[j] + steps(j));
            depths.push(before.max().unwrap_or(0));
        }
        let place = |i: usize| (self.laps[i], stage(i), depths[i]);
        // What no other piece of the iteration waits for may come later.
        let mut awaited = vec![schedule != Schedule::ZeroBubble; nodes.len()];
        for i in (0..nodes.len()).rev() {
            for j in operands(i).filter(|&j| same(i, j)) {
                awaited[j] |= awaited[i] || place(i) != place(j);
            }
        }
        let mut blocks: Vec<Block> = Vec::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        let mut of = Vec::with_capacity(nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            let late = !awaited[i];
            let block = *known.entry((place(i), late)).or_insert(blocks.len());
            if block == blocks.len() {
                let (iteration, stage, depth) = place(i);
                let after = Vec::new();
                blocks.push(Block { iteration, stage, depth, late, duration: 0.0, after });
                members.push(Vec::new());
            }
            members[block].push(self.first + i);
            blocks[block].duration += seconds.of(self.program, node);
            let needs = operands(i).map(|j| of[j]).filter(|&b| b != block);
            blocks[block].after.extend(needs);
            of.push(block);
        }
        for block in &mut blocks {
            block.after.sort_unstable();
            block.after.dedup();
        }
        (blocks, members)
    }
}

/// What nodes cost.
struct Seconds<'a> {
    setting: &'a Setting<'a>,
    /// By function.
    known: HashMap<*const Function, f64>,
}

impl Seconds<'_> {
    /// Seconds of a node on whole shapes.
    fn of(&mut self, function: &Function, node: &Node) -> f64 {
        let inner = |function: &Arc<Function>, seconds: &mut Self| -> f64 {
            let at = Arc::as_ptr(function);
            if let Some(&known) = seconds.known.get(&at) {
                return known;
            }
            let sum = function.nodes().iter().map(|node| seconds.of(function, node)).sum();
            seconds.known.insert(at, sum);
            sum
        };
        match &node.op {
            Primitive::Call(call) => inner(&call.function, self),
            Primitive::Scan(scan) => inner(&scan.body, self) * scan.length as f64,
            Primitive::Cond(cond) => inner(&cond.branches[0], self),
            op => {
                let types = |values: &[Value]| -> Vec<&Type> {
                    values.iter().map(|&v| function.ty(v)).collect()
                };
                let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
                let bytes = inputs.iter().chain(&outputs).map(|ty| ty.bytes() as f64).sum();
                let points = pattern(op, &inputs, &outputs).map_or(0.0, |pattern| {
                    let sizes = pattern.factors.iter().map(|f| f.size as f64);
                    pattern.operations * sizes.product::<f64>()
                });
                self.setting.rates.compute(points, bytes)
            }
        }
    }
}
