//! Images in memory, and the digits of the demo.

use std::path::Path;

use fthost_autograd::{Device, Tensor};

use crate::Result;

/// Images of one size, as bytes; they become normalised floats when a batch is taken.
#[derive(Clone, Debug)]
pub(super) struct Images {
    /// `[images, channels, height, width]`.
    pub(super) pixels: Vec<u8>,
    /// `[channels, height, width]`.
    pub(super) shape: [usize; 3],
    /// A pixel becomes `(value / white - mean) / std`.
    pub(super) white: f32,
    pub(super) mean: f32,
    pub(super) std: f32,
    /// Where a batch goes.
    pub(super) device: Device,
}

impl Images {
    /// The pixels of an image.
    pub(super) fn bytes(&self, row: u32) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[row as usize * size..][..size]
    }

    /// Normalised images, `[rows, height, width, channels]`.
    pub(super) fn take(&self, rows: &[u32]) -> Result<Tensor> {
        let levels: [f32; 256] = std::array::from_fn(|value| (value as f32 / self.white - self.mean) / self.std);
        let [channels, height, width] = self.shape;
        let size = channels * height * width;
        let mut values = Vec::with_capacity(rows.len() * size);
        for &row in rows {
            values.extend(self.bytes(row).iter().map(|&value| levels[usize::from(value)]));
        }
        let images = Tensor::from_vec(values, (rows.len(), channels, height, width), &self.device)?;
        Ok(images.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is trained on.
    Train,
    /// What is held out.
    Test,
}

/// The optical digits of the UCI repository as scikit-learn orders them: 64 pixels (0 to 16) and a label (0 to 9) each.
/// Where they come from: `assets/README.md`.
pub(super) static DIGITS: &[u8] = include_bytes!("../../assets/digits.bin");
const SIDE: usize = 8;
const RECORD: usize = SIDE * SIDE + 1;
/// Every fifth image of each class is held out.
const HELD_OUT: usize = 5;

/// How many classes the embedded data set of this name has.
pub(super) fn embedded_classes(path: &Path) -> Option<u8> {
    match path.to_str() {
        Some("demo") => Some(10),
        Some("demo-pretrain") => Some(5),
        _ => None,
    }
}

/// The digits below `classes`: images, and the label of each. Always the same split: every fifth image of each digit is
/// held out.
pub(super) fn digits(classes: u8, part: Part, device: &Device) -> (Images, Vec<u8>) {
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
    // Mean and deviation of the training part of all ten digits.
    let images =
        Images { pixels, shape: [1, SIDE, SIDE], white: 16.0, mean: 0.3051, std: 0.3762, device: device.clone() };
    (images, labels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn digits_are_split_with_classes_balanced() {
        assert_eq!(DIGITS.len(), 1797 * RECORD);
        let count = |classes, part| {
            let labels = digits(classes, part, &Device::Cpu).1;
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
        let (images, labels) = digits(10, Part::Train, &Device::Cpu);
        let rows: Vec<u32> = (0..labels.len() as u32).collect();
        let all = images.take(&rows).unwrap();
        assert_eq!(all.dims(), [1442, 1, 8, 8]);
        let values: Vec<f32> = all.flatten_all().unwrap().to_vec1().unwrap();
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }

    #[test]
    fn rows_are_taken_in_order() {
        let (images, labels) = digits(10, Part::Train, &Device::Cpu);
        assert_eq!(labels[..3], [0, 1, 2]);
        // scikit-learn's first image begins 0 0 5 13 9 1 0 0.
        let first: Vec<f32> = images.take(&[2, 0]).unwrap().get(1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let back: Vec<i32> = first[..8].iter().map(|v| ((v * 0.3762 + 0.3051) * 16.0).round() as i32).collect();
        assert_eq!(back, [0, 0, 5, 13, 9, 1, 0, 0]);
    }
}
