//! `[data]`: what to learn from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::check::{LARGEST, in_range, size};
use super::load::TOKENIZERS;
use crate::data::images::{Crop, Jitter, OnDamaged, RandAugment, Transforms};
use crate::train::{Error, Result};

/// `[data]`: its `kind` says what else can be set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSection {
    /// `kind = "text"`, the default.
    Text(TextSection),
    /// `kind = "images"`.
    Images(ImageSection),
}

impl Default for DataSection {
    fn default() -> Self {
        DataSection::Text(TextSection::default())
    }
}

impl Serialize for DataSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        enum Tagged<'a> {
            Text(&'a TextSection),
            Images(&'a ImageSection),
        }
        match self {
            DataSection::Text(section) => Tagged::Text(section).serialize(serializer),
            DataSection::Images(section) => Tagged::Images(section).serialize(serializer),
        }
    }
}

/// `[data]` with `kind = "text"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextSection {
    /// Text files, and folders that are searched for text files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<PathBuf>,
    /// JSON-lines files, and folders of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jsonl: Vec<PathBuf>,
    /// The field of a JSON line that holds the text.
    pub field: String,
    /// Whether to learn from the Rust sources that cargo has put into its registry folder.
    pub cargo_sources: bool,
    /// Only files with these extensions are taken from folders; all text files if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// No more than this many bytes of text are taken; 0 means all.
    pub max_bytes: u64,
    /// `char`, `byte`, `bpe` (trained on the text) or the path of a `tokenizer.json`. By default
    /// that of the model to start from, if it has one, else `byte`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Number of tokens of a `bpe` tokenizer.
    pub vocab: usize,
    /// The part at the end of the text that is kept for validation.
    pub validation: f64,
}

impl Default for TextSection {
    fn default() -> Self {
        TextSection {
            text: Vec::new(),
            jsonl: Vec::new(),
            field: "text".to_owned(),
            cargo_sources: false,
            extensions: Vec::new(),
            max_bytes: 0,
            tokenizer: None,
            vocab: 4096,
            validation: 0.1,
        }
    }
}

/// Which part of a picture is taken in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropKind {
    /// All of it, stretched to the size.
    Stretch,
    /// The middle, after the shorter side has been scaled to the size.
    #[default]
    Center,
    /// A random place of the same, with `padding` black pixels around it.
    Random,
    /// A random part, of `scale` of the area and of a shape in `ratio`, scaled to the size.
    Resized,
}

/// `[data]` with `kind = "images"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSection {
    /// A folder with a folder of pictures for each class, perhaps in the parts `train` and `val`;
    /// or of the files of MNIST or CIFAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// In place of a folder so many captioned scenes of coloured shapes, made by us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenes: Option<usize>,
    /// Number of tokens of the tokenizer that is trained on captions.
    pub vocab: usize,
    /// The share of each class that is kept for validation, where the data has no part for it.
    pub validation: f64,
    /// Height and width of what the model sees, in pixels.
    pub size: usize,
    /// Which part of a picture is taken in training; in evaluation the middle, unless it is
    /// stretched.
    pub crop: CropKind,
    /// Black pixels on every side (`crop = "random"`; 4 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<usize>,
    /// The least and the greatest share of the area (`crop = "resized"`; 0.08 and 1 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Vec<f64>>,
    /// The least and the greatest width as a multiple of the height (`crop = "resized"`; 3/4 and
    /// 4/3 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Vec<f64>>,
    /// In evaluation, the share of the shorter side that is seen.
    pub eval_crop: f64,
    /// The probability that left and right are exchanged in training.
    pub flip: f64,
    /// Random changes of brightness, contrast, saturation and hue in training, such as
    /// `[0.4, 0.4, 0.4, 0.1]`; what is not given is 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jitter: Vec<f64>,
    /// RandAugment in training: the number of operations and their strength, up to 30, such as
    /// `[2, 9]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rand_augment: Vec<f64>,
    /// Mixup in training: both shapes of the beta distribution of the shares; 0 means none.
    pub mixup: f64,
    /// What is subtracted from red, green and blue, which go from 0 to 1.
    pub mean: Vec<f64>,
    /// What red, green and blue are divided by after that.
    pub std: Vec<f64>,
    /// What happens when a picture cannot be read.
    pub on_damaged: OnDamaged,
    /// Pictures with more pixels are not decoded.
    pub max_pixels: u64,
    /// Threads that read and change pictures; 0 means half as many as there are cores. The result
    /// does not depend on it.
    pub workers: usize,
}

impl Default for ImageSection {
    fn default() -> Self {
        ImageSection {
            images: None,
            scenes: None,
            vocab: 512,
            validation: 0.1,
            size: 32,
            crop: CropKind::default(),
            padding: None,
            scale: None,
            ratio: None,
            eval_crop: 1.0,
            flip: 0.5,
            jitter: Vec::new(),
            rand_augment: Vec::new(),
            mixup: 0.0,
            // Those of ImageNet.
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            on_damaged: OnDamaged::Stop,
            max_pixels: 100_000_000,
            workers: 0,
        }
    }
}

impl DataSection {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            DataSection::Text(section) => section.check(),
            DataSection::Images(section) => section.check(),
        }
    }

    /// The text to learn from.
    ///
    /// # Errors
    /// If it is images.
    pub fn text(&self) -> Result<&TextSection> {
        match self {
            DataSection::Text(section) => Ok(section),
            DataSection::Images(_) => Err(Error::new(
                "a language model learns from text and data.kind is \"images\"",
                "set data.kind to text, or model.kind to that of an image classifier",
            )),
        }
    }

    /// The images to learn from.
    ///
    /// # Errors
    /// If it is text.
    pub fn images(&self) -> Result<&ImageSection> {
        match self {
            DataSection::Images(section) => Ok(section),
            DataSection::Text(_) => Err(Error::new(
                "an image classifier learns from images and data.kind is \"text\"",
                "set data.kind to images and pass --images DIR",
            )),
        }
    }
}

impl TextSection {
    pub(in crate::train) fn check(&self) -> Result<()> {
        if self.text.is_empty() && self.jsonl.is_empty() && !self.cargo_sources {
            return Err(Error::new(
                "no data is given",
                "set data.text, data.jsonl or data.cargo_sources, or pass --text PATH",
            ));
        }
        self.text.iter().chain(&self.jsonl).try_for_each(|path| readable(path))?;
        in_range("data.validation", self.validation, 0.0, 1.0)?;
        let Some(tokenizer) = self.tokenizer.as_deref() else { return Ok(()) };
        if tokenizer == "bpe" && self.vocab < 257 {
            return Err(Error::new(
                format!("`data.vocab` is {}", self.vocab),
                "a bpe tokenizer needs more than its 256 bytes; set at least 257",
            ));
        }
        let file = Path::new(tokenizer);
        if !TOKENIZERS.contains(&tokenizer) && !file.exists() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::new(
                format!("`data.tokenizer` = `{name}` is neither a kind of tokenizer nor a file"),
                "choose char, byte, bpe or the path of a tokenizer.json",
            ));
        }
        Ok(())
    }
}

fn readable(path: &Path) -> Result<()> {
    path.metadata().map(drop).map_err(|error| {
        let cause = format!("cannot read the data `{}`: {error}", path.display());
        Error::new(cause, "check the path")
    })
}

/// Larger pictures do not fit into memory in batches.
const LARGEST_SIDE: usize = 1 << 14;

impl ImageSection {
    pub(in crate::train) fn check(&self) -> Result<()> {
        match (&self.images, self.scenes) {
            (Some(images), None) => readable(images)?,
            (None, Some(count)) => size("data.scenes", count, LARGEST)?,
            (None, None) => {
                let remedy = "set data.images or pass --images DIR";
                return Err(Error::new("no images are given", remedy));
            }
            (Some(_), Some(_)) => {
                let cause = "both data.images and data.scenes are given";
                return Err(Error::new(cause, "remove one of them"));
            }
        }
        size("data.vocab", self.vocab, LARGEST)?;
        size("data.size", self.size, LARGEST_SIDE)?;
        size("data.max_pixels", usize::try_from(self.max_pixels).unwrap_or(LARGEST), LARGEST)?;
        in_range("data.validation", self.validation, 0.0, 1.0)?;
        for (key, value) in [("data.flip", self.flip), ("data.eval_crop", self.eval_crop)] {
            in_range(key, value, 0.0, 1.0 + f64::EPSILON)?;
        }
        in_range("data.eval_crop", self.eval_crop, 1e-3, 2.0)?;
        in_range("data.mixup", self.mixup, 0.0, 1e3)?;
        self.check_crop()?;
        let [_, _, _, hue] = self.jitter_of()?;
        in_range("data.jitter (hue)", hue, 0.0, 0.5 + f64::EPSILON)?;
        self.jitter.iter().try_for_each(|x| in_range("data.jitter", *x, 0.0, 10.0))?;
        let [operations, magnitude] = exactly("data.rand_augment", &self.rand_augment, [0.0; 2])?;
        in_range("data.rand_augment (operations)", operations, 0.0, 100.0)?;
        let strongest = RandAugment::STRONGEST + f64::EPSILON;
        in_range("data.rand_augment (strength)", magnitude, 0.0, strongest * 1.001)?;
        let mean = exactly("data.mean", &self.mean, [0.0; 3])?;
        mean.iter().try_for_each(|x| in_range("data.mean", *x, -1e6, 1e6))?;
        let std = exactly("data.std", &self.std, [1.0; 3])?;
        std.iter().try_for_each(|x| in_range("data.std", *x, 1e-6, 1e6))
    }

    fn check_crop(&self) -> Result<()> {
        for (key, given, kind) in [
            ("padding", self.padding.is_some(), CropKind::Random),
            ("scale", self.scale.is_some(), CropKind::Resized),
            ("ratio", self.ratio.is_some(), CropKind::Resized),
        ] {
            if given && self.crop != kind {
                let name = format!("{kind:?}").to_lowercase();
                return Err(Error::new(
                    format!("`data.{key}` has a meaning for data.crop = \"{name}\" only"),
                    "remove it or choose that crop",
                ));
            }
        }
        if self.padding.is_some_and(|padding| padding > self.size) {
            return Err(Error::new(
                format!("`data.padding` is more than `data.size` = {}", self.size),
                "choose less",
            ));
        }
        let Crop::Resized { scale, ratio } = self.crop()? else { return Ok(()) };
        for (key, [low, high], most) in [("scale", scale, 1.0), ("ratio", ratio, 1e3)] {
            if !(low > 0.0 && low <= high && high <= most) {
                return Err(Error::new(
                    format!("`data.{key}` = [{low}, {high}] is no range"),
                    format!("give two numbers above 0 and up to {most}, the smaller one first"),
                ));
            }
        }
        Ok(())
    }

    fn crop(&self) -> Result<Crop> {
        let range = |key, given: &Option<Vec<f64>>, usual| match given {
            Some(given) => exactly(key, given, usual),
            None => Ok(usual),
        };
        Ok(match self.crop {
            CropKind::Stretch => Crop::Stretch,
            CropKind::Center => Crop::Center,
            CropKind::Random => Crop::Random { padding: self.padding.unwrap_or(4) },
            CropKind::Resized => Crop::Resized {
                scale: range("data.scale", &self.scale, [0.08, 1.0])?,
                ratio: range("data.ratio", &self.ratio, [0.75, 4.0 / 3.0])?,
            },
        })
    }

    fn jitter_of(&self) -> Result<[f64; 4]> {
        let mut all = self.jitter.clone();
        all.resize(all.len().max(4), 0.0);
        exactly("data.jitter", &all, [0.0; 4])
    }

    /// What is done to every picture.
    ///
    /// # Errors
    /// If a list has another length than it should.
    pub fn transforms(&self) -> Result<Transforms> {
        let [brightness, contrast, saturation, hue] = self.jitter_of()?;
        let [operations, magnitude] = exactly("data.rand_augment", &self.rand_augment, [0.0; 2])?;
        Ok(Transforms {
            size: self.size,
            crop: self.crop()?,
            eval_crop: self.eval_crop,
            flip: self.flip,
            jitter: Jitter { brightness, contrast, saturation, hue },
            rand_augment: (operations >= 1.0)
                .then_some(RandAugment { operations: operations as usize, magnitude }),
            mean: exactly("data.mean", &self.mean, [0.0; 3])?.map(|x| x as f32),
            std: exactly("data.std", &self.std, [1.0; 3])?.map(|x| x as f32),
        })
    }
}

/// A list as an array; `usual` if it is empty.
fn exactly<const N: usize>(key: &str, list: &[f64], usual: [f64; N]) -> Result<[f64; N]> {
    if list.is_empty() {
        return Ok(usual);
    }
    <[f64; N]>::try_from(list)
        .map_err(|_| Error::new(format!("`{key}` has {} entries", list.len()), format!("give {N}")))
}
