#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;

use super::*;
use crate::compare::metric::Metric;
use crate::report::metrics::values;

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/statistics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn close(value: f64, expected: f64, relative: f64) {
    assert!((value - expected).abs() <= relative * expected.abs(), "{value} is not {expected}");
}

/// Two candidates of a task of two classes, right (1) or wrong (0) on each item with each seed.
fn accuracy(a: &[Vec<u8>], b: &[Vec<u8>]) -> (Sample, Pair) {
    let runs = |right: &[Vec<u8>]| {
        right.iter().map(|run| Some(run.iter().map(|&right| f64::from(right)).collect::<Vec<_>>())).collect::<Vec<_>>()
    };
    let metric = Metric::Classes { name: "accuracy".into(), classes: 2 };
    of_rows(metric, &vec![1; a[0].len()], vec![1.0; a[0].len()], vec![runs(a), runs(b)])
}

/// Two candidates on examples of so many rows.
fn of_rows(
    metric: Metric,
    rows: &[usize],
    targets: Vec<f64>,
    predictions: Vec<Vec<Option<Vec<f64>>>>,
) -> (Sample, Pair) {
    let mut end = 0;
    let of_one = |&rows: &usize| {
        end += rows;
        end - rows..end
    };
    let sample = Sample { metric, examples: rows.iter().map(of_one).collect(), targets, predictions };
    let pair = sample.pairs().remove(0);
    (sample, pair)
}

/// A pair whose answers on items and seeds are drawn with these chances.
fn drawn(seeds: usize, items: usize, chances: [f64; 2]) -> (Sample, Pair) {
    let run = |candidate: usize, seed: usize| -> Vec<u8> {
        let stream = Stream::keyed(1, &[candidate as u64, seed as u64]);
        (0..items).map(|item| u8::from(stream.uniform(item as u64) < chances[candidate])).collect()
    };
    let runs = |candidate: usize| (0..seeds).map(|seed| run(candidate, seed)).collect::<Vec<_>>();
    accuracy(&runs(0), &runs(1))
}

#[test]
fn mcnemar_is_statsmodels() {
    for case in reference()["mcnemar"].as_array().unwrap() {
        let counts = [0, 1].map(|i| case["counts"][i].as_u64().unwrap());
        close(sign_test(counts[0], counts[1]), case["p"].as_f64().unwrap(), 1e-9);
    }
}

#[test]
fn an_item_counts_for_the_one_that_is_right_with_more_seeds() {
    let a = [vec![1, 1, 1, 0, 1, 1], vec![1, 1, 0, 1, 1, 1], vec![1, 0, 0, 0, 1, 1]];
    let b = [vec![0, 1, 0, 1, 0, 0], vec![0, 1, 1, 1, 0, 0], vec![0, 0, 0, 0, 0, 0]];
    // Items 0, 4 and 5 speak for a, 3 for b; on 1 and 2 both are right as often.
    let (sample, pair) = accuracy(&a, &b);
    assert_eq!(mcnemar(&sample, &pair), sign_test(3, 1));
}

#[test]
fn holm_is_statsmodels() {
    for case in reference()["holm"].as_array().unwrap() {
        let numbers = |key: &str| serde_json::from_value::<Vec<f64>>(case[key].clone()).unwrap();
        let corrected = holm(&numbers("p"));
        corrected.iter().zip(numbers("corrected")).for_each(|(value, expected)| close(*value, expected, 1e-12));
    }
}

/// Against every draw that there is, enumerated.
#[test]
fn the_bootstrap_draws_items_and_seeds() {
    for case in reference()["bootstrap"].as_array().unwrap() {
        let right = |key: &str| serde_json::from_value::<Vec<Vec<u8>>>(case[key].clone()).unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        let (sample, pair) = accuracy(&right("a"), &right("b"));
        let seeds = pair.seeds.len();
        let found = bootstrap(&sample, &[pair])[0];
        close(found.value, number("difference"), 1e-12);
        let ends = [found.interval.0, found.interval.1];
        let expected: [f64; 2] = serde_json::from_value(case["interval"].clone()).unwrap();
        let length = expected[1] - expected[0];
        ends.iter().zip(expected).for_each(|(end, expected)| assert!((end - expected).abs() < 0.03 * length, "{case}"));
        let items = match seeds {
            1 => number("of_mean"),
            _ => number("of_mean") - (number("of_one") - number("of_mean")) / (seeds - 1) as f64,
        };
        assert!((found.variance.items - items.max(0.0)).abs() < 0.05 * number("of_one"), "{found:?}, {items}");
        assert!((found.variance.seed - number("by_seeds") * seeds as f64).abs() < 1e-12, "{found:?}");
    }
}

#[test]
fn the_corrected_resampled_t_test_is_that_of_its_formula_in_scipy() {
    for case in reference()["resampled"].as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let differences: Vec<f64> = serde_json::from_value(case["differences"].clone()).unwrap();
        let found = resampled(&differences, number("test") / number("train"));
        close(found.t, number("t"), 1e-12);
        close(found.p, number("p"), 1e-9);
        let interval: [f64; 2] = serde_json::from_value(case["interval"].clone()).unwrap();
        let length = interval[1] - interval[0];
        [found.interval.0, found.interval.1]
            .iter()
            .zip(interval)
            .for_each(|(end, expected)| assert!((end - expected).abs() < 1e-9 * length, "{end} is not {expected}"));
        // Were folds independent, the same differences would seem surer than they are.
        assert!(resampled(&differences, 0.0).p < found.p);
    }
    let none = resampled(&[0.0; 5], 0.25);
    assert_eq!((none.value, none.interval, none.p), (0.0, (0.0, 0.0), 1.0));
    assert_eq!(resampled(&[0.5; 5], 0.25).p, 0.0);
    let one = resampled(&[0.5], 0.25);
    assert!(one.value == 0.5 && one.interval.0.is_nan() && one.p == 1.0);
}

#[test]
fn equal_predictions_differ_by_exactly_nothing() {
    let right = [vec![1, 0, 1, 1], vec![0, 0, 1, 1], vec![1, 1, 1, 0]];
    let (sample, pair) = accuracy(&right, &right);
    let found = bootstrap(&sample, std::slice::from_ref(&pair))[0];
    assert_eq!((found.value, found.interval), (0.0, (0.0, 0.0)));
    assert!(!found.is_clear() && sample.equal(&pair));
    assert_eq!((mcnemar(&sample, &pair), randomization(&sample, &pair)), (1.0, 1.0));
    assert_eq!(found.outlook(3), Outlook::Nothing);
}

#[test]
fn pairs_have_the_seeds_of_both() {
    let (mut sample, _) = drawn(4, 10, [0.5, 0.5]);
    sample.predictions[0][1] = None;
    sample.predictions[1][3] = None;
    assert_eq!(sample.pairs()[0].seeds, [0, 2]);
    sample.predictions[0] = vec![None; 4];
    assert!(sample.pairs().is_empty());
}

#[test]
fn a_great_difference_is_clear_and_a_small_one_says_what_it_takes() {
    let check = |seeds: usize, items: usize, chances: [f64; 2], expected: &dyn Fn(Outlook) -> bool, clear: bool| {
        let (sample, pair) = drawn(seeds, items, chances);
        let found = bootstrap(&sample, &[pair])[0];
        assert_eq!(found.is_clear(), clear, "{found:?}");
        let outlook = found.outlook(seeds);
        assert!(expected(outlook), "{outlook:?} of {found:?}");
    };
    check(3, 400, [0.9, 0.6], &|outlook| outlook == Outlook::Test, true);
    check(2, 400, [0.82, 0.8], &|outlook| matches!(outlook, Outlook::Seeds(1..)), false);
    check(1, 100, [0.82, 0.8], &|outlook| matches!(outlook, Outlook::Items(101..)), false);
}

/// Seeds that differ much and items that do not: the forecast is that of Student's t by itself.
#[test]
fn seeds_that_are_needed_follow_from_the_spread() {
    let variance = Variance { items: 0.0, seed: 4e-4, count: 1000 };
    let difference = Difference { value: 0.015, interval: (-0.1, 0.1), variance };
    // t(9) 0.02 / sqrt 10 = 0.0143, t(8) 0.02 / 3 = 0.0154.
    assert_eq!(difference.outlook(3), Outlook::Seeds(7));
    assert_eq!(Difference { value: 1e-4, ..difference }.outlook(3), Outlook::TooManySeeds);
    let variance = Variance { items: 1e-4, ..variance };
    assert_eq!(Difference { variance, ..difference }.outlook(3), Outlook::Items(1712));
    assert_eq!(Difference { value: f64::NAN, ..difference }.outlook(3), Outlook::Nothing);
}

#[test]
fn randomization_finds_for_any_metric_what_mcnemar_finds_for_accuracy() {
    let (sample, pair) = drawn(1, 300, [0.8, 0.77]);
    let (exact, random) = (mcnemar(&sample, &pair), randomization(&sample, &pair));
    assert!(exact < 1.0 && (exact - random).abs() < 0.02, "{exact} and {random}");

    let targets: Vec<f64> = (0..60).map(f64::from).collect();
    let noisy = |scale: f64| {
        let noise = Stream::new(2, "noise");
        vec![Some(targets.iter().enumerate().map(|(i, t)| t + scale * noise.normal(i as u64)).collect::<Vec<_>>())]
    };
    let predictions = vec![noisy(1.0), noisy(4.0)];
    for (metric, sign) in [("mse", -1.0), ("spearman", 1.0)] {
        let metric = Metric::Values(values::score(metric).unwrap());
        let (sample, pair) = of_rows(metric, &[1; 60], targets.clone(), predictions.clone());
        assert!(randomization(&sample, &pair) < 0.01);
        let found = bootstrap(&sample, &[pair])[0];
        assert!(found.is_clear() && found.value * sign > 0.0, "{found:?}");
    }
}

/// Examples of several tokens, against every draw and every exchange of examples that there is, enumerated.
#[test]
fn tokens_of_one_example_are_drawn_and_exchanged_together() {
    for case in reference()["clustered"].as_array().unwrap() {
        let numbers = |key: &str| serde_json::from_value::<Vec<Vec<f64>>>(case[key].clone()).unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        let rows: Vec<usize> = serde_json::from_value(case["rows"].clone()).unwrap();
        let metric = match case["metric"].as_str().unwrap() {
            "accuracy" => Metric::Classes { name: "accuracy".into(), classes: 2 },
            name => Metric::Entities { name: name.into() },
        };
        let runs = |key: &str| numbers(key).into_iter().map(Some).collect::<Vec<_>>();
        let targets = numbers("targets").remove(0);
        let (sample, pair) = of_rows(metric, &rows, targets, vec![runs("a"), runs("b")]);
        assert!(!sample.has_one_row_each());
        let found = bootstrap(&sample, std::slice::from_ref(&pair))[0];
        close(found.value, number("difference"), 1e-12);
        let expected: [f64; 2] = serde_json::from_value(case["interval"].clone()).unwrap();
        let length = expected[1] - expected[0];
        let ends = [found.interval.0, found.interval.1];
        ends.iter().zip(expected).for_each(|(end, expected)| assert!((end - expected).abs() < 0.03 * length, "{case}"));
        // Three standard errors of so many exchanges.
        let (p, expected) = (randomization(&sample, &pair), number("p"));
        assert!((p - expected).abs() < 3.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt() + 1e-4, "{p}: {case}");
    }
}
