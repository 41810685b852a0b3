//! What a file is: by what the run file says, by its name, and by its content where these do not tell.

use std::collections::BTreeSet;
use std::path::Path;

use super::conll;
use super::csv::CsvRows;
use super::form::{Dialect, Form, Format, Quote, named};
use super::input::Input;
use super::row::{Columns, Labels};
use super::{arrow, distinct};

const SEPARATORS: [u8; 4] = [b'\t', b';', b',', b'|'];
const PARQUET: &[u8] = b"PAR1";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Cells in lines.
    Table(Dialect),
    Jsonl,
    Json,
    Parquet,
    Arrow,
    Conll,
    Lines,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recognised {
    pub(super) kind: Kind,
    /// Sentences about what the name does not say.
    pub(super) notes: Vec<String>,
    /// Whether the label stands in the first of two columns.
    pub(super) label_first: bool,
}

/// The extension that tells a format, in lower case: that before .gz or .zst.
pub(super) fn extension(path: &Path) -> String {
    let of = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match of(path).as_str() {
        "gz" | "gzip" | "zst" | "zstd" => of(Path::new(path.file_stem().unwrap_or_default())),
        other => other.to_owned(),
    }
}

/// What a file is by its name.
pub(super) fn by_name(path: &Path) -> Option<Format> {
    Some(match extension(path).as_str() {
        "tsv" => Format::Tsv,
        "csv" => Format::Csv,
        "jsonl" | "ndjson" => Format::Jsonl,
        "json" => Format::Json,
        "parquet" => Format::Parquet,
        "arrow" => Format::Arrow,
        "conll" | "conllu" | "iob" | "iob2" | "bio" | "bioes" | "bilou" => Format::Conll,
        _ => return None,
    })
}

/// What a file is. `known` are the classes of the training data, where they are known.
pub(super) fn recognise(
    input: &Input,
    path: &Path,
    form: &Form,
    labels: Labels,
    known: Option<&[String]>,
) -> Recognised {
    let sample = input.sample();
    let text = text(sample);
    let format = form.format.or_else(|| by_name(path));
    let kind = |kind: Kind| Recognised { kind, notes: Vec::new(), label_first: false };
    let said =
        |found: Kind, what: &str| Recognised { notes: vec![format!("{}: {what}", file_name(path))], ..kind(found) };
    let first = text.trim_start_matches('\u{feff}').trim_start();
    match format {
        Some(Format::Parquet) => kind(Kind::Parquet),
        Some(Format::Arrow) => kind(Kind::Arrow),
        Some(Format::Conll) => kind(Kind::Conll),
        Some(Format::Lines) => kind(Kind::Lines),
        Some(Format::Json) if form.format.is_none() && !is_array(first) && is_lines(first) => {
            said(Kind::Jsonl, "read as JSONL: each line is an object")
        }
        Some(Format::Json) => kind(Kind::Json),
        Some(Format::Jsonl) if form.format.is_none() && is_array(first) => {
            said(Kind::Json, "read as one JSON array, which it is")
        }
        Some(Format::Jsonl) => kind(Kind::Jsonl),
        Some(Format::Tsv | Format::Csv) if form.format.is_none() && conll::looks_like(text, input.whole) => said(
            Kind::Conll,
            "read as one word a line with its label, a blank line after each sentence (format = \"tsv\" or \"csv\" says otherwise)",
        ),
        Some(Format::Tsv) => table(text, input.whole, path, form, labels, known, Dialect::TSV),
        Some(Format::Csv) => table(text, input.whole, path, form, labels, known, Dialect::CSV),
        None if sample.starts_with(PARQUET) => said(Kind::Parquet, "read as Parquet, which its content is"),
        None if sample.starts_with(arrow::FILE) || sample.starts_with(arrow::STREAM) => {
            said(Kind::Arrow, "read as Arrow, which its content is")
        }
        None if is_array(first) => said(Kind::Json, "read as a JSON array, which its content is"),
        None if first.starts_with('{') && is_lines(first) => said(Kind::Jsonl, "read as JSONL, which its content is"),
        None if first.starts_with('{') => said(Kind::Json, "read as JSON, which its content is"),
        None if conll::looks_like(text, input.whole) => {
            said(Kind::Conll, "read as one word a line with its label, a blank line after each sentence")
        }
        None => {
            let found = table(text, input.whole, path, form, labels, known, Dialect::TSV);
            let Kind::Table(dialect) = found.kind else { return found };
            if form.separator.is_none() && rows(text, input.whole, path, dialect).is_none_or(|rows| width(&rows) < 2) {
                return kind(Kind::Lines);
            }
            match found.notes.is_empty() {
                true => {
                    let what = format!("read as cells between {}", named(dialect.separator));
                    Recognised { label_first: found.label_first, ..said(found.kind, &what) }
                }
                false => found,
            }
        }
    }
}

/// A file in a sentence.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The beginning of a sample that is text.
fn text(sample: &[u8]) -> &str {
    match std::str::from_utf8(sample) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&sample[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Whether a text begins as an array of objects.
fn is_array(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', ']']))
}

/// Whether the first line of a text is an object by itself, and no array of objects stands in it alone.
fn is_lines(text: &str) -> bool {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(first) else {
        return text.starts_with('{') && text.contains("}\n{");
    };
    let holds_objects =
        |value: &serde_json::Value| value.as_array().is_some_and(|all| all.iter().any(|one| one.is_object()));
    lines.any(|line| !line.trim().is_empty()) || !object.values().any(holds_objects)
}

/// How cells stand in the lines of a table: as its name says, unless another way alone makes all rows as long.
fn table(
    text: &str,
    whole: bool,
    path: &Path,
    form: &Form,
    labels: Labels,
    known: Option<&[String]>,
    default: Dialect,
) -> Recognised {
    let given = form.separator.and_then(|separator| u8::try_from(separator).ok());
    let quote = form.quote.map(|Quote(quote)| quote.and_then(|quote| u8::try_from(quote).ok()));
    let own = given.unwrap_or(default.separator);
    // TSV has no quotes unless they are asked for; any other separator has CSV's.
    let usual = |separator: u8| match quote {
        Some(quote) => quote,
        None if separator == b'\t' && default == Dialect::TSV => None,
        None => Some(b'"'),
    };
    let others = SEPARATORS.into_iter().filter(|&separator| given.is_none() && separator != own);
    let fallback = Dialect { separator: own, quote: usual(own) };
    let mut found = (fallback, None);
    for separator in std::iter::once(own).chain(others) {
        let single = Dialect { separator, quote: Some(b'\'') };
        let usual = Dialect { separator, quote: usual(separator) };
        let try_single = quote.is_none() && usual.quote.is_some();
        // A file's own way goes before one that is recognised.
        let dialects = match (try_single, separator == own && given.is_none()) {
            (false, _) => vec![usual],
            (true, true) => vec![usual, single],
            (true, false) => vec![single, usual],
        };
        let fits = dialects.into_iter().find_map(|dialect| {
            let rows = rows(text, whole, path, dialect)?;
            let quoted = dialect.quote == usual.quote || needs_quotes(text, &rows);
            let sure = separator == own || names_columns(&rows, form) || (labels == Labels::Read && rows.len() > 1);
            (width(&rows) > 1 && quoted && sure).then_some((dialect, Some(rows)))
        });
        if let Some(fits) = fits {
            found = fits;
            break;
        }
    }
    let (dialect, rows) = found;
    let mut notes = Vec::new();
    let mut parts = Vec::new();
    if dialect.separator != own {
        parts.push(format!(
            "cells stand between {} (separator = {:?})",
            named(dialect.separator),
            char::from(dialect.separator).to_string()
        ));
    }
    if dialect.quote == Some(b'\'') && quote.is_none() {
        parts.push("quoted cells between single quotes (quote = \"'\")".to_owned());
    }
    if !parts.is_empty() {
        notes.push(format!("{}: {}", file_name(path), parts.join(", ")));
    }
    let label_first = rows.is_some_and(|rows| label_comes_first(&rows, form, known));
    if label_first {
        notes.push(format!(
            "{}: column 1 is taken for the label and column 2 for the text (columns = {{ text = \"2\", label = \"1\" }})",
            file_name(path)
        ));
    }
    Recognised { kind: Kind::Table(dialect), notes, label_first }
}

/// The first rows, as a dialect has them; `None` where they are not all as long, or quotes do not fit.
fn rows(text: &str, whole: bool, path: &Path, dialect: Dialect) -> Option<Vec<Vec<String>>> {
    let end = if whole { text.len() } else { text.rfind('\n').map_or(0, |end| end + 1) };
    let text = &text[..end];
    let mut rows: Vec<Vec<String>> = Vec::new();
    if dialect.quote.is_none() {
        let lines = text.trim_start_matches('\u{feff}').lines().filter(|line| !line.is_empty());
        let separator = char::from(dialect.separator);
        rows.extend(lines.map(|line| line.split(separator).map(str::to_owned).collect()));
    } else {
        let mut reader = CsvRows::new(Box::new(std::io::Cursor::new(text.to_owned())), dialect);
        loop {
            match reader.next_row(path) {
                Ok(Some((_, row))) => rows.push(row),
                Ok(None) => break,
                // Of the last row a part may be missing.
                Err(_) if !whole && rows.len() > 4 && reader.at_end() => break,
                Err(_) => return None,
            }
        }
    }
    let first = rows.first()?.len();
    rows.iter().all(|row| row.len() == first).then_some(rows)
}

fn width(rows: &[Vec<String>]) -> usize {
    rows.first().map_or(0, Vec::len)
}

/// Whether single quotes are what they seem: a cell holds what it could not without them.
fn needs_quotes(text: &str, rows: &[Vec<String>]) -> bool {
    rows.iter().flatten().any(|cell| {
        let quoted = format!("'{}'", cell.replace('\'', "''"));
        cell.contains([';', ',', '\t', '|', '\n', '\'']) && text.contains(&quoted)
    })
}

/// Whether the first row names a column that is wanted.
fn names_columns(rows: &[Vec<String>], form: &Form) -> bool {
    let name = form.columns.text.as_deref().unwrap_or("text");
    rows.first().is_some_and(|row| row.iter().any(|cell| cell.trim().eq_ignore_ascii_case(name)))
}

/// Whether of two columns without names the first has the labels: those of the training data, where they are known, or few values
/// beside many longer ones.
fn label_comes_first(rows: &[Vec<String>], form: &Form, known: Option<&[String]>) -> bool {
    let names = Columns { part: form.columns.part.clone(), ..Columns::default() };
    if width(rows) != 2 || form.columns != names || form.header == Some(true) {
        return false;
    }
    let named = |cell: &String| ["text", "label"].iter().any(|name| cell.trim().eq_ignore_ascii_case(name));
    if rows[0].iter().any(named) {
        return false;
    }
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        let known: BTreeSet<_> = known.iter().map(|label| distinct::name(label)).collect();
        let all = |place: usize| rows.iter().all(|row| known.contains(&distinct::name(row[place].trim())));
        return all(0) && !all(1);
    }
    let values = |place: usize| rows.iter().map(|row| row[place].trim()).collect::<BTreeSet<&str>>();
    let length = |place: usize| rows.iter().map(|row| row[place].len()).sum::<usize>();
    let numbers = rows.iter().all(|row| row[1].trim().parse::<f64>().is_ok());
    rows.len() > 3
        && !numbers
        && 2 * values(0).len() <= rows.len()
        && 2 * values(1).len() > rows.len()
        && length(0) < length(1)
}
