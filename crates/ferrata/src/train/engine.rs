//! The compiled step of training, for any model and loss.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferrata_formats::RawTensor;
use ferrata_formats::checkpoint::Checkpoint;
use ferrata_ir::{DType, Elements, Literal, Type};

use super::config::{Config, Size};
use super::{Error, Result, Snapshot};
use crate::data::{Batch, HostArray, HostData};

use crate::mesh::{Layout, Placement};
use crate::models::raw_weights;
use crate::nn::Context;
use crate::optim::{self, Optimizer};
use crate::profile;
use crate::tree;
use crate::{
    Compiled, Device, Key, Module, Planned, Recompute, Tensor, Tree, compile, scan, value_and_grad,
};

/// A batch on its way into a program: tensors by the names of its arrays.
pub(super) type Arrays = BTreeMap<String, Tensor>;

/// The mean loss of a batch, an f32 scalar.
pub(super) type Loss<M> = Box<dyn Fn(&M, &Arrays, &mut Context) -> Tensor + Send + Sync>;

/// Everything that a step changes.
#[derive(Clone, Tree)]
pub(super) struct State<M> {
    model: M,
    optimizer: optim::State,
    /// The moving average of the weights, if one is kept.
    average: Option<M>,
}

/// One microbatch, or all of a step stacked, and the keys of their random numbers.
type Microbatch = (Arrays, Key);
/// The new state, the loss and the norm of the gradient before clipping.
type Stepped<M> = (State<M>, Tensor, Tensor);
/// New values of the model's state, by name.
type Updates = BTreeMap<String, Tensor>;
/// A compiled function.
pub(super) type Program<A, B> = Compiled<A, B, Box<dyn Fn(A) -> B + Send + Sync>>;

/// The function, compiled when it is first called.
pub(super) fn program<A: Tree, B: Tree>(
    f: impl Fn(A) -> B + Send + Sync + 'static,
) -> Program<A, B> {
    compile(Box::new(f) as Box<dyn Fn(A) -> B + Send + Sync>)
}

/// What changes from step to step: rates of the optimiser, and the decay of the average, in f64.
type Rates = (optim::Rates, Tensor);

/// The context with this compute dtype.
pub(super) fn with_compute(context: Context, compute: Option<DType>) -> Context {
    match compute {
        Some(dtype) => context.with_compute(dtype),
        None => context,
    }
}

/// Runs the steps of one model.
pub(super) struct Engine<M> {
    /// `None` only while a step has it.
    state: Option<State<M>>,
    /// How the state lies, if this is one of several ranks.
    layout: Option<Layout>,
    settings: Arc<Settings<M>>,
    /// Forward, backward, clipping and update in one program.
    step: Program<(State<M>, Microbatch, Rates), Stepped<M>>,
}

/// What the programs are built with.
struct Settings<M> {
    loss: Loss<M>,
    /// The arrays of a batch that the loss looks at.
    inputs: &'static [&'static str],
    optimizer: Optimizer,
    compute: Option<DType>,
    frozen: Vec<String>,
    accumulate: usize,
    clip_norm: f64,
    clip_value: f64,
    ema: f64,
    verify_every: u64,
    key: Key,
}

impl<M: Module + Clone + Send + Sync + 'static> Settings<M> {
    fn new(loss: Loss<M>, inputs: &'static [&'static str], config: &Config) -> Settings<M> {
        let train = &config.train;
        Settings {
            loss,
            inputs,
            optimizer: config.optimizer(),
            compute: train.dtype.dtype(),
            frozen: train.freeze.clone(),
            accumulate: train.accumulate,
            clip_norm: train.clip_norm,
            clip_value: train.clip_value,
            ema: train.ema,
            verify_every: config.parallel.verify_every,
            key: Key::new(train.seed).fold(DROPOUT),
        }
    }

    /// What step number `step` (from 0) takes at learning rate `lr`. At first the average forgets
    /// faster, so that it does not hold on to the random weights: after `n` steps it is over the
    /// last tenth of them or so.
    fn rates(&self, step: u64, lr: f64) -> Rates {
        let decay = self.ema.min((1 + step) as f64 / (10 + step) as f64);
        (self.optimizer.rates(step, lr), Tensor::from(decay))
    }

    /// The mean loss of a microbatch, the new values of the model's state (running statistics),
    /// and the gradient.
    fn gradient(&self, model: &M, batch: &Microbatch) -> (Tensor, Updates, M) {
        let frozen: Vec<&str> = self.frozen.iter().map(String::as_str).collect();
        let (arrays, key) = batch;
        let ((loss, updates), gradient) = value_and_grad(|model: &M| {
            let model = if frozen.is_empty() { model.clone() } else { model.frozen(&frozen) };
            let mut cx = with_compute(Context::train(key.clone()), self.compute);
            let loss = (self.loss)(&model, arrays, &mut cx);
            (loss, cx.updates(&model))
        })(model);
        (loss, updates, gradient)
    }

    /// The mean gradient of stacked microbatches, one after the other; the mean of their losses,
    /// and the model with its new state.
    fn accumulated(&self, model: &M, batches: &Microbatch) -> (M, Tensor, M) {
        let sum = tree::map(model, Tensor::zeros_like);
        let each = |(model, sum): &(M, M), batch: &Microbatch| {
            let (loss, updates, gradient) = self.gradient(model, batch);
            ((model.updated(&updates), optim::accumulate(Some(sum), &gradient)), loss)
        };
        let ((model, sum), losses) = scan((model.clone(), sum), batches, each);
        (model, losses.mean(..), optim::average(&sum, self.accumulate))
    }

    /// The new state, the loss and the norm of the gradient.
    fn step(&self, state: State<M>, batch: &Microbatch, rates: &Rates) -> Stepped<M> {
        let (state, loss, gradient, updates) = if self.accumulate > 1 {
            let (model, loss, gradient) = self.accumulated(&state.model, batch);
            (State { model, ..state }, loss, gradient, Updates::new())
        } else {
            let (loss, updates, gradient) = self.gradient(&state.model, batch);
            (state, loss, gradient, updates)
        };
        let (state, norm) = self.update(&state, gradient, &updates, rates);
        (state, loss, norm)
    }

    /// The state after a step along `gradient`, and the gradient's norm before clipping.
    fn update(
        &self,
        state: &State<M>,
        gradient: M,
        updates: &Updates,
        rates: &Rates,
    ) -> (State<M>, Tensor) {
        let norm = optim::global_norm(&gradient);
        let mut clipped = gradient;
        if self.clip_value > 0.0 {
            clipped = optim::clip_by_value(&clipped, self.clip_value);
        }
        if self.clip_norm > 0.0 {
            clipped = optim::clip_by_norm(&clipped, self.clip_norm).0;
        }
        let State { model, optimizer, average } = state;
        let (rates, decay) = rates;
        let (model, optimizer) = self.optimizer.update(model, &clipped, optimizer, rates);
        let model = model.updated(updates);
        let average = average.as_ref().map(|average| optim::moving_average(average, &model, decay));
        (State { model, optimizer, average }, norm)
    }
}

/// Keeps the random numbers of dropout apart from others of the same seed.
const DROPOUT: u32 = 1;
/// Keeps the random numbers of initial weights apart.
pub(super) const WEIGHTS: u32 = 2;

/// The files of a checkpoint; its folder is a Hugging Face directory too.
pub(super) const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const TRAINING_FILE: &str = "training.safetensors";

/// The names of parts of the state in `training.safetensors`.
const OPTIMIZER: &str = "optimizer";
const AVERAGE: &str = "average";

impl<M: Module + Clone + Send + Sync + 'static> Engine<M> {
    /// Programs for `model` and a `loss` that looks at the arrays `inputs` of a batch, compiled
    /// when they are first needed.
    pub fn new(
        model: M,
        loss: Loss<M>,
        inputs: &'static [&'static str],
        config: &Config,
    ) -> Result<Engine<M>> {
        let settings = Arc::new(Settings::new(loss, inputs, config));
        let optimizer = settings.optimizer.init(&model);
        let average = (settings.ema > 0.0).then(|| tree::map(&model, Tensor::clone));
        let recompute = match config.train.memory {
            None => Recompute::Never,
            Some(Size(all)) => Recompute::Within(all),
        };
        let layout = config.parallel.layout(&model)?;
        let state = placed(State { model, optimizer, average }, layout.as_ref());
        let for_step = settings.clone();
        Ok(Engine {
            state: Some(state),
            layout,
            step: program(move |(state, batch, rates): (State<M>, Microbatch, Rates)| {
                for_step.step(state, &batch, &rates)
            })
            .with_results_like(|(state, ..)| tree::leaves(state))
            .with_recompute(recompute),
            settings,
        })
    }

    fn state(&self) -> Result<&State<M>> {
        self.state.as_ref().ok_or_else(|| {
            Error::new("a step has failed and its state is lost", "resume from the last checkpoint")
        })
    }

    /// The model as it stands.
    pub fn model(&self) -> Result<&M> {
        Ok(&self.state()?.model)
    }

    /// The model to be used: the moving average, if there is one.
    pub fn best_model(&self) -> Result<&M> {
        let state = self.state()?;
        Ok(state.average.as_ref().unwrap_or(&state.model))
    }

    /// Takes step number `step` (from 0) on its microbatches at learning rate `lr`; gives the mean
    /// loss and the norm of the gradient before clipping. With `keep`, the state before the step
    /// is not overwritten, and comes back if the loss is not finite.
    pub fn step(
        &mut self,
        step: u64,
        lr: f64,
        batches: &[Batch],
        keep: bool,
    ) -> Result<(f64, f64)> {
        let batch = profile::host("input", || self.batch(step, batches))?;
        let rates = self.settings.rates(step, lr);
        let state = self.state.take();
        let Some(state) = state else { return Err(self.state().err().unwrap_or_else(lost)) };
        let before = keep.then(|| state.clone());
        let (state, loss, norm) = self.step.call((state, batch, rates))?;
        let loss = number(&loss)?;
        let norm = number(&norm)?;
        self.state = match before {
            Some(before) if !(loss.is_finite() && norm.is_finite()) => Some(before),
            _ => Some(state),
        };
        let due =
            self.settings.verify_every > 0 && (step + 1).is_multiple_of(self.settings.verify_every);
        if due && loss.is_finite() && norm.is_finite() {
            self.check_replicas()?;
        }
        Ok((loss, norm))
    }

    /// Compares the state with that of other ranks.
    fn check_replicas(&self) -> Result<()> {
        let device = Device::default();
        let Some(mesh) = device.mesh() else { return Ok(()) };
        let State { model, optimizer, average } = self.state()?;
        let mut named = tree::named_leaves(model);
        named.extend(tree::named_leaves(optimizer));
        named.extend(average.iter().flat_map(tree::named_leaves));
        Ok(mesh.check_replicas(&named)?)
    }

    /// The microbatches of a step, stacked if there are several. Their random numbers depend on
    /// the seed, the step and the microbatch only.
    fn batch(&self, step: u64, batches: &[Batch]) -> Result<Microbatch> {
        let key = self.settings.key.fold(step as u32).fold((step >> 32) as u32);
        let key = |(i, _): (usize, _)| key.fold(i as u32);
        let keys = batches.iter().enumerate().map(key).collect();
        let arrays = batches.iter().map(|batch| arrays(batch, self.settings.inputs));
        Ok(self.stacked(arrays.collect::<Result<_>>()?, keys))
    }

    /// Microbatches as the step takes them, lying as the layout says.
    fn stacked(&self, mut all: Vec<Arrays>, mut keys: Vec<Key>) -> Microbatch {
        if self.settings.accumulate == 1
            && let (Some(arrays), Some(key)) = (all.pop(), keys.pop())
        {
            return (self.on_mesh(arrays, Layout::batch), key);
        }
        let names: Vec<String> = all.iter().take(1).flat_map(|a| a.keys().cloned()).collect();
        let stack = |name: String| {
            let each: Vec<&Tensor> = all.iter().map(|arrays| &arrays[&name]).collect();
            let stacked = Tensor::stack(&each, 0);
            (name, stacked)
        };
        let arrays = names.into_iter().map(stack).collect();
        let keys: Vec<Tensor> = keys.iter().map(Key::tensor).collect();
        let keys = Tensor::stack(&keys.iter().collect::<Vec<_>>(), 0);
        (self.on_mesh(arrays, Layout::batches), Key::from_tensor(&keys))
    }

    /// The arrays so that they lie as `place` of the layout says.
    fn on_mesh(&self, mut arrays: Arrays, place: fn(&Layout, &Type) -> Placement) -> Arrays {
        if let Some(layout) = &self.layout {
            arrays.values_mut().for_each(|array| *array = array.place(&place(layout, array.ty())));
        }
        arrays
    }

    /// Compiles the step for microbatches of the sizes of this one.
    pub fn prepare(&self, batch: &Arrays) -> Result<Planned> {
        let (count, rates) = (self.settings.accumulate, self.settings.rates(0, 0.0));
        let batch =
            self.stacked(vec![batch.clone(); count], vec![self.settings.key.clone(); count]);
        // The program of a rank is made for how its arguments lie.
        crate::eval(&tree::leaves(&batch).iter().collect::<Vec<_>>())?;
        // As in training, nobody else holds the state, so its memory can be reused.
        Ok(self.step.planned(&(self.state()?.clone(), batch, rates), true)?)
    }

    /// Says what in the step first makes a NaN or an infinity, by running it on its microbatches
    /// once more and looking at all that it computes.
    pub fn explain(&self, step: u64, lr: f64, batches: &[Batch]) -> Result<String> {
        let state = self.state()?;
        for (name, weight) in tree::named_leaves(&state.model) {
            let value = Literal::from_bytes(weight.ty().clone(), &weight.to_bytes()?)?;
            if matches!(&value.elements, Elements::Float(v) if v.iter().any(|x| !x.is_finite())) {
                return Ok(format!("the weight `{name}` is not finite before the step"));
            }
        }
        let rates = self.settings.rates(step, lr);
        let batch = self.batch(step, batches)?;
        if let Err(error) = self.step.call_watching((state.clone(), batch, rates)) {
            return Ok(error.to_string());
        }
        Ok("run once more, every value was finite".to_owned())
    }

    /// The weights with their names, on the host.
    pub fn weights(model: &M) -> Result<Vec<(String, RawTensor)>> {
        Ok(raw_weights(model)?)
    }

    /// The part of the state beside the weights, by its names in `training.safetensors`.
    pub fn extra(&self) -> Result<Vec<(String, Tensor)>> {
        let state = self.state()?;
        let mut tensors = prefixed(OPTIMIZER, tree::named_leaves(&state.optimizer));
        if let Some(average) = &state.average {
            tensors.extend(prefixed(AVERAGE, average.named_parameters()));
        }
        Ok(tensors)
    }

    /// Takes over weights and the rest of the state.
    pub fn restore(
        &mut self,
        weights: HashMap<String, Tensor>,
        extra: &HashMap<String, Tensor>,
    ) -> Result<()> {
        let mut state = self.state()?.clone();
        state.model = state.model.load(weights)?;
        if let Some(average) = &state.average {
            state.average = Some(average.load(below(AVERAGE, extra))?);
        }
        let mut saved = below(OPTIMIZER, extra);
        let mut missing = None;
        state.optimizer = tree::map_named(&state.optimizer, |name, old| {
            match saved.remove(name).filter(|new| new.ty() == old.ty()) {
                Some(new) => new,
                None => {
                    missing = Some(name.to_owned());
                    old.clone()
                }
            }
        });
        if let Some(name) = missing.or_else(|| saved.into_keys().next()) {
            return Err(Error::new(
                format!("the checkpoint's optimiser state does not fit at `{name}`"),
                "continue with the configuration that the run began with",
            ));
        }
        self.state = Some(placed(state, self.layout.as_ref()));
        Ok(())
    }

    /// Adds the weights and the rest of the state to a checkpoint.
    pub fn save(&self, to: &mut Snapshot) -> Result<()> {
        to.tensors(WEIGHTS_FILE, self.model()?.named_parameters(), metadata());
        to.parts(TRAINING_FILE, self.extra()?);
        Ok(())
    }

    /// Takes over what [`Engine::save`] has written.
    pub fn restore_from(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let read = |name: &str| -> Result<HashMap<String, Tensor>> {
            let tensors = checkpoint.joined(name)?.into_iter();
            Ok(tensors.map(|(name, raw)| (name, loaded(raw))).collect())
        };
        self.restore(read(WEIGHTS_FILE)?, &read(TRAINING_FILE)?)
    }

    /// [`Engine::explain`] in a line, whatever happens.
    pub fn explained(&self, step: u64, lr: f64, batches: Result<(Vec<Batch>, f64)>) -> String {
        match batches.and_then(|(batches, _)| self.explain(step, lr, &batches)) {
            Ok(reason) => reason,
            Err(error) => format!("it could not be traced ({error})"),
        }
    }

    /// About how many bytes the state takes.
    pub fn state_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, bytes)
    }
}

/// The state, every tensor of which lies as the layout says.
fn placed<M: Module>(state: State<M>, layout: Option<&Layout>) -> State<M> {
    let Some(layout) = layout else { return state };
    let State { model, optimizer, average } = state;
    let average = average
        .map(|average| tree::map_named(&average, |name, x| x.place(&layout.average(name, x.ty()))));
    State { model: layout.model(&model), optimizer: layout.optimizer(&optimizer), average }
}

/// Bytes of all tensors of a tree.
pub(super) fn bytes(tree: &impl Tree) -> u64 {
    tree::leaves(tree).iter().map(|t| t.ty().bytes() as u64).sum()
}

fn lost() -> Error {
    Error::new("the state of the run is lost", "resume from the last checkpoint")
}

/// The only number of a tensor.
pub(super) fn number(tensor: &Tensor) -> Result<f64> {
    profile::host("results", || Ok(tensor.cast(DType::F64).item::<f64>()?))
}

/// Arrays of a batch as tensors.
pub(super) fn arrays(batch: &Batch, names: &[&str]) -> Result<Arrays> {
    names.iter().map(|name| Ok(((*name).to_owned(), tensor(batch.get(name)?)))).collect()
}

/// A host array as a tensor.
fn tensor(array: &HostArray) -> Tensor {
    match &array.data {
        HostData::I64(values) => Tensor::from_slice(values, &array.shape),
        HostData::F32(values) => Tensor::from_slice(values, &array.shape),
    }
}

/// The tensors with a prefix to their names.
fn prefixed(prefix: &str, tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    tensors.into_iter().map(|(name, x)| (format!("{prefix}.{name}"), x)).collect()
}

/// The tensors whose names have this prefix, without it.
fn below(prefix: &str, tensors: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let named = tensors.iter().filter_map(|(name, x)| {
        let name = name.strip_prefix(prefix)?.strip_prefix('.')?;
        Some((name.to_owned(), x.clone()))
    });
    named.collect()
}

/// A tensor that was read from a file.
fn loaded(raw: RawTensor) -> Tensor {
    Tensor::from_bytes(Type::new(raw.dtype, raw.shape), &raw.bytes)
}

/// The weights of a map of named tensors, borrowed for writing.
pub(super) fn views(
    tensors: &[(String, RawTensor)],
) -> impl Iterator<Item = (&str, ferrata_formats::TensorView<'_>)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view()))
}

/// The metadata that PyTorch and transformers want in files of weights.
pub(super) fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

#[cfg(test)]
mod tests;
