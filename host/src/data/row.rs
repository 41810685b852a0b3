//! A row of a file of examples, whatever the format, and what is said of one that is wrong.

use std::path::Path;

use crate::{Error, Result};

/// Which columns are read: names, or numbers from 1 as strings where the file has no header.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Columns {
    /// The text; `text` by default.
    pub text: Option<String>,
    /// The second text of a pair; `text_pair` by default, where there is such a column.
    pub text_pair: Option<String>,
    /// A third text, which does not belong to the first as the second does.
    pub text_negative: Option<String>,
    /// The path of a picture, beside texts; of pictures alone the path is what stands for a text.
    pub image: Option<String>,
    /// The label, or the value to predict; `label` by default.
    pub label: Option<String>,
    /// What tells rows apart in predictions.
    pub id: Option<String>,
    /// What the example's loss is multiplied with.
    pub weight: Option<String>,
    /// What examples share that must not be in two parts of a split.
    pub group: Option<String>,
    /// The part of the data that a row belongs to, where one file holds several; it stands in the run file's `split`.
    #[serde(skip)]
    pub part: Option<String>,
}

/// What a column besides text and label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Negative,
    Image,
    Id,
    Weight,
    Group,
    Part,
}

impl Columns {
    /// The text's column.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("text")
    }

    /// The second text's column.
    pub(super) fn text_pair(&self) -> &str {
        self.text_pair.as_deref().unwrap_or("text_pair")
    }

    /// The label's column.
    pub(super) fn label(&self) -> &str {
        self.label.as_deref().unwrap_or("label")
    }

    /// Whether all columns that are given are given by number.
    pub fn are_numbers(&self) -> bool {
        self.given().all(|name| column_number(name).is_some())
    }

    /// The columns as they stand in a run file.
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        let extra = self.all_extra().map(|(_, name)| name);
        [&self.text, &self.text_pair, &self.label].into_iter().flatten().map(String::as_str).chain(extra)
    }

    /// The columns besides text and label that are read: of rows without labels the id alone, where there is one.
    pub(super) fn extra(&self, labels: Labels) -> impl Iterator<Item = (Role, &str)> {
        let read = move |role: Role| role.needed(labels) || matches!(role, Role::Id | Role::Part);
        self.all_extra().filter(move |(role, _)| read(*role))
    }

    fn all_extra(&self) -> impl Iterator<Item = (Role, &str)> {
        let all = [
            (Role::Negative, &self.text_negative),
            (Role::Image, &self.image),
            (Role::Id, &self.id),
            (Role::Weight, &self.weight),
            (Role::Group, &self.group),
            (Role::Part, &self.part),
        ];
        all.into_iter().filter_map(|(role, name)| Some((role, name.as_deref()?)))
    }
}

/// A column's number, from 1, where its name is one.
pub fn column_number(name: &str) -> Option<usize> {
    name.parse().ok().filter(|&number| number > 0)
}

impl Role {
    /// Whether a row that is read so needs a column of this role.
    pub(super) fn needed(self, labels: Labels) -> bool {
        labels != Labels::Unread || matches!(self, Self::Negative | Self::Image)
    }
}

/// One example as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The line it begins on, or in Parquet its number, from 1.
    pub line: u64,
    /// The text; may be empty.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label or value, trimmed, never empty; empty where labels are not read.
    pub label: String,
    /// The labels, where they are a list, which may be empty; `label` is empty then.
    pub labels: Option<Vec<String>>,
    /// The words, where the text is a list of them; `text` and `label` are empty then.
    pub words: Option<Words>,
    /// What stands in the columns besides, in the order of [`Columns::extra`]; empty where a cell is missing and need not be there.
    pub(super) extra: Vec<String>,
}

impl Row {
    /// Bytes of its text.
    pub(super) fn bytes(&self) -> usize {
        let words = self.words.as_ref().map_or(0, |row| row.words.iter().map(String::len).sum());
        self.text.len() + self.pair.as_ref().map_or(0, String::len) + words
    }
}

/// A text that comes as words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The words, at least one.
    pub words: Vec<String>,
    /// The label of each word, trimmed, never empty; none where labels are not read.
    pub labels: Vec<String>,
}

/// Whether rows need a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Every row has one.
    Read,
    /// There may be none, and where there is one it is not looked at, nor at what training alone asks for.
    Unread,
    /// There is none, and training asks for none.
    None,
}

pub(super) fn data_error(path: &Path, line: Option<u64>, message: impl Into<String>) -> Error {
    Error::Data { file: path.to_owned(), line, message: message.into(), help: None }
}

pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The beginning of a cell, for messages.
pub(super) fn shortened(cell: &str) -> &str {
    match cell.char_indices().nth(40) {
        Some((end, _)) => &cell[..end],
        None => cell,
    }
}

/// A row of words; without labels where they are not read.
///
/// # Errors
/// No word, a word without a label, another number of labels than of words, or a second text.
pub(super) fn word_row(
    path: &Path,
    line: u64,
    columns: &Columns,
    words: Vec<String>,
    labels: Option<Vec<String>>,
) -> Result<Row> {
    let wrong = |message: String, help: &str| Err(data_error(path, Some(line), message).with_help(help));
    if columns.text_pair.is_some() {
        return wrong(
            "this row is a list of words, and those have no second text".into(),
            "take text_pair out of columns in the run file",
        );
    }
    if words.is_empty() {
        return wrong("this row has no word".into(), "give it one, or remove the row");
    }
    if let Some(labels) = &labels {
        if labels.len() != words.len() {
            let message =
                format!("`{}` has {}, and `{}` has {}", columns.text(), words.len(), columns.label(), labels.len());
            return wrong(message, "each word has one label: both lists must be as long");
        }
        if let Some(place) = labels.iter().position(String::is_empty) {
            return wrong(format!("word {} of this row has no label", place + 1), "give it one, or remove the row");
        }
    }
    let words = Some(Words { words, labels: labels.unwrap_or_default() });
    Ok(Row { line, words, ..Row::default() })
}

pub(super) fn no_label(path: &Path, line: u64) -> Error {
    data_error(path, Some(line), "this row has no label").with_help("give it one, or remove the row")
}
