//! Predictions for examples without labels, written row by row as they come.

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use fthost_plugin_api::PredictionKind;
use serde::{Serialize, Serializer};

use crate::report::metrics::probabilities::most_probable;
use crate::{Error, Result};

/// The form of predictions.
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
    /// That of a file by its extension; TSV where it is none of these.
    pub fn of(path: &Path) -> Self {
        match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
            "csv" => Self::Csv,
            "jsonl" | "ndjson" => Self::Jsonl,
            _ => Self::Tsv,
        }
    }
}

/// Writes predictions: of classes the most probable one, its probability, and that of each; of values the value.
pub struct Writer<'a> {
    sink: Sink<'a>,
    labels: &'a [String],
    kind: PredictionKind,
}

enum Sink<'a> {
    Table { rows: Box<csv::Writer<&'a mut dyn Write>>, tabs: bool },
    Lines(&'a mut dyn Write),
}

impl<'a> Writer<'a> {
    /// A writer to `out` of predictions of this kind; `labels` are the names of the classes.
    ///
    /// # Errors
    /// Where the header cannot be written.
    pub fn new(out: &'a mut dyn Write, format: Format, kind: PredictionKind, labels: &'a [String]) -> Result<Self> {
        let mut table = csv::WriterBuilder::new();
        let sink = match format {
            Format::Csv => Sink::Table { rows: Box::new(table.from_writer(out)), tabs: false },
            // TSV has no quoting.
            Format::Tsv => {
                let table = table.delimiter(b'\t').quote_style(csv::QuoteStyle::Never);
                Sink::Table { rows: Box::new(table.from_writer(out)), tabs: true }
            }
            Format::Jsonl => Sink::Lines(out),
        };
        let mut writer = Self { sink, labels, kind };
        let mut header = vec!["line".to_owned()];
        match kind {
            PredictionKind::Values => header.push("value".into()),
            PredictionKind::Classes => {
                header.extend(["label".into(), "probability".into()]);
                header.extend(labels.iter().map(|label| format!("p({label})")));
            }
        }
        if matches!(writer.sink, Sink::Table { .. }) {
            writer.cells(header).map_err(cannot_write)?;
        }
        Ok(writer)
    }

    /// Writes the prediction for the example on a line of its file: the classes' probabilities, or one value.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, line: u64, prediction: &[f32]) -> Result<()> {
        let written = match (self.kind, &mut self.sink) {
            (PredictionKind::Values, Sink::Lines(out)) => write_json(*out, &ValueRow { line, value: prediction[0] }),
            (PredictionKind::Values, Sink::Table { .. }) => {
                self.cells(vec![line.to_string(), prediction[0].to_string()])
            }
            (PredictionKind::Classes, Sink::Lines(out)) => {
                let (class, probability) = best(prediction);
                let label = &self.labels[class];
                let probabilities = Named { labels: self.labels, probabilities: prediction };
                write_json(*out, &ClassRow { line, label, probability, probabilities })
            }
            (PredictionKind::Classes, Sink::Table { .. }) => {
                let (class, probability) = best(prediction);
                let mut cells = vec![line.to_string(), self.labels[class].clone(), probability.to_string()];
                cells.extend(prediction.iter().map(f32::to_string));
                self.cells(cells)
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

    fn cells(&mut self, mut cells: Vec<String>) -> io::Result<()> {
        let Sink::Table { rows, tabs } = &mut self.sink else { return Ok(()) };
        if *tabs {
            cells.iter_mut().for_each(|cell| *cell = cell.replace(['\t', '\n', '\r'], " "));
        }
        rows.write_record(&cells).map_err(io::Error::from)
    }
}

/// Writes predictions for texts that are lists of words: an object for each, with the label of each word.
pub struct WordWriter<'a> {
    out: &'a mut dyn Write,
    labels: &'a [String],
}

impl<'a> WordWriter<'a> {
    /// A writer to `out`; `labels` are the names of the classes.
    ///
    /// # Errors
    /// Where the format has no lists.
    pub fn new(out: &'a mut dyn Write, format: Format, labels: &'a [String]) -> Result<Self> {
        match format {
            Format::Jsonl => Ok(Self { out, labels }),
            Format::Tsv | Format::Csv => {
                Err(Error::usage("the task has a label for each word, and a table has no lists")
                    .with_help("write JSONL: --out FILE.jsonl, or --format jsonl"))
            }
        }
    }

    /// Writes the words' classes for the example on a line of its file. A word has none where it came after the longest length, or
    /// where the tokenizer makes nothing of it: null.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, line: Option<u64>, classes: &[Option<u32>]) -> Result<()> {
        let name = |class: &Option<u32>| Some(self.labels.get((*class)? as usize)?.as_str());
        write_json(self.out, &WordRow { line, labels: classes.iter().map(name).collect() }).map_err(cannot_write)
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(self) -> Result<()> {
        self.out.flush().map_err(cannot_write)
    }
}

#[derive(Serialize)]
struct WordRow<'a> {
    line: Option<u64>,
    labels: Vec<Option<&'a str>>,
}

#[derive(Serialize)]
struct ValueRow {
    line: u64,
    value: f32,
}

#[derive(Serialize)]
struct ClassRow<'a> {
    line: u64,
    label: &'a str,
    probability: f32,
    probabilities: Named<'a>,
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

/// The predicted class, and its probability.
fn best(probabilities: &[f32]) -> (usize, f32) {
    let class = most_probable(probabilities) as usize;
    (class, probabilities.get(class).copied().unwrap_or_default())
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write predictions")(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[track_caller]
    fn check(format: Format, kind: PredictionKind, labels: &[&str], rows: &[&[f32]], expected: &str) {
        let labels: Vec<String> = labels.iter().map(|&label| label.into()).collect();
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, format, kind, &labels).unwrap();
        for (line, row) in (2..).zip(rows) {
            writer.write(line, row).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn classes_with_their_probabilities() {
        use PredictionKind::Classes;
        let rows: &[&[f32]] = &[&[0.25, 0.75], &[0.5, 0.5]];
        check(
            Format::Tsv,
            Classes,
            &["a\tb", "c, d"],
            rows,
            "line\tlabel\tprobability\tp(a b)\tp(c, d)\n2\tc, d\t0.75\t0.25\t0.75\n3\ta b\t0.5\t0.5\t0.5\n",
        );
        check(
            Format::Csv,
            Classes,
            &["a", "c, d"],
            &rows[..1],
            "line,label,probability,p(a),\"p(c, d)\"\n2,\"c, d\",0.75,0.25,0.75\n",
        );
        check(
            Format::Jsonl,
            Classes,
            &["b", "a"],
            &rows[..1],
            "{\"line\":2,\"label\":\"a\",\"probability\":0.75,\"probabilities\":{\"b\":0.25,\"a\":0.75}}\n",
        );
    }

    #[test]
    fn words() {
        let labels = ["B-X", "O"].map(String::from);
        let mut out = Vec::new();
        let mut writer = WordWriter::new(&mut out, Format::Jsonl, &labels).unwrap();
        writer.write(Some(2), &[Some(1), None, Some(0)]).unwrap();
        writer.finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"line\":2,\"labels\":[\"O\",null,\"B-X\"]}\n");
        for format in [Format::Tsv, Format::Csv] {
            let error = WordWriter::new(&mut Vec::new(), format, &labels).err().unwrap();
            assert!(error.to_string().contains("a label for each word"), "{error}");
        }
    }

    #[test]
    fn values() {
        check(Format::Tsv, PredictionKind::Values, &[], &[&[3.5]], "line\tvalue\n2\t3.5\n");
        check(Format::Jsonl, PredictionKind::Values, &[], &[&[3.5]], "{\"line\":2,\"value\":3.5}\n");
    }

    #[test]
    fn the_extension_tells_the_format() {
        for (name, expected) in
            [("a.csv", Format::Csv), ("a.ndjson", Format::Jsonl), ("a.tsv", Format::Tsv), ("a.parquet", Format::Tsv)]
        {
            assert_eq!(Format::of(Path::new(name)), expected, "{name}");
        }
    }
}
