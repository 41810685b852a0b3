//! Metrics, as scikit-learn and SciPy define them.

pub mod answers;
pub mod masks;
pub mod matches;
pub mod multi_label;
pub mod preferences;
pub mod probabilities;
mod rouge;
mod scores;
pub mod tokens;
pub mod values;

use std::collections::BTreeMap;

use fthost_plugin_api::{MetricSpec, PredictionKind};
pub use probabilities::Probabilities;
pub use scores::Scores;
pub(super) use scores::{average, ratio};

/// Values by the names of their metrics.
pub type Metrics = BTreeMap<String, f64>;

/// Whether a greater value of a metric is a better one: not so for losses and errors.
pub fn higher_is_better(metric: &str) -> bool {
    ![
        "loss",
        "mse",
        "rmse",
        "mae",
        "log_loss",
        "brier",
        "calibration_error",
        "hamming_loss",
        "perplexity",
        "rewards_rejected",
        "mean_rank",
    ]
    .contains(&metric)
}

/// What a head says of that, where the metric is one of its own.
pub fn said_of(metric: &str, own: &[MetricSpec]) -> Option<bool> {
    own.iter().find(|own| own.name == metric).map(|own| own.higher_is_better)
}

/// As [`higher_is_better`], unless a head has [said](said_of) it.
pub fn higher_is_better_or_said(metric: &str, said: Option<bool>) -> bool {
    said.unwrap_or_else(|| higher_is_better(metric))
}

/// The metrics of a kind of predictions, the loss among them; `classes` is how many there are.
pub fn names(kind: PredictionKind, classes: usize) -> Vec<String> {
    let mut names: Vec<String> = match kind {
        PredictionKind::Classes => {
            let of_classes = self::classes(&[0, 1], &[0, 1], 2).to_map().into_keys();
            of_classes.chain(probabilities::names(classes)).collect()
        }
        PredictionKind::MultiLabel => multi_label::names().collect(),
        PredictionKind::Values => values::NAMES.map(str::to_owned).into(),
        PredictionKind::Masks => masks::NAMES.map(str::to_owned).into(),
        PredictionKind::Tokens => tokens::NAMES.map(str::to_owned).into(),
        PredictionKind::Preferences => preferences::NAMES.map(str::to_owned).into(),
        PredictionKind::Embeddings => matches::names().collect(),
    };
    names.push("loss".into());
    names.sort();
    names
}

/// Why a metric is not a number, where `finite` says whether what the model predicts is.
pub fn why_undefined(metric: &str, finite: bool) -> &'static str {
    match metric {
        _ if !finite => "the model predicts what is no number",
        "roc_auc" => "a class has no example, or there is no example of another",
        "kappa" => "the truth and the predictions are all of one class",
        "pearson" | "spearman" => "the true values or the predicted ones are all the same",
        "r2" => "it takes two examples",
        tokens::PERPLEXITY => "no token of the examples counts",
        metric if masks::NAMES.contains(&metric) => "no pixel of the examples has a class",
        _ => "there is no example",
    }
}

/// Metrics of class predictions. Averages go over the classes that occur among the targets or the predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMetrics {
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean recall of the classes that have examples.
    pub balanced_accuracy: f64,
    /// Mean over the classes.
    pub macro_average: Scores,
    /// Mean over the classes, weighted by their true examples.
    pub weighted_average: Scores,
    /// Matthews' correlation coefficient, for any number of classes.
    pub matthews: f64,
    /// Cohen's kappa: agreement beyond that of chance; not a number where both sides have one class, the same.
    pub kappa: f64,
    /// Each class, in index order; `None` where it does not occur at all.
    pub classes: Vec<Option<Scores>>,
}

/// Metrics of predicted classes against true ones, each below `classes`.
pub fn classes(targets: &[u32], predictions: &[u32], classes: usize) -> ClassMetrics {
    of_confusion(&confusion_matrix(targets, predictions, classes))
}

/// The same of how often each class (row) was predicted as each (column).
pub fn of_confusion(confusion: &[Vec<u64>]) -> ClassMetrics {
    let actual: Vec<u64> = confusion.iter().map(|row| row.iter().sum()).collect();
    let predicted: Vec<u64> = (0..confusion.len()).map(|class| confusion.iter().map(|row| row[class]).sum()).collect();
    let right: Vec<u64> = (0..confusion.len()).map(|class| confusion[class][class]).collect();
    let total: u64 = actual.iter().sum();

    let by_class: Vec<Option<Scores>> = (0..confusion.len())
        .map(|class| {
            let (right, actual, predicted) = (right[class], actual[class], predicted[class]);
            (actual + predicted > 0).then(|| Scores {
                precision: ratio(right, predicted),
                recall: ratio(right, actual),
                f1: ratio(2 * right, actual + predicted),
                support: actual,
            })
        })
        .collect();
    let all: Vec<Scores> = by_class.iter().copied().flatten().collect();
    let true_ones: Vec<Scores> = all.iter().copied().filter(|scores| scores.support > 0).collect();
    ClassMetrics {
        accuracy: ratio(right.iter().sum(), total),
        balanced_accuracy: average(&true_ones, total, |_| 1.0).recall,
        macro_average: average(&all, total, |_| 1.0),
        weighted_average: average(&all, total, |scores| scores.support as f64),
        matthews: matthews(&right, &actual, &predicted),
        kappa: kappa(&right, &actual, &predicted),
        classes: by_class,
    }
}

/// Counts of examples by true class (row) and predicted class (column), `[classes, classes]`. The targets and predictions are
/// below `classes`.
pub fn confusion_matrix(targets: &[u32], predictions: &[u32], classes: usize) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; classes]; classes];
    for (&target, &prediction) in targets.iter().zip(predictions) {
        counts[target as usize][prediction as usize] += 1;
    }
    counts
}

/// Gorodkin's form for several classes, computed in whole numbers; zero where one side has one class only.
fn matthews(right: &[u64], actual: &[u64], predicted: &[u64]) -> f64 {
    let dot = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(&a, &b)| i128::from(a) * i128::from(b)).sum::<i128>();
    let total: i128 = actual.iter().map(|&n| i128::from(n)).sum();
    let right: i128 = right.iter().map(|&n| i128::from(n)).sum();
    let covariance = |a: &[u64], b: &[u64], both: i128| both - dot(a, b);
    let (of_actual, of_predicted) =
        (covariance(actual, actual, total * total), covariance(predicted, predicted, total * total));
    if of_actual == 0 || of_predicted == 0 {
        return 0.0;
    }
    covariance(actual, predicted, right * total) as f64 / (of_actual as f64 * of_predicted as f64).sqrt()
}

/// One minus the disagreement over that of chance, in whole numbers up to the division.
fn kappa(right: &[u64], actual: &[u64], predicted: &[u64]) -> f64 {
    let total: i128 = actual.iter().map(|&n| i128::from(n)).sum();
    let right: i128 = right.iter().map(|&n| i128::from(n)).sum();
    let chance: i128 = actual.iter().zip(predicted).map(|(&a, &p)| i128::from(a) * i128::from(p)).sum();
    if total * total == chance {
        return f64::NAN;
    }
    1.0 - (total * (total - right)) as f64 / (total * total - chance) as f64
}

impl ClassMetrics {
    /// Names and values: `accuracy`, `macro_f1`, ...
    pub fn to_map(&self) -> Metrics {
        let Self { accuracy, balanced_accuracy, macro_average, weighted_average, matthews, kappa, classes: _ } = self;
        let mut map = Metrics::from(
            [
                ("accuracy", *accuracy),
                ("balanced_accuracy", *balanced_accuracy),
                ("matthews", *matthews),
                ("kappa", *kappa),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        for (name, scores) in [("macro", macro_average), ("weighted", weighted_average)] {
            map.insert(format!("{name}_precision"), scores.precision);
            map.insert(format!("{name}_recall"), scores.recall);
            map.insert(format!("{name}_f1"), scores.f1);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::probabilities::{Bin, most_probable};
    use super::*;

    fn reference() -> serde_json::Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/metrics.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn close(name: &str, value: f64, expected: &serde_json::Value) {
        match expected.as_f64() {
            Some(expected) => assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected}"),
            None => assert!(value.is_nan(), "{name}: {value}"),
        }
    }

    #[test]
    fn class_metrics_are_scikit_learns() {
        for case in reference()["classes"].as_array().unwrap() {
            let numbers = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
            let found = classes(&numbers("true"), &numbers("predicted"), 5).to_map();
            let expected = case["metrics"].as_object().unwrap();
            assert_eq!(found.len(), expected.len());
            found.iter().for_each(|(name, value)| close(name, *value, &expected[name]));
        }
    }

    #[test]
    fn value_metrics_are_scikit_learns_and_scipys() {
        for case in reference()["values"].as_array().unwrap() {
            let numbers = |key: &str| serde_json::from_value::<Vec<f32>>(case[key].clone()).unwrap();
            let found = values::of(&numbers("true"), &numbers("predicted"));
            let expected = case["metrics"].as_object().unwrap();
            assert_eq!(found.len(), expected.len());
            found.iter().for_each(|(name, value)| close(name, *value, &expected[name]));
        }
    }

    #[test]
    fn probability_metrics_are_scikit_learns() {
        let reference = reference();
        let cases = reference["probabilities"].as_array().unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let targets: Vec<u32> = serde_json::from_value(case["true"].clone()).unwrap();
            let rows: Vec<Vec<f32>> = serde_json::from_value(case["probabilities"].clone()).unwrap();
            let p = Probabilities::new(rows[0].len(), rows.concat());
            let predictions: Vec<u32> = rows.iter().map(|row| most_probable(row)).collect();
            let found = p.metrics(&targets, &predictions);
            let expected = case["metrics"].as_object().unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            found.iter().for_each(|(name, value)| close(name, *value, &expected[name]));
            let bins = p.reliability(&targets, &predictions);
            let (accuracy, confidence) = (|b: &Bin| b.accuracy, |b: &Bin| b.confidence);
            for (key, of) in [("bin_accuracy", &accuracy as &dyn Fn(&Bin) -> f64), ("bin_confidence", &confidence)] {
                let expected = case[key].as_array().unwrap();
                assert_eq!(bins.len(), expected.len());
                bins.iter().zip(expected).for_each(|(bin, expected)| close(key, of(bin), expected));
            }
        }
    }

    #[test]
    fn every_metric_has_a_direction_and_what_is_no_number_a_reason() {
        let all = names(PredictionKind::Classes, 77);
        assert!(
            ["top_3_accuracy", "top_5_accuracy", "roc_auc", "kappa"].iter().all(|name| all.contains(&(*name).into()))
        );
        assert!(!names(PredictionKind::Classes, 3).contains(&"top_3_accuracy".to_owned()));
        let lower: Vec<&str> = all.iter().map(String::as_str).filter(|name| !higher_is_better(name)).collect();
        assert_eq!(lower, ["brier", "calibration_error", "log_loss", "loss"]);
        let p = Probabilities::new(2, vec![f32::NAN, f32::NAN, 0.5, 0.5]);
        assert!(p.metrics(&[0, 1], &[0, 0]).values().all(|value| value.is_nan()));
        assert!(why_undefined("roc_auc", false).contains("no number"));
    }
}
