//! Long curves with fewer points and every spike.

/// At most `limit` points: the first, the last, and of each stretch between them the lowest and the highest, in their order. A
/// y that is not a number is a gap; a stretch keeps its gap only where it has nothing else.
pub(super) fn thin(points: &[(f64, f64)], limit: usize) -> Vec<(f64, f64)> {
    let ([first, between @ .., last], true) = (points, points.len() > limit.max(4)) else { return points.to_vec() };
    let stretch = between.len().div_ceil((limit.max(4) - 2) / 2);
    let mut kept = vec![*first];
    for points in between.chunks(stretch) {
        let drawn = || points.iter().enumerate().filter(|(_, point)| !point.1.is_nan());
        let low = drawn().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let high = drawn().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        match (low, high) {
            (Some((at_low, low)), Some((at_high, high))) if at_low < at_high => kept.extend([*low, *high]),
            (Some((at_low, low)), Some((at_high, high))) if at_low > at_high => kept.extend([*high, *low]),
            (Some((_, only)), _) => kept.push(*only),
            (None, _) => kept.extend(points.first()),
        }
    }
    kept.push(*last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(n: usize, y: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        (0..n).map(|i| (i as f64, y(i))).collect()
    }

    #[test]
    fn short_curves_stay_as_they_are() {
        for n in [0, 1, 2, 1000] {
            assert_eq!(thin(&curve(n, |i| i as f64), 1000).len(), n);
        }
    }

    #[test]
    fn spikes_and_ends_stay() {
        for n in [1001, 2500, 100_000] {
            let points = curve(n, |i| match i {
                777 => 50.0,
                900 => -50.0,
                i => (i as f64).sin(),
            });
            let kept = thin(&points, 1000);
            assert!((500..=1000).contains(&kept.len()), "{} of {n}", kept.len());
            assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
            for point in [points[0], points[777], points[900], points[n - 1]] {
                assert!(kept.contains(&point), "{point:?} of {n}");
            }
        }
    }

    #[test]
    fn only_a_stretch_without_any_number_is_a_gap() {
        let kept = thin(&curve(100_000, |i| if i < 50_000 || i % 2 == 0 { f64::NAN } else { 1.0 }), 1000);
        let gaps = kept.iter().filter(|point| point.1.is_nan()).count();
        assert!((245..=255).contains(&gaps), "{gaps}");
    }
}
