//! Rows of a Parquet file, row group after row group. Only the wanted columns are read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{ConvertedType, Repetition};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::FileReader;
use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::record::Field;
use ::parquet::record::reader::RowIter;
use ::parquet::schema::types::{Type, TypePtr};

use super::row::{Columns, Labels, Role, Row, data_error, list, no_label, shortened, word_row};
use crate::{Error, Result};

/// The rows of a Parquet file.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    text: String,
    pair: Option<String>,
    /// The label's column, where it is read.
    label: Option<String>,
    /// The columns besides that are there.
    extra: Vec<Option<String>>,
    /// Whether texts are lists of words.
    words: bool,
    /// Rows read.
    number: u64,
}

impl std::fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRows").field("number", &self.number).finish_non_exhaustive()
    }
}

impl ParquetRows {
    /// Reads the file's schema and finds the columns.
    pub(super) fn open(file: File, path: &Path, columns: &Columns, labels: Labels) -> Result<Self> {
        let unreadable = |error: ParquetError| unreadable(path, None, &error);
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(unreadable)?;
        let schema = reader.metadata().file_metadata().schema();
        let there = schema.get_fields();
        let find = |name: &str| there.iter().find(|field| field.name() == name);
        let column = |name: &str| {
            let column = find(name).ok_or_else(|| missing(path, name, there))?;
            let plain = column.is_primitive() && column.get_basic_info().repetition() != Repetition::REPEATED;
            if !plain && !is_list(column) {
                let message = format!("the column `{name}` is nested; it must be of plain values, or of lists of them");
                return Err(data_error(path, None, message));
            }
            Ok(Arc::clone(column))
        };
        let (text, pair) = (columns.text(), columns.text_pair());
        let words = find(text).is_some_and(is_list);
        let label = (labels == Labels::Read).then(|| columns.label());
        let pair = (columns.text_pair.is_some() || find(pair).is_some()).then_some(pair);
        let needed = |role: Role, name: &str| role.needed(labels) || find(name).is_some();
        let extra: Vec<Option<&str>> =
            columns.extra(labels).map(|(role, name)| needed(role, name).then_some(name)).collect();
        let all = [Some(text), label, pair].into_iter().chain(extra.iter().copied()).flatten();
        let mut wanted = all.map(column).collect::<Result<Vec<_>>>()?;
        wanted.sort_by_key(|column| column.name().to_owned());
        wanted.dedup_by_key(|column| column.name().to_owned());
        let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(unreadable)?;
        let (text, pair, label) = (text.to_owned(), pair.map(str::to_owned), label.map(str::to_owned));
        let extra = extra.into_iter().map(|name| name.map(str::to_owned)).collect();
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(wanted)).map_err(unreadable)?;
        Ok(Self { rows, text, pair, label, extra, words, number: 0 })
    }

    pub(super) fn next_row(&mut self, path: &Path, columns: &Columns) -> Result<Option<Row>> {
        self.number += 1;
        let line = self.number;
        let row = guarded(|| self.rows.next().transpose()).map_err(|error| unreadable(path, Some(line), &error))?;
        let Some(row) = row else { return Ok(None) };
        let get = |name: &str| row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field);
        let wrong = |name: &str, field: Option<&Field>, wanted: &str| {
            data_error(path, Some(line), format!("`{name}` is {}; it must be {wanted}", kind(field)))
        };
        let string = |name: &str, field: Option<&Field>| match field {
            Some(Field::Str(text)) => Ok(text.clone()),
            // Some programs write strings without saying so.
            Some(Field::Bytes(bytes)) => match std::str::from_utf8(bytes.data()) {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(data_error(path, Some(line), format!("`{name}` is not valid UTF-8"))),
            },
            field => Err(wrong(name, field, "a string")),
        };
        // Floats are written as in JSON, with their point: 1.0.
        let scalar = |name: &str, field: Option<&Field>| {
            Ok(match field {
                Some(Field::Null) => String::new(),
                Some(Field::Str(_) | Field::Bytes(_)) => string(name, field)?.trim().to_owned(),
                Some(Field::Bool(value)) => value.to_string(),
                Some(Field::Byte(value)) => value.to_string(),
                Some(Field::Short(value)) => value.to_string(),
                Some(Field::Int(value)) => value.to_string(),
                Some(Field::Long(value)) => value.to_string(),
                Some(Field::UByte(value)) => value.to_string(),
                Some(Field::UShort(value)) => value.to_string(),
                Some(Field::UInt(value)) => value.to_string(),
                Some(Field::ULong(value)) => value.to_string(),
                Some(Field::Float16(value)) => format!("{:?}", value.to_f32()),
                Some(Field::Float(value)) => format!("{value:?}"),
                Some(Field::Double(value)) => format!("{value:?}"),
                field => return Err(wrong(name, field, "a string, a number or a boolean")),
            })
        };
        let list = |name: &str| match get(name) {
            Some(Field::ListInternal(list)) => Ok(list.elements()),
            field => Err(wrong(name, field, "a list, as the words are")),
        };
        let one = |name: &Option<String>| name.as_deref().map_or(Ok(String::new()), |name| scalar(name, get(name)));
        let extra = self.extra.iter().map(one).collect::<Result<_>>()?;
        if self.words {
            let words = list(&self.text)?.iter().map(|word| string(&self.text, Some(word))).collect::<Result<_>>()?;
            let of_row = |name: &str| list(name)?.iter().map(|label| scalar(name, Some(label))).collect();
            let labels = self.label.as_deref().map(of_row).transpose()?;
            return Ok(Some(Row { extra, ..word_row(path, line, columns, words, labels)? }));
        }
        let field = self.label.as_deref().map(|name| (name, get(name)));
        let (label, labels) = match field {
            None => (None, None),
            Some((name, Some(Field::ListInternal(list)))) => {
                let labels = list.elements().iter().map(|label| scalar(name, Some(label)));
                (None, Some(labels.collect::<Result<_>>()?))
            }
            Some((name, field)) => (Some(scalar(name, field)?), None),
        };
        if label.as_ref().is_some_and(String::is_empty) {
            return Err(no_label(path, line));
        }
        let pair = self.pair.as_deref().map(|name| string(name, get(name))).transpose()?;
        let text = string(&self.text, get(&self.text))?;
        Ok(Some(Row { line, text, pair, label: label.unwrap_or_default(), labels, words: None, extra }))
    }
}

/// Whether a column holds lists, as the reader takes them for such.
fn is_list(column: &TypePtr) -> bool {
    !column.is_primitive() && column.get_basic_info().converted_type() == ConvertedType::LIST
}

/// The `parquet` crate answers some damaged files with a panic. Nothing is read from it after that.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    fthost_images::guarded(read).unwrap_or_else(|| Err(ParquetError::General("the file is damaged".into())))
}

/// What a value is, for messages.
fn kind(field: Option<&Field>) -> &'static str {
    match field {
        None | Some(Field::Null) => "null",
        Some(Field::Bool(_)) => "a boolean",
        Some(Field::Str(_) | Field::Bytes(_)) => "a string",
        Some(Field::Decimal(_)) => "a decimal number",
        Some(Field::Date(_) | Field::TimeMillis(_) | Field::TimeMicros(_)) => "a date or time",
        Some(Field::TimestampMillis(_) | Field::TimestampMicros(_)) => "a date or time",
        Some(Field::ListInternal(_)) => "a list",
        Some(Field::Group(_) | Field::MapInternal(_)) => "nested",
        Some(_) => "a number",
    }
}

fn missing(path: &Path, name: &str, there: &[TypePtr]) -> Error {
    let there = list(there.iter().take(20).map(|field| shortened(field.name())));
    data_error(path, None, format!("there is no column `{name}`; the file has {there}"))
        .with_help("name the columns in the run file: columns = { text = \"...\", label = \"...\" }")
}

pub(super) fn unreadable(path: &Path, row: Option<u64>, error: &ParquetError) -> Error {
    let error = error.to_string();
    let short: String = error.chars().take(200).collect();
    let help = if error.contains("Disabled feature") {
        "its compression is not supported: write it with Snappy, Zstandard or none"
    } else {
        "check that it was written completely, for instance by reading it with the program that wrote it"
    };
    data_error(path, row, format!("cannot be read as Parquet: {short}")).with_help(help)
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
