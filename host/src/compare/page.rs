//! `comparison.html`: the tables, the verdicts and the curves on one page.

use std::collections::BTreeMap;
use std::path::Path;

use maud::{Markup, html};

use super::result::{CandidateResult, Comparison, PairResult, amount};
use crate::report::chart::{Chart, Series};
use crate::report::page::curves::{Curves, Points, scale, smoothed, span};
use crate::report::page::document;

/// The page of a comparison, with the curves that its runs have logged.
pub(super) fn page(comparison: &Comparison) -> String {
    let name = comparison.folder.file_name().unwrap_or(comparison.folder.as_os_str()).to_string_lossy();
    let charts = charts(comparison);
    let several = comparison.candidates.len() > 1;
    let content = html! {
        section {
            h2 { @if several { "Verdicts" } @else { "Cross-validation" } }
            @for pair in &comparison.pairs {
                p { @if pair.resolved { b { (pair.verdict) } "." } @else { (pair.verdict) "." } }
            }
            @for said in comparison.candidates.iter().filter_map(CandidateResult::one_class_text) { p.note { (said) } }
            @for failed in comparison.candidates.iter().filter_map(CandidateResult::failures) { p.note { (failed) } }
            @for note in &comparison.notes { p.note { (note) "." } }
            @if comparison.folds.is_some() { (estimates(comparison)) }
            @if !several { p.note { (comparison.method()) } }
        }
        section { h2 { "Candidates" } (table(&comparison.candidate_rows(str::to_owned))) }
        @if several {
            section {
                h2 { "Pairs" }
                (intervals(comparison))
                (table(&comparison.pair_rows(str::to_owned)))
                p.note { "As for what is paired: " (comparison.paired_text()) ". " (comparison.method()) }
            }
        }
        @for candidate in comparison.candidates.iter().filter(|candidate| !candidate.metrics.is_empty()) {
            section {
                h2 { (candidate.name) " over folds" }
                (table(&comparison.metric_rows(candidate)))
                @if let Some(found) = &candidate.out_of_fold {
                    p.note { (found.headline()) ", in " (found.predictions.display()) }
                    @if let Some(report) = &found.report.report { div.scroll { pre { (report) } } }
                }
            }
        }
        @if !charts.is_empty() {
            section { h2 { "Training, mean over " @if comparison.folds.is_some() { "folds" } @else { "seeds" } } div.charts { @for chart in &charts { (chart) } } }
        }
        section { h2 { "Runs" } (runs(comparison)) }
    };
    document(&name, &comparison.headline(), &content)
}

/// A table whose first row is its header, and whose first column is text.
fn table<const N: usize>(rows: &[[String; N]]) -> Markup {
    html! {
        @if let [header, rows @ ..] = rows {
            div.scroll {
                table.rows {
                    thead { tr { @for (i, cell) in header.iter().enumerate() { th.number[i > 0] { (cell) } } } }
                    tbody {
                        @for row in rows { tr { @for (i, cell) in row.iter().enumerate() { td.number[i > 0] { (cell) } } } }
                    }
                }
            }
        }
    }
}

/// Places on an axis that has all of these, in percent of its length.
fn axis(values: impl Iterator<Item = f64>) -> impl Fn(f64) -> f64 {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), end| (low.min(end), high.max(end)));
    let room = 0.03 * (high - low).max(f64::MIN_POSITIVE);
    move |value: f64| 100.0 * (value - low + room) / (high - low + 2.0 * room)
}

/// The metric of every candidate with its interval, and of each of its runs a mark.
fn estimates(comparison: &Comparison) -> Markup {
    let of = |candidate: &CandidateResult| candidate.metrics.get(&comparison.metric)?.interval;
    let drawn = comparison.candidates.iter().filter_map(|candidate| {
        let (from, to) = of(candidate).filter(|(from, to)| from.is_finite() && to.is_finite())?;
        let values: Vec<f64> = candidate.runs.iter().filter_map(|run| run.value).collect();
        Some((candidate, (from, to), values))
    });
    let drawn: Vec<(&CandidateResult, (f64, f64), Vec<f64>)> = drawn.collect();
    let place = axis(drawn.iter().flat_map(|(_, (from, to), values)| values.iter().copied().chain([*from, *to])));
    html! {
        @if !drawn.is_empty() {
            div.intervals role="img" aria-label=(format!("{} with its 95 % intervals", comparison.metric)) {
                @for (candidate, (from, to), values) in &drawn {
                    div.pair {
                        span { (candidate.name) }
                        div.track.resolved {
                            i.range style=(format!("left:{:.2}%;width:{:.2}%", place(*from), place(*to) - place(*from))) {}
                            @for value in values { i.run style=(format!("left:{:.2}%", place(*value))) {} }
                            i.value style=(format!("left:{:.2}%", place(candidate.mean))) {}
                        }
                        span.number { (format!("{:.4}", candidate.mean)) }
                    }
                }
            }
            p.note { "The mean of " (comparison.metric) " with its 95 % interval; each upright line is a fold." }
        }
    }
}

/// The difference of every pair with its interval, over one axis: an interval beside zero is more than chance.
fn intervals(comparison: &Comparison) -> Markup {
    let drawn =
        |pair: &&PairResult| pair.difference.is_finite() && pair.interval.0.is_finite() && pair.interval.1.is_finite();
    let pairs: Vec<&PairResult> = comparison.pairs.iter().filter(drawn).collect();
    let ends = pairs.iter().flat_map(|pair| [pair.interval.0, pair.interval.1, pair.difference]);
    let place = axis(ends.chain([0.0]));
    html! {
        @if !pairs.is_empty() {
            div.intervals role="img" aria-label="differences with their 95 % intervals" {
                @for pair in &pairs {
                    @let (from, to) = pair.interval;
                    div.pair {
                        span { (pair.a) " - " (pair.b) }
                        div.track.resolved[pair.resolved] {
                            i.zero style=(format!("left:{:.2}%", place(0.0))) {}
                            i.range style=(format!("left:{:.2}%;width:{:.2}%", place(from), place(to) - place(from))) {}
                            i.value style=(format!("left:{:.2}%", place(pair.difference))) {}
                        }
                        span.number { (amount(&comparison.metric, pair.difference)) }
                    }
                }
            }
            p.note { "The dashed line is no difference; coloured are those that are more than chance." }
        }
    }
}

fn runs(comparison: &Comparison) -> Markup {
    let mut rows = vec![["run", "seed", &comparison.metric].map(str::to_owned)];
    for run in comparison.candidates.iter().flat_map(|candidate| &candidate.runs) {
        let value = run.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        rows.push([run.folder.display().to_string(), run.seed.to_string(), run.error.clone().unwrap_or(value)]);
    }
    table(&rows)
}

/// Training loss and validation of every candidate.
fn charts(comparison: &Comparison) -> Vec<Chart> {
    let curves: Vec<(&CandidateResult, Vec<Curves>)> = comparison
        .candidates
        .iter()
        .map(|candidate| {
            let done = candidate.runs.iter().filter(|run| run.error.is_none());
            (candidate, done.map(|run| logged(&run.folder)).collect())
        })
        .collect();
    let losses = curves.iter().map(|(candidate, runs)| {
        let mean = mean(runs.iter().flat_map(|curves| curves.loss.values()));
        (candidate.name.as_str(), smoothed(&mean, span(mean.len())))
    });
    let validation = curves.iter().map(|(candidate, runs)| {
        let of_run = |curves: &'_ Curves| curves.validation.get(&candidate.task)?.get(&comparison.metric).cloned();
        (candidate.name.as_str(), mean(runs.iter().filter_map(of_run).collect::<Vec<_>>().iter()))
    });
    let losses: Vec<(&str, Points)> = losses.filter(|(_, points)| !points.is_empty()).collect();
    let validation: Vec<(&str, Points)> = validation.filter(|(_, points)| !points.is_empty()).collect();

    let mut charts = Vec::new();
    if !losses.is_empty() {
        let all: Points = losses.iter().flat_map(|(_, points)| points.clone()).collect();
        let chart = Chart::new("Training loss, smoothed", "step").y_scale(scale(&all));
        charts.push(losses.into_iter().fold(chart, |chart, (name, points)| chart.series(Series::new(name, points))));
    }
    if !validation.is_empty() {
        let chart = Chart::new(format!("Validation {}", comparison.metric), "step");
        let add = |chart: Chart, (name, points)| chart.series(Series::new(name, points).marked());
        charts.push(validation.into_iter().fold(chart, add));
    }
    if charts.len() == 1 { charts.into_iter().map(Chart::wide).collect() } else { charts }
}

/// What a run has logged; nothing where that does not read.
fn logged(run: &Path) -> Curves {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Curves::read(&lines)
}

/// The mean of curves at every step that any of them has.
fn mean<'a>(curves: impl Iterator<Item = &'a Points>) -> Points {
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for &(step, value) in curves.flatten() {
        let sum = sums.entry(step as u64).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    sums.into_iter().map(|(step, (sum, count))| (step as f64, sum / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::{Paired, RunResult};
    use crate::report::text::wrapped;

    #[test]
    fn curves_are_averaged_where_they_have_the_step() {
        let curves: [Points; 2] = [vec![(1.0, 2.0), (2.0, 4.0)], vec![(1.0, 4.0)]];
        assert_eq!(mean(curves.iter()), [(1.0, 3.0), (2.0, 4.0)]);
    }

    #[test]
    fn a_page_says_what_was_compared_and_names_are_no_markup() {
        const NAME: &str = "<script>a</script>";
        let candidate = |name: &str, error: Option<&str>| CandidateResult {
            name: name.into(),
            task: "task".into(),
            runs: vec![RunResult {
                seed: 0,
                fold: None,
                folder: format!("c/{name}/seed-0").into(),
                value: error.is_none().then_some(0.875),
                error: error.map(str::to_owned),
            }],
            mean: if error.is_none() { 0.875 } else { f64::NAN },
            spread: None,
            trainable: None,
            seconds: 1.0,
            peak_rss_bytes: 1_000_000,
            lr: 1e-3,
            one_class: 0,
            metrics: BTreeMap::new(),
            out_of_fold: None,
        };
        let comparison = Comparison {
            folder: "c".into(),
            metric: "accuracy".into(),
            higher_is_better: true,
            seeds: vec![0],
            folds: None,
            examples: 1821,
            intervals: "bootstrap",
            paired: Paired { order: true, head: true },
            candidates: vec![
                candidate("a", None),
                candidate(NAME, None),
                candidate("c", Some("its process was ended")),
            ],
            pairs: vec![PairResult {
                a: "a".into(),
                b: NAME.into(),
                seeds: vec![0],
                folds: Vec::new(),
                difference: 0.0,
                interval: (-0.01, 0.01),
                test: "mcnemar",
                t: None,
                p: 1.0,
                p_holm: 1.0,
                resolved: false,
                more_seeds: None,
                verdict: format!("a and {NAME}: not resolved with these seeds"),
            }],
            notes: Vec::new(),
        };
        let text = page(&comparison);
        for said in [
            "accuracy on 1,821 test examples, seed 0",
            "not resolved with these seeds",
            "-1.00 to 1.00",
            "McNemar p",
            "class=\"track\"",
            "left:50.00%",
            "0.8750",
            "c failed in 1 of 1 runs: its process was ended",
        ] {
            assert!(text.contains(said), "{said} is missing");
        }
        assert!(!text.contains("<script") && !text.contains("NaN"), "{text}");

        // On a terminal the longest names do not make lines that nobody reads.
        let mut comparison = comparison;
        let long = |name: &str| format!("{name}-{}", "x".repeat(150));
        comparison.candidates.iter_mut().for_each(|candidate| candidate.name = long(&candidate.name));
        for pair in &mut comparison.pairs {
            (pair.a, pair.b) = (long(&pair.a), long(&pair.b));
            pair.verdict = format!("{} and {}: not resolved with these seeds", pair.a, pair.b);
        }
        let text = wrapped(&comparison.to_text());
        assert!(text.lines().all(|line| line.chars().count() <= 200), "{text}");
    }
}
