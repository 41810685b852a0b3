//! Metrics, as scikit-learn and SciPy define them.

use std::collections::BTreeMap;

use fthost_plugin_api::PredictionKind;

/// Whether a greater value of a metric is a better one: not so for losses and errors.
pub fn higher_is_better(metric: &str) -> bool {
    !["loss", "mse", "mae"].contains(&metric)
}

/// The metrics of a kind of predictions, the loss among them.
pub fn names(kind: PredictionKind) -> Vec<String> {
    let mut names: Vec<String> = match kind {
        PredictionKind::Classes => classes(&[0, 1], &[0, 1], 2).to_map().into_keys().collect(),
        PredictionKind::Values => values(&[0.0, 1.0], &[0.0, 1.0]).to_map().into_keys().collect(),
    };
    names.push("loss".into());
    names.sort();
    names
}

/// Precision, recall and F1 of one class, or averages of them. Where a denominator is zero, zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Of the examples predicted as the class, the share that is of it.
    pub precision: f64,
    /// Of the class's examples, the share predicted as it.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// True examples.
    pub support: u64,
}

/// Metrics of class predictions. Averages go over the classes that occur among the targets or the predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMetrics {
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean over the classes.
    pub macro_average: Scores,
    /// Mean over the classes, weighted by their true examples.
    pub weighted_average: Scores,
    /// Matthews' correlation coefficient, for any number of classes.
    pub matthews: f64,
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
    ClassMetrics {
        accuracy: ratio(right.iter().sum(), total),
        macro_average: average(&all, total, |_| 1.0),
        weighted_average: average(&all, total, |scores| scores.support as f64),
        matthews: matthews(&right, &actual, &predicted),
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

/// A share; zero of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn average(all: &[Scores], support: u64, weight: impl Fn(&Scores) -> f64) -> Scores {
    let whole: f64 = all.iter().map(&weight).sum();
    let mean = |score: fn(&Scores) -> f64| match whole {
        0.0 => 0.0,
        whole => all.iter().map(|scores| score(scores) * weight(scores)).sum::<f64>() / whole,
    };
    Scores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1), support }
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

impl ClassMetrics {
    /// Names and values: `accuracy`, `macro_f1`, ...
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        let Self { accuracy, macro_average, weighted_average, matthews, classes: _ } = self;
        let mut map = BTreeMap::from([("accuracy".to_owned(), *accuracy), ("matthews".to_owned(), *matthews)]);
        for (name, scores) in [("macro", macro_average), ("weighted", weighted_average)] {
            map.insert(format!("{name}_precision"), scores.precision);
            map.insert(format!("{name}_recall"), scores.recall);
            map.insert(format!("{name}_f1"), scores.f1);
        }
        map
    }
}

/// Metrics of predicted values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueMetrics {
    /// Mean squared error.
    pub mse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Pearson's correlation; not a number where one side is constant.
    pub pearson: f64,
    /// Spearman's rank correlation, equal values sharing their mean rank; not a number where one side is constant.
    pub spearman: f64,
}

/// Metrics of predicted values against true ones.
pub fn values(targets: &[f32], predictions: &[f32]) -> ValueMetrics {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let (targets, predictions) = (wide(targets), wide(predictions));
    ValueMetrics {
        mse: mse(&targets, &predictions),
        mae: mae(&targets, &predictions),
        pearson: pearson(&targets, &predictions),
        spearman: spearman(&targets, &predictions),
    }
}

/// How one metric is computed from true and predicted numbers.
pub type Score = fn(&[f64], &[f64]) -> f64;

/// One metric of predicted values by its name; `None` where there is none of that name, and for the loss, which is the head's.
pub fn value_score(metric: &str) -> Option<Score> {
    let known: [(&str, Score); 4] = [("mse", mse), ("mae", mae), ("pearson", pearson), ("spearman", spearman)];
    known.into_iter().find(|(name, _)| *name == metric).map(|(_, score)| score)
}

fn mse(targets: &[f64], predictions: &[f64]) -> f64 {
    mean_error(targets, predictions, |error| error * error)
}

fn mae(targets: &[f64], predictions: &[f64]) -> f64 {
    mean_error(targets, predictions, f64::abs)
}

fn mean_error(targets: &[f64], predictions: &[f64], error: fn(f64) -> f64) -> f64 {
    let sum: f64 = targets.iter().zip(predictions).map(|(target, prediction)| error(prediction - target)).sum();
    sum / targets.len() as f64
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect::<Vec<_>>()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let constant = |values: &[f64]| values.windows(2).all(|pair| pair[0] == pair[1]);
    if constant(a) || constant(b) {
        return f64::NAN;
    }
    let (a, b) = (centred(a), centred(b));
    (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).clamp(-1.0, 1.0)
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&place| ranks[place] = mean);
        start += equal.len();
    }
    ranks
}

impl ValueMetrics {
    /// Names and values.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        let Self { mse, mae, pearson, spearman } = *self;
        [("mse", mse), ("mae", mae), ("pearson", pearson), ("spearman", spearman)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
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
    fn value_metrics_are_scipys() {
        for case in reference()["values"].as_array().unwrap() {
            let numbers = |key: &str| serde_json::from_value::<Vec<f32>>(case[key].clone()).unwrap();
            let found = values(&numbers("true"), &numbers("predicted")).to_map();
            let expected = case["metrics"].as_object().unwrap();
            assert_eq!(found.len(), expected.len());
            found.iter().for_each(|(name, value)| close(name, *value, &expected[name]));
        }
    }
}
