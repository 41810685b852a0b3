//! The list that a run file has: `augment = ["flip", { op = "random_resized_crop", scale = [0.08, 1.0] }]`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::erase::Erased;
use super::rand_augment::BINS;
use crate::resize::Filter;

/// One op with its options. Its name alone stands for it with the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Left and right exchanged.
    Flip {
        /// How probable it is.
        #[serde(default = "half")]
        #[schemars(range(min = 0, max = 1))]
        p: f64,
    },
    /// Top and bottom exchanged.
    VerticalFlip {
        /// How probable it is.
        #[serde(default = "half")]
        #[schemars(range(min = 0, max = 1))]
        p: f64,
    },
    /// A random part in the model's size.
    RandomResizedCrop {
        /// The part's share of the area: least and most.
        #[serde(default = "crop_scale")]
        scale: [f64; 2],
        /// Its width by its height: least and most.
        #[serde(default = "crop_ratio")]
        ratio: [f64; 2],
        /// How it is brought to the model's size. Default: as the model's own pictures.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interpolation: Option<Filter>,
    },
    /// A part of the model's size of the picture that is resized as for evaluation, with a border.
    RandomCrop {
        /// Pixels of border on each side.
        #[serde(default = "padding")]
        #[schemars(range(max = 4096))]
        padding: usize,
        /// The border's red, green and blue.
        #[serde(default)]
        fill: [u8; 3],
    },
    /// Turned about the middle.
    Rotation {
        /// At most so far, in either direction.
        #[serde(default = "degrees")]
        #[schemars(range(min = 0, max = 180))]
        degrees: f64,
        /// Red, green and blue of what comes in from outside.
        #[serde(default)]
        fill: [u8; 3],
    },
    /// Other colours, in random order.
    ColorJitter {
        /// Brightness times 1 - this to 1 + this.
        #[serde(default = "jitter")]
        #[schemars(range(min = 0))]
        brightness: f64,
        /// Contrast times 1 - this to 1 + this.
        #[serde(default = "jitter")]
        #[schemars(range(min = 0))]
        contrast: f64,
        /// Saturation times 1 - this to 1 + this.
        #[serde(default = "jitter")]
        #[schemars(range(min = 0))]
        saturation: f64,
        /// Hues turned by at most this part of a circle.
        #[serde(default)]
        #[schemars(range(min = 0, max = 0.5))]
        hue: f64,
    },
    /// No colours.
    Grayscale {
        /// How probable it is.
        #[serde(default = "tenth")]
        #[schemars(range(min = 0, max = 1))]
        p: f64,
    },
    /// Random changes of colour and place, all of one strength.
    RandAugment {
        /// How many changes a picture gets.
        #[serde(default = "two")]
        #[schemars(range(min = 1, max = 14))]
        num_ops: u32,
        /// How strong they are.
        #[serde(default = "nine")]
        #[schemars(range(max = 30))]
        magnitude: u32,
        /// Red, green and blue of what comes in from outside.
        #[serde(default)]
        fill: [u8; 3],
    },
    /// A random part erased, after everything else.
    RandomErasing {
        /// How probable it is.
        #[serde(default = "half")]
        #[schemars(range(min = 0, max = 1))]
        p: f64,
        /// The part's share of the area: least and most.
        #[serde(default = "erased_scale")]
        scale: [f64; 2],
        /// Its height by its width: least and most.
        #[serde(default = "erased_ratio")]
        ratio: [f64; 2],
        /// What it becomes.
        #[serde(default)]
        value: Erased,
    },
    /// Every picture of a batch mixed with another, and their labels alike.
    Mixup {
        /// The shares are of Beta(alpha, alpha).
        #[serde(default = "mixup_alpha")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        alpha: f64,
    },
    /// A part of every picture of a batch taken from another, and their labels alike.
    Cutmix {
        /// The shares are of Beta(alpha, alpha).
        #[serde(default = "one")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        alpha: f64,
    },
}

fn half() -> f64 {
    0.5
}
fn tenth() -> f64 {
    0.1
}
fn one() -> f64 {
    1.0
}
fn two() -> u32 {
    2
}
fn nine() -> u32 {
    9
}
fn padding() -> usize {
    4
}
fn degrees() -> f64 {
    15.0
}
fn jitter() -> f64 {
    0.4
}
fn mixup_alpha() -> f64 {
    0.2
}
fn crop_scale() -> [f64; 2] {
    [0.08, 1.0]
}
fn crop_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}
fn erased_scale() -> [f64; 2] {
    [0.02, 0.33]
}
fn erased_ratio() -> [f64; 2] {
    [0.3, 3.3]
}

impl Op {
    /// Its name in the run file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "flip",
            Self::VerticalFlip { .. } => "vertical_flip",
            Self::RandomResizedCrop { .. } => "random_resized_crop",
            Self::RandomCrop { .. } => "random_crop",
            Self::Rotation { .. } => "rotation",
            Self::ColorJitter { .. } => "color_jitter",
            Self::Grayscale { .. } => "grayscale",
            Self::RandAugment { .. } => "rand_augment",
            Self::RandomErasing { .. } => "random_erasing",
            Self::Mixup { .. } => "mixup",
            Self::Cutmix { .. } => "cutmix",
        }
    }

    /// Whether it brings a picture to the model's size.
    pub(super) fn sizes(&self) -> bool {
        matches!(self, Self::RandomResizedCrop { .. } | Self::RandomCrop { .. })
    }

    /// What is wrong with its options, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let name = self.name();
        let within = |key: &str, x: f64, low: f64, high: f64| {
            let good = x.is_finite() && (low..=high).contains(&x);
            if good { Ok(()) } else { Err(format!("{name}: {key} = {x} is not within {low} to {high}")) }
        };
        let pair = |key: &str, [least, most]: [f64; 2], high: f64| {
            let good = least.is_finite() && most.is_finite() && least > 0.0 && least <= most && most <= high;
            let wanted = if high.is_finite() { format!(", at most {high}") } else { String::new() };
            let message = format!("{name}: {key} = [{least}, {most}] should be [least, most], above 0{wanted}");
            if good { Ok(()) } else { Err(message) }
        };
        match *self {
            Self::Flip { p } | Self::VerticalFlip { p } | Self::Grayscale { p } => within("p", p, 0.0, 1.0),
            Self::RandomResizedCrop { scale, ratio, .. } => {
                pair("scale", scale, 1.0)?;
                pair("ratio", ratio, f64::INFINITY)
            }
            Self::RandomCrop { padding, .. } => within("padding", padding as f64, 0.0, 4096.0),
            Self::Rotation { degrees, .. } => within("degrees", degrees, 0.0, 180.0),
            Self::ColorJitter { brightness, contrast, saturation, hue } => {
                for (key, x) in [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)] {
                    within(key, x, 0.0, 100.0)?;
                }
                within("hue", hue, 0.0, 0.5)
            }
            Self::RandAugment { num_ops, magnitude, .. } => {
                within("num_ops", f64::from(num_ops), 1.0, 14.0)?;
                within("magnitude", f64::from(magnitude), 0.0, f64::from(BINS - 1))
            }
            Self::RandomErasing { p, scale, ratio, .. } => {
                within("p", p, 0.0, 1.0)?;
                pair("scale", scale, 1.0)?;
                pair("ratio", ratio, f64::INFINITY)
            }
            Self::Mixup { alpha } | Self::Cutmix { alpha } => {
                let good = alpha.is_finite() && alpha > 0.0;
                if good { Ok(()) } else { Err(format!("{name}: alpha = {alpha} is not above 0")) }
            }
        }
    }
}

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Entry(pub(super) Op);

impl<'de> Deserialize<'de> for Entry {
    /// A name, or a table with `op` and options: told apart here, so that what is wrong in the table is said of the table.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an op, or a table with `op` and its options")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Entry, E> {
                Op::deserialize(MapDeserializer::new([("op", name)].into_iter())).map(Entry)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Op::deserialize(MapAccessDeserializer::new(map)).map(Entry)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// For the schema alone: an op's name.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(dead_code, reason = "its schema is all that is asked of it")]
enum OpName {
    Flip,
    VerticalFlip,
    RandomResizedCrop,
    RandomCrop,
    Rotation,
    ColorJitter,
    Grayscale,
    RandAugment,
    RandomErasing,
    Mixup,
    Cutmix,
}

/// For the schema alone: what [`Entry`] reads.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "its schema is all that is asked of it")]
enum NameOrOp {
    Name(OpName),
    Op(Op),
}

impl JsonSchema for Entry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AugmentEntry".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        NameOrOp::json_schema(generator)
    }
}
