//! What a page shows of tasks that trained one after the other: each task after each as a table with a colour for how good it is.

use maud::{Markup, html};

use super::super::continual::{Averages, Continual, four};
use super::results::title;
use crate::report::metrics::higher_is_better;
use crate::report::page::figure;

/// The section of a run whose tasks trained in sequence.
pub(super) fn section(found: &Continual) -> Markup {
    let same = found.metrics.iter().all(|metric| *metric == found.metrics[0]);
    html! {
        section {
            h2 { "One task after the other" }
            div.figures { @for summary in &found.summaries { (figures(summary)) } }
            h3 { @if same { (title(&found.metrics[0])) " of each task after each" } @else { "Each task after each" } }
            p.note { "In italics: a task that is still to come." }
            div.scroll {
                table.confusion {
                    thead {
                        tr {
                            th {}
                            @for (task, metric) in found.tasks.iter().zip(&found.metrics) {
                                th.label scope="col" { (task) @if !same { br; small { (title(metric)) } } }
                            }
                        }
                    }
                    tbody {
                        @for (name, trained, values) in found.rows() {
                            tr {
                                th.label scope="row" { (name) }
                                @for (column, &value) in values.iter().enumerate() {
                                    (cell(value, share(found, column, value), learned(found, column, trained)))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn figures(summary: &Averages) -> Markup {
    let over = format!("mean of {} tasks at the end", summary.tasks.len());
    html! {
        @if let Some(average) = summary.average {
            (figure(&format!("Average {}", title(&summary.metric).to_lowercase()), &four(average), &over))
        }
        @for (name, value) in summary.differences() { (figure(&title(name), &four(value), "")) }
    }
}

/// Whether a column's task is among the first `trained`.
fn learned(found: &Continual, column: usize, trained: usize) -> bool {
    found.after[..trained].contains(&found.tasks[column])
}

fn cell(value: f64, share: f64, learned: bool) -> Markup {
    html! {
        @if value.is_finite() {
            td.right.strong[share > 0.55].ahead[!learned] style=(format!("--share:{share:.3}")) { (four(value)) }
        } @else {
            td.none { "-" }
        }
    }
}

/// How good a value is, from 0 to 1: of what has no bounds between the worst and the best of its column.
fn share(found: &Continual, column: usize, value: f64) -> f64 {
    let better = higher_is_better(&found.metrics[column]);
    let all = || found.rows().map(|(_, _, values)| values[column]).filter(|value| value.is_finite());
    if better && all().all(|value| value <= 1.0) {
        return value.clamp(0.0, 1.0);
    }
    let (least, most) = all().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
    let place = (value - least) / (most - least).max(f64::MIN_POSITIVE);
    if better { place } else { 1.0 - place }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::run::state::snapshot::After;

    #[test]
    fn each_task_after_each_has_a_colour_and_what_is_to_come_is_marked() {
        let values = |first: f64, second: f64| {
            [
                ("one".to_owned(), [("accuracy".into(), first)].into()),
                ("<two>".into(), [("loss".into(), second)].into()),
            ]
            .into()
        };
        let sequence = [
            After { task: "one".into(), metrics: values(0.9, 2.0) },
            After { task: "<two>".into(), metrics: values(0.5, 1.0) },
        ];
        let found = Continual::of(&values(0.1, f64::NAN), &sequence).unwrap();
        let text = section(&found).into_string();
        for expected in [
            "Each task after each",
            r#"<td class="right ahead" style="--share:0.100">0.1000</td><td class="none">-</td>"#,
            r#"<td class="right strong" style="--share:0.900">0.9000</td><td class="right ahead" style="--share:0.000">2.0000</td>"#,
            r#"<td class="right" style="--share:0.500">0.5000</td><td class="right strong" style="--share:1.000">1.0000</td>"#,
            "after &lt;two&gt;",
            "Average accuracy",
            "Forgetting",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
