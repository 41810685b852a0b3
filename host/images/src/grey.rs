//! Pictures without colours.

use crate::plane::Picture;

/// Pillow's lightness: ITU-R 601 in 16-bit fixed point.
pub(crate) fn lightness([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

/// All channels are the lightness.
pub fn grey(mut picture: Picture) -> Picture {
    picture.pixels_mut().iter_mut().for_each(|pixel| *pixel = [lightness(*pixel); 3]);
    picture
}
