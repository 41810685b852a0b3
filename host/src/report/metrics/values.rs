//! Metrics of predicted values.

use std::collections::BTreeMap;

/// Names of the metrics.
pub const NAMES: [&str; 6] = ["mse", "rmse", "mae", "r2", "pearson", "spearman"];

/// How one metric is computed from true and predicted numbers.
pub type Score = fn(&[f64], &[f64]) -> f64;

/// Metrics of predicted values against true ones, by name.
pub fn of(targets: &[f32], predictions: &[f32]) -> BTreeMap<String, f64> {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let (targets, predictions) = (wide(targets), wide(predictions));
    let value = |name: &str| Some((name.to_owned(), score(name)?(&targets, &predictions)));
    NAMES.into_iter().filter_map(value).collect()
}

/// One metric of predicted values by its name; `None` where there is none of that name, and for the loss, which is the head's.
pub fn score(metric: &str) -> Option<Score> {
    Some(match metric {
        "mse" => mse,
        "rmse" => |targets, predictions| mse(targets, predictions).sqrt(),
        "mae" => mae,
        "r2" => r2,
        "pearson" => pearson,
        "spearman" => spearman,
        _ => return None,
    })
}

/// The share of the targets' variance that the predictions explain; below 0 where they do worse than the mean. Of constant targets 1
/// where each prediction is right, else 0; not a number of fewer than two.
fn r2(targets: &[f64], predictions: &[f64]) -> f64 {
    if targets.len() < 2 {
        return f64::NAN;
    }
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let unexplained: f64 = targets.iter().zip(predictions).map(|(target, found)| (target - found).powi(2)).sum();
    let all: f64 = targets.iter().map(|target| (target - mean).powi(2)).sum();
    match (unexplained, all) {
        (0.0, 0.0) => 1.0,
        (unexplained, 0.0) if !unexplained.is_nan() => 0.0,
        (unexplained, all) => 1.0 - unexplained / all,
    }
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
