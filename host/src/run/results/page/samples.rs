//! What a language model said to validation examples while it trained.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::report::numbers::count;

/// A line of `metrics.jsonl` that says it.
#[derive(Deserialize)]
struct Sample<'a> {
    step: u64,
    row: u64,
    task: &'a str,
    prompt: &'a str,
    text: &'a str,
}

/// Of one row the prompt, and by the step what the model went on with.
#[derive(Default)]
pub(super) struct Said<'a> {
    prompt: &'a str,
    texts: BTreeMap<u64, &'a str>,
}

/// What the lines of `metrics.jsonl` say of it, by task and row.
pub(super) fn read(lines: &[Value]) -> BTreeMap<&str, BTreeMap<u64, Said<'_>>> {
    let mut tasks = BTreeMap::<&str, BTreeMap<u64, Said<'_>>>::new();
    let samples =
        lines.iter().filter(|line| line["event"] == "sample").filter_map(|line| Sample::deserialize(line).ok());
    for Sample { step, row, task, prompt, text } in samples {
        let said = tasks.entry(task).or_default().entry(row).or_default();
        said.prompt = prompt;
        said.texts.insert(step, text);
    }
    tasks
}

/// Each row's prompt beside the first text and the last; all others folded. `several` says whether the run has several tasks.
pub(super) fn section(task: &str, rows: &BTreeMap<u64, Said<'_>>, several: bool) -> Markup {
    let steps: BTreeSet<u64> = rows.values().flat_map(|said| said.texts.keys().copied()).collect();
    let (Some(&first), Some(&last)) = (steps.first(), steps.last()) else { return html! {} };
    let ends = if first < last { vec![first, last] } else { vec![last] };
    html! {
        section {
            h2 { "Samples" @if several { ": " (task) } }
            p.note { "How the model went on with prompts of validation examples, by the most probable token each time." }
            (table(rows, &ends))
            @if steps.len() > ends.len() {
                details {
                    summary { "All " (count(steps.len())) " evaluations" }
                    (table(rows, &steps.into_iter().collect::<Vec<_>>()))
                }
            }
        }
    }
}

/// A row for each text: those of an example one under the other, its prompt beside the first.
fn table(rows: &BTreeMap<u64, Said<'_>>, steps: &[u64]) -> Markup {
    html! {
        div.scroll {
            table.rows.samples {
                thead { tr { th { "asked" } th.number { "step" } th { "text" } } }
                tbody {
                    @for said in rows.values() {
                        @for (place, step) in steps.iter().filter(|step| said.texts.contains_key(step)).enumerate() {
                            tr {
                                td { @if place == 0 { (said.prompt) } }
                                td.number { (count(*step as usize)) }
                                td { (said.texts[step]) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_and_the_last_text_are_shown_and_the_others_folded() {
        let line = |step: u64, row: u64| {
            let text = format!("<{row} at {step}>");
            json!({ "event": "sample", "task": "t", "step": step, "row": row, "prompt": format!("ask {row}"), "text": text })
        };
        let page = |steps: &[u64]| {
            let mut lines: Vec<Value> = steps.iter().flat_map(|&step| [line(step, 1), line(step, 2)]).collect();
            lines.push(json!({ "event": "step", "step": 9 }));
            let tasks = read(&lines);
            section("t", &tasks["t"], false).into_string()
        };
        let (two, three) = (page(&[4, 8]), page(&[4, 8, 12]));
        assert!(
            two.contains("&lt;1 at 4&gt;") && two.contains("&lt;2 at 8&gt;") && !two.contains("<details>"),
            "{two}"
        );
        let (open, folded) = three.split_once("<details>").unwrap();
        assert!(open.contains("1 at 12") && !open.contains("1 at 8") && folded.contains("1 at 8"), "{three}");
        assert_eq!(two.matches("ask 1").count(), 1);
        assert!(read(&[json!({ "event": "step", "step": 1 })]).is_empty());
    }
}
