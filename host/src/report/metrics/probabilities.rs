//! Metrics of the probabilities that a model gives to classes.
//!
//! Of two classes the second is the positive one. Of more, ROC-AUC and PR-AUC are means over each class against the rest.

use std::collections::BTreeMap;

use serde::Serialize;

/// Bins of the reliability curve, as Guo et al. 2017 (arXiv:1706.04599) have them.
const BINS: usize = 15;
/// How many of the most probable classes may hold the true one.
const TOP: [usize; 2] = [3, 5];
/// What scikit-learn takes a probability of 0 for in the logarithm.
const LEAST: f64 = f64::EPSILON;

/// Names of the metrics, of which some need more classes than `k`: the true one is always among three of three.
pub fn names(classes: usize) -> impl Iterator<Item = String> {
    let top = TOP.into_iter().filter(move |&k| k < classes).map(top_name);
    let always = ["roc_auc", "pr_auc", "log_loss", "brier", "calibration_error"];
    always.into_iter().map(str::to_owned).chain(top)
}

fn top_name(k: usize) -> String {
    format!("top_{k}_accuracy")
}

/// Probabilities of the classes, `[examples, classes]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probabilities {
    classes: usize,
    values: Vec<f32>,
}

/// One bin of the reliability curve: predictions whose probability lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Where it begins; the bound itself belongs to the bin before.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Predictions in it.
    pub examples: u64,
    /// Their mean probability.
    pub confidence: f64,
    /// Share of them that is right.
    pub accuracy: f64,
}

impl Probabilities {
    /// From the values, row after row.
    pub fn new(classes: usize, values: Vec<f32>) -> Self {
        Self { classes, values }
    }

    /// The rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.classes.max(1))
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether all are numbers.
    pub fn are_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    /// All metrics by name; `predictions` are the predicted classes. None is a number where a probability is none.
    pub fn metrics(&self, targets: &[u32], predictions: &[u32]) -> BTreeMap<String, f64> {
        if !self.are_finite() {
            return names(self.classes).map(|name| (name, f64::NAN)).collect();
        }
        let value = |name: &String| self.metric(name, targets, predictions);
        names(self.classes).map(|name| (name.clone(), value(&name).unwrap_or(f64::NAN))).collect()
    }

    /// One of them.
    pub fn metric(&self, name: &str, targets: &[u32], predictions: &[u32]) -> Option<f64> {
        Some(match name {
            "roc_auc" => self.against_the_rest(targets, roc_auc),
            "pr_auc" => self.against_the_rest(targets, average_precision),
            "log_loss" => self.log_loss(targets),
            "brier" => self.brier(targets),
            "calibration_error" => calibration_error(&self.reliability(targets, predictions)),
            _ => self.top(*TOP.iter().find(|&&k| top_name(k) == name)?, targets),
        })
    }

    /// The mean of a metric of two classes over each class against the rest; of two classes that of the second.
    fn against_the_rest(&self, targets: &[u32], metric: fn(&[(f32, bool)]) -> f64) -> f64 {
        let classes = if self.classes == 2 { 1..2 } else { 0..self.classes };
        let n = classes.len();
        let of = |class: usize| {
            let scored = self.rows().zip(targets).map(|(row, &target)| (row[class], target as usize == class));
            let mut scored: Vec<(f32, bool)> = scored.collect();
            scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            metric(&scored)
        };
        classes.map(of).sum::<f64>() / n as f64
    }

    /// Mean negative logarithm of the true class's probability.
    fn log_loss(&self, targets: &[u32]) -> f64 {
        mean(
            self.rows()
                .zip(targets)
                .map(|(row, &target)| -f64::from(row[target as usize]).clamp(LEAST, 1.0 - LEAST).ln()),
        )
    }

    /// Mean squared distance from certainty of the truth: from 0 to 2, and of two classes, as is usual, from 0 to 1.
    fn brier(&self, targets: &[u32]) -> f64 {
        let distance = |row: &[f32], target: usize| {
            let of = |(class, &p): (usize, &f32)| (f64::from(p) - f64::from(u8::from(class == target))).powi(2);
            row.iter().enumerate().map(of).sum::<f64>()
        };
        let all = mean(self.rows().zip(targets).map(|(row, &target)| distance(row, target as usize)));
        if self.classes == 2 { all / 2.0 } else { all }
    }

    /// Share of the examples whose true class is among the `k` most probable ones; of equal ones the last count first, as in
    /// scikit-learn.
    fn top(&self, k: usize, targets: &[u32]) -> f64 {
        let hit = |(row, &target): (&[f32], &u32)| {
            let (target, p) = (target as usize, row[target as usize]);
            let before = row.iter().enumerate().filter(|&(class, &other)| other > p || (other == p && class > target));
            f64::from(u8::from(before.count() < k))
        };
        mean(self.rows().zip(targets).map(hit))
    }

    /// The reliability curve: predictions by their probability, in bins of equal width; those without any are left out.
    pub fn reliability(&self, targets: &[u32], predictions: &[u32]) -> Vec<Bin> {
        let edge = |bin: usize| bin as f64 / BINS as f64;
        let mut sums = [(0u64, 0.0, 0u64); BINS];
        for ((row, target), &predicted) in self.rows().zip(targets).zip(predictions) {
            let confidence = f64::from(row[predicted as usize]);
            let bin = (1..BINS).filter(|&inner| edge(inner) < confidence).count();
            let (examples, confidences, right) = &mut sums[bin];
            *examples += 1;
            *confidences += confidence;
            *right += u64::from(*target == predicted);
        }
        let bin = |(bin, &(examples, confidences, right)): (usize, &(u64, f64, u64))| Bin {
            from: edge(bin),
            to: edge(bin + 1),
            examples,
            confidence: confidences / examples as f64,
            accuracy: right as f64 / examples as f64,
        };
        sums.iter().enumerate().filter(|(_, sums)| sums.0 > 0).map(bin).collect()
    }
}

/// Expected calibration error: the mean distance between probability and accuracy of the bins, weighted by their predictions.
pub fn calibration_error(bins: &[Bin]) -> f64 {
    let all: u64 = bins.iter().map(|bin| bin.examples).sum();
    bins.iter().map(|bin| bin.examples as f64 / all as f64 * (bin.accuracy - bin.confidence).abs()).sum()
}

/// The first of the most probable classes.
pub fn most_probable(probabilities: &[f32]) -> u32 {
    let first = (0, probabilities.first().copied().unwrap_or_default());
    let places = (0..).zip(probabilities.iter().copied());
    places.fold(first, |best, (class, p)| if p > best.1 { (class, p) } else { best }).0
}

/// How many examples of either kind come with each score, from the highest: right ones, then others.
fn thresholds(scored: &[(f32, bool)]) -> impl Iterator<Item = (u64, u64)> {
    scored.chunk_by(|a, b| a.0 == b.0).map(|equal| {
        let positive = equal.iter().filter(|(_, positive)| *positive).count() as u64;
        (positive, equal.len() as u64 - positive)
    })
}

/// The share of pairs, one of the class and one not, that the scores order right, equal ones half; not a number where there are none.
/// `scored` begins with the highest.
pub(super) fn roc_auc(scored: &[(f32, bool)]) -> f64 {
    let (mut above, mut halves, mut others) = (0, 0u128, 0);
    for (positive, negative) in thresholds(scored) {
        halves += u128::from(negative) * u128::from(2 * above + positive);
        above += positive;
        others += negative;
    }
    halves as f64 / (2.0 * above as f64 * others as f64)
}

/// The mean of the precisions at each score, weighted by the recall that it adds; 0 where the class has no example.
pub(super) fn average_precision(scored: &[(f32, bool)]) -> f64 {
    let all: u64 = scored.iter().map(|&(_, positive)| u64::from(positive)).sum();
    if all == 0 {
        return 0.0;
    }
    let (mut found, mut taken, mut sum) = (0, 0, 0.0);
    for (positive, negative) in thresholds(scored) {
        found += positive;
        taken += positive + negative;
        sum += positive as f64 / all as f64 * (found as f64 / taken as f64);
    }
    sum
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0u64);
    values.for_each(|value| {
        sum += value;
        n += 1;
    });
    sum / n as f64
}
