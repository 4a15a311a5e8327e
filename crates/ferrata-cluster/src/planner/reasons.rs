//! Why a layout loses against another.

use super::screen::leaves_node;
use super::{Plan, USABLE};
use crate::hardware::Cluster;
use crate::layout::Axis;
use crate::step::Prediction;

/// Seconds of a step by what they are spent on.
fn parts(prediction: &Prediction) -> [(&'static str, f64); 6] {
    let idle = prediction.bubble * prediction.pipeline;
    let work = prediction.pipeline - idle - prediction.exposed - prediction.again;
    [
        ("exposed communication within layers", prediction.exposed),
        ("bubbles of the pipeline", idle),
        ("recomputation", prediction.again),
        ("reduction of gradients", prediction.data),
        ("the optimiser", prediction.optimizer),
        ("kernels on smaller pieces", work),
    ]
}

/// The largest part of the difference, in a line.
pub(super) fn reason(cluster: &Cluster, best: &Plan, other: &Plan) -> String {
    let memory = other.prediction.peak();
    if !other.fits {
        let (need, have) = (memory / 1e9, cluster.accelerator.memory * USABLE / 1e9);
        return format!("needs {need:.0} GB of {have:.0} GB per device");
    }
    let pairs = parts(&other.prediction).into_iter().zip(parts(&best.prediction));
    let worst = pairs.map(|((name, own), (_, theirs))| (name, own, theirs));
    let Some((name, own, theirs)) = worst.max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2))) else {
        return String::new();
    };
    let mesh = &other.layout.mesh;
    let leaves = |axis: Axis| {
        let outside = leaves_node(cluster, mesh.group(axis));
        outside && !leaves_node(cluster, best.layout.mesh.group(axis))
    };
    let crossing = [Axis::Tensor, Axis::Context, Axis::Expert].into_iter().find(|&a| leaves(a));
    let crossing =
        crossing.map(|axis| format!("{}={} crosses the node: ", axis.name(), mesh.size(axis)));
    let more = if theirs > 0.0 && own / theirs < 100.0 {
        format!("{:+.0} % in {name}", 100.0 * (own / theirs - 1.0))
    } else {
        format!("{:+.2} s in {name}", own - theirs)
    };
    crossing.unwrap_or_default() + &more
}
