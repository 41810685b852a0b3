//! The page of a search for a learning rate: the loss over the rates, and which of them is suggested.

use maud::{Markup, html};

use super::{LrCurve, Point};
use crate::report::chart::{Chart, Scale, Series};
use crate::report::numbers::{count, significant};
use crate::report::page::curves::{Points, scale};
use crate::report::page::{document, figure};

/// The curve, the suggestion and every point as an HTML page of one file; `name` says what was searched with: the run file.
pub fn page(name: &str, curve: &LrCurve) -> String {
    let highest = highest(curve);
    let content = html! {
        (key_figures(curve))
        section {
            h2 { "Curve" }
            div.charts { (chart(curve, highest)) }
            @if curve.points.iter().any(|point| point.loss.max(point.smoothed) > highest) {
                p.note {
                    "Losses above " (significant(highest)) " are not drawn: they would press the rest flat. "
                    "The table has them."
                }
            }
        }
        section { h2 { "Points" } (table(curve)) }
    };
    document(name, &headline(curve), &content)
}

/// `78 learning rates from 1.0e-7 to 1.6e0, one step each; the loss diverged, which ended the search`
fn headline(curve: &LrCurve) -> String {
    let range = match curve.points.as_slice() {
        [first, .., last] => format!(" from {} to {}", rate(first.lr), rate(last.lr)),
        _ => String::new(),
    };
    let ended = if curve.diverged { "; the loss diverged, which ended the search" } else { "" };
    format!("{} learning rates{range}, one step each{ended}", count(curve.points.len()))
}

/// A rate as it is written into a run file.
fn rate(lr: f64) -> String {
    format!("{lr:.1e}")
}

fn key_figures(curve: &LrCurve) -> Markup {
    html! {
        section.figures {
            @if let Some(lr) = curve.suggestion {
                (figure("Suggestion", &rate(lr), "for train.lr: in the middle of the longest fall"))
            } @else {
                (figure("Suggestion", "none", "the loss fell nowhere: try another range, or look at the data"))
            }
            @if let Some(lr) = curve.steepest {
                (figure("Steepest", &rate(lr), "where the loss falls fastest"))
            }
            @if let Some(lr) = curve.tenth_of_minimum {
                (figure("A tenth of the minimum's rate", &rate(lr), "the loss is lowest at ten times as much"))
            }
        }
    }
}

/// The rates that stand out, with their names.
fn marks(curve: &LrCurve) -> impl Iterator<Item = (&'static str, f64)> {
    let marks = [
        ("suggestion", curve.suggestion),
        ("steepest", curve.steepest),
        ("a tenth of the minimum's rate", curve.tenth_of_minimum),
    ];
    marks.into_iter().filter_map(|(name, lr)| Some((name, lr?)))
}

/// The highest loss that is drawn: half above the highest smoothed one, for the noise of batches. Where training diverges the
/// loss grows a thousandfold within a few steps, and nothing would be seen of the valley.
fn highest(curve: &LrCurve) -> f64 {
    // The last point of a search that diverged is the one that was too high.
    let points = curve.points.iter().rev().skip(usize::from(curve.diverged));
    let smoothed = points.map(|point| point.smoothed).fold(f64::NEG_INFINITY, f64::max);
    smoothed + 0.5 * smoothed.abs()
}

fn chart(curve: &LrCurve, highest: f64) -> Chart {
    let points = |loss: fn(&Point) -> f64| -> Points {
        let drawn = |loss: f64| if loss > highest { f64::NAN } else { loss };
        curve.points.iter().map(|point| (point.lr, drawn(loss(point)))).collect()
    };
    let smoothed = points(|point| point.smoothed);
    let chart = Chart::new("Loss over the learning rate", "learning rate")
        .x_scale(Scale::Log)
        .y_scale(scale(&smoothed))
        .wide()
        .series(Series::new("each batch", points(|point| point.loss)).faint())
        .series(Series::new("smoothed", smoothed));
    marks(curve).fold(chart, |chart, (name, lr)| chart.marker(format!("{name} {}", rate(lr)), lr))
}

fn table(curve: &LrCurve) -> Markup {
    let marked = |point: &Point| {
        let names: Vec<&str> = marks(curve).filter(|mark| mark.1 == point.lr).map(|mark| mark.0).collect();
        names.join(", ")
    };
    html! {
        div.scroll {
            table.rows {
                thead {
                    tr {
                        th.number { "learning rate" }
                        th.number { "loss" }
                        th.number { "smoothed" }
                        th {}
                    }
                }
                tbody {
                    @for point in &curve.points {
                        tr {
                            td.number { (format!("{:.3e}", point.lr)) }
                            td.number { (significant(point.loss)) }
                            td.number { (significant(point.smoothed)) }
                            td { b { (marked(point)) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
