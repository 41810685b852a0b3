//! How a camera was held: pictures as they are seen, from pixels as they are stored.

use image::metadata::Orientation;

use crate::plane::{Picture, Plane};

/// Whether rows become columns.
pub(crate) fn swaps(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// The plane as it is seen. EXIF's numbers 1 to 8 are these, in its order.
pub(crate) fn upright<const C: usize>(plane: Plane<C>, orientation: Orientation) -> Plane<C> {
    match orientation {
        Orientation::NoTransforms => plane,
        Orientation::FlipHorizontal => mirrored(plane),
        Orientation::Rotate180 => half_turned(plane),
        Orientation::FlipVertical => upside_down(&plane),
        Orientation::Rotate90FlipH => transposed(&plane),
        Orientation::Rotate90 => mirrored(transposed(&plane)),
        Orientation::Rotate270FlipH => half_turned(transposed(&plane)),
        Orientation::Rotate270 => upside_down(&transposed(&plane)),
    }
}

/// The picture turned to the left by so many quarters of a circle.
pub fn turned(picture: Picture, quarters: u8) -> Picture {
    match quarters % 4 {
        0 => picture,
        1 => upside_down(&transposed(&picture)),
        2 => half_turned(picture),
        _ => mirrored(transposed(&picture)),
    }
}

/// Left and right exchanged.
pub(crate) fn mirrored<const C: usize>(mut plane: Plane<C>) -> Plane<C> {
    let width = plane.width();
    plane.pixels_mut().chunks_exact_mut(width).for_each(<[_]>::reverse);
    plane
}

/// Top and bottom exchanged.
pub(crate) fn upside_down<const C: usize>(plane: &Plane<C>) -> Plane<C> {
    let last = plane.height() - 1;
    Plane::from_fn(plane.height(), plane.width(), |y, x| plane.row(last - y)[x])
}

/// Turned by 180 degrees.
pub(crate) fn half_turned<const C: usize>(mut plane: Plane<C>) -> Plane<C> {
    plane.pixels_mut().reverse();
    plane
}

/// Rows become columns.
pub(crate) fn transposed<const C: usize>(plane: &Plane<C>) -> Plane<C> {
    Plane::from_fn(plane.width(), plane.height(), |y, x| plane.row(x)[y])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_turn_to_the_left() {
        let picture = Picture::from_fn(2, 3, |y, x| [(3 * y + x) as u8; 3]);
        let found = |quarters| {
            let turned = turned(picture.clone(), quarters);
            (turned.size(), turned.pixels().iter().map(|pixel| pixel[0]).collect::<Vec<_>>())
        };
        assert_eq!(found(0), ((2, 3), vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(found(1), ((3, 2), vec![2, 5, 1, 4, 0, 3]));
        assert_eq!(found(2), ((2, 3), vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(found(3), ((3, 2), vec![3, 0, 4, 1, 5, 2]));
    }
}
