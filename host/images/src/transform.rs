//! From a decoded picture to what the model takes: for training, for evaluation.

use std::sync::Arc;

use crate::augment::{Augment, Shown};
use crate::error::Result;
use crate::normalise::Normalised;
use crate::plane::{Mask, Picture};
use crate::preprocess::Preprocess;
use crate::random::Random;

/// What becomes of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    preprocess: Preprocess,
    augment: Augment,
    void: u8,
    /// The place that each pixel comes from; empty where all stay.
    from: Arc<[u32]>,
}

/// What the model takes of a picture, and its mask alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `f32`, `[height, width, channels]`.
    pub input: Normalised,
    /// `[height, width]`, where there is one.
    pub mask: Option<Mask>,
}

impl Transform {
    /// From what suits the model and what the task says. The list's options are checked.
    pub fn new(preprocess: Preprocess, augment: Augment) -> Result<Self> {
        augment.check()?;
        Ok(Self { preprocess, augment, void: 255, from: Arc::default() })
    }

    /// The same with the pixels of what the model takes in another order, all channels of a pixel together: at a place, row by row, that
    /// of the place `from` it. There are [`pixels`](Self::pixels).
    #[must_use]
    pub fn with_pixels(mut self, from: impl Fn(u32) -> u32) -> Self {
        self.from = (0..self.pixels()).map(from).collect();
        self
    }

    /// Pixels of what the model takes.
    pub fn pixels(&self) -> u32 {
        let (height, width) = self.preprocess.size();
        (height * width) as u32
    }

    /// The pixels in their order. What has another number of them stays as it is.
    pub fn ordered(&self, mut input: Normalised) -> Normalised {
        if self.from.len() == input.height * input.width {
            let of = |&from: &u32| &input.values[from as usize * input.channels..][..input.channels];
            input.values = self.from.iter().flat_map(of).copied().collect();
        }
        input
    }

    /// What a mask has where no pixel of its picture is: the index that the loss leaves out. 255 where nothing is said.
    #[must_use]
    pub fn with_void(mut self, void: u8) -> Self {
        self.void = void;
        self
    }

    /// What suits the model.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// What the task says.
    pub fn augment(&self) -> &Augment {
        &self.augment
    }

    /// The picture as it is evaluated. Nothing is random.
    pub fn eval(&self, picture: Picture, mask: Option<Mask>) -> Sample {
        let shown = self.fitted(Shown { picture, mask, void: self.void });
        Sample { input: self.ordered(self.preprocess.normalise(&shown.picture)), mask: shown.mask }
    }

    /// A mask as it is evaluated.
    pub fn mask(&self, mask: Mask) -> Mask {
        self.preprocess.fit_mask(mask, self.void)
    }

    /// The picture as it is trained on. The same random numbers make it the same, to the bit.
    pub fn train(&self, picture: Picture, mask: Option<Mask>, random: &mut dyn Random) -> Sample {
        let picture = self.preprocess.coloured(picture);
        let mut shown = Shown { picture, mask, void: self.void };
        if !self.augment.sizes() {
            shown = self.fitted(shown);
        }
        let shown = self.augment.change(shown, &self.preprocess, random);
        let mut input = self.preprocess.normalise(&shown.picture);
        self.augment.erase(&mut input, random);
        Sample { input: self.ordered(input), mask: shown.mask }
    }

    /// A sample's picture, to be looked at: as the model sees it.
    pub fn seen(&self, sample: &Sample) -> Option<Picture> {
        self.preprocess.normalise.undo(&sample.input)
    }

    fn fitted(&self, shown: Shown) -> Shown {
        let Shown { picture, mask, void } = shown;
        let mask = mask.map(|mask| self.mask(mask));
        Shown { picture: self.preprocess.fit(picture), mask, void }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn pixels_move_as_they_are_told_with_all_their_channels_in_training_too() {
        let preprocess = Preprocess::exact((2, 3), &[0.0; 3], &[1.0; 3]).unwrap();
        let picture = Picture::from_fn(2, 3, |y, x| [(10 * y + x) as u8, 100, x as u8]);
        let plain = Transform::new(preprocess, Augment::default()).unwrap();
        let moved = plain.clone().with_pixels(|place| (place + 1) % 6);
        let values = |transform: &Transform| transform.eval(picture.clone(), None).input.values;
        let (plain, found) = (values(&plain), values(&moved));
        assert_eq!(found[..15], plain[3..]);
        assert_eq!(found[15..], plain[..3]);
        assert_eq!(moved.train(picture, None, &mut || 0.5).input.values, found);
    }
}
