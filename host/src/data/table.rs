//! Rows of TSV, CSV, JSONL and Parquet files, one after the other, never the whole file.
//!
//! - **TSV** has no quoting: a tab always ends a cell, and a stray `"` is text, as in SST-2 and GLUE.
//! - **CSV** is RFC 4180: cells may be quoted, and may then hold commas, quotes and line ends.
//! - **JSONL** has one object per line.
//! - **Parquet** has columns with names, of strings (labels: also of numbers or booleans). A row's number, from 1, stands
//!   for its line.
//!
//! In JSONL and Parquet the text may be a list of words, and the label then a list of as many labels.
//!
//! A TSV or CSV file has a header if its first row names the wanted columns (`text` and `label` in any letter case, unless
//! [`Columns`] says otherwise); without a header, column 1 is the text and column 2 the label. A first row that may be a header or
//! an example is refused until the run file says which ([`header`](super::header)). A column `text_pair` is read where there is one.
//! Each row has as many cells as the first. Blank lines are skipped. Labels are trimmed and must not be empty; texts are left as
//! they are and may be empty.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::csv::CsvRows;
use super::header::{First, Places, first_row};
use super::jsonl::JsonRows;
use super::lines::Lines;
use super::parquet::ParquetRows;
use super::row::{Columns, Labels, Row, data_error, no_label};
use crate::{Error, Result};

const FORMATS: &str = "known are .tsv (cells between tabs, no quoting), .csv, .jsonl and .parquet";

/// Reads a file row by row. After an error it gives nothing more.
#[derive(Debug)]
pub struct Rows {
    cells: Cells,
    path: PathBuf,
    columns: Columns,
    header: Option<bool>,
    labels: Labels,
    /// The first row of a TSV or CSV file, and how many cells it has.
    first: Option<(First, usize)>,
    rows: u64,
    failed: bool,
}

/// Whether a file's name is that of a table without names of its own, whose first row may be a header.
pub fn may_have_header(path: &Path) -> bool {
    matches!(extension(path).as_str(), "tsv" | "csv")
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

#[derive(Debug)]
enum Cells {
    Tsv(Lines),
    Csv(Box<CsvRows>),
    Jsonl(JsonRows),
    Parquet(ParquetRows),
}

impl Rows {
    /// Opens a file; its extension tells the format. `header` says whether the first row of a TSV or CSV file is one, where it is
    /// said. Errors where the file is missing, a folder, or of an unknown format.
    pub fn open(path: &Path, columns: &Columns, header: Option<bool>, labels: Labels) -> Result<Self> {
        let wrong = |message: String, help: &str| data_error(path, None, message).with_help(help);
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => wrong(
                "there is no such file".into(),
                "check the name; a path in a run file is relative to the run file's folder",
            ),
            _ => wrong(format!("cannot be read: {error}"), "check the permissions of the file and its folders"),
        })?;
        if metadata.is_dir() {
            return Err(wrong("is a folder, not a file".into(), &format!("name one file in it; {FORMATS}")));
        }
        let open = || {
            File::open(path).map_err(|error| {
                wrong(format!("cannot be read: {error}"), "check the permissions of the file and its folders")
            })
        };
        let cells = match extension(path).as_str() {
            "tsv" => Cells::Tsv(Lines::new(open()?)),
            "csv" => Cells::Csv(Box::new(CsvRows::new(open()?))),
            "jsonl" | "ndjson" => Cells::Jsonl(JsonRows::new(open()?, columns, labels)),
            "parquet" => Cells::Parquet(ParquetRows::open(open()?, path, columns, labels)?),
            "" => return Err(wrong("has no extension, so its format is not known".into(), FORMATS)),
            other => return Err(wrong(format!("files of type .{other} cannot be read"), FORMATS)),
        };
        Ok(Self {
            cells,
            path: path.to_owned(),
            columns: columns.clone(),
            header,
            labels,
            first: None,
            rows: 0,
            failed: false,
        })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let path = &self.path;
        let cells = match &mut self.cells {
            Cells::Tsv(lines) => tsv_cells(lines, path)?,
            Cells::Csv(rows) => rows.next_row(path)?,
            Cells::Jsonl(rows) => return rows.next_row(path, &self.columns),
            Cells::Parquet(rows) => return rows.next_row(path, &self.columns),
        };
        let Some((line, cells)) = cells else { return Ok(None) };
        if let Some((first, width)) = &self.first {
            if cells.len() != *width {
                return Err(uneven(path, line, cells.len(), *width));
            }
            return table_row(path, line, &cells, first.places).map(Some);
        }
        let first = first_row(path, line, &cells, &self.columns, self.header, self.labels)?;
        let (places, is_header) = (first.places, first.is_header);
        self.first = Some((first, cells.len()));
        if is_header { self.next_row() } else { table_row(path, line, &cells, places).map(Some) }
    }

    /// The first row of a TSV or CSV file, once it was read.
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
fn tsv_cells(lines: &mut Lines, path: &Path) -> Result<Option<(u64, Vec<String>)>> {
    let row = lines.next_line(path)?;
    Ok(row.map(|(line, text)| (line, text.split('\t').map(str::to_owned).collect())))
}

/// A row that has more or fewer cells than the first: what stands in its cells is not what should.
fn uneven(path: &Path, line: u64, has: usize, width: usize) -> Error {
    let tabs = extension(path) == "tsv";
    let help = match (has > width, tabs) {
        (true, true) => {
            "a tab inside a text ends its cell: write a space for it, or save the file as .csv with the text in quotes"
        }
        (true, false) => "put a text that has a comma in quotes, \"good, but long\", or save the file as .tsv",
        (false, true) => "are the cells separated by tabs, and is the row on one line?",
        (false, false) => "are the cells separated by commas, and is a text of several lines in quotes?",
    };
    data_error(path, Some(line), format!("this row has {}, and the first row has {width}", cells(has))).with_help(help)
}

fn cells(number: usize) -> String {
    format!("{number} cell{}", if number == 1 { "" } else { "s" })
}

fn table_row(path: &Path, line: u64, row: &[String], places: Places) -> Result<Row> {
    let cell = |place: usize, what: &str| {
        row.get(place).ok_or_else(|| {
            let message = format!("this row has {}; the {what} should stand in column {}", cells(row.len()), place + 1);
            data_error(path, Some(line), message)
                .with_help("are the cells separated as the file's extension says: by tabs in .tsv, by commas in .csv?")
        })
    };
    let text = cell(places.text, "text")?.clone();
    let pair = places.pair.map(|place| cell(place, "second text").cloned()).transpose()?;
    let label = places.label.map(|place| cell(place, "label").map(|cell| cell.trim().to_owned())).transpose()?;
    if label.as_ref().is_some_and(String::is_empty) {
        return Err(no_label(path, line));
    }
    Ok(Row { line, text, pair, label: label.unwrap_or_default(), words: None })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
