//! Pictures beside the rows of a language model: each row names one, which stands before its text.

use std::path::Path;

use serde_json::{Map, Value};

use super::objects::{Kind, Objects};
use crate::data::bytes::Limits;
use crate::data::dataset::Dataset;
use crate::data::files::Files;
use crate::data::pictures::list::{Listed, PATHS, list_named, no_picture};
use crate::data::row::{Columns, Labels, data_error};
use crate::data::source::Source;
use crate::data::writer::Writer;
use crate::{Error, Result};

/// The pictures of a source's rows, by their lines.
///
/// # Errors
/// Where the file has no rows or one has no picture, and whatever is wrong with a picture.
pub(super) fn list(source: &Source<'_>, path: &Path) -> Result<Listed> {
    let (mut rows, mut column) = (rows_of(source, path)?, None);
    let mut named = Vec::new();
    while let Some((line, row)) = rows.next_row()? {
        let column = match &column {
            Some(column) => column,
            None => column.insert(column_of(&row, &source.form.columns).ok_or_else(|| no_column(path, line))?),
        };
        named.push((line, path_in(path, line, &row, column)?));
    }
    if named.is_empty() {
        return Err(data_error(path, None, "is empty").with_help("it needs at least one row with a picture and a text"));
    }
    list_named(source, path, named)
}

/// The pictures that the rows of a file name, as examples without texts, whose places are the rows' lines; `None` where no column names some,
/// and where there are no rows.
///
/// # Errors
/// As [`load`](crate::data::load).
pub fn pictures_beside(source: &Source<'_>) -> Result<Option<Dataset>> {
    let (Files::One(path), Some(images)) = (source.files, source.images()) else { return Ok(None) };
    let Kind::Rows(mut rows) = Kind::open(path, source.form)? else { return Ok(None) };
    let first = rows.next_row()?;
    if first.is_none_or(|(_, row)| column_of(&row, &source.form.columns).is_none()) {
        return Ok(None);
    }
    let Listed { pictures, rows, notes, .. } = list(source, path)?;
    let mut writer = Writer::of_pictures(source, Labels::Unread, Limits::from_environment());
    for row in rows {
        writer.push_picture(path, row, images.tokens)?;
    }
    Ok(Some(writer.finish(notes)?.into_dataset(source, Some(pictures))))
}

fn rows_of(source: &Source<'_>, path: &Path) -> Result<Objects> {
    match Kind::open(path, source.form)? {
        Kind::Rows(rows) => Ok(rows),
        Kind::Text(_) => Err(data_error(path, None, "is a text, and each example is a picture with its text")
            .with_help("name a .jsonl, .csv, .tsv or .parquet file with a column of texts and one of pictures' paths, or say stream = \"text\" in the task")),
    }
}

/// The column of pictures: the one that the task names, else one that names them usually.
fn column_of(first: &Map<String, Value>, columns: &Columns) -> Option<String> {
    match &columns.image {
        Some(named) => Some(named.clone()).filter(|name| first.contains_key(name)),
        None => PATHS.into_iter().find(|name| first.contains_key(*name)).map(str::to_owned),
    }
}

fn no_column(path: &Path, line: u64) -> Error {
    data_error(path, Some(line), "this row names no picture, and the model sees one before each text").with_help(
        "name the column of pictures' paths: columns = { image = \"...\" }; or say stream = \"text\" in the task, for texts alone",
    )
}

fn path_in(path: &Path, line: u64, row: &Map<String, Value>, column: &str) -> Result<String> {
    match row.get(column) {
        None | Some(Value::Null) => Err(no_picture(path, line, column)),
        Some(Value::String(name)) if name.trim().is_empty() => Err(no_picture(path, line, column)),
        Some(Value::String(name)) => Ok(name.clone()),
        Some(_) => Err(data_error(path, Some(line), format!("`{column}` must be the path of a picture"))
            .with_help("write pictures as files, and name them relative to the table")),
    }
}
