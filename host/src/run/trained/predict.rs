//! Predictions for examples without labels, written row by row as they come.

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use fthost_plugin_api::PredictionKind;
use serde::{Serialize, Serializer};

use crate::data::SEPARATOR;
use crate::run::pass::Decision;
use crate::{Error, Result};

/// The format of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Cells between tabs, with a header.
    Tsv,
    /// RFC 4180, with a header.
    Csv,
    /// One object per line.
    Jsonl,
}

impl Format {
    /// That of a file by its extension, where it is one of these.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_string_lossy().to_lowercase().as_str() {
            "tsv" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    /// What the command line asks for: by name, or by the extension of the file to write; else the input's, and TSV where that is none
    /// of these.
    ///
    /// # Errors
    /// Where name and extension are not the same, or the extension says nothing.
    pub fn choose(named: Option<Self>, out: Option<&Path>, input: &Path) -> Result<Self> {
        match (named, out.map(|out| (out, Self::of(out)))) {
            (Some(named), Some((out, Some(of_file)))) if named != of_file => Err(Error::usage(format!(
                "--format says {}, and --out {} is a .{} file",
                named.name(),
                out.display(),
                of_file.name()
            ))
            .with_help("leave --format out, or give the file the extension of its format")),
            (Some(named), _) => Ok(named),
            (None, Some((_, Some(of_file)))) => Ok(of_file),
            (None, Some((out, None))) => Err(Error::usage(format!(
                "the extension of {} names no format that predictions are written in",
                out.display()
            ))
            .with_help("known are .tsv, .csv and .jsonl; --format NAME says it for any other name")),
            (None, None) => Ok(Self::of(input).unwrap_or(Self::Tsv)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// How.
    pub format: Format,
    /// Whether the probabilities of all classes are, and not that of the predicted one alone. JSONL always has all of an example's.
    pub probabilities: bool,
}

/// An example, as its file has it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The line where it begins.
    pub line: u64,
    /// What it is called, where it is called something.
    pub id: Option<&'a str>,
    /// Its text, or both of a pair, or its words; nothing of an image.
    pub texts: &'a [String],
}

/// What a model predicts for an example.
pub enum Prediction {
    /// Probabilities of the classes, or one value, or of a mask the share of each class in the pixels.
    Example(Vec<f32>),
    /// Of each word the probabilities of the classes; none where it came after the longest length, or where the tokenizer makes nothing
    /// of it.
    Words(Vec<Option<Vec<f32>>>),
}

/// Writes predictions: of classes the most probable one and its probability, of any number of classes those whose probability is large
/// enough, of values the value, each beside the text. Where each word
/// has a class, a table has a row for each word, and JSONL lists.
pub struct Writer<'a> {
    sink: Sink<'a>,
    style: Style,
    labels: &'a [String],
    kind: PredictionKind,
    /// Whether examples are called something.
    ids: bool,
    decision: Decision,
    /// What stands between the classes of an example in a table, where it has any number of them.
    separator: String,
    /// The names of a table's columns, once they are written.
    header: Option<Vec<String>>,
}

enum Sink<'a> {
    Table { rows: Box<csv::Writer<&'a mut dyn Write>>, tabs: bool },
    Lines(&'a mut dyn Write),
}

/// The column of a class's probability.
fn column(label: &str) -> String {
    format!("p({label})")
}

impl<'a> Writer<'a> {
    /// A writer to `out` of predictions of this kind; `labels` are the names of the classes, `ids` says whether examples have ids, and
    /// `decision` which class is predicted.
    pub fn new(
        out: &'a mut dyn Write,
        style: Style,
        kind: PredictionKind,
        labels: &'a [String],
        ids: bool,
        decision: Decision,
    ) -> Self {
        let mut table = csv::WriterBuilder::new();
        let sink = match style.format {
            Format::Csv => Sink::Table { rows: Box::new(table.from_writer(out)), tabs: false },
            // TSV has no quoting.
            Format::Tsv => {
                let table = table.delimiter(b'\t').quote_style(csv::QuoteStyle::Never);
                Sink::Table { rows: Box::new(table.from_writer(out)), tabs: true }
            }
            Format::Jsonl => Sink::Lines(out),
        };
        Self { sink, style, labels, kind, ids, decision, separator: SEPARATOR.to_owned(), header: None }
    }

    /// The same with something else between the classes of an example in a table, where it has any number of them.
    #[must_use]
    pub fn with_separator(self, separator: Option<&str>) -> Self {
        Self { separator: separator.unwrap_or(SEPARATOR).to_owned(), ..self }
    }

    /// The names of the classes that are predicted, where an example has any number of them.
    fn chosen(&self, probabilities: &[f32]) -> Vec<&'a str> {
        let name = |class: u32| self.labels.get(class as usize).map(String::as_str);
        self.decision.classes(probabilities).into_iter().filter_map(name).collect()
    }

    /// Writes the prediction for an example.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, place: &Place<'_>, prediction: &Prediction) -> Result<()> {
        let written = match (&self.sink, prediction) {
            (Sink::Lines(_), _) => self.object(place, prediction),
            (Sink::Table { .. }, Prediction::Example(prediction)) => self.cells(place, None, Some(prediction)),
            (Sink::Table { .. }, Prediction::Words(words)) => {
                words.iter().enumerate().try_for_each(|(i, word)| self.cells(place, Some(i), word.as_deref()))
            }
        };
        written.map_err(cannot_write)
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(self) -> Result<()> {
        match self.sink {
            Sink::Table { mut rows, .. } => rows.flush(),
            Sink::Lines(out) => out.flush(),
        }
        .map_err(cannot_write)
    }

    /// A row of a table, and before the first one the names of its columns.
    fn cells(&mut self, place: &Place<'_>, word: Option<usize>, prediction: Option<&[f32]>) -> io::Result<()> {
        let number = |value: Option<&f32>| value.map(f32::to_string).unwrap_or_default();
        let mut row = vec![("line".to_owned(), place.line.to_string())];
        row.extend(self.ids.then(|| ("id".to_owned(), place.id.unwrap_or_default().to_owned())));
        row.extend(word.map(|word| ("word".to_owned(), (word + 1).to_string())));
        match self.kind {
            // What a language model says are texts, and another verb's.
            PredictionKind::Tokens | PredictionKind::Preferences | PredictionKind::Embeddings => {}
            PredictionKind::Values => row.push(("value".into(), number(prediction.and_then(<[f32]>::first)))),
            PredictionKind::Masks => {
                let shares = self.labels.iter().zip(prediction.unwrap_or_default());
                row.extend(shares.map(|(label, share)| (format!("share({label})"), share.to_string())));
            }
            PredictionKind::MultiLabel => {
                let probabilities = prediction.unwrap_or_default();
                row.push(("label".into(), self.chosen(probabilities).join(&self.separator)));
                let all = self.labels.iter().zip(probabilities).filter(|_| self.style.probabilities);
                row.extend(all.map(|(label, p)| (column(label), p.to_string())));
            }
            PredictionKind::Classes => {
                let class = prediction.map(|prediction| self.decision.class(prediction) as usize);
                let label = class.and_then(|class| self.labels.get(class)).cloned().unwrap_or_default();
                let of = |class: usize| prediction.and_then(|prediction| prediction.get(class));
                row.extend([("label".into(), label), ("probability".into(), number(class.and_then(of)))]);
                let all = self.labels.iter().enumerate().filter(|_| self.style.probabilities);
                row.extend(all.map(|(class, label)| (column(label), number(of(class)))));
            }
        }
        let texts = match word {
            Some(word) => place.texts.get(word..=word).unwrap_or_default(),
            None => place.texts,
        };
        row.extend(["text", "text_pair"].into_iter().zip(texts).map(|(name, text)| (name.to_owned(), text.clone())));
        let (names, cells): (Vec<String>, Vec<String>) = row.into_iter().unzip();
        if self.header.is_none() {
            self.record(names.clone())?;
            self.header = Some(names);
        }
        self.record(cells)
    }

    fn record(&mut self, mut cells: Vec<String>) -> io::Result<()> {
        let Sink::Table { rows, tabs } = &mut self.sink else { return Ok(()) };
        if *tabs {
            cells.iter_mut().for_each(|cell| *cell = cell.replace(['\t', '\n', '\r'], " "));
        }
        rows.write_record(&cells).map_err(io::Error::from)
    }

    /// An object of JSONL.
    fn object(&mut self, place: &Place<'_>, prediction: &Prediction) -> io::Result<()> {
        let chosen = match (prediction, self.kind) {
            (Prediction::Example(p), PredictionKind::MultiLabel) => self.chosen(p),
            _ => Vec::new(),
        };
        let (labels, decision) = (self.labels, &self.decision);
        let label = |p: &Vec<f32>| labels.get(decision.class(p) as usize).map(String::as_str);
        let most = |p: &Vec<f32>| p.get(decision.class(p) as usize).copied();
        let all = self.style.probabilities;
        let &Place { line, id, texts } = place;
        let text = |i: usize| texts.get(i).map(String::as_str);
        let (text, text_pair) = (text(0), text(1));
        match (prediction, self.kind, &mut self.sink) {
            (_, _, Sink::Table { .. })
            | (_, PredictionKind::Tokens | PredictionKind::Preferences | PredictionKind::Embeddings, _) => Ok(()),
            (Prediction::Example(value), PredictionKind::Values, Sink::Lines(out)) => {
                write_json(*out, &ValueRow { line, id, value: value.first().copied(), text, text_pair })
            }
            (Prediction::Example(p), PredictionKind::Classes, Sink::Lines(out)) => {
                // A program takes what it wants; a table would get a column for each of a hundred classes.
                let (label, probability, probabilities) = (label(p), most(p), Named { labels, probabilities: p });
                write_json(*out, &ClassRow { line, id, label, probability, probabilities, text, text_pair })
            }
            (Prediction::Example(p), PredictionKind::MultiLabel, Sink::Lines(out)) => {
                let probabilities = Named { labels, probabilities: p };
                write_json(*out, &LabelsRow { line, id, labels: chosen, probabilities, text, text_pair })
            }
            (Prediction::Example(shares), PredictionKind::Masks, Sink::Lines(out)) => {
                let shares = Named { labels, probabilities: shares };
                write_json(*out, &MaskRow { line, id, shares })
            }
            (Prediction::Words(found), _, Sink::Lines(out)) => {
                let each = || found.iter().map(Option::as_ref);
                let row = WordRow {
                    line,
                    id,
                    labels: each().map(|p| p.and_then(label)).collect(),
                    probability: each().map(|p| p.and_then(most)).collect(),
                    probabilities: all.then(|| each().map(|p| p.map(|p| Named { labels, probabilities: p })).collect()),
                    text: (!texts.is_empty()).then_some(texts),
                };
                write_json(*out, &row)
            }
        }
    }
}

#[derive(Serialize)]
struct ValueRow<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    value: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
}

#[derive(Serialize)]
struct ClassRow<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    label: Option<&'a str>,
    probability: Option<f32>,
    probabilities: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
}

#[derive(Serialize)]
struct LabelsRow<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    labels: Vec<&'a str>,
    probabilities: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
}

#[derive(Serialize)]
struct MaskRow<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Of each class the share of the picture's pixels.
    shares: Named<'a>,
}

#[derive(Serialize)]
struct WordRow<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    labels: Vec<Option<&'a str>>,
    probability: Vec<Option<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Vec<Option<Named<'a>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a [String]>,
}

/// Probabilities by the names of their classes, in the order of the classes.
struct Named<'a> {
    labels: &'a [String],
    probabilities: &'a [f32],
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(self.probabilities))
    }
}

fn write_json(out: &mut dyn Write, row: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write predictions")(error)
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
