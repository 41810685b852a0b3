#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use miette::Diagnostic;

use super::super::form::Form;
use super::super::row::Words;
use super::super::table::Rows;
use super::*;

/// The values of a column; `None` is null.
enum Column<'a> {
    Text(&'a [Option<&'a [u8]>]),
    Int(&'a [i32]),
    Long(&'a [i64]),
    Float(&'a [f32]),
    Double(&'a [f64]),
    Bool(&'a [bool]),
}

/// A file of this schema, whose row groups have these columns.
fn write(schema: &str, groups: &[Vec<Column<'_>>], compression: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for columns in groups {
        let mut group = file.next_row_group().unwrap();
        for column in columns {
            let mut writer = group.next_column().unwrap().unwrap();
            match (writer.untyped(), column) {
                (ColumnWriter::ByteArrayColumnWriter(writer), Column::Text(values)) => {
                    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                    let values: Vec<ByteArray> = values.iter().flatten().map(|value| value.to_vec().into()).collect();
                    writer.write_batch(&values, Some(&levels), None)
                }
                (ColumnWriter::Int32ColumnWriter(writer), Column::Int(values)) => {
                    writer.write_batch(values, None, None)
                }
                (ColumnWriter::Int64ColumnWriter(writer), Column::Long(values)) => {
                    writer.write_batch(values, None, None)
                }
                (ColumnWriter::FloatColumnWriter(writer), Column::Float(values)) => {
                    writer.write_batch(values, None, None)
                }
                (ColumnWriter::DoubleColumnWriter(writer), Column::Double(values)) => {
                    writer.write_batch(values, None, None)
                }
                (ColumnWriter::BoolColumnWriter(writer), Column::Bool(values)) => {
                    writer.write_batch(values, None, None)
                }
                _ => panic!("the column is of another type"),
            }
            .unwrap();
            writer.close().unwrap();
        }
        group.close().unwrap();
    }
    file.into_inner().unwrap()
}

fn read(content: &[u8], columns: &Columns) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, content).unwrap();
    Rows::open(&path, &Form { columns: columns.clone(), ..Form::default() }, Labels::Read, None)?.collect()
}

/// Rows as `line text|pair label`.
#[track_caller]
fn check(content: &[u8], columns: &Columns, expected: &[&str]) {
    let show = |row: Row| match row.pair {
        Some(pair) => format!("{} {}|{pair} {}", row.line, row.text, row.label),
        None => format!("{} {} {}", row.line, row.text, row.label),
    };
    let rows: Vec<String> = read(content, columns).unwrap().into_iter().map(show).collect();
    assert_eq!(rows, expected);
}

#[track_caller]
fn check_error(content: &[u8], columns: &Columns, expected: &str) {
    let error = read(content, columns).unwrap_err();
    let text = format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default());
    let text = &text[text.find("a.parquet").unwrap() + "a.parquet".len()..];
    assert!(text.starts_with(expected), "{text}");
}

const OTHERS: Column<'_> = Column::Text(&[Some(b""), Some("\u{e9}\n".as_bytes())]);
const TEXTS: Column<'_> = Column::Text(&[Some(b"good"), Some(b"bad film")]);

/// A text column and a label column of this type.
fn labelled(label: &str, values: Column<'_>) -> Vec<u8> {
    let schema = format!("optional binary text (UTF8); {label};");
    write(&schema, &[vec![TEXTS, values]], Compression::SNAPPY)
}

#[test]
fn labels_may_be_of_any_plain_type() {
    let none = Columns::default();
    let check = |label: &str, values, expected: &[&str]| check(&labelled(label, values), &none, expected);
    check("required int64 label", Column::Long(&[1, -7]), &["1 good 1", "2 bad film -7"]);
    check("required int32 label (INTEGER(8,true))", Column::Int(&[3, 4]), &["1 good 3", "2 bad film 4"]);
    check("required int32 label (INTEGER(16,false))", Column::Int(&[3, 65535]), &["1 good 3", "2 bad film 65535"]);
    check("required float label", Column::Float(&[0.1, 3.0]), &["1 good 0.1", "2 bad film 3.0"]);
    check("required double label", Column::Double(&[0.1, -2.5e-9]), &["1 good 0.1", "2 bad film -2.5e-9"]);
    check("required boolean label", Column::Bool(&[true, false]), &["1 good true", "2 bad film false"]);
    let words = || Column::Text(&[Some(b" yes "), Some(b"no")]);
    check("optional binary label (UTF8)", words(), &["1 good yes", "2 bad film no"]);
    check("optional binary label (STRING)", words(), &["1 good yes", "2 bad film no"]);
    check("optional binary label", words(), &["1 good yes", "2 bad film no"]);
}

#[test]
fn columns_are_found_by_name_in_every_row_group() {
    let schema =
        "required double score; optional binary text_pair (UTF8); required int32 label; optional binary text (UTF8);";
    let group =
        |first: &'static [f64], label: &'static [i32]| vec![Column::Double(first), TEXTS, Column::Int(label), OTHERS];
    let groups = [group(&[0.5, 1.5], &[1, 2]), group(&[2.5, 3.5], &[3, 4])];
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
        let content = write(schema, &groups, compression);
        let rows = ["1 |good 1", "2 \u{e9}\n|bad film 2", "3 |good 3", "4 \u{e9}\n|bad film 4"];
        check(&content, &Columns::default(), &rows);
        let columns = |text: &str, label: &str| Columns {
            text: Some(text.into()),
            text_pair: None,
            label: Some(label.into()),
            ..Columns::default()
        };
        let scores = ["1 good|good 0.5", "2 bad film|bad film 1.5", "3 good|good 2.5", "4 bad film|bad film 3.5"];
        check(&content, &columns("text_pair", "score"), &scores);
    }
}

#[test]
fn many_rows_come_in_order() {
    let texts: Vec<String> = (0..5000).map(|i| format!("text {i}")).collect();
    let group = |rows: std::ops::Range<usize>| {
        let texts: Vec<Option<&[u8]>> = texts[rows.clone()].iter().map(|text| Some(text.as_bytes())).collect();
        (texts, rows.map(|i| i as i64 % 3).collect::<Vec<_>>())
    };
    let groups = [group(0..3000), group(3000..5000)];
    let columns: Vec<_> =
        groups.iter().map(|(texts, labels)| vec![Column::Text(texts), Column::Long(labels)]).collect();
    let content = write("optional binary text (UTF8); required int64 label;", &columns, Compression::SNAPPY);
    let rows = read(&content, &Columns::default()).unwrap();
    assert_eq!(rows.len(), 5000);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((row.line, &row.text, &row.label), (i as u64 + 1, &texts[i], &(i % 3).to_string()));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_row() {
    let none = Columns::default();
    check_error(b"", &none, ": cannot be read as Parquet");
    check_error(b"text\tlabel\n", &none, ": cannot be read as Parquet");
    let whole = labelled("required int64 label", Column::Long(&[1, 2]));
    check_error(&whole[..whole.len() - 1], &none, ": cannot be read as Parquet");
    check_error(
        &labelled("required int64 y", Column::Long(&[1, 2])),
        &none,
        ": there is no column `label`; the file has `text`, `y` (name the columns in the run file",
    );
    let columns = Columns { text_pair: Some("q".into()), ..Columns::default() };
    check_error(&whole, &columns, ": there is no column `q`");
    check_error(
        &labelled("optional binary label (UTF8)", Column::Text(&[Some(b"x"), None])),
        &none,
        ":2: this row has no label (give it one",
    );
    let numbers = write(
        "required int64 text; required int64 label;",
        &[vec![Column::Long(&[1]), Column::Long(&[1])]],
        Compression::UNCOMPRESSED,
    );
    check_error(&numbers, &none, ":1: `text` is a number; it must be a string");
    let schema = "optional binary text (UTF8); required int64 label;";
    let texts = |values: &'static [Option<&'static [u8]>]| {
        write(schema, &[vec![Column::Text(values), Column::Long(&[1, 2])]], Compression::UNCOMPRESSED)
    };
    check_error(&texts(&[Some(b"a"), None]), &none, ":2: `text` is null; it must be a string");
    check_error(&texts(&[Some(b"a"), Some(b"\xff")]), &none, ":2: cannot be read as Parquet");
    let dates = labelled("required int32 label (DATE)", Column::Int(&[1, 2]));
    check_error(&dates, &none, ":1: `label` is a date or time; it must be a string, a number or a boolean");
    let nested = write(
        "optional binary text (UTF8); required group label { required int64 a; }",
        &[vec![TEXTS, Column::Long(&[1, 2])]],
        Compression::UNCOMPRESSED,
    );
    check_error(&nested, &none, ": the column `label` is nested");
    check_error(&write(schema, &[], Compression::UNCOMPRESSED), &none, ": is empty (it needs at least one row");
}

/// No file makes the reader panic.
#[test]
fn a_damaged_file_gives_rows_or_an_error() {
    let whole = labelled("required int64 label", Column::Long(&[1, 2]));
    let stream = fthost_autograd::random::Stream::new(1, "damage");
    for trial in 0..500 {
        let mut damaged = whole.clone();
        for i in 0..1 + trial % 3 {
            let place = stream.below(8 * trial + 2 * i, damaged.len() as u64) as usize;
            damaged[place] = stream.below(8 * trial + 2 * i + 1, 256) as u8;
        }
        let _ = read(&damaged, &Columns::default());
    }
}

/// As Hugging Face writes tokens and tags: lists, of which a row may have an empty one.
#[test]
fn lists_are_words_and_their_labels() {
    let list = |name: &str, kind: &str| {
        format!("optional group {name} (LIST) {{ repeated group list {{ optional {kind} element; }} }}")
    };
    let schema = format!(
        "message schema {{ {} {} }}",
        list("tokens", "binary").replace("element;", "element (UTF8);"),
        list("ner_tags", "int64")
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let content = |last: i16| {
        let mut file = SerializedFileWriter::new(Vec::new(), Arc::clone(&schema), Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut writer = group.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(words) = writer.untyped() else { panic!("words are bytes") };
        let texts: Vec<ByteArray> = ["EU", "rejects", "\u{e9}"].map(|word| word.as_bytes().to_vec().into()).into();
        words.write_batch(&texts, Some(&[3, 3, 3]), Some(&[0, 1, 0])).unwrap();
        writer.close().unwrap();
        let mut writer = group.next_column().unwrap().unwrap();
        let ColumnWriter::Int64ColumnWriter(tags) = writer.untyped() else { panic!("labels are numbers") };
        tags.write_batch(&[3, 0, 7][..2 + usize::from(last == 3)], Some(&[3, 3, last]), Some(&[0, 1, 0])).unwrap();
        writer.close().unwrap();
        group.close().unwrap();
        file.into_inner().unwrap()
    };
    let columns =
        Columns { text: Some("tokens".into()), text_pair: None, label: Some("ner_tags".into()), ..Columns::default() };
    let rows = read(&content(3), &columns).unwrap();
    let found: Vec<_> = rows.into_iter().map(|row| (row.line, row.words.unwrap())).collect();
    let words = |words: &[&str], labels: &[&str]| Words {
        words: words.iter().map(|&word| word.into()).collect(),
        labels: labels.iter().map(|&label| label.into()).collect(),
    };
    assert_eq!(found, [(1, words(&["EU", "rejects"], &["3", "0"])), (2, words(&["\u{e9}"], &["7"]))]);
    check_error(&content(1), &columns, ":2: `tokens` has 1, and `ner_tags` has 0");
    check_error(&content(2), &columns, ":2: word 1 of this row has no label");
    let texts = write(
        "optional binary text (UTF8); required int64 label;",
        &[vec![TEXTS, Column::Long(&[1, 2])]],
        Compression::UNCOMPRESSED,
    );
    assert!(read(&texts, &Columns::default()).unwrap().iter().all(|row| row.words.is_none()));
}
