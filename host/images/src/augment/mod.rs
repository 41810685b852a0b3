//! Random changes of training pictures, as a list in the run file.
//!
//! The ops run in the list's order. One that brings pictures to the model's size (`random_resized_crop`, `random_crop`) does so in its
//! place; where the list has none, pictures are first resized and cut as for evaluation. `random_erasing` comes last, on the model's
//! input, and `mixup` and `cutmix` on a batch of inputs. What an op draws from [`Random`] depends on its options and the picture's
//! size alone, and a mask gets the same geometry as its picture (from the nearest pixel), and no colours.

mod colour;
mod erase;
mod geometry;
mod mix;
mod op;
mod rand_augment;
mod shown;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use erase::Erased;
pub use mix::Mixed;
pub use op::Op;
pub(crate) use shown::Shown;

use crate::error::{Error, Result};
use crate::grey::grey;
use crate::normalise::Normalised;
use crate::orientation::{mirrored, upside_down};
use crate::plane::Picture;
use crate::preprocess::Preprocess;
use crate::random::Random;
use crate::resize::Filter;

/// The ops of a task, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Augment(Vec<op::Entry>);

impl From<Vec<Op>> for Augment {
    fn from(ops: Vec<Op>) -> Self {
        Self(ops.into_iter().map(op::Entry).collect())
    }
}

impl Augment {
    /// The ops.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.0.iter().map(|entry| &entry.0)
    }

    /// The ops' names, in their order.
    pub fn names(&self) -> Vec<&'static str> {
        self.ops().map(Op::name).collect()
    }

    /// Whether pictures differ from epoch to epoch: features of them cannot be kept.
    pub fn is_random(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether pictures of a batch are mixed, and with them their labels.
    pub fn mixes(&self) -> bool {
        self.ops().any(|op| matches!(op, Op::Mixup { .. } | Op::Cutmix { .. }))
    }

    /// Whether an op of the list brings pictures to the model's size.
    pub(crate) fn sizes(&self) -> bool {
        self.ops().any(Op::sizes)
    }

    /// Refuses options that mean nothing, in words.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Error::settings("augment", message, "correct the list of the task");
        self.ops().try_for_each(|op| op.check().map_err(wrong))?;
        let sizing: Vec<&str> = self.ops().filter(|op| op.sizes()).map(Op::name).collect();
        match sizing[..] {
            [first, second, ..] => Err(wrong(format!("{first} and {second} both bring a picture to the model's size"))),
            _ => Ok(()),
        }
    }

    /// Changes a picture and its mask.
    pub(crate) fn change(&self, shown: Shown, preprocess: &Preprocess, random: &mut dyn Random) -> Shown {
        self.ops().fold(shown, |shown, op| change(op, shown, preprocess, random))
    }

    /// Changes what the model takes.
    pub(crate) fn erase(&self, input: &mut Normalised, random: &mut dyn Random) {
        for op in self.ops() {
            if let Op::RandomErasing { p, scale, ratio, value } = *op
                && random.chance(p)
            {
                erase::erase(input, scale, ratio, value, random);
            }
        }
    }
}

fn change(op: &Op, mut shown: Shown, preprocess: &Preprocess, random: &mut dyn Random) -> Shown {
    match *op {
        Op::Flip { p } if random.chance(p) => shown.map(mirrored, mirrored),
        Op::VerticalFlip { p } if random.chance(p) => {
            shown.map(|picture| upside_down(&picture), |mask| upside_down(&mask))
        }
        Op::RandomResizedCrop { scale, ratio, interpolation } => {
            let part = geometry::random_area(shown.picture.size(), scale, ratio, random);
            shown.resized_part(part, preprocess.size(), interpolation.unwrap_or(preprocess.filter))
        }
        Op::RandomCrop { padding, fill } => shown
            .map(
                |picture| preprocess.resized(picture, preprocess.filter),
                |mask| preprocess.resized(mask, Filter::Nearest),
            )
            .random_crop(preprocess.size(), padding, fill, random),
        Op::Rotation { degrees, fill } => {
            let affine = geometry::rotation(shown.picture.size(), random.between(-degrees, degrees));
            shown.warp(affine, true, fill)
        }
        Op::ColorJitter { brightness, contrast, saturation, hue } => {
            jitter(&mut shown.picture, [brightness, contrast, saturation, hue], random);
            shown
        }
        Op::Grayscale { p } if random.chance(p) => shown.map(grey, |mask| mask),
        Op::RandAugment { num_ops, magnitude, fill } => {
            rand_augment::rand_augment(shown, num_ops, magnitude, fill, random)
        }
        // Not this time; or not yet: what comes after normalisation, and with a batch.
        Op::Flip { .. }
        | Op::VerticalFlip { .. }
        | Op::Grayscale { .. }
        | Op::RandomErasing { .. }
        | Op::Mixup { .. }
        | Op::Cutmix { .. } => shown,
    }
}

/// Brightness, contrast, saturation and hue by random factors, in random order.
fn jitter(picture: &mut Picture, strengths: [f64; 4], random: &mut dyn Random) {
    let mut order = [0, 1, 2, 3];
    for i in (1..4).rev() {
        order.swap(i, random.below(i + 1));
    }
    for which in order {
        let strength = strengths[which];
        if strength == 0.0 {
            continue;
        }
        if which == 3 {
            // torchvision's bytes: a part of 255, cut towards 0, that may be negative.
            colour::hue(picture, (random.between(-strength, strength) * 255.0) as i32 as u8);
            continue;
        }
        let factor = random.between((1.0 - strength).max(0.0), 1.0 + strength) as f32;
        match which {
            0 => colour::brightness(picture, factor),
            1 => colour::contrast(picture, factor),
            _ => colour::saturation(picture, factor),
        }
    }
}
