//! Attention over positions that are cut, in each of the ways.

use std::collections::BTreeSet;
use std::sync::Arc;

use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::sharding::{
    ContextParallel, Cut, Mesh, Names, Partition, Placement, Setting, Sharding, partition,
};
use ferrata_ir::testing::{Random, property_programs, random_arguments};
use ferrata_ir::transform::vjp;
use ferrata_ir::{Builder, DType, Function, Type};

use crate::{Runner, Way, compare, compiled, evaluated};

const MESHES: [&[(&str, usize)]; 5] = [
    &[("context", 2)],
    &[("context", 3)],
    &[("context", 4)],
    &[("data", 2), ("context", 3)],
    &[("context", 2), ("tensor", 2)],
];

/// An attention of random sizes and settings with its derivatives.
fn random_attention(random: &mut Random, dtype: DType) -> Arc<Function> {
    let (batch, groups, shared) =
        (random.between(2, 3), random.between(1, 4), random.between(1, 2));
    let (time, size, values) = (random.between(4, 13), random.between(1, 5), random.between(1, 5));
    let causal = !random.one_in(3);
    let settings = Attention {
        scale: random.one_in(2).then_some(0.7),
        causal,
        offset: if random.one_in(3) { random.between(0, 4) as i64 - 2 } else { 0 },
        window: random.one_in(3).then(|| random.between(1, time)),
        softcap: random.one_in(3).then_some(1.5),
    };
    let mut b = Builder::new("attention");
    let shapes = [
        [batch, groups * shared, time, size],
        [batch, groups, time, size],
        [batch, groups, time, values],
    ];
    let [q, k, v] = shapes.map(|shape| b.parameter(Type::new(dtype, shape)));
    let out = attention(&mut b, q, k, v, None, None, &settings);
    let f = Arc::new(b.finish(&[out]).expect("an attention"));
    Arc::new(vjp(&f, &[true; 3]).expect("attention has a derivative"))
}

/// Batch, groups of heads and positions along the axes of a mesh, as far as they can be.
fn lying(mesh: &Mesh, ty: &Type, groups: usize, dealt: bool) -> Sharding {
    let mut sharding = Sharding::replicated(4);
    for (d, name) in ["data", "tensor", "context"].into_iter().enumerate() {
        let Some(axis) = mesh.axis(name) else { continue };
        let cut = match d {
            1 if groups < mesh.parts(&[axis]) => continue,
            1 if !groups.is_multiple_of(mesh.parts(&[axis])) => {
                Cut { unit: ty.shape[1] / groups, ..Cut::along(&[axis]) }
            }
            2 if dealt => Cut::dealt(mesh, &[axis], ty.shape[2]),
            _ => Cut::along(&[axis]),
        };
        let mut with = sharding.clone();
        with.cuts[d] = cut;
        if with.check(mesh, ty).is_ok() {
            sharding = with;
        }
    }
    sharding
}

/// Compares random attentions; gives the collectives that were wanted.
fn compare_attentions(
    seeds: std::ops::Range<u64>,
    dtypes: &[DType],
    context: ContextParallel,
    runner: Runner,
) -> BTreeSet<String> {
    let mut collectives = BTreeSet::new();
    for seed in seeds {
        let random = &mut Random::new(seed);
        let dtype = *random.pick(dtypes);
        let program = random_attention(random, dtype);
        let mesh = Mesh::new(random.pick(&MESHES).iter().copied()).expect("a mesh");
        let dealt = random.one_in(2);
        let types = program.parameter_types();
        let lie = |ty: &&Type| Placement::data(lying(&mesh, ty, types[1].shape[1], dealt));
        let placements: Vec<Placement> = types.iter().map(lie).collect();
        let results = vec![None; program.results().len()];
        let arguments = random_arguments(&program, seed + 7);
        let way = Way { context, ..Way::default() };
        let name = format!("attention {seed}");
        let made =
            compare((&name, runner), &program, &mesh, &placements, &results, &arguments, way);
        made.visit(&mut |f| {
            let all = f.nodes().iter().filter(|node| node.op.is_collective());
            collectives.extend(all.map(|node| node.op.name().to_owned()));
        });
    }
    collectives
}

#[test]
fn keys_and_values_go_around_and_are_never_gathered() {
    let ring = ContextParallel::Ring;
    let programs = property_programs(60);
    let made = compare_attentions(0..programs, &[DType::F64], ring, evaluated);
    assert_eq!(made.into_iter().collect::<Vec<_>>(), ["permute"]);
}

#[test]
fn devices_attend_around_a_ring() {
    let ring = ContextParallel::Ring;
    let dtypes = [DType::F64, DType::F32, DType::BF16];
    compare_attentions(1000..1000 + property_programs(60), &dtypes, ring, compiled);
}

/// The program of a rank of two for an attention of one sample with its derivatives.
fn of_two(context: ContextParallel) -> Partition {
    let mut b = Builder::new("attention");
    let [q, k, v] = [0; 3].map(|_| b.parameter(Type::new(DType::F32, [1, 2, 8, 4])));
    let out = attention(&mut b, q, k, v, None, None, &Attention::default());
    let f = Arc::new(b.finish(&[out]).expect("an attention"));
    let program = Arc::new(vjp(&f, &[true; 3]).expect("attention has a derivative"));
    let (mesh, names) = (Mesh::new([("context", 2)]).expect("a mesh"), Names::new());
    let Way { rates, schedule, cut_sums, .. } = Way::default();
    let (mesh, names) = (&mesh, &names);
    let setting = Setting { mesh, names, rates, schedule, cut_sums, context };
    let placements = vec![Placement::data(Sharding::along(&[&[], &[], &[0], &[]])); 4];
    let results = vec![None; program.results().len()];
    partition(&program, &setting, 1, &placements, &results).expect("it can be cut")
}

/// Twice keys and values of one block, forward and backward, and the gradients of both, which go
/// home too.
#[test]
fn what_goes_around_is_listed() {
    let edges = of_two(ContextParallel::Ring).reshards;
    let block = (2 * 4 * 4 * DType::F32.size()) as f64;
    assert!(edges.iter().all(|edge| edge.wanted_by == "ring attention"), "{edges:?}");
    let blocks: Vec<f64> = edges.iter().map(|edge| edge.bytes / block).collect();
    assert_eq!(blocks, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn attention_stays_one_kernel() {
    for context in [ContextParallel::Ring, ContextParallel::Exchange] {
        let mut composites = BTreeSet::new();
        of_two(context).program.visit(&mut |f| {
            composites.extend(f.composite.as_ref().map(|composite| composite.name));
        });
        assert!(composites.contains("attention_forward"), "{context}: {composites:?}");
        assert!(composites.contains("attention_backward"), "{context}: {composites:?}");
    }
}

#[test]
fn all_ways_of_attention_mean_the_same() {
    for context in ContextParallel::ALL {
        compare_attentions(2000..2000 + property_programs(30), &[DType::F64], context, evaluated);
    }
}
