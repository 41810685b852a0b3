//! The beginning of a file, column by column, before anyone has said what its columns mean.

use std::path::Path;

use serde_json::Value;

use super::conll::ConllRows;
use super::csv::CsvRows;
use super::elements::Elements;
use super::folder::{self, FILE};
use super::form::{Dialect, Encoding, Form};
use super::header::{Naming, naming};
use super::input::Input;
use super::lines::Lines;
use super::recognise::{Kind, Recognised, recognise};
use super::row::{Columns, Labels, data_error};
use super::table::{Rows, unquoted};
use crate::Result;

/// What stands at the beginning of a file.
#[derive(Debug)]
pub struct Peek {
    /// Its columns, in order; of Parquet, Arrow and lines of text those alone that are read by default.
    pub columns: Vec<Column>,
    /// Of a table, whether its first row names the columns.
    pub naming: Option<Naming>,
    /// Whether each row is a sentence whose words have labels, as in CoNLL's files.
    pub sentences: bool,
    /// Rows that were looked at, a header left out.
    pub rows: usize,
    /// Whether these are all.
    pub whole: bool,
    /// How its bytes stand for characters.
    pub encoding: Encoding,
    /// Sentences about what was recognised.
    pub notes: Vec<String>,
}

/// A column's name and the values of the rows that were looked at; null where a row has none.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, or its number from 1 where the file has no names.
    pub name: String,
    /// Strings, in JSON also numbers and lists.
    pub values: Vec<Value>,
}

/// Looks at the first rows of a file, up to `most`; of a folder of texts at some of all over it. What is no UTF-8 is taken for
/// Windows-1252, as browsers take it, if it can be read so.
///
/// # Errors
/// Where it cannot be read, or its rows are not as long as its first.
pub fn peek(path: &Path, most: usize) -> Result<Peek> {
    peek_as(path, most, Encoding::Utf8).or_else(|error| peek_as(path, most, Encoding::Windows1252).map_err(|_| error))
}

fn peek_as(path: &Path, most: usize, encoding: Encoding) -> Result<Peek> {
    let form = Form { encoding, ..Form::default() };
    let nothing =
        |notes| Peek { columns: Vec::new(), naming: None, sentences: false, rows: 0, whole: false, encoding, notes };
    if path.is_dir() {
        return by_rows(path, most, &form);
    }
    let input = Input::open(path, form.encoding)?;
    let Recognised { kind, notes, .. } = recognise(&input, path, &form, Labels::Read, None);
    match kind {
        Kind::Table(dialect) => {
            let mut next = cells(input, dialect);
            let mut rows = Vec::new();
            while rows.len() <= most
                && let Some(row) = next(path)?
            {
                rows.push(row);
            }
            let whole = rows.len() <= most;
            let Some(first) = rows.first() else { return Err(data_error(path, None, "is empty")) };
            let (width, naming) =
                (first.1.len(), naming(&rows.iter().map(|(_, row)| row.as_slice()).collect::<Vec<_>>()));
            if let Some((line, row)) = rows.iter().find(|(_, row)| row.len() != width) {
                let message = format!("this row has {} cells, and the first row has {width}", row.len());
                return Err(data_error(path, Some(*line), message).with_help(
                    "say what separates and quotes cells, in the task of a run file: separator = \";\", quote = \"'\"",
                ));
            }
            let header = (naming != Naming::No).then(|| rows.remove(0).1);
            let columns = (0..width).map(|place| Column {
                name: header.as_ref().map_or_else(|| (place + 1).to_string(), |names| names[place].trim().to_owned()),
                values: rows.iter().map(|(_, row)| Value::String(row[place].clone())).collect(),
            });
            Ok(Peek { columns: columns.collect(), naming: Some(naming), rows: rows.len(), whole, ..nothing(notes) })
        }
        Kind::Jsonl | Kind::Json => {
            let mut next = objects(input, kind == Kind::Jsonl);
            let (mut columns, mut rows, mut whole): (Vec<Column>, usize, bool) = (Vec::new(), 0, false);
            while rows < most {
                let Some(text) = next(path)? else {
                    whole = true;
                    break;
                };
                let Ok(Value::Object(object)) = serde_json::from_str(&text.1) else {
                    return Err(data_error(path, Some(text.0), "this is no JSON object"));
                };
                for (name, value) in object {
                    let known = columns.iter().position(|column| column.name == name);
                    let place = known.unwrap_or_else(|| {
                        columns.push(Column { name, values: vec![Value::Null; rows] });
                        columns.len() - 1
                    });
                    columns[place].values.push(value);
                }
                rows += 1;
                columns.iter_mut().for_each(|column| column.values.resize(rows, Value::Null));
            }
            Ok(Peek { columns, rows, whole, ..nothing(notes) })
        }
        Kind::Conll => {
            let mut sentences = ConllRows::new(Lines::new(input.into_reader()), Labels::Read);
            let names = ["words", "labels"].map(str::to_owned);
            let [mut words, mut labels] = names.map(|name| Column { name, values: Vec::new() });
            let mut whole = false;
            while words.values.len() < most {
                let Some(row) = sentences.next_row(path, &form.columns)? else {
                    whole = true;
                    break;
                };
                let row = row.words.unwrap_or_default();
                words.values.push(row.words.into());
                labels.values.push(row.labels.into());
            }
            let rows = words.values.len();
            Ok(Peek { columns: vec![words, labels], sentences: true, rows, whole, ..nothing(notes) })
        }
        Kind::Parquet | Kind::Arrow | Kind::Lines => by_rows(path, most, &form),
    }
}

/// The columns that are read where nothing is said of them: of formats whose own are not told here.
fn by_rows(path: &Path, most: usize, form: &Form) -> Result<Peek> {
    let ids = folder::is_of_texts(path).then(|| Columns { id: Some(FILE.into()), ..Columns::default() });
    let form = &Form { columns: ids.unwrap_or_default(), ..form.clone() };
    let mut rows = Rows::open(path, form, Labels::Read, None)?;
    let all = rows.keep(most);
    let notes = rows.notes().to_vec();
    let names = ["text", "text_pair", "label", FILE].map(str::to_owned);
    let mut columns = names.map(|name| Column { name, values: Vec::new() });
    let mut whole = false;
    while columns[0].values.len() < most {
        let Some(row) = rows.next().transpose()? else {
            whole = all;
            break;
        };
        let (text, label) = match row.words {
            Some(words) => (words.words.into(), words.labels.into()),
            None => (row.text.into(), row.labels.map_or_else(|| row.label.into(), Value::from)),
        };
        let or_null = |value: Option<String>| value.map_or(Value::Null, Value::from);
        let values = [text, or_null(row.pair), label, or_null(row.extra.into_iter().next())];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.values.push(value));
    }
    let rows = columns[0].values.len();
    let columns = columns.into_iter().filter(|column| column.values.iter().any(|value| !value.is_null()));
    let encoding = form.encoding;
    Ok(Peek { columns: columns.collect(), naming: None, sentences: false, rows, whole, encoding, notes })
}

type Next<T> = Box<dyn FnMut(&Path) -> Result<Option<T>>>;

/// The rows of a table with their lines.
fn cells(input: Input, dialect: Dialect) -> Next<(u64, Vec<String>)> {
    if dialect.quote.is_none() {
        let mut lines = Lines::new(input.into_reader());
        return Box::new(move |path| unquoted(&mut lines, path, dialect));
    }
    let mut rows = CsvRows::new(input.into_reader(), dialect);
    Box::new(move |path| rows.next_row(path))
}

/// The objects of a JSON file with their lines.
fn objects(input: Input, lines: bool) -> Next<(u64, String)> {
    if lines {
        let mut lines = Lines::new(input.into_reader());
        return Box::new(move |path| Ok(lines.next_line(path)?.map(|(line, text)| (line, text.to_owned()))));
    }
    let mut elements = Elements::new(input.into_reader());
    Box::new(move |path| elements.next_element(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(name: &str, content: &str) -> Peek {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        peek(&path, 3).unwrap()
    }

    #[test]
    fn what_is_no_utf8_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        std::fs::write(&path, b"caf\xe9 au lait\tgood\nwater\tbad\ntea\tgood\n").unwrap();
        let found = peek(&path, 9).unwrap();
        assert_eq!(found.encoding, Encoding::Windows1252);
        assert_eq!(found.columns[0].values[0], "café au lait");
        std::fs::write(&path, b"caf\xe9\tgood\nwater\n").unwrap();
        // What is wrong in any encoding is said as it is.
        assert!(peek(&path, 3).is_err());
    }

    fn names(peek: &Peek) -> Vec<&str> {
        peek.columns.iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn columns_are_told_of_every_form() {
        let csv = of("a.csv", "id,review,stars\n1,\"good, really\",5\n2,bad,1\n3,meh,3\n4,fine,4\n");
        assert_eq!(
            (names(&csv), csv.naming, csv.rows, csv.whole),
            (vec!["id", "review", "stars"], Some(Naming::Yes), 3, false)
        );
        assert_eq!(csv.columns[1].values[0], "good, really");
        let tsv = of("SMSSpamCollection", "ham\tsee you\nspam\twin a prize\nham\tok\n");
        assert_eq!((names(&tsv), tsv.naming, tsv.whole), (vec!["1", "2"], Some(Naming::No), true));
        let json = of("a.json", "[{\"a\": 1, \"b\": \"x\"}, {\"b\": \"y\"}, {\"a\": 2, \"c\": [\"z\"]}]");
        assert_eq!(names(&json), ["a", "b", "c"]);
        assert_eq!(json.columns[0].values, [serde_json::json!(1), Value::Null, serde_json::json!(2)]);
        let conll = of("a.conll", "EU B-ORG\nrejects O\n\nPeter B-PER\n");
        assert!(conll.sentences);
        assert_eq!(conll.columns[1].values[0], serde_json::json!(["B-ORG", "O"]));
    }
}
