//! A trained text-to-image model, opened for use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ferrata_formats::huggingface::FlowDirectory;

use super::config::FlowSection;
use super::painting::{Checked, Painting, check_size};
use super::{Error, Result, StepPlan, engine, folder, painter, preprocessing};
use crate::data::Tokenizer;
use crate::data::images::{CaptionEncoder, Picture, Transforms};
use crate::data::scenes::Scene;
use crate::inspect::Inspection;
use crate::models::FlowModel;
use crate::nn::Context;
use crate::{DType, Device, Tensor, compile};

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
        let tokenizer = Arc::new(Tokenizer::load(&directory)?);
        let encoder = CaptionEncoder::new(tokenizer, model.config.text_length);
        if encoder.vocab_size() > model.config.vocab_size {
            let (has, knows) = (encoder.vocab_size(), model.config.vocab_size);
            return Err(Error::new(
                format!("the tokenizer has {has} tokens and the model knows {knows}"),
                "copy the tokenizer that belongs to the model",
            ));
        }
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

    /// Paints these scenes from their captions and checks what they show; `None` once `stop` is
    /// set.
    ///
    /// # Errors
    /// What the tokenizer or the program reports.
    pub fn check(
        &self,
        scenes: &[Scene],
        section: &FlowSection,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Checked>> {
        self.painting(section).accepted(&self.model, scenes, seed, stop)
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
        let start = Instant::now();
        let forward = compile(|(model, [x, t, text]): (FlowModel, [Tensor; 3])| {
            model.forward(&x, &t, &text, &mut Context::eval())
        });
        let config = &self.model.config;
        let size = config.image_size;
        let x = Tensor::zeros([batch, config.channels, size, size], DType::F32);
        let t = Tensor::zeros([batch], DType::F32);
        let text = Tensor::zeros([batch, config.text_length], DType::I64);
        let planned = forward.planned(&(self.model.clone(), [x, t, text]), false)?;
        let compile_time = start.elapsed();
        let inspection = Inspection::new(planned, &Device::default())?;
        Ok(StepPlan { inspection, compile_time, state_bytes: engine::bytes(&self.model) })
    }
}
