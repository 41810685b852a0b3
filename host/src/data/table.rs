//! Rows of a file, one after the other, never the whole file.
//!
//! - **TSV** has no quoting: a tab always ends a cell, and a stray `"` is text, as in SST-2 and GLUE.
//! - **CSV** is RFC 4180: cells may be quoted, and may then hold commas, quotes and line ends. Another separator or quote may be said, or
//!   is recognised where it alone makes the rows as long.
//! - **JSONL** has one object per line; **JSON** is an array of objects, alone or in an object.
//! - **Parquet** and **Arrow** have columns with names, of strings (labels: also of numbers or booleans). A row's number, from 1, stands
//!   for its line.
//! - **CoNLL** has one word a line with its label in a column, and a blank line after each sentence.
//! - **A folder** has a folder for each class, and in these each file is a text.
//! - **Lines** are one text a line, of one class or beside a file of labels.
//!
//! In JSON, Parquet and Arrow the text may be a list of words, and the label then a list of as many labels.
//!
//! Each may be packed by gzip or Zstandard. What a file is stands in its name, else in its content (`recognise`).
//!
//! A TSV or CSV file has a header if its first row names the wanted columns (`text` and `label` in any letter case, unless
//! [`Columns`] says otherwise); without a header, column 1 is the text and column 2 the label. A first row that may be a header or
//! an example is refused until the run file says which (`header`). A column `text_pair` is read where there is one.
//! Each row has as many cells as the first. Blank lines are skipped. Labels are trimmed and must not be empty; texts are left as
//! they are and may be empty. Where the task says what stands between labels in a cell (`label_separator`), an empty cell has none.

use std::path::{Path, PathBuf};

use super::arrow::ArrowFiles;
use super::conll::ConllRows;
use super::csv::CsvRows;
use super::elements::Elements;
use super::files::labels_beside;
use super::folder::{self, TextFolder};
use super::form::{Dialect, FORMATS, Form, Format, named};
use super::header::{First, Places, first_row};
use super::input::Input;
use super::jsonl::{JsonRows, Objects};
use super::lines::Lines;
use super::parquet::ParquetRows;
use super::recognise::{Kind, Recognised, extension, file_name, recognise};
use super::row::{Columns, Labels, Row, data_error, no_label};
use super::texts::TextRows;
use crate::{Error, Result};

/// Reads a file row by row. After an error it gives nothing more.
pub struct Rows {
    cells: Cells,
    path: PathBuf,
    columns: Columns,
    header: Option<bool>,
    labels: Labels,
    /// Whether a cell holds any number of labels.
    lists: bool,
    notes: Vec<String>,
    /// The first row of a table, and how many cells it has.
    first: Option<(First, usize)>,
    rows: u64,
    failed: bool,
}

/// Whether a file may be a table without names of its own, whose first row may be a header.
pub fn may_have_header(path: &Path, format: Option<Format>) -> bool {
    match format {
        Some(format) => matches!(format, Format::Tsv | Format::Csv),
        None if path.is_dir() => false,
        None => {
            !matches!(extension(path).as_str(), "jsonl" | "ndjson" | "json" | "parquet" | "arrow" | "conll" | "conllu")
        }
    }
}

enum Cells {
    Unquoted(Lines, Dialect),
    Csv(Box<CsvRows>, Dialect),
    Json(JsonRows),
    Parquet(ParquetRows),
    Arrow(Box<ArrowFiles>),
    Conll(ConllRows),
    Texts(TextRows),
    Folder(TextFolder),
}

impl Rows {
    /// Opens a file, or a folder that `datasets` saved. `known` are the classes of the training data, where they are known.
    ///
    /// # Errors
    /// Where it is missing, or nothing tells how it is read.
    pub fn open(path: &Path, form: &Form, labels: Labels, known: Option<&[String]>) -> Result<Self> {
        let columns = &form.columns;
        if folder::is_of_texts(path) {
            let texts = TextFolder::open(path, columns, labels, form.encoding)?;
            let notes = vec![texts.note()];
            return Ok(Self { notes, ..Self::new(path, form, labels, Cells::Folder(texts)) });
        }
        if path.is_dir() {
            let rows = ArrowFiles::of_folder(path, columns, labels)?;
            return Ok(Self::new(path, form, labels, Cells::Arrow(Box::new(rows))));
        }
        let input = Input::open(path, form.encoding)?;
        let Recognised { kind, mut notes, label_first } = recognise(&input, path, form, labels, known);
        let cells = match kind {
            Kind::Table(dialect) if dialect.quote.is_none() => {
                Cells::Unquoted(Lines::new(input.into_reader()), dialect)
            }
            Kind::Table(dialect) => Cells::Csv(Box::new(CsvRows::new(input.into_reader(), dialect)), dialect),
            Kind::Jsonl => Cells::Json(JsonRows::new(Objects::Lines(Lines::new(input.into_reader())), columns, labels)),
            Kind::Json => {
                Cells::Json(JsonRows::new(Objects::Array(Elements::new(input.into_reader())), columns, labels))
            }
            Kind::Parquet => Cells::Parquet(ParquetRows::open(input.into_file(path)?, path, columns, labels)?),
            Kind::Arrow => Cells::Arrow(Box::new(ArrowFiles::of_file(input, path, columns, labels)?)),
            Kind::Conll => Cells::Conll(ConllRows::new(Lines::new(input.into_reader()), labels)),
            Kind::Lines => {
                let beside = labels_beside(path).filter(|_| labels == Labels::Read);
                match &beside {
                    Some(beside) => {
                        notes.push(format!("{}: one text a line, its label in {}", file_name(path), file_name(beside)));
                    }
                    None if labels == Labels::Read && !input.sample().is_empty() => return Err(unlabelled_lines(path)),
                    None => {}
                }
                Cells::Texts(TextRows::new(Lines::new(input.into_reader()), beside.as_deref(), form.encoding)?)
            }
        };
        let mut rows = Self { notes, ..Self::new(path, form, labels, cells) };
        if label_first {
            rows.columns.text = Some("2".into());
            rows.columns.label = Some("1".into());
        }
        Ok(rows)
    }

    /// Opens texts, one a line, with their labels in another file.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub(super) fn open_pair(text: &Path, label: &Path, form: &Form) -> Result<Self> {
        let lines = Lines::new(Input::open(text, form.encoding)?.into_reader());
        let rows = TextRows::new(lines, Some(label), form.encoding)?;
        Ok(Self::new(text, form, Labels::Read, Cells::Texts(rows)))
    }

    fn new(path: &Path, form: &Form, labels: Labels, cells: Cells) -> Self {
        let (path, columns, header) = (path.to_owned(), form.columns.clone(), form.header);
        let lists = form.label_separator.is_some();
        Self { cells, path, columns, header, labels, lists, notes: Vec::new(), first: None, rows: 0, failed: false }
    }

    /// Keeps about so many rows, of all over the file, where that takes no reading of the others: of the files in a folder of texts.
    /// Whether these are all.
    pub(super) fn keep(&mut self, most: usize) -> bool {
        match &mut self.cells {
            Cells::Folder(texts) => texts.keep(most),
            _ => true,
        }
    }

    /// Sentences about what was recognised.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let path = &self.path;
        let (cells, dialect) = match &mut self.cells {
            Cells::Unquoted(lines, dialect) => (unquoted(lines, path, *dialect)?, *dialect),
            Cells::Csv(rows, dialect) => (rows.next_row(path)?, *dialect),
            Cells::Json(rows) => return rows.next_row(path, &self.columns),
            Cells::Parquet(rows) => return rows.next_row(path, &self.columns),
            Cells::Arrow(rows) => return rows.next_row(path, &self.columns),
            Cells::Conll(rows) => return rows.next_row(path, &self.columns),
            Cells::Texts(rows) => return rows.next_row(path),
            Cells::Folder(rows) => return rows.next_row(),
        };
        let Some((line, cells)) = cells else { return Ok(None) };
        if let Some((first, width)) = &self.first {
            if cells.len() != *width {
                return Err(uneven(path, line, cells.len(), *width, dialect));
            }
            return table_row(path, line, &cells, &first.places, self.lists).map(Some);
        }
        let first = first_row(path, line, &cells, &self.columns, self.header, self.labels)?;
        let row = if first.is_header { None } else { Some(table_row(path, line, &cells, &first.places, self.lists)?) };
        self.first = Some((first, cells.len()));
        row.map_or_else(|| self.next_row(), |row| Ok(Some(row)))
    }

    /// The first row of a table, once it was read.
    pub(super) fn first(&self) -> Option<&First> {
        self.first.as_ref().map(|(first, _)| first)
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = match self.next_row() {
            Ok(None) if self.rows == 0 => {
                let what = if self.first.is_some() { "has a header but no rows" } else { "is empty" };
                let needed = if self.labels == Labels::Read { "a text and a label" } else { "a text" };
                Err(data_error(&self.path, None, what).with_help(format!("it needs at least one row with {needed}")))
            }
            row => row,
        };
        self.failed = row.is_err();
        self.rows += 1;
        row.transpose()
    }
}

/// The cells of the next row that is not blank, and its line.
pub(super) fn unquoted(lines: &mut Lines, path: &Path, dialect: Dialect) -> Result<Option<(u64, Vec<String>)>> {
    let row = lines.next_line(path)?;
    let separator = char::from(dialect.separator);
    Ok(row.map(|(line, text)| (line, text.split(separator).map(str::to_owned).collect())))
}

fn unlabelled_lines(path: &Path) -> Error {
    data_error(path, None, "has one text a line, and no label").with_help(format!(
        "name the labels' file beside it, train = {{ text = \"FILE\", label = \"FILE\" }}, or a file for each class, train = {{ good = \
         \"FILE\", bad = \"FILE\" }}; or say what the file is by format. {FORMATS}"
    ))
}

/// A row that has more or fewer cells than the first: what stands in its cells is not what should.
fn uneven(path: &Path, line: u64, has: usize, width: usize, dialect: Dialect) -> Error {
    let help = match (has > width, dialect) {
        (true, Dialect::TSV) => {
            "a tab inside a text ends its cell: write a space for it, or save the file as .csv with the text in quotes"
                .into()
        }
        (true, Dialect::CSV) => {
            "put a text that has a comma in quotes, \"good, but long\", or save the file as .tsv; other \
             separators and quotes are said in the task: separator = \";\", quote = \"'\""
                .into()
        }
        (true, _) => format!(
            "cells are taken to stand between {}: say in the task what separates and quotes them, separator = \";\", quote = \"'\"",
            named(dialect.separator)
        ),
        (false, Dialect { quote: None, .. }) => {
            format!("are the cells separated by {}, and is the row on one line?", named(dialect.separator))
        }
        (false, _) => {
            format!(
                "are the cells separated by {}, and is a text of several lines in quotes?",
                named(dialect.separator)
            )
        }
    };
    data_error(path, Some(line), format!("this row has {}, and the first row has {width}", cells(has))).with_help(help)
}

fn cells(number: usize) -> String {
    format!("{number} cell{}", if number == 1 { "" } else { "s" })
}

/// `lists`: whether a label's cell may be empty, and is of none.
fn table_row(path: &Path, line: u64, row: &[String], places: &Places, lists: bool) -> Result<Row> {
    let cell = |place: usize, what: &str| {
        row.get(place).ok_or_else(|| {
            let message = format!("this row has {}; the {what} should stand in column {}", cells(row.len()), place + 1);
            data_error(path, Some(line), message)
                .with_help("are the cells separated as the file's name says, by tabs in .tsv, by commas in .csv, or as the task's separator?")
        })
    };
    let text = cell(places.text, "text")?.clone();
    let pair = places.pair.map(|place| cell(place, "second text").cloned()).transpose()?;
    let label = places.label.map(|place| cell(place, "label").map(|cell| cell.trim().to_owned())).transpose()?;
    if !lists && label.as_ref().is_some_and(String::is_empty) {
        return Err(no_label(path, line));
    }
    let extra = places.extra.iter().map(|place| match place {
        Some(place) => cell(*place, "further column").map(|cell| cell.trim().to_owned()),
        None => Ok(String::new()),
    });
    let extra = extra.collect::<Result<_>>()?;
    Ok(Row { line, text, pair, label: label.unwrap_or_default(), extra, ..Row::default() })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
