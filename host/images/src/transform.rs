//! From a decoded picture to what the model takes: for training, for evaluation.

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
        Ok(Self { preprocess, augment, void: 255 })
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
        Sample { input: self.preprocess.normalise(&shown.picture), mask: shown.mask }
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
        Sample { input, mask: shown.mask }
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
