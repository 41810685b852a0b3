//! Where pixels go: crops, flips, rotations. The numbers of a picture's op serve its mask too.

use super::shown::Shown;
use crate::plane::Plane;
use crate::random::Random;
use crate::resize::{Area, Filter, resized_part};

/// An affine map from the places of a new plane to those of an old one: `x' = a x + b y + c`, `y' = d x + e y + f`.
pub(super) type Affine = [f64; 6];

/// Where each pixel of a plane comes from, as Pillow's `transform`: bilinear or the nearest, `fill` where it would lie outside.
pub(super) fn warp<const C: usize>(
    plane: &Plane<C>,
    [a, b, c, d, e, f]: Affine,
    bilinear: bool,
    fill: [u8; C],
) -> Plane<C> {
    let (height, width) = plane.size();
    Plane::from_fn(height, width, |y, x| {
        let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
        let (x, y) = (a * x + b * y + c, d * x + e * y + f);
        if !(x >= 0.0 && x < width as f64 && y >= 0.0 && y < height as f64) {
            return fill;
        }
        if !bilinear {
            return plane.row(y as usize)[x as usize];
        }
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (right_share, lower_share) = (x - left, y - top);
        // Beyond the border the border's pixel stands.
        let column = |offset: f64| ((left + offset).max(0.0) as usize).min(width - 1);
        let row = |offset: f64| plane.row(((top + offset).max(0.0) as usize).min(height - 1));
        let (upper, lower, left, right) = (row(0.0), row(1.0), column(0.0), column(1.0));
        std::array::from_fn(|c| {
            let between = |a: f64, b: f64, share: f64| a + (b - a) * share;
            let mix = |row: &[[u8; C]]| between(f64::from(row[left][c]), f64::from(row[right][c]), right_share);
            between(mix(upper), mix(lower), lower_share) as u8
        })
    })
}

/// The map of a rotation about the middle, in degrees counter-clockwise.
pub(super) fn rotation((height, width): (usize, usize), degrees: f64) -> Affine {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    // As Pillow does: a right angle is one.
    let [sin, cos] = [sin, cos].map(|x| (x * 1e15).round() / 1e15);
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]
}

/// The part that torchvision's `RandomResizedCrop` takes: of a random share of the area and a random ratio (width to height, uniform
/// in its logarithm). Where ten tries do not fit it is the largest part in the middle within the ratios.
pub(super) fn random_area(
    (height, width): (usize, usize),
    scale: [f64; 2],
    ratio: [f64; 2],
    random: &mut dyn Random,
) -> Area {
    for _ in 0..10 {
        let area = (height * width) as f64 * random.between(scale[0], scale[1]);
        let ratio = random.between(ratio[0].ln(), ratio[1].ln()).exp();
        let w = (area * ratio).sqrt().round_ties_even() as usize;
        let h = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = random.below(height - h + 1);
            return Area { top, left: random.below(width - w + 1), height: h, width: w };
        }
    }
    let own = width as f64 / height as f64;
    let rounded = |side: f64, most: usize| (side.round_ties_even() as usize).clamp(1, most);
    let (h, w) = if own < ratio[0] {
        (rounded(width as f64 / ratio[0], height), width)
    } else if own > ratio[1] {
        (height, rounded(height as f64 * ratio[1], width))
    } else {
        (height, width)
    };
    Area { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

impl Shown {
    /// Does the same to the picture and to its mask.
    pub(super) fn warp(self, affine: Affine, bilinear: bool, fill: [u8; 3]) -> Self {
        let void = self.void;
        self.map(|picture| warp(&picture, affine, bilinear, fill), |mask| warp(&mask, affine, false, [void]))
    }

    /// A part, in another size.
    pub(super) fn resized_part(self, part: Area, size: (usize, usize), filter: Filter) -> Self {
        self.map(
            |picture| resized_part(&picture, part, size, filter),
            |mask| resized_part(&mask, part, size, Filter::Nearest),
        )
    }

    /// With a border, then a random part of this size. What is smaller even so is surrounded by more.
    pub(super) fn random_crop(
        self,
        size: (usize, usize),
        padding: usize,
        fill: [u8; 3],
        random: &mut dyn Random,
    ) -> Self {
        let ((height, width), void) = (self.picture.size(), self.void);
        // torchvision's pad_if_needed: as much on both sides as is missing.
        let border = |side: usize, part: usize| padding + part.saturating_sub(side + 2 * padding);
        let (rows, columns) = (border(height, size.0), border(width, size.1));
        let borders = [rows, rows, columns, columns];
        let top = random.below(height + 2 * rows - size.0 + 1);
        let left = random.below(width + 2 * columns - size.1 + 1);
        self.map(
            |picture| picture.pad(borders, fill).crop(top, left, size.0, size.1),
            |mask| mask.pad(borders, [void]).crop(top, left, size.0, size.1),
        )
    }
}
