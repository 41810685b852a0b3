//! Masks as people look at them: the classes' colours over the picture.

use crate::plane::{Mask, Picture, Plane};
use crate::png::encode_grey;
use crate::resize::{Filter, resized};

/// The colour of a class: that of Pascal VOC's colour map, whose bits go round red, green and blue from the highest down.
pub fn class_colour(class: u8) -> [u8; 3] {
    let mut colour = [0; 3];
    for bit in 0..8 {
        colour[bit % 3] |= (class >> bit & 1) << (7 - bit / 3);
    }
    colour
}

impl Mask {
    /// The same where another has a class, and `void` elsewhere; both are of one size.
    #[must_use]
    pub fn where_there(&self, other: &Self, void: u8) -> Self {
        let at = |y: usize, x: usize| if other.row(y)[x] == [void] { [void] } else { self.row(y)[x] };
        if self.size() == other.size() { Self::from_fn(self.height(), self.width(), at) } else { self.clone() }
    }

    /// The mask as a PNG of one channel: the level of a pixel is the index of its class.
    pub fn to_png(&self) -> Vec<u8> {
        encode_grey(self)
    }

    /// The mask at another size, each pixel the nearest one's.
    #[must_use]
    pub fn at_size(&self, size: (usize, usize)) -> Self {
        if self.size() == size { self.clone() } else { resized(self, size, Filter::Nearest) }
    }
}

impl Picture {
    /// The picture with the classes' colours over it, half and half; where a pixel's class is `void` it is as it was. A mask of another
    /// size is brought to the picture's.
    #[must_use]
    pub fn overlaid(&self, mask: &Mask, void: Option<u8>) -> Self {
        let mask = mask.at_size(self.size());
        let mix = |&a: &u8, &b: &u8| u8::midpoint(a, b);
        Plane::from_fn(self.height(), self.width(), |y, x| {
            let (pixel, [class]) = (self.row(y)[x], mask.row(y)[x]);
            match void == Some(class) {
                true => pixel,
                false => {
                    let colour = class_colour(class);
                    std::array::from_fn(|i| mix(&pixel[i], &colour[i]))
                }
            }
        })
    }

    /// Pictures of one height beside each other, in this order, with a gap of white between them.
    #[must_use]
    pub fn beside(all: &[Self], gap: usize) -> Option<Self> {
        let height = all.first()?.height();
        if all.iter().any(|picture| picture.height() != height) {
            return None;
        }
        let mut pixels = Vec::new();
        for y in 0..height {
            for (i, picture) in all.iter().enumerate() {
                pixels.extend(std::iter::repeat_n([u8::MAX; 3], if i == 0 { 0 } else { gap }));
                pixels.extend_from_slice(picture.row(y));
            }
        }
        Self::new(height, pixels.len() / height, pixels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn colours_are_those_of_pascal_voc() {
        // torchvision's and VOC's devkit: aeroplane, bicycle, bird, ..., tvmonitor.
        let expected = [(0, [0, 0, 0]), (1, [128, 0, 0]), (2, [0, 128, 0]), (3, [128, 128, 0]), (8, [64, 0, 0])];
        expected.into_iter().for_each(|(class, colour)| assert_eq!(class_colour(class), colour));
        assert_eq!((class_colour(20), class_colour(255)), ([0, 64, 128], [224, 224, 192]));
    }

    #[test]
    fn colours_lie_over_what_has_a_class() {
        let picture = Picture::new(1, 2, vec![[100; 3], [10, 20, 30]]).unwrap();
        let mask = Mask::new(1, 2, vec![[1], [7]]).unwrap();
        let seen = picture.overlaid(&mask, Some(7));
        assert_eq!(seen.pixels(), [[114, 50, 50], [10, 20, 30]]);
        let both = Picture::beside(&[picture.clone(), seen], 1).unwrap();
        assert_eq!((both.size(), both.pixels()[2]), ((1, 5), [255; 3]));
        assert!(Picture::beside(&[picture.thumbnail(1), Picture::new(2, 1, vec![[0; 3]; 2]).unwrap()], 0).is_none());
    }
}
