//! Metrics of predicted masks, from how the pixels of each class that are true and those that are predicted meet. As scikit-learn's
//! `jaccard_score` and the like over all pixels at once: averages go over the classes that occur among the true or the predicted pixels.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// Values by the names of their metrics.
type Metrics = BTreeMap<String, f64>;

/// Names of the metrics, the one that says most first.
pub const NAMES: [&str; 5] = ["mean_iou", "pixel_accuracy", "mean_pixel_accuracy", "mean_dice", "weighted_iou"];

/// The pixels of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// True pixels that are predicted as the class.
    pub right: u64,
    /// Its true pixels.
    pub target: u64,
    /// Those that are predicted as the class, among the pixels that have one.
    pub predicted: u64,
}

impl AddAssign for Overlap {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.target += other.target;
        self.predicted += other.predicted;
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Overlap {
    /// Intersection over union of true and predicted pixels; `None` where the class occurs in neither.
    pub fn iou(&self) -> Option<f64> {
        share(self.right, self.target + self.predicted - self.right)
    }

    /// The share of its true pixels that are predicted as it; `None` where it has none.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.right, self.target)
    }

    /// The share of the pixels predicted as it that are of it; `None` where there are none.
    pub fn precision(&self) -> Option<f64> {
        share(self.right, self.predicted)
    }

    /// Twice the intersection over the sum of both, which is F1; `None` where the class occurs in neither.
    fn dice(&self) -> Option<f64> {
        share(2 * self.right, self.target + self.predicted)
    }
}

/// Of counts of pixels by true class (row) and predicted class (column).
pub fn overlaps(confusion: &[Vec<u64>]) -> Vec<Overlap> {
    let of = |class: usize| Overlap {
        right: confusion[class][class],
        target: confusion[class].iter().sum(),
        predicted: confusion.iter().map(|row| row[class]).sum(),
    };
    (0..confusion.len()).map(of).collect()
}

/// All metrics by name; not a number where no pixel has a class.
pub fn of(classes: &[Overlap]) -> Metrics {
    let mean = |of: fn(&Overlap) -> Option<f64>| {
        let found: Vec<f64> = classes.iter().filter_map(of).collect();
        if found.is_empty() { f64::NAN } else { found.iter().sum::<f64>() / found.len() as f64 }
    };
    let all = classes.iter().map(|of| of.target).sum::<u64>();
    let right = classes.iter().map(|of| of.right).sum::<u64>();
    let weighted: f64 = classes.iter().map(|of| of.target as f64 * of.iou().unwrap_or_default()).sum();
    let values = [
        mean(Overlap::iou),
        share(right, all).unwrap_or(f64::NAN),
        mean(Overlap::accuracy),
        mean(Overlap::dice),
        weighted / all as f64,
    ];
    NAMES.into_iter().map(str::to_owned).zip(values).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn metrics_are_scikit_learns() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/masks.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let numbers = |key: &str| serde_json::from_value::<Vec<usize>>(case[key].clone()).unwrap();
            let classes = case["classes"].as_u64().unwrap() as usize;
            let mut confusion = vec![vec![0; classes]; classes];
            numbers("true").into_iter().zip(numbers("predicted")).for_each(|(t, p)| confusion[t][p] += 1);
            let overlaps = overlaps(&confusion);
            let found = of(&overlaps);
            for (name, expected) in case["metrics"].as_object().unwrap() {
                assert!((found[name] - expected.as_f64().unwrap()).abs() < 1e-12, "{name}: {found:?}");
            }
            assert_eq!(found.len(), case["metrics"].as_object().unwrap().len());
            for (overlap, expected) in overlaps.iter().zip(case["iou"].as_array().unwrap()) {
                match (overlap.iou(), expected.as_f64()) {
                    (Some(iou), Some(expected)) => assert!((iou - expected).abs() < 1e-12),
                    (iou, expected) => assert_eq!(iou, expected),
                }
            }
        }
        assert!(of(&[Overlap::default()]).values().all(|value| value.is_nan()));
    }
}
