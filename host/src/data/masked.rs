//! Examples whose targets are masks: a class for each pixel.

use fthost_autograd::{Device, Tensor};
use fthost_images::{Mask, Picture};

use super::dataset::{Dataset, Targets};
use super::pictures::{Masks, Shown};
use crate::{Error, Result};

impl Dataset {
    /// The masks of its pictures, where they have some.
    pub(super) fn masks(&self) -> Option<&Masks> {
        self.pictures.as_ref()?.masks.as_ref()
    }

    /// Whether its pictures have masks.
    pub fn of_masks(&self) -> bool {
        self.masks().is_some()
    }

    /// The targets of what is seen of examples: as those of their [`rows`](Self::targets), but of masks what is seen of them this time.
    pub fn targets_of(&self, shown: &Shown, device: &Device) -> Result<Tensor> {
        match (&self.targets, shown.masks()) {
            (Targets::Masks, [_, ..]) => self.pixels_of(shown.masks(), device),
            (Targets::Chosen(_), _) => {
                let targets: Vec<u32> = shown.guessed().iter().flat_map(|of| of.targets.iter().copied()).collect();
                let len = targets.len();
                Ok(Tensor::from_vec(targets, len, device)?)
            }
            _ => self.targets(shown.rows(), device),
        }
    }

    /// The classes of the pixels of masks as they are evaluated, `u32` `[rows, height, width]`.
    pub(super) fn mask_targets(&self, rows: &[u32], device: &Device) -> Result<Tensor> {
        let masks = rows.iter().map(|&row| self.mask(row)).collect::<Result<Vec<_>>>()?;
        self.pixels_of(&masks, device)
    }

    /// A picture as the model sees it in evaluation, its mask alike, and what its pixels have that have no class; nothing where there are no
    /// masks.
    pub fn fitted_pair(&self, row: u32) -> Result<Option<(Picture, Mask, u8)>> {
        let Some(masks) = self.masks() else { return Ok(None) };
        let (Some(picture), Some(transform)) = (self.picture(row)?, self.transform()) else { return Ok(None) };
        Ok(Some((transform.preprocess().fit(picture), self.mask(row)?, masks.void())))
    }

    /// An example's mask in the model's size.
    fn mask(&self, row: u32) -> Result<Mask> {
        let (Some(pictures), Some(masks)) = (&self.pictures, self.masks()) else { return Err(self.never_set()) };
        let mask = masks.mask(self.selection.row(row))?;
        Ok(pictures.transform()?.mask(mask))
    }

    fn pixels_of(&self, all: &[Mask], device: &Device) -> Result<Tensor> {
        let (Some(masks), Some(first)) = (self.masks(), all.first()) else { return Err(self.never_set()) };
        let (height, width) = first.size();
        if all.iter().any(|mask| mask.size() != (height, width)) {
            return Err(Error::run("masks of one batch have several sizes"));
        }
        let classes: Vec<u32> = all.iter().flat_map(|mask| masks.classes(mask)).collect();
        Ok(Tensor::from_vec(classes, (all.len(), height, width), device)?)
    }

    /// Pixels of each class in the examples' masks.
    pub(super) fn pixel_counts(&self, masks: &Masks) -> Vec<u64> {
        let rows = (0..self.len() as u32).map(|row| self.selection.row(row));
        masks.counts(rows, self.labels.len())
    }
}
