//! RandAugment (Cubuk et al. 2019, arXiv:1909.13719) with torchvision's ops and magnitudes.

use super::colour::{autocontrast, brightness, contrast, equalize, posterize, saturation, sharpness, solarize};
use super::geometry::rotation;
use super::shown::Shown;
use crate::random::Random;

/// Magnitudes are 0 to 30.
pub(super) const BINS: u32 = 31;

/// One op with its strength: what torchvision's `_augmentation_space` gives at a magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Identity,
    ShearX(f64),
    ShearY(f64),
    TranslateX(f64),
    TranslateY(f64),
    Rotate(f64),
    Brightness(f64),
    Color(f64),
    Contrast(f64),
    Sharpness(f64),
    Posterize(u32),
    Solarize(f64),
    AutoContrast,
    Equalize,
}

const CHANGES: usize = 14;

impl Change {
    /// Change `index` of the list, at a magnitude, for pictures of a size. Those with a direction take a random one.
    fn drawn(index: usize, magnitude: u32, (height, width): (usize, usize), random: &mut dyn Random) -> Self {
        let share = f64::from(magnitude) / f64::from(BINS - 1);
        let mut signed = |most: f64| if random.chance(0.5) { -share * most } else { share * most };
        let farthest = 150.0 / 331.0;
        match index {
            0 => Self::Identity,
            1 => Self::ShearX(signed(0.3)),
            2 => Self::ShearY(signed(0.3)),
            3 => Self::TranslateX(signed(farthest * width as f64).trunc()),
            4 => Self::TranslateY(signed(farthest * height as f64).trunc()),
            5 => Self::Rotate(signed(30.0)),
            6 => Self::Brightness(1.0 + signed(0.9)),
            7 => Self::Color(1.0 + signed(0.9)),
            8 => Self::Contrast(1.0 + signed(0.9)),
            9 => Self::Sharpness(1.0 + signed(0.9)),
            10 => Self::Posterize(8 - (4.0 * share).round_ties_even() as u32),
            11 => Self::Solarize(255.0 * (1.0 - share)),
            12 => Self::AutoContrast,
            _ => Self::Equalize,
        }
    }

    fn apply(self, mut shown: Shown, fill: [u8; 3]) -> Shown {
        let (size, of) = (shown.picture.size(), &mut shown.picture);
        let affine = match self {
            Self::ShearX(slope) => [1.0, slope, 0.0, 0.0, 1.0, 0.0],
            Self::ShearY(slope) => [1.0, 0.0, 0.0, slope, 1.0, 0.0],
            Self::TranslateX(by) => [1.0, 0.0, -by, 0.0, 1.0, 0.0],
            Self::TranslateY(by) => [1.0, 0.0, 0.0, 0.0, 1.0, -by],
            Self::Rotate(degrees) => rotation(size, degrees),
            colours => {
                match colours {
                    Self::Brightness(factor) => brightness(of, factor as f32),
                    Self::Color(factor) => saturation(of, factor as f32),
                    Self::Contrast(factor) => contrast(of, factor as f32),
                    Self::Sharpness(factor) => sharpness(of, factor as f32),
                    Self::Posterize(bits) => posterize(of, bits),
                    Self::Solarize(threshold) => solarize(of, threshold),
                    Self::AutoContrast => autocontrast(of),
                    Self::Equalize => equalize(of),
                    _ => {}
                }
                return shown;
            }
        };
        shown.warp(affine, false, fill)
    }
}

/// So many random changes, one after the other.
pub(super) fn rand_augment(
    mut shown: Shown,
    num_ops: u32,
    magnitude: u32,
    fill: [u8; 3],
    random: &mut dyn Random,
) -> Shown {
    for _ in 0..num_ops {
        let index = random.below(CHANGES);
        shown = Change::drawn(index, magnitude, shown.picture.size(), random).apply(shown, fill);
    }
    shown
}

/// For tests: one change by torchvision's name; `random` is what decides its direction.
#[cfg(test)]
pub(super) fn one(shown: Shown, name: &str, magnitude: u32, random: f64) -> Shown {
    let size = shown.picture.size();
    let drawn = |index| Change::drawn(index, magnitude, size, &mut || random);
    let named = (0..CHANGES).map(drawn).find(|change| format!("{change:?}").split('(').next() == Some(name));
    named.unwrap_or(Change::Identity).apply(shown, [0; 3])
}
