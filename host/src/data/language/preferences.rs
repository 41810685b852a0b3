//! Pairs of answers to one prompt, the better one first: what rows of the usual forms say.

use std::path::Path;

use serde_json::{Map, Value};

use super::conversation::{
    ASSISTANT, COMPLETIONS, Said, Turn, USER, Wrong, get, in_order, instruction, messages, refuse_no_answer,
};
use crate::Error;
use crate::data::row::{Columns, data_error};

/// Two answers to one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// The better one, with the prompt.
    pub(super) chosen: Said,
    /// The other, with the prompt.
    pub(super) rejected: Said,
    /// How many turns are the prompt's, of conversations.
    pub(super) shared: usize,
}

/// Where prompts are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PromptIn {
    /// In a column: a text, or messages.
    Column(String),
    /// In `instruction` and `input`.
    Instruction,
    /// In both answers, which begin alike.
    Answers,
}

/// The form of a file's rows, as their keys tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairForm {
    prompt: PromptIn,
    chosen: String,
    rejected: String,
}

/// An answer, or a whole conversation.
enum Answer {
    Text(String),
    Turns(Vec<Turn>),
}

impl PairForm {
    /// The form of rows with these keys; `None` where no two answers are in them. The run file may name the columns: the prompt's as that of the
    /// text, the better answer's as the label's, and the other's as the second text's.
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a str> + Clone, columns: &Columns) -> Option<Self> {
        let has = |name: &str| keys.clone().any(|key| key == name);
        let chosen = columns.label.clone().unwrap_or_else(|| "chosen".into());
        let rejected = columns.text_pair.clone().unwrap_or_else(|| "rejected".into());
        if !has(&chosen) || !has(&rejected) {
            return None;
        }
        let prompt = match &columns.text {
            Some(name) => PromptIn::Column(name.clone()),
            None if has("instruction") => PromptIn::Instruction,
            None => match COMPLETIONS.into_iter().find(|(name, _)| has(name)) {
                Some((name, _)) => PromptIn::Column(name.into()),
                None => PromptIn::Answers,
            },
        };
        Some(Self { prompt, chosen, rejected })
    }

    /// What is said of the form in a plan.
    pub(super) fn describe(&self) -> String {
        let Self { prompt, chosen, rejected } = self;
        let prompts = match prompt {
            PromptIn::Column(name) => format!("to what is in `{name}`"),
            PromptIn::Instruction => "to `instruction` and `input`".into(),
            PromptIn::Answers => "to what both begin with".into(),
        };
        format!("pairs of answers {prompts}, the better one in `{chosen}`, the other in `{rejected}`")
    }

    /// What a row says.
    ///
    /// # Errors
    /// Where it is not of the form: half a sentence, and what helps.
    pub(super) fn read(&self, row: &Map<String, Value>) -> Result<Pair, Wrong> {
        let both = (answer(row, &self.chosen)?, answer(row, &self.rejected)?);
        let prompt = match &self.prompt {
            PromptIn::Instruction => instruction(row)?,
            PromptIn::Column(name) => match (get(row, name)?, &both) {
                (Value::String(text), (Answer::Text(chosen), Answer::Text(rejected))) => {
                    let said = |answer: &String| Said::Completion { prompt: text.clone(), completion: answer.clone() };
                    return Ok(Pair { chosen: said(chosen), rejected: said(rejected), shared: 0 });
                }
                (Value::String(text), _) => vec![Turn::new(USER, text)],
                (Value::Array(list), _) => messages(name, list)?,
                _ => {
                    return Err(Wrong::new(
                        format!("`{name}` must be a text or a list of messages"),
                        "it is what both answers answer",
                    ));
                }
            },
            PromptIn::Answers => return self.begin_alike(both),
        };
        let (chosen, rejected) = match both {
            // As some publish them: conversations from their beginning, and the prompt once more beside them.
            (Answer::Turns(a), Answer::Turns(b)) if !begins_to_answer(&a) && !begins_to_answer(&b) => {
                return self.begin_alike((Answer::Turns(a), Answer::Turns(b)));
            }
            both => both,
        };
        let whole = |name: &str, answer: Answer| {
            let mut turns = prompt.clone();
            turns.extend(match answer {
                Answer::Text(text) => vec![Turn::new(ASSISTANT, text)],
                Answer::Turns(turns) => turns,
            });
            in_order(name, turns).map(Said::Turns)
        };
        let (chosen, rejected) = (whole(&self.chosen, chosen)?, whole(&self.rejected, rejected)?);
        Ok(Pair { chosen, rejected, shared: prompt.len() })
    }

    /// Two texts, or two conversations, that begin alike: what they have in common is the prompt.
    fn begin_alike(&self, both: (Answer, Answer)) -> Result<Pair, Wrong> {
        let Self { chosen, rejected, .. } = self;
        let no_prompt = || {
            let message = format!("`{chosen}` and `{rejected}` have no beginning in common, and there is no prompt");
            Wrong::new(message, "give the rows a `prompt`, or name its column: columns = { text = \"...\" }")
        };
        match both {
            (Answer::Text(a), Answer::Text(b)) => {
                let prompt = common_words(&a, &b);
                if prompt.is_empty() {
                    return Err(no_prompt());
                }
                let said = |name: &str, text: &str| -> Result<Said, Wrong> {
                    let completion = text[prompt.len()..].to_owned();
                    refuse_no_answer(name, &completion)?;
                    Ok(Said::Completion { prompt: prompt.to_owned(), completion })
                };
                Ok(Pair { chosen: said(chosen, &a)?, rejected: said(rejected, &b)?, shared: 0 })
            }
            (Answer::Turns(a), Answer::Turns(b)) => {
                let (a, b) = (in_order(chosen, a)?, in_order(rejected, b)?);
                let alike = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
                let shared = alike.min(a.len() - 1).min(b.len() - 1); // the last turn is an answer
                if shared == 0 {
                    return Err(no_prompt());
                }
                Ok(Pair { chosen: Said::Turns(a), rejected: Said::Turns(b), shared })
            }
            _ => Err(Wrong::new(
                format!("of `{chosen}` and `{rejected}` one is a text and one a list of messages"),
                "write both in one way",
            )),
        }
    }
}

/// What is said of a file, or a row of it, without pairs.
pub(super) fn no_pairs(path: &Path, line: Option<u64>, what: &str) -> Error {
    data_error(path, line, format!("{what}, and no pairs of answers")).with_help(
        "rows have prompt, chosen and rejected, or instruction, chosen and rejected, or two conversations that begin alike. Or say it: columns \
         = { text = \"QUESTION\", label = \"BETTER\", text_pair = \"WORSE\" }",
    )
}

/// Whether messages are an answer alone, and no conversation from its beginning.
fn begins_to_answer(turns: &[Turn]) -> bool {
    turns.first().is_none_or(|turn| turn.role == ASSISTANT)
}

fn answer(row: &Map<String, Value>, name: &str) -> Result<Answer, Wrong> {
    match get(row, name)? {
        Value::String(text) => {
            refuse_no_answer(name, text)?;
            Ok(Answer::Text(text.clone()))
        }
        Value::Array(list) => {
            let turns = messages(name, list)?;
            match turns.is_empty() {
                true => refuse_no_answer(name, "").map(|()| Answer::Turns(turns)),
                false => Ok(Answer::Turns(turns)),
            }
        }
        Value::Null => refuse_no_answer(name, "").map(|()| Answer::Text(String::new())),
        _ => Err(Wrong::new(
            format!("`{name}` must be a text or a list of messages"),
            "such as \"four\", or [{\"role\": \"assistant\", \"content\": \"four\"}]",
        )),
    }
}

/// The words that two texts begin with, without the space after them: a token is often a word with the space before it.
fn common_words<'a>(a: &'a str, b: &str) -> &'a str {
    let differ = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b);
    let alike = &a[..differ.map_or(a.len().min(b.len()), |((place, _), _)| place)];
    alike.trim_end_matches(|letter: char| !letter.is_whitespace()).trim_end()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn read(row: &Value) -> Result<Pair, Wrong> {
        let row = row.as_object().unwrap();
        PairForm::of(row.keys().map(String::as_str), &Columns::default()).unwrap().read(row)
    }

    fn message(role: &str, content: &str) -> Value {
        json!({ "role": role, "content": content })
    }

    /// The two answers to one question as conversations.
    fn both() -> Pair {
        let said = |answer: &str| Said::Turns(vec![Turn::new(USER, "2 + 2?"), Turn::new(ASSISTANT, answer)]);
        Pair { chosen: said("4"), rejected: said("5"), shared: 1 }
    }

    #[test]
    fn every_form_says_which_answer_is_better() {
        let (asks, right, wrong) = (message("user", "2 + 2?"), message("assistant", "4"), message("assistant", "5"));
        for row in [
            json!({ "prompt": [asks], "chosen": [right], "rejected": [wrong] }),
            json!({ "prompt": [asks], "chosen": "4", "rejected": "5" }),
            json!({ "prompt": "2 + 2?", "chosen": [right], "rejected": [wrong] }),
            json!({ "question": "2 + 2?", "chosen": [right], "rejected": "5" }),
            json!({ "instruction": "2 + 2?", "input": "", "output": "4", "chosen": "4", "rejected": "5" }),
            json!({ "chosen": [asks, right], "rejected": [asks, wrong] }),
            json!({ "prompt": "2 + 2?", "chosen": [asks, right], "rejected": [asks, wrong] }),
        ] {
            assert_eq!(read(&row).unwrap(), both(), "{row}");
        }
        let said = |answer: &str| Said::Completion { prompt: "2 + 2 =".into(), completion: answer.into() };
        let texts = Pair { chosen: said(" 4"), rejected: said(" 44"), shared: 0 };
        assert_eq!(read(&json!({ "prompt": "2 + 2 =", "chosen": " 4", "rejected": " 44" })).unwrap(), texts);
        assert_eq!(read(&json!({ "chosen": "2 + 2 = 4", "rejected": "2 + 2 = 44" })).unwrap(), texts);
    }

    #[test]
    fn the_prompt_of_conversations_is_what_they_have_in_common() {
        let turns = |last: &str| {
            let said = [("user", "Hi."), ("assistant", "Hello."), ("user", "2 + 2?"), ("assistant", last)];
            Value::from(said.map(|(role, text)| message(role, text)).to_vec())
        };
        assert_eq!(read(&json!({ "chosen": turns("4"), "rejected": turns("5") })).unwrap().shared, 3);
        // Equal ones have an answer too.
        assert_eq!(read(&json!({ "chosen": turns("4"), "rejected": turns("4") })).unwrap().shared, 3);
    }

    #[test]
    fn words_are_not_cut_apart() {
        for (a, b, expected) in [
            ("Human: hi\n\nAssistant: Good day", "Human: hi\n\nAssistant: Goodbye", "Human: hi\n\nAssistant:"),
            ("a b", "a b c", "a"),
            ("é à", "é á", "é"),
            ("ab", "ac", ""),
            ("", "x", ""),
        ] {
            assert_eq!(common_words(a, b), expected);
            assert_eq!(common_words(b, a), expected);
        }
    }

    #[test]
    fn columns_may_be_named() {
        let columns = Columns {
            text: Some("q".into()),
            label: Some("good".into()),
            text_pair: Some("bad".into()),
            ..Columns::default()
        };
        let form = PairForm::of(["q", "good", "bad", "id"].into_iter(), &columns).unwrap();
        assert!(form.describe().contains("`q`") && form.describe().contains("the better one in `good`"));
        let row = json!({ "q": "a", "good": "b", "bad": "c" });
        assert!(form.read(row.as_object().unwrap()).is_ok());
        assert_eq!(PairForm::of(["q", "good"].into_iter(), &columns), None);
        assert_eq!(PairForm::of(["prompt", "completion"].into_iter(), &Columns::default()), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |row: Value, message: &str| {
            let wrong = read(&row).unwrap_err();
            assert!(wrong.message.contains(message), "{}", wrong.message);
        };
        let (asks, answers) = (message("user", "x"), message("assistant", "y"));
        check(json!({ "prompt": "x", "chosen": "", "rejected": "y" }), "`chosen` is empty");
        check(json!({ "prompt": "x", "chosen": "y", "rejected": " " }), "`rejected` is empty");
        check(json!({ "prompt": "x", "chosen": null, "rejected": "y" }), "`chosen` is empty");
        check(json!({ "prompt": "x", "chosen": [], "rejected": "y" }), "`chosen` is empty");
        check(json!({ "prompt": "x", "chosen": 4, "rejected": "y" }), "`chosen` must be a text or a list");
        check(json!({ "prompt": null, "chosen": "y", "rejected": "z" }), "`prompt` must be a text or a list");
        check(json!({ "chosen": "yes", "rejected": "no" }), "have no beginning in common");
        check(json!({ "chosen": [asks, answers], "rejected": "no" }), "one is a text and one a list");
        check(json!({ "prompt": [asks], "chosen": [answers, asks], "rejected": "z" }), "ends without an answer");
        check(json!({ "prompt": [answers], "chosen": "y", "rejected": "z" }), "it is the user's turn");
        let form = PairForm::of(["prompt", "chosen", "rejected"].into_iter(), &Columns::default()).unwrap();
        let missing = form.read(json!({ "prompt": "x", "chosen": "y" }).as_object().unwrap()).unwrap_err();
        assert!(missing.message.contains("there is no `rejected`"), "{}", missing.message);
    }
}
