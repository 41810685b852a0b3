//! The digits of the demo.

use std::path::Path;

use fthost_images::Normalised;

use crate::data::part::Part;

/// The optical digits of the UCI repository as scikit-learn orders them: 64 pixels (0 to 16) and a label (0 to 9) each.
/// Where they come from: `assets/README.md`.
pub(in crate::data) static DIGITS: &[u8] = include_bytes!("../../../assets/digits.bin");
/// Height and width of a digit.
pub(in crate::data) const SIDE: usize = 8;
const RECORD: usize = SIDE * SIDE + 1;
/// A level becomes `(level / WHITE - MEAN) / STD`.
const WHITE: f32 = 16.0;
const MEAN: f32 = 0.3051;
const STD: f32 = 0.3762;
/// Every fifth image of each class is held out.
const HELD_OUT: usize = 5;

/// How many classes the embedded data set of this name has.
pub(in crate::data) fn embedded_classes(path: &Path) -> Option<u8> {
    match path.to_str() {
        Some("demo") => Some(10),
        Some("demo-pretrain") => Some(5),
        _ => None,
    }
}

/// Digits in memory.
#[derive(Clone, Debug)]
pub(super) struct Digits {
    /// `[images, SIDE, SIDE]`.
    pixels: Vec<u8>,
}

impl Digits {
    /// The digits below `classes`, and the label of each. Always the same split: every fifth image of each digit is held out.
    pub(super) fn new(classes: u8, part: Part) -> (Self, Vec<u8>) {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let mut seen = [0usize; 10];
        for record in DIGITS.chunks_exact(RECORD) {
            let (image, label) = (&record[..RECORD - 1], record[RECORD - 1]);
            let seen = &mut seen[usize::from(label)];
            let held_out = *seen % HELD_OUT == HELD_OUT - 1;
            *seen += 1;
            if label < classes && held_out == (part == Part::Test) {
                pixels.extend_from_slice(image);
                labels.push(label);
            }
        }
        (Self { pixels }, labels)
    }

    /// The pixels of a digit.
    pub(super) fn bytes(&self, row: u32) -> &[u8] {
        &self.pixels[row as usize * SIDE * SIDE..][..SIDE * SIDE]
    }

    /// What a model takes of it, by mean and deviation of the training part of all ten digits.
    pub(super) fn normalised(&self, row: u32) -> Normalised {
        let values = self.bytes(row).iter().map(|&level| (f32::from(level) / WHITE - MEAN) / STD).collect();
        Normalised { height: SIDE, width: SIDE, channels: 1, values }
    }

    /// Bytes in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.pixels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_split_with_classes_balanced() {
        assert_eq!(DIGITS.len(), 1797 * RECORD);
        let count = |classes, part| {
            let labels = Digits::new(classes, part).1;
            (0..classes).map(|c| labels.iter().filter(|&&label| label == c).count()).collect::<Vec<_>>()
        };
        // Of n images of a class, n / 5 are held out.
        assert_eq!(count(10, Part::Train), [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]);
        assert_eq!(count(10, Part::Test), [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]);
        assert_eq!(count(5, Part::Train), [143, 146, 142, 147, 145]);
        assert_eq!(count(5, Part::Test), [35, 36, 35, 36, 36]);
    }

    #[test]
    fn digits_are_normalised_by_their_training_part() {
        let (digits, labels) = Digits::new(10, Part::Train);
        let values: Vec<f32> = (0..labels.len() as u32).flat_map(|row| digits.normalised(row).values).collect();
        assert_eq!(values.len(), 1442 * 64);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }

    #[test]
    fn the_first_digit_is_scikit_learns() {
        let (digits, labels) = Digits::new(10, Part::Train);
        assert_eq!(labels[..3], [0, 1, 2]);
        // scikit-learn's first image begins 0 0 5 13 9 1 0 0.
        let first = digits.normalised(0).values;
        let back: Vec<i32> = first[..8].iter().map(|v| ((v * STD + MEAN) * WHITE).round() as i32).collect();
        assert_eq!(back, [0, 0, 5, 13, 9, 1, 0, 0]);
    }
}
