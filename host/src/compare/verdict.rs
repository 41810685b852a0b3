//! What a pair's numbers come to, in words.

use super::metric::ACCURACY;
use super::result::{PairResult, SIGNIFICANT, amount};
use super::statistics::{Difference, Outlook};
use crate::report::metrics::higher_is_better;
use crate::report::numbers::count;

/// Whether the two differ beyond chance: both the interval and the corrected test say so.
pub(super) fn resolved(difference: &Difference, p_holm: f64) -> bool {
    difference.is_clear() && p_holm < SIGNIFICANT
}

/// The verdict of a pair, one sentence. `equal`: no prediction differs.
pub(super) fn words(metric: &str, pair: &PairResult, outlook: Outlook, equal: bool) -> String {
    let PairResult { a, b, difference, interval, seeds, .. } = pair;
    let size = difference.abs();
    let unit = if metric == ACCURACY { " points" } else { "" };
    if pair.resolved {
        let first = (*difference > 0.0) == higher_is_better(metric);
        let (better, worse) = if first { (a, b) } else { (b, a) };
        let (low, high) = if *difference > 0.0 { (interval.0, interval.1) } else { (-interval.1, -interval.0) };
        let one = if seeds.len() == 1 { "; one seed says nothing of how much seeds differ" } else { "" };
        return format!(
            "{better} is better than {worse} by {}{unit} of {metric} (95 % interval {} to {}){one}",
            amount(metric, size),
            amount(metric, low),
            amount(metric, high),
        );
    }
    let size = format!("a difference of {}{unit}", amount(metric, size));
    let more = match outlook {
        _ if difference.is_nan() => format!("the {metric} of a run is no number"),
        _ if equal => "they are equal in every prediction".to_owned(),
        Outlook::Nothing => "there is no difference between their means".to_owned(),
        Outlook::Seeds(1) => format!("about 1 more seed would likely resolve {size}"),
        Outlook::Seeds(more) => format!("about {more} more seeds would likely resolve {size}"),
        Outlook::TooManySeeds => format!("more than 100 more seeds would be needed for {size}"),
        Outlook::Items(items) => format!(
            "more seeds will not resolve it: the test set is too small for {size}, which takes at least about {} examples",
            count(items)
        ),
        Outlook::Test => {
            format!(
                "the interval of {size} leaves zero out, but the corrected test does not: a larger test set would tell"
            )
        }
        Outlook::Unknown => format!("one seed says nothing of how much seeds differ: run three at least for {size}"),
    };
    format!("{a} and {b}: not resolved with these seeds; {more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(difference: f64, interval: (f64, f64), resolved: bool, seeds: u64) -> PairResult {
        PairResult {
            a: "a".into(),
            b: "b".into(),
            seeds: (0..seeds).collect(),
            difference,
            interval,
            test: "mcnemar",
            p: 0.01,
            p_holm: 0.01,
            resolved,
            more_seeds: None,
            verdict: String::new(),
        }
    }

    #[test]
    fn the_better_one_comes_first() {
        let check = |metric: &str, pair: &PairResult, expected: &str| {
            assert_eq!(words(metric, pair, Outlook::Test, false), expected);
        };
        let of = "of accuracy (95 % interval 1.00 to 3.00)";
        check("accuracy", &pair(0.02, (0.01, 0.03), true, 3), &format!("a is better than b by 2.00 points {of}"));
        check("accuracy", &pair(-0.02, (-0.03, -0.01), true, 3), &format!("b is better than a by 2.00 points {of}"));
        check("mse", &pair(2.0, (1.0, 3.0), true, 3), "b is better than a by 2 of mse (95 % interval 1 to 3)");
        check(
            "pearson",
            &pair(0.5, (0.25, 0.75), true, 1),
            "a is better than b by 0.5 of pearson (95 % interval 0.25 to 0.75); one seed says nothing of how much seeds differ",
        );
    }

    #[test]
    fn what_is_not_resolved_says_what_it_takes() {
        let check = |outlook: Outlook, expected: &str| {
            let text = words("accuracy", &pair(0.02, (-0.01, 0.05), false, 3), outlook, false);
            assert_eq!(text, format!("a and b: not resolved with these seeds; {expected}"));
        };
        let text = words("pearson", &pair(f64::NAN, (f64::NAN, f64::NAN), false, 3), Outlook::Nothing, false);
        assert_eq!(text, "a and b: not resolved with these seeds; the pearson of a run is no number");
        check(Outlook::Seeds(1), "about 1 more seed would likely resolve a difference of 2.00 points");
        check(Outlook::Seeds(7), "about 7 more seeds would likely resolve a difference of 2.00 points");
        check(
            Outlook::Items(4200),
            "more seeds will not resolve it: the test set is too small for a difference of 2.00 points, which takes at least \
             about 4,200 examples",
        );
        let difference = |interval| Difference { value: 0.02, interval, variance: Default::default() };
        assert!(resolved(&difference((0.01, 0.03)), 0.04) && resolved(&difference((-0.03, -0.01)), 0.04));
        assert!(!resolved(&difference((0.01, 0.03)), 0.06) && !resolved(&difference((0.0, 0.03)), 0.04));
    }
}
