//! Probabilities that mean what they say, and where two classes part: fitted on examples that training has not seen.

use super::metrics::Probabilities;

/// Temperatures that may come out. Where every example is right no temperature is the best, and the lowest is taken.
const RANGE: (f64, f64) = (0.05, 20.0);
/// Halvings of the interval: far beyond what `f32` probabilities tell.
const HALVINGS: usize = 60;

/// The temperature whose probabilities, proportional to `p^(1 / temperature)`, have the least log loss (Guo et al. 2017,
/// arXiv:1706.04599). That is what dividing the logits by it gives. 1 where there is nothing to fit.
pub fn temperature(probabilities: &Probabilities, targets: &[u32]) -> f64 {
    if targets.is_empty() || !probabilities.are_finite() || slope(probabilities, targets, 1.0) == 0.0 {
        return 1.0;
    }
    // The loss is convex in the inverse temperature: its slope changes sign once.
    let (mut low, mut high) = (1.0 / RANGE.1, 1.0 / RANGE.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        // Zero where all is certain, and lower temperatures change nothing.
        if slope(probabilities, targets, middle) <= 0.0 { low = middle } else { high = middle }
    }
    1.0 / f64::midpoint(low, high)
}

/// The derivative of the log loss by the inverse temperature: the expected logarithm less the true class's.
fn slope(probabilities: &Probabilities, targets: &[u32], inverse: f64) -> f64 {
    let of = |(row, &target): (&[f32], &u32)| {
        let logs = || row.iter().map(|&p| logarithm(p));
        let most = logs().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut expected) = (0.0, 0.0);
        for log in logs() {
            let weight = (inverse * (log - most)).exp();
            sum += weight;
            expected += weight * log;
        }
        expected / sum - logarithm(row[target as usize])
    };
    probabilities.rows().zip(targets).map(of).sum()
}

/// Of a probability that `f32` has lost the least one that it holds.
fn logarithm(p: f32) -> f64 {
    f64::from(p.max(f32::MIN_POSITIVE)).ln()
}

/// Probabilities at another temperature.
pub fn at_temperature(row: &mut [f32], temperature: f64) {
    if temperature == 1.0 {
        return;
    }
    let logs: Vec<f64> = row.iter().map(|&p| logarithm(p) / temperature).collect();
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
    row.iter_mut().zip(logs).for_each(|(p, log)| *p = ((log - most).exp() / sum) as f32);
}

/// The probability of the positive class from which on it is predicted with the greatest F1: midway between two that occur, so that
/// rounding decides nothing. The first of equal ones, from above.
pub fn best_f1(scores: &[f32], positive: &[bool]) -> f64 {
    let mut scored: Vec<(f32, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let all = positive.iter().filter(|&&positive| positive).count();
    let (mut found, mut best) = (0, (f64::NEG_INFINITY, 0.5));
    for (i, &(score, positive)) in scored.iter().enumerate() {
        found += usize::from(positive);
        let next = scored.get(i + 1).map_or(0.0, |next| next.0);
        if next == score && i + 1 < scored.len() {
            continue;
        }
        let f1 = 2.0 * found as f64 / (i + 1 + all) as f64;
        if f1 > best.0 {
            best = (f1, f64::midpoint(f64::from(score), f64::from(next)));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::report::metrics;

    #[test]
    fn temperatures_and_thresholds_are_scikit_learns() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/calibration.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(cases.len() >= 4);
        for case in &cases {
            let targets: Vec<u32> = serde_json::from_value(case["true"].clone()).unwrap();
            let rows: Vec<Vec<f32>> = serde_json::from_value(case["probabilities"].clone()).unwrap();
            let classes = rows[0].len();
            let p = Probabilities::new(classes, rows.concat());
            let found = temperature(&p, &targets);
            let expected = case["temperature"].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} is not {expected}");
            let mut calibrated = rows.clone();
            calibrated.iter_mut().for_each(|row| at_temperature(row, expected));
            let p = Probabilities::new(classes, calibrated.concat());
            let loss = p.metric("log_loss", &targets, &targets).unwrap();
            assert!((loss - case["log_loss"].as_f64().unwrap()).abs() < 1e-6, "{loss}");
            if let Some(expected) = case["best_f1"].as_f64() {
                let scores: Vec<f32> = rows.iter().map(|row| row[1]).collect();
                let positive: Vec<bool> = targets.iter().map(|&target| target == 1).collect();
                let threshold = best_f1(&scores, &positive);
                let predicted: Vec<u32> = scores.iter().map(|&p| u32::from(f64::from(p) >= threshold)).collect();
                let f1 = metrics::classes(&targets, &predicted, 2).classes[1].unwrap().f1;
                assert!((f1 - expected).abs() < 1e-12, "{f1} is not {expected} at {threshold}");
            }
        }
    }

    #[test]
    fn extremes_stay_in_range() {
        let sure = Probabilities::new(2, vec![1.0, 0.0, 0.0, 1.0]);
        assert!((temperature(&sure, &[0, 1]) - RANGE.0).abs() < 1e-6);
        assert!((temperature(&sure, &[1, 0]) - RANGE.1).abs() < 1e-6);
        assert_eq!(temperature(&Probabilities::new(2, Vec::new()), &[]), 1.0);
        assert_eq!(temperature(&Probabilities::new(2, vec![0.5; 4]), &[0, 1]), 1.0);
        let mut row = [1.0, 0.0];
        at_temperature(&mut row, 2.0);
        assert!(row[0] == 1.0 && row[1] > 0.0 && row[1] < 1e-15);
        assert_eq!(best_f1(&[0.9, 0.2], &[true, false]), f64::midpoint(f64::from(0.9f32), f64::from(0.2f32)));
        assert_eq!(best_f1(&[0.9, 0.2], &[true, true]), f64::from(0.2f32) / 2.0);
    }
}
