//! Rows of TSV, CSV and JSONL files, one after the other, never the whole file.
//!
//! - **TSV** has no quoting: a tab always ends a cell, and a stray `"` is text, as in SST-2 and GLUE.
//! - **CSV** is RFC 4180: cells may be quoted, and may then hold commas, quotes and line ends.
//! - **JSONL** has one object per line.
//!
//! A TSV or CSV file has a header if its first row names the wanted columns (`text` and `label`, unless [`Columns`] says
//! otherwise); without a header, column 1 is the text and column 2 the label. A column `text_pair` is read where there is one.
//! Blank lines are skipped. Labels are trimmed and must not be empty; texts are left as they are and may be empty.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Which columns are read: names, or numbers from 1 as strings where the file has no header.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The text; `text` by default.
    pub text: Option<String>,
    /// The second text of a pair; `text_pair` by default, where there is such a column.
    pub text_pair: Option<String>,
    /// The label, or the value to predict; `label` by default.
    pub label: Option<String>,
}

impl Columns {
    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("text")
    }

    fn text_pair(&self) -> &str {
        self.text_pair.as_deref().unwrap_or("text_pair")
    }

    fn label(&self) -> &str {
        self.label.as_deref().unwrap_or("label")
    }

    /// The columns as they stand in a run file.
    fn given(&self) -> impl Iterator<Item = &str> {
        [&self.text, &self.text_pair, &self.label].into_iter().flatten().map(String::as_str)
    }
}

/// One example as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line it begins on, from 1.
    pub line: u64,
    /// The text; may be empty.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label or value, trimmed, never empty.
    pub label: String,
}

const FORMATS: &str = "known are .tsv (cells between tabs, no quoting), .csv and .jsonl";

/// Reads a file row by row. After an error it gives nothing more.
#[derive(Debug)]
pub struct Rows {
    cells: Cells,
    path: PathBuf,
    columns: Columns,
    places: Option<Places>,
    rows: u64,
    failed: bool,
}

/// Where the wanted cells stand in a row of a TSV or CSV file, from 0.
#[derive(Clone, Copy, Debug)]
struct Places {
    text: usize,
    pair: Option<usize>,
    label: usize,
}

#[derive(Debug)]
enum Cells {
    Tsv(Lines),
    Csv(Lines),
    Jsonl { lines: Lines, pairs: bool },
}

impl Rows {
    /// Opens a file; its extension tells the format. Errors where it is missing, a folder, or of an unknown format.
    pub fn open(path: &Path, columns: &Columns) -> Result<Self> {
        let wrong = |message: String, help: &str| data_error(path, None, message).with_help(help);
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => wrong(
                "there is no such file".into(),
                "a path in a run file is relative to the run file's folder; check the name",
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
            "jsonl" | "ndjson" => Cells::Jsonl { lines: Lines::new(open()?), pairs: columns.text_pair.is_some() },
            "" => return Err(wrong("has no extension, so its format is not known".into(), FORMATS)),
            other => return Err(wrong(format!("files of type .{other} cannot be read"), FORMATS)),
        };
        Ok(Self { cells, path: path.to_owned(), columns: columns.clone(), places: None, rows: 0, failed: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        if let Cells::Jsonl { lines, pairs } = &mut self.cells {
            return match lines.next_line(&self.path)? {
                Some((line, text)) => {
                    // Pairs without a word in the run file: if the first row has one, all have.
                    let first = self.rows == 0;
                    json_row(&self.path, line, text, &self.columns, pairs, first).map(Some)
                }
                None => Ok(None),
            };
        }
        loop {
            let Some((line, cells)) = self.cells.next_cells(&self.path)? else { return Ok(None) };
            match self.places {
                Some(places) => return table_row(&self.path, line, &cells, places).map(Some),
                None => {
                    let (places, header) = find_places(&self.path, line, &cells, &self.columns)?;
                    self.places = Some(places);
                    if !header {
                        return table_row(&self.path, line, &cells, places).map(Some);
                    }
                }
            }
        }
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
                Err(data_error(&self.path, None, what).with_help("it needs at least one row with a text and a label"))
            }
            row => row,
        };
        self.failed = row.is_err();
        self.rows += 1;
        row.transpose()
    }
}

fn data_error(path: &Path, line: Option<u64>, message: impl Into<String>) -> Error {
    Error::Data { file: path.to_owned(), line, message: message.into(), help: None }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Cells {
    /// The cells of the next row that is not blank, and its line.
    fn next_cells(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>> {
        match self {
            Self::Tsv(lines) | Self::Jsonl { lines, .. } => {
                let row = lines.next_line(path)?;
                Ok(row.map(|(line, text)| (line, text.split('\t').map(str::to_owned).collect())))
            }
            Self::Csv(lines) => csv_cells(lines, path),
        }
    }
}

/// The cells of a CSV row, which goes on over line ends inside quotes. They become `\n`.
fn csv_cells(lines: &mut Lines, path: &Path) -> Result<Option<(u64, Vec<String>)>> {
    let Some((start, mut text)) = lines.next_line(path)? else { return Ok(None) };
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    loop {
        let mut line = text.chars().peekable();
        let mut cell_start = !quoted;
        while let Some(c) = line.next() {
            match c {
                '"' if quoted && line.next_if_eq(&'"').is_some() => cell.push('"'),
                '"' if quoted => {
                    quoted = false;
                    if line.peek().is_some_and(|&next| next != ',') {
                        return Err(data_error(path, Some(start), "a quoted cell goes on after its closing quote")
                            .with_help(QUOTES));
                    }
                }
                '"' if cell_start => quoted = true,
                ',' if !quoted => {
                    cells.push(std::mem::take(&mut cell));
                    cell_start = true;
                    continue;
                }
                c => cell.push(c),
            }
            cell_start = false;
        }
        if !quoted {
            cells.push(cell);
            return Ok(Some((start, cells)));
        }
        cell.push('\n');
        text = match lines.next_any_line(path)? {
            Some(text) => text,
            None => {
                let message = "a quote that opens in this row is never closed";
                return Err(data_error(path, Some(start), message).with_help(QUOTES));
            }
        };
    }
}

const QUOTES: &str =
    "write a quote inside a quoted cell twice, or save the file as .tsv, where quotes are ordinary characters";

/// Lines without their ends and without the mark that may open a UTF-8 file.
#[derive(Debug)]
struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: u64,
}

impl Lines {
    fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, file), buffer: Vec::new(), number: 0 }
    }

    /// The next line that is not blank, and its number.
    fn next_line(&mut self, path: &Path) -> Result<Option<(u64, &str)>> {
        while self.read(path)? {
            if !self.buffer.is_empty() {
                return Ok(Some((self.number, self.text(path)?)));
            }
        }
        Ok(None)
    }

    /// The next line, blank or not.
    fn next_any_line(&mut self, path: &Path) -> Result<Option<&str>> {
        if self.read(path)? { self.text(path).map(Some) } else { Ok(None) }
    }

    fn text(&self, path: &Path) -> Result<&str> {
        std::str::from_utf8(&self.buffer).map_err(|_| {
            data_error(path, Some(self.number), "this line is not valid UTF-8")
                .with_help("convert the file, for instance by: iconv -f latin1 -t utf-8 old > new")
        })
    }

    /// Reads a line into the buffer, without its end; false at the end of the file.
    fn read(&mut self, path: &Path) -> Result<bool> {
        self.buffer.clear();
        let read = self.reader.read_until(b'\n', &mut self.buffer);
        if read.map_err(Error::io(format!("cannot read {}", path.display())))? == 0 {
            return Ok(false);
        }
        self.number += 1;
        for end in [b'\n', b'\r'] {
            if self.buffer.last() == Some(&end) {
                self.buffer.pop();
            }
        }
        if self.number == 1 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
            self.buffer.drain(..3);
        }
        Ok(true)
    }
}

/// Where the wanted columns stand, and whether the first row is a header.
fn find_places(path: &Path, line: u64, first: &[String], columns: &Columns) -> Result<(Places, bool)> {
    let find = |name: &str| first.iter().position(|cell| cell.trim() == name);
    let number = |name: &str| name.parse::<usize>().ok().filter(|&number| number > 0);
    let (text, label) = (find(columns.text()), find(columns.label()));
    if let (Some(text), Some(label)) = (text, label) {
        let pair = find(columns.text_pair());
        return match (&columns.text_pair, pair) {
            (Some(name), None) => Err(missing(path, line, name, first)),
            _ => Ok((Places { text, pair, label }, true)),
        };
    }
    if columns.given().next().is_some() && columns.given().all(|name| number(name).is_some()) {
        let place = |name: &Option<String>, default: usize| name.as_deref().and_then(number).unwrap_or(default) - 1;
        let pair = columns.text_pair.as_deref().and_then(number).map(|number| number - 1);
        return Ok((Places { text: place(&columns.text, 1), pair, label: place(&columns.label, 2) }, false));
    }
    if columns.given().next().is_none() && text.is_none() && label.is_none() {
        return Ok((Places { text: 0, pair: None, label: 1 }, false));
    }
    // It looks like a header, or must be one, and a column is not there.
    Err(missing(path, line, if text.is_none() { columns.text() } else { columns.label() }, first))
}

fn missing(path: &Path, line: u64, name: &str, first: &[String]) -> Error {
    let there = list(first.iter().take(20).map(|cell| shortened(cell.trim())));
    data_error(path, Some(line), format!("there is no column `{name}`; the first row has {there}"))
        .with_help("name the columns in the run file: columns = { text = \"...\", label = \"...\" }; in a file without a header, by number: columns = { text = \"1\", label = \"2\" }")
}

/// The beginning of a cell, for messages.
fn shortened(cell: &str) -> &str {
    match cell.char_indices().nth(40) {
        Some((end, _)) => &cell[..end],
        None => cell,
    }
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
    let label = cell(places.label, "label")?.trim().to_owned();
    if label.is_empty() {
        return Err(no_label(path, line));
    }
    Ok(Row { line, text, pair, label })
}

fn no_label(path: &Path, line: u64) -> Error {
    data_error(path, Some(line), "this row has no label").with_help("give it one, or remove the row")
}

fn json_row(path: &Path, line: u64, text: &str, columns: &Columns, pairs: &mut bool, first: bool) -> Result<Row> {
    use serde_json::Value;
    let object: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|error| {
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
            Err(data_error(path, Some(line), format!("`{name}` is {kind}; it must be a string")))
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
            return Err(data_error(path, Some(line), message));
        }
        scalar => scalar.to_string(),
    };
    if label.is_empty() {
        return Err(no_label(path, line));
    }
    Ok(Row { line, text: string(columns.text())?, pair, label })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
