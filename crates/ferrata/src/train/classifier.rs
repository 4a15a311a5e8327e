//! Image classifiers as learners: images, the model, its engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata_formats::atomic;
use ferrata_formats::checkpoint::Checkpoint;
use ferrata_formats::huggingface::{DirectoryConfig, ImageConfig, ImageDirectory};
use ferrata_ir::DType;
use serde_json::Value;

use super::config::ImageSection;
use super::engine::{
    self, Arrays, CONFIG_FILE, Engine, Loss, Program, WEIGHTS, program, with_compute,
};
use super::feed::{Feed, each_batch, nothing_readable};
use super::learner::{self, DataFacts, Evaluated, Facts, Sample, StepPlan, Task};
use super::preprocessing::{self, PREPROCESSING};
use super::scores::Scores;
use super::stepper::Stepper;
use super::{Config, Error, Learner, Progress, Result, Snapshot, folder};
use crate::data::BatchSource;
use crate::data::images::{
    IMAGES, ImageBatches, ImageData, ImageReplay, ImageSplit, ImagesInOrder, LABELS, Picture,
    Reader, Transforms, WEIGHTS as ROW_WEIGHTS,
};
use crate::models::ImageModel;
use crate::nn::Context;
use crate::{Classes, Key, Module, Reduction, Tensor, tree};

/// An image classifier that learns from images in classes.
pub struct Classifier {
    stepper: Stepper<ImageModel>,
    /// How pictures are read and changed; recorded batches are taken as they are.
    pictures: Option<(Arc<Reader>, Transforms)>,
    validation: Option<Validation>,
    facts: Facts,
    batch: usize,
}

/// The arrays that a step takes.
const STEP: &[&str] = &[IMAGES, LABELS];

/// Pictures of a grid of samples, and how many are side by side.
const GRID: (usize, usize) = (64, 8);

/// The mean cross-entropy of classes, or shares of classes.
fn loss(label_smoothing: f64) -> Loss<ImageModel> {
    Box::new(move |model: &ImageModel, batch: &Arrays, cx: &mut Context| {
        let logits = model.forward(&batch[IMAGES], cx).cast(DType::F32);
        let smoothed = Classes { label_smoothing, ..Classes::default() };
        logits.cross_entropy_with(&batch[LABELS], &smoothed)
    })
}

/// Model and batch to the scores of classes, `[batch, classes]`, and the losses, `[batch]`.
type Evaluate = Program<(ImageModel, Arrays), (Tensor, Tensor)>;

/// A validation part, and the program that looks at its batches.
pub(super) struct Validation {
    images: Arc<ImagesInOrder>,
    program: Evaluate,
    threads: usize,
}

impl Validation {
    /// Evaluates with this compute dtype.
    pub fn new(images: ImagesInOrder, compute: Option<DType>, threads: usize) -> Validation {
        let program = program(move |(model, batch): (ImageModel, Arrays)| {
            let mut cx = with_compute(Context::eval(), compute);
            let logits = model.forward(&batch[IMAGES], &mut cx).cast(DType::F32);
            let each = Classes { reduction: Reduction::None, ..Classes::default() };
            let losses = logits.cross_entropy_with(&batch[LABELS], &each);
            (logits, losses)
        });
        Validation { images: Arc::new(images), program, threads }
    }

    /// How good the model is; `None` once `stop` is set.
    pub fn scores(&self, model: &ImageModel, stop: &AtomicBool) -> Result<Option<Scores>> {
        let mut scores = Scores::new(self.images.classes());
        let all = each_batch(self.images.clone(), self.threads, stop, |_, batch| {
            let arrays = engine::arrays(batch, STEP)?;
            let (logits, losses) = self.program.call((model.clone(), arrays))?;
            let (logits, losses) = (logits.to_vec::<f32>()?, losses.to_vec::<f32>()?);
            let weights = batch.get(ROW_WEIGHTS)?.as_f32().unwrap_or_default();
            let labels = batch.integers(LABELS)?;
            let rows = logits.chunks_exact(scores.classes.len().max(1));
            for (((row, label), loss), weight) in rows.zip(labels).zip(losses).zip(weights) {
                if *weight > 0.0 {
                    scores.add(row, usize::try_from(*label).unwrap_or_default(), f64::from(loss));
                }
            }
            Ok(())
        })?;
        match scores.count {
            _ if !all => Ok(None),
            0 => Err(nothing_readable()),
            _ => Ok(Some(scores)),
        }
    }
}

/// Threads that read pictures.
pub(super) fn threads(section: &ImageSection) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if section.workers > 0 { section.workers } else { (cores() / 2).max(1) }
}

/// Opens the images of a section, which must have classes.
pub(super) fn open_images(section: &ImageSection, seed: u64) -> Result<ImageData> {
    section.check()?;
    let Some(path) = section.images.as_deref() else {
        let cause = "scenes have captions and no classes";
        return Err(Error::new(cause, "make a folder with `ferrata data scenes --classes`"));
    };
    let data = ImageData::open(path, ImageSplit { validation: section.validation, seed })?;
    match data.train.classes.is_empty() {
        false => Ok(data),
        true => Err(Error::new(
            format!("the images in `{}` have captions and no classes", path.display()),
            "give a folder with a folder of pictures for each class",
        )),
    }
}

impl Classifier {
    /// Opens the images of the configuration and makes the model: with random weights, or from the
    /// directory `train.init`.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the images or the model, or does not fit
    /// together.
    pub fn from_images(config: &Config) -> Result<Classifier> {
        config.check()?;
        let section = config.data.images()?;
        let (batch, seed) = (config.train.batch, config.train.seed);
        let data = open_images(section, seed)?;
        let classes = data.train.classes.to_vec();
        let (model, note) = initial(config, &classes, section.size)?;
        let transforms = section.transforms()?;
        let reader = Arc::new(Reader::new(section.on_damaged, section.max_pixels));
        let facts = Facts {
            model: model.config.kind().to_owned(),
            parameters: model.parameter_count(),
            data: DataFacts::Images {
                classes: classes.len(),
                size: section.size,
                images_per_step: batch * config.train.accumulate,
                training: data.train.len(),
                validation: data.validation.as_ref().map_or(0, |set| set.len()),
            },
            device: learner::device(),
            notes: data.notes.into_iter().chain(note).collect(),
        };
        let source =
            ImageBatches::new(data.train, reader.clone(), transforms.clone(), batch, seed)?;
        let source = Arc::new(source.with_mixup(section.mixup));
        let compute = config.train.dtype.dtype();
        let threads = threads(section);
        let validation = data.validation.map(|set| {
            let images = ImagesInOrder::new(set, reader.clone(), transforms.clone(), batch)?;
            Ok::<_, Error>(Validation::new(images, compute, threads))
        });
        let engine = Engine::new(model, loss(config.train.label_smoothing), STEP, config)?;
        let feed = Feed::new(source, config.train.accumulate, threads);
        Ok(Classifier {
            stepper: Stepper::new(engine, feed, batch, config, data.identity),
            pictures: Some((reader, transforms)),
            validation: validation.transpose()?,
            facts,
            batch,
        })
    }

    /// Takes the batches of `file` in order, one per step, and the model `directory`. Sets
    /// `train.steps` and turns off evaluation, samples and accumulation.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, the file or the model, or does not fit together.
    pub fn replay(
        config: &mut Config,
        directory: &ImageDirectory,
        file: &Path,
    ) -> Result<Classifier> {
        let model = ImageModel::from_directory(directory)?;
        let recorded = ImageReplay::open(file, model.classes())?;
        let [batch, _, size, _] = recorded.batch_shape();
        config.replays(recorded.steps().unwrap_or_default(), batch)?;
        let facts = Facts {
            model: model.config.kind().to_owned(),
            parameters: model.parameter_count(),
            data: DataFacts::Images {
                classes: model.classes(),
                size,
                images_per_step: batch,
                training: 0,
                validation: 0,
            },
            device: learner::device(),
            notes: Vec::new(),
        };
        let engine = Engine::new(model, loss(config.train.label_smoothing), STEP, config)?;
        let feed = Feed::new(Arc::new(recorded), 1, 1);
        Ok(Classifier {
            stepper: Stepper::new(engine, feed, batch, config, String::new()),
            pictures: None,
            validation: None,
            facts,
            batch,
        })
    }

    fn config(&self) -> Result<&ImageConfig> {
        Ok(&self.stepper.engine.model()?.config)
    }
}

/// The model to begin with, and what there is to say about it.
fn initial(
    config: &Config,
    classes: &[String],
    size: usize,
) -> Result<(ImageModel, Option<String>)> {
    let key = Key::new(config.train.seed).fold(WEIGHTS);
    match (&config.train.init, &config.model) {
        (Some(path), _) => {
            let model = ImageModel::load(folder::model_directory(path)?)?;
            adapted(&model, classes, &key)
        }
        (None, Some(section)) => {
            Ok((ImageModel::new(&section.to_image_config(classes, size)?, &key)?, None))
        }
        (None, None) => {
            Err(Error::new("no model is given", "add a [model] section or pass --init MODEL_DIR"))
        }
    }
}

/// The model for these classes: parameters whose sizes depend on the classes start anew.
fn adapted(
    model: &ImageModel,
    classes: &[String],
    key: &Key,
) -> Result<(ImageModel, Option<String>)> {
    let labels = classes.to_vec();
    let config = ImageConfig { classes: classes.len(), labels, ..model.config.clone() };
    let known: BTreeMap<String, Tensor> = model.named_parameters().into_iter().collect();
    let mut anew = Vec::new();
    let adapted = tree::map_named(&ImageModel::new(&config, key)?, |name, fresh| {
        match known.get(name).filter(|old| old.shape() == fresh.shape()) {
            Some(old) => old.clone(),
            None => {
                anew.push(name.to_owned());
                fresh.clone()
            }
        }
    });
    let note = (!anew.is_empty()).then(|| {
        let (names, before, now) = (anew.join(", "), model.classes(), classes.len());
        format!("{names} start anew, for {now} classes instead of {before}")
    });
    Ok((adapted, note))
}

/// Compiles the training step with AdamW for `batch` images of `size` x `size` pixels.
pub(super) fn step_plan(model: &ImageModel, batch: usize, size: usize) -> Result<StepPlan> {
    let engine = Engine::new(model.clone(), loss(0.0), STEP, &Config::default())?;
    let images = Tensor::zeros([batch, 3, size, size], DType::F32);
    let labels = Tensor::zeros([batch], DType::I64);
    let arrays = [(IMAGES.to_owned(), images), (LABELS.to_owned(), labels)];
    StepPlan::new(&engine, arrays.into())
}

impl Task for Classifier {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn plan(&self) -> Result<StepPlan> {
        // One batch is read: how labels look depends on mixup, and damage shows at once.
        let batch = self.stepper.feed.source.batch(0)?;
        StepPlan::new(&self.stepper.engine, engine::arrays(&batch, STEP)?)?.checked()
    }
}

impl Learner for Classifier {
    fn step(&mut self, step: u64) -> Result<Progress> {
        self.stepper.step(step)
    }

    fn evaluate(&mut self, _: u64, stop: &AtomicBool) -> Result<Option<Evaluated>> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let scores = validation.scores(self.stepper.engine.best_model()?, stop)?;
        Ok(scores.map(|scores| {
            let mut evaluated = scores.evaluated();
            if let Some((reader, _)) = &self.pictures {
                evaluated.scores.insert("damaged", reader.damaged() as f64);
            }
            evaluated
        }))
    }

    fn sample(&mut self, step: u64) -> Result<Option<Sample>> {
        let Some((_, transforms)) = &self.pictures else { return Ok(None) };
        let batch = self.stepper.feed.source.batch(step)?;
        let values = batch.get(IMAGES)?.as_f32().unwrap_or_default();
        let rows = values.chunks_exact((values.len() / self.batch).max(1));
        let (count, columns) = GRID;
        let pictures: Vec<Picture> =
            rows.take(count).map(|values| transforms.restored(values)).collect();
        Ok(Some(Sample::Picture(Picture::grid(&pictures, columns)?)))
    }

    fn save(&self, to: &mut Snapshot) -> Result<Value> {
        to.bytes(CONFIG_FILE, self.config()?.to_json().as_bytes());
        if let Some((_, transforms)) = &self.pictures {
            to.bytes(PREPROCESSING, preprocessing::to_json(transforms).as_bytes());
        }
        self.stepper.save(to)
    }

    fn restore(&mut self, checkpoint: &Checkpoint, state: &Value) -> Result<()> {
        self.stepper.restore(checkpoint, state, ["the images are not the ones", "the same images"])
    }

    fn export(&self, path: &Path) -> Result<()> {
        self.stepper.engine.best_model()?.save(path)?;
        let Some((_, transforms)) = &self.pictures else { return Ok(()) };
        let text = preprocessing::to_json(transforms);
        Ok(atomic::write_bytes(&path.join(PREPROCESSING), text.as_bytes())?)
    }

    fn explain_not_finite(&mut self, step: u64) -> Option<String> {
        Some(self.stepper.explained(step))
    }

    fn news(&mut self) -> Vec<String> {
        self.pictures.as_ref().map(|(reader, _)| reader.news()).unwrap_or_default()
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
