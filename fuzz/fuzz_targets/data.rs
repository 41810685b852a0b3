//! A data file, row by row. The first byte says its format and which columns are read, and what is said of its header.
#![no_main]

use fthost::data::{Columns, Form};
use fthost::data::table::{Labels, Rows};
use fthost_fuzz::{file, show};
use libfuzzer_sys::fuzz_target;

const FORMATS: [&str; 7] =
    ["data.tsv", "data.csv", "data.jsonl", "data.parquet", "data.arrow", "data.conll", "data"];

fuzz_target!(|data: &[u8]| {
    let Some((&first, content)) = data.split_first() else { return };
    let (format, columns) = (usize::from(first) % FORMATS.len(), usize::from(first) / FORMATS.len() % 3);
    let header = [None, Some(true), Some(false)][usize::from(first) / FORMATS.len() / 3 % 3];
    let path = file(FORMATS[format], content);
    let name = |name: &str| Some(name.to_owned());
    let columns = match columns {
        0 => Columns::default(),
        1 => Columns { text: name("a"), text_pair: name("b"), label: name("c"), ..Columns::default() },
        _ => Columns { text: name("2"), text_pair: name("3"), label: name("1"), id: name("4"), ..Columns::default() },
    };
    let form = Form { columns, header, ..Form::default() };
    let rows = match Rows::open(&path, &form, Labels::Read, None) {
        Ok(rows) => rows,
        Err(error) => return show(&error),
    };
    for row in rows {
        match row {
            Ok(row) => {
                let labelled = row.words.as_ref().map_or(!row.label.is_empty(), |row| row.words.len() == row.labels.len());
                assert!(labelled && row.line > 0, "{row:?}");
            }
            Err(error) => show(&error),
        }
    }
});
