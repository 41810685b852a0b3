//! Hugging Face's `preprocessor_config.json`.
//!
//! A class of image processors is a row of a table: what it does where the file says nothing. A class or key that is not known here
//! is refused by its name, since it may change pixels.

use serde_json::{Map, Value};

use super::fit::{Centre, Preprocess, Resize, normalise};
use super::keys::{numbers, wrong_value};
use crate::error::{Error, Result};
use crate::resize::Filter;

const HALF: [f64; 3] = [0.5; 3];
/// The moments of what CLIP was trained on.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// What a class of Transformers 5 does where its file says nothing.
struct Class {
    name: &'static str,
    /// A size of one number is the shorter side; else both.
    shorter: bool,
    size: usize,
    crop: Option<usize>,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
}

const fn class(name: &'static str, size: usize, filter: Filter) -> Class {
    Class { name, shorter: false, size, crop: None, filter, mean: HALF, std: HALF }
}

const CLASSES: [Class; 9] = [
    class("ViT", 224, Filter::Bilinear),
    Class { crop: Some(224), ..class("DeiT", 256, Filter::Bicubic) },
    Class { shorter: true, ..class("ConvNext", 384, Filter::Bicubic) },
    Class { shorter: true, crop: Some(224), ..class("MobileNetV1", 256, Filter::Bilinear) },
    Class { shorter: true, crop: Some(224), ..class("MobileNetV2", 256, Filter::Bilinear) },
    class("EfficientNet", 346, Filter::Bicubic),
    Class { mean: CLIP_MEAN, std: CLIP_STD, shorter: true, crop: Some(224), ..class("CLIP", 224, Filter::Bicubic) },
    Class { mean: CLIP_MEAN, std: CLIP_STD, shorter: true, crop: Some(224), ..class("Bit", 224, Filter::Bicubic) },
    class("Siglip", 224, Filter::Bicubic),
];

/// Keys that say nothing of pixels.
const NEUTRAL: [&str; 14] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "auto_map",
    "_valid_processor_keys",
    "return_tensors",
    "data_format",
    "input_data_format",
    "device",
    "disable_grouping",
    "image_seq_length",
    "default_to_square",
    // Pictures are red, green and blue when they come here.
    "do_convert_rgb",
    "transformers_version",
];

/// Keys that are read below.
const READ: [&str; 15] = [
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_rescale",
    "rescale_factor",
    "rescale_offset",
    "do_normalize",
    "image_mean",
    "image_std",
    "include_top",
    "do_reduce_labels",
    "do_pad",
];

/// A file's keys.
struct Config<'a> {
    place: &'a str,
    keys: &'a Map<String, Value>,
}

impl Config<'_> {
    fn given(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.given(key).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| wrong_value(self.place, key, value, "true or false"))
        })
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        self.given(key)
            .map_or(Ok(default), |value| value.as_f64().ok_or_else(|| wrong_value(self.place, key, value, "a number")))
    }

    fn numbers(&self, key: &str, default: [f64; 3]) -> Result<Vec<f64>> {
        let list = self.given(key).map_or(Ok(default.to_vec()), |value| numbers(self.place, key, value))?;
        // One number is for all three channels.
        Ok(if list.len() == 1 { vec![list[0]; 3] } else { list })
    }

    /// A size: one number, `[height, width]`, `{ height, width }` or `{ shortest_edge }`. One number is the shorter side where
    /// `shorter` says so.
    fn size(&self, key: &str, default: Resize, shorter: bool) -> Result<Resize> {
        let Some(value) = self.given(key) else { return Ok(default) };
        let side = |value: &Value| value.as_u64().filter(|side| (1..=1 << 14).contains(side)).map(|side| side as usize);
        let size = match value {
            Value::Array(sides) => match sides.as_slice() {
                [height, width] => side(height).zip(side(width)).map(|(h, w)| Resize::Exact(h, w)),
                _ => None,
            },
            Value::Object(sides) => {
                let mut names: Vec<&str> =
                    sides.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                match names.as_slice() {
                    ["height", "width"] => {
                        side(&sides["height"]).zip(side(&sides["width"])).map(|(h, w)| Resize::Exact(h, w))
                    }
                    ["shortest_edge"] => side(&sides["shortest_edge"]).map(Resize::Shorter),
                    _ => None,
                }
            }
            one => side(one).map(|side| if shorter { Resize::Shorter(side) } else { Resize::Exact(side, side) }),
        };
        size.ok_or_else(|| wrong_value(self.place, key, value, "a side, { height, width } or { shortest_edge }"))
    }
}

/// What a file says.
pub(super) fn read(place: &str, keys: &Map<String, Value>) -> Result<Preprocess> {
    let config = Config { place, keys };
    let class = class_of(&config)?;
    refuse_others(&config, class)?;

    let default = if class.shorter { Resize::Shorter(class.size) } else { Resize::Exact(class.size, class.size) };
    let mut resize = config.size("size", default, class.shorter)?;
    let side = class.crop.unwrap_or(289);
    let mut crop = match config.size("crop_size", Resize::Exact(side, side), false)? {
        Resize::Exact(height, width) if config.flag("do_center_crop", class.crop.is_some())? => Some((height, width)),
        Resize::Exact(..) => None,
        _ => return Err(wrong_value(place, "crop_size", &keys["crop_size"], "a side or { height, width }")),
    };
    if class.name == "ConvNext" {
        let Resize::Shorter(side) = resize else {
            return Err(wrong_value(place, "size", &keys["size"], "{ shortest_edge }"));
        };
        // Below 384 pixels a part in the middle is cut out, from there on the picture is squeezed.
        let share = config.number("crop_pct", 224.0 / 256.0)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(wrong_value(place, "crop_pct", &keys["crop_pct"], "a share above 0, at most 1"));
        }
        (resize, crop) = if side < 384 {
            (Resize::Shorter((side as f64 / share) as usize), Some((side, side)))
        } else {
            (Resize::Exact(side, side), None)
        };
    }
    if !config.flag("do_resize", true)? {
        // Whoever said so has pictures of the one size that the model takes already: to them this does nothing.
        resize = match (resize, crop) {
            (Resize::Exact(..), None) => resize,
            _ => Resize::Keep,
        };
    }

    let mean = config.numbers("image_mean", class.mean)?;
    let std = config.numbers("image_std", class.std)?;
    let moments = config.flag("do_normalize", true)?.then_some((mean.as_slice(), std.as_slice()));
    let factor = if config.flag("do_rescale", true)? { config.number("rescale_factor", 1.0 / 255.0)? } else { 1.0 };
    let efficient = class.name == "EfficientNet";
    let offset = if efficient && config.flag("rescale_offset", false)? { -1.0 } else { 0.0 };
    // EfficientNet's classifiers divide by the deviation once more.
    let again = (efficient && config.flag("include_top", true)?).then_some(std.as_slice());
    let normalise = normalise(place, 3, factor, offset, moments, again)?;
    let filter = filter(&config, class.filter)?;
    Preprocess { resize, filter, crop, centre: Centre::Down, fill: [0; 3], over: None, normalise }.checked(place)
}

/// The row of a file's class. `ViTImageProcessor`, `ViTImageProcessorFast` and the older `ViTFeatureExtractor` are one.
fn class_of(config: &Config<'_>) -> Result<&'static Class> {
    let value = config.given("image_processor_type").or_else(|| config.given("feature_extractor_type"));
    let known = || CLASSES.map(|class| class.name).join(", ");
    let Some(name) = value.and_then(Value::as_str) else {
        return Err(Error::settings(
            config.place,
            "it does not say its image_processor_type",
            format!("add \"image_processor_type\": \"NAMEImageProcessor\", NAME one of {}", known()),
        ));
    };
    let bare = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];
    let bare = bare.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    CLASSES.iter().find(|class| class.name == bare).ok_or_else(|| {
        Error::settings(
            config.place,
            format!("what {name} does to pictures is not known here"),
            format!("known are {}; write what it does as one of them", known()),
        )
    })
}

/// Refuses keys that are not known, or not of this class.
fn refuse_others(config: &Config<'_>, class: &Class) -> Result<()> {
    for (key, value) in config.keys.iter().filter(|(_, value)| !value.is_null()) {
        let own = match key.as_str() {
            "crop_pct" => class.name == "ConvNext",
            "include_top" => class.name == "EfficientNet",
            // Off they change nothing, whatever the class.
            "rescale_offset" => class.name == "EfficientNet" || *value == Value::Bool(false),
            "do_reduce_labels" | "do_pad" => *value == Value::Bool(false),
            key => READ.contains(&key) || NEUTRAL.contains(&key),
        };
        if !own && *value != Value::Bool(false) {
            return Err(Error::settings(
                config.place,
                format!("{key} = {value} may change pictures in a way that is not known here"),
                "remove the key if the model may do without",
            ));
        }
    }
    Ok(())
}

/// Pillow's numbers of its filters.
fn filter(config: &Config<'_>, default: Filter) -> Result<Filter> {
    let Some(value) = config.given("resample") else { return Ok(default) };
    Ok(match value.as_u64() {
        Some(0) => Filter::Nearest,
        Some(1) => Filter::Lanczos,
        Some(2) => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        Some(4) => Filter::Box,
        Some(5) => Filter::Hamming,
        _ => return Err(wrong_value(config.place, "resample", value, "Pillow's number of a filter, 0 to 5")),
    })
}
