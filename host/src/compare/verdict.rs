//! What a pair's numbers come to, in words.

use super::compared::Compared;
use super::metric::ACCURACY;
use super::result::{PairResult, SIGNIFICANT, amount};
use super::statistics::{Outlook, is_clear};
use crate::report::numbers::count;

/// Whether the two differ beyond chance: both the interval and the corrected test say so.
pub(super) fn resolved(interval: (f64, f64), p_holm: f64) -> bool {
    is_clear(interval) && p_holm < SIGNIFICANT
}

/// Which is better, and by how much.
fn better(Compared { metric, higher_is_better }: Compared<'_>, pair: &PairResult) -> String {
    let PairResult { a, b, difference, interval, .. } = pair;
    let first = (*difference > 0.0) == higher_is_better;
    let (better, worse) = if first { (a, b) } else { (b, a) };
    let (low, high) = if *difference > 0.0 { (interval.0, interval.1) } else { (-interval.1, -interval.0) };
    format!(
        "{better} is better than {worse} by {} of {metric} (95 % interval {} to {})",
        sized(metric, *difference),
        amount(metric, low),
        amount(metric, high),
    )
}

/// The size of a difference, with its unit.
fn sized(metric: &str, difference: f64) -> String {
    format!("{}{}", amount(metric, difference.abs()), if metric == ACCURACY { " points" } else { "" })
}

/// A difference, as a verdict names it.
fn named(metric: &str, difference: f64) -> String {
    format!("a difference of {}", sized(metric, difference))
}

/// As [`words`], of a pair on folds.
pub(super) fn words_of_folds(compared: Compared<'_>, pair: &PairResult, equal: bool) -> String {
    let untested = match pair.folds.len() {
        _ if pair.difference.is_nan() => Some(format!("the {} of a run is no number", compared.metric)),
        _ if equal => Some("they are equal in every prediction".to_owned()),
        1 => Some("one fold says nothing of how much folds differ".to_owned()),
        _ => None,
    };
    words_of_draws(compared, pair, "folds", untested)
}

/// As [`words`], of a metric that is known of whole runs alone.
pub(super) fn words_of_seeds(compared: Compared<'_>, pair: &PairResult) -> String {
    let untested = (pair.seeds.len() == 1).then(|| {
        let size = named(compared.metric, pair.difference);
        format!("one seed says nothing of how much seeds differ: run three at least for {size}")
    });
    words_of_draws(compared, pair, "seeds", untested)
}

/// The verdict of a pair by a t-test over `draws`, seeds or folds. `untested`: why it is not resolved, where not even the test is asked.
fn words_of_draws(compared: Compared<'_>, pair: &PairResult, draws: &str, untested: Option<String>) -> String {
    if pair.resolved {
        return better(compared, pair);
    }
    let (metric, PairResult { a, b, difference, interval, .. }) = (compared.metric, pair);
    let size = named(metric, *difference);
    let why = match untested {
        Some(why) => why,
        None if *difference == 0.0 => "there is no difference between their means".to_owned(),
        None if is_clear(*interval) => {
            format!("the interval of {size} leaves zero out, but the corrected test does not")
        }
        None => format!(
            "{size} is within what is chance between {draws}, {} to either side",
            sized(metric, (interval.1 - interval.0) / 2.0)
        ),
    };
    format!("{a} and {b}: not resolved with these {draws}; {why}")
}

/// The verdict of a pair, one sentence. `equal`: no prediction differs.
pub(super) fn words(compared: Compared<'_>, pair: &PairResult, outlook: Outlook, equal: bool) -> String {
    let metric = compared.metric;
    let PairResult { a, b, difference, seeds, .. } = pair;
    if pair.resolved {
        let one = if seeds.len() == 1 { "; one seed says nothing of how much seeds differ" } else { "" };
        return format!("{}{one}", better(compared, pair));
    }
    let size = named(metric, *difference);
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
            folds: Vec::new(),
            test: "mcnemar",
            t: None,
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
            assert_eq!(words(Compared::of(metric), pair, Outlook::Test, false), expected);
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
            let text = words(Compared::of("accuracy"), &pair(0.02, (-0.01, 0.05), false, 3), outlook, false);
            assert_eq!(text, format!("a and b: not resolved with these seeds; {expected}"));
        };
        let text =
            words(Compared::of("pearson"), &pair(f64::NAN, (f64::NAN, f64::NAN), false, 3), Outlook::Nothing, false);
        assert_eq!(text, "a and b: not resolved with these seeds; the pearson of a run is no number");
        check(Outlook::Seeds(1), "about 1 more seed would likely resolve a difference of 2.00 points");
        check(Outlook::Seeds(7), "about 7 more seeds would likely resolve a difference of 2.00 points");
        check(
            Outlook::Items(4200),
            "more seeds will not resolve it: the test set is too small for a difference of 2.00 points, which takes at least \
             about 4,200 examples",
        );
        assert!(resolved((0.01, 0.03), 0.04) && resolved((-0.03, -0.01), 0.04));
        assert!(!resolved((0.01, 0.03), 0.06) && !resolved((0.0, 0.03), 0.04));
    }

    #[test]
    fn folds_are_spoken_of_as_folds() {
        let of = |difference: f64, interval: (f64, f64), resolved: bool, folds: u32| PairResult {
            folds: (1..=folds).collect(),
            ..pair(difference, interval, resolved, 1)
        };
        let check = |pair: &PairResult, equal: bool, expected: &str| {
            let text = words_of_folds(Compared::of("accuracy"), pair, equal);
            assert!(text.ends_with(expected) && text.contains("with these folds") != pair.resolved, "{text}");
        };
        check(
            &of(0.02, (0.01, 0.03), true, 5),
            false,
            "a is better than b by 2.00 points of accuracy (95 % interval 1.00 to 3.00)",
        );
        check(&of(0.0, (0.0, 0.0), false, 5), true, "they are equal in every prediction");
        check(&of(0.0, (-0.1, 0.1), false, 5), false, "there is no difference between their means");
        check(&of(0.02, (f64::NAN, f64::NAN), false, 1), false, "one fold says nothing of how much folds differ");
        let chance = "a difference of 2.00 points is within what is chance between folds, 3.00 points to either side";
        check(&of(0.02, (-0.01, 0.05), false, 5), false, chance);
        check(&of(0.02, (0.01, 0.03), false, 5), false, "leaves zero out, but the corrected test does not");
    }
    #[test]
    fn whole_runs_are_spoken_of_by_their_seeds() {
        let own = Compared { metric: "ordinal_mae", higher_is_better: false };
        let check = |pair: &PairResult, expected: &str| {
            let text = words_of_seeds(own, pair);
            assert!(text.ends_with(expected), "{text}");
        };
        check(&pair(2.0, (1.0, 3.0), true, 3), "b is better than a by 2 of ordinal_mae (95 % interval 1 to 3)");
        check(&pair(0.5, (f64::NAN, f64::NAN), false, 1), "run three at least for a difference of 0.5");
        check(
            &pair(0.5, (-0.5, 1.5), false, 3),
            "a difference of 0.5 is within what is chance between seeds, 1 to either side",
        );
    }
}
