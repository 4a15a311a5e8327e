//! The meshes that a number of devices can form.

use ferrata_ir::{Error, Result};

use super::Fixed;
use crate::hardware::Cluster;
use crate::layout::{Axis, Mesh};
use crate::model::Model;

/// All meshes of exactly `devices` devices that agree with what is fixed, for this model.
///
/// # Errors
/// If the fixed axes do not divide the devices.
pub(super) fn meshes(
    cluster: &Cluster,
    model: &Model,
    devices: usize,
    fixed: &Fixed,
) -> Result<Vec<Mesh>> {
    if devices == 0 {
        return Err(Error::new("there are no devices to plan for").help("give at least 1"));
    }
    let given = |axis: Axis| fixed.mesh.iter().find(|(a, _)| *a == axis).map(|&(_, size)| size);
    let product: usize =
        fixed.mesh.iter().filter(|(a, _)| *a != Axis::Expert).map(|(_, size)| size).product();
    if product == 0 || !devices.is_multiple_of(product) {
        let all: Vec<String> =
            fixed.mesh.iter().map(|(a, n)| format!("{}={n}", a.name())).collect();
        return Err(Error::new(format!(
            "the mesh {} has {product} devices, which do not divide the {devices} of the plan",
            all.join(",")
        ))
        .help(format!("pass --devices {product}, or another mesh")));
    }
    // A sequence is shared only where it is long.
    let contexts = match given(Axis::Context) {
        Some(one) => vec![one],
        None => divisors(devices)
            .into_iter()
            .filter(|&c| c == 1 || model.sequence.is_multiple_of(c) && model.sequence / c >= 1024)
            .collect(),
    };
    let sizes = |axis: Axis, possible: &dyn Fn(usize) -> bool| match given(axis) {
        Some(one) => vec![one],
        None => divisors(devices).into_iter().filter(|&n| possible(n)).collect(),
    };
    let within = 2 * cluster.node();
    let tensors = sizes(Axis::Tensor, &|n| model.heads.is_multiple_of(n) && n <= within);
    let pipelines = sizes(Axis::Pipeline, &|n| n <= model.depth());
    let mut meshes = Vec::new();
    for &tensor in &tensors {
        for &context in &contexts {
            for &pipeline in &pipelines {
                let rest = tensor * context * pipeline;
                if !devices.is_multiple_of(rest) {
                    continue;
                }
                let data = devices / rest;
                if given(Axis::Data).is_some_and(|given| given != data) {
                    continue;
                }
                let experts = match given(Axis::Expert) {
                    Some(one) => vec![one],
                    None => divisors(data)
                        .into_iter()
                        .filter(|&e| model.experts.is_multiple_of(e))
                        .collect(),
                };
                meshes.extend(experts.into_iter().map(|expert| Mesh {
                    tensor,
                    context,
                    data,
                    expert,
                    pipeline,
                }));
            }
        }
    }
    if meshes.is_empty() {
        return Err(Error::new(format!("{devices} devices form no mesh with these axes"))
            .help("fix fewer axes, or give another number of devices"));
    }
    Ok(meshes)
}

/// All divisors, smallest first.
fn divisors(n: usize) -> Vec<usize> {
    let mut small: Vec<usize> =
        (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d)).collect();
    let large: Vec<usize> = small.iter().rev().map(|d| n / d).filter(|d| d * d != n).collect();
    small.extend(large.into_iter().filter(|&d| d * d > n));
    small
}

#[cfg(test)]
mod tests {
    use super::divisors;

    #[test]
    fn divisors_are_complete() {
        assert_eq!(divisors(1), [1]);
        assert_eq!(divisors(12), [1, 2, 3, 4, 6, 12]);
        assert_eq!(divisors(16), [1, 2, 4, 8, 16]);
    }
}
