#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Data sets in the forms in which they are published: `tests/data`.

use miette::Diagnostic;

use super::super::form::{Encoding, Quote};
use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// A form with these columns for text and label.
fn named(text: &str, label: &str) -> Form {
    let columns = Columns { text: Some(text.into()), label: Some(label.into()), ..Columns::default() };
    Form { columns, ..Form::default() }
}

fn read(files: &Files, form: &Form, known: Option<&[String]>, only: Option<&str>) -> Result<(Vec<Row>, Vec<String>)> {
    let mut rows = AllRows::open(files, form, Labels::Read, known, only)?;
    let mut found = Vec::new();
    loop {
        while let Some(row) = rows.next_of_file()? {
            found.push(row);
        }
        if !rows.next_file()? {
            return Ok((found, rows.notes()));
        }
    }
}

/// Rows as `line text|label`, and what was recognised.
fn shown(files: &Files, form: &Form) -> (Vec<String>, Vec<String>) {
    let (rows, notes) = read(files, form, None, None).unwrap();
    let show = |row: &Row| match &row.words {
        None => format!("{} {}|{}", row.line, row.text, row.label),
        Some(words) => {
            let pairs = words.words.iter().zip(&words.labels).map(|(word, label)| format!("{word}/{label}"));
            format!("{} {}", row.line, pairs.collect::<Vec<_>>().join(" "))
        }
    };
    (rows.iter().map(show).collect(), notes)
}

#[track_caller]
fn check_error(files: &Files, form: &Form, expected: &[&str]) {
    let error = read(files, form, None, None).expect_err("it is read");
    let text = format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default());
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn banking77() {
    let (rows, notes) = shown(&Files::One(data("banking77/train.csv")), &named("text", "category"));
    assert_eq!((rows.len(), notes.len()), (10, 0));
    assert_eq!(rows[0], "2 My new film card never came|card_arrival");
    assert_eq!(rows[3], "5 Why a \"fee\" for this transfer?|transfer_fee");
    assert_eq!(rows[5], "7 How is a pin set,\nand where|change_pin");
}

#[test]
fn sms_spam() {
    let file = Files::One(data("sms-spam/SMSSpamCollection"));
    let (rows, notes) = shown(&file, &Form::default());
    assert_eq!(rows.len(), 9);
    assert_eq!((rows[2].as_str(), rows[8].as_str()), ("3 I said \"no, it is dull|ham", "9 \"Very funny|ham"));
    assert_eq!(
        notes,
        [
            "SMSSpamCollection: column 1 is taken for the label and column 2 for the text (columns = { text = \"2\", label = \"1\" })"
        ]
    );
    // Said, it is the same, and nothing needs to be.
    let (said, notes) = shown(&file, &Form { format: Some(Format::Tsv), ..named("2", "1") });
    assert_eq!((said, notes.len()), (rows, 0));
    // One row alone shows it by the classes of the training data.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test");
    std::fs::write(&path, "ham\tno\nspam\tWIN\n").unwrap();
    let known = ["ham", "spam"].map(String::from);
    let (rows, _) = read(&Files::One(path), &Form::default(), Some(&known), None).unwrap();
    assert_eq!((rows[0].text.as_str(), rows[0].label.as_str()), ("no", "ham"));
}

#[test]
fn subj() {
    let classes = [("objective", "subj/plot.tok.gt9.5000"), ("subjective", "subj/quote.tok.gt9.5000")];
    let files = Files::ByClass(classes.map(|(class, file)| (class.to_owned(), data(file))).into());
    check_error(
        &files,
        &Form::default(),
        &["plot.tok.gt9.5000:2: this line is not valid UTF-8 (", "encoding = \"latin-1\""],
    );
    let (rows, _) = shown(&files, &Form { encoding: Encoding::Latin1, ..Form::default() });
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[1], "2 a café is where the two men meet and plan the story . |objective");
    assert_eq!(rows[7], "4 smart ; and alive , the movie is a good time for all . |subjective");
    check_error(&files, &named("1", "2"), &["have their label in their name"]);
}

#[test]
fn tweeteval() {
    let (rows, notes) = shown(&Files::One(data("tweeteval/train_text.txt")), &Form::default());
    assert_eq!(rows[0], "1 @user the film was good 😀|positive");
    assert_eq!((rows.len(), rows[3].as_str()), (6, "4 a movie | on monday|neutral"));
    assert_eq!(notes, ["train_text.txt: one text a line, its label in train_labels.txt"]);
    let pair = Files::Pair { text: data("tweeteval/train_text.txt"), label: data("tweeteval/train_labels.txt") };
    assert_eq!(shown(&pair, &Form::default()), (rows, vec![]));
    let read = [data("tweeteval/train_text.txt"), data("tweeteval/train_labels.txt"), data("tweeteval/mapping.txt")];
    assert_eq!(pair.read().unwrap(), read);
    assert_eq!(Files::One(read[0].clone()).read().unwrap(), read);
    let longer = Files::Pair { text: data("tweeteval/train_text.txt"), label: data("tweeteval/val_labels.txt") };
    check_error(
        &longer,
        &Form::default(),
        &["train_text.txt:4: this text has no label: ", "val_labels.txt ends after line 3"],
    );
    let shorter = Files::Pair { text: data("tweeteval/val_text.txt"), label: data("tweeteval/train_labels.txt") };
    check_error(&shorter, &Form::default(), &["train_labels.txt: has more lines than "]);
    check_error(
        &Files::One(data("tweeteval/mapping.txt").with_file_name("val_labels.txt")),
        &Form::default(),
        &["val_labels.txt: has one text a line, and no label (name the labels' file"],
    );
}

#[test]
fn wnut17_and_conll2003() {
    let (rows, notes) = shown(&Files::One(data("wnut17/wnut17train.conll")), &Form::default());
    let wnut = [
        "1 @ann/O saw/O Ben/B-person Lee/I-person in/O Rome/B-location",
        "8 #/O the/O Red/B-group Dots/I-group play/O",
        "14 \"/O good/O film/O \"/O",
    ];
    assert_eq!((rows.as_slice(), notes.len()), (&wnut.map(String::from)[..], 0));
    for (file, what) in [("wnut17/emerging.test.annotated", 2), ("conll2003/eng.testb", 2), ("conll2003/eng.train", 3)]
    {
        let (rows, notes) = shown(&Files::One(data(file)), &Form::default());
        assert_eq!(rows.len(), what, "{file}");
        assert!(
            notes[0].ends_with("read as one word a line with its label, a blank line after each sentence"),
            "{notes:?}"
        );
    }
    let (rows, _) = shown(&Files::One(data("conll2003/eng.train")), &Form::default());
    assert_eq!(rows[1], "9 Oslo/I-LOC Bergen/B-LOC road/O");
    let (rows, _) = shown(&Files::One(data("conll2003/eng.train")), &named("1", "2"));
    assert_eq!(rows[2], "15 They/PRP won/VBD");
}

#[test]
fn emobank() {
    let mut form = named("text", "V");
    form.columns.part = Some("split".into());
    let files = Files::One(data("emobank/emobank.csv"));
    let of = |only| read(&files, &form, None, Some(only)).unwrap().0;
    assert_eq!((of("train").len(), of("dev").len(), of("test").len()), (3, 2, 2));
    let row = &of("train")[1];
    assert_eq!((row.line, row.text.as_str(), row.label.as_str()), (5, "\"Good morning,\" it said.", "3.44"));
    let error = read(&files, &form, None, Some("validation")).err().unwrap();
    assert!(error.to_string().ends_with("no row has `validation` in the column `split`"), "{error}");
    assert_eq!(error.help().unwrap().to_string(), "there are `dev`, `test`, `train`");
}

#[test]
fn ten_thousand_german_news() {
    let files = Files::One(data("10kgnad/train.csv"));
    let (rows, notes) = shown(&files, &Form::default());
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[0], "1 Rapid gewinnt; Trainer sagt 'sehr gut', und das Stadion jubelt|Sport");
    assert_eq!(rows[1], "2 Ein neuer \"Browser\" ist da, sagen Leser|Web");
    assert_eq!(
        notes[0],
        "train.csv: cells stand between semicolons (separator = \";\"), quoted cells between single quotes (quote = \"'\")"
    );
    let said = Form { separator: Some(';'), quote: Some(Quote(Some('\''))), ..named("2", "1") };
    assert_eq!(shown(&files, &said), (rows, vec![]));
    let unquoted = Form { separator: Some(';'), quote: Some(Quote(None)), ..named("2", "1") };
    check_error(&files, &unquoted, &["train.csv:2: this row has 2 cells, and the first row has 3"]);
}

#[test]
fn arrow() {
    let texts = ["1 a good film|good", "2 a bad film|bad", "3 so dull|bad", "4 we loved it|good"].map(String::from);
    assert_eq!(shown(&Files::One(data("arrow/texts")), &Form::default()), (texts.to_vec(), vec![]));
    assert_eq!(shown(&Files::One(data("arrow/splits/train")), &Form::default()).0, texts);
    // The names stand in the file too.
    let one = data("arrow/splits/train/data-00000-of-00001.arrow");
    assert_eq!(shown(&Files::One(one), &Form::default()), (texts.to_vec(), vec![]));
    let (words, _) = shown(&Files::One(data("arrow/words")), &named("tokens", "ner_tags"));
    assert_eq!(words, ["1 Ann/B-PER Lee/I-PER sang/O", "2 Yes/O"]);
    let lists = |name: &str| {
        let (rows, _) = read(&Files::One(data(name)), &named("text", "labels"), None, None).unwrap();
        rows.into_iter().map(|row| row.labels.unwrap().join("+")).collect::<Vec<_>>()
    };
    assert_eq!(lists("arrow/labels"), ["joy+fear", "", "joy"]);
    assert_eq!(lists("arrow/labels.parquet"), ["0+2", "", "0"]); // the names stand in the data set's own description
    let (file, _) = shown(&Files::One(data("arrow/file.arrow")), &named("text", "score"));
    assert_eq!(file, ["1 a good film|1.0", "2 a bad film|2.5", "3 so dull|-1.0", "4 we loved it|4.0"]);
    let (stream, notes) = shown(&Files::One(data("arrow/stream")), &Form::default());
    assert_eq!(
        (stream[3].as_str(), notes.as_slice()),
        ("4 we loved it|bad", &["stream: read as Arrow, which its content is".to_owned()][..])
    );

    check_error(
        &Files::One(data("arrow/splits")),
        &Form::default(),
        &["holds several data sets: `train`, `test`", "splits/train"],
    );
    check_error(&Files::One(data("arrow")), &Form::default(), &["holds a folder"]);
    check_error(
        &Files::One(data("arrow/texts")),
        &named("text", "gold"),
        &["there is no column `gold`; the file has `id`, `text`, `label`"],
    );
    check_error(
        &Files::One(data("arrow/texts")),
        &named("label", "text"),
        &["arrow/texts:1: `label` is a number or a boolean; it must be a string"],
    );
    let read = Files::One(data("arrow/texts")).read().unwrap();
    assert_eq!(read.len(), 4, "{read:?}");
}

/// A file in which places are sought is unpacked first.
#[test]
fn arrow_that_is_packed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow.zst");
    let file = std::fs::read(data("arrow/file.arrow")).unwrap();
    std::fs::write(&path, zstd::encode_all(file.as_slice(), 1).unwrap()).unwrap();
    let (rows, notes) = shown(&Files::One(path), &Form::default());
    assert_eq!((rows[3].as_str(), notes.len()), ("4 we loved it|bad", 0));
}

/// A damaged file is an error, wherever it is damaged.
#[test]
fn arrow_that_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["file.arrow", "stream"] {
        let whole = std::fs::read(data("arrow").join(name)).unwrap();
        for cut in (8..whole.len()).step_by(61) {
            for bytes in
                [whole[..cut].to_vec(), [&whole[..cut], &[0xa5; 9][..], &whole[(cut + 9).min(whole.len())..]].concat()]
            {
                let path = folder.path().join("a.arrow");
                std::fs::write(&path, bytes).unwrap();
                let _ = read(&Files::One(path), &Form::default(), None, None);
            }
        }
    }
}

/// Written under another name, packed or not, a file is what its content is.
#[test]
fn content_tells_what_no_name_does() {
    let folder = tempfile::tempdir().unwrap();
    let objects = "{\"text\": \"a b\", \"label\": 1}\n{\"text\": \"c\", \"label\": 0}\n";
    let array = format!("[{}]", objects.trim().replace('\n', ",\n"));
    for (content, note) in [
        ("a b\t1\nc\t0\n".to_owned(), "read as cells between tabs"),
        ("a b;1\nc;0\n".to_owned(), "cells stand between semicolons (separator = \";\")"),
        ("text|label\na b|1\nc|0\n".to_owned(), "cells stand between '|' (separator = \"|\")"),
        (objects.to_owned(), "read as JSONL, which its content is"),
        (array.clone(), "read as a JSON array, which its content is"),
        (format!("{{\"version\": 2,\n \"data\": {array}}}"), "read as JSON, which its content is"),
    ] {
        for name in ["data", "a.txt", "b.data", "c.txt.gz", "d.zst"] {
            let path = folder.path().join(name);
            let bytes = match name {
                "c.txt.gz" => {
                    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    std::io::Write::write_all(&mut packed, content.as_bytes()).unwrap();
                    packed.finish().unwrap()
                }
                "d.zst" => zstd::encode_all(content.as_bytes(), 1).unwrap(),
                _ => content.clone().into_bytes(),
            };
            std::fs::write(&path, bytes).unwrap();
            let (rows, notes) = read(&Files::One(path), &Form::default(), None, None).unwrap();
            let found: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.label.as_str())).collect();
            assert_eq!(found, [("a b", "1"), ("c", "0")], "{name}: {content}");
            assert_eq!(notes, [format!("{name}: {note}")]);
        }
    }
    // Where nothing tells, the file is one text a line, and has no labels.
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "a good film\na bad one\n").unwrap();
    check_error(&Files::One(path), &Form::default(), &["a.txt: has one text a line, and no label", "format"]);
}

#[test]
fn a_separator_is_told_by_rows_that_are_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, content: &str, expected: &[&str], noted: bool| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let (rows, notes) = shown(&Files::One(path), &Form::default());
        assert_eq!(rows, expected, "{content}");
        assert_eq!(!notes.is_empty(), noted, "{notes:?}");
    };
    check("a.csv", "text;label\na, b;1\nc;0\n", &["2 a, b|1", "3 c|0"], true);
    check("a.csv", "text\tlabel\n\"a\tb\"\t1\nc\t0\n", &["2 a\tb|1", "3 c|0"], true);
    check("a.tsv", "text,label\n\"a, b\",1\nc,0\n", &["2 a, b|1", "3 c|0"], true);
    // The file's own separator goes first, and a comma or a quote in a text is no sign of another.
    check("a.tsv", "a; b\t1\nc; d\t0\n", &["1 a; b|1", "2 c; d|0"], false);
    check("a.csv", "'twas, 1\nit's,0\n", &["1 'twas|1", "2 it's|0"], false);
    check("a.csv", "'so',1\nc,0\n", &["1 'so'|1", "2 c|0"], false);
}
