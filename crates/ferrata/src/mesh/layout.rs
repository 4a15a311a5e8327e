//! How the tensors of a training run lie on a mesh.

use super::{Cut, Mesh, MeshOptions, Placement, Sharding, Stage};
use crate::module::matches;
use crate::optim;
use crate::tree::{self, Tree};
use ferrata_cluster::pipeline::balanced;
use ferrata_ir::{Error, Result, Type};
use serde::{Deserialize, Serialize};

/// The axes that cut batches by samples: ranks of a group that shares experts have different ones.
pub(super) const SAMPLES: [&str; 2] = ["data", "expert"];

/// What is cut along the axes of replicas (`data` and `context`) to save memory, though all work needs
/// it whole: the stages of Rajbhandari et al. (2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Zero {
    /// Nothing.
    #[default]
    Off,
    /// The state of the optimiser.
    Optimizer,
    /// Gradients too.
    Gradients,
    /// Weights too: they are gathered where they are used.
    Weights,
}

impl TryFrom<u8> for Zero {
    type Error = String;

    fn try_from(stage: u8) -> std::result::Result<Zero, String> {
        match stage {
            0 => Ok(Zero::Off),
            1 => Ok(Zero::Optimizer),
            2 => Ok(Zero::Gradients),
            3 => Ok(Zero::Weights),
            _ => Err(format!("there is no stage {stage}, only 0 to 3")),
        }
    }
}

impl From<Zero> for u8 {
    fn from(zero: Zero) -> u8 {
        zero as u8
    }
}

/// How weights whose name matches are cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the parameter; `*` stands for any characters.
    pub name: String,
    /// For each dimension the axis that cuts it, or nothing; `tensor*3` cuts each of 3 stretches.
    pub dims: Vec<String>,
}

/// The cut that a rule's text for a dimension means; whole if the mesh lacks the axis.
fn cut(mesh: &Mesh, text: &str) -> Result<Cut> {
    let (axis, blocks) = text.split_once('*').unwrap_or((text, "1"));
    let blocks = blocks.parse().ok().filter(|&n| n > 0).ok_or_else(|| {
        Error::new(format!("`{text}` is no way to cut a dimension"))
            .help("give the name of a mesh axis, or `axis*3` for three stretches")
    })?;
    Ok(match mesh.axis(axis) {
        Some(axis) => Cut { blocks, ..Cut::along(&[axis]) },
        None => Cut::whole(),
    })
}

impl Rule {
    /// A rule.
    pub fn new(name: &str, dims: &[&str]) -> Rule {
        Rule { name: name.to_owned(), dims: dims.iter().map(|&dim| dim.to_owned()).collect() }
    }

    /// The axes that it names.
    pub fn axes(&self) -> impl Iterator<Item = &str> {
        self.dims.iter().map(|text| text.split_once('*').map_or(text.as_str(), |(axis, _)| axis))
    }

    /// Checks that every dimension says something that can be.
    ///
    /// # Errors
    /// Names the first that does not.
    pub fn check(&self, mesh: &Mesh) -> Result<()> {
        self.dims.iter().try_for_each(|dim| cut(mesh, dim).map(|_| ()))
    }
}

/// How weights, optimiser state and batches lie. The axes `data` and `expert` cut batches by
/// samples, `context` by positions; along `pipeline` lie stages of layers; other axes, and `expert`
/// too, cut weights, as the rules say. Axes of which nothing is said, or that do not fit a tensor,
/// leave it whole.
#[derive(Clone, Debug)]
pub struct Layout {
    mesh: Mesh,
    zero: Zero,
    rules: Vec<Rule>,
    /// What the names of the weights of a layer begin with, and the layer's stage.
    stages: Vec<(String, Stage)>,
    /// What the names of weights begin with that replicas share whatever `zero` says.
    stored: Vec<String>,
    /// Whether the positions of batches are dealt out.
    dealt: bool,
}

/// What the names of a layer's weights begin with, its number last: `layers.3.`.
fn layer(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split_inclusive('.') {
        end += part.len();
        let number = part.trim_end_matches('.');
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(&name[..end]);
        }
    }
    None
}

/// The layers of a model in their order: what the names of their weights begin with, and how many
/// elements these have. Layers are what has a number in the names of weights (`layers.3.`). Also
/// the elements of the largest weight outside of them.
fn layers(model: &impl Tree) -> (Vec<(String, f64)>, f64) {
    let (mut layers, mut rest): (Vec<(String, f64)>, f64) = (Vec::new(), 0.0);
    for (name, weight) in tree::named_leaves(model) {
        let elements = weight.ty().elements() as f64;
        match (layer(&name), layers.last_mut()) {
            (None, _) => rest = rest.max(elements),
            (Some(layer), Some((last, sum))) if *last == layer => *sum += elements,
            (Some(layer), _) => layers.push((layer.to_owned(), elements)),
        }
    }
    (layers, rest)
}

impl Layout {
    /// A layout; the first rule that matches a name holds. Without stages; see
    /// [`Layout::with_stages`].
    pub fn new(mesh: Mesh, zero: Zero, rules: Vec<Rule>) -> Layout {
        Layout { mesh, zero, rules, stages: Vec::new(), stored: Vec::new(), dealt: false }
    }

    /// With batches as ranks that work together so want them.
    pub fn with_options(self, way: &MeshOptions) -> Layout {
        Layout { dealt: way.deals_positions(), ..self }
    }

    /// With the layers of `model` on the stages along the axis `pipeline`, if the mesh has it: in
    /// their order, in `interleave` chunks for each stage that are about equally large. Weights
    /// outside of layers are on all stages, and the largest of these is taken for the last thing
    /// that is done.
    ///
    /// # Errors
    /// When there are too few layers.
    pub fn with_stages(self, model: &impl Tree, interleave: usize) -> Result<Layout> {
        if self.depth() == 1 {
            return Ok(self);
        }
        let chunks = self.depth() * interleave;
        let (layers, head) = layers(model);
        if layers.len() < chunks {
            let (have, stages) = (layers.len(), self.depth());
            return Err(Error::new(format!(
                "a model of {have} layers has not enough for {stages} stages of {interleave} \
                 chunks along `pipeline`"
            ))
            .help("make the axis `pipeline` or `interleave` smaller"));
        }
        let costs: Vec<f64> = layers.iter().map(|(_, elements)| *elements).collect();
        self.with_chunks(model, &balanced(&costs, 0.0, head, chunks))
    }

    /// With so many layers of `model` in each chunk, in their order; chunk `i` is on stage `i`
    /// modulo the number of stages.
    ///
    /// # Errors
    /// When these are not all layers, or stages have more chunks than others.
    pub fn with_chunks(mut self, model: &impl Tree, chunks: &[usize]) -> Result<Layout> {
        let (layers, stages) = (layers(model).0, self.depth());
        let (have, all) = (layers.len(), chunks.iter().sum::<usize>());
        if have != all || chunks.contains(&0) || !chunks.len().is_multiple_of(stages) {
            let count = chunks.len();
            return Err(Error::new(format!(
                "{count} chunks of {all} layers do not fit {stages} stages along `pipeline` and a \
                 model of {have} layers"
            ))
            .help("give each stage as many chunks, and each layer one"));
        }
        let Some(axis) = self.mesh.axis("pipeline") else { return Ok(self) };
        let mut layers = layers.into_iter();
        for (chunk, &count) in chunks.iter().enumerate() {
            let stage = Stage { axis, at: chunk % stages };
            self.stages.extend(layers.by_ref().take(count).map(|(layer, _)| (layer, stage)));
        }
        Ok(self)
    }

    /// With the weights of these layers of `model` cut as [`Zero::Weights`] cuts all.
    ///
    /// # Errors
    /// When the model has no such layer.
    pub fn with_stored(mut self, model: &impl Tree, numbers: &[usize]) -> Result<Layout> {
        let (layers, _) = layers(model);
        let name = |&number: &usize| layers.get(number).map(|(layer, _)| layer.clone());
        self.stored = numbers.iter().map(name).collect::<Option<_>>().ok_or_else(|| {
            Error::new(format!("layers {numbers:?} of a model that has {}", layers.len()))
                .help("layers are numbered from 0")
        })?;
        Ok(self)
    }

    /// How many stages there are.
    fn depth(&self) -> usize {
        self.mesh.axis("pipeline").map_or(1, |axis| self.mesh.parts(&[axis]))
    }

    /// Whether layers lie on stages.
    pub fn has_stages(&self) -> bool {
        !self.stages.is_empty()
    }

    /// How a weight is cut by the rules.
    fn ruled(&self, name: &str, ty: &Type) -> Sharding {
        let mut sharding = Sharding::replicated(ty.rank());
        let rule = self.rules.iter().find(|rule| matches(&rule.name, name));
        let dims = rule.map_or(&[][..], |rule| &rule.dims);
        for (d, text) in dims.iter().enumerate().take(ty.rank()) {
            let mut with = sharding.clone();
            with.cuts[d] = cut(&self.mesh, text).unwrap_or_else(|_| Cut::whole());
            if with.check(&self.mesh, ty).is_ok() {
                sharding = with;
            }
        }
        sharding
    }

    /// The sharding, cut along all axes of replicas too, in its largest whole dimension that divides
    /// best; and these axes. Vectors are not worth a message each.
    fn stored(&self, mut sharding: Sharding, ty: &Type) -> (Sharding, Vec<usize>) {
        let axes: Vec<usize> =
            ["data", "context"].iter().filter_map(|name| self.mesh.axis(name)).collect();
        let parts = self.mesh.parts(&axes);
        let whole = (0..ty.rank()).filter(|&d| sharding.cuts[d].is_whole());
        let best = whole.max_by_key(|&d| (ty.shape[d].is_multiple_of(parts), ty.shape[d]));
        match best.filter(|&d| ty.shape[d] >= parts && parts > 1 && ty.rank() > 1) {
            Some(d) => {
                sharding.cuts[d] = Cut::along(&axes);
                (sharding, axes)
            }
            None => (sharding, vec![]),
        }
    }

    fn weight_like(&self, name: &str, ty: &Type, cut: bool) -> Placement {
        let ruled = self.ruled(name, ty);
        let (mut sharding, stored) = if cut { self.stored(ruled, ty) } else { (ruled, vec![]) };
        let stage = self.stages.iter().find(|(layer, _)| name.starts_with(layer.as_str()));
        sharding.stage = stage.map(|&(_, stage)| stage);
        Placement::weight(sharding, &stored)
    }

    /// How a weight lies.
    pub fn weight(&self, name: &str, ty: &Type) -> Placement {
        let stored = self.stored.iter().any(|layer| name.starts_with(layer.as_str()));
        self.weight_like(name, ty, stored || self.zero >= Zero::Weights)
    }

    /// How the moving average of a weight lies, and what the optimiser remembers of it.
    pub fn average(&self, name: &str, ty: &Type) -> Placement {
        self.weight_like(name, ty, self.zero >= Zero::Optimizer)
    }

    /// A model whose weights lie so.
    pub fn model<M: Tree>(&self, model: &M) -> M {
        tree::map_named(model, |name, x| x.place(&self.weight(name, x.ty())))
    }

    /// The state of an optimiser so that it lies like the averages of its weights.
    pub fn optimizer(&self, state: &optim::State) -> optim::State {
        tree::map_named(state, |path, x| {
            // The path of what is remembered of a weight begins with the weight's.
            let weight = path.rsplit_once('.').map_or(path, |(weight, _)| weight);
            x.place(&self.average(weight, x.ty()))
        })
    }

    /// How an array of a batch lies: its first dimension are samples, its second positions.
    pub fn batch(&self, ty: &Type) -> Placement {
        let mut sharding = Sharding::replicated(ty.rank());
        for (d, names) in [&SAMPLES[..], &["context"]].into_iter().enumerate().take(ty.rank()) {
            // Pictures have no positions.
            if d == 1 && ty.rank() != 2 {
                continue;
            }
            let axes: Vec<usize> = names.iter().filter_map(|name| self.mesh.axis(name)).collect();
            let cut = |keep: usize| {
                let mut with = sharding.clone();
                with.cuts[d] = match self.dealt && d == 1 {
                    true => Cut::dealt(&self.mesh, &axes[..keep], ty.shape[d]),
                    false => Cut::along(&axes[..keep]),
                };
                with
            };
            let mut cuts = (1..=axes.len()).rev().map(cut);
            if let Some(with) = cuts.find(|with| with.check(&self.mesh, ty).is_ok()) {
                sharding = with;
            }
        }
        Placement::data(sharding)
    }

    /// How arrays of several batches lie, stacked in front of their dimensions.
    pub fn batches(&self, ty: &Type) -> Placement {
        let mut placement = self.batch(&ty.with_shape(&ty.shape[1..]));
        placement.sharding.cuts.insert(0, Cut::whole());
        placement
    }
}
