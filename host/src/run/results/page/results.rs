//! What a page shows of a task's results: metrics, report, calibration, values, and the worst examples.

use std::collections::BTreeMap;

use fthost_images::class_colour;
use maud::{Markup, html};

use super::super::calibrated::Calibration;
use super::super::report::Report;
use super::super::result::{Split, TaskResult};
use super::super::worst::{Instead, Worst};
use crate::report::chart::{Chart, Series};
use crate::report::metrics::Metrics;
use crate::report::metrics::matches;
use crate::report::metrics::probabilities::Bin;
use crate::report::numbers::{count, percent, significant};
use crate::report::page::{confusion, picture};
use crate::report::retrieval;

/// Metrics that come first, the one that names a task's result before the others.
const FIRST: [&str; 10] = [
    "entity_f1",
    "accuracy",
    "mean_average_precision",
    "mean_iou",
    "pearson",
    "spearman",
    "macro_f1",
    "matthews",
    "recall_at_5",
    "loss",
];

/// Characters of a report's line beside which nothing else has room.
const NARROW: usize = 62;

/// `macro_f1` as `Macro F1`.
pub(super) fn title(metric: &str) -> String {
    let known = [
        ("roc_auc", "ROC-AUC"),
        ("pr_auc", "PR-AUC"),
        ("mse", "MSE"),
        ("rmse", "RMSE"),
        ("mae", "MAE"),
        ("r2", "R²"),
        ("brier", "Brier score"),
        ("matthews", "Matthews' coefficient"),
        ("kappa", "Cohen's kappa"),
        ("mean_iou", "Mean IoU"),
        ("weighted_iou", "Weighted IoU"),
    ];
    if let Some((_, name)) = known.iter().find(|(name, _)| *name == metric) {
        return (*name).to_owned();
    }
    let words = metric.replace('_', " ").replace("f1", "F1");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The metric that names a task's result: the one that was watched, else the first of those that people look at.
pub(super) fn main(result: &TaskResult) -> Option<&str> {
    let metrics = &result.shown().0.metrics;
    let watched = result.watch.as_ref().map(|watch| watch.metric.as_str()).filter(|metric| *metric != "loss");
    watched.into_iter().chain(FIRST).find(|&metric| metrics.get(metric).is_some_and(|value| value.is_finite()))
}

/// A task's section.
pub(super) fn section(task: &str, result: &TaskResult) -> Markup {
    let (report, on) = result.shown();
    let charts: Vec<Chart> = reliability(&report.reliability).into_iter().chain(values(&report.values)).collect();
    html! {
        section {
            h2 { "Results: " (task) }
            @if report.metrics.is_empty() { p.note { "The task has no test data." } }
            @if on == Split::Validation {
                p.note { "Measured on the validation examples, by which the model was chosen: expect less of new ones." }
            }
            div.columns {
                @if !report.metrics.is_empty() {
                    div {
                        (metrics_table(report, on, &result.before))
                        (ways(report))
                        @if let Some(found) = &result.calibration { (calibration(found, &report.metrics)) }
                    }
                }
                @if let Some(text) = report.report.as_ref().filter(|_| report.pixels.is_empty()) {
                    (preformatted("Classification report", text))
                }
                @if !report.pixels.is_empty() { (of_pixels(&result.labels, report)) }
                @if let Some(text) = &report.entity_report { (preformatted("Entities", text)) }
            }
            @if !report.confusion.is_empty() { (confusion::matrix(&report.confusion, &result.labels)) }
            @if !charts.is_empty() { h3 {} div.charts { @for chart in &charts { (chart) } } }
            @if !report.pixels.is_empty() { (overlays(&report.worst)) }
            @else if let [first, second, ..] = &*report.sides { (mistaken(&report.worst, [first, second])) }
            @else if !report.worst.is_empty() { (worst(&report.worst, report.values.is_empty())) }
        }
    }
}

/// A text with its own columns: beside others where it is narrow, else in a row of its own, where it scrolls.
fn preformatted(title: &str, text: &str) -> Markup {
    let wide = text.lines().any(|line| line.chars().count() > NARROW);
    html! { div.whole[wide] { h3 { (title) } pre { (text.trim_end_matches('\n')) } } }
}

fn metrics_table(report: &Report, on: Split, before: &Metrics) -> Markup {
    let place = |metric: &str| FIRST.iter().position(|&first| first == metric).unwrap_or(FIRST.len());
    let mut metrics: Vec<(&String, f64)> = report.metrics.iter().map(|(name, &value)| (name, value)).collect();
    // Of what is not defined the reason stands below.
    metrics.retain(|(name, value)| !value.is_nan() || before.get(*name).is_some_and(|before| before.is_finite()));
    // Those of one way stand in a table of their own.
    let of_way = |name: &str| !report.sides.is_empty() && matches::is_of_one_way(name);
    metrics.retain(|(name, _)| !of_way(name));
    metrics.sort_by_key(|(name, _)| place(name));
    let compared = !before.is_empty();
    html! {
        h3 { @if on == Split::Test { "On the test data" } @else { "On the validation data" } }
        table.rows {
            thead {
                tr {
                    th { "metric" }
                    @if compared { th.number { "before" } }
                    th.number { @if compared { "after" } @else { "value" } }
                    @if compared { th.number { "change" } }
                }
            }
            tbody {
                @for (metric, after) in metrics {
                    @let before = before.get(metric);
                    tr {
                        td { (title(metric)) }
                        @if compared { td.number { (before.map(|&value| four(value)).unwrap_or_default()) } }
                        td.number { b { (four(after)) } }
                        @if compared { td.number { (before.map(|before| change(after - before)).unwrap_or_default()) } }
                    }
                }
            }
        }
        @for (why, metrics) in undefined(&report.undefined) { p.note { "Not defined, because " (why) ": " (metrics) "." } }
    }
}

/// How often what belongs together is found, each way.
fn ways(report: &Report) -> Markup {
    let rows = retrieval::rows(&report.metrics, &report.sides);
    html! {
        @if !rows.is_empty() {
            h3 { "What belongs together, found" }
            table.rows {
                thead { tr { th {} @for name in retrieval::columns() { th.number { (name) } } } }
                tbody { @for (way, cells) in &rows { tr { td { (way) } @for cell in cells { td.number { (cell) } } } } }
            }
        }
    }
}

/// Four decimals, as the classification report has them, where they say enough.
fn four(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    if (0.01..1e4).contains(&value.abs()) || value == 0.0 { format!("{value:.4}") } else { significant(value) }
}

fn change(by: f64) -> String {
    if by > 0.0 { format!("+{}", four(by)) } else { four(by) }
}

/// The metrics that are not defined, by the reason.
fn undefined(reasons: &BTreeMap<String, String>) -> BTreeMap<&str, String> {
    let mut by_reason: BTreeMap<&str, String> = BTreeMap::new();
    for (metric, why) in reasons {
        let metrics = by_reason.entry(why).or_default();
        let comma = if metrics.is_empty() { "" } else { ", " };
        *metrics += &format!("{comma}{}", title(metric));
    }
    by_reason
}

/// Temperature and threshold.
fn calibration(found: &Calibration, with: &Metrics) -> Markup {
    html! {
        h3 { "Calibration" }
        p {
            @if found.decision.temperature != 1.0 {
                "Temperature " b { (four(found.decision.temperature)) } ", fitted on " (count(found.fitted_on))
                " validation examples; it is in the last layer of what is saved. "
            }
            @if !found.decision.thresholds.is_empty() {
                "Each class is predicted from a threshold of its own on, fitted on " (count(found.fitted_on)) " validation examples."
            } @else if let (Some(threshold), None) = (found.decision.threshold, &found.positive) {
                "Each class is predicted from a probability of " b { (four(threshold)) } " on."
            }
            @if let (Some(threshold), Some(positive)) = (found.decision.threshold, &found.positive) {
                b { (positive) } " is predicted from a probability of " b { (four(threshold)) } " on."
            }
        }
        table.rows {
            thead { tr { th { "metric" } th.number { "without" } th.number { "with" } } }
            tbody {
                @for (metric, without) in &found.without {
                    tr {
                        td { (title(metric)) }
                        td.number { (four(*without)) }
                        td.number { b { (with.get(metric).map(|&value| four(value)).unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}

/// The reliability curve beside that of a model whose probabilities mean what they say.
fn reliability(bins: &[Bin]) -> Option<Chart> {
    let points = bins.iter().map(|bin| (bin.confidence, bin.accuracy)).collect();
    let low = bins.first()?.from;
    Some(
        Chart::new("Calibration", "probability of the predicted class")
            .series(Series::new("as it should be", vec![(low, low), (1.0, 1.0)]).faint())
            .series(Series::new("share that is right", points).marked()),
    )
}

/// True values with the predicted ones, and how far each prediction is off.
fn values(pairs: &[[f32; 2]]) -> Vec<Chart> {
    let wide = |pair: &[f32; 2]| (f64::from(pair[0]), f64::from(pair[1]));
    let points: Vec<(f64, f64)> =
        pairs.iter().map(wide).filter(|(target, found)| target.is_finite() && found.is_finite()).collect();
    if points.is_empty() {
        return Vec::new();
    }
    let ends = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let values = || points.iter().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
    };
    let (low, high) = ends(&|point| point.0);
    let (least, most) = ends(&|point| point.1);
    let residuals = points.iter().map(|(target, found)| (*found, found - target)).collect();
    vec![
        Chart::new("Predicted and true values", "true value")
            .series(Series::new("as it should be", vec![(low, low), (high, high)]).faint())
            .series(Series::new("predicted", points.clone()).dots()),
        Chart::new("Residuals", "predicted value")
            .series(Series::new("none", vec![(least, 0.0), (most, 0.0)]).faint())
            .series(Series::new("predicted less true", residuals).dots()),
    ]
}

/// What is said of each class of masks, beside its colour in the overlays.
fn of_pixels(labels: &[String], report: &Report) -> Markup {
    let all: u64 = report.pixels.values().map(|of| of.target).sum();
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), four);
    html! {
        div {
            h3 { "Classes of pixels" }
            div.tall {
                table.rows {
                    thead { tr {
                        th { "class" } th.number { "IoU" } th.number { "precision" } th.number { "recall" }
                        th.number { "of the pixels" }
                    } }
                    tbody {
                        @for (class, label) in labels.iter().enumerate() {
                            @let of = report.pixels.get(label).copied().unwrap_or_default();
                            @let [red, green, blue] = class_colour(class as u8);
                            tr {
                                td { i.colour style=(format!("background:rgb({red},{green},{blue})")) {} (label) }
                                td.number { (number(of.iou())) }
                                td.number { (number(of.precision())) }
                                td.number { (number(of.accuracy())) }
                                td.number { (percent(of.target as f64 / all.max(1) as f64)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pictures whose masks the model is far off at, each beside what is true and what is predicted.
fn overlays(examples: &[Worst]) -> Markup {
    html! {
        @if !examples.is_empty() {
            h3 { "Furthest from the truth: the picture, true classes, predicted ones" }
            div.overlays {
                @for worst in examples {
                    figure {
                        @if let Some(seen) = &worst.picture { (picture(seen, &worst.text)) }
                        figcaption { "mean IoU " b { (four(1.0 - worst.loss)) } span { (worst.text) } }
                    }
                }
            }
        }
    }
}

/// Examples whose other side is far from being found, beside what was found in its place; `sides` are the names of both.
fn mistaken(examples: &[Worst], [first, second]: [&String; 2]) -> Markup {
    let all: Vec<(&Worst, &Instead)> =
        examples.iter().filter_map(|worst| Some((worst, worst.instead.as_ref()?))).collect();
    let way = |instead: &Instead| {
        if instead.forward { format!("{first} → {second}") } else { format!("{second} → {first}") }
    };
    let rank = |instead: &Instead| significant(instead.rank);
    html! {
        @if !all.is_empty() { h3 { "Furthest from what belongs to it" } }
        @if all.iter().any(|(worst, _)| worst.picture.is_some()) {
            p.note { "A text and its picture; where the picture was looked for, beside it the one that was nearer." }
            div.gallery.pairs {
                @for (worst, instead) in &all {
                    figure {
                        @if let Some(own) = &worst.picture { (picture(own, &worst.text)) }
                        @if let Some(found) = &instead.picture { (picture(found, &instead.text)) }
                        figcaption {
                            b { (worst.text) }
                            span { (way(instead)) ": at place " (rank(instead)) ", the nearest is " (instead.text) }
                        }
                    }
                }
            }
        } @else if !all.is_empty() {
            div.scroll {
                table.rows.worst {
                    thead {
                        tr {
                            th { (first) " / " (second) } th { "way" } th { "the nearest" } th.number { "at place" }
                            th.number { "example" }
                        }
                    }
                    tbody {
                        @for (worst, instead) in &all {
                            tr {
                                td { (worst.text) } td { (way(instead)) } td { (instead.text) }
                                td.number { (rank(instead)) } td.number { (count(worst.example)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pictures that the model is far off at, as people look at them.
fn worst_pictures(examples: &[Worst], classes: bool) -> Markup {
    html! {
        h3 { @if classes { "Wrong with the most confidence" } @else { "Furthest from the truth" } }
        div.gallery {
            @for worst in examples {
                figure {
                    @if let Some(seen) = &worst.picture { (picture(seen, &worst.text)) }
                    figcaption {
                        (worst.prediction) " for " b { (worst.target) }
                        span {
                            @if classes { "p(true) " (percent((-worst.loss).exp())) } @else { "off by " (significant(worst.loss)) }
                            " · " (worst.text)
                        }
                    }
                }
            }
        }
    }
}

fn worst(examples: &[Worst], classes: bool) -> Markup {
    if examples.iter().any(|worst| worst.picture.is_some()) {
        return worst_pictures(examples, classes);
    }
    let words = examples.iter().any(|worst| worst.word.is_some());
    html! {
        h3 { @if classes { "Wrong with the most confidence" } @else { "Furthest from the truth" } }
        div.scroll {
            table.rows.worst {
                thead {
                    tr {
                        th { "text" }
                        @if words { th { "word" } }
                        th { "true" }
                        th { "predicted" }
                        th.number { @if classes { "p(true)" } @else { "off by" } }
                        th.number { "example" }
                    }
                }
                tbody {
                    @for worst in examples {
                        tr {
                            td { (worst.text) }
                            @if words { td { (worst.word.as_deref().unwrap_or_default()) } }
                            td { (worst.target) }
                            td { (worst.prediction) }
                            td.number { @if classes { (percent((-worst.loss).exp())) } @else { (significant(worst.loss)) } }
                            td.number { (count(worst.example)) }
                        }
                    }
                }
            }
        }
    }
}
