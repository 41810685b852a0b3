//! How a file of examples is read, as far as it is said: the rest its name and content tell.

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

use super::distinct;
use super::pictures::PictureForm;
use super::row::{Columns, Labels};

/// What a file is, where neither its name nor its content should decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Cells between tabs, without quoting.
    Tsv,
    /// Cells between commas, or what `separator` says, with quoting.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects, alone or in an object.
    Json,
    /// Parquet.
    Parquet,
    /// Arrow's IPC file or stream.
    Arrow,
    /// One word a line with its label in a column, a blank line after each sentence.
    Conll,
    /// One text a line.
    Lines,
}

/// How bytes stand for characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
    /// Windows' extension of it, with typographic quotes.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

/// Which tokens of a row count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// Those of answers, with their end; of a text without a prompt all.
    #[default]
    Answers,
    /// All.
    All,
}

/// What a language model says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanguageModel {
    /// The next token.
    Causal,
    /// The token in a masked place.
    Masked,
    /// The next token, of pairs of answers, the better one of each first.
    Preference,
}

/// How the files of a language model are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanguageForm {
    /// Which tokens count.
    pub score: Score,
    /// The template of chats: a name, or the path of a file; without it the model's.
    pub template: Option<String>,
    /// Whether texts are joined and cut to the longest length; without it texts are, and rows with answers are not.
    pub blocks: Option<bool>,
}

/// How the files of a task are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Which columns.
    pub columns: Columns,
    /// Whether the first row of a table names its columns.
    pub header: Option<bool>,
    /// What the files are.
    pub format: Option<Format>,
    /// What separates cells: an ASCII character.
    pub separator: Option<char>,
    /// What a cell with separators in it stands between: an ASCII character, or none.
    pub quote: Option<Quote>,
    /// What stands between labels, where a cell holds any number of them; not empty.
    pub label_separator: Option<String>,
    /// How bytes stand for characters.
    pub encoding: Encoding,
    /// Where pictures are, and which of them count.
    pub pictures: PictureForm,
    /// How rows are read for a language model.
    pub language: LanguageForm,
    /// The classes whose examples count, by name; empty where all do.
    pub only: Vec<String>,
    /// What the head learns, where it is not what a label says of an example.
    pub learns: Learns,
}

/// What a head learns, as far as that decides how rows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Learns {
    /// What a label says of an example, whose texts are read as one.
    #[default]
    Labels,
    /// What belongs together: there are no labels, and each text of a row passes by itself.
    Matches,
    /// How alike the texts of a row are, each of which passes by itself: the label.
    Similarity,
    /// As of labels, of rows of which one text alone passes, whatever others they have.
    Alone,
}

impl Form {
    /// The same for files that are read whole, and shared out to no parts.
    #[must_use]
    pub fn of_whole_files(&self) -> Self {
        Self { columns: Columns { part: None, group: None, ..self.columns.clone() }, ..self.clone() }
    }

    /// Sequences of an example's texts, for a head of one stream: several where they pass by themselves.
    pub fn sequences(&self) -> usize {
        match self.learns {
            Learns::Labels | Learns::Alone => 1,
            Learns::Matches | Learns::Similarity => 2 + usize::from(self.columns.text_negative.is_some()),
        }
    }

    /// What is read of labels, where examples are to be learned from.
    pub(super) fn labels(&self) -> Labels {
        match self.learns {
            Learns::Matches => Labels::None,
            Learns::Labels | Learns::Similarity | Learns::Alone => Labels::Read,
        }
    }

    /// Whether examples with this label count.
    pub(super) fn counts(&self, label: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|class| distinct::name(class) == distinct::name(label))
    }
}

/// What a cell with separators in it stands between; `None` where nothing quotes. `none` or a character in a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote(pub Option<char>);

impl Serialize for Quote {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(quote) => serializer.serialize_char(quote),
            None => serializer.serialize_str("none"),
        }
    }
}

/// How cells stand in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) separator: u8,
    pub(super) quote: Option<u8>,
}

impl Dialect {
    pub(super) const TSV: Self = Self { separator: b'\t', quote: None };
    pub(super) const CSV: Self = Self { separator: b',', quote: Some(b'"') };
}

/// A separator's name in a sentence.
pub(super) fn named(separator: u8) -> String {
    match separator {
        b'\t' => "tabs".into(),
        b',' => "commas".into(),
        b';' => "semicolons".into(),
        b' ' => "spaces".into(),
        other => format!("{:?}", char::from(other)),
    }
}

/// What can be read, for messages.
pub(super) const FORMATS: &str = "known are .tsv (cells between tabs, no quoting), .csv, .jsonl, .json, .parquet, .arrow and .conll, \
    each of them in gzip or Zstandard too; of other names the content tells, or the task's format";
