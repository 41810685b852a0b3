//! The page of a search for a learning rate: what each trial comes to, and which rate is suggested.

use maud::{Markup, html};

use super::{LrCurve, Point};
use crate::report::chart::{Chart, Scale, Series};
use crate::report::numbers::{count, significant};
use crate::report::page::curves::{Points, scale};
use crate::report::page::{document, figure};

/// The trials and the suggestion as an HTML page of one file; `name` says what was searched with: the run file.
pub fn page(name: &str, curve: &LrCurve) -> String {
    let content = html! {
        (key_figures(curve))
        section {
            h2 { "Curve" }
            div.charts { (chart(curve)) }
            p.note { "Rates that diverge, or end above the untrained loss by half of it, are not drawn. The table has them." }
        }
        section { h2 { "Trials" } (table(curve)) }
    };
    document(name, &headline(curve), &content)
}

/// `11 learning rates from 1.0e-5 to 1.0e-1, 40 steps each; the highest diverge`
fn headline(curve: &LrCurve) -> String {
    let range = match curve.points.as_slice() {
        [first, .., last] => format!(" from {} to {}", rate(first.lr), rate(last.lr)),
        _ => String::new(),
    };
    let ended = if curve.diverged { "; the highest diverge" } else { "" };
    format!("{} learning rates{range}, {} steps each{ended}", count(curve.points.len()), curve.steps)
}

/// A rate as it is written into a run file.
fn rate(lr: f64) -> String {
    format!("{lr:.1e}")
}

fn key_figures(curve: &LrCurve) -> Markup {
    let suggested = curve.suggestion.map_or_else(|| "none".to_owned(), rate);
    html! {
        section.figures { (figure("Suggestion for train.lr", &suggested, &curve.reason)) }
    }
}

fn chart(curve: &LrCurve) -> Chart {
    let highest = 1.5 * curve.untrained.abs();
    let drawn = |point: &Point| point.loss.filter(|loss| *loss <= highest);
    let losses: Points = curve.points.iter().filter_map(|point| Some((point.lr, drawn(point)?))).collect();
    let untrained: Points = losses.iter().map(|(lr, _)| (*lr, curve.untrained)).collect();
    let all: Points = losses.iter().chain(&untrained).copied().collect();
    let chart = Chart::new("Loss at the end of a trial over its learning rate", "learning rate")
        .x_scale(Scale::Log)
        .y_scale(scale(&all))
        .wide()
        .series(Series::new("untrained", untrained).faint())
        .series(Series::new("after the trial", losses));
    match curve.suggestion {
        Some(lr) => chart.marker(format!("suggestion {}", rate(lr)), lr),
        None => chart,
    }
}

fn table(curve: &LrCurve) -> Markup {
    let said = |number: Option<f64>| number.map_or_else(String::new, significant);
    html! {
        div.scroll {
            table.rows {
                thead {
                    tr {
                        th.number { "learning rate" }
                        th.number { "loss" }
                        th.number { "fall" }
                        th.number { "noise" }
                    }
                }
                tbody {
                    @for point in &curve.points {
                        tr {
                            td.number { (format!("{:.3e}", point.lr)) }
                            td.number { @if point.loss.is_none() { "diverged" } @else { (said(point.loss)) } }
                            td.number { (said(point.fall)) }
                            td.number { (said(point.noise)) }
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
