//! Predictions of any number of classes for each example.

use crate::report::calibration::best_f1;
use crate::report::metrics::Probabilities;
use crate::run::pass::Decision;

/// Predicted classes beside the true ones, of each example ascending.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// True classes.
    pub targets: Vec<Vec<u32>>,
    /// The predicted ones.
    pub predictions: Vec<Vec<u32>>,
    /// The probabilities of all classes; none where they are too many to be kept.
    pub probabilities: Option<Probabilities>,
}

impl Labels {
    /// Adds examples, from indicators of their classes and the probabilities of all, both `[examples, classes]`.
    pub(super) fn extend(&mut self, indicators: &[f32], probabilities: &[f32], classes: usize, decision: &Decision) {
        let there = |row: &[f32]| (0..).zip(row).filter(|(_, there)| **there > 0.5).map(|(class, _)| class).collect();
        self.targets.extend(indicators.chunks_exact(classes.max(1)).map(there));
        self.predictions.extend(probabilities.chunks_exact(classes.max(1)).map(|row| decision.classes(row)));
    }

    /// What each example loses: the binary cross entropy of all classes together. With its place.
    pub fn losses(&self) -> impl Iterator<Item = (usize, f64)> {
        let rows = self.probabilities.iter().flat_map(Probabilities::rows);
        let log = |p: f64| p.max(f64::MIN_POSITIVE).ln();
        let loss = move |(row, target): (&[f32], &Vec<u32>)| -> f64 {
            let of = |(class, &p): (u32, &f32)| {
                let p = f64::from(p);
                if target.binary_search(&class).is_ok() { -log(p) } else { -log(1.0 - p) }
            };
            (0..).zip(row).map(of).sum()
        };
        rows.zip(&self.targets).map(loss).enumerate()
    }

    /// For each class the threshold with the greatest F1 on these examples; one half for a class that none of them has. Nothing without
    /// probabilities.
    pub(super) fn best_thresholds(&self) -> Option<Vec<f64>> {
        let probabilities = self.probabilities.as_ref()?;
        let of = |class: usize| {
            let positive: Vec<bool> =
                self.targets.iter().map(|target| target.binary_search(&(class as u32)).is_ok()).collect();
            if !positive.contains(&true) {
                return Decision::HALF;
            }
            let scores: Vec<f32> = probabilities.rows().map(|row| row[class]).collect();
            best_f1(&scores, &positive)
        };
        Some((0..probabilities.classes()).map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_class_has_the_threshold_that_is_best_for_it() {
        let probabilities = vec![0.9, 0.4, 0.1, 0.8, 0.3, 0.2, 0.2, 0.1, 0.3];
        let mut found =
            Labels { probabilities: Some(Probabilities::new(3, probabilities.clone())), ..Labels::default() };
        let indicators = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        found.extend(&indicators, &probabilities, 3, &Decision::default());
        assert_eq!(found.targets, [vec![0, 1], vec![0, 1], vec![]]);
        assert_eq!(found.predictions, [vec![0], vec![0], vec![]]);
        let thresholds = found.best_thresholds().unwrap();
        assert!((0.2..0.8).contains(&thresholds[0]) && (0.1..0.3).contains(&thresholds[1]), "{thresholds:?}");
        assert_eq!(thresholds[2], 0.5, "a class that no example has");
        let decision = Decision { thresholds, ..Decision::default() };
        let mut again = Labels::default();
        again.extend(&indicators, &probabilities, 3, &decision);
        assert_eq!(again.predictions, again.targets);
        let losses: Vec<f64> = found.losses().map(|(_, loss)| loss).collect();
        let expected = -(0.9f64.ln() + 0.4f64.ln() + 0.9f64.ln());
        assert!((losses[0] - expected).abs() < 1e-6, "{losses:?}");
    }
}
