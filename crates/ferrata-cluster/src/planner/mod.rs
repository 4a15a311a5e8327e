//! The search for a layout: all meshes that the devices can form, and for each the best choices of
//! its layers.
//!
//! Every combination of mesh, microbatch, schedule and ZeRO level is screened with the average
//! layer; for the best of them layers are chosen one by one, and of those the best are run event by
//! event.
//!
//! | file | what |
//! |---|---|
//! | `meshes` | the meshes that a number of devices can form |
//! | `screen` | a first, fast look at a layout |
//! | `choose` | what to recompute, cut and share of each layer, within the memory |
//! | `reasons` | why a layout loses against another |
//! | `file`, `report` | plans as files, and as JSON |

mod choose;
mod file;
mod meshes;
mod reasons;
mod report;
mod screen;

use std::time::{Duration, Instant};

use ferrata_ir::{Error, Result};

use crate::hardware::Cluster;
use crate::layout::{Axis, Layout, Mesh, Recompute, Schedule};
use crate::model::Model;
use crate::step::{Choice, Prediction, Step};
use screen::{Screen, Screened};

pub use file::{Layers, PlanFile};

/// Share of a device's memory that a plan may fill; the rest is for the software itself and for
/// what lies scattered.
pub const USABLE: f64 = 0.92;

/// What of a plan is given; the rest is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed {
    /// Sizes of axes.
    pub mesh: Vec<(Axis, usize)>,
    /// Sequences of a microbatch.
    pub microbatch: Option<usize>,
    /// Chunks of layers per stage.
    pub interleave: Option<usize>,
    /// What layers compute again.
    pub recompute: Option<Recompute>,
    /// What replicas share.
    pub zero: Option<usize>,
    /// Whether activations between products are cut along positions. By default, layouts that
    /// compute everything again do not, as those that are published.
    pub sequence_parallel: Option<bool>,
    /// The order of work.
    pub schedule: Option<Schedule>,
}

/// A layout with the choices for every layer, and what it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The layout.
    pub layout: Layout,
    /// What is chosen for each layer.
    pub choices: Vec<Choice>,
    /// Layers of each chunk; chunk `i` is on stage `i` modulo the number of stages.
    pub chunks: Vec<usize>,
    /// What a step takes.
    pub prediction: Prediction,
    /// Whether it fits into the memory.
    pub fits: bool,
}

/// The outcome of a search.
#[derive(Clone, Debug)]
pub struct Found {
    /// The fastest plan.
    pub best: Plan,
    /// The best plans with other meshes, and why they lost.
    pub others: Vec<(Plan, String)>,
    /// How many layouts were looked at.
    pub looked_at: usize,
    /// How long that took.
    pub elapsed: Duration,
}

/// Layouts whose layers are chosen one by one.
const REFINED: usize = 48;
/// Plans that are run event by event.
const RUN: usize = 8;
/// Plans with other meshes that are reported.
const OTHERS: usize = 5;
/// Microbatches and chunks that are tried.
const SIZES: [usize; 6] = [1, 2, 3, 4, 6, 8];

/// Finds the fastest layout of a step of `batch` sequences on `devices` of a cluster.
///
/// # Errors
/// If what is fixed does not fit the model, batch or devices, or no layout fits into the memory;
/// names what does not.
pub fn plan(
    cluster: &Cluster,
    model: &Model,
    batch: usize,
    devices: usize,
    fixed: &Fixed,
) -> Result<Found> {
    let start = Instant::now();
    let (layouts, refusal) = layouts(cluster, model, batch, devices, fixed)?;
    let mut screened: Vec<Screened> = Vec::new();
    let mut screen = Screen::new(cluster, model, batch, fixed);
    for &layout in &layouts {
        screened.push(screen.look(layout)?);
    }
    let looked_at = screened.len();
    screened.sort_by(|a, b| a.key().partial_cmp(&b.key()).unwrap_or(std::cmp::Ordering::Equal));
    let mut plans: Vec<Plan> = Vec::new();
    for candidate in diverse(&screened) {
        let step = Step::new(cluster, model, candidate.layout, batch)?;
        plans.extend(refine(cluster, model, &step, fixed)?);
    }
    let order = |a: &Plan, b: &Plan| {
        (!a.fits, a.prediction.seconds)
            .partial_cmp(&(!b.fits, b.prediction.seconds))
            .unwrap_or(std::cmp::Ordering::Equal)
    };
    plans.sort_by(order);
    let mut run = Vec::new();
    for plan in plans.iter().take(RUN) {
        let step = Step::new(cluster, model, plan.layout, batch)?;
        let (prediction, _) = step.run(&plan.choices)?;
        let fits = prediction.peak() <= cluster.accelerator.memory * USABLE;
        run.push(Plan { prediction, fits, ..plan.clone() });
    }
    run.sort_by(order);
    let Some(best) = run.first().cloned() else {
        return Err(refusal.unwrap_or_else(|| Error::new("no layout is possible")));
    };
    if !best.fits && !fixed.is_all() {
        return Err(too_large(cluster, &best));
    }
    let mut others: Vec<(Plan, String)> = Vec::new();
    for plan in run.iter().skip(1).chain(plans.iter().skip(RUN)) {
        let known = plan.layout.mesh == best.layout.mesh
            || others.iter().any(|(other, _)| other.layout.mesh == plan.layout.mesh);
        if !known && others.len() < OTHERS {
            others.push((plan.clone(), reasons::reason(cluster, &best, plan)));
        }
    }
    Ok(Found { best, others, looked_at, elapsed: start.elapsed() })
}

fn too_large(cluster: &Cluster, best: &Plan) -> Error {
    let gigabytes = |bytes: f64| (bytes / 1e9).ceil();
    let (need, have) =
        (gigabytes(best.prediction.peak()), gigabytes(cluster.accelerator.memory * USABLE));
    Error::new(format!(
        "no layout fits: the smallest ({}) needs {need} GB of each device, of which {have} GB are usable",
        best.layout.mesh
    ))
    .help("use more devices, a smaller batch, or let more be recomputed")
}

impl Fixed {
    /// Whether the layout is given in full, so that it is predicted even if it does not fit.
    fn is_all(&self) -> bool {
        let axes = [Axis::Tensor, Axis::Pipeline, Axis::Data];
        let mesh = axes.iter().all(|axis| self.mesh.iter().any(|(a, _)| a == axis));
        mesh && self.microbatch.is_some() && self.recompute.is_some()
    }

    /// What may be computed again.
    fn recompute(&self) -> Vec<Recompute> {
        self.recompute.map_or(Recompute::ALL.to_vec(), |one| vec![one])
    }

    /// How activations between products may be cut.
    fn sequence_parallel(&self) -> Vec<bool> {
        match (self.sequence_parallel, self.recompute) {
            (Some(one), _) => vec![one],
            (None, Some(Recompute::Full)) => vec![false],
            (None, _) => vec![true, false],
        }
    }
}

/// All layouts to look at; if there is none, why the last one was refused.
fn layouts(
    cluster: &Cluster,
    model: &Model,
    batch: usize,
    devices: usize,
    fixed: &Fixed,
) -> Result<(Vec<Layout>, Option<Error>)> {
    let mut layouts = Vec::new();
    let mut refusal = None;
    for mesh in meshes::meshes(cluster, model, devices, fixed)? {
        for layout in variants(model, mesh, batch, fixed) {
            match crate::step::check(model, &layout, batch) {
                Ok(()) => layouts.push(layout),
                Err(error) => refusal = Some(error),
            }
        }
    }
    match (layouts.is_empty(), refusal) {
        (true, Some(refusal)) => Err(refusal),
        (_, refusal) => Ok((layouts, refusal)),
    }
}

/// The layouts of a mesh that differ in microbatch, schedule and ZeRO level.
fn variants(model: &Model, mesh: Mesh, batch: usize, fixed: &Fixed) -> Vec<Layout> {
    let sizes = |fixed: Option<usize>| fixed.map_or(SIZES.to_vec(), |one| vec![one]);
    let replicas = mesh.replicas().size;
    let zero = match fixed.zero {
        Some(one) => vec![one],
        None if replicas > 1 => vec![0, 1, 2, 3],
        None => vec![0],
    };
    let schedules = match fixed.schedule {
        Some(one) => vec![one],
        // A number of chunks belongs to 1F1B.
        None if mesh.pipeline > 1 && fixed.interleave.is_none() => {
            vec![Schedule::OneForwardOneBackward, Schedule::ZeroBubble]
        }
        None => vec![Schedule::OneForwardOneBackward],
    };
    let mut layouts = Vec::new();
    for microbatch in sizes(fixed.microbatch) {
        let each = (batch / mesh.data / microbatch).max(1);
        for interleave in sizes(fixed.interleave) {
            let possible = interleave == 1
                || mesh.pipeline > 1
                    && each.is_multiple_of(mesh.pipeline)
                    && mesh.pipeline * interleave <= model.depth();
            if !possible && fixed.interleave.is_none() {
                continue;
            }
            for &zero in &zero {
                for &schedule in &schedules {
                    if interleave > 1 && schedule != Schedule::OneForwardOneBackward {
                        continue;
                    }
                    for sequence_parallel in fixed.sequence_parallel() {
                        if sequence_parallel
                            && mesh.tensor == 1
                            && fixed.sequence_parallel().len() > 1
                        {
                            continue;
                        }
                        layouts.push(Layout {
                            mesh,
                            sequence_parallel,
                            microbatch,
                            interleave,
                            schedule,
                            zero,
                        });
                    }
                }
            }
        }
    }
    layouts
}

/// The best layouts, a few of each mesh.
fn diverse(screened: &[Screened]) -> Vec<&Screened> {
    let mut taken: Vec<&Screened> = Vec::new();
    for candidate in screened {
        let alike = taken.iter().filter(|t| t.layout.mesh == candidate.layout.mesh).count();
        if taken.len() < REFINED && alike < REFINED / 6 {
            taken.push(candidate);
        }
    }
    taken
}

/// The plan of a layout with the best choices for its layers.
fn refine(cluster: &Cluster, model: &Model, step: &Step, fixed: &Fixed) -> Result<Option<Plan>> {
    let choices = choose::choose(cluster, model, step, fixed)?;
    let prediction = step.estimate(&choices)?;
    let fits = prediction.peak() <= cluster.accelerator.memory * USABLE;
    if !fits && !fixed.is_all() && prediction.peak() > 2.0 * cluster.accelerator.memory {
        return Ok(None);
    }
    let (layout, chunks) = (*step.layout(), step.chunks().to_vec());
    Ok(Some(Plan { layout, choices, chunks, prediction, fits }))
}
