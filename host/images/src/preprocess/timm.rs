//! timm's `pretrained_cfg`.
//!
//! timm reads `input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean` and `std` of it (`timm.data.resolve_data_config`), and so
//! do we; its other keys (`url`, `num_classes`, `classifier`, ...) say nothing of pixels.

use serde_json::{Map, Value, json};

use super::fit::{Centre, Preprocess, Resize, normalise};
use super::keys::{numbers, wrong_value};
use crate::error::{Error, Result};
use crate::resize::Filter;

/// ImageNet's mean of red, green and blue, of 1.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// ImageNet's deviation of red, green and blue, of 1.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A table that says a size alone.
pub(super) fn of_size((height, width): (usize, usize)) -> Map<String, Value> {
    Map::from_iter([("input_size".to_owned(), json!([3, height, width]))])
}

/// What a table says. What it leaves out is timm's default.
pub(super) fn read(place: &str, config: &Map<String, Value>) -> Result<Preprocess> {
    let given = |key: &str| config.get(key).filter(|value| !value.is_null());
    if let Some(value) = given("crop_border_pixels").filter(|value| **value != json!(0)) {
        return Err(Error::settings(
            place,
            format!("crop_border_pixels = {value} cuts off borders, which is not done here"),
            "remove the key if the model may do without",
        ));
    }
    let (channels, height, width) = match given("input_size") {
        None => (3, 224, 224),
        Some(value) => {
            let sides = numbers(place, "input_size", value)?;
            let whole = |side: f64| side >= 1.0 && side.fract() == 0.0 && side <= f64::from(1 << 14);
            match sides[..] {
                [c, h, w] if [c, h, w].into_iter().all(whole) => (c as usize, h as usize, w as usize),
                _ => return Err(wrong_value(place, "input_size", value, "[channels, height, width]")),
            }
        }
    };
    let filter = match given("interpolation") {
        None => Filter::Bicubic,
        Some(value) => match value.as_str() {
            Some("nearest") => Filter::Nearest,
            Some("bilinear") => Filter::Bilinear,
            Some("bicubic") => Filter::Bicubic,
            Some("lanczos") => Filter::Lanczos,
            Some("box") => Filter::Box,
            Some("hamming") => Filter::Hamming,
            _ => {
                return Err(wrong_value(
                    place,
                    "interpolation",
                    value,
                    "the name of a filter (bilinear, bicubic, ...)",
                ));
            }
        },
    };
    let share = match given("crop_pct") {
        None => 0.875,
        Some(value) => value
            .as_f64()
            .filter(|share| *share > 0.0 && *share <= 1.0)
            .ok_or_else(|| wrong_value(place, "crop_pct", value, "a share above 0, at most 1"))?,
    };
    let moments = |key: &str, default: [f64; 3]| match given(key) {
        None => Ok(default[..channels.min(3)].to_vec()),
        Some(value) => numbers(place, key, value),
    };
    let (mean, std) = (moments("mean", IMAGENET_MEAN)?, moments("std", IMAGENET_STD)?);
    let before = |side: usize| (side as f64 / share) as usize;
    let (tall, wide) = (before(height), before(width));
    let mut fill = [0; 3];
    let resize = match given("crop_mode").map(Value::as_str) {
        None | Some(Some("center")) if tall == wide => Resize::Shorter(tall),
        None | Some(Some("center")) => Resize::Cover(tall, wide),
        Some(Some("squash")) => Resize::Exact(tall, wide),
        Some(Some("border")) => {
            fill = std::array::from_fn(|c| (255.0 * mean[c.min(mean.len() - 1)]).round_ties_even() as u8);
            Resize::Within(tall, wide)
        }
        Some(_) => return Err(wrong_value(place, "crop_mode", &config["crop_mode"], "center, squash or border")),
    };
    let normalise = normalise(place, channels, 1.0 / 255.0, 0.0, Some((&mean, &std)), None)?;
    Preprocess { resize, filter, crop: Some((height, width)), centre: Centre::Even, fill, over: None, normalise }
        .checked(place)
}
