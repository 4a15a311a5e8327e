//! The search for layouts.

#[path = "programs/experts.rs"]
mod experts;
mod programs;

use std::time::Instant;

use experts::{expert_model, small_cluster};
use ferrata_cluster::layout::{Axis, Layout, Mesh, Recompute, Schedule};
use ferrata_cluster::planner::{Fixed, PlanFile, USABLE, plan};
use ferrata_cluster::step::{Choice, Step};
use ferrata_cluster::{Cluster, Model, describe};
use programs::Gpt;

fn a100() -> Cluster {
    Cluster::parse(include_str!("../../../clusters/dgx-a100.toml")).unwrap()
}

fn h100() -> Cluster {
    Cluster::parse(include_str!("../../../clusters/dgx-h100.toml")).unwrap()
}

fn model(cluster: &Cluster, [layers, hidden, heads, sequence, vocabulary]: [usize; 5]) -> Model {
    let gpt = Gpt { layers, hidden, heads, sequence, vocabulary };
    describe(&gpt.loss(), &cluster.software).unwrap()
}

#[test]
fn thousands_of_devices_are_planned_in_seconds() {
    let cluster = h100();
    let dense = model(&cluster, [126, 16384, 128, 8192, 128256]);
    for model in [dense, expert_model(&cluster)] {
        let start = Instant::now();
        let found = plan(&cluster, &model, 2048, 16384, &Fixed::default()).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{:.0} G parameters: {} looked at in {seconds:.2} s; {} {:?} {:.2} s, {:.1} %, {:.0} GB",
            model.parameters() / 1e9,
            found.looked_at,
            found.best.layout.mesh,
            found.best.layout,
            found.best.prediction.seconds,
            100.0 * found.best.prediction.utilisation,
            found.best.prediction.peak() / 1e9
        );
        for (other, reason) in &found.others {
            println!("  {} {:.2} s: {reason}", other.layout.mesh, other.prediction.seconds);
        }
        assert!(found.best.fits);
        assert_eq!(found.best.layout.mesh.devices(), 16384);
        assert!(seconds < 10.0, "{seconds} s");
        assert!(found.others.iter().all(|(_, reason)| !reason.is_empty()));
    }
}

/// Every layout and every choice for every layer.
fn best_of_all(cluster: &Cluster, model: &Model, batch: usize, devices: usize) -> f64 {
    let mut best = f64::INFINITY;
    let divisors = |n: usize| (1..=n).filter(move |d| n.is_multiple_of(*d));
    for tensor in divisors(devices) {
        for pipeline in divisors(devices / tensor) {
            let data = devices / tensor / pipeline;
            let mesh = Mesh { tensor, context: 1, data, expert: 1, pipeline };
            for microbatch in [1, 2, 3, 4, 6, 8] {
                for interleave in [1, 2, 3, 4] {
                    for zero in 0..4 {
                        for schedule in [Schedule::OneForwardOneBackward, Schedule::ZeroBubble] {
                            let layout = Layout {
                                mesh,
                                sequence_parallel: true,
                                microbatch,
                                interleave,
                                schedule,
                                zero,
                            };
                            let Ok(step) = Step::new(cluster, model, layout, batch) else {
                                continue;
                            };
                            best = best.min(best_choices(cluster, &step, model.depth()));
                        }
                    }
                }
            }
        }
    }
    best
}

fn best_choices(cluster: &Cluster, step: &Step, depth: usize) -> f64 {
    let mut best = f64::INFINITY;
    let zero = step.layout().zero;
    let options: Vec<Choice> = Recompute::ALL
        .into_iter()
        .flat_map(|recompute| {
            [true, false].map(|sequence_parallel| Choice {
                recompute,
                sequence_parallel,
                sharded: zero >= 3,
            })
        })
        .collect();
    for code in 0..options.len().pow(depth as u32) {
        let choices: Vec<Choice> = (0..depth)
            .map(|i| options[code / options.len().pow(i as u32) % options.len()])
            .collect();
        let estimate = step.estimate(&choices).unwrap();
        if estimate.seconds >= best * 1.05 || estimate.peak() > cluster.accelerator.memory * USABLE
        {
            continue;
        }
        let Ok((prediction, _)) = step.run(&choices) else { continue };
        if prediction.peak() <= cluster.accelerator.memory * USABLE {
            best = best.min(prediction.seconds);
        }
    }
    best
}

#[test]
fn small_plans_are_nearly_the_best_of_all() {
    for (devices, memory) in [(4, 8e9), (4, 8e8), (6, 5e8), (6, 4e8)] {
        let cluster = small_cluster(memory);
        let model = model(&cluster, [3, 1536, 12, 1024, 8192]);
        let best = best_of_all(&cluster, &model, 12, devices);
        let found = plan(&cluster, &model, 12, devices, &Fixed::default());
        if best.is_infinite() {
            assert!(found.is_err());
            continue;
        }
        let own = found.unwrap().best.prediction.seconds;
        println!("{devices} devices of {memory:e} bytes: {own} s, the best of all {best} s");
        assert!(own <= best * 1.02, "{devices} devices, {memory} bytes: {own} s against {best} s");
    }
}

#[test]
fn a_free_choice_is_at_least_as_fast_as_what_was_published() {
    let cluster = a100();
    let model = model(&cluster, [96, 12288, 96, 2048, 51200]);
    let fixed = Fixed {
        mesh: vec![(Axis::Tensor, 8), (Axis::Pipeline, 8), (Axis::Data, 1)],
        microbatch: Some(1),
        interleave: Some(3),
        recompute: Some(Recompute::Selective),
        zero: Some(0),
        sequence_parallel: Some(true),
        schedule: Some(Schedule::OneForwardOneBackward),
    };
    let published = plan(&cluster, &model, 64, 64, &fixed).unwrap().best.prediction.seconds;
    let free = plan(&cluster, &model, 64, 64, &Fixed::default()).unwrap().best;
    println!("{published} s as published, {} s: {:?}", free.prediction.seconds, free.layout);
    assert!(free.prediction.seconds <= published);
}

#[test]
fn meshes_that_do_not_divide_are_refused_by_name() {
    let cluster = a100();
    let model = model(&cluster, [8, 1024, 16, 512, 1024]);
    let refused = |mesh: &[(Axis, usize)], devices: usize, batch: usize| {
        let fixed = Fixed { mesh: mesh.to_vec(), ..Fixed::default() };
        plan(&cluster, &model, batch, devices, &fixed).unwrap_err().to_string()
    };
    let error = refused(&[(Axis::Tensor, 3)], 8, 8);
    assert!(error.contains("tensor=3"), "{error}");
    let error = refused(&[(Axis::Tensor, 3)], 12, 12);
    assert!(error.contains("tensor=3 does not divide the 16 heads"), "{error}");
    let error = refused(&[(Axis::Data, 8)], 8, 12);
    assert!(error.contains("data=8") && error.contains("batch of 12"), "{error}");
    let error = refused(&[(Axis::Pipeline, 16)], 16, 16);
    assert!(error.contains("pipeline=16"), "{error}");
}

#[test]
fn plans_are_for_their_model_and_cluster_only() {
    let cluster = a100();
    let model = model(&cluster, [8, 1024, 16, 512, 1024]);
    let found = plan(&cluster, &model, 16, 16, &Fixed::default()).unwrap();
    let file = PlanFile::new(&found.best, &model, &cluster, 16, "recipe.toml");
    let read = PlanFile::parse(&file.text().unwrap()).unwrap();
    assert_eq!(read, file);
    assert_eq!(read.choices(), found.best.choices);
    read.check_model(&model.fingerprint, model.depth()).unwrap();
    read.check_cluster(&cluster).unwrap();
    let other = self::model(&cluster, [8, 1024, 16, 512, 2048]);
    let refused = read.check_model(&other.fingerprint, other.depth());
    assert!(refused.unwrap_err().to_string().contains("another model"));
    assert!(read.check_cluster(&h100()).unwrap_err().to_string().contains("DGX H100"));
    let wrong = file.text().unwrap().replace("version = 1", "version = 7");
    assert!(PlanFile::parse(&wrong).unwrap_err().to_string().contains("version 7"));
    assert!(PlanFile::parse("layout = 3").is_err());
}
