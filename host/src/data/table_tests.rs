#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use miette::Diagnostic;

use super::super::row::Words;
use super::*;

fn columns(text: &str, pair: &str, label: &str) -> Columns {
    let given = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    Columns { text: given(text), text_pair: given(pair), label: given(label), ..Columns::default() }
}

fn read(name: &str, content: &[u8], columns: &Columns) -> Result<Vec<Row>> {
    read_as(name, content, columns, None, Labels::Read)
}

fn read_as(name: &str, content: &[u8], columns: &Columns, header: Option<bool>, labels: Labels) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Rows::open(&path, &Form { columns: columns.clone(), header, ..Form::default() }, labels, None)?.collect()
}

/// Rows as `line text|pair label`.
#[track_caller]
fn check(name: &str, content: &str, columns: &Columns, expected: &[&str]) {
    let show = |row: Row| match row.pair {
        Some(pair) => format!("{} {}|{pair} {}", row.line, row.text, row.label),
        None => format!("{} {} {}", row.line, row.text, row.label),
    };
    let rows: Vec<String> = read(name, content.as_bytes(), columns).unwrap().into_iter().map(show).collect();
    assert_eq!(rows, expected);
}

/// The message after the file's name, and the help.
#[track_caller]
fn check_error(name: &str, content: &[u8], columns: &Columns, expected: &str) {
    let error = read(name, content, columns).unwrap_err();
    let help = error.help().map(|help| help.to_string()).unwrap_or_default();
    let text = format!("{error} ({help})");
    let text = &text[text.find(name).unwrap() + name.len()..];
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn tsv() {
    let none = Columns::default();
    check("a.tsv", "good film\t1\nbad\t0\n", &none, &["1 good film 1", "2 bad 0"]);
    check("a.tsv", "text\tlabel\ngood\t1", &none, &["2 good 1"]);
    check("a.tsv", "id\tlabel\ttext\n7\tyes\tgood\n", &none, &["2 good yes"]);
    check("a.tsv", "\u{feff}text\tlabel\r\ngood\t1\r\n\r\nbad\t 0 \r\n", &none, &["2 good 1", "4 bad 0"]);
    check("a.tsv", "a \"stray quote\t1\n\"another\t0\n", &none, &["1 a \"stray quote 1", "2 \"another 0"]);
    check("a.tsv", "\t1\nb\t0\n", &none, &["1  1", "2 b 0"]);
    check("a.tsv", "Text\tLABEL\ngood\t1", &none, &["2 good 1"]);
    check("a.tsv", "TEXT\ttext\tlabel\na\tb\t1", &none, &["2 b 1"]);
    check("a.TSV", "a\t1\n", &none, &["1 a 1"]);
    check("a.tsv", "text\ttext_pair\tlabel\na\tb\t4.5\n", &none, &["2 a|b 4.5"]);
    check("a.tsv", "text\ttext_pair\tscore\na\tb\t4.5\n", &columns("", "", "score"), &["2 a|b 4.5"]);
    check("a.tsv", "q1\tq2\ty\na\tb\t1\n", &columns("q1", "q2", "y"), &["2 a|b 1"]);
    check("a.tsv", "x\ta\tb\tl\n", &columns("2", "3", "4"), &["1 a|b l"]);
    check("a.tsv", "x\ta\n", &columns("2", "", "1"), &["1 a x"]);
}

#[test]
fn csv() {
    let none = Columns::default();
    check("a.csv", "good,1\nbad,0\n", &none, &["1 good 1", "2 bad 0"]);
    check("a.csv", "\u{feff}\"text\",label\r\n\"a, \"\"b\"\"\",1\r\n", &none, &["2 a, \"b\" 1"]);
    check("a.csv", "text,label\n\"two\n\nlines\",1\n\nb,0\n", &none, &["2 two\n\nlines 1", "6 b 0"]);
    check("a.csv", "a \"quote\" inside,1\n\"\",0\n", &none, &["1 a \"quote\" inside 1", "2  0"]);
}

#[test]
fn jsonl() {
    let none = Columns::default();
    check(
        "a.jsonl",
        "{\"text\": \"a\", \"label\": \"x\"}\n\n{\"label\": 1, \"text\": \"b\"}",
        &none,
        &["1 a x", "3 b 1"],
    );
    check("a.jsonl", "{\"text\": \"a\\nb\", \"label\": true, \"n\": [1]}\r\n", &none, &["1 a\nb true"]);
    check("a.jsonl", "{\"text\": \"a\", \"text_pair\": \"b\", \"label\": 4.5}", &none, &["1 a|b 4.5"]);
    check("a.jsonl", "{\"q\": \"a\", \"p\": \"b\", \"y\": -1}", &columns("q", "p", "y"), &["1 a|b -1"]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let none = Columns::default();
    for name in ["a.tsv", "a.csv", "a.jsonl"] {
        check_error(name, b"", &none, ": is empty (it needs at least one row");
        check_error(name, b"\n\r\n", &none, ": is empty");
    }
    check_error("a.tsv", b"text\tlabel\n", &none, ": has a header but no rows");
    check_error(
        "a.tsv",
        b"a\t1\nb\n",
        &none,
        ":2: this row has 1 cell, and the first row has 2 (are the cells separated",
    );
    check_error("a.csv", b"a\t1\n", &none, ":1: this row has 1 cell; the label should stand in column 2");
    check_error("a.tsv", b"a\t1\nb\t \n", &none, ":2: this row has no label (give it one");
    check_error("a.tsv", b"a\t1\nb\xff\t0\n", &none, ":2: this line is not valid UTF-8 (say what it is");
    check_error(
        "a.tsv",
        b"text\ttext_pair\tscore\na\tb\t4\n",
        &none,
        ":1: there is no column `label`; the first row has `text`, `text_pair`, `score` (name the columns in the run file: columns =",
    );
    check_error(
        "a.csv",
        b"sentence,label\na,1\n",
        &none,
        ":1: there is no column `text`; the first row has `sentence`, `label`",
    );
    check_error("a.csv", b"text,label\na,1\n", &columns("", "b", ""), ":1: there is no column `b`");
    check_error(
        "a.tsv",
        b"a\t1\n",
        &columns("body", "", "2"),
        ":1: there is no column `body`; the first row has `a`, `1`",
    );
    check_error(
        "a.tsv",
        b"a\t1\n",
        &columns("1", "3", "2"),
        ":1: this row has 2 cells; the second text should stand in column 3",
    );
    check_error(
        "a.csv",
        b"a,1\n\"b,0\nc,0\n",
        &none,
        ":2: a quote that opens in this row is never closed (write a quote",
    );
    check_error("a.csv", b"a,1\n\"b\" c,0\n", &none, ":2: a quoted cell goes on after its closing quote");
    check_error(
        "a.jsonl",
        b"{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\"",
        &none,
        ":2: this line is no JSON object: EOF while parsing an object (column 12)",
    );
    check_error("a.jsonl", b"[1]", &none, ":1: this line is no JSON object");
    check_error(
        "a.jsonl",
        b"{\"label\": 1, \"sentence\": \"a\"}",
        &none,
        ":1: there is no key `text`; this line has `label`, `sentence`",
    );
    check_error("a.jsonl", b"{\"text\": 3, \"label\": 1}", &none, ":1: `text` is a number; it must be a string");
    check_error("a.jsonl", b"{\"text\": \"a\", \"label\": null}", &none, ":1: this row has no label");
    check_error("a.jsonl", b"{\"text\": \"a\", \"label\": {}}", &none, ":1: `label` must be a string or a number");
    for name in ["a.txt", "data"] {
        check_error(name, b"a", &none, ": has one text a line, and no label (name the labels' file beside it");
    }
}

/// A comma too many makes another label of what follows it, and no row is read so.
#[test]
fn every_row_has_as_many_cells_as_the_first() {
    let none = Columns::default();
    let named = columns("t", "", "l");
    let numbers = columns("2", "", "3");
    let check = |separator: &str, head: &str, row: &str, columns: &Columns, expected: &str| {
        let name = if separator == "," { "a.csv" } else { "a.tsv" };
        let content = format!("{head}\n{row}\n").replace(',', separator);
        for labels in [Labels::Read, Labels::Unread] {
            let error = read_as(name, content.as_bytes(), columns, None, labels).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?} {labels:?}: {error}");
        }
    };
    for separator in [",", "\t"] {
        for (head, columns) in [("text,label", &none), ("good,1", &none), ("t,l", &named)] {
            check(separator, head, "long, but good,1", columns, ":2: this row has 3 cells, and the first row has 2");
            check(separator, head, "good,1,", columns, ":2: this row has 3 cells, and the first row has 2");
            check(separator, head, "good", columns, ":2: this row has 1 cell, and the first row has 2");
        }
        for head in ["id,t,l", "7,good,1"] {
            let columns = if head == "7,good,1" { &numbers } else { &named };
            check(separator, head, "8,long, but good,1", columns, ":2: this row has 4 cells, and the first row has 3");
            check(separator, head, "8,good", columns, ":2: this row has 2 cells, and the first row has 3");
        }
        // Nothing says which of three cells is the text.
        check(
            separator,
            "long, but good,1",
            "bad,0",
            &none,
            ":1: this row has 3 cells, and nothing says which is the text",
        );
    }
    let one_column = read_as("a.csv", b"good\nlong, but good\n", &none, None, Labels::Unread).unwrap_err();
    assert!(one_column.to_string().ends_with(":2: this row has 2 cells, and the first row has 1"), "{one_column}");
    check_error(
        "a.csv",
        b"a,1\nb, but c,0\n",
        &none,
        ":2: this row has 3 cells, and the first row has 2 (put a text that has a comma in quotes",
    );
}

#[test]
fn a_first_row_of_names_is_no_example_in_silence() {
    let none = Columns::default();
    let in_doubt = |name: &str, content: &str, columns: &Columns, labels: Labels| {
        let error = read_as(name, content.as_bytes(), columns, None, labels).unwrap_err();
        assert!(error.to_string().contains("the first row may be a header or an example"), "{content:?}: {error}");
        let help = error.help().unwrap().to_string();
        assert!(
            ["as a header: ", "as an example: ", "header = true", "--header"].iter().all(|part| help.contains(part))
        );
    };
    for head in ["sentence,sentiment", "Review,Class", "Review Text,target", "\"sentence\",\"sentiment\"", "0,1"] {
        in_doubt("a.csv", &format!("{head}\ngood,1\n"), &none, Labels::Read);
        in_doubt("a.csv", &format!("{head}\ngood,1\n"), &columns("1", "", "2"), Labels::Read);
        in_doubt("a.csv", &format!("{head}\ngood,1\n"), &none, Labels::Unread);
    }
    in_doubt("a.tsv", "\"sentence\"\t\"sentiment\"\ngood\t1\n", &none, Labels::Read);
    for head in ["sentence", "Review", "comment_text"] {
        in_doubt("a.csv", &format!("{head}\ngood\n"), &none, Labels::Unread);
    }
    // Both are said by the run file.
    let said = |header: bool, columns: &Columns, content: &str| {
        let rows = read_as("a.csv", content.as_bytes(), columns, Some(header), Labels::Read)?;
        Ok::<_, Error>(
            rows.into_iter().map(|row| format!("{} {} {}", row.line, row.text, row.label)).collect::<Vec<_>>(),
        )
    };
    let content = "sentence,sentiment\ngood,1\n";
    for columns in [&none, &columns("1", "", "2")] {
        assert_eq!(said(true, columns, content).unwrap(), ["2 good 1"]);
        assert_eq!(said(false, columns, content).unwrap(), ["1 sentence sentiment", "2 good 1"]);
    }
    assert_eq!(said(false, &none, "text,label\ngood,1\n").unwrap(), ["1 text label", "2 good 1"]);
    assert_eq!(said(true, &none, "sentence,label\ngood,1\n").unwrap(), ["2 good 1"]);
    assert_eq!(said(true, &columns("b", "", "c"), "a,b,c\n7,good,1\n").unwrap(), ["2 good 1"]);
    for (header, columns, content, expected) in [
        (true, &none, "a,b,c\n7,good,1\n", "this row has 3 cells, and nothing says which is the text"),
        (true, &none, "id,sentence,label\n7,good,1\n", "there is no column `text`"),
        (false, &columns("t", "", "l"), "t,l\ngood,1\n", "columns are named `t`, `l`, and header = false"),
    ] {
        let error = said(header, columns, content).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    check_error("a.csv", b"text,text,label\na,b,1\n", &none, ":1: columns 1 and 2 are both named `text`");
    check_error("a.csv", b"Text,TEXT,label\na,b,1\n", &none, ":1: columns 1 and 2 are both named `TEXT`");
}

/// Semicolons or tabs in a .csv, commas in a .tsv: taken where they make the rows as long, named where one row cannot show it.
#[test]
fn another_separator_is_taken_or_named() {
    let none = Columns::default();
    for (name, content) in
        [("a.csv", "text;label\ngood;1\n"), ("a.csv", "text\tlabel\ngood\t1\n"), ("a.tsv", "text,label\ngood,1\n")]
    {
        check(name, content, &none, &["2 good 1"]);
        let rows = read_as(name, content.as_bytes(), &none, None, Labels::Unread).unwrap();
        assert_eq!((rows.len(), rows[0].text.as_str()), (1, "good"));
    }
    check("a.csv", "good;1\nbad;0\n", &none, &["1 good 1", "2 bad 0"]);
    for (name, content, separator) in
        [("a.csv", "sentence;label\ngood, bad;1\n", "';'"), ("a.tsv", "sentence,label\n", "','")]
    {
        let error = read_as(name, content.as_bytes(), &none, None, Labels::Unread).unwrap_err();
        assert!(error.to_string().contains(&format!("{separator} seems to separate its cells")), "{error}");
        assert!(error.help().unwrap().to_string().contains("separator = "), "{error}");
    }
}

#[test]
fn folders_and_missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, expected: &str| {
        let error = Rows::open(&folder.path().join(name), &Form::default(), Labels::Read, None).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.help().is_some());
    };
    check("train.tsv", "train.tsv: there is no such file");
    std::fs::create_dir(folder.path().join("x.tsv")).unwrap();
    check("x.tsv", "x.tsv: is an empty folder");
}

proptest::proptest! {
    /// Whatever a CSV writer writes is read back. Said to have no header: a first row like `y,y` may be one, and is refused else.
    #[test]
    fn csv_is_read_back(rows in proptest::collection::vec(("[ -~\\n\"]{0,12}", "[a-z\",\\n]{0,5}[a-z]"), 1..20)) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        for (text, label) in &rows {
            writer.write_record([text, label]).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let read = read_as("a.csv", &bytes, &columns("1", "", "2"), Some(false), Labels::Read).unwrap();
        for (row, (text, label)) in read.iter().zip(&rows) {
            proptest::prop_assert_eq!((&row.text, row.label.as_str()), (text, label.trim()));
        }
        proptest::prop_assert_eq!(read.len(), rows.len());
    }

    /// No file makes a reader panic.
    #[test]
    fn any_bytes_give_rows_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        for name in ["a.tsv", "a.csv", "a.jsonl", "a.parquet"] {
            let _ = read(name, &bytes, &Columns::default());
        }
    }
}

#[test]
fn without_labels_the_same_files_and_files_of_texts_alone_are_read() {
    #[track_caller]
    fn texts(name: &str, content: &str, columns: &Columns, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let rows: Vec<Row> =
            Rows::open(&path, &Form { columns: columns.clone(), ..Form::default() }, Labels::Unread, None)
                .unwrap()
                .collect::<Result<_>>()
                .unwrap();
        assert!(rows.iter().all(|row| row.label.is_empty()));
        let show =
            |row: Row| format!("{} {}{}", row.line, row.text, row.pair.map(|p| format!("|{p}")).unwrap_or_default());
        assert_eq!(rows.into_iter().map(show).collect::<Vec<_>>(), expected);
    }
    let none = Columns::default();
    texts("a.tsv", "good film\nbad\n", &none, &["1 good film", "2 bad"]);
    texts("a.tsv", "good film\t1\nbad\t\n", &none, &["1 good film", "2 bad"]);
    texts("a.tsv", "text\ngood\n", &none, &["2 good"]);
    texts("a.tsv", "id\tlabel\ttext\n7\tyes\tgood\n", &none, &["2 good"]);
    texts("a.csv", "sentence,y\n\"a, b\",1\n", &columns("sentence", "", "y"), &["2 a, b"]);
    texts("a.csv", "sentence\n\"a, b\"\n", &columns("sentence", "", "y"), &["2 a, b"]);
    texts("a.tsv", "x\ta\tb\n", &columns("2", "3", "9"), &["1 a|b"]);
    texts("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": null}\n", &none, &["1 a", "2 b"]);
    texts("a.jsonl", "{\"text\": \"a\", \"text_pair\": \"b\"}\n", &none, &["1 a|b"]);
}

/// Rows of words as `line word/label word/label`.
fn show_words(row: Row) -> String {
    let Words { words, labels } = row.words.unwrap();
    assert_eq!((row.text, row.label, row.pair), (String::new(), String::new(), None));
    let pairs: Vec<String> = words.iter().zip(&labels).map(|(word, label)| format!("{word}/{label}")).collect();
    format!("{} {}", row.line, pairs.join(" "))
}

#[test]
fn lists_of_words() {
    let none = Columns::default();
    let check = |content: &str, columns: &Columns, expected: &[&str]| {
        let rows = read("a.jsonl", content.as_bytes(), columns).unwrap();
        assert_eq!(rows.into_iter().map(show_words).collect::<Vec<_>>(), expected);
    };
    let rows = "{\"text\": [\"EU\", \"\"], \"label\": [\" B-ORG \", \"O\"]}\n\n{\"text\": [\"a b\"], \"label\": [3]}\n";
    check(rows, &none, &["1 EU/B-ORG /O", "3 a b/3"]);
    let names = columns("tokens", "", "ner_tags");
    check("{\"tokens\": [\"EU\"], \"ner_tags\": [0], \"text_pair\": 1}\n", &names, &["1 EU/0"]);

    let good = "{\"text\": [\"a\", \"b\"], \"label\": [\"x\", \"y\"]}\n";
    let wrong = |row: &str, expected: &str| {
        check_error("a.jsonl", format!("{good}{row}\n").as_bytes(), &none, &format!(":2: {expected}"));
    };
    wrong("{\"text\": [\"a\"], \"label\": [\"x\", \"y\"]}", "`text` has 1, and `label` has 2 (each word has one label");
    wrong("{\"text\": [], \"label\": []}", "this row has no word (give it one");
    wrong("{\"text\": [\"a\", \"b\"], \"label\": [\"x\", \" \"]}", "word 2 of this row has no label");
    wrong("{\"text\": [\"a\"], \"label\": [null]}", "word 1 of this row has no label");
    wrong("{\"text\": [\"a\", 2], \"label\": [\"x\", \"y\"]}", "element 2 of `text` is a number; it must be a string");
    wrong("{\"text\": [\"a\"], \"label\": [[]]}", "element 1 of `label` is an array; it must be a string or a");
    wrong("{\"text\": \"a\", \"label\": \"x\"}", "`text` is a string; it must be an array (where the first");
    wrong("{\"text\": [\"a\"], \"label\": \"x\"}", "`label` is a string; it must be an array");
    wrong("{\"text\": [\"a\"]}", "there is no key `label`");
    let pair = columns("", "b", "");
    check_error("a.jsonl", good.as_bytes(), &pair, ":1: this row is a list of words, and those have no second text");
    let mixed = b"{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": [\"a\"], \"label\": [\"x\"]}\n";
    check_error("a.jsonl", mixed, &none, ":2: `text` is an array; it must be a string");
}
