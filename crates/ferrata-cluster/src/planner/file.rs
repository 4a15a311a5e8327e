//! Plans as files, in TOML.

use ferrata_ir::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::hardware::Cluster;
use crate::layout::Layout;
use crate::model::Model;
use crate::step::Choice;

/// What a plan file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Version of the format.
    pub version: u32,
    /// Which model it is for.
    pub model: String,
    /// Where the configuration of the model is.
    pub recipe: String,
    /// Devices of the mesh.
    pub devices: usize,
    /// Sequences of all replicas together.
    pub batch: usize,
    /// Dtype of matrix products.
    pub dtype: String,
    /// Seconds that a step was predicted to take.
    pub step_seconds: f64,
    /// Layers of each chunk; chunk `i` is on stage `i` modulo the number of stages.
    pub chunks: Vec<usize>,
    /// Weights that are cut over the tensor axis; `*` stands for the number of a layer.
    pub cut: Vec<String>,
    /// The layout.
    pub layout: Layout,
    /// What is chosen for layers, in their order.
    pub layers: Vec<Layers>,
    /// The cluster that it is for.
    pub cluster: Cluster,
}

/// Neighbouring layers with the same choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// How many.
    pub count: usize,
    /// The choice.
    pub choice: Choice,
}

/// The version that is written.
const VERSION: u32 = 1;

impl PlanFile {
    /// The file of a plan.
    pub fn new(plan: &Plan, model: &Model, cluster: &Cluster, batch: usize, recipe: &str) -> Self {
        let mut layers: Vec<Layers> = Vec::new();
        for &choice in &plan.choices {
            match layers.last_mut() {
                Some(last) if last.choice == choice => last.count += 1,
                _ => layers.push(Layers { count: 1, choice }),
            }
        }
        PlanFile {
            version: VERSION,
            model: model.fingerprint.clone(),
            recipe: recipe.to_owned(),
            devices: plan.layout.mesh.devices(),
            batch,
            dtype: model.dtype.to_string(),
            step_seconds: plan.prediction.seconds,
            chunks: plan.chunks.clone(),
            layout: plan.layout,
            layers,
            cut: model.cut_weights(),
            cluster: cluster.clone(),
        }
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<PlanFile> {
        let file: PlanFile = toml::from_str(text).map_err(|error| {
            Error::new(format!("the plan file is wrong: {}", error.message()))
                .help("write it anew with ferrata plan")
        })?;
        if file.version != VERSION {
            let version = file.version;
            return Err(Error::new(format!("the plan file has version {version}, not {VERSION}"))
                .help("plan again with this version of ferrata"));
        }
        file.check()?;
        Ok(file)
    }

    /// Checks that what it says agrees with itself.
    fn check(&self) -> Result<()> {
        let Layout { mesh, microbatch, interleave, .. } = &self.layout;
        let (devices, layers) = (mesh.devices(), self.choices().len());
        let rows = mesh.data * microbatch;
        let wrong = if devices != self.devices || devices == 0 {
            format!("its mesh has {devices} devices, not {}", self.devices)
        } else if self.chunks.len() != mesh.pipeline * interleave {
            let chunks = self.chunks.len();
            format!("{chunks} chunks are not {interleave} for each of {} stages", mesh.pipeline)
        } else if self.chunks.iter().sum::<usize>() != layers || self.chunks.contains(&0) {
            format!("its chunks {:?} are not made of its {layers} layers", self.chunks)
        } else if rows == 0 || !self.batch.is_multiple_of(rows) {
            format!("{rows} sequences at a time do not make a batch of {}", self.batch)
        } else {
            return Ok(());
        };
        Err(Error::new(format!("the plan file is wrong: {wrong}"))
            .help("write it anew with ferrata plan"))
    }

    /// The file's text.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    pub fn text(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|error| Error::new(format!("the plan cannot be written: {error}")))
    }

    /// The choice of every layer.
    pub fn choices(&self) -> Vec<Choice> {
        self.layers.iter().flat_map(|l| std::iter::repeat_n(l.choice, l.count)).collect()
    }

    /// Checks that the plan is for the model of this fingerprint with so many layers.
    ///
    /// # Errors
    /// If it is for another one, or its layers are not as many.
    pub fn check_model(&self, fingerprint: &str, layers: usize) -> Result<()> {
        let planned = self.choices().len();
        if self.model != fingerprint || planned != layers {
            return Err(Error::new(format!(
                "the plan is for another model ({}, {planned} layers; this one is {fingerprint}, \
                 {layers} layers)",
                self.model
            ))
            .help("plan again, or train the model that was planned"));
        }
        Ok(())
    }

    /// Checks that the plan is for this cluster.
    ///
    /// # Errors
    /// If it is for another one.
    pub fn check_cluster(&self, cluster: &Cluster) -> Result<()> {
        if self.cluster.fingerprint() == cluster.fingerprint() {
            return Ok(());
        }
        let (planned, name) = (&self.cluster.name, &cluster.name);
        Err(Error::new(format!(
            "the plan is for the cluster `{planned}`, which is not `{name}` as its file is now"
        ))
        .help("plan again with this cluster"))
    }
}
