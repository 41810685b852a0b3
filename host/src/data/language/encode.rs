//! What a row says as tokens, and which of them are to be learned.

use std::ops::Range;

use super::conversation::{ASSISTANT, Said, Wrong};
use super::template::ChatTemplate;
use crate::data::form::Score;
use crate::data::store::UNCOUNTED;
use crate::data::text::Tokenizer;

/// A row as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    /// 0 where a token is to be learned, else [`UNCOUNTED`].
    pub(super) marks: Vec<u32>,
    /// Whether tokens were cut off.
    pub(super) truncated: bool,
    /// Whether all tokens that count were.
    pub(super) no_target: bool,
}

/// Makes tokens of rows.
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) template: Option<&'a ChatTemplate>,
    pub(super) score: Score,
    /// What stands before a text that no template writes.
    pub(super) before: Vec<u32>,
    /// What stands before one without a prompt where nothing else does, if it is to be said from its first token on: where a picture comes before.
    pub(super) start: Option<u32>,
    /// The end of a text.
    pub(super) end: Option<u32>,
}

impl Encoder<'_> {
    /// A row's tokens. Of conversations those count that the assistant says after the first `shared` turns.
    ///
    /// # Errors
    /// What is wrong with it; an error of the tokenizer is one of the row's.
    pub(super) fn encode(&self, said: &Said, shared: usize) -> Result<Encoded, Wrong> {
        match said {
            Said::Turns(turns) => {
                let Some(template) = self.template else {
                    return Err(Wrong {
                        message: "is a conversation, and the model comes with no chat template".into(),
                        help:
                            "say in the task how it is written: template = \"chatml\", \"alpaca\", or a file of Jinja"
                                .into(),
                    });
                };
                let rendered = template.render(turns).map_err(|raised| Wrong {
                    message: format!("the chat template ({}) refuses it: {raised}", template.origin()),
                    help: "change the row, or name another template in the task".into(),
                })?;
                let later = turns[shared..].iter().filter(|turn| turn.role == ASSISTANT).count();
                let answers = &rendered.answers[rendered.answers.len().saturating_sub(later)..];
                self.placed(&rendered.text, answers, Vec::new(), None)
            }
            Said::Completion { prompt, completion } => {
                let text = format!("{prompt}{completion}");
                let answer = prompt.len()..text.len();
                self.placed(&text, std::slice::from_ref(&answer), self.first(prompt), self.end)
            }
            Said::Text(text) => {
                let all = 0..text.len();
                self.placed(text, std::slice::from_ref(&all), self.first(""), self.end)
            }
        }
    }

    /// What stands before a text with this prompt.
    fn first(&self, prompt: &str) -> Vec<u32> {
        match self.start {
            Some(start) if prompt.is_empty() => vec![start],
            _ => self.before.clone(),
        }
    }

    fn placed(
        &self,
        text: &str,
        answers: &[Range<usize>],
        mut ids: Vec<u32>,
        end: Option<u32>,
    ) -> Result<Encoded, Wrong> {
        let placed = self
            .tokenizer
            .placed(text)
            .map_err(|error| Wrong { message: error.to_string(), help: "take the row out".into() })?;
        let counts = |&(from, to): &(usize, usize)| {
            self.score == Score::All || answers.iter().any(|range| range.start <= from && to <= range.end)
        };
        let all = self.score == Score::All;
        let mut marks = vec![if all { 0 } else { UNCOUNTED }; ids.len()];
        marks.extend(placed.places.iter().map(|place| if counts(place) { 0 } else { UNCOUNTED }));
        ids.extend(&placed.ids);
        // An answer ends where the text does.
        if let Some(end) = end.filter(|end| ids.last() != Some(end)) {
            ids.push(end);
            marks.push(0);
        }
        let longest = self.tokenizer.max_tokens();
        let truncated = ids.len() > longest;
        ids.truncate(longest);
        marks.truncate(longest);
        // Nothing says the first token.
        if let Some(first) = marks.first_mut() {
            *first = UNCOUNTED;
        }
        let no_target = marks.iter().all(|&mark| mark == UNCOUNTED);
        Ok(Encoded { ids, marks, truncated, no_target })
    }
}
