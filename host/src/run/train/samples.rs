//! What a language model says at an evaluation: to the log, and in a line for a person.

use crate::Result;
use crate::adapted::AdaptedModel;
use crate::run::generation::Continuation;
use crate::run::setup::samples::Prompt;
use crate::run::setup::task::Task;
use crate::run::state::folder::RunFolder;
use crate::run::state::log::Line;

/// Letters of a prompt's end and of a text's beginning that a person sees while it trains.
const SHOWN: [usize; 2] = [60, 160];

/// Continues a task's prompts by the model as it is after a step, where it has some, and logs how. Gives what a person sees of each.
pub(super) fn say(task: &Task, model: &AdaptedModel, step: u64, folder: &mut RunFolder) -> Result<Vec<String>> {
    let Some(samples) = &task.samples else { return Ok(Vec::new()) };
    let mut seen = Vec::new();
    for (Prompt { row, text: prompt, .. }, Continuation { text, finish_reason, .. }) in samples.say(model)? {
        let (task, row) = (task.name.as_str(), *row);
        folder.log(&Line::Sample { step, task, row, prompt, text: &text, finish_reason })?;
        seen.push(sample_text(prompt, &text));
    }
    Ok(seen)
}

/// How a prompt goes on, in a line; what the model says stands between ⟦ and ⟧.
fn sample_text(prompt: &str, text: &str) -> String {
    let [of_prompt, of_text] = SHOWN;
    let line = |text: &str| text.replace('\n', "⏎").replace(char::is_control, " ").chars().collect::<Vec<char>>();
    let (prompt, text) = (line(prompt), line(text));
    let (end, begin) = (prompt.len().saturating_sub(of_prompt), text.len().min(of_text));
    let letters = |letters: &[char]| letters.iter().collect::<String>();
    let (before, after) = (if end > 0 { "…" } else { "" }, if begin < text.len() { "…" } else { "" });
    format!("{before}{}⟦{}{after}⟧", letters(&prompt[end..]), letters(&text[..begin]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_where_a_prompt_ends_and_a_text_begins() {
        assert_eq!(sample_text("user\nHow?\n", "So."), "user⏎How?⏎⟦So.⟧");
        let (prompt, text) = (format!("{}é", "a".repeat(99)), "b".repeat(161));
        assert_eq!(sample_text(&prompt, &text), format!("…{}é⟦{}…⟧", "a".repeat(59), "b".repeat(160)));
    }
}
