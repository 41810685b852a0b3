//! Pictures with masks: two folders, matched by name.

use std::path::Path;

use super::folder::{LeftOut, by_stem};
use super::{Item, Source};
use crate::decode::{MAX_PIXELS, decode_pair, same_size};
use crate::error::{Error, Result};
use crate::plane::{Mask, Picture};

/// Pictures, each with the mask of the same number.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// The pictures, sorted by name.
    pub pictures: Source,
    /// Their masks.
    pub masks: Source,
    /// What was passed over in both folders.
    pub left_out: LeftOut,
}

impl Pairs {
    /// Pictures and masks of two folders: `images/7.jpg` belongs to `masks/7.png`. Names alone are read. One without the other is an
    /// error.
    pub fn folders(images: &Path, masks: &Path) -> Result<Self> {
        let mut left_out = LeftOut::default();
        let (pictures, marks) = (by_stem(images, &mut left_out)?, by_stem(masks, &mut left_out)?);
        let lonely = |of: &str, stem: &str, file: &Path, other: &Path| {
            Err(Error::files(
                file.display(),
                format!("there is no {of} {stem}.* in {}", other.display()),
                "add it, or remove this one: a picture and its mask have one name, whatever their ends",
            ))
        };
        if let Some((stem, file)) = pictures.iter().find(|(stem, _)| !marks.contains_key(*stem)) {
            return lonely("mask", stem, file, masks);
        }
        if let Some((stem, file)) = marks.iter().find(|(stem, _)| !pictures.contains_key(*stem)) {
            return lonely("picture", stem, file, images);
        }
        if pictures.is_empty() {
            return Err(Error::files(images.display(), "there is no picture", "is it the right folder?"));
        }
        let source = |files: std::collections::BTreeMap<String, std::path::PathBuf>| -> Source {
            files.into_values().map(Item::file).collect()
        };
        Ok(Self { pictures: source(pictures), masks: source(marks), left_out })
    }

    /// Refuses a mask of another size than its picture's; both headers are read.
    pub fn check(&self, index: usize) -> Result<()> {
        let (picture, mask) = (self.pictures.header(index)?, self.masks.header(index)?);
        same_size(picture, mask, self.pictures.name(index), self.masks.name(index))
    }

    /// A picture and its mask.
    pub fn decode(&self, index: usize) -> Result<(Picture, Mask)> {
        let (picture, mask) = (self.pictures.read(index)?, self.masks.read(index)?);
        decode_pair((&picture, self.pictures.name(index)), (&mask, self.masks.name(index)), MAX_PIXELS)
    }
}
