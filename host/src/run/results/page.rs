//! `report.html`: the page of a run.

mod continual;
mod results;
mod samples;

use maud::{Markup, html};
use serde_json::Value;

use super::result::{Split, Summary, TaskResult};
use crate::data::Survey;
use crate::report::numbers::{bytes, count, duration, percent, significant};
use crate::report::page::curves::Curves;
use crate::report::page::{document, figure};
use crate::run::setup::plan::Plan;
use crate::run::state::identity::PluginUsed;

/// The page of a run. `metrics` are the lines of its `metrics.jsonl`; those of an unknown kind are left out.
pub fn page(summary: &Summary, metrics: &[Value]) -> String {
    let name = summary.folder.file_name().unwrap_or(summary.folder.as_os_str()).to_string_lossy();
    // Of tasks in sequence each has its own best step, and the last one's is what is saved.
    let watched = summary.tasks.values().filter_map(|task| task.watch.as_ref());
    let watch = summary.watch.as_ref().or(watched.max_by_key(|watch| watch.best.map(|best| best.step)));
    let best = watch.and_then(|watch| watch.best).map(|best| best.step);
    let charts = Curves::read(metrics).charts(watch.map(|watch| watch.metric.as_str()), best);
    let content = html! {
        (key_figures(summary))
        @if !charts.is_empty() {
            section { h2 { "Training" } div.charts { @for chart in &charts { (chart) } } }
        }
        @if let Some(found) = &summary.continual { (continual::section(found)) }
        @for (task, result) in &summary.tasks { (results::section(task, result)) }
        @for (task, said) in samples::read(metrics) { (samples::section(task, &said, summary.tasks.len() > 1)) }
        (data(summary))
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
                @let (report, on) = result.shown();
                @if let Some(main) = results::main(result) {
                    @let title = if summary.tasks.len() > 1 { format!("{task}: {}", results::title(main)) } else { results::title(main) };
                    @let before = result.before.get(main).map(|&before| value(main, before) + " before training");
                    @let of = if on == Split::Validation { "on validation examples".to_owned() } else { String::new() };
                    (figure(&title, &value(main, report.metrics[main]), &before.unwrap_or(of)))
                }
            }
            @let first_step = format!("first step after {}", duration(train.first_step_seconds));
            (figure("Training", &duration(train.seconds), &first_step))
            @let examples = format!("{} examples per second", speed(train.samples));
            @if train.tokens > train.samples {
                (figure("Tokens per second", &speed(train.tokens), &examples))
            } @else {
                (figure("Examples per second", &speed(train.samples), ""))
            }
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

/// A metric's value, accuracy as people say it.
fn value(metric: &str, value: f64) -> String {
    if metric == "accuracy" { percent(value) } else { significant(value) }
}

/// A part of a whole as a row with a bar.
fn part(name: &str, cells: &[String], share: f64) -> Markup {
    html! { tr { (part_cells(name, cells, share)) } }
}

fn part_cells(name: &str, cells: &[String], share: f64) -> Markup {
    html! {
        td { (name) }
        @for cell in cells { td.number { (cell) } }
        td.number { (percent(share)) }
        td.bar { i style=(format!("width:{:.2}%", 100.0 * share.clamp(0.0, 1.0))) {} }
    }
}

/// The files that the run read, with their examples, and how many each class has.
fn data(summary: &Summary) -> Markup {
    let several = summary.tasks.len() > 1;
    let classes = |result: &'_ TaskResult| {
        let counts = result.labels.iter().cloned().zip(result.class_counts.iter().copied());
        let mut counts: Vec<(String, u64)> = counts.collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    };
    html! {
        section {
            h2 { "Data" }
            @for survey in &summary.plan.data {
                @for sentence in &survey.suspicious { p { @if several { (survey.task) ": " } (sentence) } }
            }
            div.columns {
                @if !summary.plan.files.is_empty() { div {
                    h3 { "Files" }
                    table.rows {
                        thead { tr { @if several { th { "task" } } th { "for" } th { "file" } th.number { "examples" } } }
                        tbody {
                            @for file in &summary.plan.files {
                                tr {
                                    @if several { td { (file.task) } }
                                    td { (file.part) }
                                    td { code { (file.path.display()) } }
                                    td.number { (count(file.examples)) }
                                }
                            }
                        }
                    }
                }}
                @for survey in &summary.plan.data { (survey_table(survey, several)) }
                @for (task, result) in &summary.tasks {
                    @let counts = classes(result);
                    @let all: u64 = counts.iter().map(|(_, count)| count).sum();
                    @let surveyed = summary.plan.data.iter().find(|survey| survey.task == *task);
                    @let first = |label: &str| surveyed.and_then(|survey| survey.first_text(label)).unwrap_or_default();
                    // Images have none.
                    @let shows = counts.iter().any(|(label, _)| !first(label).is_empty());
                    @let what = if result.shown().0.pixels.is_empty() { "examples" } else { "pixels" };
                    @if all > 0 {
                        div.whole[shows] {
                            h3 {
                                @if several { (task) ": training " (what) " by class" }
                                @else { "Training " (what) " by class" }
                            }
                            div.tall {
                                table.rows {
                                    thead {
                                        tr {
                                            th { "class" } th.number { (what) } th.number { "share" } th {}
                                            @if shows { th { "first example" } }
                                        }
                                    }
                                    tbody {
                                        @for (label, examples) in &counts {
                                            tr {
                                                @let cells = [count(*examples as usize)];
                                                (part_cells(label, &cells, *examples as f64 / all as f64))
                                                @if shows { td { (first(label)) } }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is counted in the examples of a task; what is suspicious stands above all of the section.
fn survey_table(survey: &Survey, several: bool) -> Markup {
    html! {
        div {
            h3 { @if several { (survey.task) ": what is in them" } @else { "What is in them" } }
            table.rows {
                thead { tr { th {} @for part in &survey.parts { th.number { (part.part) } } } }
                tbody {
                    @for (what, numbers) in survey.numbers() {
                        tr { td { (what) } @for number in &numbers { td.number { (number) } } }
                    }
                }
            }
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
                @for batch in &plan.batches { dt { "Batches" } dd { (batch) } }
                @for found in &plan.balance { dt { "Balance" } dd { (found.to_text()) } }
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
                                        td { code { (found.pattern) } @if let Some(stream) = &found.stream { " of " (stream) } }
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
                                ("what plugins keep", memory.plugins),
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
