//! Predictions of a class for each pixel.

use std::sync::{Mutex, PoisonError};

use fthost_images::{Mask, Picture};

use crate::Result;
use crate::data::{Dataset, UNCOUNTED};
use crate::report::metrics::masks::{Overlap, of, overlaps};
use crate::report::metrics::probabilities::most_probable;

/// Examples whose predictions are kept to be looked at.
pub(super) const KEPT: usize = 10;
/// Pixels between pictures that stand beside each other.
const GAP: usize = 4;

/// Predicted classes of pixels beside the true ones, counted.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    /// Pixels by true class (row) and predicted class (column), of all examples; none where that is not known any more.
    pub confusion: Vec<Vec<u64>>,
    /// Of each example the pixels of each class.
    pub examples: Vec<Vec<Overlap>>,
    /// What is predicted of the worst examples, by their places; pixels without a class have one here too.
    pub seen: Vec<(usize, Mask)>,
}

impl Masks {
    /// The pixels of each class, of all examples.
    pub fn classes(&self) -> Vec<Overlap> {
        let mut all = vec![Overlap::default(); self.examples.first().map_or(0, Vec::len)];
        let pairs = self.examples.iter().flat_map(|example| (0..).zip(example));
        pairs.for_each(|(class, &of): (usize, _)| all[class] += of);
        all
    }

    /// One of the examples that are kept as it is looked at: the picture as the model sees it, the true classes over it, and the predicted
    /// ones where a pixel has a true one; each so small that it fits into a square of this side.
    pub(super) fn overlay(&self, data: &Dataset, place: usize, side: usize) -> Result<Option<Picture>> {
        let found = self.seen.iter().find(|(seen, _)| *seen == place);
        let (Some((_, found)), Some((picture, truth, void))) = (found, data.fitted_pair(place as u32)?) else {
            return Ok(None);
        };
        let found = found.where_there(&truth, void);
        let shown = [picture.clone(), picture.overlaid(&truth, Some(void)), picture.overlaid(&found, Some(void))];
        Ok(Picture::beside(&shown.map(|picture| picture.thumbnail(side)), GAP))
    }

    /// What each example loses: one less its mean intersection over union. With its place; examples without a pixel that counts lose
    /// nothing.
    pub fn losses(&self) -> impl Iterator<Item = (usize, f64)> {
        self.examples.iter().map(|example| loss(example)).enumerate()
    }
}

/// The true pixels of each class, as a cell of a table.
pub(super) fn target(example: &[Overlap]) -> String {
    example.iter().map(|of| of.target.to_string()).collect::<Vec<_>>().join(" ")
}

/// Of each class how many of its pixels are predicted as it, and how many of all, as a cell of a table.
pub(super) fn prediction(example: &[Overlap]) -> String {
    example.iter().map(|of| format!("{}/{}", of.right, of.predicted)).collect::<Vec<_>>().join(" ")
}

/// The pixels of each class, from the cells of a true and a predicted mask in a table of predictions; `None` where these hold something else.
pub fn read(target: &str, prediction: &str) -> Option<Vec<Overlap>> {
    let pairs = target.split(' ').zip(prediction.split(' '));
    let one = |(target, prediction): (&str, &str)| {
        let (right, predicted) = prediction.split_once('/')?;
        Some(Overlap { right: right.parse().ok()?, target: target.parse().ok()?, predicted: predicted.parse().ok()? })
    };
    pairs.map(one).collect()
}

fn loss(example: &[Overlap]) -> f64 {
    let iou = of(example).remove("mean_iou").filter(|iou| iou.is_finite());
    iou.map_or(0.0, |iou| 1.0 - iou)
}

/// Gathers what is predicted of chunks of examples, on several threads.
pub(super) struct Gathered {
    classes: usize,
    /// Height and width.
    size: (usize, usize),
    /// The worst examples so far: what each loses, its place and what is predicted.
    worst: Mutex<Vec<(f64, usize, Mask)>>,
}

/// What some examples come to.
#[derive(Debug, Default)]
pub(super) struct Counted {
    confusion: Vec<Vec<u64>>,
    examples: Vec<Vec<Overlap>>,
}

impl Gathered {
    pub(super) fn new(classes: usize, size: (usize, usize)) -> Self {
        Self { classes, size, worst: Mutex::default() }
    }

    /// Takes examples from place `first` on: `targets` `[examples * pixels]`, `probabilities` `[examples * pixels, classes]`.
    pub(super) fn add(&self, first: usize, targets: &[u32], probabilities: &[f32]) -> Counted {
        let pixels = (self.size.0 * self.size.1).max(1);
        let mut counted = Counted { confusion: self.nothing(), examples: Vec::new() };
        let examples = targets.chunks(pixels).zip(probabilities.chunks(pixels * self.classes.max(1)));
        for (place, (targets, probabilities)) in (first..).zip(examples) {
            let found: Vec<u32> = probabilities.chunks_exact(self.classes.max(1)).map(most_probable).collect();
            let mut confusion = self.nothing();
            let counts = targets.iter().zip(&found).filter(|(target, _)| **target != UNCOUNTED);
            counts.for_each(|(&target, &found)| confusion[target as usize][found as usize] += 1);
            let example = overlaps(&confusion);
            self.keep(loss(&example), place, &found);
            counted.examples.push(example);
            let all = counted.confusion.iter_mut().flatten();
            all.zip(confusion.iter().flatten()).for_each(|(all, of)| *all += of);
        }
        counted
    }

    /// Keeps what is predicted of an example, if it is among the worst so far: of equal ones the first.
    fn keep(&self, loss: f64, place: usize, found: &[u32]) {
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        let at = worst.partition_point(|(other, before, _)| *other > loss || (*other == loss && *before < place));
        if at >= KEPT {
            return;
        }
        let pixels = found.iter().map(|&class| [class as u8]).collect();
        if let Some(mask) = Mask::new(self.size.0, self.size.1, pixels) {
            worst.insert(at, (loss, place, mask));
            worst.truncate(KEPT);
        }
    }

    fn nothing(&self) -> Vec<Vec<u64>> {
        vec![vec![0; self.classes]; self.classes]
    }

    /// All examples, whose parts come in their order.
    pub(super) fn finish(self, parts: impl IntoIterator<Item = Counted>) -> Masks {
        let mut all = Masks { confusion: self.nothing(), ..Masks::default() };
        for part in parts {
            all.examples.extend(part.examples);
            let sums = all.confusion.iter_mut().flatten();
            sums.zip(part.confusion.iter().flatten()).for_each(|(all, of)| *all += of);
        }
        let worst = self.worst.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.seen = worst.into_iter().map(|(_, place, mask)| (place, mask)).collect();
        all
    }
}
