//! Text-to-image models as learners: captioned images, the model, its engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata_formats::atomic;
use ferrata_formats::checkpoint::Checkpoint;
use ferrata_formats::huggingface::{DirectoryConfig, FlowDirectory};
use ferrata_ir::DType;
use serde_json::Value;

use super::classifier::threads;
use super::config::{FlowSection, ImageSection};
use super::engine::{
    self, Arrays, CONFIG_FILE, Engine, Loss, Program, WEIGHTS, program, with_compute,
};
use super::feed::{Feed, each_batch, nothing_readable};
use super::learner::{self, DataFacts, Evaluated, Facts, Sample, StepPlan, Task};
use super::painting::{Checked, GRID, Painting, check_size, own_encoder};
use super::preprocessing::{self, PREPROCESSING};
use super::stepper::Stepper;
use super::{Config, Error, Learner, Progress, Result, Snapshot, folder};
use crate::data::Tokenizer;
use crate::data::images::{
    CAPTIONS, CaptionEncoder, IMAGES, ImageBatches, ImageData, ImageSet, ImageSplit, ImagesInOrder,
    Picture, Reader, WEIGHTS as ROW_WEIGHTS,
};
use crate::data::scenes::Scenes;
use crate::flow;
use crate::models::{FlowConfig, FlowModel, Prediction};
use crate::nn::Context;
use crate::{Key, Module, Tensor};

/// A text-to-image model that learns from images with captions by flow matching.
pub struct Painter {
    stepper: Stepper<FlowModel>,
    reader: Arc<Reader>,
    painting: Painting,
    validation: Option<Validation>,
    flow: FlowSection,
    /// What samples show.
    prompts: Vec<String>,
    facts: Facts,
    seed: u64,
}

/// The arrays that a step takes.
const STEP: &[&str] = &[IMAGES, CAPTIONS];
/// Captions that a tokenizer is trained on.
const READ: usize = 20_000;
/// Captions are not longer than this, unless the configuration says so.
const LONGEST: usize = 77;
/// A hundredth as many scenes as are learned from are for validation, and at most so many.
const VALIDATION: usize = 512;

/// The mean square error of the velocity at random times on the way from random noise to the
/// pictures, some without their captions.
fn loss(section: &FlowSection, pad: i64) -> Loss<FlowModel> {
    let (times, dropout) = (section.times(), section.text_dropout);
    Box::new(move |model: &FlowModel, batch: &Arrays, cx: &mut Context| {
        let (data, text) = (&batch[IMAGES], &batch[CAPTIONS]);
        let key = match cx.key() {
            Ok(key) => key,
            Err(error) => return Tensor::failed(error),
        };
        let left_out = Tensor::bernoulli([data.size(0), 1], dropout, &key.fold(2));
        let text = left_out.select(text.full_like(pad), text);
        let (x, t, noise) = flow::noised(data, &times, &key);
        flow::loss(&model.forward(&x, &t, &text, cx), &noise, data)
    })
}

/// Model, batch and key to the loss of every picture, `[batch]`.
type Evaluate = Program<(FlowModel, Arrays, Key), Tensor>;

/// A validation part, and the program that looks at its batches.
struct Validation {
    images: Arc<ImagesInOrder>,
    program: Evaluate,
    threads: usize,
}

impl Validation {
    fn new(
        images: ImagesInOrder,
        section: &FlowSection,
        compute: Option<DType>,
        threads: usize,
    ) -> Validation {
        let times = section.times();
        let program = program(move |(model, batch, key): (FlowModel, Arrays, Key)| {
            let mut cx = with_compute(Context::eval(), compute);
            let (data, text) = (&batch[IMAGES], &batch[CAPTIONS]);
            let (x, t, noise) = flow::noised(data, &times, &key);
            let v = model.forward(&x, &t, text, &mut cx);
            (v.cast(DType::F32) - (data - noise)).square().mean([1, 2, 3])
        });
        Validation { images: Arc::new(images), program, threads }
    }

    /// The mean loss, at times and with noise that are the same every time; `None` once `stop` is
    /// set.
    fn loss(&self, model: &FlowModel, stop: &AtomicBool) -> Result<Option<f64>> {
        let (mut sum, mut count) = (0.0, 0.0);
        let all = each_batch(self.images.clone(), self.threads, stop, |number, batch| {
            let arrays = engine::arrays(batch, STEP)?;
            let key = Key::new(0).fold(number);
            let losses = self.program.call((model.clone(), arrays, key))?.to_vec::<f32>()?;
            let weights = batch.get(ROW_WEIGHTS)?.as_f32().unwrap_or_default();
            for (loss, weight) in losses.iter().zip(weights) {
                sum += f64::from(loss * weight);
                count += f64::from(*weight);
            }
            Ok(())
        })?;
        match all {
            false => Ok(None),
            true if count > 0.0 => Ok(Some(sum / count)),
            true => Err(nothing_readable()),
        }
    }
}

/// Opens the images of a section, or makes scenes.
fn open_images(section: &ImageSection, seed: u64) -> Result<ImageData> {
    section.check()?;
    let Some(count) = section.scenes else {
        let path = section.images.as_deref().unwrap_or(Path::new(""));
        let split = ImageSplit { validation: section.validation, seed };
        return Ok(ImageData::open(path, split)?);
    };
    let validation = if section.validation > 0.0 { (count / 100).clamp(1, VALIDATION) } else { 0 };
    Ok(Scenes::new(seed).images(count, validation, section.size)?)
}

/// Captions of a set, the first of each example.
fn captions(set: &ImageSet, count: usize) -> Vec<String> {
    let texts = set.examples.iter().filter_map(|example| set.texts(*example).first());
    texts.take(count).cloned().collect()
}

/// The model to begin with, what turns captions into its tokens, and what there is to say.
fn initial(
    config: &Config,
    section: &ImageSection,
    data: &ImageData,
) -> Result<(FlowModel, CaptionEncoder, Option<String>)> {
    let (model, encoder, longest) = match (&config.train.init, &config.model) {
        (Some(path), _) => {
            let directory = folder::model_directory(path)?;
            let model = FlowModel::load(&directory)?;
            let encoder = own_encoder(&model, &directory)?;
            check_size(&model, section.size)?;
            check_prediction(&model, config.flow.predict)?;
            let longest = CaptionEncoder::longest(encoder.tokenizer(), &data.train)?;
            (model, encoder, longest)
        }
        (None, Some(model)) => {
            let texts = captions(&data.train, READ);
            let tokenizer = Arc::new(Tokenizer::train_bpe(&texts, section.vocab)?);
            let longest = CaptionEncoder::longest(&tokenizer, &data.train)?;
            let length = model.context.unwrap_or(longest.clamp(1, LONGEST));
            let encoder = CaptionEncoder::new(tokenizer, length);
            let shape = FlowConfig {
                prediction: config.flow.predict.unwrap_or_default(),
                ..model.to_flow_config(encoder.vocab_size(), length, section.size)?
            };
            let key = Key::new(config.train.seed).fold(WEIGHTS);
            (FlowModel::new(&shape, &key)?, encoder, longest)
        }
        (None, None) => {
            let remedy = "add a [model] section or pass --init MODEL_DIR";
            return Err(Error::new("no model is given", remedy));
        }
    };
    let length = encoder.length();
    let note = (longest > length)
        .then(|| format!("captions are cut after {length} tokens; the longest has {longest}"));
    Ok((model, encoder, note))
}

/// Checks that a model that goes on tells what it should.
fn check_prediction(model: &FlowModel, wanted: Option<Prediction>) -> Result<()> {
    match wanted.is_none_or(|wanted| wanted == model.config.prediction) {
        true => Ok(()),
        false => Err(Error::new(
            "`flow.predict` is not what the model has learned to tell",
            "leave it out: the model knows",
        )),
    }
}

impl Painter {
    /// Opens the images of the configuration and makes the model: with random weights, or from the
    /// directory `train.init`.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the images or the model, or does not fit
    /// together.
    pub fn from_images(config: &Config) -> Result<Painter> {
        config.check()?;
        let section = config.data.images()?;
        let (batch, seed) = (config.train.batch, config.train.seed);
        let data = open_images(section, seed)?;
        let (model, encoder, note) = initial(config, section, &data)?;
        let transforms = section.transforms()?;
        let reader = Arc::new(Reader::new(section.on_damaged, section.max_pixels));
        let facts = Facts {
            model: model.config.kind().to_owned(),
            parameters: model.parameter_count(),
            data: DataFacts::Captions {
                vocabulary: encoder.vocab_size(),
                length: encoder.length(),
                size: section.size,
                images_per_step: batch * config.train.accumulate,
                training: data.train.len(),
                validation: data.validation.as_ref().map_or(0, ImageSet::len),
            },
            device: learner::device(),
            notes: data.notes.into_iter().chain(note).collect(),
        };
        let shown = data.validation.as_ref().unwrap_or(&data.train);
        let prompts = match config.flow.prompts.is_empty() {
            true => captions(shown, GRID.0),
            false => config.flow.prompts.clone(),
        };
        let compute = config.train.dtype.dtype();
        let threads = threads(section);
        let validation = data.validation.map(|set| {
            let images = ImagesInOrder::new(set, reader.clone(), transforms.clone(), batch)?;
            let images = images.with_captions(encoder.clone());
            Ok::<_, Error>(Validation::new(images, &config.flow, compute, threads))
        });
        let validation = validation.transpose()?;
        let source =
            ImageBatches::new(data.train, reader.clone(), transforms.clone(), batch, seed)?;
        let source = Arc::new(source.with_captions(encoder.clone()));
        let loss = loss(&config.flow, encoder.pad());
        let engine = Engine::new(model, loss, STEP, config)?;
        let feed = Feed::new(source, config.train.accumulate, threads);
        Ok(Painter {
            stepper: Stepper::new(engine, feed, batch, config, data.identity),
            reader,
            painting: Painting::new(&config.flow, encoder, transforms, compute),
            validation,
            flow: config.flow.clone(),
            prompts,
            facts,
            seed,
        })
    }

    /// Adds to `evaluated` how many scenes with one and with two objects are painted as they should
    /// be. False once `stop` is set.
    fn check_scenes(&self, evaluated: &mut Evaluated, stop: &AtomicBool) -> Result<bool> {
        let model = self.stepper.engine.best_model()?;
        let count = self.flow.eval_prompts;
        let Some(all) = self.painting.held_out(model, count, self.seed, stop)? else {
            return Ok(false);
        };
        for (checked, name) in all.iter().zip(["accepted_one", "accepted_two"]) {
            evaluated.scores.insert(name, checked.share());
            let lines = checked.refused.iter().take(2);
            evaluated.report.extend(lines.map(|(prompt, what)| format!("{prompt}: {what}")));
        }
        evaluated.files.push(("held_out.png", Checked::sheet(&all)?.to_png()?));
        Ok(true)
    }
}

/// Compiles the training step with AdamW for `batch` pictures.
pub(super) fn step_plan(model: &FlowModel, batch: usize) -> Result<StepPlan> {
    let (config, section) = (&model.config, FlowSection::default());
    let engine = Engine::new(model.clone(), loss(&section, 0), STEP, &Config::default())?;
    let size = config.image_size;
    let images = Tensor::zeros([batch, config.channels, size, size], DType::F32);
    let text = Tensor::zeros([batch, config.text_length], DType::I64);
    let arrays = [(IMAGES.to_owned(), images), (CAPTIONS.to_owned(), text)];
    StepPlan::new(&engine, arrays.into())
}

/// Whether the configuration is for a text-to-image model: the kind of its model, or that of the
/// model it starts from.
///
/// # Errors
/// If the model to start from cannot be read.
pub(super) fn is_meant(config: &Config) -> Result<bool> {
    match (&config.train.init, &config.model) {
        (Some(path), _) => Ok(FlowDirectory::open(folder::model_directory(path)?)?.is_some()),
        (None, Some(model)) => Ok(model.kind.paints()),
        (None, None) => Ok(false),
    }
}

impl Task for Painter {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn plan(&self) -> Result<StepPlan> {
        // One batch is read, so that damage shows at once.
        let batch = self.stepper.feed.source.batch(0)?;
        StepPlan::new(&self.stepper.engine, engine::arrays(&batch, STEP)?)?.checked()
    }
}

impl Learner for Painter {
    fn step(&mut self, step: u64) -> Result<Progress> {
        self.stepper.step(step)
    }

    fn evaluate(&mut self, _: u64, stop: &AtomicBool) -> Result<Option<Evaluated>> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let Some(loss) = validation.loss(self.stepper.engine.best_model()?, stop)? else {
            return Ok(None);
        };
        let mut evaluated = Evaluated { loss, ..Evaluated::default() };
        if self.reader.damaged() > 0 {
            evaluated.scores.insert("damaged", self.reader.damaged() as f64);
        }
        if self.flow.eval_prompts > 0 && !self.check_scenes(&mut evaluated, stop)? {
            return Ok(None);
        }
        Ok(Some(evaluated))
    }

    fn sample(&mut self, _: u64) -> Result<Option<Sample>> {
        let never = AtomicBool::new(false);
        let model = self.stepper.engine.best_model()?;
        // The same noise every time: what changes is what has been learned.
        let pictures = self.painting.paint(model, &self.prompts, self.seed, &never)?;
        let grid = Picture::grid(&pictures.unwrap_or_default(), GRID.1)?;
        Ok(Some(Sample::Picture(grid)))
    }

    fn save(&self, to: &mut Snapshot) -> Result<Value> {
        to.bytes(CONFIG_FILE, self.stepper.engine.model()?.config.to_json().as_bytes());
        let transforms = preprocessing::to_json(self.painting.transforms());
        to.bytes(PREPROCESSING, transforms.as_bytes());
        let (name, text) = self.painting.encoder().tokenizer().file()?;
        to.bytes(name, text.as_bytes());
        self.stepper.save(to)
    }

    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()> {
        self.stepper.restore(checkpoint, state, ["the images are not the ones", "the same images"])
    }

    fn export(&self, path: &Path) -> Result<()> {
        self.stepper.engine.best_model()?.save(path)?;
        self.painting.encoder().tokenizer().save(path)?;
        let text = preprocessing::to_json(self.painting.transforms());
        Ok(atomic::write_bytes(&path.join(PREPROCESSING), text.as_bytes())?)
    }

    fn explain_not_finite(&mut self, step: u64) -> Option<String> {
        Some(self.stepper.explained(step))
    }

    fn news(&mut self) -> Vec<String> {
        self.reader.news()
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    fn device(&self) -> String {
        self.facts.device.clone()
    }

    fn checkpoint_bytes(&self) -> u64 {
        self.stepper.checkpoint_bytes()
    }
}
