//! Other sizes, as Pillow makes them: every filter but the nearest is stretched over what it shrinks (antialiased).

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plane::Plane;

/// How a pixel of another size is made of those around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of those that it covers.
    Box,
    /// A triangle.
    #[default]
    Bilinear,
    /// Hamming's window: as fast as bilinear, sharper.
    Hamming,
    /// Catmull and Rom's cubic.
    Bicubic,
    /// Lanczos' window of three lobes.
    Lanczos,
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        })
    }
}

impl Filter {
    fn convolution(self) -> Option<FilterType> {
        Some(match self {
            Self::Nearest => return None,
            Self::Box => FilterType::Box,
            Self::Bilinear => FilterType::Bilinear,
            Self::Hamming => FilterType::Hamming,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        })
    }
}

/// A part of a plane: `top`, `left`, `height`, `width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// A part of a plane in another size. The part lies inside, and neither is empty. What lies outside of the part has no influence.
pub(crate) fn resized_part<const C: usize>(
    plane: &Plane<C>,
    part: Area,
    size: (usize, usize),
    filter: Filter,
) -> Plane<C> {
    if (part.height, part.width) == size {
        return plane.crop(part.top, part.left, part.height, part.width);
    }
    convolved(plane, part, size, filter).unwrap_or_else(|| nearest(plane, part, size))
}

/// The plane in another size.
pub(crate) fn resized<const C: usize>(plane: &Plane<C>, size: (usize, usize), filter: Filter) -> Plane<C> {
    resized_part(plane, Area { top: 0, left: 0, height: plane.height(), width: plane.width() }, size, filter)
}

fn nearest<const C: usize>(plane: &Plane<C>, part: Area, (height, width): (usize, usize)) -> Plane<C> {
    let places = |start: usize, from: usize, to: usize| -> Vec<usize> {
        let scale = from as f64 / to as f64;
        // Pillow adds the scale up; where a place falls between two pixels, its rounding decides.
        let at = std::iter::successors(Some(scale * 0.5), |at| Some(at + scale));
        at.take(to).map(|at| start + (at as usize).min(from - 1)).collect()
    };
    let (rows, columns) = (places(part.top, part.height, height), places(part.left, part.width, width));
    Plane::from_fn(height, width, |y, x| plane.row(rows[y])[columns[x]])
}

/// `None` for the nearest filter, and for planes that the library has no word for: more than 2^32 rows.
fn convolved<const C: usize>(plane: &Plane<C>, part: Area, size: (usize, usize), filter: Filter) -> Option<Plane<C>> {
    let filter = filter.convolution()?;
    // By the type of a pixel: what tells types apart as it runs is compiled for a dozen of them.
    match C {
        3 => convolved_by::<C, U8x3>(plane, part, size, filter),
        _ => convolved_by::<C, U8>(plane, part, size, filter),
    }
}

/// `P` has `C` bytes.
fn convolved_by<const C: usize, P: InnerPixel + PixelTrait>(
    plane: &Plane<C>,
    part: Area,
    (height, width): (usize, usize),
    filter: FilterType,
) -> Option<Plane<C>> {
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let side = |side: usize| u32::try_from(side).ok();
    let pass = |from: &Plane<C>, part: Area, (height, width): (usize, usize)| {
        let source = TypedImageRef::<P>::from_buffer(side(from.width())?, side(from.height())?, from.bytes()).ok()?;
        let [left, top, across, down] = [part.left, part.top, part.width, part.height].map(side);
        let source = TypedCroppedImage::from_ref(&source, left?, top?, across?, down?).ok()?;
        let mut to = Plane::filled(height, width, [0; C]);
        let bytes = to.pixels_mut().as_flattened_mut();
        let mut image = TypedImage::<P>::from_buffer(side(width)?, side(height)?, bytes).ok()?;
        Resizer::new().resize_typed(&source, &mut image, &options).ok()?;
        Some(to)
    };
    // Rows first, then columns, as Pillow: the other way round other values are cut to bytes in between.
    let wide = pass(plane, part, (part.height, width))?;
    let part = Area { top: 0, left: 0, height: part.height, width };
    if part.height == height { Some(wide) } else { pass(&wide, part, (height, width)) }
}

#[cfg(test)]
mod tests;
