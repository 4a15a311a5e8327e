//! Pictures from captions, with a model that is being trained or has been.

use std::sync::atomic::{AtomicBool, Ordering};

use ferrata_ir::DType;

use super::config::FlowSection;
use super::engine::{Program, program, with_compute};
use super::{Error, Result};
use crate::data::images::{CaptionEncoder, Picture, Transforms};
use crate::data::scenes::{Scene, look};
use crate::flow::{Sampler, guided};
use crate::models::FlowModel;
use crate::nn::Context;
use crate::{Key, Tensor};

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

    /// How many of these scenes are painted from their captions so that the checker finds what is
    /// said; `None` once `stop` is set.
    ///
    /// # Errors
    /// What the tokenizer or the program reports.
    pub fn accepted(
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
