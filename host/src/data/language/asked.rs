//! What a model is asked: what a user says, or a row of a file; and the tokens that it goes on from.

use std::path::Path;

use serde_json::{Map, Value};

use super::conversation::{
    ASSISTANT, COMPLETIONS, MESSAGES, SYSTEM, Turn, USER, Wrong, get, in_turn, instruction, listed, string,
};
use super::load::chat_template;
use super::objects::Kind;
use super::template::{ChatTemplate, Rendered};
use crate::data::form::{Form, LanguageForm};
use crate::data::row::data_error;
use crate::data::text::Tokenizer;
use crate::{Error, Result};

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Asked {
    /// Turns, the last one the user's.
    Turns(Vec<Turn>),
    /// A text: what a user says where a template writes conversations, else what goes on.
    Text(String),
    /// A text that goes on as it is.
    Raw(String),
}

impl Asked {
    /// What each row of a file asks, with its line: objects as a language model learns from, whose answers are left out, or a text on each
    /// line. Behind a picture a text is an answer, and nothing has to be asked.
    ///
    /// # Errors
    /// Where the file cannot be read, is empty, or a row asks nothing.
    pub fn read(path: &Path, behind_pictures: bool) -> Result<Vec<(u64, Self)>> {
        let mut all = Vec::new();
        match Kind::open(path, &Form::default())? {
            Kind::Text(mut lines) => {
                while let Some((line, text)) = lines.next_line(path)? {
                    all.push((line, Self::Text(text.to_owned())));
                }
            }
            Kind::Rows(mut objects) => {
                while let Some((line, row)) = objects.next_row()? {
                    let wrong = |Wrong { message, help }| data_error(path, Some(line), message).with_help(help);
                    let asked = match behind_pictures && !asks(&row) {
                        true => Self::Raw(String::new()),
                        false => Self::of_row(&row).map_err(wrong)?,
                    };
                    all.push((line, asked));
                }
            }
        }
        if all.is_empty() {
            return Err(data_error(path, None, "is empty").with_help("it needs at least one row that asks something"));
        }
        Ok(all)
    }

    fn of_row(row: &Map<String, Value>) -> Result<Self, Wrong> {
        let mut turns = question(row)?;
        Ok(match turns.as_slice() {
            [Turn { role, .. }] if role == USER => Self::Text(turns.remove(0).content),
            _ => Self::Turns(turns),
        })
    }
}

/// How what is asked is written for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// Texts go on as they are: no template writes them.
    pub raw: bool,
    /// What the system says before a conversation.
    pub system: Option<String>,
}

/// Writes what is asked as the model has learned to read it.
#[derive(Debug)]
pub struct Asker {
    /// For texts of any length.
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    system: Option<String>,
    /// What stands before a text that no template writes.
    before: Vec<u32>,
    /// What stands in the place of an empty one, where a picture comes before it: so it was learned.
    start: Option<u32>,
}

impl Asker {
    /// By the template of `form`, else the tokenizer's own.
    ///
    /// # Errors
    /// Where there is no template and one is needed, or it is broken.
    pub fn new(form: &LanguageForm, tokenizer: &Tokenizer, writing: &Writing) -> Result<Self> {
        let template = if writing.raw { None } else { chat_template(form, tokenizer)? };
        if template.is_none() && !writing.raw {
            return Err(Error::usage("the model comes with no chat template, so it is not known how a question is put")
                .with_help("--raw goes on with the text as it is; --set task.0.template=chatml names a template, or a file of Jinja"));
        }
        Self::by(template, tokenizer, writing.system.clone())
    }

    /// As a model learns rows: conversations by the template, where there is one.
    ///
    /// # Errors
    /// Where the template is broken.
    pub fn of_rows(form: &LanguageForm, tokenizer: &Tokenizer) -> Result<Self> {
        Self::by(chat_template(form, tokenizer)?, tokenizer, None)
    }

    fn by(template: Option<ChatTemplate>, tokenizer: &Tokenizer, system: Option<String>) -> Result<Self> {
        let (before, _) = tokenizer.frame()?;
        Ok(Self { tokenizer: tokenizer.uncut()?, template, system, before, start: None })
    }

    /// The same for what stands behind pictures: a text may be empty then.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn behind_pictures(self) -> Result<Self> {
        let start = self.tokenizer.start()?;
        Ok(Self { start, ..self })
    }

    /// How many tokens stand before each text that no template writes.
    pub fn tokens_before(&self) -> usize {
        self.before.len()
    }

    /// The tokenizer, for texts of any length.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that the model goes on from. A template writes special tokens itself, so none are added to what it writes.
    ///
    /// # Errors
    /// Where the template refuses what is asked, a conversation comes where no template writes it, or there are no tokens.
    pub fn ids(&self, asked: &Asked) -> Result<Vec<u32>> {
        let ids = match (&self.template, asked) {
            (_, Asked::Raw(text)) | (None, Asked::Text(text)) if text.is_empty() && self.start.is_some() => {
                self.start.into_iter().collect()
            }
            (_, Asked::Raw(text)) | (None, Asked::Text(text)) => {
                [self.before.as_slice(), &self.tokenizer.placed(text)?.ids].concat()
            }
            (None, Asked::Turns(_)) => {
                return Err(Error::usage("a conversation is written by a chat template, and there is none here")
                    .with_help("leave --raw out, or name a template: --set task.0.template=chatml"));
            }
            (Some(template), asked @ (Asked::Turns(_) | Asked::Text(_))) => {
                let turns = match asked {
                    Asked::Turns(turns) => turns.clone(),
                    Asked::Text(text) | Asked::Raw(text) => vec![Turn::new(USER, text)],
                };
                let system = self.system.as_ref().filter(|_| turns.first().is_none_or(|turn| turn.role != SYSTEM));
                let turns: Vec<Turn> = system.map(|said| Turn::new(SYSTEM, said)).into_iter().chain(turns).collect();
                let text = template.text(&turns, true).map_err(|raised| {
                    Error::usage(format!("the chat template ({}) refuses what is asked: {raised}", template.origin()))
                        .with_help("change what is asked, or name another template: --set task.0.template=NAME")
                })?;
                self.tokenizer.placed(&text)?.ids
            }
        };
        if ids.is_empty() {
            return Err(Error::usage("there is nothing to go on from: the text is empty")
                .with_help("write a text, or ask by the model's chat template, without --raw"));
        }
        Ok(ids)
    }

    /// The token with which the template ends what the assistant says, where one does. A model that has learned conversations by this template
    /// says it, whatever its files call the end of a text.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn end_of_turn(&self) -> Result<Option<u32>> {
        const ANSWER: &str = "answer";
        let Some(template) = &self.template else { return Ok(None) };
        let turns = [Turn::new(USER, "question"), Turn::new(ASSISTANT, ANSWER)];
        let Ok(Rendered { text, answers }) = template.render(&turns) else { return Ok(None) };
        let said = answers.last().map(|range| &text[range.clone()]).unwrap_or_default();
        let after = said.rfind(ANSWER).map(|at| &said[at + ANSWER.len()..]).unwrap_or_default();
        let first = self.tokenizer.placed(after)?.ids.first().copied();
        Ok(first.filter(|&id| self.tokenizer.is_added(id)))
    }
}

/// Whether a row has more to ask than a text that may be an answer.
fn asks(row: &Map<String, Value>) -> bool {
    let mut keys = MESSAGES.into_iter().chain(["instruction"]).chain(COMPLETIONS.map(|(prompt, _)| prompt));
    keys.any(|key| row.contains_key(key))
}

/// What a row asks, whatever stands there as its answer: turns, the last one the user's. A text is what a user says.
///
/// # Errors
/// Where it is of no known form or asks nothing: half a sentence, and what helps.
fn question(row: &Map<String, Value>) -> Result<Vec<Turn>, Wrong> {
    let has = |name: &&str| row.contains_key(*name);
    let of_list = |key: &str, value: &Value| {
        let mut turns = listed(key, value)?;
        turns.pop_if(|last| last.role == ASSISTANT);
        in_turn(key, &turns)?;
        let asks = turns.last().is_some_and(|last| last.role == USER);
        let help = "the user speaks last, or the assistant after them, whose answer is left out";
        if asks { Ok(turns) } else { Err(Wrong::new(format!("`{key}` asks nothing"), help)) }
    };
    if let Some(key) = MESSAGES.into_iter().find(|key| has(key)) {
        return of_list(key, get(row, key)?);
    }
    if has(&"instruction") {
        return instruction(row);
    }
    let mut keys = COMPLETIONS.into_iter().map(|(prompt, _)| prompt).chain(["text"]);
    let Some(key) = keys.find(has) else {
        let there = row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let mut known = COMPLETIONS.map(|(prompt, _)| prompt).to_vec();
        known.dedup();
        return Err(Wrong::new(
            format!("this row has {there}, and none of the known forms"),
            format!("known are messages; instruction and input; {}; text", known.join(", ")),
        ));
    };
    match get(row, key)? {
        list @ Value::Array(_) => of_list(key, list),
        _ => Ok(vec![Turn::new(USER, string(row, key)?)]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn of_row(row: Value) -> Result<Asked, Wrong> {
        Asked::of_row(row.as_object().unwrap())
    }

    #[test]
    fn rows_ask_without_their_answers() {
        let text = |text: &str| Ok(Asked::Text(text.to_owned()));
        assert_eq!(of_row(json!({ "prompt": "2 + 2 =", "completion": " 4" })), text("2 + 2 ="));
        assert_eq!(of_row(json!({ "text": "Once" })), text("Once"));
        assert_eq!(of_row(json!({ "instruction": "Add.", "input": "2, 2", "output": "4" })), text("Add.\n\n2, 2"));
        let turn = |role: &str, said: &str| json!({ "role": role, "content": said });
        assert_eq!(of_row(json!({ "messages": [turn("user", "2 + 2?"), turn("assistant", "4")] })), text("2 + 2?"));
        let long = json!({ "messages": [turn("system", "Add."), turn("user", "1 + 1?"), turn("assistant", "2"), turn("user", "2 + 2?")] });
        let Ok(Asked::Turns(turns)) = of_row(long) else { panic!() };
        assert_eq!(turns.len(), 4);
        let out_of_turn = json!({ "messages": [turn("assistant", "4"), turn("user", "2 + 2?")] });
        assert!(of_row(out_of_turn).unwrap_err().message.contains("it is the user's turn"));
        assert!(of_row(json!({ "messages": [turn("assistant", "4")] })).unwrap_err().message.contains("asks nothing"));
        assert!(of_row(json!({ "label": "x" })).unwrap_err().message.contains("none of the known forms"));
        assert!(of_row(json!({ "prompt": 4 })).unwrap_err().message.contains("must be a string"));
    }

    #[test]
    fn a_template_writes_what_is_asked_and_says_what_ends_an_answer() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/gguf/llama.gguf");
        let tokenizer = Tokenizer::load(&file, 512).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.jinja");
        let text = "{% for m in messages %}{{ m.role }} {{ m.content }}<s>{% endfor %}{% if add_generation_prompt %}go{% endif %}";
        std::fs::write(&other, text).unwrap();
        let asker = |template: Option<&Path>, writing: Writing| {
            let template = template.map(|file| file.display().to_string());
            Asker::new(&LanguageForm { template, ..LanguageForm::default() }, &tokenizer, &writing).unwrap()
        };
        let written = |asker: &Asker, asked: &Asked| tokenizer.text_with_special(&asker.ids(asked).unwrap()).unwrap();
        let (asked, plain) = (Asked::Text("ab".into()), Writing::default());
        let own = asker(None, plain.clone());
        // The vocabulary has no brackets.
        assert_eq!((written(&own, &asked).as_str(), own.end_of_turn().unwrap()), ("userab</s>", Some(2)));
        let named = asker(Some(&other), plain.clone());
        assert_eq!((written(&named, &asked).as_str(), named.end_of_turn().unwrap()), ("user ab<s>go", Some(1)));
        let told = asker(Some(&other), Writing { system: Some("no".into()), ..plain });
        assert_eq!(written(&told, &asked), "system no<s>user ab<s>go");
        let said = Asked::Turns(vec![Turn::new(SYSTEM, "on"), Turn::user("ab")]);
        assert_eq!(written(&told, &said), "system on<s>user ab<s>go");

        let raw = asker(None, Writing { raw: true, system: None });
        assert_eq!((written(&raw, &asked).as_str(), raw.end_of_turn().unwrap()), ("ab", None));
        assert!(raw.ids(&said).unwrap_err().to_string().contains("there is none here"));
        let both = Asked::Raw("ab".into());
        assert_eq!((written(&own, &both), written(&raw, &both)), ("ab".to_owned(), "ab".to_owned()));
        assert!(raw.ids(&Asked::Text(String::new())).unwrap_err().to_string().contains("nothing to go on from"));
    }
}
