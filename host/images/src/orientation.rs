//! How a camera was held: pictures as they are seen, from pixels as they are stored.

use image::metadata::Orientation;

use crate::plane::Plane;

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
