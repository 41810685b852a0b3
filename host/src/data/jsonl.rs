//! Rows of JSONL: one object per line.

use std::fs::File;
use std::path::Path;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::table::{Columns, Labels, Row, data_error, list, no_label};
use crate::Result;

/// The rows of a JSONL file.
#[derive(Debug)]
pub(super) struct JsonRows {
    lines: Lines,
    labels: Labels,
    /// Whether rows have a second text. Without a word in the run file the first row decides.
    pairs: Option<bool>,
}

impl JsonRows {
    pub(super) fn new(file: File, columns: &Columns, labels: Labels) -> Self {
        Self { lines: Lines::new(file), labels, pairs: columns.text_pair.is_some().then_some(true) }
    }

    /// The row on the next line that is not blank.
    pub(super) fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        let Some((line, text)) = self.lines.next_line(path)? else { return Ok(None) };
        json_row(path, line, text, columns, self.labels, &mut self.pairs).map(Some)
    }
}

fn json_row(
    path: &Path,
    line: u64,
    text: &str,
    columns: &Columns,
    labels: Labels,
    pairs: &mut Option<bool>,
) -> Result<Row> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        data_error(path, Some(line), format!("this line is no JSON object: {what} (column {})", error.column()))
            .with_help("JSONL has one whole object per line: {\"text\": \"...\", \"label\": \"...\"}")
    })?;
    let there = || list(object.keys().map(String::as_str));
    let get = |name: &str| {
        object.get(name).ok_or_else(|| {
            data_error(path, Some(line), format!("there is no key `{name}`; this line has {}", there()))
                .with_help("name the keys in the run file: columns = { text = \"...\", label = \"...\" }")
        })
    };
    let string = |name: &str| match get(name)? {
        Value::String(text) => Ok(text.clone()),
        other => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::Array(_) => "an array",
                _ => "an object",
            };
            Err(data_error(path, Some(line), format!("`{name}` is {kind}; it must be a string"))
                .with_help("write it in quotes, or choose another key by columns in the run file"))
        }
    };
    let paired = *pairs.get_or_insert_with(|| object.contains_key(columns.text_pair()));
    let pair = if paired { Some(string(columns.text_pair())?) } else { None };
    if labels == Labels::Unread {
        return Ok(Row { line, text: string(columns.text())?, pair, label: String::new() });
    }
    let label = match get(columns.label())? {
        Value::Null => String::new(),
        Value::String(label) => label.trim().to_owned(),
        Value::Array(_) | Value::Object(_) => {
            let message = format!("`{}` must be a string or a number", columns.label());
            return Err(data_error(path, Some(line), message).with_help("an example has one label, or one value"));
        }
        scalar => scalar.to_string(),
    };
    if label.is_empty() {
        return Err(no_label(path, line));
    }
    Ok(Row { line, text: string(columns.text())?, pair, label })
}
