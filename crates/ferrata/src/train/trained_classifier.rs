//! A trained image classifier, opened for use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata_formats::huggingface::ImageDirectory;

use super::classifier::{self, Validation, open_images, threads};
use super::config::{Config, ImageSection, Source};
use super::folder::{self, CONFIG};
use super::scores::Scores;
use super::{Error, Result, StepPlan, preprocessing};
use crate::data::images::{ImagesInOrder, Picture, Reader, Transforms};
use crate::models::ImageModel;
use crate::nn::Context;
use crate::{DType, Tensor};

/// An image classifier with what is done to pictures, from a model directory, a checkpoint or the
/// folder of a run.
pub struct TrainedClassifier {
    /// The model.
    pub model: ImageModel,
    /// What is done to a picture before the model sees it.
    pub transforms: Transforms,
    /// The directory that it was read from.
    pub directory: PathBuf,
}

/// A class and its probability.
pub type Guess = (String, f64);

impl TrainedClassifier {
    /// Opens what `path` means: see [`super::model_directory`]. `None` if that is another kind of
    /// model.
    ///
    /// # Errors
    /// If there is no model, or it is damaged; names the file or tensor.
    pub fn open(path: &Path) -> Result<Option<TrainedClassifier>> {
        let directory = folder::model_directory(path)?;
        let Some(opened) = ImageDirectory::open(&directory)? else { return Ok(None) };
        let transforms = preprocessing::read(&directory)?;
        let model = ImageModel::from_directory(&opened)?;
        Ok(Some(TrainedClassifier { model, transforms, directory }))
    }

    /// The likeliest classes of the picture in a file, at most `top` of them, the likeliest first.
    ///
    /// # Errors
    /// If the file is no picture, or what the model reports.
    pub fn classify(&self, file: &Path, top: usize) -> Result<Vec<Guess>> {
        let wrong = |what: &str| {
            Error::new(
                format!("`{}`: {what}", file.display()),
                "give a PNG, JPEG, GIF, BMP or WebP",
            )
        };
        let bytes = fs::read(file).map_err(|error| wrong(&error.to_string()))?;
        let picture = Picture::decode(&bytes, ImageSection::default().max_pixels);
        let picture = self.transforms.centred(&picture.map_err(|what| wrong(&what))?);
        let size = self.transforms.size;
        let image = Tensor::from_slice(&self.transforms.normalised(&picture), &[1, 3, size, size]);
        let logits = self.model.forward(&image, &mut Context::eval()).cast(DType::F32);
        let shares = logits.softmax(-1).to_vec::<f32>()?;
        let mut guesses: Vec<Guess> = shares
            .iter()
            .enumerate()
            .map(|(class, share)| (self.model.config.label(class), f64::from(*share)))
            .collect();
        guesses.sort_by(|a, b| b.1.total_cmp(&a.1));
        guesses.truncate(top);
        Ok(guesses)
    }

    /// How good the model is on `images` (all of them, unless they have a validation part), or, if
    /// none are given, on the validation part of the run that made the model; `None` once `stop`
    /// is set.
    ///
    /// # Errors
    /// If the images cannot be read or have other classes, or there are none.
    pub fn evaluate(
        &self,
        images: Option<&Path>,
        batch: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Scores>> {
        let (section, seed) = self.section(images)?;
        let data = open_images(&section, seed)?;
        let (labels, classes) = (&self.model.config.labels, &data.train.classes);
        let known = !labels.is_empty();
        if (known && **labels != **classes) || classes.len() != self.model.classes() {
            return Err(Error::new(
                format!(
                    "the images have other classes ({}) than the model ({})",
                    classes.len(),
                    self.model.classes()
                ),
                "give images in folders with the names of the model's classes",
            ));
        }
        let set = match (data.validation, images) {
            (Some(validation), _) => validation,
            (None, Some(_)) => data.train,
            (None, None) => {
                return Err(Error::new("the run has no validation part", "pass --images DIR"));
            }
        };
        let reader = Arc::new(Reader::new(section.on_damaged, section.max_pixels));
        let images = ImagesInOrder::new(set, reader, self.transforms.clone(), batch)?;
        Validation::new(images, None, threads(&section)).scores(&self.model, stop)
    }

    /// Compiles the forward pass, or the training step with AdamW, for `batch` images.
    ///
    /// # Errors
    /// Impossible sizes, and whatever else keeps it from being compiled.
    pub fn inspect(&self, training: bool, batch: usize) -> Result<StepPlan> {
        if batch == 0 {
            return Err(Error::new("0 images are no batch", "give at least 1"));
        }
        if training {
            return classifier::step_plan(&self.model, batch, self.transforms.size);
        }
        let size = self.transforms.size;
        let images = Tensor::zeros([batch, 3, size, size], DType::F32);
        StepPlan::forward(&self.model, images, |model: &ImageModel, images| {
            model.forward(&images, &mut Context::eval())
        })
    }

    /// Which images to evaluate on, and the seed of their split.
    fn section(&self, images: Option<&Path>) -> Result<(ImageSection, u64)> {
        if let Some(path) = images {
            let images = Some(path.to_path_buf());
            return Ok((ImageSection { images, validation: 0.0, ..ImageSection::default() }, 0));
        }
        let run = self.directory.ancestors().take(2).map(|folder| folder.join(CONFIG));
        let Some(file) = run.into_iter().find(|file| file.is_file()) else {
            return Err(Error::new(
                format!("no images are given and `{}` is no run", self.directory.display()),
                "pass --images DIR",
            ));
        };
        let config = Config::load(Source::File(&file), &[])?;
        Ok((config.data.images()?.clone(), config.train.seed))
    }
}
