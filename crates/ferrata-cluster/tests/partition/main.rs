//! Partitioned programs mean what the whole program means.

mod attention;
mod network;

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrata_cluster::local;
use ferrata_compiler::{Argument, Device};
use ferrata_cpu::{CpuDevice, CpuOptions};
use ferrata_ir::primitive::{Save, Scan};
use ferrata_ir::sharding::{
    ContextParallel, Cut, Mesh, Names, Placement, Rates, Schedule, Setting, Sharding, Stage,
    partition,
};
use ferrata_ir::testing::{
    Options, Random, evaluate, property_programs, random_arguments, random_program,
};
use ferrata_ir::{
    Builder, Communicator, DType, Evaluator, Function, Literal, Precision, Result, Type, Value,
    verify,
};

/// The part of a value that a rank holds.
fn part(x: &Literal, mesh: &Mesh, sharding: &Sharding, rank: usize) -> Literal {
    let places = sharding.elements(mesh, &x.ty, rank);
    let ty = sharding.local(mesh, &x.ty, rank);
    Literal::build(ty, |i| x.get(places[i]))
}

/// Results of all ranks, put together; ranks that hold the same have to agree.
fn whole(parts: &[Literal], mesh: &Mesh, sharding: &Sharding, ty: &Type) -> Vec<f64> {
    let mut whole = vec![None; ty.elements()];
    for (rank, part) in parts.iter().enumerate() {
        let places = sharding.elements(mesh, ty, rank);
        for (at, x) in places.into_iter().zip(part.to_f64()) {
            let there = whole[at].get_or_insert(x);
            assert!(there.to_bits() == x.to_bits(), "rank {rank} holds {x}, another {there}");
        }
    }
    whole.into_iter().map(|x| x.expect("every element is somewhere")).collect()
}

/// A random way for a value to lie, on a stage if the mesh has any.
fn random_sharding(random: &mut Random, mesh: &Mesh, ty: &Type) -> Sharding {
    let mut sharding = Sharding::replicated(ty.rank());
    let pipeline = mesh.axis("pipeline");
    if let Some(axis) = pipeline.filter(|_| !random.one_in(3)) {
        sharding.stage = Some(Stage { axis, at: random.below(mesh.parts(&[axis])) });
    }
    for axis in (0..mesh.axes().len()).filter(|&axis| Some(axis) != pipeline) {
        if ty.rank() == 0 || random.one_in(3) {
            continue;
        }
        let d = random.below(ty.rank());
        let mut with = sharding.clone();
        let mut axes = with.cuts[d].axes.clone();
        axes.push(axis);
        with.cuts[d] = Cut::along(&axes);
        if with.check(mesh, ty).is_ok() {
            sharding = with;
        }
    }
    sharding
}

/// What a rank runs its program with.
type Runner = fn(&Arc<Function>, &[Literal], Arc<dyn Communicator>) -> Result<Vec<Literal>>;

fn evaluated(
    program: &Arc<Function>,
    x: &[Literal],
    rank: Arc<dyn Communicator>,
) -> Result<Vec<Literal>> {
    let evaluator = Evaluator::new(Precision::Exact).with_communicator(rank);
    evaluator.call(program, &x.iter().collect::<Vec<_>>())
}

fn compiled(
    program: &Arc<Function>,
    x: &[Literal],
    rank: Arc<dyn Communicator>,
) -> Result<Vec<Literal>> {
    let options =
        CpuOptions { threads: Some(1), communicator: Some(rank), ..CpuOptions::default() };
    let cpu = CpuDevice::new(options)?;
    let upload = |x: &Literal| cpu.upload(x.ty.clone(), &x.to_bytes()).map(Argument::Shared);
    let arguments = x.iter().map(upload).collect::<Result<_>>()?;
    let results = cpu.compile(program, &vec![false; x.len()])?.run(arguments)?;
    results.iter().map(|y| Literal::from_bytes(y.ty.clone(), &cpu.download(y)?)).collect()
}

/// What the ranks of a mesh make of a program together.
fn run_ranks(
    runner: Runner,
    programs: &[Arc<Function>],
    arguments: &[Vec<Literal>],
) -> Vec<Result<Vec<Literal>>> {
    let ranks = local(programs.len());
    std::thread::scope(|scope| {
        let ranks = ranks
            .into_iter()
            .zip(programs)
            .zip(arguments)
            .map(|((rank, program), x)| scope.spawn(move || runner(program, x, rank.into())));
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
    })
}

fn close(a: f64, b: f64, within: f64) -> bool {
    let error = (a - b).abs();
    a == b || (a.is_nan() && b.is_nan()) || error <= within * (1.0 + a.abs().max(b.abs()))
}

/// What a program is cut with.
#[derive(Clone, Copy, Default)]
struct Way {
    rates: Rates,
    schedule: Schedule,
    cut_sums: bool,
    context: ContextParallel,
}

fn compare(
    (name, runner): (&str, Runner),
    program: &Arc<Function>,
    mesh: &Mesh,
    placements: &[Placement],
    results: &[Option<Sharding>],
    arguments: &[Literal],
    Way { rates, schedule, cut_sums, context }: Way,
) -> Arc<Function> {
    let expected = evaluate(program, arguments).expect("the whole program runs");
    let names = Names::new();
    let setting = Setting { mesh, names: &names, rates, schedule, cut_sums, context };
    let parts: Vec<_> = (0..mesh.size())
        .map(|rank| {
            let made = partition(program, &setting, rank, placements, results);
            let made = made.unwrap_or_else(|e| panic!("{name} on {mesh}: {e}"));
            verify(&made.program).unwrap_or_else(|e| panic!("{name} on {mesh}: {e}"));
            made
        })
        .collect();
    let programs: Vec<_> = parts.iter().map(|p| p.program.clone()).collect();
    let arguments: Vec<Vec<Literal>> = (0..mesh.size())
        .map(|rank| {
            let each = arguments.iter().zip(placements);
            each.map(|(x, placement)| part(x, mesh, &placement.sharding, rank)).collect()
        })
        .collect();
    let made: Vec<Vec<Literal>> = run_ranks(runner, &programs, &arguments)
        .into_iter()
        .map(|made| made.unwrap_or_else(|e| panic!("{name} on {mesh}: {e}")))
        .collect();
    for (i, expected) in expected.iter().enumerate() {
        let each: Vec<Literal> = made.iter().map(|results| results[i].clone()).collect();
        let sharding = &parts[0].results[i];
        if let Some(want) = &results[i] {
            assert_eq!(sharding, want, "{name}: result {i}");
        }
        let found = whole(&each, mesh, sharding, &expected.ty);
        let within = match expected.ty.dtype {
            DType::F32 => 1e-5,
            DType::BF16 => 3e-2,
            _ => 1e-9,
        };
        for (at, (a, b)) in expected.to_f64().into_iter().zip(found).enumerate() {
            let close = close(a, b, within);
            assert!(close, "{name} on {mesh}: result {i}, element {at}: {a} whole, {b} cut");
        }
    }
    programs[0].clone()
}

/// Meshes by their axes.
type Meshes = &'static [&'static [(&'static str, usize)]];

const CUTTING: Meshes = &[
    &[("data", 2)],
    &[("data", 3)],
    &[("data", 2), ("tensor", 2)],
    &[("data", 2), ("tensor", 3)],
    &[("data", 2), ("context", 2), ("tensor", 2)],
];

const WITH_STAGES: Meshes = &[
    &[("pipeline", 2)],
    &[("pipeline", 3)],
    &[("data", 2), ("pipeline", 2)],
    &[("pipeline", 2), ("tensor", 2)],
    &[("data", 2), ("pipeline", 2), ("tensor", 2)],
];

/// Compares random programs on random meshes; gives how often each collective was wanted.
fn compare_random(
    meshes: Meshes,
    seeds: std::ops::Range<u64>,
    make: impl Fn(u64) -> Arc<Function>,
    runner: Runner,
) -> BTreeMap<String, usize> {
    let mut collectives = BTreeMap::new();
    for seed in seeds {
        let program = make(seed);
        let random = &mut Random::new(seed + 1_000_000);
        let mesh = Mesh::new(random.pick(meshes).iter().copied()).expect("a mesh");
        let placements: Vec<Placement> = program
            .parameter_types()
            .into_iter()
            .map(|ty| {
                let sharding = random_sharding(random, &mesh, ty);
                let stored: Vec<usize> =
                    (0..mesh.axes().len()).filter(|_| random.one_in(4)).collect();
                Placement { sharding, stored, weight: random.one_in(2) }
            })
            .collect();
        let results: Vec<Option<Sharding>> = program
            .result_types()
            .into_iter()
            .map(|ty| (!random.one_in(3)).then(|| random_sharding(random, &mesh, ty)))
            .collect();
        let arguments = random_arguments(&program, seed + 7);
        // Where computing is slow all work is shared, whatever has to be sent for that.
        let slow = Rates { operations: 1e3, memory: 1e3, network: 1e9, latency: 0.0 };
        let rates = if random.one_in(2) { slow } else { Rates::default() };
        let (schedule, cut_sums) = (*random.pick(&Schedule::ALL), random.one_in(2));
        let way = Way { rates, schedule, cut_sums, ..Way::default() };
        let name = format!("program {seed}");
        let made =
            compare((&name, runner), &program, &mesh, &placements, &results, &arguments, way);
        made.visit(&mut |f| {
            for node in f.nodes().iter().filter(|node| node.op.is_collective()) {
                *collectives.entry(node.op.name().to_owned()).or_default() += 1;
            }
        });
    }
    collectives
}

fn any_program(seed: u64) -> Arc<Function> {
    let sizes = vec![2, 3, 4, 6, 5, 8, 1, 4, 6];
    let options = Options { sizes, without: vec!["debug_print"], ..Options::differentiable() };
    random_program(seed, &options)
}

#[test]
fn random_programs_mean_the_same_on_random_meshes() {
    compare_random(CUTTING, 0..property_programs(100), any_program, evaluated);
}

#[test]
fn random_networks_mean_the_same_on_random_meshes() {
    let programs = property_programs(60);
    let made = compare_random(CUTTING, 0..programs, network::random_network, evaluated);
    for name in ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"] {
        let count = made.get(name).copied().unwrap_or(0);
        assert!(count as u64 >= programs / 4, "{name}: {count} in {programs} programs");
    }
}

#[test]
fn ranks_of_devices_compute_what_the_whole_program_means() {
    let programs = property_programs(40);
    compare_random(CUTTING, 100_000..100_000 + programs, any_program, compiled);
    compare_random(CUTTING, 200_000..200_000 + programs, network::random_network, compiled);
}

#[test]
fn random_programs_mean_the_same_on_stages() {
    compare_random(WITH_STAGES, 0..property_programs(60), any_program, evaluated);
}

#[test]
fn loops_over_stages_mean_the_same() {
    let programs = property_programs(60);
    let made = compare_random(WITH_STAGES, 0..programs, network::random_microbatches, evaluated);
    let count = made.get("permute").copied().unwrap_or(0);
    assert!(count as u64 >= programs, "{count} values went to other stages");
    let programs = property_programs(20);
    let seeds = 300_000..300_000 + programs;
    compare_random(WITH_STAGES, seeds, network::random_microbatches, compiled);
}

#[test]
fn loops_over_microbatches_mean_the_same_on_random_meshes() {
    let programs = property_programs(60);
    compare_random(CUTTING, 0..programs, network::random_microbatches, evaluated);
    let seeds = 400_000..400_000 + property_programs(40);
    compare_random(CUTTING, seeds, network::random_microbatches, compiled);
}

/// Gradients of microbatches are summed by every rank for itself, and over ranks at the end.
#[test]
fn what_a_loop_sums_is_combined_once() {
    let ty = |shape: &[usize]| Type::new(DType::F64, shape);
    let mut b = Builder::new("microbatch");
    let (sum, x, y) =
        (b.parameter(ty(&[4, 4])), b.parameter(ty(&[4, 8])), b.parameter(ty(&[8, 4])));
    let product = b.matmul(x, y);
    let sum = b.add(sum, product);
    let body = Arc::new(b.finish(&[sum]).expect("a sum"));
    let mut b = Builder::new("sum");
    let (x, y) = (b.parameter(ty(&[3, 4, 8])), b.parameter(ty(&[3, 8, 4])));
    let zero = b.full(ty(&[4, 4]), 0.0);
    let (constants, carries, length) = (0, 1, 3);
    let scan = Scan { body, constants, carries, length, reverse: false, save: Save::All };
    let sum = b.emit(scan, &[zero, x, y]);
    let program = Arc::new(b.finish(&sum).expect("a loop"));
    let mesh = Mesh::new([("data", 2)]).expect("a mesh");
    let placements = [Sharding::along(&[&[], &[], &[0]]), Sharding::along(&[&[], &[0], &[]])];
    let placements = placements.map(Placement::data);
    let whole = [Some(Sharding::replicated(2))];
    let arguments = random_arguments(&program, 6);
    let runner: (&str, Runner) = ("sum", evaluated);
    let made = compare(runner, &program, &mesh, &placements, &whole, &arguments, Way::default());
    let collectives = |f: &Function| f.nodes().iter().filter(|n| n.op.is_collective()).count();
    assert_eq!(collectives(&made), 1);
    let bodies = made.nodes().iter().flat_map(|node| node.op.functions());
    assert_eq!(bodies.map(|body| collectives(body)).collect::<Vec<_>>(), [0]);
}

/// Gradients of biases are summed over ranks in one go, and as soon as the last is known.
#[test]
fn small_sums_are_combined_together() {
    let ty = |shape: &[usize]| Type::new(DType::F64, shape);
    let mut b = Builder::new("sums");
    let x = b.parameter(ty(&[8, 4]));
    let sums: Vec<Value> = (0..5)
        .map(|i| {
            let y = b.scale(x, f64::from(i) - 1.5);
            b.sum(y, &[0])
        })
        .collect();
    let late = b.mul(sums[3], sums[3]);
    // This one is only known when another is already used.
    let y = b.broadcast_trailing(late, &[8, 4]);
    let y = b.mul(x, y);
    let last = b.sum(y, &[0]);
    let used: Vec<Value> = sums.iter().chain([&last]).map(|&v| b.mul(v, v)).collect();
    let program = Arc::new(b.finish(&used).expect("sums"));
    let mesh = Mesh::new([("data", 2)]).expect("a mesh");
    let placements = [Placement::data(Sharding::along(&[&[0], &[]]))];
    let whole = vec![Some(Sharding::replicated(1)); used.len()];
    let arguments = random_arguments(&program, 8);
    let runner: (&str, Runner) = ("sums", evaluated);
    let made = compare(runner, &program, &mesh, &placements, &whole, &arguments, Way::default());
    let sizes = made.nodes().iter().filter(|node| node.op.is_collective());
    let sizes: Vec<usize> = sizes.map(|node| made.ty(node.outputs[0]).elements()).collect();
    assert_eq!(sizes, [20, 4]);
}

#[test]
fn a_sum_that_is_needed_anyway_is_made_once() {
    let mut b = Builder::new("twice");
    let x = b.parameter(Type::new(DType::F64, [4, 8]));
    let y = b.parameter(Type::new(DType::F64, [8, 4]));
    let z = b.matmul(x, y);
    // Half of a partial sum is one; its square is none.
    let (half, square) = (b.scale(z, 0.5), b.mul(z, z));
    let program = Arc::new(b.finish(&[half, square]).expect("two results"));
    let mesh = Mesh::new([("data", 2)]).expect("a mesh");
    let placements = [Sharding::along(&[&[], &[0]]), Sharding::along(&[&[0], &[]])];
    let placements = placements.map(Placement::data);
    let whole = [0; 2].map(|_| Some(Sharding::replicated(2)));
    let arguments = random_arguments(&program, 5);
    let runner: (&str, Runner) = ("twice", evaluated);
    let made = compare(runner, &program, &mesh, &placements, &whole, &arguments, Way::default());
    let sums = made.nodes().iter().filter(|node| node.op.is_collective()).count();
    assert_eq!(sums, 1);
}
