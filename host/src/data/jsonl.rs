//! Rows of JSONL: one object per line.

use std::path::Path;

use serde_json::{Map, Value};

use super::table::{Columns, Row, data_error, list, no_label};
use crate::Result;

/// The row on a line. `pairs` says whether rows have a second text; the `first` row decides where the run file does
/// not.
pub(super) fn json_row(
    path: &Path,
    line: u64,
    text: &str,
    columns: &Columns,
    pairs: &mut bool,
    first: bool,
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
    if first {
        *pairs |= object.contains_key(columns.text_pair());
    }
    let pair = if *pairs { Some(string(columns.text_pair())?) } else { None };
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
