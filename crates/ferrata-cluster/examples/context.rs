//! Times attention with its backward pass over ranks that each have some of the positions, in each
//! of the ways in which it can work then, against one rank with all cores.
//!
//! `cargo run --release -p ferrata-cluster --example context [dtype] [heads] [groups] [positions]
//! [ranks]` prints, for each way, the median time of some runs that take turns, the memory that
//! a rank needs between arguments and results, and what it sends. Ranks are threads.

use std::sync::Arc;
use std::time::Instant;

use ferrata_compiler::{Argument, Buffer, Device, Executable};
use ferrata_cpu::{CpuDevice, CpuOptions};
use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::sharding::{
    ContextParallel, Cut, Mesh, Names, Placement, Rates, Schedule, Setting, Sharding, partition,
};
use ferrata_ir::transform::vjp;
use ferrata_ir::{Builder, DType, Function, Literal, Result, Scalar, Type};

const ROUNDS: usize = 5;
const FEATURES: usize = 64;

/// What runs together: a program for each rank.
struct Case {
    name: String,
    ranks: Vec<Rank>,
    sent: f64,
    seconds: Vec<f64>,
}

struct Rank {
    executable: Arc<dyn Executable>,
    arguments: Vec<Buffer>,
}

impl Rank {
    fn new(device: &CpuDevice, program: &Arc<Function>) -> Result<Rank> {
        let types = program.parameter_types();
        let executable = device.compile(program, &vec![false; types.len()])?;
        let upload = |(i, ty): (usize, &&Type)| {
            let value = |at: usize| Scalar::Float(((at * 37 + i * 11) % 101) as f64 / 50.0 - 1.0);
            device.upload((*ty).clone(), &Literal::build((*ty).clone(), value).to_bytes())
        };
        let arguments = types.iter().enumerate().map(upload).collect::<Result<_>>()?;
        Ok(Rank { executable, arguments })
    }

    fn run(&self) -> Result<()> {
        let arguments = self.arguments.iter().cloned().map(Argument::Shared).collect();
        self.executable.run(arguments).map(|_| ())
    }
}

impl Case {
    fn run(&mut self) -> Result<()> {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let ranks: Vec<_> =
                self.ranks.iter().map(|rank| scope.spawn(move || rank.run())).collect();
            ranks.into_iter().try_for_each(|rank| rank.join().expect("no panic"))
        })?;
        self.seconds.push(start.elapsed().as_secs_f64());
        Ok(())
    }
}

fn main() -> Result<()> {
    let argument = |n| std::env::args().nth(n).unwrap_or_default();
    let number = |n: usize, default: usize| argument(n).parse().unwrap_or(default);
    let dtype = if argument(1) == "bf16" { DType::BF16 } else { DType::F32 };
    let (heads, groups) = (number(2, 12), number(3, 12));
    let (positions, count) = (number(4, 4096), number(5, 2));
    let causal = Attention { causal: true, ..Attention::default() };
    let mut b = Builder::new("attention");
    let [q, k, v] = [heads, groups, groups]
        .map(|heads| b.parameter(Type::new(dtype, [1, heads, positions, FEATURES])));
    let out = attention(&mut b, q, k, v, None, None, &causal);
    let program = Arc::new(vjp(&Arc::new(b.finish(&[out])?), &[true; 3])?);

    let whole = CpuDevice::new(CpuOptions::default())?;
    let ranks = vec![Rank::new(&whole, &program)?];
    let mut cases = vec![Case { name: "alone".into(), ranks, sent: 0.0, seconds: Vec::new() }];
    let mesh = Mesh::new([("context", count)])?;
    let names = Names::new();
    let ways = [
        (ContextParallel::Ring, true),
        (ContextParallel::Ring, false),
        (ContextParallel::Exchange, false),
        (ContextParallel::Gather, false),
    ];
    for (context, dealt) in ways {
        let (rates, schedule) = (Rates::default(), Schedule::default());
        let (mesh, names, cut_sums) = (&mesh, &names, false);
        let setting = Setting { mesh, names, rates, schedule, cut_sums, context };
        let mut lies = Sharding::replicated(4);
        lies.cuts[2] = match dealt {
            true => Cut::dealt(mesh, &[0], positions),
            false => Cut::along(&[0]),
        };
        let placements = vec![Placement::data(lies.clone()); program.parameter_types().len()];
        let results = vec![Some(lies); program.results().len()];
        let mut case = Case {
            name: format!("{context}{}", if dealt { ", positions dealt out" } else { "" }),
            ranks: Vec::new(),
            sent: 0.0,
            seconds: Vec::new(),
        };
        for (rank, communicator) in ferrata_cluster::local(count).into_iter().enumerate() {
            let made = partition(&program, &setting, rank, &placements, &results)?;
            case.sent = made.reshards.iter().map(|edge| edge.bytes).sum();
            let communicator = Some(communicator.into());
            let options = CpuOptions { threads: Some(1), communicator, ..CpuOptions::default() };
            case.ranks.push(Rank::new(&CpuDevice::new(options)?, &made.program)?);
        }
        cases.push(case);
    }
    for _ in 0..=ROUNDS {
        cases.iter_mut().try_for_each(Case::run)?;
    }
    println!("{dtype}, {heads} heads in {groups} groups, {positions} positions, {count} ranks");
    for case in &mut cases {
        // The first run touches its memory first.
        let mut seconds = case.seconds.split_off(1);
        seconds.sort_by(f64::total_cmp);
        let plans = case.ranks.iter().filter_map(|rank| rank.executable.plan());
        let memory: Vec<String> =
            plans.map(|plan| format!("{:.1}", plan.arena as f64 / 1e6)).collect();
        println!(
            "{:30} {:8.1} ms   {} MB   sends {:.1} MB",
            case.name,
            seconds[ROUNDS / 2] * 1e3,
            memory.join(" + "),
            case.sent / 1e6
        );
    }
    Ok(())
}
