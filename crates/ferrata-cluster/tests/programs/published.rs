//! Published measurements of Korthikanti et al. (arXiv 2205.05198), and what is predicted for them.

use ferrata_cluster::cost::Pricing;
use ferrata_cluster::hardware::Calibration;
use ferrata_cluster::layout::{Layout, Mesh, Recompute, Schedule};
use ferrata_cluster::step::{Choice, Prediction, Step};
use ferrata_cluster::{Cluster, Model, describe};
use serde_json::Value;

use super::programs::Gpt;

/// The file.
pub fn file() -> Value {
    serde_json::from_str(include_str!("../data/korthikanti-2022.json")).unwrap()
}

/// The cluster that it was measured on.
pub fn cluster() -> Cluster {
    Cluster::parse(include_str!("../../../../clusters/dgx-a100.toml")).unwrap()
}

/// One measurement.
pub struct Case {
    /// What was measured.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
    model: usize,
    what: What,
}

enum What {
    Iteration { layout: Layout, recompute: Recompute, batch: usize },
    Layer { layout: Layout, recompute: Recompute, backward: bool },
}

/// All measurements, with the models that they were made with.
pub struct Published {
    cluster: Cluster,
    models: Vec<Model>,
    /// The measurements: first iterations, then single layers.
    pub cases: Vec<Case>,
}

fn number(value: &Value, key: &str) -> usize {
    value[key].as_u64().unwrap() as usize
}

/// The layout of a run in the file.
pub fn layout(run: &Value, sequence_parallel: bool) -> Layout {
    let [tensor, pipeline, data] = ["tp", "pp", "dp"].map(|key| number(run, key));
    Layout {
        mesh: Mesh { tensor, context: 1, data, expert: 1, pipeline },
        sequence_parallel,
        microbatch: number(run, "micro_batch"),
        interleave: number(run, "interleave"),
        schedule: Schedule::OneForwardOneBackward,
        zero: 0,
    }
}

/// The model of a run in the file.
pub fn model(run: &Value, cluster: &Cluster) -> Model {
    let [layers, hidden, heads, sequence, vocabulary] =
        ["L", "h", "a", "s", "v"].map(|key| number(run, key));
    let gpt = Gpt { layers, hidden, heads, sequence, vocabulary };
    describe(&gpt.loss(), &cluster.software).unwrap()
}

impl Published {
    /// Reads the file.
    pub fn read() -> Self {
        let (file, cluster) = (file(), cluster());
        let runs = file["runs"].as_array().unwrap();
        let models = runs.iter().map(|run| model(run, &cluster)).collect();
        let mut cases = Vec::new();
        for (model, run) in runs.iter().enumerate() {
            for (key, sequence_parallel, recompute) in [
                ("seconds_full_recompute", false, Recompute::Full),
                ("seconds_sequence_parallel_selective", true, Recompute::Selective),
            ] {
                let layout = layout(run, sequence_parallel);
                let batch = number(run, "global_batch");
                cases.push(Case {
                    name: format!("{} {recompute}", run["name"].as_str().unwrap()),
                    seconds: run[key].as_f64().unwrap(),
                    model,
                    what: What::Iteration { layout, recompute, batch },
                });
            }
        }
        for layer in file["layer_22B_ms"].as_array().unwrap() {
            let name = layer["case"].as_str().unwrap();
            let layout = layout(&runs[0], name.contains("sequence parallel"));
            let recompute = match name {
                _ if name.starts_with("selective") => Recompute::Selective,
                "full recompute" => Recompute::Full,
                _ => Recompute::None,
            };
            for key in ["forward", "backward"] {
                cases.push(Case {
                    name: format!("layer of 22B, {name}, {key}"),
                    seconds: layer[key].as_f64().unwrap() / 1e3,
                    model: 0,
                    what: What::Layer { layout, recompute, backward: key == "backward" },
                });
            }
        }
        Published { cluster, models, cases }
    }

    /// Seconds predicted with these constants.
    pub fn predict(&self, case: &Case, calibration: Calibration) -> f64 {
        let cluster = Cluster { calibration, ..self.cluster.clone() };
        let model = &self.models[case.model];
        match case.what {
            What::Iteration { layout, recompute, batch } => {
                iteration(&cluster, model, layout, recompute, batch).seconds
            }
            What::Layer { layout, recompute, backward } => {
                let pricing = Pricing::new(&cluster, model, layout).unwrap();
                let cost = pricing.part(&model.layers[0].part, recompute);
                if backward { cost.backward + cost.gradient + cost.again } else { cost.forward }
            }
        }
    }

    /// The relative error of a prediction.
    pub fn error(&self, case: &Case, calibration: Calibration) -> f64 {
        self.predict(case, calibration) / case.seconds - 1.0
    }

    /// The constants with the least squares of the errors of all cases but `without`, from `start`
    /// on, by Levenberg and Marquardt's method on their logarithms.
    pub fn fit(&self, start: Calibration, without: Option<usize>) -> Calibration {
        let cases: Vec<&Case> = self
            .cases
            .iter()
            .enumerate()
            .filter(|(i, _)| Some(*i) != without)
            .map(|(_, c)| c)
            .collect();
        let errors = |point: &Point| -> Vec<f64> {
            cases.iter().map(|case| self.error(case, constants(point))).collect()
        };
        let squares = |errors: &[f64]| errors.iter().map(|e| e * e).sum::<f64>();
        let mut point = logarithms(&start);
        let mut now = errors(&point);
        let mut damping = 1e-3;
        while damping < 1e6 {
            let slopes: Vec<Vec<f64>> = (0..COUNT)
                .map(|i| {
                    let mut moved = point;
                    moved[i] += 1e-4;
                    errors(&moved).iter().zip(&now).map(|(a, b)| (a - b) / 1e-4).collect()
                })
                .collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            let before = squares(&now);
            while damping < 1e6 {
                let mut system = [[0.0; COUNT + 1]; COUNT];
                for i in 0..COUNT {
                    for j in 0..COUNT {
                        system[i][j] = dot(&slopes[i], &slopes[j]);
                    }
                    system[i][i] += damping * (system[i][i] + 1e-6);
                    system[i][COUNT] = -dot(&slopes[i], &now);
                }
                let step = solve(system);
                let mut moved = point;
                for i in 0..COUNT {
                    let (low, high) = BOUNDS[i];
                    moved[i] = (point[i] + step[i].clamp(-0.5, 0.5)).clamp(low.ln(), high.ln());
                }
                let after = errors(&moved);
                if squares(&after) < before {
                    (point, now) = (moved, after);
                    damping /= 10.0;
                    break;
                }
                damping *= 4.0;
            }
            if squares(&now) > before * (1.0 - 1e-7) {
                break;
            }
        }
        constants(&point)
    }
}

const COUNT: usize = 6;
type Point = [f64; COUNT];

/// Between which values constants make sense.
const BOUNDS: [(f64, f64); COUNT] =
    [(0.3, 1.0), (0.01, 20.0), (0.3, 1.0), (0.2, 1.0), (1e-6, 1e-4), (0.05, 1.0)];

/// The solution of linear equations, by elimination.
fn solve(mut system: [[f64; COUNT + 1]; COUNT]) -> Point {
    for i in 0..COUNT {
        let pivot = (i..COUNT).max_by(|&a, &b| system[a][i].abs().total_cmp(&system[b][i].abs()));
        system.swap(i, pivot.unwrap());
        let row = system[i];
        for (_, line) in system.iter_mut().enumerate().filter(|(other, _)| *other != i) {
            let factor = line[i] / row[i];
            line.iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
        }
    }
    std::array::from_fn(|i| system[i][COUNT] / system[i][i])
}

fn logarithms(c: &Calibration) -> Point {
    [c.product, c.half, c.memory, c.link, c.launch, c.hidden].map(f64::ln)
}

fn constants(point: &Point) -> Calibration {
    let [product, half, memory, link, launch, hidden] = point.map(f64::exp);
    Calibration { product, half, memory, link, launch, hidden }
}

/// What is predicted for one iteration of a run.
pub fn iteration(
    cluster: &Cluster,
    model: &Model,
    layout: Layout,
    recompute: Recompute,
    batch: usize,
) -> Prediction {
    let step = Step::new(cluster, model, layout, batch).unwrap();
    let choice = Choice { recompute, sequence_parallel: layout.sequence_parallel, sharded: false };
    step.run(&vec![choice; model.depth()]).unwrap().0
}
