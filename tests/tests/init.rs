//! First run files: what `fthost init` makes of data as they are published, and that a plan takes it.

use std::fs;

use fthost_tests::{Workdir, root};
use serde_json::Value;

use crate::text::text_workdir;

/// The run file that is written for a file of `tests/data`, and planned.
fn draft(workdir: &Workdir, file: &str) -> String {
    let train = root().join("tests/data").join(file);
    let train = if train.exists() { train.display().to_string() } else { file.to_owned() };
    workdir.fthost(["init", &train, "--model", "model", "--out", "first.toml"]).succeeded();
    let text = fs::read_to_string(workdir.path().join("first.toml")).unwrap();
    workdir.fthost(["plan", "first.toml"]).succeeded();
    text
}

#[test]
fn published_data_get_a_run_file_that_works() {
    let check = |file: &str, expected: &[&str]| {
        let text = draft(&text_workdir(), file);
        expected.iter().for_each(|line| assert!(text.contains(line), "{file}: {line}\n{text}"));
    };
    check(
        "banking77/train.csv",
        &[
            "columns = { label = \"category\" }",
            "plugin = \"classification\"",
            "banking77/test.csv\"",
            "validation = 0.1",
        ],
    );
    check("sms-spam/SMSSpamCollection", &["columns = { text = \"2\", label = \"1\" }", "header = false", "test = 0.2"]);
    check("conll2003/eng.train", &["plugin = \"token-classification\"", "each word has a label"]);
    check("wnut17/wnut17train.conll", &["plugin = \"token-classification\""]);
    check(
        "emobank/emobank.csv",
        &[
            "split = { column = \"split\", train = \"train\", validation = \"dev\", test = \"test\" }",
            "id: another in each row",
        ],
    );
}

/// Predictions for texts in files are looked up by the files' names.
#[test]
fn texts_in_folders_are_called_by_their_files() {
    let workdir = text_workdir();
    for i in 0..40 {
        workdir
            .write(&format!("mails/{}/{i:02}.txt", if i % 2 == 0 { "ham" } else { "spam" }), "a story of some words");
    }
    let text = draft(&workdir, "mails");
    assert!(text.contains("columns = { id = \"file\" }"), "{text}");
    workdir.fthost(["first.toml", "--out", "run", "--set", "train.epochs=1"]).succeeded();
    let table = workdir.fthost(["predict", "run", "mails/spam"]).succeeded().stdout;
    assert!(table.lines().nth(1).unwrap().starts_with("1\t01.txt\t"), "{table}");
    workdir.write("new.txt", "a story\nsome words\n");
    let table = workdir.fthost(["predict", "run", "new.txt"]).succeeded().stdout;
    assert!(table.lines().nth(1).unwrap().starts_with("1\t"), "{table}");
}

#[test]
fn reasons_come_from_the_data() {
    let workdir = text_workdir();
    let rows = |n: usize| {
        (0..n).map(|i| format!("{i},a story of some {i} words,{}\n", if i % 5 == 0 { "rare" } else { "often" }))
    };
    workdir.write("train.csv", format!("id,text,label\n{}", rows(60).collect::<String>()));
    let text = draft(&workdir, "train.csv");
    for expected in [
        "class_weights = \"balanced\"",
        "`label` holds 2 classes; \"often\" stands there 48 times, \"rare\" 12",
        "columns = { id = \"id\" }",
        "max_tokens = 32",
        "# 60 rows\ntrain = \"train.csv\"",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    workdir.write(
        "scores.tsv",
        "text\tscore\n".to_owned()
            + &(0..40).map(|i| format!("a text of {i}\t{}\n", f64::from(i) / 7.0)).collect::<String>(),
    );
    fs::remove_file(workdir.path().join("first.toml")).unwrap();
    let text = draft(&workdir, "scores.tsv");
    assert!(text.contains("plugin = \"regression\"") && text.contains("columns = { label = \"score\" }"), "{text}");

    // Nothing is overwritten, and a machine gets the entries.
    let error = workdir.fthost(["init", "scores.tsv", "--out", "first.toml"]).failed(2);
    assert!(error.contains("first.toml exists already"), "{error}");
    let printed = workdir.fthost(["init", "scores.tsv", "--out", "other.toml", "--json"]).succeeded().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["entries"][0]["value"], "\"hf:sentence-transformers/all-MiniLM-L6-v2\"");
}
