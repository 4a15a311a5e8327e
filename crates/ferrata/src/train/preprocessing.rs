//! What is done to a picture before a model sees it, as it stands beside the model: the
//! `preprocessor_config.json` of transformers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::config::ImageSection;
use super::{Error, Result};
use crate::data::images::{Crop, Transforms};

/// The file beside the weights.
pub(super) const PREPROCESSING: &str = "preprocessor_config.json";

/// The text of the file.
pub(super) fn to_json(transforms: &Transforms) -> String {
    let Transforms { size, eval_crop, mean, std, .. } = transforms;
    let crop = transforms.crop != Crop::Stretch;
    let mut value = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": { "height": size, "width": size },
        "resample": 2,
        "do_center_crop": crop,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": mean.map(f64::from),
        "image_std": std.map(f64::from),
    });
    if crop {
        value["crop_pct"] = json!(eval_crop);
    }
    format!("{value:#}\n")
}

/// Reads the file of the model in `directory`; nothing in it is random.
///
/// # Errors
/// If it is missing or no such file.
pub(super) fn read(directory: &Path) -> Result<Transforms> {
    let path = directory.join(PREPROCESSING);
    let shown = path.display();
    let wrong = |what: &str| {
        let remedy = "copy the file that belongs to the model";
        Error::new(format!("`{shown}` {what}"), remedy)
    };
    let text = fs::read(&path).map_err(|error| wrong(&format!("cannot be read ({error})")))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| wrong(&format!("is no JSON ({error})")))?;
    let size = value.get("size").and_then(|size| {
        ["height", "shortest_edge"].iter().find_map(|key| size.get(key)).unwrap_or(size).as_u64()
    });
    let size = size.filter(|size| (1..=1 << 14).contains(size));
    let size = size.ok_or_else(|| wrong("has no \"size\" of the images"))?;
    let numbers = |key: &str| -> Option<Vec<f64>> {
        value.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
    };
    let usual = ImageSection::default();
    let share = value.get("crop_pct").and_then(Value::as_f64);
    let crop = value.get("do_center_crop").and_then(Value::as_bool).unwrap_or(share.is_some());
    let section = ImageSection {
        size: usize::try_from(size).unwrap_or_default(),
        crop: if crop { usual.crop } else { super::config::CropKind::Stretch },
        eval_crop: share.unwrap_or(1.0),
        flip: 0.0,
        mean: numbers("image_mean").unwrap_or(usual.mean),
        std: numbers("image_std").unwrap_or(usual.std),
        images: None,
        ..ImageSection::default()
    };
    section.transforms().map_err(|error| wrong(&format!("is wrong: {}", error.cause())))
}
