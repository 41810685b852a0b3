//! `report.html`: the page of a run.

use maud::{Markup, html};
use serde_json::Value;

use super::result::{Summary, TaskResult};
use crate::report::numbers::{bytes, count, duration, percent, significant};
use crate::report::page::confusion;
use crate::report::page::curves::Curves;
use crate::report::page::{document, figure};
use crate::run::setup::plan::Plan;
use crate::run::state::identity::PluginUsed;

/// Metrics that come first, the one that names a task's result before the others.
const FIRST: [&str; 7] = ["entity_f1", "accuracy", "pearson", "spearman", "macro_f1", "matthews", "loss"];

/// The page of a run. `metrics` are the lines of its `metrics.jsonl`; those of an unknown kind are left out.
pub fn page(summary: &Summary, metrics: &[Value]) -> String {
    let name = summary.folder.file_name().unwrap_or(summary.folder.as_os_str()).to_string_lossy();
    let charts = Curves::read(metrics).charts();
    let content = html! {
        (key_figures(summary))
        @if !charts.is_empty() {
            section { h2 { "Training" } div.charts { @for chart in &charts { (chart) } } }
        }
        @for (task, result) in &summary.tasks { (results(task, result)) }
        (plan(&summary.plan))
        (plugins(&summary.plugins))
        (facts(summary))
    };
    document(&name, &headline(summary), &content)
}

/// `bert with lora and cosine, 400 steps on cpu in f32`
fn headline(summary: &Summary) -> String {
    let plugins: Vec<&str> = summary.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let with = if plugins.is_empty() { String::new() } else { format!(" with {}", plugins.join(", ")) };
    let steps = count(summary.train.steps as usize);
    format!("{}{with} · {steps} steps on {} in {}", summary.plan.model, summary.device, summary.precision)
}

fn key_figures(summary: &Summary) -> Markup {
    let train = &summary.train;
    let speed = |n: u64| significant(n as f64 / train.seconds);
    let trainable = summary.parameters.trainable as f64 / summary.parameters.total.max(1) as f64;
    html! {
        section.figures {
            @for (task, result) in &summary.tasks {
                @if let Some(main) = FIRST.into_iter().find(|&metric| result.metrics.contains_key(metric)) {
                    @let title = if summary.tasks.len() > 1 { format!("{task}: {}", title(main)) } else { title(main) };
                    @let before = result.before.get(main).map(|&before| value(main, before) + " before training");
                    (figure(&title, &value(main, result.metrics[main]), &before.unwrap_or_default()))
                }
            }
            @let first_step = format!("first step after {}", duration(train.first_step_seconds));
            (figure("Training", &duration(train.seconds), &first_step))
            @let examples = format!("{} examples per second", speed(train.samples));
            (figure("Tokens per second", &speed(train.tokens), &examples))
            @if train.peak_rss_bytes > 0 {
                @let planned = format!("{} planned", bytes(summary.plan.memory.total() as u64));
                (figure("Peak memory", &bytes(train.peak_rss_bytes), &planned))
            }
            (figure(
                "Trainable",
                &percent(trainable),
                &format!("{} of {} parameters", count(summary.parameters.trainable), count(summary.parameters.total)),
            ))
            (figure("Training loss", &significant(train.loss), "mean of the last epoch"))
        }
    }
}

/// `macro_f1` as `Macro F1`.
fn title(metric: &str) -> String {
    let words = metric.replace('_', " ").replace("f1", "F1");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A metric's value, accuracy as people say it.
fn value(metric: &str, value: f64) -> String {
    if metric == "accuracy" { percent(value) } else { significant(value) }
}

fn results(task: &str, result: &TaskResult) -> Markup {
    html! {
        section {
            h2 { "Results: " (task) }
            @if result.metrics.is_empty() { p.note { "The task has no test data." } }
            div.columns {
                @if !result.metrics.is_empty() { div { (metrics_table(result)) } }
                @if let Some(report) = &result.report {
                    div { h3 { "Classification report" } pre { (report.trim_end_matches('\n')) } }
                }
            }
            @if !result.confusion.is_empty() { (confusion::matrix(&result.confusion, &result.labels)) }
        }
    }
}

fn metrics_table(result: &TaskResult) -> Markup {
    let place = |metric: &str| FIRST.iter().position(|&first| first == metric).unwrap_or(FIRST.len());
    let mut metrics: Vec<(&String, f64)> = result.metrics.iter().map(|(name, &value)| (name, value)).collect();
    metrics.sort_by_key(|(name, _)| place(name));
    let compared = !result.before.is_empty();
    html! {
        h3 { "On the test data" }
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
                    @let before = result.before.get(metric);
                    tr {
                        td { (title(metric)) }
                        @if compared { td.number { (before.map(|&value| four(value)).unwrap_or_default()) } }
                        td.number { b { (four(after)) } }
                        @if compared { td.number { (before.map(|before| change(after - before)).unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}

/// Four decimals, as the classification report has them, where they say enough.
fn four(value: f64) -> String {
    if (0.01..1e4).contains(&value.abs()) || value == 0.0 { format!("{value:.4}") } else { significant(value) }
}

fn change(by: f64) -> String {
    if by > 0.0 { format!("+{}", four(by)) } else { four(by) }
}

/// A part of a whole as a row with a bar.
fn part(name: &str, cells: &[String], share: f64) -> Markup {
    html! {
        tr {
            td { (name) }
            @for cell in cells { td.number { (cell) } }
            td.number { (percent(share)) }
            td.bar { i style=(format!("width:{:.2}%", 100.0 * share.clamp(0.0, 1.0))) {} }
        }
    }
}

fn plan(plan: &Plan) -> Markup {
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    let memory = plan.memory;
    html! {
        section {
            h2 { "Plan" }
            dl {
                dt { "Model" } dd { (plan.model) ", " (count(plan.total_parameters)) " parameters" }
                dt { "Data" } dd { (plan.data_text()) }
                @for found in &plan.from_data { dt { "Options" } dd { (found.to_text()) } }
                dt { "Steps" }
                dd { (count(plan.steps as usize)) ", " (count(plan.steps_per_epoch as usize)) " an epoch" }
            }
            div.columns {
                @if !plan.matches.is_empty() {
                    div {
                        h3 { "What the patterns matched" }
                        table.rows {
                            thead { tr { th { "pattern" } th.number { "strategy" } th.number { "places" } } }
                            tbody {
                                @for found in &plan.matches {
                                    tr {
                                        td { code { (found.pattern) } }
                                        td.number { (found.strategy + 1) }
                                        td.number { (count(found.matched)) }
                                    }
                                }
                            }
                        }
                    }
                }
                div {
                    h3 { "What trains" }
                    table.rows {
                        thead {
                            tr {
                                th { "of" }
                                th.number { "tensors" }
                                th.number { "parameters" }
                                th.number { "share" }
                                th {}
                            }
                        }
                        tbody {
                            @for owner in &plan.trainable {
                                @let cells = [count(owner.tensors), count(owner.elements)];
                                (part(&owner.owner, &cells, share(owner.elements, plan.trainable_parameters)))
                            }
                        }
                    }
                }
                div {
                    h3 { "Memory, as estimated" }
                    table.rows {
                        thead { tr { th { "for" } th.number { "size" } th.number { "share" } th {} } }
                        tbody {
                            @for (name, size) in [
                                ("program and weights", memory.weights),
                                ("gradients and optimizer", memory.training),
                                ("activations", memory.activations),
                                ("data", memory.data),
                            ] {
                                (part(name, &[bytes(size as u64)], share(size, memory.total())))
                            }
                        }
                        tfoot { tr { td { "all" } td.number { (bytes(memory.total() as u64)) } td {} td {} } }
                    }
                }
            }
        }
    }
}

fn plugins(plugins: &[PluginUsed]) -> Markup {
    html! {
        @if !plugins.is_empty() {
            section {
                h2 { "Plugins" }
                div.scroll {
                    table.rows {
                        thead { tr { th { "name" } th { "version" } th { "file and its SHA-256" } } }
                        tbody {
                            @for plugin in plugins {
                                tr {
                                    td { b { (plugin.name) } }
                                    td { (plugin.version) }
                                    td { code { (plugin.path) } br; code.hash { (plugin.sha256) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn facts(summary: &Summary) -> Markup {
    let train = &summary.train;
    html! {
        section {
            h2 { "Run" }
            dl {
                dt { "Run folder" } dd { code { (summary.folder.display()) } }
                dt { "Saved " (summary.saved.format) } dd { code { (summary.saved.path.display()) } }
                dt { "Seed" } dd { (summary.seed) }
                dt { "Device" } dd { (summary.device) }
                dt { "Precision" } dd { (summary.precision) }
                dt { "Trained" } dd {
                    (count(train.steps as usize)) " steps, " (count(train.samples as usize)) " examples, "
                    (count(train.tokens as usize)) " tokens in " (duration(train.seconds))
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
