//! `[parallel]`: how a run is spread over ranks.

use std::sync::Arc;

use ferrata_ir::Communicator;
use ferrata_ir::sharding::Mesh;
use serde::{Deserialize, Serialize};

use super::TrainSection;
use super::check::positive;
use crate::Tree;
use crate::device::{CpuOptions, Device, threads_each};
use crate::mesh::{ContextParallel, Layout, MeshDevice, MeshOptions, Rule, Schedule, Zero};
use crate::models::tensor_rules;
use crate::train::{Error, Result};

/// The axes that the rules of our own layouts know.
const AXES: [&str; 5] = ["data", "expert", "context", "tensor", "pipeline"];

/// `[parallel]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelSection {
    /// Axes of the mesh of ranks with their sizes, the outermost first: `"data=2,tensor=4"`. All
    /// ranks are along `data` if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mesh: String,
    /// What is cut along `data` and `context` to save memory: 1 the optimiser's state, 2 gradients
    /// too, 3 weights too.
    pub zero: Zero,
    /// Layers, numbered from 0, whose weights are cut so whatever `zero` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<usize>,
    /// Values between layers are cut along `tensor` too, by positions.
    pub sequence: bool,
    /// Chunks of layers that each stage along `pipeline` has.
    pub interleave: usize,
    /// How many layers each of these chunks has, in the order of the model; if empty, about equally
    /// large ones are made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<usize>,
    /// How stages work on the microbatches of a step, of which there are `train.accumulate`:
    /// `1f1b`, `gpipe` or `zero-bubble`.
    #[serde(with = "ferrata_cluster::layout::word")]
    pub schedule: Schedule,
    /// How attention works where `context` cuts positions: `ring`, `exchange`, `gather`, or the
    /// `cheapest` of these.
    #[serde(with = "ferrata_cluster::layout::word")]
    pub context: ContextParallel,
    /// Every so many steps ranks compare what they and their replicas hold, and name the odd one
    /// out; never if 0.
    pub verify_every: u64,
    /// How weights are cut, before the rules that come with the models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

impl Default for ParallelSection {
    fn default() -> Self {
        ParallelSection {
            mesh: String::new(),
            zero: Zero::default(),
            stored: Vec::new(),
            sequence: false,
            interleave: 1,
            layers: Vec::new(),
            schedule: Schedule::default(),
            context: ContextParallel::default(),
            verify_every: 100,
            rules: Vec::new(),
        }
    }
}

impl ParallelSection {
    /// Whether nothing has been set.
    pub(super) fn is_default(&self) -> bool {
        *self == ParallelSection::default()
    }

    /// The mesh of so many ranks.
    ///
    /// # Errors
    /// When the axes are none, or their product is another number.
    pub fn mesh(&self, ranks: usize) -> Result<Mesh> {
        if self.mesh.is_empty() {
            return Ok(Mesh::new([("data", ranks)])?);
        }
        let axes = self.axes()?;
        let mesh = Mesh::new(axes)?;
        match mesh.size() == ranks {
            true => Ok(mesh),
            false => Err(Error::new(
                format!(
                    "`parallel.mesh` is {mesh}, which takes {} ranks, not {ranks}",
                    mesh.size()
                ),
                format!("launch {} ranks, or choose sizes whose product is {ranks}", mesh.size()),
            )),
        }
    }

    /// How many ranks the mesh has; 1 if nothing is said of it.
    ///
    /// # Errors
    /// When the axes are none.
    pub fn ranks(&self) -> Result<usize> {
        match self.mesh.is_empty() {
            true => Ok(1),
            false => Ok(self.axes()?.iter().map(|(_, size)| size).product()),
        }
    }

    fn axes(&self) -> Result<Vec<(&str, usize)>> {
        fn axis(text: &str) -> Option<(&str, usize)> {
            let (name, size) = text.split_once('=')?;
            let size = size.trim().parse().ok().filter(|&size| size > 0)?;
            Some((name.trim(), size)).filter(|(name, _)| !name.is_empty())
        }
        self.mesh.split(',').map(axis).collect::<Option<_>>().ok_or_else(|| {
            Error::new(
                format!("`parallel.mesh` is {:?}", self.mesh),
                "name axes with their sizes, such as \"data=2,tensor=4\"",
            )
        })
    }

    /// Checks the axes and the rules.
    ///
    /// # Errors
    /// The first that cannot be, and what to change.
    pub fn check(&self) -> Result<()> {
        let mesh = match self.mesh.is_empty() {
            true => Mesh::new([("data", 1)])?,
            false => Mesh::new(self.axes()?)?,
        };
        positive("parallel.interleave", self.interleave)?;
        if self.interleave > 1 && mesh.axis("pipeline").is_none() {
            return Err(Error::new(
                format!("`parallel.interleave` is {}, but there are no stages", self.interleave),
                "give the mesh an axis `pipeline`, or leave it out",
            ));
        }
        self.rules.iter().try_for_each(|rule| Ok::<_, Error>(rule.check(&mesh)?))?;
        let rules = self.rules.iter().flat_map(|rule| rule.axes());
        let known: Vec<&str> = AXES.into_iter().chain(rules).collect();
        match mesh.axes().iter().find(|(name, _)| !known.contains(&&**name)) {
            None => Ok(()),
            Some((name, _)) => Err(Error::new(
                format!("nothing is cut along the axis `{name}` of `parallel.mesh`"),
                "use the axes data, expert, context, tensor or pipeline, or give rules that name it",
            )),
        }
    }

    /// The device of the rank that `communicator` connects to the others.
    ///
    /// # Errors
    /// When the ranks do not fill the mesh or have no samples, or the CPU cannot be used.
    pub fn device(
        &self,
        communicator: Arc<dyn Communicator>,
        train: &TrainSection,
    ) -> Result<Device> {
        let mesh = self.mesh(communicator.size())?;
        let ranks = mesh.axis("data").map_or(1, |axis| mesh.parts(&[axis]));
        if train.batch < ranks {
            return Err(Error::new(
                format!("`train.batch` is {}, too few for {ranks} ranks along `data`", train.batch),
                "raise train.batch, or put ranks along another axis of the mesh",
            ));
        }
        let threads = match train.threads {
            0 => threads_each(communicator.neighbours()),
            threads => threads,
        };
        let options = CpuOptions { threads: Some(threads), ..CpuOptions::default() };
        Ok(MeshDevice::new(mesh, communicator, self.options(), options)?.into())
    }

    /// How the ranks work together.
    fn options(&self) -> MeshOptions {
        let ParallelSection { sequence, schedule, context, .. } = *self;
        MeshOptions { sequence, schedule, cut_sums: self.zero >= Zero::Gradients, context }
    }

    /// How weights are cut: by rules of one's own, then by those that come with the models.
    pub(super) fn all_rules(&self) -> Vec<Rule> {
        self.rules.iter().cloned().chain(tensor_rules()).collect()
    }

    /// How the tensors of a model lie on the default device, if that is one of the ranks of a
    /// mesh.
    ///
    /// # Errors
    /// When the model has too few layers, or others than are named.
    pub fn layout(&self, model: &impl Tree) -> Result<Option<Layout>> {
        let device = Device::default();
        let Some(mesh) = device.mesh() else { return Ok(None) };
        let layout = Layout::new(mesh.mesh().clone(), self.zero, self.all_rules());
        let layout = layout.with_options(&self.options());
        let layout = match self.layers.is_empty() {
            true => layout.with_stages(model, self.interleave)?,
            false => layout.with_chunks(model, &self.layers)?,
        };
        Ok(Some(layout.with_stored(model, &self.stored)?))
    }
}
