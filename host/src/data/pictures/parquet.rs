//! Pictures in Parquet as `datasets` publishes them: a column of groups with `bytes` and `path`, or a column of bytes.
//!
//! The file's pages are compressed, so that no picture can be read from its place: the bytes go to a file without a name, once.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use ::parquet::file::reader::FileReader;
use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::record::Field;
use ::parquet::record::reader::RowIter;
use ::parquet::schema::types::{Type, TypePtr};
use fthost_images::source::{Item, Source as Places};

use crate::data::bytes::{cache_folder, unnamed_file};
use crate::data::parquet::{guarded, unreadable};
use crate::data::row::{Columns, Labels, Row, data_error, no_label};
use crate::{Error, Result};

/// Columns that hold pictures, the most usual first.
const PICTURES: [&str; 4] = ["image", "img", "picture", "photo"];

/// The column of pictures, where a file has one whose cells are pictures and no paths.
fn column_of_pictures<'a>(columns: &Columns, there: &'a [TypePtr]) -> Option<&'a TypePtr> {
    let named = |name: &str| there.iter().find(|column| column.name() == name);
    let found = match &columns.text {
        Some(name) => named(name),
        None => PICTURES.iter().find_map(|name| named(name)),
    }?;
    let is_bytes = |of: &Type| {
        of.is_primitive()
            && of.get_physical_type() == Physical::BYTE_ARRAY
            && of.get_basic_info().converted_type() != ConvertedType::UTF8
            && of.get_basic_info().logical_type_ref() != Some(&LogicalType::String)
    };
    let in_group =
        !found.is_primitive() && found.get_fields().iter().any(|inner| inner.name() == "bytes" && is_bytes(inner));
    (in_group || is_bytes(found)).then_some(found)
}

/// Pictures and the row of each; `None` where the file holds none, but perhaps their paths.
pub(super) fn list(path: &Path, columns: &Columns, labels: Labels) -> Result<Option<(Places, Vec<Row>)>> {
    let failed = |error: ::parquet::errors::ParquetError| unreadable(path, None, &error);
    let file = File::open(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let Ok(reader) = guarded(|| SerializedFileReader::new(file)) else { return Ok(None) };
    let schema = reader.metadata().file_metadata().schema();
    let there = schema.get_fields();
    let Some(pictures) = column_of_pictures(columns, there) else { return Ok(None) };
    let (pictures, label) = (pictures.name().to_owned(), columns.label().to_owned());
    let extra: Vec<&str> = columns.extra(labels).map(|(_, name)| name).collect();
    let mut wanted = Vec::new();
    for name in [pictures.as_str()]
        .into_iter()
        .chain((labels == Labels::Read).then_some(label.as_str()))
        .chain(extra.iter().copied())
    {
        let column = there.iter().find(|column| column.name() == name);
        let names = || there.iter().map(|column| format!("`{}`", column.name())).collect::<Vec<_>>().join(", ");
        let column = column.ok_or_else(|| {
            data_error(path, None, format!("there is no column `{name}`; the file has {}", names()))
                .with_help("name the columns in the run file: columns = { image = \"...\", label = \"...\" }")
        })?;
        wanted.push(Arc::clone(column));
    }
    wanted.sort_by_key(|column| column.name().to_owned());
    wanted.dedup_by_key(|column| column.name().to_owned());
    let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(failed)?;
    let mut read = RowIter::from_file_into(Box::new(reader)).project(Some(wanted)).map_err(failed)?;

    let (mut kept, mut ranges, mut rows, mut end) = (Kept::new()?, Vec::new(), Vec::new(), 0);
    loop {
        let line = rows.len() as u64 + 1;
        let row = guarded(|| read.next().transpose()).map_err(|error| unreadable(path, Some(line), &error))?;
        let Some(row) = row else { break };
        let get = |name: &str| row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field);
        let (bytes, name) = match get(&pictures) {
            Some(Field::Bytes(bytes)) => (Some(bytes.data()), None),
            Some(Field::Group(group)) => {
                let inner =
                    |name: &str| group.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field);
                let bytes = if let Some(Field::Bytes(bytes)) = inner("bytes") { Some(bytes.data()) } else { None };
                (bytes, inner("path").and_then(text))
            }
            _ => (None, None),
        };
        let Some(bytes) = bytes else {
            return Err(data_error(path, Some(line), format!("`{pictures}` holds no picture"))
                .with_help("remove the row, or write the pictures' bytes into the file"));
        };
        let cell = |name: &str| {
            text_or_number(get(name))
                .ok_or_else(|| data_error(path, Some(line), format!("`{name}` is no text and no number")))
        };
        let mut new = Row { line, text: name.unwrap_or_else(|| format!("{line}")), ..Row::default() };
        if labels == Labels::Read {
            match get(&label) {
                Some(Field::ListInternal(list)) => {
                    let each = list.elements().iter().map(|field| text_or_number(Some(field)));
                    let each = each.collect::<Option<Vec<String>>>();
                    new.labels =
                        Some(each.ok_or_else(|| data_error(path, Some(line), format!("`{label}` is nested")))?);
                }
                _ => {
                    new.label = cell(&label)?;
                    if new.label.is_empty() {
                        return Err(no_label(path, line));
                    }
                }
            }
        }
        new.extra = extra.iter().map(|name| cell(name)).collect::<Result<_>>()?;
        kept.write(bytes)?;
        ranges.push((format!("{}:{line}", path.display()), end, bytes.len() as u64));
        end += bytes.len() as u64;
        rows.push(new);
    }
    let file = kept.finish()?;
    let item = |(name, offset, length)| Item::range(name, Arc::clone(&file), offset, length);
    Ok(Some((ranges.into_iter().map(item).collect(), rows)))
}

fn text(field: &Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text.clone()),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok().map(str::to_owned),
        _ => None,
    }
}

/// A cell that is no list and no group; nothing where it is null.
fn text_or_number(field: Option<&Field>) -> Option<String> {
    match field {
        None | Some(Field::Null) => Some(String::new()),
        Some(field @ (Field::Str(_) | Field::Bytes(_))) => text(field).map(|text| text.trim().to_owned()),
        Some(Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_)) => None,
        Some(number) => Some(number.to_string()),
    }
}

/// Where the bytes go.
struct Kept(BufWriter<File>);

impl Kept {
    fn new() -> Result<Self> {
        let folder = cache_folder();
        Ok(Self(BufWriter::new(unnamed_file(&folder).map_err(failed(&folder))?)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed(&cache_folder()))
    }

    fn finish(self) -> Result<Arc<File>> {
        let file = self.0.into_inner().map_err(|error| failed(&cache_folder())(error.into_error()))?;
        Ok(Arc::new(file))
    }
}

fn failed(folder: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(format!("cannot keep the pictures of a Parquet file in {}", folder.display()))
}
