//! A picture under way.

use crate::plane::{Mask, Picture};

/// A picture under way, with its mask.
pub(crate) struct Shown {
    pub(crate) picture: Picture,
    pub(crate) mask: Option<Mask>,
    /// What a mask has where no pixel of the picture is.
    pub(crate) void: u8,
}

impl Shown {
    /// Changes the picture, and its mask where there is one.
    pub(super) fn map(self, picture: impl FnOnce(Picture) -> Picture, mask: impl FnOnce(Mask) -> Mask) -> Self {
        Self { picture: picture(self.picture), mask: self.mask.map(mask), void: self.void }
    }
}
