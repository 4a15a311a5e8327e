//! A trained text-to-image model, opened for use.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ferrata_formats::huggingface::FlowDirectory;

use super::config::FlowSection;
use super::painting::{Checked, Painting, check_size, own_encoder};
use super::{Error, Result, StepPlan, folder, painter, preprocessing};
use crate::data::images::{CaptionEncoder, Picture, Transforms};
use crate::models::FlowModel;
use crate::nn::Context;
use crate::{DType, Tensor};

/// A text-to-image model with its tokenizer, from a model directory, a checkpoint or the folder of
/// a run.
pub struct TrainedPainter {
    /// The model.
    pub model: FlowModel,
    /// The directory that it was read from.
    pub directory: PathBuf,
    encoder: CaptionEncoder,
    transforms: Transforms,
}

impl TrainedPainter {
    /// Opens what `path` means: see [`super::model_directory`]. `None` if that is another kind of
    /// model.
    ///
    /// # Errors
    /// If there is no model, or it is damaged; names the file or tensor.
    pub fn open(path: &Path) -> Result<Option<TrainedPainter>> {
        let directory = folder::model_directory(path)?;
        let Some(opened) = FlowDirectory::open(&directory)? else { return Ok(None) };
        let model = FlowModel::from_directory(&opened)?;
        let encoder = own_encoder(&model, &directory)?;
        let transforms = preprocessing::read(&directory)?;
        check_size(&model, transforms.size)?;
        Ok(Some(TrainedPainter { model, directory, encoder, transforms }))
    }

    fn painting(&self, section: &FlowSection) -> Painting {
        Painting::new(section, self.encoder.clone(), self.transforms.clone(), None)
    }

    /// A picture for each prompt, painted as `section` says; the noise of picture `i` depends on
    /// `seed` and `i` alone. `None` once `stop` is set.
    ///
    /// # Errors
    /// What the tokenizer or the program reports.
    pub fn paint(
        &self,
        prompts: &[String],
        section: &FlowSection,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Picture>>> {
        self.painting(section).paint(&self.model, prompts, seed, stop)
    }

    /// Paints `count` scenes with one object and `count` with two from their captions, all with
    /// pairs of words that no scene for training has, and checks what they show; `None` once
    /// `stop` is set.
    ///
    /// # Errors
    /// No scenes; what the tokenizer or the program reports.
    pub fn held_out(
        &self,
        count: usize,
        section: &FlowSection,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<[Checked; 2]>> {
        if count == 0 {
            return Err(Error::new("0 scenes say nothing about a model", "give at least 1"));
        }
        self.painting(section).held_out(&self.model, count, seed, stop)
    }

    /// Compiles one velocity, or the training step with AdamW, for `batch` pictures.
    ///
    /// # Errors
    /// Impossible sizes, and whatever else keeps it from being compiled.
    pub fn inspect(&self, training: bool, batch: usize) -> Result<StepPlan> {
        if batch == 0 {
            return Err(Error::new("0 pictures are no batch", "give at least 1"));
        }
        if training {
            return painter::step_plan(&self.model, batch);
        }
        let config = &self.model.config;
        let size = config.image_size;
        let x = Tensor::zeros([batch, config.channels, size, size], DType::F32);
        let t = Tensor::zeros([batch], DType::F32);
        let text = Tensor::zeros([batch, config.text_length], DType::I64);
        StepPlan::forward(&self.model, [x, t, text], |model: &FlowModel, [x, t, text]| {
            model.forward(&x, &t, &text, &mut Context::eval())
        })
    }
}
