//! What a model expects of a picture: its size, how it is cut to it, how levels become numbers.

mod fit;
mod hugging_face;
mod keys;
#[cfg(test)]
mod tests;
mod timm;

use std::path::Path;

use serde_json::Value;

pub use fit::{Centre, Preprocess, Resize};
pub use timm::{IMAGENET_MEAN, IMAGENET_STD};

use crate::error::Result;
use crate::resize::Filter;
use fit::normalise;
use keys::{object, parse};

impl Preprocess {
    /// Of exactly this size, bilinear, with 3 channels or 1, whose means and deviations (of 1) these are.
    pub fn exact(size: (usize, usize), mean: &[f64], std: &[f64]) -> Result<Self> {
        let place = "preprocess";
        Self {
            resize: Resize::Exact(size.0, size.1),
            filter: Filter::Bilinear,
            crop: None,
            centre: Centre::Even,
            fill: [0; 3],
            over: None,
            normalise: normalise(place, mean.len(), 1.0 / 255.0, 0.0, Some((mean, std)), None)?,
        }
        .checked(place)
    }

    /// What ImageNet's classifiers are evaluated with, where nothing else is said: the shorter side by 8 / 7 longer than this size,
    /// bicubic, the middle cut out, ImageNet's mean and deviation.
    pub fn imagenet(size: (usize, usize)) -> Result<Self> {
        timm::read("preprocess", &timm::of_size(size))
    }

    /// What suits the model in a folder: what its `preprocessor_config.json`, `processor_config.json` or, of timm, `config.json` says;
    /// `None` where none says anything.
    ///
    /// Files that cannot be read are errors, and so is what would change pixels in a way that is not known here.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        if let Some(config) = object(&folder.join("preprocessor_config.json"))? {
            let place = folder.join("preprocessor_config.json").display().to_string();
            return hugging_face::read(&place, &config).map(Some);
        }
        if let Some(Value::Object(config)) =
            object(&folder.join("processor_config.json"))?.and_then(|mut config| config.remove("image_processor"))
        {
            let place = folder.join("processor_config.json").display().to_string();
            return hugging_face::read(&place, &config).map(Some);
        }
        let place = folder.join("config.json");
        match object(&place)?.unwrap_or_default().get("pretrained_cfg") {
            Some(Value::Object(pretrained)) => timm::read(&place.display().to_string(), pretrained).map(Some),
            _ => Ok(None),
        }
    }

    /// [`of_folder`](Self::of_folder); where nothing is said it is [`imagenet`](Self::imagenet), at the size that `config.json` may name
    /// (`image_size`) or 224.
    pub fn from_model(folder: &Path) -> Result<Self> {
        if let Some(said) = Self::of_folder(folder)? {
            return Ok(said);
        }
        let config = object(&folder.join("config.json"))?.unwrap_or_default();
        let side = config.get("image_size").and_then(Value::as_u64).unwrap_or(224) as usize;
        Self::imagenet((side, side))
    }

    /// What a `preprocessor_config.json` of Hugging Face says. `place` names it in errors.
    pub fn from_hugging_face(place: &str, json: &str) -> Result<Self> {
        hugging_face::read(place, &parse(place, json)?)
    }

    /// What a `config.json` of timm says in its `pretrained_cfg`, or that table itself.
    pub fn from_timm(place: &str, json: &str) -> Result<Self> {
        let mut config = parse(place, json)?;
        match config.remove("pretrained_cfg") {
            Some(Value::Object(pretrained)) => timm::read(place, &pretrained),
            _ => timm::read(place, &config),
        }
    }
}
