//! The files of a checkpoint, which are written while training goes on.

use std::collections::BTreeMap;

use ferrata_formats::checkpoint::{CheckpointWriter, Part};
use ferrata_formats::{RawTensor, TensorView};

use super::Result;
use crate::Tensor;
use crate::device::Device;
use crate::mesh::{Placement, Sharding};
use crate::models;

/// The state of a learner as it was when this was taken: whatever training does afterwards, the
/// tensors in it stay as they are.
#[derive(Default)]
pub struct Snapshot {
    files: Vec<(String, Content)>,
}

/// Tensors with their names.
type Named = Vec<(String, Tensor)>;

enum Content {
    Bytes(Vec<u8>),
    Tensors {
        tensors: Named,
        metadata: BTreeMap<String, String>,
        /// As models are published: slices of stacked parameters apart.
        published: bool,
    },
    Parts(Named),
}

impl Snapshot {
    /// Adds a file with this content.
    pub fn bytes(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), Content::Bytes(bytes.into())));
    }

    /// Adds a safetensors file with all of these parameters. Ranks of a mesh gather them now.
    pub fn tensors(&mut self, name: &str, tensors: Named, metadata: BTreeMap<String, String>) {
        self.gathered(name, tensors, metadata, true);
    }

    fn gathered(
        &mut self,
        name: &str,
        tensors: Named,
        metadata: BTreeMap<String, String>,
        published: bool,
    ) {
        let leads = Device::default().leads();
        // Ranks that do not write it give each tensor up at once.
        let whole = |(name, x): (String, Tensor)| {
            let everywhere = Placement::data(Sharding::replicated(x.ty().rank()));
            let whole = x.place(&everywhere);
            leads.then_some((name, whole))
        };
        let tensors: Named = tensors.into_iter().filter_map(whole).collect();
        if leads {
            self.files.push((name.to_owned(), Content::Tensors { tensors, metadata, published }));
        }
    }

    /// Adds tensors of which each rank of a mesh writes what it holds, into a file of its own.
    pub fn parts(&mut self, name: &str, tensors: Named) {
        let apart = |(_, x): &(String, Tensor)| {
            x.placement().is_some_and(|placement| !placement.sharding.is_everywhere())
        };
        match tensors.iter().any(apart) {
            true => self.files.push((name.to_owned(), Content::Parts(tensors))),
            false => self.gathered(name, tensors, BTreeMap::new(), false),
        }
    }

    /// Writes the files that are this process' part.
    pub(super) fn write(self, writer: &mut CheckpointWriter, leads: bool) -> Result<()> {
        for (name, content) in self.files {
            match content {
                Content::Bytes(bytes) if leads => writer.bytes(&name, &bytes)?,
                Content::Bytes(_) => {}
                Content::Tensors { tensors, metadata, published } => {
                    let mut raw: Vec<(String, RawTensor)> = Vec::new();
                    for (name, x) in tensors {
                        let x = models::on_host(&x)?;
                        match published {
                            true => raw.extend(models::published(name, x)),
                            false => raw.push((name, x)),
                        }
                    }
                    let views = raw.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
                    writer.tensors(&name, views, &metadata)?;
                }
                Content::Parts(tensors) => write_parts(writer, &name, tensors)?,
            }
        }
        Ok(())
    }
}

/// Of replicas the first writes.
fn write_parts(writer: &mut CheckpointWriter, name: &str, tensors: Named) -> Result<()> {
    let (mut parts, mut rank) = (Vec::new(), 0);
    for (name, x) in tensors {
        let held = x.held()?;
        rank = held.rank;
        if let Some(stretches) = held.stretches {
            let pairs = |dim: Vec<std::ops::Range<usize>>| -> Vec<[usize; 2]> {
                dim.into_iter().map(|range| [range.start, range.end]).collect()
            };
            let stretches = stretches.into_iter().map(pairs).collect();
            let part = Part { shape: x.shape().to_vec(), stretches };
            parts.push((name, held.ty, held.bytes, part));
        }
    }
    let views = parts.iter().map(|(name, ty, bytes, part)| {
        let view = TensorView { dtype: ty.dtype, shape: &ty.shape, bytes };
        (name.clone(), view, part.clone())
    });
    Ok(writer.parts(name, rank, views)?)
}
