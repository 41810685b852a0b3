//! Rows of JSON: one object per line, or the objects of an array.

use std::path::Path;

use serde_json::{Map, Value};

use super::elements::Elements;
use super::lines::Lines;
use super::row::{Columns, Labels, Role, Row, data_error, list, no_label, word_row};
use crate::{Error, Result};

/// Where objects come from.
pub(super) enum Objects {
    Lines(Lines),
    Array(Elements),
}

/// The rows of a JSON file.
pub(super) struct JsonRows {
    objects: Objects,
    labels: Labels,
    /// Whether rows have a second text. Without a word in the run file the first row decides.
    pairs: Option<bool>,
    /// Whether texts are lists of words, as the first row's is.
    words: Option<bool>,
}

impl JsonRows {
    pub(super) fn new(objects: Objects, columns: &Columns, labels: Labels) -> Self {
        let pairs = columns.text_pair.is_some().then_some(true);
        Self { objects, labels, pairs, words: None }
    }

    /// The row of the next object.
    pub(super) fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        let object = match &mut self.objects {
            Objects::Lines(lines) => {
                let Some((line, text)) = lines.next_line(path)? else { return Ok(None) };
                Object::parse(path, line, text, "line")?
            }
            Objects::Array(elements) => {
                let Some((line, text)) = elements.next_element(path)? else { return Ok(None) };
                Object::parse(path, line, &text, "element")?
            }
        };
        let is_list = || matches!(object.values.get(columns.text()), Some(Value::Array(_)));
        if *self.words.get_or_insert_with(is_list) {
            return object.words(columns, self.labels).map(Some);
        }
        let paired = *self.pairs.get_or_insert_with(|| object.values.contains_key(columns.text_pair()));
        object.text(columns, self.labels, paired).map(Some)
    }
}

/// An object, and the line it begins on.
struct Object<'a> {
    path: &'a Path,
    line: u64,
    /// `line` or `element`.
    what: &'static str,
    values: Map<String, Value>,
}

impl<'a> Object<'a> {
    fn parse(path: &'a Path, line: u64, text: &str, what: &'static str) -> Result<Self> {
        let values = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let why = message.split(" at line ").next().unwrap_or_default();
            data_error(path, Some(line), format!("this {what} is no JSON object: {why} (column {})", error.column()))
                .with_help("JSONL has one whole object per line: {\"text\": \"...\", \"label\": \"...\"}")
        })?;
        Ok(Self { path, line, what, values })
    }

    fn wrong(&self, message: String) -> Error {
        data_error(self.path, Some(self.line), message)
    }

    fn get(&self, name: &str) -> Result<&Value> {
        self.values.get(name).ok_or_else(|| {
            let there = list(self.values.keys().map(String::as_str));
            self.wrong(format!("there is no key `{name}`; this {} has {there}", self.what))
                .with_help("name the keys in the run file: columns = { text = \"...\", label = \"...\" }")
        })
    }

    fn string(&self, name: &str) -> Result<String> {
        match self.get(name)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(self
                .wrong(format!("`{name}` is {}; it must be a string", kind(other)))
                .with_help("write it in quotes, or choose another key by columns in the run file")),
        }
    }

    fn list(&self, name: &str) -> Result<&[Value]> {
        match self.get(name)? {
            Value::Array(values) => Ok(values),
            other => Err(self
                .wrong(format!("`{name}` is {}; it must be an array", kind(other)))
                .with_help("where the first text is an array of words, each is, and has an array of as many labels")),
        }
    }

    /// A text, or a pair, with its label.
    fn text(&self, columns: &Columns, labels: Labels, paired: bool) -> Result<Row> {
        let pair = if paired { Some(self.string(columns.text_pair())?) } else { None };
        let (label, list) = match labels {
            Labels::Read => self.label(columns.label())?,
            Labels::Unread | Labels::None => (String::new(), None),
        };
        let (line, text, extra) = (self.line, self.string(columns.text())?, self.extra(columns, labels)?);
        Ok(Row { line, text, pair, label, labels: list, words: None, extra })
    }

    /// What stands in the columns besides.
    fn extra(&self, columns: &Columns, labels: Labels) -> Result<Vec<String>> {
        let one = |(role, name): (Role, &str)| match self.values.get(name) {
            None if !role.needed(labels) => Ok(String::new()),
            _ => scalar(self.get(name)?).ok_or_else(|| self.wrong(format!("`{name}` must be a string or a number"))),
        };
        columns.extra(labels).map(one).collect()
    }

    /// A label, or a list of them.
    fn label(&self, name: &str) -> Result<(String, Option<Vec<String>>)> {
        let value = self.get(name)?;
        if let Value::Array(values) = value {
            return Ok((String::new(), Some(self.scalars(name, values)?)));
        }
        match scalar(value) {
            Some(label) if label.is_empty() => Err(no_label(self.path, self.line)),
            Some(label) => Ok((label, None)),
            None => Err(self.wrong(format!("`{name}` must be a string or a number")).with_help(
                "an example has one label, one value, or a list of labels; one for each word, where its text is an array of words",
            )),
        }
    }

    /// The labels of a list.
    fn scalars(&self, name: &str, values: &[Value]) -> Result<Vec<String>> {
        let one =
            |(place, value)| scalar(value).ok_or_else(|| self.element(name, place, value, "a string or a number"));
        values.iter().enumerate().map(one).collect()
    }

    fn element(&self, name: &str, place: usize, value: &Value, wanted: &str) -> Error {
        self.wrong(format!("element {} of `{name}` is {}; it must be {wanted}", place + 1, kind(value)))
    }

    /// Words with the label of each.
    fn words(&self, columns: &Columns, labels: Labels) -> Result<Row> {
        let word = |(place, value): (usize, &Value)| {
            value.as_str().map(str::to_owned).ok_or_else(|| self.element(columns.text(), place, value, "a string"))
        };
        let words = self.list(columns.text())?.iter().enumerate().map(word).collect::<Result<_>>()?;
        let extra = self.extra(columns, labels)?;
        let labels = match labels {
            Labels::Read => Some(self.scalars(columns.label(), self.list(columns.label())?)?),
            Labels::Unread | Labels::None => None,
        };
        Ok(Row { extra, ..word_row(self.path, self.line, columns, words, labels)? })
    }
}

/// A label as text, empty where it is null; `None` where it cannot be one.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(label) => Some(label.trim().to_owned()),
        Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
