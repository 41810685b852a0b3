//! Rows with what they ask and how it is answered: what a model says to them can be compared.

use std::path::Path;

use super::asked::Asked;
use super::conversation::{RowForm, Said, Wrong};
use super::load::row_form;
use super::objects::Kind;
use crate::data::form::Form;
use crate::data::row::data_error;
use crate::{Error, Result};

/// What a row asks, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The row's line, or in Parquet its number.
    pub line: u64,
    /// What stands before its last answer.
    pub asked: Asked,
    /// That answer.
    pub answer: String,
}

impl Answered {
    /// The rows of a file, as a language model learns them. Behind a picture a text is an answer by itself.
    ///
    /// # Errors
    /// Where the file cannot be read or is empty, and where a row is of no known form or has no answer.
    pub fn read(path: &Path, form: &Form, behind_pictures: bool) -> Result<Vec<Self>> {
        let Kind::Rows(mut objects) = Kind::open(path, form)? else { return Err(no_answers(path, None)) };
        let (mut rows, mut of_file) = (Vec::new(), None::<RowForm>);
        while let Some((line, row)) = objects.next_row()? {
            let form = match &mut of_file {
                Some(form) => form,
                none => none.insert(row_form(path, line, &row, &form.columns)?),
            };
            let wrong = |Wrong { message, help }| data_error(path, Some(line), message).with_help(help);
            rows.push(match form.read(&row).map_err(wrong)? {
                Said::Turns(mut turns) => {
                    let answer = turns.pop().map(|turn| turn.content).unwrap_or_default();
                    Self { line, asked: Asked::Turns(turns), answer }
                }
                Said::Completion { prompt, completion } => Self { line, asked: Asked::Raw(prompt), answer: completion },
                Said::Text(answer) if behind_pictures => Self { line, asked: Asked::Raw(String::new()), answer },
                Said::Text(_) => return Err(no_answers(path, Some(line))),
            });
        }
        if rows.is_empty() {
            return Err(data_error(path, None, "is empty").with_help("it needs at least one row with an answer"));
        }
        Ok(rows)
    }
}

/// The error of texts without prompts.
fn no_answers(path: &Path, line: Option<u64>) -> Error {
    data_error(path, line, "holds texts without prompts, and so no answers to compare with what the model says").with_help(
        "name a file whose rows have answers: messages; instruction and output; prompt and completion. Without --generate the texts are measured \
         as they are",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;
    use crate::data::Turn;

    fn read(rows: &[serde_json::Value]) -> Result<Vec<Answered>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        Answered::read(&path, &Form::default(), false)
    }

    #[test]
    fn the_last_answer_is_taken_from_what_is_asked() {
        let turn = |role: &str, said: &str| json!({ "role": role, "content": said });
        let said = [turn("user", "1 + 1?"), turn("assistant", "2"), turn("user", "2 + 2?"), turn("assistant", "4")];
        let found = read(&[json!({ "messages": said })]).unwrap();
        let before = vec![Turn::user("1 + 1?"), Turn::assistant("2"), Turn::user("2 + 2?")];
        assert_eq!(found, [Answered { line: 1, asked: Asked::Turns(before), answer: "4".into() }]);
        let row = |n: u8| json!({ "prompt": format!("{n} ="), "completion": format!(" {n}") });
        let found = read(&[row(1), row(2)]).unwrap();
        assert_eq!(found[1], Answered { line: 2, asked: Asked::Raw("2 =".into()), answer: " 2".into() });
    }

    #[test]
    fn texts_without_prompts_are_refused() {
        let error = read(&[json!({ "text": "Once upon a time" })]).unwrap_err().to_string();
        assert!(error.contains("rows.jsonl:1") && error.contains("no answers to compare"), "{error}");
        assert!(read(&[]).unwrap_err().to_string().contains("is empty"));
    }
}
