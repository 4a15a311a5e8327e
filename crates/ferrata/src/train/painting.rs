//! Pictures from captions, with a model that is being trained or has been.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrata_ir::DType;

use super::config::FlowSection;
use super::engine::{Program, program, with_compute};
use super::{Error, Result};
use crate::data::Tokenizer;
use crate::data::images::{CaptionEncoder, Picture, Transforms};
use crate::data::scenes::{Scene, Scenes, look};
use crate::flow::{Sampler, guided};
use crate::models::FlowModel;
use crate::nn::Context;
use crate::{Key, Tensor};

/// Pictures of a sheet of samples of one kind, and how many are side by side.
pub(super) const GRID: (usize, usize) = (32, 8);
/// Pictures that are painted at a time.
const AT_A_TIME: usize = 32;

/// Model, point, time and captions, once as they are and once left out, to the velocity.
type Velocity = Program<(FlowModel, [Tensor; 4]), Tensor>;

/// How pictures are painted.
pub(super) struct Painting {
    velocity: Velocity,
    sampler: Sampler,
    encoder: CaptionEncoder,
    transforms: Transforms,
}

impl Painting {
    /// Paints as `section` says, with this compute dtype.
    pub fn new(
        section: &FlowSection,
        encoder: CaptionEncoder,
        transforms: Transforms,
        compute: Option<DType>,
    ) -> Painting {
        let scale = section.guidance;
        let velocity = program(move |(model, [x, t, text, none]): (FlowModel, [Tensor; 4])| {
            let mut cx = with_compute(Context::eval(), compute);
            // Without guidance one velocity is enough.
            if scale == 1.0 {
                return model.forward(&x, &t, &text, &mut cx).cast(DType::F32);
            }
            let twice = |a: &Tensor, b: &Tensor| Tensor::concat(&[a, b], 0);
            let both = model.forward(&twice(&x, &x), &twice(&t, &t), &twice(&text, &none), &mut cx);
            let parts = both.cast(DType::F32).chunk(2, 0);
            guided(&parts[0], &parts[1], scale)
        });
        Painting { velocity, sampler: section.sampler(), encoder, transforms }
    }

    /// What turns captions into tokens.
    pub fn encoder(&self) -> &CaptionEncoder {
        &self.encoder
    }

    /// What is done to pictures before the model sees them.
    pub fn transforms(&self) -> &Transforms {
        &self.transforms
    }

    /// A picture for each prompt; the noise of picture `i` depends on `seed` and `i` alone. `None`
    /// once `stop` is set.
    ///
    /// # Errors
    /// What the tokenizer or the program reports.
    pub fn paint(
        &self,
        model: &FlowModel,
        prompts: &[String],
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Picture>>> {
        let size = self.transforms.size;
        let shape = [model.config.channels, size, size];
        let key = Key::new(seed);
        let mut pictures = Vec::with_capacity(prompts.len());
        // The last ones are not fewer, so that one program is enough.
        let count = AT_A_TIME.min(prompts.len());
        for first in (0..prompts.len()).step_by(count.max(1)) {
            let all = (first..first + count).map(|i| i.min(prompts.len() - 1));
            let mut ids = Vec::new();
            for i in all.clone() {
                ids.extend(self.encoder.encode(&prompts[i])?);
            }
            let text = Tensor::from_slice(&ids, &[count, self.encoder.length()]);
            let none = text.full_like(self.encoder.pad());
            let noise: Vec<Tensor> =
                all.map(|i| Tensor::randn(shape, DType::F32, &key.fold(i as u32))).collect();
            let noise = Tensor::stack(&noise.iter().collect::<Vec<_>>(), 0);
            let mut stopped = false;
            let painted = self.sampler.sample(&noise, |x, t| {
                if stop.load(Ordering::Relaxed) {
                    stopped = true;
                    return Ok(x.zeros_like());
                }
                let inputs = [x.clone(), t.clone(), text.clone(), none.clone()];
                self.velocity.call((model.clone(), inputs))
            })?;
            if stopped {
                return Ok(None);
            }
            let values = painted.to_vec::<f32>()?;
            let rows = values.chunks_exact(shape.iter().product::<usize>().max(1));
            let rows = rows.take(prompts.len() - first);
            pictures.extend(rows.map(|values| self.transforms.restored(values)));
        }
        Ok(Some(pictures))
    }

    /// Paints `count` scenes with one object and `count` with two from their captions, all with
    /// pairs of words that no scene for training has, and checks what they show; `None` once
    /// `stop` is set.
    ///
    /// # Errors
    /// What the tokenizer or the program reports.
    pub fn held_out(
        &self,
        model: &FlowModel,
        count: usize,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<[Checked; 2]>> {
        let of_objects = |objects| {
            let scenes: Vec<Scene> = Scenes::new(seed).of_objects(objects).take(count).collect();
            self.checked(model, &scenes, seed, stop)
        };
        let Some(one) = of_objects(1)? else { return Ok(None) };
        Ok(of_objects(2)?.map(|two| [one, two]))
    }

    fn checked(
        &self,
        model: &FlowModel,
        scenes: &[Scene],
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Checked>> {
        let prompts: Vec<String> = scenes.iter().map(|scene| scene.caption(0)).collect();
        let Some(pictures) = self.paint(model, &prompts, seed, stop)? else { return Ok(None) };
        let verdicts = scenes.iter().zip(&pictures).zip(prompts);
        let refused: Vec<(String, String)> = verdicts
            .filter_map(|((scene, picture), prompt)| {
                let mismatch = scene.description.check(&look(picture)).err()?;
                Some((prompt, mismatch.to_string()))
            })
            .collect();
        Ok(Some(Checked { painted: pictures, refused }))
    }
}

/// Painted scenes, and what the checker says.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The pictures.
    pub painted: Vec<Picture>,
    /// Prompts whose pictures do not show what they say, and what differs.
    pub refused: Vec<(String, String)>,
}

impl Checked {
    /// The share of pictures that show what was asked for.
    pub fn share(&self) -> f64 {
        1.0 - self.refused.len() as f64 / self.painted.len().max(1) as f64
    }

    /// The first pictures of each, side by side.
    ///
    /// # Errors
    /// If there are none.
    pub fn sheet(all: &[Checked]) -> Result<Picture> {
        let (count, columns) = GRID;
        let first = all.iter().flat_map(|checked| checked.painted.iter().take(count));
        Ok(Picture::grid(&first.cloned().collect::<Vec<_>>(), columns)?)
    }
}

/// What turns captions into the tokens of a model, with the tokenizer in its directory.
pub(super) fn own_encoder(model: &FlowModel, directory: &Path) -> Result<CaptionEncoder> {
    let tokenizer = Arc::new(Tokenizer::load(directory)?);
    let encoder = CaptionEncoder::new(tokenizer, model.config.text_length);
    let (has, knows) = (encoder.vocab_size(), model.config.vocab_size);
    match has <= knows {
        true => Ok(encoder),
        false => Err(Error::new(
            format!("the tokenizer has {has} tokens and the model knows {knows}"),
            "copy the tokenizer that belongs to the model",
        )),
    }
}

/// Checks that a model paints pictures of this size.
pub(super) fn check_size(model: &FlowModel, size: usize) -> Result<()> {
    let wanted = model.config.image_size;
    match wanted == size {
        true => Ok(()),
        false => Err(Error::new(
            format!("the model paints pictures of {wanted} pixels and the data has {size}"),
            format!("set data.size={wanted}"),
        )),
    }
}
