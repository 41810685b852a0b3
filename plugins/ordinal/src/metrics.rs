//! Metrics of ordered classes, by their places in the order.

/// The mean distance between the predicted class and the true one, in classes.
pub(crate) const MAE: &str = "ordinal_mae";
/// Cohen's kappa with quadratic weights (Cohen 1968, doi:10.1037/h0026256), as scikit-learn's `cohen_kappa_score`.
pub(crate) const KAPPA: &str = "quadratic_kappa";

/// The class with the greatest probability of each row, the first of several: what a run predicts.
pub(crate) fn most_probable(probabilities: &[f32], classes: usize) -> Vec<u32> {
    let greatest = |row: &[f32]| {
        let better = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
        (1..row.len()).fold(0, better) as u32
    };
    probabilities.chunks_exact(classes).map(greatest).collect()
}

/// Of nothing there is none.
pub(crate) fn mean_absolute_error(predicted: &[usize], targets: &[usize]) -> f64 {
    let distances = predicted.iter().zip(targets).map(|(a, b)| a.abs_diff(*b) as f64);
    distances.sum::<f64>() / targets.len() as f64
}

/// 1 for agreement, 0 for that of chance; none where predicted and true classes are all one and the same.
pub(crate) fn quadratic_kappa(predicted: &[usize], targets: &[usize], classes: usize) -> f64 {
    let count = |ranks: &[usize]| {
        let mut counts = vec![0.0; classes];
        ranks.iter().for_each(|&rank| counts[rank] += 1.0);
        counts
    };
    let weight = |a: usize, b: usize| (a.abs_diff(b) as f64).powi(2);
    let observed: f64 = predicted.iter().zip(targets).map(|(&a, &b)| weight(a, b)).sum();
    let (of_predicted, of_targets) = (count(predicted), count(targets));
    let pairs = (0..classes).flat_map(|a| (0..classes).map(move |b| (a, b)));
    let by_chance: f64 = pairs.map(|(a, b)| weight(a, b) * of_predicted[a] * of_targets[b]).sum();
    if by_chance > 0.0 { 1.0 - observed * targets.len() as f64 / by_chance } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_of_equal_classes_is_predicted() {
        assert_eq!(most_probable(&[0.2, 0.4, 0.4, 0.5, 0.3, 0.2], 3), [1, 0]);
    }

    #[test]
    fn agreement_is_one_and_opposites_are_less_than_chance() {
        let ranks = [0, 1, 2, 2, 1, 0];
        assert_eq!((mean_absolute_error(&ranks, &ranks), quadratic_kappa(&ranks, &ranks, 3)), (0.0, 1.0));
        let turned = ranks.map(|rank| 2 - rank);
        assert_eq!((mean_absolute_error(&turned, &ranks), quadratic_kappa(&turned, &ranks, 3)), (8.0 / 6.0, -1.0));
    }

    #[test]
    fn what_is_undefined_is_no_number() {
        assert!(quadratic_kappa(&[1, 1], &[1, 1], 3).is_nan());
        assert!(mean_absolute_error(&[], &[]).is_nan());
    }
}
