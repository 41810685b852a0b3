//! Pictures: where they come from, and what a model sees of them.
//!
//! Of a picture only its place is known ([`list`]) until it is asked for. Then it is read, decoded, changed as the task says and brought
//! to what the model takes: in evaluation always to the same, in training by random numbers that follow from the seed, the step and the
//! picture's place in the batch. So the bits depend neither on threads nor on what is made ahead.

pub(super) mod digits;
mod idx;
pub(super) mod list;
mod shown;

use std::sync::Arc;

use fthost_autograd::random::Stream;
use fthost_images::{MAX_PIXELS, source};
use fthost_images::{Mask, Normalised, Picture, Sample, Transform, decode, decode_pair};
use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use digits::Digits;
use idx::Planes;
pub use shown::Shown;

/// What a task says of its pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PictureForm {
    /// Which folder names a class.
    pub class_folder: ClassFolder,
    /// The folder inside an archive that holds the classes, where it is said.
    pub under: Option<String>,
    /// What becomes of a file that is no picture.
    pub on_bad_image: OnBadImage,
}

/// Which folder names a picture's class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassFolder {
    /// The topmost: whatever lies in rose/... is a rose.
    #[default]
    Top,
    /// The whole path: Latin/character01 is a class.
    Path,
}

/// What becomes of a file that is no picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadImage {
    /// The run ends, and names it.
    #[default]
    Stop,
    /// It is left out, and counted: every picture is decoded before training begins.
    Skip,
}

/// The pictures of a data set, by the numbers of its rows.
#[derive(Clone, Debug)]
pub(super) struct Pictures {
    pixels: Pixels,
    /// What becomes of those that are not embedded.
    transform: Option<Arc<Transform>>,
}

/// Where pixels are.
#[derive(Clone, Debug)]
enum Pixels {
    Digits(Digits),
    Planes(Planes),
    Files { pictures: source::Source, masks: Option<source::Source> },
}

/// Where the random changes of training pictures come from.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    pictures: Stream,
    batches: Stream,
}

impl Draws {
    /// Those of a run.
    pub fn new(seed: u64) -> Self {
        Self { pictures: Stream::new(seed, "pictures"), batches: Stream::new(seed, "mixed pictures") }
    }

    /// The numbers for a picture, by the step and its place in it.
    pub(super) fn of_picture(&self, step: u64, place: u64) -> impl FnMut() -> f64 + use<> {
        numbers(self.pictures.at(&[step, place]))
    }

    /// The numbers for a batch, by the step and the place of its first picture.
    fn of_batch(&self, step: u64, first: u64) -> impl FnMut() -> f64 + use<> {
        numbers(self.batches.at(&[step, first]))
    }
}

/// A stream's numbers, one after the other.
fn numbers(stream: Stream) -> impl FnMut() -> f64 {
    let mut next = 0;
    move || {
        next += 1;
        stream.uniform(next - 1)
    }
}

impl Pictures {
    /// What the model takes of a picture: as in evaluation, or in training with what `random` draws.
    pub(super) fn sample(&self, row: u32, random: Option<&mut dyn fthost_images::Random>) -> Result<Sample> {
        let (picture, mask) = match &self.pixels {
            Pixels::Digits(digits) => return Ok(Sample { input: digits.normalised(row), mask: None }),
            Pixels::Planes(planes) => (planes.picture(row)?, None),
            Pixels::Files { pictures, masks } => read(pictures, masks.as_ref(), row)?,
        };
        let transform = self.transform()?;
        Ok(match random {
            None => transform.eval(picture, mask),
            Some(random) => transform.train(picture, mask, random),
        })
    }

    /// Whether it takes work to make something of a picture, which is best done ahead.
    pub(super) fn take_work(&self) -> bool {
        !matches!(self.pixels, Pixels::Digits(_))
    }

    /// What becomes of its pictures.
    pub(super) fn transform(&self) -> Result<&Arc<Transform>> {
        self.transform.as_ref().ok_or_else(|| Error::run("nothing says how pictures become what the model takes"))
    }

    /// As a person sees what a model takes.
    pub(super) fn seen(&self, input: &Normalised) -> Result<Option<Picture>> {
        Ok(self.transform()?.preprocess().normalise.undo(input))
    }

    /// The picture as it is, before anything becomes of it.
    pub(super) fn picture(&self, row: u32) -> Result<Option<Picture>> {
        match &self.pixels {
            Pixels::Digits(_) => Ok(None),
            Pixels::Planes(planes) => planes.picture(row).map(Some),
            Pixels::Files { pictures, .. } => read(pictures, None, row).map(|(picture, _)| Some(picture)),
        }
    }

    /// Bytes that stand for a picture: those of two that have the same are alike.
    pub(super) fn sketch(&self, row: u32) -> Result<Vec<u8>> {
        match &self.pixels {
            Pixels::Digits(digits) => Ok(digits.bytes(row).to_vec()),
            Pixels::Planes(planes) => Ok(planes.bytes(row).to_vec()),
            Pixels::Files { pictures, .. } => Ok(pictures.ends(row as usize)?),
        }
    }

    /// Bytes of pictures in memory.
    pub(super) fn in_memory(&self) -> usize {
        match &self.pixels {
            Pixels::Digits(digits) => digits.in_memory(),
            Pixels::Planes(planes) => planes.in_memory(),
            Pixels::Files { .. } => 0,
        }
    }
}

/// Reads a picture, and its mask.
fn read(pictures: &source::Source, masks: Option<&source::Source>, row: u32) -> Result<(Picture, Option<Mask>)> {
    let index = row as usize;
    let bytes = pictures.read(index)?;
    let Some(masks) = masks else {
        return Ok((decode(&bytes, pictures.name(index), MAX_PIXELS)?, None));
    };
    let mask = masks.read(index)?;
    let (picture, mask) = decode_pair((&bytes, pictures.name(index)), (&mask, masks.name(index)), MAX_PIXELS)?;
    Ok((picture, Some(mask)))
}

impl From<fthost_images::Error> for Error {
    fn from(error: fthost_images::Error) -> Self {
        let fthost_images::Error { place, message, help, .. } = error;
        Self::Data { file: place.into(), line: None, message, help: Some(help) }
    }
}
