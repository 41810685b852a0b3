//! Pictures of a batch mixed with each other: mixup (Zhang et al. 2017, arXiv:1710.09412) and cutmix (Yun et al. 2019,
//! arXiv:1905.04899).

use super::Augment;
use super::op::Op;
use crate::random::Random;

/// How a batch was mixed. The loss of example `i` is `lambda` times that of its own label and `1 - lambda` times that of its partner's.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The share of an example's own picture.
    pub lambda: f32,
    /// The example that was mixed into each.
    pub partners: Vec<usize>,
}

impl Augment {
    /// Mixes a batch `[examples, height, width, channels]` in place where the list says so, every picture with the one before it.
    /// `None` where it does not: of several ops that mix, each batch takes one at random.
    ///
    /// # Panics
    ///
    /// Where the batch is not of this shape.
    pub fn mix(&self, batch: &mut [f32], shape: [usize; 4], random: &mut dyn Random) -> Option<Mixed> {
        let mixing: Vec<&Op> = self.ops().filter(|op| matches!(op, Op::Mixup { .. } | Op::Cutmix { .. })).collect();
        let [examples, height, width, channels] = shape;
        assert_eq!(batch.len(), examples * height * width * channels, "a batch of the shape {shape:?}");
        if mixing.is_empty() || examples < 2 {
            return None;
        }
        let lambda = match mixing[random.below(mixing.len())] {
            Op::Mixup { alpha } => {
                let lambda = random.beta(*alpha) as f32;
                with_the_one_before(batch, height * width * channels, |own, other| {
                    own.iter_mut().zip(other).for_each(|(own, other)| *own = lambda * *own + (1.0 - lambda) * other);
                });
                lambda
            }
            Op::Cutmix { alpha } => {
                let part = part([height, width], random.beta(*alpha), random);
                let [top, bottom, left, right] = part;
                with_the_one_before(batch, height * width * channels, |own, other| {
                    for y in top..bottom {
                        let row = (y * width + left) * channels..(y * width + right) * channels;
                        own[row.clone()].copy_from_slice(&other[row]);
                    }
                });
                // What was cut off at the border is not taken.
                1.0 - ((bottom - top) * (right - left)) as f32 / (height * width) as f32
            }
            _ => return None,
        };
        let partners = (0..examples).map(|i| (i + examples - 1) % examples).collect();
        Some(Mixed { lambda, partners })
    }
}

/// Changes each picture by the one before it, as that was; the first by the last.
fn with_the_one_before(batch: &mut [f32], len: usize, mut change: impl FnMut(&mut [f32], &[f32])) {
    let last = batch[batch.len() - len..].to_vec();
    // From the end, so that the one before is as it was.
    for end in (2..=batch.len() / len).rev() {
        let (before, own) = batch[..end * len].split_at_mut((end - 1) * len);
        change(own, &before[(end - 2) * len..]);
    }
    change(&mut batch[..len], &last);
}

/// The part of the other picture: about `1 - lambda` of the area, around a uniform middle. `[top, bottom, left, right]`.
fn part([height, width]: [usize; 2], lambda: f64, random: &mut dyn Random) -> [usize; 4] {
    let share = 0.5 * (1.0 - lambda).sqrt();
    let mut range = |side: usize| {
        let (middle, half) = (random.below(side), (share * side as f64) as usize);
        (middle.saturating_sub(half), (middle + half).min(side))
    };
    let ((left, right), (top, bottom)) = (range(width), range(height));
    [top, bottom, left, right]
}
