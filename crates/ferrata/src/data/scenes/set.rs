//! Scenes as images to learn from, without files.

use std::sync::Arc;

use super::write::CAPTIONS;
use super::{Scene, Scenes};
use crate::data::Result;
use crate::data::images::{Example, ImageData, ImageSet, Picture, Pictures, number};

/// Scenes for training and validation, painted when they are asked for.
struct Painted {
    scenes: Scenes,
    /// Scenes for training; those behind them are for validation.
    training: usize,
    validation: usize,
    side: usize,
}

impl Painted {
    fn scene(&self, index: usize) -> Scene {
        match index.checked_sub(self.training) {
            None => self.scenes.training(index as u64),
            Some(index) => self.scenes.validation(index as u64),
        }
    }
}

impl Pictures for Painted {
    fn len(&self) -> usize {
        self.training + self.validation
    }

    fn key(&self, index: usize) -> String {
        format!("{:?} {} {index}", self.scenes, self.side)
    }

    fn name(&self, index: usize) -> String {
        format!("scene {index}")
    }

    fn load(&self, index: usize, _: u64) -> std::result::Result<Picture, String> {
        Ok(self.scene(index).render(self.side))
    }
}

impl Scene {
    /// Its captions, without repetition.
    pub(super) fn captions(&self) -> Vec<String> {
        let mut captions: Vec<String> = (0..CAPTIONS).map(|i| self.caption(i)).collect();
        captions.dedup();
        captions
    }
}

impl Scenes {
    /// Scenes with held-out pairs that have so many objects, each of another kind.
    pub fn of_objects(&self, objects: usize) -> impl Iterator<Item = Scene> + use<> {
        let scenes = *self;
        let single = move |scene: &Scene| {
            let groups = &scene.description.groups;
            groups.len() == objects && groups.iter().all(|group| group.count == 1)
        };
        (0..).map(move |index| scenes.held_out(index)).filter(single)
    }

    /// The first `training` scenes for training and `validation` for validation as images of `side`
    /// pixels with captions. Nothing is kept but the captions.
    ///
    /// # Errors
    /// [`crate::data::Error::Dataset`] if there are too many scenes to count.
    pub fn images(&self, training: usize, validation: usize, side: usize) -> Result<ImageData> {
        let painted = Painted { scenes: *self, training, validation, side };
        let captions = (0..painted.len()).map(|index| painted.scene(index).captions()).collect();
        let examples = |range: std::ops::Range<usize>| -> Result<Arc<[Example]>> {
            range.map(|i| Ok(Example { picture: number(i)?, label: 0 })).collect()
        };
        let train = ImageSet {
            examples: examples(0..training)?,
            pictures: Arc::new(painted),
            classes: Arc::new([]),
            captions,
        };
        let all = training..training + validation;
        let validation = ImageSet { examples: examples(all)?, ..train.clone() };
        let validation = (!validation.is_empty()).then_some(validation);
        let identity = ImageData::identity_of(&train, validation.as_ref());
        Ok(ImageData { train, validation, notes: Vec::new(), identity })
    }
}
