//! The cost model against published measurements.

mod programs;
#[path = "programs/published.rs"]
mod published;

use ferrata_cluster::hardware::Calibration;
use ferrata_cluster::layout::{Recompute, Schedule};
use ferrata_cluster::pipeline::{Chunk, Pipeline, Table, run};
use ferrata_cluster::step::{Memory, Prediction};
use published::{Published, cluster, file, iteration, layout, model};

#[test]
fn published_times_are_predicted_within_a_twentieth() {
    let published = Published::read();
    for case in &published.cases {
        let error = published.error(case, Calibration::default());
        assert!(error.abs() < 0.05, "{}: {:+.1} %", case.name, 100.0 * error);
    }
}

/// Each measurement, by constants fitted to all others. Takes a while.
#[test]
#[ignore = "fits the constants eighteen times"]
fn each_published_time_is_predicted_from_the_others() {
    let published = Published::read();
    let constants = published.fit(Calibration::default(), None);
    assert!((constants.product / Calibration::default().product - 1.0).abs() < 0.01);
    for (i, case) in published.cases.iter().enumerate() {
        let error = published.error(case, published.fit(constants, Some(i)));
        assert!(error.abs() < 0.05, "{}: {:+.1} %", case.name, 100.0 * error);
    }
}

fn fullest(prediction: &Prediction) -> &Memory {
    let most = |a: &&Memory, b: &&Memory| a.activations.total_cmp(&b.activations);
    prediction.memory.iter().max_by(most).unwrap()
}

#[test]
fn published_memory_is_predicted_within_a_twentieth() {
    let (file, cluster) = (file(), cluster());
    let gib = f64::from(1 << 30);
    let runs = file["runs"].as_array().unwrap();
    for (run, memory) in runs.iter().zip(file["memory_gib_per_gpu"].as_array().unwrap()) {
        let model = model(run, &cluster);
        let batch = run["global_batch"].as_u64().unwrap() as usize;
        for (key, sequence_parallel, recompute) in [
            ("activations_tp", false, Recompute::None),
            ("activations_sp_selective", true, Recompute::Selective),
        ] {
            let layout = layout(run, sequence_parallel);
            let prediction = iteration(&cluster, &model, layout, recompute, batch);
            let memory_of = fullest(&prediction);
            let state =
                memory_of.weights + memory_of.gradients + memory_of.optimizer - memory_of.ends;
            for (key, bytes) in [(key, memory_of.activations), ("parameters_and_optimizer", state)]
            {
                let error = bytes / gib / memory[key].as_f64().unwrap() - 1.0;
                let name = &run["name"];
                assert!(error.abs() < 0.05, "{name} {key}: {:+.1} %", 100.0 * error);
            }
        }
    }
}

/// The published shares of bubbles: Pangu Ultra, arXiv 2504.07866.
#[test]
fn bubbles_are_the_published_ones() {
    for (interleave, percent) in [(1, "30.43"), (6, "6.80")] {
        let chunk = Chunk { forward: 1.0, backward: 2.0, ..Chunk::default() };
        let pipeline =
            Pipeline { stages: vec![vec![chunk; interleave]; 8], transfer: 0.0, microbatches: 16 };
        let table = Table::new(Schedule::OneForwardOneBackward, &pipeline).unwrap();
        let bubble = run(&pipeline, &table).unwrap().bubble;
        let exact = 7.0 / (interleave as f64 * 16.0 + 7.0);
        assert!((bubble - exact).abs() < 1e-12, "{bubble} {exact}");
        assert_eq!(format!("{:.2}", 100.0 * bubble), percent);
    }
}
