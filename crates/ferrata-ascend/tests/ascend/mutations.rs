//! Every flag and barrier of compiled kernels is taken away in turn. The simulator has to notice,
//! unless the order of all conflicting accesses survives, which is looked up another way: in the
//! transitive closure of all that is ordered.

use crate::committed::{arguments, compiler, programs, target};
use ferrata_ascend::Needs;
use ferrata_ascend::sim::{Access, Argument, Event, Pipe, Program};
use ferrata_ir::Literal;
use std::collections::HashMap;

/// A compiled program and what it runs on.
struct Case {
    name: String,
    text: String,
    buffers: Vec<Vec<u8>>,
    arguments: Vec<Argument>,
    grid: usize,
}

/// The first two programs of each grid; others do the same.
const PLACES: usize = 2;

impl Case {
    fn record(&self, text: &str, place: usize) -> (Vec<Event>, Result<(), String>) {
        let program = match Program::parse(text) {
            Ok(program) => program,
            Err(error) => return (Vec::new(), Err(error.to_string())),
        };
        let buffers = &mut self.buffers.clone();
        let (events, done) =
            program.record(&target(), buffers, &self.arguments, (place, self.grid));
        (events, done.map_err(|e| e.to_string()))
    }
}

/// Every launch of the kept kernels, on memory full of small numbers.
fn cases() -> Vec<Case> {
    let device = ferrata_ascend::AscendSimulator::new(target(), compiler()).unwrap();
    let mut cases = Vec::new();
    for (name, program) in programs() {
        let inputs = arguments(&program);
        let plan =
            ferrata_compiler::compile(&program, &vec![false; inputs.len()], &device).unwrap();
        for kernel in &plan.kernels {
            let views = kernel.reads().into_iter().chain(kernel.writes());
            let operands = 1 + views.map(|v| v.operand).max().unwrap();
            let bytes = |values: &Literal| values.to_bytes();
            let longest = inputs.iter().map(bytes).max_by_key(Vec::len).unwrap().len().max(1 << 21);
            let (launches, workspaces) =
                ferrata_ascend::compile(kernel, &target(), &compiler(), Needs::Text).unwrap();
            // Zeros are numbers of every dtype, and indices inside.
            let buffers = vec![vec![0; longest]; operands + workspaces.len()];
            for (i, (launch, compiled)) in launches.into_iter().enumerate() {
                cases.push(Case {
                    name: format!("{name}, launch {i}"),
                    text: compiled.text.to_string(),
                    buffers: buffers.clone(),
                    arguments: launch.operands.iter().map(|&o| (o, 0)).collect(),
                    grid: launch.grid,
                });
            }
        }
    }
    cases
}

/// For each instruction, those before it that have ended when it starts: a set of bits.
type Past = Vec<u64>;

fn join(past: &mut Past, other: &Past) {
    past.resize(past.len().max(other.len()), 0);
    past.iter_mut().zip(other).for_each(|(a, b)| *a |= b);
}

fn insert(past: &mut Past, i: usize) {
    past.resize(past.len().max(i / 64 + 1), 0);
    past[i / 64] |= 1 << (i % 64);
}

/// Whether two accesses meet that nothing orders.
fn conflicts(events: &[Event]) -> bool {
    let mut instructions: Vec<(Pipe, &[Access])> = Vec::new();
    let mut started: HashMap<Pipe, Vec<usize>> = HashMap::new();
    // What is known to have ended before the next instruction of a pipe.
    let mut ended: HashMap<Pipe, Past> = HashMap::new();
    let mut flags: HashMap<(Pipe, Pipe, i64), Past> = HashMap::new();
    for event in events {
        match event {
            Event::Instruction { pipe, accesses } => {
                let mut past = ended.get(pipe).cloned().unwrap_or_default();
                // The scalar unit waits before it hands an instruction out.
                if let Some(scalar) = ended.get(&Pipe::Scalar) {
                    let own = started.get(&Pipe::Scalar).cloned().unwrap_or_default();
                    let mut seen = scalar.clone();
                    if *pipe != Pipe::Scalar {
                        let known =
                            |i: usize| past.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 == 1);
                        for i in own.into_iter().filter(|&i| !known(i)) {
                            if let Some(word) = seen.get_mut(i / 64) {
                                *word &= !(1 << (i % 64));
                            }
                        }
                    }
                    join(&mut past, &seen);
                }
                let flies = |i: &usize| past.get(i / 64).is_none_or(|w| w >> (i % 64) & 1 == 0);
                for earlier in (0..instructions.len()).filter(flies).map(|i| instructions[i]) {
                    // An instruction has read before a later one of its pipe writes.
                    let counts = |b: &&Access| b.write || earlier.0 != *pipe;
                    let meets = |a: &Access| earlier.1.iter().filter(counts).any(|b| a.meets(b));
                    if accesses.iter().any(meets) {
                        return true;
                    }
                }
                let number = instructions.len();
                instructions.push((*pipe, accesses));
                started.entry(*pipe).or_default().push(number);
                if pipe.is_serial() {
                    insert(ended.entry(*pipe).or_default(), number);
                }
            }
            Event::Set { from, to, event } => {
                let mut past = ended.get(from).cloned().unwrap_or_default();
                started.get(from).into_iter().flatten().for_each(|&i| insert(&mut past, i));
                flags.insert((*from, *to, *event), past);
            }
            Event::Wait { from, to, event } => {
                let past = flags.remove(&(*from, *to, *event)).unwrap_or_default();
                join(ended.entry(*to).or_default(), &past);
            }
            Event::Barrier { pipe } => {
                let pipes = if *pipe == Pipe::All { &Pipe::EACH[..] } else { &[*pipe] };
                let of: Vec<usize> = pipes
                    .iter()
                    .flat_map(|p| started.get(p).cloned().unwrap_or_default())
                    .collect();
                for pipe in pipes {
                    let past = ended.entry(*pipe).or_default();
                    of.iter().for_each(|&i| insert(past, i));
                }
            }
        }
    }
    false
}

/// What happened to the mutations.
#[derive(Debug, Default)]
struct Count {
    mutations: usize,
    detected: usize,
    redundant: usize,
}

#[test]
fn missing_flags_and_barriers_are_noticed() {
    let (mut single, mut pairs) = (Count::default(), Count::default());
    for case in cases() {
        let places = case.grid.min(PLACES);
        for place in 0..places {
            let (events, done) = case.record(&case.text, place);
            done.unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert!(!conflicts(&events), "{}", case.name);
        }
        let lines: Vec<&str> = case.text.lines().collect();
        let is = |line: &str, what: &str| line.trim().starts_with(&format!("hivm.hir.{what}"));
        let without = |gone: &dyn Fn(usize) -> bool, count: &mut Count, what: &str| {
            let kept = lines.iter().enumerate().filter(|(i, _)| !gone(*i)).map(|(_, l)| *l);
            let text = kept.collect::<Vec<_>>().join("\n");
            let runs: Vec<_> = (0..places).map(|place| case.record(&text, place)).collect();
            count.mutations += 1;
            if runs.iter().any(|(_, done)| done.is_err()) {
                count.detected += 1;
                return;
            }
            let survives = runs.iter().all(|(events, _)| !conflicts(events));
            assert!(survives, "{}: nothing is said without {what}", case.name);
            count.redundant += 1;
        };
        for (i, line) in lines.iter().enumerate() {
            if is(line, "set_flag") || is(line, "wait_flag") || is(line, "pipe_barrier") {
                without(&|at| at == i, &mut single, line.trim());
            }
        }
        // A flag with both of its ends, everywhere: what remains pairs.
        let flag = |line: &str| {
            let flag = is(line, "set_flag") || is(line, "wait_flag");
            flag.then(|| line.trim().split_once('[').map_or("", |l| l.1).to_owned())
        };
        let mut flags: Vec<String> = lines.iter().filter_map(|l| flag(l)).collect();
        flags.sort();
        flags.dedup();
        for gone in flags {
            without(&|at| flag(lines[at]).as_ref() == Some(&gone), &mut pairs, &gone);
        }
    }
    println!("one at a time {single:?}; flags with both ends {pairs:?}");
    assert!(single.detected > 0 && pairs.detected > 0);
    assert_eq!(single.mutations, single.detected + single.redundant);
}
