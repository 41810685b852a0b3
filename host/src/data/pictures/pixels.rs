//! The pictures of a data set: where they are, and what a model takes of one.

use std::sync::Arc;

use fthost_images::{
    MAX_PIXELS, Mask, Normalised, Picture, Sample, Transform, decode_over, decode_pair, source, turned,
};

use super::digits::Digits;
use super::idx::Planes;
use super::masks::Masks;
use crate::{Error, Result};

/// The pictures of a data set, by the numbers of its rows.
#[derive(Clone, Debug)]
pub(in crate::data) struct Pictures {
    pub(super) pixels: Pixels,
    /// The class of each of their pixels, where that is what is learned.
    pub(in crate::data) masks: Option<Masks>,
    /// What becomes of those that are not embedded.
    pub(super) transform: Option<Arc<Transform>>,
    /// What each row shows, where that is not the picture of its number.
    pub(super) views: Option<Arc<[View]>>,
}

/// A picture, and by how many quarters of a circle it is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) number: u32,
    pub(super) quarters: u8,
}

/// Where pixels are.
#[derive(Clone, Debug)]
pub(super) enum Pixels {
    Digits(Digits),
    Planes(Planes),
    Files(source::Source),
}

impl Pictures {
    /// What the model takes of a picture: as in evaluation, or in training with what `random` draws.
    pub(in crate::data) fn sample(&self, row: u32, random: Option<&mut dyn fthost_images::Random>) -> Result<Sample> {
        let View { number, quarters } = self.view(row);
        let (picture, mask) = match &self.pixels {
            Pixels::Digits(digits) => {
                let input = digits.normalised(number);
                // They need nothing said of them.
                let input = match &self.transform {
                    Some(transform) => transform.ordered(input),
                    None => input,
                };
                return Ok(Sample { input, mask: None });
            }
            Pixels::Planes(planes) => (planes.picture(number)?, None),
            Pixels::Files(pictures) => match &self.masks {
                None => (self.read(pictures, number)?, None),
                Some(masks) => pair(pictures, masks, number)?,
            },
        };
        let (picture, transform) = (turned(picture, quarters), self.transform()?);
        Ok(match random {
            None => transform.eval(picture, mask),
            Some(random) => transform.train(picture, mask, random),
        })
    }

    /// What a row shows.
    pub(super) fn view(&self, row: u32) -> View {
        self.views.as_ref().map_or(View { number: row, quarters: 0 }, |views| views[row as usize])
    }

    /// Whether it takes work to make something of a picture, which is best done ahead.
    pub(in crate::data) fn take_work(&self) -> bool {
        !matches!(self.pixels, Pixels::Digits(_))
    }

    /// What becomes of its pictures.
    pub(in crate::data) fn transform(&self) -> Result<&Arc<Transform>> {
        self.transform.as_ref().ok_or_else(|| Error::run("nothing says how pictures become what the model takes"))
    }

    /// As a person sees what a model takes.
    pub(in crate::data) fn seen(&self, input: &Normalised) -> Result<Option<Picture>> {
        Ok(self.transform()?.preprocess().normalise.undo(input))
    }

    /// The picture as it is, before anything becomes of it.
    pub(in crate::data) fn picture(&self, row: u32) -> Result<Option<Picture>> {
        let View { number, quarters } = self.view(row);
        let picture = match &self.pixels {
            Pixels::Digits(_) => return Ok(None),
            Pixels::Planes(planes) => planes.picture(number)?,
            Pixels::Files(pictures) => self.read(pictures, number)?,
        };
        Ok(Some(turned(picture, quarters)))
    }

    fn read(&self, pictures: &source::Source, number: u32) -> Result<Picture> {
        let over = self.transform.as_ref().and_then(|transform| transform.preprocess().over);
        let index = number as usize;
        Ok(decode_over(&pictures.read(index)?, pictures.name(index), MAX_PIXELS, over)?)
    }

    /// Bytes that stand for a picture: those of two that have the same are alike.
    pub(in crate::data) fn sketch(&self, row: u32) -> Result<Vec<u8>> {
        let View { number, quarters } = self.view(row);
        let mut bytes = match &self.pixels {
            Pixels::Digits(digits) => digits.bytes(number).to_vec(),
            Pixels::Planes(planes) => planes.bytes(number).to_vec(),
            Pixels::Files(pictures) => pictures.ends(number as usize)?,
        };
        // A picture that is turned is another.
        bytes.push(quarters);
        Ok(bytes)
    }

    /// Bytes of pictures in memory.
    pub(in crate::data) fn in_memory(&self) -> usize {
        let views = self.views.as_ref().map_or(0, |views| std::mem::size_of_val(&**views));
        views
            + match &self.pixels {
                Pixels::Digits(digits) => digits.in_memory(),
                Pixels::Planes(planes) => planes.in_memory(),
                Pixels::Files(_) => 0,
            }
    }
}

/// Reads a picture and its mask, which are of one size.
fn pair(pictures: &source::Source, masks: &Masks, row: u32) -> Result<(Picture, Option<Mask>)> {
    let (index, masks) = (row as usize, &masks.source);
    let (picture, mask) = (pictures.read(index)?, masks.read(index)?);
    let (picture, mask) = decode_pair((&picture, pictures.name(index)), (&mask, masks.name(index)), MAX_PIXELS)?;
    Ok((picture, Some(mask)))
}

impl From<fthost_images::Error> for Error {
    fn from(error: fthost_images::Error) -> Self {
        let fthost_images::Error { place, message, help, .. } = error;
        Self::Data { file: place.into(), line: None, message, help: Some(help) }
    }
}
