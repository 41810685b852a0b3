//! Metrics of predictions of any number of classes for each example, as scikit-learn defines them for indicator matrices.
//!
//! Where a denominator is zero, precision, recall and F1 are zero.

use std::collections::BTreeMap;

use super::probabilities::{Probabilities, average_precision, roc_auc};
use super::scores::{Scores, average, ratio};

/// Values by the names of their metrics.
type Metrics = BTreeMap<String, f64>;

/// Names of the metrics of what is predicted, beside precision, recall and F1 of each of [`AVERAGES`].
const OF_PREDICTIONS: [&str; 2] = ["subset_accuracy", "hamming_loss"];
/// Names of those of probabilities.
pub const OF_PROBABILITIES: [&str; 2] = ["mean_average_precision", "roc_auc"];
/// Averages, as scikit-learn calls them.
const AVERAGES: [&str; 4] = ["micro", "macro", "weighted", "samples"];

/// Names of all of them.
pub fn names() -> impl Iterator<Item = String> {
    let scores = ["precision", "recall", "f1"];
    let averages = AVERAGES.iter().flat_map(move |average| scores.map(|score| format!("{average}_{score}")));
    averages.chain(OF_PREDICTIONS.into_iter().chain(OF_PROBABILITIES).map(str::to_owned))
}

/// Precision, recall and F1 by class, and their averages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelScores {
    /// Each class, in index order.
    pub classes: Vec<Scores>,
    /// By the names of averages: over all pairs of example and class, over the classes, over the classes by their true examples, over
    /// the examples.
    pub averages: Vec<(&'static str, Scores)>,
}

/// How often a class, or an example, is right.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    right: u64,
    actual: u64,
    predicted: u64,
}

impl Counts {
    fn scores(self) -> Scores {
        let Self { right, actual, predicted } = self;
        Scores {
            precision: ratio(right, predicted),
            recall: ratio(right, actual),
            f1: ratio(2 * right, actual + predicted),
            support: actual,
        }
    }
}

/// Of the classes of each example, true and predicted ones, each ascending and below `classes`.
pub fn scores(targets: &[Vec<u32>], predictions: &[Vec<u32>], classes: usize) -> LabelScores {
    let (mut by_class, mut all, mut by_example) = (vec![Counts::default(); classes], Counts::default(), Vec::new());
    for (target, prediction) in targets.iter().zip(predictions) {
        target.iter().for_each(|&class| by_class[class as usize].actual += 1);
        prediction.iter().for_each(|&class| by_class[class as usize].predicted += 1);
        let both = target.iter().filter(|class| prediction.binary_search(class).is_ok());
        let mut right = 0;
        both.for_each(|&class| {
            by_class[class as usize].right += 1;
            right += 1;
        });
        let of = Counts { right, actual: target.len() as u64, predicted: prediction.len() as u64 };
        by_example.push(of.scores());
    }
    for of in &by_class {
        all.right += of.right;
        all.actual += of.actual;
        all.predicted += of.predicted;
    }
    let classes: Vec<Scores> = by_class.into_iter().map(Counts::scores).collect();
    let support = all.actual;
    let averages = [
        all.scores(),
        average(&classes, support, |_| 1.0),
        average(&classes, support, |scores| scores.support as f64),
        average(&by_example, support, |_| 1.0),
    ];
    LabelScores { classes, averages: AVERAGES.into_iter().zip(averages).collect() }
}

impl LabelScores {
    fn to_map(&self) -> Metrics {
        let of = |(name, scores): &(&str, Scores)| {
            [("precision", scores.precision), ("recall", scores.recall), ("f1", scores.f1)]
                .map(|(score, value)| (format!("{name}_{score}"), value))
        };
        self.averages.iter().flat_map(of).collect()
    }
}

/// All metrics by name. Those of probabilities are no number where these are not kept, or a probability is none; ROC-AUC also where
/// all examples have a class, or none has it.
pub fn of(
    targets: &[Vec<u32>],
    predictions: &[Vec<u32>],
    probabilities: Option<&Probabilities>,
    classes: usize,
) -> Metrics {
    let mut metrics = scores(targets, predictions, classes).to_map();
    let examples = targets.len() as u64;
    let pairs = || targets.iter().zip(predictions);
    let whole = pairs().filter(|(target, prediction)| target == prediction).count() as u64;
    let wrong = pairs().map(|(target, prediction)| {
        let both = target.iter().filter(|class| prediction.binary_search(class).is_ok()).count();
        (target.len() + prediction.len() - 2 * both) as u64
    });
    metrics.insert(OF_PREDICTIONS[0].into(), ratio(whole, examples));
    metrics.insert(OF_PREDICTIONS[1].into(), ratio(wrong.sum(), examples * classes as u64));
    let kept = probabilities.filter(|all| all.are_finite());
    let of = [average_precision, roc_auc].map(|metric| kept.map_or(f64::NAN, |all| by_class(all, targets, metric)));
    metrics.extend(OF_PROBABILITIES.iter().zip(of).map(|(name, value)| ((*name).to_owned(), value)));
    metrics
}

/// The mean over the classes of a metric of each, having it against having it not.
fn by_class(probabilities: &Probabilities, targets: &[Vec<u32>], metric: fn(&[(f32, bool)]) -> f64) -> f64 {
    let classes = probabilities.classes();
    let of = |class: usize| {
        let scored = probabilities.rows().zip(targets);
        let mut scored: Vec<(f32, bool)> =
            scored.map(|(row, target)| (row[class], target.binary_search(&(class as u32)).is_ok())).collect();
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        metric(&scored)
    };
    (0..classes).map(of).sum::<f64>() / classes as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::Value;

    use super::*;

    fn reference() -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/multi_label.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        all["metrics"].as_array().unwrap().clone()
    }

    /// The classes that have a 1 in each row.
    fn classes(rows: &Value) -> Vec<Vec<u32>> {
        let rows: Vec<Vec<u32>> = serde_json::from_value(rows.clone()).unwrap();
        let of = |row: Vec<u32>| (0..).zip(row).filter(|(_, there)| *there == 1).map(|(class, _)| class).collect();
        rows.into_iter().map(of).collect()
    }

    #[test]
    fn metrics_are_scikit_learns() {
        let cases = reference();
        assert!(cases.len() >= 5);
        for case in &cases {
            let probabilities: Vec<Vec<f32>> = serde_json::from_value(case["probabilities"].clone()).unwrap();
            let number = probabilities[0].len();
            let all = Probabilities::new(number, probabilities.concat());
            let found = of(&classes(&case["true"]), &classes(&case["predicted"]), Some(&all), number);
            let expected = case["values"].as_object().unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            let mut all: Vec<String> = names().collect();
            all.sort();
            assert_eq!(found.keys().cloned().collect::<Vec<_>>(), all);
            for (name, value) in &found {
                match expected[name].as_f64() {
                    Some(expected) => assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected}"),
                    None => assert!(value.is_nan(), "{name}: {value}"),
                }
            }
        }
    }

    #[test]
    fn probabilities_that_are_not_kept_or_no_numbers_have_no_metrics() {
        let (targets, predictions) = ([vec![0], vec![]], [vec![0], vec![1]]);
        let bad = Probabilities::new(2, vec![f32::NAN, 0.0, 0.0, 1.0]);
        for found in [of(&targets, &predictions, None, 2), of(&targets, &predictions, Some(&bad), 2)] {
            assert!(OF_PROBABILITIES.iter().all(|name| found[*name].is_nan()) && found["micro_f1"] > 0.0, "{found:?}");
        }
    }
}
