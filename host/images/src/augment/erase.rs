//! Random erasing (Zhong et al. 2017, arXiv:1708.04896), of what the model takes: a part becomes the mean colour, or noise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::normalise::Normalised;
use crate::random::Random;

/// What an erased part becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Erased {
    /// 0 of the model's input: the mean colour.
    #[default]
    Mean,
    /// A standard normal number for each value.
    Noise,
}

/// Erases a part of a random share of the area and a random ratio (height to width), as torchvision's `RandomErasing`. Where ten tries
/// do not fit, nothing is.
pub(super) fn erase(input: &mut Normalised, scale: [f64; 2], ratio: [f64; 2], value: Erased, random: &mut dyn Random) {
    let (height, width, channels) = (input.height, input.width, input.channels);
    for _ in 0..10 {
        let area = (height * width) as f64 * random.between(scale[0], scale[1]);
        let ratio = random.between(ratio[0].ln(), ratio[1].ln()).exp();
        let h = (area * ratio).sqrt().round_ties_even() as usize;
        let w = (area / ratio).sqrt().round_ties_even() as usize;
        if h >= height || w >= width {
            continue;
        }
        let (top, left) = (random.below(height - h + 1), random.below(width - w + 1));
        for row in input.values.chunks_exact_mut(width * channels).skip(top).take(h) {
            for x in &mut row[left * channels..][..w * channels] {
                *x = if value == Erased::Noise { random.normal() as f32 } else { 0.0 };
            }
        }
        return;
    }
}
