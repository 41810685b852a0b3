//! Rows of a file as objects, whatever the file is: JSONL, JSON, tables with names, Parquet.

use std::path::{Path, PathBuf};

use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::record::Field;
use ::parquet::record::reader::RowIter;
use serde_json::{Map, Value};

use crate::Result;
use crate::data::csv::CsvRows;
use crate::data::elements::Elements;
use crate::data::form::{Dialect, Form, Format};
use crate::data::input::Input;
use crate::data::lines::Lines;
use crate::data::parquet::{guarded, unreadable};
use crate::data::recognise;
use crate::data::row::data_error;
use crate::data::table::unquoted;

/// The rows of a file, one after the other.
pub(super) struct Objects {
    path: PathBuf,
    rows: Rows,
}

enum Rows {
    Lines(Lines),
    Array(Elements),
    Csv(Box<CsvRows>, Vec<String>),
    Tsv(Lines, Vec<String>),
    Parquet(RowIter<'static>, u64),
}

/// What a file is: rows, or one text.
pub(super) enum Kind {
    /// Objects, or cells with names.
    Rows(Objects),
    /// A text of any length.
    Text(Lines),
}

impl Kind {
    /// Opens a file, by what the run file says it is, by its name, or else as a text.
    ///
    /// # Errors
    /// Where it cannot be read, or is of a kind that holds no such rows.
    pub(super) fn open(path: &Path, form: &Form) -> Result<Self> {
        let input = Input::open(path, form.encoding)?;
        let format = form.format.or_else(|| recognise::by_name(path));
        let rows = match format {
            Some(Format::Jsonl) => Rows::Lines(Lines::new(input.into_reader())),
            Some(Format::Json) => Rows::Array(Elements::new(input.into_reader())),
            Some(Format::Csv) => {
                let mut rows = CsvRows::new(input.into_reader(), Dialect::CSV);
                let names = names(path, rows.next_row(path)?)?;
                Rows::Csv(Box::new(rows), names)
            }
            Some(Format::Tsv) => {
                let mut lines = Lines::new(input.into_reader());
                let names = names(path, unquoted(&mut lines, path, Dialect::TSV)?)?;
                Rows::Tsv(lines, names)
            }
            Some(Format::Parquet) => {
                let file = input.into_file(path)?;
                let reader =
                    guarded(|| SerializedFileReader::new(file)).map_err(|error| unreadable(path, None, &error))?;
                Rows::Parquet(RowIter::from_file_into(Box::new(reader)), 0)
            }
            Some(Format::Lines) | None => return Ok(Self::Text(Lines::new(input.into_reader()))),
            Some(Format::Arrow | Format::Conll) => {
                return Err(data_error(path, None, "holds no rows for a language model")
                    .with_help("take .jsonl, .json, .parquet, .csv, .tsv with names in the first row, or .txt"));
            }
        };
        Ok(Self::Rows(Objects { path: path.to_owned(), rows }))
    }
}

/// The names in a table's first row.
fn names(path: &Path, first: Option<(u64, Vec<String>)>) -> Result<Vec<String>> {
    first
        .map(|(_, names)| names.into_iter().map(|name| name.trim().to_owned()).collect())
        .ok_or_else(|| data_error(path, None, "is empty"))
}

impl Objects {
    /// The next rows with their lines, so many at most; none at the end.
    ///
    /// # Errors
    /// As [`next_row`](Self::next_row).
    pub(super) fn next_rows(&mut self, most: usize) -> Result<Vec<(u64, Map<String, Value>)>> {
        let mut rows = Vec::new();
        while rows.len() < most {
            match self.next_row()? {
                Some(row) => rows.push(row),
                None => break,
            }
        }
        Ok(rows)
    }

    /// The next row and its line, or in Parquet its number.
    ///
    /// # Errors
    /// Where it is no object.
    pub(super) fn next_row(&mut self) -> Result<Option<(u64, Map<String, Value>)>> {
        let path = &self.path;
        match &mut self.rows {
            Rows::Lines(lines) => match lines.next_line(path)? {
                Some((line, text)) => object(path, line, text).map(|row| Some((line, row))),
                None => Ok(None),
            },
            Rows::Array(elements) => match elements.next_element(path)? {
                Some((line, text)) => object(path, line, &text).map(|row| Some((line, row))),
                None => Ok(None),
            },
            Rows::Csv(rows, names) => cells(path, rows.next_row(path)?, names),
            Rows::Tsv(lines, names) => cells(path, unquoted(lines, path, Dialect::TSV)?, names),
            Rows::Parquet(rows, number) => {
                *number += 1;
                let row =
                    guarded(|| rows.next().transpose()).map_err(|error| unreadable(path, Some(*number), &error))?;
                let Some(row) = row else { return Ok(None) };
                let values = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
                Ok(Some((*number, values.collect())))
            }
        }
    }
}

fn object(path: &Path, line: u64, text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let why = message.split(" at line ").next().unwrap_or_default();
        data_error(path, Some(line), format!("this is no JSON object: {why} (column {})", error.column()))
            .with_help("a row is one object: {\"prompt\": \"...\", \"completion\": \"...\"}")
    })
}

fn cells(path: &Path, row: Option<(u64, Vec<String>)>, names: &[String]) -> Result<Option<(u64, Map<String, Value>)>> {
    let Some((line, cells)) = row else { return Ok(None) };
    if cells.len() != names.len() {
        let message = format!("this row has {} cells, and the first row names {}", cells.len(), names.len());
        return Err(data_error(path, Some(line), message)
            .with_help("put texts with separators in quotes, or write the file as .jsonl"));
    }
    Ok(Some((line, names.iter().cloned().zip(cells.into_iter().map(Value::from)).collect())))
}

/// A field of Parquet as JSON has it; what JSON has no word for is null.
fn value(field: &Field) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(group) => {
            group.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>().into()
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Vec<_>>().into(),
        _ => Value::Null,
    }
}
