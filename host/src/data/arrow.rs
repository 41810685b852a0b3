//! Rows of Arrow's IPC files and streams, batch after batch, and of the folders that Hugging Face's `datasets` saves.
//!
//! A label that `datasets` knows as a ClassLabel is a number in the file; it is read as its name, which stands in `dataset_info.json` or
//! in the file's own metadata.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use fthost_images::guarded;
use serde_json::Value;

use super::form::Encoding;
use super::input::{Bytes, Input};
use super::row::{Columns, Labels, Row, data_error, list, no_label, shortened, word_row};
use crate::{Error, Result};

/// How an Arrow file begins, and how a stream does.
pub(super) const FILE: &[u8] = b"ARROW1";
pub(super) const STREAM: &[u8] = &[0xff; 4];

enum Batches {
    File(Box<FileReader<BufReader<File>>>),
    Stream(Box<StreamReader<BufReader<Bytes>>>),
}

impl Batches {
    fn next_batch(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }
}

/// The rows of an Arrow file.
struct ArrowRows {
    batches: Batches,
    labels: Labels,
    /// The names of the label's classes.
    names: Option<Vec<String>>,
    /// Places of the columns in a batch.
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
    extra: Vec<Option<usize>>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    number: u64,
}

impl ArrowRows {
    /// Opens a file or a stream. `features` are what `datasets` says of the columns, where it is not in the file.
    fn open(input: Input, path: &Path, columns: &Columns, labels: Labels, features: Option<&Value>) -> Result<Self> {
        let unreadable = |error: ArrowError| unreadable(path, None, &error);
        let batches = if input.sample().starts_with(FILE) {
            let file = BufReader::new(input.into_file(path)?);
            Batches::File(Box::new(guard(|| FileReader::try_new(file, None)).map_err(unreadable)?))
        } else {
            let bytes = BufReader::new(input.into_reader());
            Batches::Stream(Box::new(guard(|| StreamReader::try_new(bytes, None)).map_err(unreadable)?))
        };
        let schema: SchemaRef = match &batches {
            Batches::File(reader) => reader.schema(),
            Batches::Stream(reader) => reader.schema(),
        };
        let find = |name: &str| schema.fields().iter().position(|field| field.name() == name);
        let need = |name: &str| {
            find(name).ok_or_else(|| {
                let there = list(schema.fields().iter().take(20).map(|field| shortened(field.name())));
                data_error(path, None, format!("there is no column `{name}`; the file has {there}"))
                    .with_help("name the columns in the run file: columns = { text = \"...\", label = \"...\" }")
            })
        };
        let pair = match &columns.text_pair {
            Some(name) => Some(need(name)?),
            None => find(columns.text_pair()),
        };
        let extra = columns.extra(labels).map(|(role, name)| match role.needed(labels) {
            true => need(name).map(Some),
            false => Ok(find(name)),
        });
        let own = schema.metadata().get("huggingface").and_then(|text| serde_json::from_str::<Value>(text).ok());
        let own = own.as_ref().map(|own| &own["info"]["features"]);
        Ok(Self {
            names: features.or(own).and_then(|features| class_names(&features[columns.label()])),
            text: need(columns.text())?,
            pair,
            label: if labels == Labels::Read { Some(need(columns.label())?) } else { None },
            extra: extra.collect::<Result<_>>()?,
            batches,
            labels,
            batch: None,
            next: 0,
            number: 0,
        })
    }

    fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        while self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows()) {
            let next = guard(|| self.batches.next_batch().transpose());
            let next = next.map_err(|error| unreadable(path, Some(self.number + 1), &error))?;
            let Some(batch) = next else { return Ok(None) };
            (self.batch, self.next) = (Some(batch), 0);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let row = self.next;
        self.next += 1;
        self.number += 1;
        let line = self.number;
        let cell = |place: usize| {
            let name = batch.schema().field(place).name().clone();
            let found = guard(|| Ok(cell(batch.column(place), row)));
            let found = found.map_err(|error| unreadable(path, Some(line), &error))?;
            Ok::<_, Error>((name, found))
        };
        let wrong = |name: &str, cell: &Cell, wanted: &str| {
            data_error(path, Some(line), format!("`{name}` is {}; it must be {wanted}", cell.kind()))
        };
        let string = |name: &str, cell: Cell| match cell {
            Cell::Text(text) => Ok(text),
            other => Err(wrong(name, &other, "a string")),
        };
        let scalar = |name: &str, cell: Cell| match cell {
            Cell::Null => Ok(String::new()),
            Cell::Text(text) => Ok(text.trim().to_owned()),
            Cell::Number(text) => Ok(text),
            other => Err(wrong(name, &other, "a string, a number or a boolean")),
        };
        let named = |label: String| match &self.names {
            None => Ok(label),
            Some(names) => match label.parse::<i64>() {
                Ok(-1) => Ok(String::new()),
                Ok(number) => {
                    usize::try_from(number).ok().and_then(|number| names.get(number)).cloned().ok_or_else(|| {
                        data_error(
                            path,
                            Some(line),
                            format!("there is no class {number}: the data set names {}", names.len()),
                        )
                        .with_help("check that dataset_info.json belongs to these files")
                    })
                }
                Err(_) => Ok(label),
            },
        };
        let extra = |place: &Option<usize>| match place {
            Some(place) => cell(*place).and_then(|(name, cell)| scalar(&name, cell)),
            None => Ok(String::new()),
        };
        let extra: Vec<String> = self.extra.iter().map(extra).collect::<Result<_>>()?;
        let (name, text) = cell(self.text)?;
        if let Cell::List(words) = text {
            let words = words.into_iter().map(|word| string(&name, word)).collect::<Result<_>>()?;
            let labels = match self.label.map(cell).transpose()? {
                None => None,
                Some((name, Cell::List(labels))) => {
                    let label = |label| scalar(&name, label).and_then(&named);
                    Some(labels.into_iter().map(label).collect::<Result<_>>()?)
                }
                Some((name, other)) => return Err(wrong(&name, &other, "a list, as the words are")),
            };
            return Ok(Some(Row { extra, ..word_row(path, line, columns, words, labels)? }));
        }
        let text = string(&name, text)?;
        let label = |name: &str, cell: Cell| scalar(name, cell).and_then(&named);
        let (label, labels) = match self.label.map(cell).transpose()? {
            None => (String::new(), None),
            Some((name, Cell::List(labels))) => {
                let labels = labels.into_iter().map(|one| label(&name, one));
                (String::new(), Some(labels.collect::<Result<_>>()?))
            }
            Some((name, cell)) => (label(&name, cell)?, None),
        };
        if self.labels == Labels::Read && label.is_empty() && labels.is_none() {
            return Err(no_label(path, line));
        }
        let pair = self.pair.map(|place| cell(place).and_then(|(name, cell)| string(&name, cell))).transpose()?;
        Ok(Some(Row { line, text, pair, label, labels, words: None, extra }))
    }
}

/// What stands in a column of a row.
enum Cell {
    Null,
    Text(String),
    Number(String),
    List(Vec<Cell>),
    /// What no column that is read may have: dates, structures.
    Other(DataType),
}

impl Cell {
    fn kind(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Text(_) => "a string".into(),
            Self::Number(_) => "a number or a boolean".into(),
            Self::List(_) => "a list".into(),
            Self::Other(kind) => format!("of the type {kind}"),
        }
    }
}

fn cell(column: &ArrayRef, row: usize) -> Cell {
    macro_rules! number {
        ($kind:ty) => {
            // Floats are written as in JSON, with their point: 1.0.
            Cell::Number(format!("{:?}", column.as_primitive::<$kind>().value(row)))
        };
    }
    if column.is_null(row) {
        return Cell::Null;
    }
    let all = |values: ArrayRef| Cell::List((0..values.len()).map(|place| cell(&values, place)).collect());
    match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Cell::Text(column.as_string_view().value(row).to_owned()),
        DataType::Boolean => Cell::Number(column.as_boolean().value(row).to_string()),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::List(_) => all(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => all(column.as_list::<i64>().value(row)),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            match dictionary.normalized_keys().get(row) {
                Some(&key) if key < dictionary.values().len() => cell(dictionary.values(), key),
                _ => Cell::Null,
            }
        }
        other => Cell::Other(other.clone()),
    }
}

/// The names of a column's classes by what `datasets` says of it: a ClassLabel, or a list of them.
fn class_names(feature: &Value) -> Option<Vec<String>> {
    if feature["_type"] == "ClassLabel" {
        return serde_json::from_value(feature["names"].clone()).ok();
    }
    [&feature["feature"], &feature[0]].into_iter().find(|inner| inner.is_object()).and_then(class_names)
}

/// The crate answers some damaged files with a panic. Nothing is read from it after that.
fn guard<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    guarded(read).unwrap_or_else(|| Err(ArrowError::IpcError("the file is damaged".into())))
}

fn unreadable(path: &Path, row: Option<u64>, error: &ArrowError) -> Error {
    let short: String = error.to_string().chars().take(200).collect();
    data_error(path, row, format!("cannot be read as Arrow: {short}"))
        .with_help("check that it was written completely, for instance by reading it with the program that wrote it")
}

/// A folder that `datasets` saved: its files in their order, and what its columns are.
pub(super) struct Saved {
    folder: PathBuf,
    files: Vec<PathBuf>,
    features: Value,
}

/// What is in such a folder besides its files.
const STATE: &str = "state.json";
const INFO: &str = "dataset_info.json";
const SPLITS: &str = "dataset_dict.json";

impl Saved {
    /// Whether a folder says of itself that `datasets` saved it.
    pub(super) fn is(folder: &Path) -> bool {
        [STATE, SPLITS].iter().any(|name| folder.join(name).is_file())
    }

    /// Reads what a folder says of itself.
    ///
    /// # Errors
    /// Where it is none that `datasets.save_to_disk` wrote, or holds several data sets.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let wrong = |message: String, help: String| Err(data_error(folder, None, message).with_help(help));
        if let Some(splits) = json(&folder.join(SPLITS))? {
            let splits: Vec<&str> =
                splits["splits"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let first = splits.first().copied().unwrap_or("train");
            return wrong(
                format!("holds several data sets: {}", list(splits.iter().copied())),
                format!("name one of them: {}", folder.join(first).display()),
            );
        }
        let Some(state) = json(&folder.join(STATE))? else {
            return wrong(
                "is a folder, and no data set that `datasets` saved".into(),
                format!("name one file in it; {}", super::form::FORMATS),
            );
        };
        if state["_indices_data_files"].as_array().is_some_and(|files| !files.is_empty()) {
            return wrong(
                "has its rows in an order that another file says, as old versions of `datasets` save it".into(),
                "save it again by flatten_indices() and save_to_disk()".into(),
            );
        }
        let names = state["_data_files"].as_array().into_iter().flatten();
        let files: Vec<PathBuf> =
            names.filter_map(|file| file["filename"].as_str()).map(|name| folder.join(name)).collect();
        if files.is_empty() {
            return wrong(format!("{STATE} names no data file"), "save the data set again by save_to_disk()".into());
        }
        let features = json(&folder.join(INFO))?.unwrap_or_default()["features"].take();
        Ok(Self { folder: folder.to_owned(), files, features })
    }
}

/// A JSON file; `None` where it is not there.
fn json(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(data_error(path, None, format!("cannot be read: {error}"))),
    };
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|error| data_error(path, None, format!("is no JSON: {error}")))
}

impl Saved {
    /// Every file that is read.
    pub(super) fn all(self) -> Vec<PathBuf> {
        let folder = self.folder;
        let told = [STATE, INFO].map(|name| folder.join(name));
        self.files.into_iter().chain(told.into_iter().filter(|path| path.is_file())).collect()
    }
}

/// The rows of such a folder, or of one file.
pub(super) struct ArrowFiles {
    current: ArrowRows,
    later: std::vec::IntoIter<PathBuf>,
    features: Value,
}

impl ArrowFiles {
    /// The rows of a folder that `datasets` saved.
    pub(super) fn of_folder(folder: &Path, columns: &Columns, labels: Labels) -> Result<Self> {
        let Saved { files, features, .. } = Saved::read(folder)?;
        let mut later = files.into_iter();
        let first = later.next().unwrap_or_default();
        let current = ArrowRows::open(Input::open(&first, Encoding::Utf8)?, &first, columns, labels, Some(&features))?;
        Ok(Self { current, later, features })
    }

    /// The rows of a file.
    pub(super) fn of_file(input: Input, path: &Path, columns: &Columns, labels: Labels) -> Result<Self> {
        let current = ArrowRows::open(input, path, columns, labels, None)?;
        Ok(Self { current, later: Vec::new().into_iter(), features: Value::Null })
    }

    /// The next row; rows are numbered through all files.
    pub(super) fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.current.next_row(path, columns)? {
                return Ok(Some(row));
            }
            let Some(next) = self.later.next() else { return Ok(None) };
            let (number, labels) = (self.current.number, self.current.labels);
            let input = Input::open(&next, Encoding::Utf8)?;
            self.current = ArrowRows::open(input, &next, columns, labels, Some(&self.features))?;
            self.current.number = number;
        }
    }
}
