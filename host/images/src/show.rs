//! Pictures for people to look at.

use crate::plane::Picture;
use crate::png::encode;
use crate::resize::{Filter, resized};

impl Picture {
    /// The picture made so small that it fits into a square of this side, for a page; smaller ones stay as they are.
    #[must_use]
    pub fn thumbnail(&self, side: usize) -> Self {
        let longest = self.height().max(self.width());
        if longest <= side.max(1) {
            return self.clone();
        }
        let shrunk = |length: usize| (length * side.max(1) / longest).max(1);
        resized(self, (shrunk(self.height()), shrunk(self.width())), Filter::Bilinear)
    }

    /// The picture as a PNG.
    pub fn to_png(&self) -> Vec<u8> {
        encode(self)
    }
}
