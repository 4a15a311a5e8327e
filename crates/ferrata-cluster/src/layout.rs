//! How a training step is laid out over devices.

pub use ferrata_ir::sharding::Schedule;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::network::Group;

/// The named axes of a mesh. Devices of the tensor axis are neighbours, then those of the context,
/// the data and the pipeline axis; experts lie along the data axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// Devices that share each layer.
    pub tensor: usize,
    /// Devices that share each sequence.
    pub context: usize,
    /// Replicas with other sequences.
    pub data: usize,
    /// Of them, those that share the experts.
    pub expert: usize,
    /// Stages of layers.
    pub pipeline: usize,
}

/// An axis of a [`Mesh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Axis {
    Tensor,
    Context,
    Data,
    Expert,
    Pipeline,
}

impl Axis {
    /// All of them.
    pub const ALL: [Axis; 5] =
        [Axis::Tensor, Axis::Context, Axis::Data, Axis::Expert, Axis::Pipeline];

    /// Name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Tensor => "tensor",
            Axis::Context => "context",
            Axis::Data => "data",
            Axis::Expert => "expert",
            Axis::Pipeline => "pipeline",
        }
    }
}

impl Mesh {
    /// Devices in it.
    pub fn devices(&self) -> usize {
        self.tensor * self.context * self.data * self.pipeline
    }

    /// Size of an axis.
    pub fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Tensor => self.tensor,
            Axis::Context => self.context,
            Axis::Data => self.data,
            Axis::Expert => self.expert,
            Axis::Pipeline => self.pipeline,
        }
    }

    /// The devices along an axis.
    pub fn group(&self, axis: Axis) -> Group {
        let stride = match axis {
            Axis::Tensor => 1,
            Axis::Context => self.tensor,
            Axis::Data | Axis::Expert => self.tensor * self.context,
            Axis::Pipeline => self.tensor * self.context * self.data,
        };
        Group { size: self.size(axis), stride }
    }

    /// The devices that have the same weights: those along context and data.
    pub fn replicas(&self) -> Group {
        Group { size: self.context * self.data, stride: self.tensor }
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes = Axis::ALL.into_iter().map(|axis| (axis.name(), self.size(axis)));
        let large: Vec<String> =
            axes.filter(|&(_, n)| n > 1).map(|(name, n)| format!("{name}={n}")).collect();
        f.write_str(
            if large.is_empty() { "one device".to_owned() } else { large.join(",") }.as_str(),
        )
    }
}

/// What of a layer is computed again in the backward pass.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// What grows with the square of the sequence.
    Selective,
    /// Everything: only a layer's input is kept.
    Full,
}

impl Recompute {
    /// All of them, the one that keeps most first.
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::Selective, Recompute::Full];
}

ferrata_ir::words!(
    Recompute, "kind of recomputation": None => "none", Selective => "selective", Full => "full"
);

/// What has a word for each of its values, in files.
pub mod word {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the word.
    ///
    /// # Errors
    /// What the serializer reports.
    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Reads the word.
    ///
    /// # Errors
    /// When there is no such word.
    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A layout of a training step, but for what differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The axes.
    pub mesh: Mesh,
    /// Whether activations between products are cut along positions over the tensor axis.
    pub sequence_parallel: bool,
    /// Sequences that a replica works on at a time.
    pub microbatch: usize,
    /// Chunks of layers per stage.
    pub interleave: usize,
    /// The order of work.
    #[serde(with = "word")]
    pub schedule: Schedule,
    /// What replicas share of the training state: 0 nothing, 1 the optimiser's, 2 gradients too,
    /// 3 weights too.
    pub zero: usize,
}
