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
//! A TSV or CSV file has a header if its first row names the wanted columns (`text` and `label`, unless [`Columns`] says
//! otherwise); without a header, column 1 is the text and column 2 the label. A column `text_pair` is read where there is one.
//! Blank lines are skipped. Labels are trimmed and must not be empty; texts are left as they are and may be empty.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::jsonl::JsonRows;
use super::lines::{Lines, csv_cells};
use super::parquet::ParquetRows;
use super::row::{Columns, Labels, Row, data_error, list, no_label, shortened};
use crate::{Error, Result};

const FORMATS: &str = "known are .tsv (cells between tabs, no quoting), .csv, .jsonl and .parquet";

/// Reads a file row by row. After an error it gives nothing more.
#[derive(Debug)]
pub struct Rows {
    cells: Cells,
    path: PathBuf,
    columns: Columns,
    labels: Labels,
    places: Option<Places>,
    rows: u64,
    failed: bool,
}

/// Where the wanted cells stand in a row of a TSV or CSV file, from 0.
#[derive(Clone, Copy, Debug)]
struct Places {
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
}

#[derive(Debug)]
enum Cells {
    Tsv(Lines),
    Csv(Lines),
    Jsonl(JsonRows),
    Parquet(ParquetRows),
}

impl Rows {
    /// Opens a file; its extension tells the format. Errors where it is missing, a folder, or of an unknown format.
    pub fn open(path: &Path, columns: &Columns, labels: Labels) -> Result<Self> {
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
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let open = || {
            File::open(path).map_err(|error| {
                wrong(format!("cannot be read: {error}"), "check the permissions of the file and its folders")
            })
        };
        let cells = match extension.as_str() {
            "tsv" => Cells::Tsv(Lines::new(open()?)),
            "csv" => Cells::Csv(Lines::new(open()?)),
            "jsonl" | "ndjson" => Cells::Jsonl(JsonRows::new(open()?, columns, labels)),
            "parquet" => Cells::Parquet(ParquetRows::open(open()?, path, columns, labels)?),
            "" => return Err(wrong("has no extension, so its format is not known".into(), FORMATS)),
            other => return Err(wrong(format!("files of type .{other} cannot be read"), FORMATS)),
        };
        Ok(Self {
            cells,
            path: path.to_owned(),
            columns: columns.clone(),
            labels,
            places: None,
            rows: 0,
            failed: false,
        })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let path = &self.path;
        let cells = match &mut self.cells {
            Cells::Tsv(lines) => tsv_cells(lines, path)?,
            Cells::Csv(lines) => csv_cells(lines, path)?,
            Cells::Jsonl(rows) => return rows.next_row(path, &self.columns),
            Cells::Parquet(rows) => return rows.next_row(path, &self.columns),
        };
        let Some((line, cells)) = cells else { return Ok(None) };
        if let Some(places) = self.places {
            return table_row(path, line, &cells, places).map(Some);
        }
        let (places, header) = find_places(path, line, &cells, &self.columns, self.labels)?;
        self.places = Some(places);
        if header { self.next_row() } else { table_row(path, line, &cells, places).map(Some) }
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
                let what = if self.places.is_some() { "has a header but no rows" } else { "is empty" };
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

/// Where the wanted columns stand, and whether the first row is a header.
fn find_places(path: &Path, line: u64, first: &[String], columns: &Columns, labels: Labels) -> Result<(Places, bool)> {
    let find = |name: &str| first.iter().position(|cell| cell.trim() == name);
    let number = |name: &str| name.parse::<usize>().ok().filter(|&number| number > 0);
    let (text, label) = (find(columns.text()), find(columns.label()));
    let read = labels == Labels::Read;
    if let Some(text) = text.filter(|_| label.is_some() || !read) {
        let pair = find(columns.text_pair());
        return match (&columns.text_pair, pair) {
            (Some(name), None) => Err(missing(path, line, name, first)),
            _ => Ok((Places { text, pair, label: label.filter(|_| read) }, true)),
        };
    }
    if columns.given().next().is_some() && columns.given().all(|name| number(name).is_some()) {
        let place = |name: &Option<String>, default: usize| name.as_deref().and_then(number).unwrap_or(default) - 1;
        let pair = columns.text_pair.as_deref().and_then(number).map(|number| number - 1);
        return Ok((
            Places { text: place(&columns.text, 1), pair, label: read.then(|| place(&columns.label, 2)) },
            false,
        ));
    }
    if columns.given().next().is_none() && text.is_none() && label.is_none() {
        return Ok((Places { text: 0, pair: None, label: read.then_some(1) }, false));
    }
    // It looks like a header, or must be one, and a column is not there.
    Err(missing(path, line, if text.is_none() { columns.text() } else { columns.label() }, first))
}

fn missing(path: &Path, line: u64, name: &str, first: &[String]) -> Error {
    let there = list(first.iter().take(20).map(|cell| shortened(cell.trim())));
    data_error(path, Some(line), format!("there is no column `{name}`; the first row has {there}"))
        .with_help("name the columns in the run file: columns = { text = \"...\", label = \"...\" }; in a file without a header, by number: columns = { text = \"1\", label = \"2\" }")
}

fn table_row(path: &Path, line: u64, cells: &[String], places: Places) -> Result<Row> {
    let cell = |place: usize, what: &str| {
        cells.get(place).ok_or_else(|| {
            let has = if cells.len() == 1 { "1 column".into() } else { format!("{} columns", cells.len()) };
            data_error(path, Some(line), format!("this row has {has}; the {what} should stand in column {}", place + 1))
                .with_help("are the cells separated as the file's extension says: by tabs in .tsv, by commas in .csv?")
        })
    };
    let text = cell(places.text, "text")?.clone();
    let pair = places.pair.map(|place| cell(place, "second text").cloned()).transpose()?;
    let label = places.label.map(|label| cell(label, "label").map(|cell| cell.trim().to_owned())).transpose()?;
    if label.as_ref().is_some_and(String::is_empty) {
        return Err(no_label(path, line));
    }
    Ok(Row { line, text, pair, label: label.unwrap_or_default(), words: None })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
